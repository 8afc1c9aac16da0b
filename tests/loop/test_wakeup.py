"""The pair of sockets by which threads and signal handlers wake a loop: none is lost, whenever it comes."""

import gc
import itertools
import os
import signal
import sys
import threading
import weakref

from dangagreen import Loop
from dangagreen.loop.wakeup import WakeupPair


def test_call_soon_threadsafe_wakes_a_loop_that_waits(real_loop):
    ran = []
    started = threading.Event()
    real_loop.call_soon(started.set)

    def call():
        started.wait(30)
        for number in range(100):
            real_loop.call_soon_threadsafe(ran.append, number)
        real_loop.call_soon_threadsafe(real_loop.stop)

    thread = threading.Thread(target=call)
    thread.start()
    real_loop.run()
    thread.join(30)
    assert ran == list(range(100))


def test_a_signal_that_another_thread_receives_wakes_the_loop(real_loop):
    seen = []

    def handler(number, frame):
        seen.append(number)
        real_loop.call_soon_threadsafe(real_loop.stop)

    old = signal.signal(signal.SIGUSR1, handler)
    started = threading.Event()
    real_loop.call_soon(started.set)

    def receive():
        started.wait(30)
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    thread = threading.Thread(target=receive)
    thread.start()
    try:
        real_loop.run()
    finally:
        thread.join(30)
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
        thread.join(30)
        signal.signal(signal.SIGUSR1, old)
    assert set(seen) == {signal.SIGUSR1}


def test_a_thread_that_calls_while_the_loop_wakes_up_does_not_cost_the_next_wake_up(real_loop, run_turns, in_thread):
    ran = []

    def between_lines(frame, event, argument):
        if event == "line":
            in_thread(lambda: real_loop.call_soon_threadsafe(ran.append, "meanwhile"))
        return between_lines

    def trace(frame, event, argument):
        return between_lines if frame.f_code is WakeupPair._was_woken.__code__ else None

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


def test_more_calls_from_a_thread_than_any_pipe_holds_all_run(real_loop, run_turns, in_thread):
    run_turns(1)
    ran = []
    in_thread(lambda: [real_loop.call_soon_threadsafe(ran.append, number) for number in range(30_000)])
    turns = itertools.count()
    real_loop.run(lambda: len(ran) == 30_000 or next(turns) > 30_000)  # a turn is short on a machine that is busy
    assert ran == list(range(30_000))


def test_a_loop_that_is_forgotten_without_being_closed_leaves_no_descriptor_behind():
    loop = Loop()
    pair = WakeupPair(loop)
    ends = pair.ends
    reference = weakref.ref(loop)
    del loop, pair
    gc.collect()
    assert reference() is None
    assert [end.fileno() for end in ends] == [-1, -1]


def test_one_byte_is_on_its_way_at_most(real_loop, run_turns):
    run_turns(1)
    pair = real_loop.wakeup_pair
    for _ in range(5):
        pair.wake()
    assert pair.awake
    assert pair.ends[0].recv(100) == b"\0"
