"""Lints of turns: callbacks that are called for nothing, and such as call themselves."""

from __future__ import annotations

import pytest

from tests.introspect.seeing import finds, finds_nothing

pytestmark = pytest.mark.slow_but_first  # each starts a program

LAZY = """
ours, theirs = wire()
class Lazy(d.Socket):
    __slots__ = ()
    def event_read(self):  # HERE
        pass
"""
SPIN = """
    time_passes()
    d.sleep(30)
    sock.close()
    theirs.close()
"""


@pytest.mark.parametrize("limit", [None, 1000.0], ids=["", "with an idle timeout"])
def test_an_event_read_that_does_not_read(limit):
    finds(
        "idle-wake",
        LAZY
        + f"""
Lazy.idle_timeout = {limit}
def main():
    sock = Lazy(ours)
    sock.watch_read(True)
    theirs.send(b"hello")
{SPIN}""",
        "event_read of Lazy, the connection with 10.0.0.2:",
        "was called 1000 times in a row, and has read nothing",
    )


def test_an_event_read_that_does_not_read_the_end():
    finds(
        "idle-wake",
        LAZY
        + f"""
def main():
    sock = Lazy(ours)
    sock.watch_read(True)
    theirs.shutdown(1)
{SPIN}""",
        "has read nothing, though there is input, or its end",
    )


@pytest.mark.parametrize("how", ["self.read(1)", "self.read_into(bytearray(1))", "self.sock.recv(1)"])
@pytest.mark.parametrize("limit", [None, 1000.0], ids=["", "with an idle timeout"])
def test_an_event_read_that_reads_little(how, limit):
    finds_nothing(
        LAZY.replace("pass", how)
        + f"""
import socket
ours, theirs = socket.socketpair()
Lazy.idle_timeout = {limit}
def main():
    sock = Lazy(ours)
    sock.watch_read(True)
    theirs.send(b"h" * 2500)
{SPIN}"""
    )


def test_a_listening_socket_of_ones_own():
    finds_nothing("""
import socket
listening = socket.create_server(("127.0.0.1", 0), backlog=2000)
accepted = []
class Own(d.Socket):
    __slots__ = ()
    def event_read(self):
        accepted.append(self.sock.accept()[0])
def main():
    sock = Own(listening)
    sock.watch_read(True)
    clients = []
    for _ in range(1100):  # each turn accepts one, and finds one more
        clients.append(socket.socket())
        clients[-1].setblocking(False)
        clients[-1].connect_ex(listening.getsockname())
        if len(clients) > 5:
            d.sleep(0)
    assert sock._read_error is None
    for one in [*clients, *accepted]:
        one.close()
    d.sleep(1)
    sock.close()
    for one in accepted:
        one.close()
""")


FOREIGN = """
import socket
def pair():
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        return ours, server.accept()[0]
ours, theirs = pair()
def end():
    loop.remove_other_fd(ours.fileno())
    ours.close()
    theirs.close()
"""


@pytest.mark.parametrize("there", ["send(b'hello')", "shutdown(1)"])
def test_a_callback_of_an_fd_that_does_not_read(there):
    finds(
        "idle-wake",
        FOREIGN
        + f"""
def ready(mask):  # HERE
    pass
def main():
    theirs.{there}
    loop.add_other_fds({{ours.fileno(): ready}})
    time_passes()
    d.sleep(30)
    end()
""",
        "the callback of fd",
    )


def test_a_callback_of_an_fd_that_reads_while_as_much_comes():
    finds_nothing(
        FOREIGN
        + """
def ready(mask):
    ours.recv(1)
def main():
    theirs.send(b"hello")
    loop.add_other_fds({ours.fileno(): ready})
    each_turn_brings(theirs, b"x")
    end()
"""
    )


@pytest.mark.parametrize("how", ["self.read(7)", "self.sock.recv(7)"])
def test_an_event_read_that_is_called_for_each_request(how):
    finds_nothing(
        LAZY.replace("pass", how)
        + FOREIGN
        + f"""
def main():
    sock = Lazy(ours)
    sock.watch_read(True)
    theirs.send(b"request")
    each_turn_brings(theirs, b"request")
{SPIN}"""
    )


def test_an_event_write_that_does_not_write():
    finds(
        "idle-wake",
        LAZY.replace("event_read(self):  # HERE", "event_write(self):  # HERE")
        + f"""
def main():
    sock = Lazy(ours)
    sock.watch_write(True)
{SPIN}""",
        "event_write of Lazy",
        "watch_write(False)",
    )


@pytest.mark.parametrize("how", ["write", "write_soon", "sock.send"])
def test_an_event_write_that_writes(how):
    finds_nothing(
        LAZY.replace("event_read(self):", "event_write(self):").replace("pass", f"self.{how}(b'x')")
        + f"""
def main():
    sock = Lazy(ours)
    sock.watch_write(True)
    def read(*_maps):
        theirs.recv(99)
        return loop.clock.jump(0.01) or True
    d.sleep(0)
    loop.post_loop_callback = read
    d.sleep(30)
    loop.post_loop_callback = None
{SPIN}"""
    )


TICK = """
stop = []
class Pool:
    def tick(self):  # HERE
        if not stop:
            loop.call_soon(self.tick)
"""


def test_a_callback_that_calls_itself():
    finds(
        "self-wake",
        TICK
        + """
def main():
    time_passes()
    Pool().tick()
    d.sleep(30)
    stop.append(1)
""",
        "the callback Pool.tick calls itself: 1000 turns of the loop in 10.0 s",
    )


def test_a_timer_of_no_time_that_sets_itself():
    finds(
        "self-wake",
        TICK.replace("call_soon(", "add_timer(0, ")
        + """
def main():
    time_passes()
    Pool().tick()
    d.sleep(30)
    stop.append(1)
""",
        "the callback Pool.tick calls itself",
    )


def test_a_function_that_is_made_anew_each_time():
    finds(
        "self-wake",
        """
stop = []
def tick():
    if not stop:
        loop.call_soon(lambda: tick())  # HERE
def main():
    time_passes()
    tick()
    d.sleep(30)
    stop.append(1)
""",
    )


@pytest.mark.parametrize(
    ("work", "again"),
    [
        ("loop.clock.jump(0.001)", "call_soon(self.tick)"),  # a computation in pieces
        ("pass", "add_timer(0.1, self.tick)"),
        ("theirs.send(b'x') and None", "call_soon(self.tick)"),  # there are events meanwhile
    ],
    ids=["pieces", "a timer", "events"],
)
def test_callbacks_that_work_or_wait(work, again):
    finds_nothing(f"""
ours, theirs = wire()
stop = []
class Reading(d.Socket):
    __slots__ = ()
    def event_read(self):
        self.read(9)
class Pool:
    def tick(self):
        {work}
        if not stop:
            loop.{again}
def main():
    sock = Reading(ours)
    sock.watch_read(True)
    time_passes()
    Pool().tick()
    d.sleep(30)
    stop.append(1)
    d.sleep(1)
    sock.close()
    theirs.close()
""")


def test_a_call_at_each_event_does_not_call_itself():
    finds_nothing("""
ours, theirs = wire()
served = []
class Asking(d.Socket):
    __slots__ = ()
    def event_read(self):
        self.read(9)
        loop.call_soon(self.later)
    def later(self):
        served.append(1)
def main():
    sock = Asking(ours)
    sock.watch_read(True)
    each_turn_brings(theirs, b"x")
    sock.close()
    theirs.close()
""")
