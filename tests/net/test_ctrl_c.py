"""Ctrl-C in whole programs: where they compute, in tight loops of the library's calls, and at moments at random."""

from __future__ import annotations

import random
import signal
import time

import pytest

from tests.helpers import first_quick
from tests.programs import PREAMBLE, ended

FUNCTIONS = (
    PREAMBLE
    + """
def compute():
    say("ready")
    while True:
        pass

def handler(sock):
    last("handler", compute)

def talk(listener):
    with d.connect(listener.address) as sock:
        sock.write_all(b"x")
        sock.read_some()

def client(listener):
    last("client", talk, listener)

def cleans_up(seconds=0.05):
    try:
        d.sleep(1e6)
    finally:
        with d.shield():
            d.sleep(seconds)
        say("finally cleaned up")
"""
)

COMPUTES = {
    "main": "d.run(last, 'main', compute)",
    "main with others": "d.run(lambda: (d.spawn(cleans_up), d.sleep(0), last('main', compute)))",
    "a task": "d.run(lambda: (d.spawn(last, 'task', compute), last('main', d.sleep, 1e6)))",
    "a task of a group": """
def main():
    with d.TaskGroup() as group:
        group.spawn(cleans_up)
        group.spawn(last, "task", compute)
d.run(last, "main", main)
""",
    "a callback": "d.run(lambda: (d.current_loop().call_soon(last, 'callback', compute), last('main', d.sleep, 1e6)))",
    "a timer": "d.current_loop().add_timer(0, lambda: last('timer', compute)); d.Socket.event_loop()",
    "top level": "d.spawn(last, 'task', compute); last('main', d.sleep, 1e6)",
    "a handler": """
def main():
    listener = d.serve(("127.0.0.1", 0), handler)
    d.spawn(client, listener)
    last("main", d.sleep, 1e6)
d.run(main)
""",
    "a handler under serve_forever": """
def main():
    listener = d.serve(("127.0.0.1", 0), handler)
    d.spawn(client, listener)
    last("main", d.serve_forever, listener)
d.run(main)
""",
    "a callback under serve_forever": """
d.current_loop().call_soon(last, "callback", compute)
last("main", d.serve_forever, d.serve(("127.0.0.1", 0), handler))
""",
    "the standard library": """
def main():
    say("ready")
    while True:
        re.sub("a", lambda match: "b", "aa" * 9)
import re
d.run(last, 'main', main)
""",
}
TIGHT = {
    "write": "sock.write(b'x')",
    "queue": "queue.put_nowait(1), queue.get_nowait()",
    "event": "event.set(), event.clear()",
    "call_soon": "d.current_loop().add_timer(9, print).cancel()",
    "task_table": "d.task_table()",
    "as_string": "repr(sock)",
}


@pytest.fixture
def started(started):
    """Starts a process with the preamble before its program."""
    return lambda program, *arguments: started(FUNCTIONS + program, *arguments)


@pytest.mark.parametrize("program", first_quick(COMPUTES.values(), 1), ids=COMPUTES)
def test_one_ctrl_c_ends_a_program_that_computes(started, program):
    process = started(program)
    process.send_signal(signal.SIGINT)
    out, err, code = ended(process)
    wanted = {
        word
        for word in ("main", "task", "callback", "timer", "client")
        if f'"{word}"' in program or f"'{word}'" in program
    }
    wanted |= {"client", "handler"} if "client" in program else set()
    wanted |= {"cleaned up"} if "cleans_up" in program else set()
    assert {line.removeprefix("finally ") for line in out} - {"ready"} == wanted
    assert "KeyboardInterrupt\n" in err
    assert code == -signal.SIGINT


@pytest.mark.parametrize("call", first_quick(TIGHT.values(), 1), ids=TIGHT)
@pytest.mark.parametrize("where", ["main", "callback"])
def test_one_ctrl_c_ends_a_loop_of_the_librarys_calls(started, call, where):
    """Wherever it strikes, it is raised when that call has returned, at the latest."""
    process = started(f"""
def tight():
    near, far = socket.socketpair()
    sock, queue, event = d.Socket(near), d.Queue(), d.Event()
    say("ready")
    while True:
        {call}

def main():
    if {where!r} == "main":
        last("tight", tight)
    d.current_loop().call_soon(last, "tight", tight)
    last("main", d.sleep, 1e6)

d.run(main)
""")
    process.send_signal(signal.SIGINT)
    out, err, code = ended(process)
    assert out == ["finally tight"] + ["finally main"] * (where == "callback")
    assert "KeyboardInterrupt\n" in err
    assert code == -signal.SIGINT


AT_INPUT = ["d.Socket.add_other_fds({near.fileno(): computes})", "sock.watch_read(True)"]


@pytest.mark.parametrize("program", first_quick(AT_INPUT, 1))
def test_a_callback_that_computes_before_it_has_read_is_not_called_again_while_the_program_ends(started, program):
    process = started(f"""
def computes(_event=None):
    last("callback", compute)

class Sock(d.Socket):
    event_read = computes

near, far = socket.socketpair()
sock = Sock(near) if {program!r}.startswith("sock") else None
far.send(b"x")

def main():
    d.spawn(cleans_up)
    {program}
    last("main", d.sleep, 1e6)

d.run(main)
""")
    process.send_signal(signal.SIGINT)
    out, err, code = ended(process)
    assert sorted(out) == ["finally callback", "finally cleaned up", "finally main"]
    assert "KeyboardInterrupt\n" in err
    assert code == -signal.SIGINT


def test_one_ctrl_c_ends_a_loop_of_the_librarys_calls_under_serve_forever(started):
    process = started("""
def tight():
    sock = d.Socket(socket.socketpair()[0])
    say("ready")
    while True:
        sock.as_string()

d.current_loop().call_soon(last, "tight", tight)
last("main", d.serve_forever, d.serve(("127.0.0.1", 0), handler))
""")
    process.send_signal(signal.SIGINT)
    out, err, code = ended(process)
    assert out == ["finally tight", "finally main"]
    assert "KeyboardInterrupt\n" in err
    assert code == -signal.SIGINT


@pytest.mark.slow
def test_ctrl_c_under_serve_forever_strikes_no_piece_of_a_long_turn_that_is_short_itself(started):
    process = started("""
import time

def piece():
    end = time.monotonic() + 0.03
    while time.monotonic() < end:
        sum(range(100))

def many():
    for _ in range(30):
        d.current_loop().call_soon(piece)
    d.current_loop().call_soon(say, "all of them")
    d.current_loop().call_soon(d.current_loop().call_soon, say, "the next turn")
    say("ready")

d.current_loop().call_soon(many)
last("main", d.serve_forever, d.serve(("127.0.0.1", 0), handler))
""")
    process.send_signal(signal.SIGINT)
    assert ended(process) == (["all of them", "the next turn", "finally main"], "", 0)


def test_ctrl_c_while_a_server_is_busy_with_short_requests_drains(started):
    process = started("""
def handler(sock):
    for line in sock:
        sum(range(20000))
        sock.write_all(line)

def client(listener):
    with d.connect(listener.address) as sock:
        try:
            while True:
                sock.write_all(b"x\\n")
                if not sock.read_line():
                    break
        except ConnectionError:
            pass

def main():
    listener = d.serve(("127.0.0.1", 0), handler)
    for _ in range(3):
        d.spawn(client, listener)
    d.current_loop().add_timer(0.05, lambda: say("ready"))
    d.serve_forever(listener, grace=5)
    say("drained")

d.run(main)
""")
    process.send_signal(signal.SIGINT)
    assert ended(process) == (["drained"], "", 0)


RANDOM = """
import random, threading, time

def worker(number):
    say(f"begin {number}")
    try:
        queue, lock = d.Queue(2), d.Lock()
        while True:
            kind = random.randrange(6)
            if kind == 0:
                d.sleep(0)
            elif kind == 1:
                with d.move_on_after(0.001), lock:
                    queue.put(1)
            elif kind == 2:
                with d.TaskGroup() as group:
                    for _ in range(3):
                        group.spawn(d.sleep, 0.0001)
            elif kind == 3:
                sum(range(1000))
            elif kind == 4:
                with d.connect(address) as sock:
                    sock.write_all(b"hello\\n")
                    sock.read_line()
            else:
                d.current_loop().call_soon(sum, range(500))
                d.spawn(int).join()
            queue = d.Queue(2)
    finally:
        with d.shield():
            d.sleep(0.001)
        say(f"end {number}")

def echo(sock):
    for line in sock:
        sock.write_all(line)

def main():
    global address
    listener = d.serve(("127.0.0.1", 0), echo)
    address = listener.address
    say("begin main")
    try:
        with d.TaskGroup() as group:
            for number in range(5):
                group.spawn(worker, number)
            d.sleep(0.02)
            say("ready now")
    finally:
        say("end main")

say("ready")
if sys.argv[1] == "run":
    d.run(main)
else:
    main()
"""


@pytest.mark.parametrize("where", ["run", "top level"])
@pytest.mark.parametrize("seed", first_quick(range(6), 1))
def test_ctrl_c_at_any_moment_ends_the_program_and_runs_every_finally(started, where, seed):
    chance = random.Random(seed)
    process = started(RANDOM, where)
    while (line := process.stdout.readline()) != "ready now\n":
        assert line.startswith("begin")
    time.sleep(chance.random() / 20)
    process.send_signal(signal.SIGINT)
    out, err, code = ended(process)
    assert sorted(out) == sorted(["end main", *(f"end {number}" for number in range(5))]), err
    assert "KeyboardInterrupt" in err
    assert code == -signal.SIGINT, err
