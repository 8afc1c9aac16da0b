"""call_soon, call_soon_threadsafe, and the loops of other threads."""

import contextvars
import os
import signal
import socket
import sys
import threading

import pytest

import dangagreen
from dangagreen import ForeignThreadError, Loop, Socket, current_loop
from dangagreen.loop.loop import here
from tests.helpers import Reader


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


def in_thread(call, name="the other"):
    """Call it in another thread; answer what it returned or raised."""
    answers = []

    def run():
        try:
            answers.append(call())
        except Exception as error:
            answers.append(error)

    thread = threading.Thread(target=run, name=name)
    thread.start()
    thread.join(5)
    return answers[0]


def test_each_thread_has_a_loop_of_its_own(loop):
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
def test_what_changes_state_raises_in_a_foreign_thread_and_names_both(call, loop, wires, monkeypatch):
    made = []
    real = socket.socket
    monkeypatch.setattr(socket, "socket", lambda *args: made.append(real(*args)) or made[-1])
    one = Reader(wires()[0])
    error = in_thread(lambda: call(one), "the intruder")
    for sock in made:
        sock.close()
    assert isinstance(error, ForeignThreadError)
    assert "the intruder" in str(error)
    assert threading.current_thread().name in str(error)
    assert not one.closed


def test_a_write_that_would_queue_raises_in_a_foreign_thread(loop, wires):
    one = Reader(wires(4)[0])
    one.write(b"12345")
    assert one.unsent == 1
    assert isinstance(in_thread(lambda: one.write(b"6")), ForeignThreadError)
    assert one.unsent == 1


def test_a_first_write_that_the_kernel_does_not_take_whole_raises_in_a_foreign_thread(loop, wires):
    one = Reader(wires(4)[0])
    assert isinstance(in_thread(lambda: one.write(b"12345")), ForeignThreadError)


def test_call_soon_threadsafe_wakes_a_loop_that_waits(real_loop):
    ran = []
    started = threading.Event()
    real_loop.call_soon(started.set)

    def call():
        started.wait(5)
        for number in range(100):
            real_loop.call_soon_threadsafe(ran.append, number)
        real_loop.call_soon_threadsafe(real_loop.stop)

    thread = threading.Thread(target=call)
    thread.start()
    real_loop.run()
    thread.join(5)
    assert ran == list(range(100))


def test_call_soon_threadsafe_before_the_first_run_is_not_lost(real_loop):
    ran = []
    in_thread(lambda: real_loop.call_soon_threadsafe(ran.append, 1))
    in_thread(lambda: real_loop.call_soon_threadsafe(real_loop.stop))
    real_loop.run()
    assert ran == [1]


def test_two_loops_in_two_threads_run_side_by_side(loop, advance):
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


def test_a_signal_that_another_thread_receives_wakes_the_loop(real_loop):
    seen = []

    def handler(number, frame):
        seen.append(number)
        real_loop.call_soon_threadsafe(real_loop.stop)

    old = signal.signal(signal.SIGUSR1, handler)
    started = threading.Event()
    real_loop.call_soon(started.set)

    def receive():
        started.wait(5)
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    thread = threading.Thread(target=receive)
    thread.start()
    try:
        real_loop.run()
    finally:
        thread.join(5)
        signal.signal(signal.SIGUSR1, old)
    assert seen == [signal.SIGUSR1]
    assert signal.set_wakeup_fd(-1) == -1


def test_call_soon_threadsafe_in_a_signal_handler_wakes_a_loop_that_waits(real_loop):
    seen = []

    def handler(number, frame):
        seen.append(number)
        real_loop.call_soon_threadsafe(real_loop.stop)

    def kill():
        while not done.wait(0.02):  # Python may notice the first one only after the wait has ended
            os.kill(os.getpid(), signal.SIGUSR1)

    old = signal.signal(signal.SIGUSR1, handler)
    done = threading.Event()
    thread = threading.Thread(target=kill)
    thread.start()
    try:
        real_loop.run()
    finally:
        done.set()
        thread.join(5)
        signal.signal(signal.SIGUSR1, old)
    assert set(seen) == {signal.SIGUSR1}


def test_a_thread_that_calls_while_the_loop_wakes_up_does_not_cost_the_next_wake_up(real_loop, run_turns):
    ran = []

    def between_lines(frame, event, argument):
        if event == "line":
            in_thread(lambda: real_loop.call_soon_threadsafe(ran.append, "meanwhile"))
        return between_lines

    def trace(frame, event, argument):
        return between_lines if frame.f_code is Loop._was_woken.__code__ else None

    run_turns(1)
    real_loop.call_soon_threadsafe(ran.append, "first")
    sys.settrace(trace)
    try:
        run_turns(3)
    finally:
        sys.settrace(None)
    assert ran[0] == "first"
    assert "meanwhile" in ran
    run_turns(1)
    assert real_loop.poller.wait(0) == []
    real_loop.call_soon_threadsafe(ran.append, "later")
    assert len(real_loop.poller.wait(0)) == 1
    run_turns(1)
    assert ran[-1] == "later"


def test_more_calls_from_a_thread_than_any_pipe_holds_all_run(real_loop, run_turns):
    run_turns(1)
    ran = []
    in_thread(lambda: [real_loop.call_soon_threadsafe(ran.append, number) for number in range(30_000)])
    run_turns(30_000 // 64 + 2)
    assert ran == list(range(30_000))
