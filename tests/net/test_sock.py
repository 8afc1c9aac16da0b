"""One connection in both styles: from one to the other and back, and when serve_requests starts its handler."""

from __future__ import annotations

import socket

import pytest

import dangagreen as d
from dangagreen.green.sched import scheduler
from tests.connections import STYLES, Echo, ask, echo_lines, echo_one_line

styles = pytest.mark.parametrize(
    ("server", "handler"),
    [*STYLES.values(), (d.serve_requests, echo_lines)],
    ids=[*STYLES, "requests-loop"],
)


class Both(Echo):
    """In callback style it answers in capitals; "task" starts a dialogue."""

    __slots__ = ("count",)

    def event_read(self):
        data = self.read(4096)
        if data is None:
            self.close()
        else:
            self.write(data.upper())


def test_a_handler_that_watches_reading_leaves_a_connection_in_callback_style(real_loop, served, client, wait_for):
    def handler(sock):
        sock.write_all(b"hello " + sock.read_line())
        sock.watch_read(True)

    listener = served(handler, socket_class=Both)
    sock = client(listener)
    sock.write_all(b"me\nthe rest\n")
    assert sock.read_line() == b"hello me\n"
    assert sock.read_line() == b"THE REST\n"
    assert not scheduler(real_loop).tasks
    assert ask(sock, b"more\n") == b"MORE\n"
    assert listener.connections == 1
    sock.close()
    wait_for(lambda: not listener.connections)


def test_a_connection_goes_back_and_forth_between_the_styles(real_loop, served, client):
    class Switch(d.Socket):
        __slots__ = ()

        def event_read(self):
            data = self.read(4)
            if data is None:
                self.close()
            elif data == b"task":
                self.watch_read(False)
                d.spawn(dialogue, self)
            else:
                self.write(b"<" + data + b">")

    def dialogue(sock):
        line = sock.read_line()
        sock.write_all(b"[" + line[:-1] + b"]")
        sock.watch_read(True)

    sock = client(served(dialogue, socket_class=Switch))
    sock.write_all(b"hi\nabcdtask one\nefghtask two\nijkl")
    assert sock.read_exactly(32) == b"[hi]<abcd>[ one]<efgh>[ two]<ijkl>"[:32]
    assert sock.read_exactly(2) == b"l>"


def test_an_idle_connection_holds_no_task(real_loop, served, client, wait_for):
    socks = [client(served(echo_one_line, d.serve_requests)) for _ in range(3)]
    for sock in socks:
        assert ask(sock, b"x\n") == b"x\n"
    assert not scheduler(real_loop).tasks


def test_an_idle_connection_is_not_started_without_input(real_loop, served, client, run_turns):
    started = []
    listener = served(started.append, d.serve_requests)
    client(listener)
    run_turns(10)
    assert listener.connections == 1
    assert started == []


def test_state_between_requests_lives_in_slots(real_loop, served, client):
    class Counting(d.Socket):
        __slots__ = ("count",)

        def __init__(self, sock):
            super().__init__(sock)
            self.count = 0

    def handler(sock):
        if sock.read_line():
            sock.count += 1
            sock.write_all(b"%d\n" % sock.count)

    listener = served(handler, d.serve_requests, socket_class=Counting)
    one, two = client(listener), client(listener)
    assert [ask(one, b"\n") for _ in range(3)] == [b"1\n", b"2\n", b"3\n"]
    assert ask(two, b"\n") == b"1\n"


def test_input_already_buffered_starts_the_handler_again_at_once(real_loop, served, client):
    runs = []

    def handler(sock):
        runs.append(sock)
        echo_one_line(sock)

    sock = client(served(handler, d.serve_requests))
    sock.write_all(b"1\n2\n3\n")
    assert sock.read_exactly(6) == b"1\n2\n3\n"
    assert len(runs) == 3


def test_half_a_request_keeps_its_handler_waiting_and_no_second_one_starts(real_loop, served, client, run_turns):
    runs = []

    def handler(sock):
        runs.append(sock)
        echo_one_line(sock)

    sock = client(served(handler, d.serve_requests))
    for piece in (b"ha", b"lf", b" a li"):
        sock.write_all(piece)
        sock.drain()
        run_turns(5)
    assert len(runs) == 1
    assert ask(sock, b"ne\n") == b"half a line\n"


def test_a_request_that_comes_while_the_handler_is_busy_waits_for_it(real_loop, served, client):
    gate = []
    running = []

    def handler(sock):
        line = sock.read_line()
        if not line:
            return
        running.append(line)
        assert len(running) == 1
        while not gate:
            d.sleep(0.001)
        running.remove(line)
        sock.write_all(line)

    sock = client(served(handler, d.serve_requests))
    for line in (b"1\n", b"2\n", b"3\n"):
        sock.write_all(line)
        sock.drain()
        while not running:
            d.sleep(0.001)
        d.sleep(0.005)
    assert running == [b"1\n"]
    gate.append(True)
    assert sock.read_exactly(6) == b"1\n2\n3\n"


def test_a_socket_class_acts_in_callback_style_for_a_while(real_loop, served, client):
    class Mixed(d.Socket):
        __slots__ = ("muted",)

        def __init__(self, sock):
            super().__init__(sock)
            self.muted = False

        def event_read(self):
            if not self.muted:
                super().event_read()
                return
            data = self.read(7)
            if data is None:
                self.close()
            elif data == b"unmute\n":
                self.muted = False
                self.write(b"unmuted\n")

    def handler(sock):
        line = sock.read_line()
        if line == b"mute\n":
            sock.muted = True
        sock.write_all(line)

    sock = client(served(handler, d.serve_requests, socket_class=Mixed))
    assert ask(sock, b"hello\n") == b"hello\n"
    assert ask(sock, b"mute\n") == b"mute\n"
    sock.write_all(b"ignored")
    assert ask(sock, b"unmute\n") == b"unmuted\n"
    assert ask(sock, b"again\n") == b"again\n"
    sock.write_all(b"mute\nignoredunmute\nback\n")
    assert [sock.read_line() for _ in range(3)] == [b"mute\n", b"unmuted\n", b"back\n"]


def test_super_event_read_after_reading_hands_over_what_was_pushed_back(real_loop, served, client):
    class Peeking(d.Socket):
        __slots__ = ()

        def event_read(self):
            data = self.read(100)
            if data is None:
                self.close()
            elif data:
                self.push_back_read(data)
                super().event_read()

    sock = client(served(echo_one_line, d.serve_requests, socket_class=Peeking))
    sock.write_all(b"one\ntwo\n")
    assert sock.read_exactly(8) == b"one\ntwo\n"
    assert ask(sock, b"three\n") == b"three\n"


@pytest.mark.parametrize("server", [d.serve, d.serve_requests])
def test_a_hang_up_while_the_handler_is_busy_elsewhere_costs_no_bytes(real_loop, served, client, wait_for, server):
    got = []
    peer_gone = []

    def handler(sock):
        got.append(sock.read_line())
        while not peer_gone:
            d.sleep(0.001)
        d.sleep(0.01)
        got.append(sock.read_line())
        got.append(sock.read_line())

    listener = served(handler, server)
    sock = client(listener)
    sock.write_all(b"first\n")
    wait_for(lambda: got)
    with sock:
        sock.write_all(b"second\n")
    peer_gone.append(True)
    wait_for(lambda: not listener.connections)
    assert got == [b"first\n", b"second\n", b""]


@pytest.mark.parametrize("server", [d.serve, d.serve_requests])
def test_a_hang_up_of_a_unix_peer_while_the_handler_is_busy_does_not_spin(
    loop, served, client, wait_for, tmp_path, server
):
    got = []

    def handler(sock):
        got.append(sock.read_line())
        d.sleep(100)
        got.append(sock.read_to_end())

    listener = served(handler, server, address=tmp_path / "socket")
    sock = client(listener)
    sock.write_all(b"first\nsecond\n")
    wait_for(lambda: got)
    sock.close()
    d.sleep(1)
    before = loop.poller.waits
    d.sleep(90)
    assert loop.poller.waits - before < 10
    wait_for(lambda: not listener.connections)
    assert got == [b"first\n", b"second\n"]


def test_a_handler_that_consumes_nothing_does_not_starve_the_others(real_loop, served, client):
    served_other = []
    runs = []

    def lazy(sock):
        runs.append(sock)
        if served_other or len(runs) > 10000:
            sock.close()

    lazy_one, other = client(served(lazy, d.serve_requests)), client(served(echo_lines))
    lazy_one.write_all(b"x")
    lazy_one.drain()
    assert ask(other, b"served\n") == b"served\n"
    served_other.append(True)
    assert lazy_one.read_to_end() == b""
    assert 0 < len(runs) < 10000


def test_a_handler_that_ignores_the_end_is_not_started_for_ever(loop, served, client, wait_for):
    runs = []
    listener = served(runs.append, d.serve_requests)
    sock = client(listener)
    d.sleep(1)
    sock.close()
    d.sleep(10)
    assert len(runs) <= 1
    assert listener.connections == 0


@pytest.mark.parametrize("reads_first", [True, False])
def test_in_sequential_style_a_hang_up_calls_no_hook(real_loop, served, client, wait_for, reads_first):
    hooks = []
    got = []
    gone = []

    class Hooked(d.Socket):
        __slots__ = ()

        def event_hup(self):
            hooks.append("hup")

        def event_err(self):
            hooks.append("err")

        def event_read(self):
            hooks.append("read")

    def handler(sock):
        got.append(sock.read_line() if reads_first else b"")
        while not gone:
            d.sleep(0.001)
        d.sleep(0.005)
        assert not sock.closed
        with pytest.raises(ConnectionError):
            sock.read_line()

    listener = served(handler, socket_class=Hooked)
    sock = client(listener)
    if reads_first:
        sock.write_all(b"x\n")
    wait_for(lambda: got)
    sock.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()
    gone.append(True)
    wait_for(lambda: not listener.connections)
    assert hooks == []


def test_a_peer_that_never_closes_is_let_go_after_a_while(loop, served, client):
    listener = served(lambda sock: sock.write_all(b"bye"))
    sock = client(listener)
    assert sock.read_exactly(3) == b"bye"
    assert listener.connections == 1
    d.sleep(60)
    assert listener.connections == 0
