"""on_signal and signals: who is called, in what order and where; what is put back, and what they live with."""

from __future__ import annotations

import contextvars
import gc
import logging
import os
import signal
import threading

import pytest

import dangagreen as d
from dangagreen.loop.loop import Loop
from tests.helpers import end_of, joined, outcome
from tests.programs import run_python

USR1, USR2, TERM = signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM


@pytest.fixture(autouse=True)
def as_before():
    """Handlers that tests of this file must find, and leave, as they are."""
    numbers = (USR1, USR2, TERM, signal.SIGINT, signal.SIGHUP)

    def mine(number, frame):
        raise AssertionError(f"nobody has replaced the handler of {number}")

    at_first = {number: signal.getsignal(number) for number in numbers}
    for number in (USR1, USR2):
        signal.signal(number, mine)
    before = {number: signal.getsignal(number) for number in numbers}
    yield mine
    assert {number: signal.getsignal(number) for number in numbers} == before
    for number, handler in at_first.items():
        signal.signal(number, handler)


def raised(number):
    """The signal has come to this process, and the loop has had its turn."""
    signal.raise_signal(number)
    d.sleep(0)
    d.sleep(0)


# -- on_signal


def test_it_is_called_from_the_loop_with_the_number(loop):
    called = []

    def callback(number):
        called.append((number, d.current_task(), loop.running))
        with pytest.raises(d.CannotParkError):
            d.sleep(1)

    handle = d.on_signal(USR1, callback)
    signal.raise_signal(USR1)
    assert called == []  # not where the signal struck
    d.sleep(0)
    assert called == [(USR1, None, True)]
    raised(USR1)
    assert len(called) == 2
    handle.cancel()


def test_a_signal_from_another_process_or_thread_wakes_a_loop_that_waits(real_loop):
    came = []
    handle = d.on_signal(USR1, came.append)
    waits = threading.Event()

    def send():
        waits.wait(30)
        os.kill(os.getpid(), USR1)

    thread = threading.Thread(target=send)
    thread.start()
    real_loop.call_soon(waits.set)
    real_loop.run(lambda: bool(came))
    thread.join()
    assert came == [USR1]
    handle.cancel()


def test_several_are_all_called_in_order_and_one_that_raises_costs_nobody_else(loop, take_errors):
    called = []

    def fails(number):
        raise ValueError("mine")

    handles = [
        d.on_signal(USR1, callback) for callback in (lambda n: called.append(1), fails, lambda n: called.append(2))
    ]
    raised(USR1)
    assert called == [1, 2]
    (context,) = take_errors()
    assert "a callback of SIGUSR1 raised" in context.message
    assert str(context.exception) == "mine"
    for handle in handles:
        handle.cancel()


def test_signals_in_quick_succession_may_be_one_call(loop):
    called = []
    handle = d.on_signal(USR1, called.append)
    for _ in range(10):
        signal.raise_signal(USR1)
    d.sleep(1)
    assert called == [USR1]
    handle.cancel()


def test_a_flood_of_signals_starves_nobody_and_queues_nothing(real_loop):
    handle = d.on_signal(USR1, lambda number: None)
    stop = threading.Event()

    def flood():
        while not stop.is_set():
            os.kill(os.getpid(), USR1)

    thread = threading.Thread(target=flood)
    thread.start()
    for _ in range(20):
        d.sleep(0.001)
        assert len(real_loop.ready) <= 2
    stop.set()
    thread.join()
    d.sleep(0)
    handle.cancel()


def test_it_runs_in_a_copy_of_the_context(loop):
    variable = contextvars.ContextVar("variable", default="none")
    seen = []
    variable.set("mine")
    handle = d.on_signal(USR1, lambda number: (seen.append(variable.get()), variable.set("its own")))
    variable.set("later")
    raised(USR1)
    assert seen == ["mine"]
    assert variable.get() == "later"
    handle.cancel()


def test_cancel_ends_it_and_the_last_one_puts_back_what_was_there(loop, as_before):
    called = []
    one, two = (d.on_signal(USR1, called.append) for _ in range(2))
    assert one.active
    one.cancel()
    one.cancel()
    assert not one.active
    assert signal.getsignal(USR1) is not as_before
    raised(USR1)
    assert called == [USR1]
    two.cancel()
    assert signal.getsignal(USR1) is as_before


def test_one_that_was_cancelled_by_an_earlier_one_is_not_called(loop):
    called, handles = [], []
    handles.append(d.on_signal(USR1, lambda number: handles[1].cancel()))
    handles.append(d.on_signal(USR1, called.append))
    raised(USR1)
    assert called == []
    handles[0].cancel()


def test_the_end_of_run_puts_back_what_was_there(loop, as_before):
    def main():
        d.on_signal(USR1, print)
        d.on_signal(USR2, print)

    d.run(main)
    assert signal.getsignal(USR1) is signal.getsignal(USR2) is as_before


@pytest.mark.parametrize("end", [Loop.reset, Loop.close])
def test_so_does_the_end_of_the_loop(as_before, end):
    with Loop() as loop:
        handle = d.on_signal(USR1, print)
        end(loop)
        assert signal.getsignal(USR1) is as_before
        assert not handle.active
        handle.cancel()


def test_two_loops_of_the_main_thread_both_hear_of_it(loop):
    called = []
    one = d.on_signal(USR1, lambda number: called.append("one"))
    with Loop() as other:
        d.on_signal(USR1, lambda number: called.append("two"))
        signal.raise_signal(USR1)
        other.run(lambda: True)
    d.sleep(0)
    assert called == ["two", "one"]
    one.cancel()


def test_outside_the_main_thread_it_is_refused(loop, in_thread):
    def refused():
        with pytest.raises(RuntimeError, match="outside the main thread"):
            d.on_signal(USR1, print)
        with pytest.raises(RuntimeError, match="outside the main thread"):
            d.signals(USR1)

    in_thread(refused)


@pytest.mark.parametrize("number", [signal.SIGKILL, 0, 4711])
def test_what_can_have_no_handler_is_refused_and_nothing_is_left(loop, number):
    with pytest.raises((OSError, ValueError)):
        d.on_signal(number, print)
    with pytest.raises((OSError, ValueError)):
        d.signals(USR1, number)


def test_a_handler_that_c_code_has_installed_is_left_alone(loop, monkeypatch):
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    with pytest.raises(RuntimeError, match="SIGUSR1 was installed by C code"):
        d.on_signal(USR1, print)


def test_its_repr_says_which_and_what(loop):
    handle = d.on_signal(USR1, print)
    assert repr(handle) == "<SignalHandle of SIGUSR1: <built-in function print>>"
    handle.cancel()
    assert repr(handle) == "<SignalHandle, cancelled>"


# -- signals


def test_an_iteration_yields_each_that_comes(loop, as_before):
    def work():
        seen = []
        for number in d.signals(USR1, USR2):
            seen.append(number)
            if len(seen) == 3:
                return seen
        raise AssertionError

    task = d.spawn(work)
    d.sleep(0)
    assert task.waits_for == "signals of SIGUSR1, SIGUSR2"
    raised(USR1)
    raised(USR2)
    raised(USR1)
    assert joined(task) == [USR1, USR2, USR1]
    assert signal.getsignal(USR1) is signal.getsignal(USR2) is as_before


def test_those_count_that_come_before_the_first_step_each_once(loop):
    with d.signals(USR1, USR2) as iteration:
        for number in (USR2, USR1, USR2):
            signal.raise_signal(number)
        d.sleep(0)
        assert [next(iteration), next(iteration)] == [USR2, USR1]
        with d.move_on_after(1) as scope:
            next(iteration)
        assert scope.cancelled_caught
        raised(USR1)  # the interrupted step took nothing
        assert next(iteration) == USR1


def test_what_was_there_is_put_back_when_the_iteration_is_dropped_or_closed(loop, as_before):
    iteration = d.signals(USR1)
    assert signal.getsignal(USR1) is not as_before
    del iteration
    assert signal.getsignal(USR1) is as_before
    iteration = d.signals(USR1)
    iteration.close()
    assert signal.getsignal(USR1) is as_before
    assert list(iteration) == []


def test_after_an_interrupted_step_a_with_block_puts_it_back_at_once_and_without_one_the_loop_soon(loop, as_before):
    with d.move_on_after(1) as scope, d.signals(USR1) as iteration:
        next(iteration)
    assert scope.cancelled_caught
    assert signal.getsignal(USR1) is as_before
    del iteration
    with d.move_on_after(1):
        next(d.signals(USR1))
    d.sleep(1)
    assert signal.getsignal(USR1) is as_before


def test_a_step_that_waits_ends_when_it_is_closed(loop):
    iteration = d.signals(USR1)
    task = d.spawn(list, iteration)
    d.sleep(1)
    iteration.close()
    assert joined(task) == []


def test_a_second_task_in_a_step_is_refused(loop):
    with d.signals(USR1) as iteration:
        first = d.spawn(next, iteration)
        d.sleep(0)
        with pytest.raises(d.BusyError, match="cannot wait for SIGUSR1"):
            next(iteration)
        raised(USR1)
        assert end_of(first) == USR1


def test_without_a_signal_it_is_refused(loop):
    with pytest.raises(TypeError):
        d.signals()
    gc.collect()


def test_who_waits_for_a_signal_is_no_deadlock(real_loop, caplog):
    real_loop.deadlock_seconds = 0
    task = d.spawn(next, d.signals(USR1))
    threading.Timer(0.05, os.kill, (os.getpid(), USR1)).start()
    task.join()
    assert outcome(task) == USR1
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    del task


# -- with what else there is


def test_serve_forever_and_on_signal_both_hear_of_sigterm_whichever_came_first(real_loop):
    for first in ("on_signal", "serve_forever"):
        called = []

        def main(first=first, called=called):
            listener = d.serve(("127.0.0.1", 0), d.Socket)
            if first == "on_signal":
                handle = d.on_signal(TERM, called.append)
                d.spawn(lambda: signal.raise_signal(TERM))
            else:
                d.spawn(lambda: (d.on_signal(TERM, called.append), signal.raise_signal(TERM)))
            assert d.serve_forever(listener) == []
            d.sleep(0)
            if first == "on_signal":
                handle.cancel()

        d.run(main)
        assert called == [TERM]


def test_on_signal_of_sigint_takes_the_place_of_keyboard_interrupt_until_it_ends(loop):
    def main():
        called = []
        handle = d.on_signal(signal.SIGINT, called.append)
        raised(signal.SIGINT)
        assert called == [signal.SIGINT]
        handle.cancel()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        return "done"

    assert d.run(main) == "done"


PROGRAM = """
import os, signal
import dangagreen as d

def main():
    ended = d.Event()
    d.on_signal(signal.SIGCHLD, lambda number: (print("a child has ended", flush=True), ended.set()))
    d.spawn(lambda: (ended.wait(), os.kill(os.getpid(), signal.SIGTERM)))
    if (pid := os.fork()) == 0:
        os._exit(3)
    for number in d.signals(signal.SIGTERM):
        print(signal.Signals(number).name, flush=True)
        break
    d.spawn(os.kill, os.getpid(), signal.SIGUSR1)
    print(signal.Signals(next(d.signals(signal.SIGUSR1))).name)

d.run(main)
assert signal.getsignal(signal.SIGTERM) is signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL
os.kill(os.getpid(), signal.SIGTERM)  # which ends it here, before kill(2) returns
print("still there")
"""


@pytest.mark.slow
def test_a_program_that_lives_by_signals():
    code, printed, _ = run_python("-W", "error", "-c", PROGRAM)
    assert (code, printed) == (-TERM, "a child has ended\nSIGTERM\nSIGUSR1\n")


@pytest.mark.slow
def test_asyncio_has_its_signals_beside_ours():
    source = """
import asyncio, os, signal
import dangagreen as d
from dangagreen.bridge import await_

told = []

def tell(words):
    told.append(words)
    print(words, flush=True)

async def theirs():
    came = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, came.set)
    tell("ready")
    await came.wait()
    asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR2)
    tell("theirs")

def main():
    d.on_signal(signal.SIGUSR1, lambda number: tell("ours"))
    task = d.spawn(await_, theirs())
    for before, number in enumerate((signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1), 1):
        while len(told) < before:
            d.sleep(0.001)
        os.kill(os.getpid(), number)
    while len(told) < 4:
        d.sleep(0.001)
    task.join()

d.run(main)
"""
    assert run_python("-W", "error", "-c", source) == (0, "ready\nours\ntheirs\nours\n", "")
