"""call_soon, call_soon_threadsafe, and the loops of other threads."""

import contextvars
import re
import socket
import threading

import pytest

import dangagreen
from dangagreen import ForeignThreadError, Socket, current_loop
from dangagreen.loop.loop import here
from tests.connections import Reader


def test_call_soon_runs_calls_in_order_and_those_added_meanwhile_in_the_next_turn(loop, run_turns):
    ran = []

    def first():
        ran.append(1)
        loop.call_soon(ran.append, 3)

    loop.call_soon(first)
    loop.call_soon(ran.append, 2)
    run_turns(1)
    assert ran == [1, 2]
    run_turns(1)
    assert ran == [1, 2, 3]


def test_a_call_soon_that_goes_on_for_ever_does_not_starve_sockets_and_timers(loop, wires, advance):
    def again():
        if len(collector.data) < 3:
            loop.call_soon(again)
            peer.send(b"x")

    sock, peer = wires()
    collector = Reader(sock)
    collector.watch_read(True)
    loop.call_soon(again)
    advance(1)
    assert collector.data.startswith(b"xxx")


def test_callbacks_run_in_the_context_they_were_made_in(loop, wires, run_turns, advance):
    variable = contextvars.ContextVar("variable", default="none")
    seen = []

    class Watching(Reader):
        __slots__ = ()

        def event_read(self):
            seen.append(("read", variable.get()))
            super().event_read()

    sock, peer = wires()
    token = variable.set("mine")
    Watching(sock).watch_read(True)
    loop.add_timer(1, lambda: seen.append(("timer", variable.get())))
    loop.call_soon(lambda: seen.append(("call_soon", variable.get())))
    variable.reset(token)
    peer.send(b"x")
    advance(2)
    assert sorted(seen) == [("call_soon", "mine"), ("read", "mine"), ("timer", "mine")]


@pytest.mark.parametrize("days", [30, 365, 365000, float("inf")])
def test_a_timer_far_ahead_does_not_break_the_wait(days, real_loop, unix_pair, run_turns):
    sock, peer = unix_pair()
    one = Reader(sock)
    one.watch_read(True)
    run_turns(1)
    peer.send(b"x")
    far = real_loop.add_timer(days * 86400.0, lambda: None)
    turns = iter(range(10))
    real_loop.run(lambda: bool(one.data) or next(turns, None) is None)
    far.cancel()
    assert one.data == b"x"


# -- threads


def test_each_thread_has_a_loop_of_its_own(loop, in_thread):
    def other():
        mine = current_loop()
        same = mine is current_loop()
        mine.close()
        return mine, same

    mine, same = in_thread(other)
    assert current_loop() is loop
    assert same
    assert mine is not loop


@pytest.mark.parametrize(
    "call",
    [
        lambda sock: sock.loop.call_soon(print),
        lambda sock: sock.loop.add_timer(1, print),
        lambda sock: sock.loop.add_other_fds({0: print}),
        lambda sock: sock.watch_read(True),
        lambda sock: sock.watch_read(False),
        lambda sock: sock.watch_write(True),
        lambda sock: sock.push_back_read(b"x"),
        lambda sock: sock.write_soon(b"x"),
        lambda sock: sock.write(lambda: None),
        lambda sock: sock.finish(),
        lambda sock: sock.steal_socket(),
        lambda sock: sock.close(),
        lambda sock: Socket(socket.socket(), sock.loop),
    ],
)
def test_what_changes_state_raises_in_a_foreign_thread_and_names_both(call, loop, wires, monkeypatch, in_thread):
    made = []
    real = socket.socket
    monkeypatch.setattr(socket, "socket", lambda *args: made.append(real(*args)) or made[-1])
    one = Reader(wires()[0])
    with pytest.raises(ForeignThreadError, match="the other one") as raised:
        in_thread(call, one)
    for sock in made:
        sock.close()
    assert threading.current_thread().name in str(raised.value)
    assert not one.closed


def test_a_write_that_would_queue_raises_in_a_foreign_thread(loop, wires, in_thread):
    one = Reader(wires(4)[0])
    one.write(b"12345")
    assert one.unsent == 1
    with pytest.raises(ForeignThreadError):
        in_thread(one.write, b"6")
    assert one.unsent == 1


def test_a_first_write_that_the_kernel_does_not_take_whole_raises_in_a_foreign_thread(loop, wires, in_thread):
    one = Reader(wires(4)[0])
    with pytest.raises(ForeignThreadError):
        in_thread(one.write, b"12345")


def test_call_soon_threadsafe_before_the_first_run_is_not_lost(real_loop, in_thread):
    ran = []
    in_thread(real_loop.call_soon_threadsafe, ran.append, 1)
    in_thread(real_loop.call_soon_threadsafe, real_loop.stop)
    real_loop.run()
    assert ran == [1]


def test_two_loops_in_two_threads_run_side_by_side(loop, advance, in_thread):
    def other():
        mine = dangagreen.Loop()
        here.loop = mine
        ran = []
        Socket.add_timer(0.001, lambda: ran.append(current_loop() is mine) or mine.stop())
        Socket.event_loop()
        mine.close()
        return ran

    answers = []
    loop.call_soon(lambda: answers.append(in_thread(other)))
    advance(1)
    assert answers == [[True]]


@pytest.mark.parametrize(
    ("call", "instead"),
    [
        (lambda sock: sock.write_all, "from_thread(sock.write_all, data)"),  # its frame is next to ours
        (lambda sock: lambda data: sock.write_all(data), "from_thread(sock.write_all, data)"),
        (lambda sock: lambda _: sock.close(), "from_thread(sock.close)"),
        (lambda sock: lambda _: in_a_loop(lambda: sock.close()), "loop.call_soon_threadsafe(sock.close)"),
    ],
    ids=["itself", "inside", "plain", "in a loop"],
)
def test_a_function_of_in_thread_is_told_of_from_thread(real_loop, unix_pair, call, instead):
    sock = Socket(unix_pair()[0])
    with pytest.raises(ForeignThreadError) as raised:
        dangagreen.in_thread(call(sock), b"x")
    if dangagreen.compiled:  # no frame of a method tells whose it is, and what it is given
        instead = re.sub(r"\(sock\.(\w+).*\)", r"(\1)", instead)
    assert str(raised.value).endswith(f": use {instead}")
    sock.close()


def in_a_loop(callback):
    """Call it in a callback of a loop of this thread, which no call may block."""
    with dangagreen.Loop() as mine:
        errors = []
        mine.on_error = errors.append
        mine.call_soon(callback)
        mine.turn()
    raise errors[0].exception
