"""in_thread and its limiter: results, contexts, cancellation, abandoned threads, fork, and the end of the program."""

from __future__ import annotations

import contextvars
import gc
import logging
import os
import signal
import sys
import threading
import time
import weakref
from functools import partial

import pytest

import dangagreen as d
from dangagreen.loop.loop import current_loop
from tests.helpers import exit_code_of, fork, joined, outcome
from tests.programs import run_python

SECONDS = 30.0  # after which a thread that should have been told something gives up


class Blocks:
    """A function that blocks its thread until `go` is set; `begun` tells that it does."""

    def __init__(self, value=None):
        self.begun, self.go = threading.Event(), threading.Event()
        self.value = value

    def __call__(self):
        self.begun.set()
        assert self.go.wait(SECONDS)
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value


def in_task(block, *, begun=None, **options):
    """A task that waits for it in a thread, which has begun."""
    task = d.spawn(lambda: d.in_thread(block, **options))
    begun = begun or block.begun
    while not begun.is_set():
        d.sleep(0.001)
    return task


def test_it_returns_what_the_function_returns_and_the_loop_goes_on_meanwhile(real_loop):
    block = Blocks("value")
    task = in_task(block)
    assert task.waits_for is not None
    assert task.waits_for.startswith("in_thread of ")
    block.go.set()
    assert joined(task) == "value"
    assert d.in_thread(divmod, 7, 3) == (2, 1)
    assert d.in_thread(threading.get_ident) != threading.get_ident()


def test_it_is_named_after_the_function_whatever_a_partial_holds(real_loop):
    block = Blocks()
    task = in_task(partial(Blocks.__call__, block), begun=block.begun)
    assert task.waits_for == "in_thread of Blocks.__call__"
    block.go.set()
    joined(task)


@pytest.mark.parametrize("error", [ValueError("mine"), SystemExit(3), KeyboardInterrupt(), StopIteration(1)], ids=repr)
def test_it_raises_what_the_function_raises_with_its_traceback(real_loop, error):
    def fails():
        raise error

    with pytest.raises(type(error)) as caught:
        d.in_thread(fails)
    assert caught.value is error
    assert caught.traceback[-1].name == "fails"


def test_context_variables_are_carried_in_and_not_out(real_loop):
    variable = contextvars.ContextVar("variable", default="none")
    variable.set("the caller's")

    def work():
        seen = variable.get()
        variable.set("the thread's")
        return seen

    assert d.in_thread(work) == "the caller's"
    assert variable.get() == "the caller's"


def test_threads_are_reused(real_loop):
    idents = {d.in_thread(threading.get_ident) for _ in range(20)}
    assert len(idents) <= 2


# -- the limiter


@pytest.mark.in_order
def test_no_more_run_at_once_than_the_limiter_allows_and_the_next_come_in_order(real_loop):
    limiter = d.ThreadLimiter(2)
    assert repr(limiter) == "<ThreadLimiter, 0 of 2>"
    blocks = [Blocks(n) for n in range(4)]
    tasks = [d.spawn(lambda b=b: d.in_thread(b, limiter=limiter)) for b in blocks]
    while not all(block.begun.is_set() for block in blocks[:2]):
        d.sleep(0.001)
    d.sleep(0.01)
    assert limiter.in_use == limiter.limit == 2
    assert [block.begun.is_set() for block in blocks] == [True, True, False, False]
    for number, block in enumerate(blocks):
        block.go.set()
        assert joined(tasks[number]) == number
    assert limiter.in_use == 0


@pytest.mark.in_order
def test_by_default_it_is_forty(real_loop):
    blocks = [Blocks() for _ in range(41)]
    tasks = [d.spawn(d.in_thread, block) for block in blocks]
    while not all(block.begun.is_set() for block in blocks[:40]):
        d.sleep(0.001)
    d.sleep(0.01)
    assert not blocks[40].begun.is_set()
    for block in blocks:
        block.go.set()
    for task in tasks:
        task.join()


def test_who_is_cancelled_in_the_line_of_the_limiter_takes_nothing(real_loop):
    limiter, block, never = d.ThreadLimiter(1), Blocks(), Blocks()
    task = in_task(block, limiter=limiter)
    waits = d.spawn(lambda: d.in_thread(never, limiter=limiter))
    d.sleep(0)
    waits.cancel()
    waits.join()
    block.go.set()
    task.join()
    assert d.in_thread(int, limiter=limiter) == 0
    assert not never.begun.is_set()
    assert limiter.in_use == 0


# -- cancellation


def test_a_cancelled_task_waits_for_the_function_whose_result_stands(real_loop):
    block = Blocks("value")

    def work():
        value = d.in_thread(block)
        with pytest.raises(d.Cancelled):
            d.sleep(0)
        return value

    task = d.spawn(work)
    while not block.begun.is_set():
        d.sleep(0.001)
    task.cancel()
    d.sleep(0.01)
    assert not task.done
    block.go.set()
    assert joined(task) == "value"


def test_a_function_that_returns_because_it_was_told_has_no_result(real_loop):
    begun, scopes = threading.Event(), []

    def until_told():
        begun.set()
        give_up = threading.Event()
        while not d.thread_cancelled():
            assert not give_up.wait(0.001)
        return "half a result"

    def work():
        with d.timeout(1000) as scope:
            scopes.append(scope)
            d.in_thread(until_told)
        raise AssertionError("the time was up")

    task = d.spawn(work)
    while not begun.is_set():
        d.sleep(0.001)
    scopes[0].reschedule(0.0)
    task.join()
    assert outcome(task) is TimeoutError


def test_what_a_cancelled_function_raises_is_raised(real_loop):
    block = Blocks(ValueError("mine"))
    task = in_task(block)
    task.cancel()
    d.sleep(0)
    block.go.set()
    task.join()
    assert outcome(task) is ValueError


def test_with_abandon_on_cancel_the_task_goes_on_at_once_and_the_thread_counts_until_it_ends(real_loop, take_errors):
    limiter, block = d.ThreadLimiter(1), Blocks(ValueError("nobody waits"))
    task = in_task(block, abandon_on_cancel=True, limiter=limiter)
    task.cancel("enough")
    task.join()
    assert outcome(task) is d.TaskCancelledError
    assert limiter.in_use == 1
    block.go.set()
    d.in_thread(int, limiter=limiter)
    (context,) = take_errors()
    assert "failed in a thread, for which in_thread had ceased to wait" in context.message
    assert str(context.exception) == "nobody waits"


def main_waits():
    """Whether the main thread is inside its poller's wait, which is in C, so that the innermost frame is the turn's.

    Where turns are compiled to C, it is that of `Loop.run`.
    """
    frames = [sys._current_frames()[threading.main_thread().ident].f_code.co_name for _ in range(50)]
    return set(frames) <= {"run" if d.compiled else "_turn", "wait"}


def test_ctrl_c_does_not_wait_for_the_thread(real_loop):
    block = Blocks()

    def send():
        block.begun.wait(SECONDS)
        give_up = time.monotonic() + SECONDS
        while not main_waits() and time.monotonic() < give_up:
            pass
        os.kill(os.getpid(), signal.SIGINT)

    sender = threading.Thread(target=send)
    sender.start()
    with pytest.raises(KeyboardInterrupt):
        d.run(d.in_thread, block)
    assert not block.go.is_set()
    block.go.set()
    sender.join()
    d.in_thread(int)


def test_outside_of_in_thread_nothing_is_cancelled(real_loop):
    assert d.thread_cancelled() is False
    assert d.in_thread(d.thread_cancelled) is False


# -- what is refused


def test_in_a_callback_and_without_a_function_it_is_refused(real_loop):
    for bad in (5, None):
        with pytest.raises(TypeError):
            d.in_thread(bad)
    with pytest.raises(TypeError, match="ThreadLimiter"):
        d.in_thread(int, limiter=3)
    for bad in (0, -1):
        with pytest.raises(ValueError):
            d.ThreadLimiter(bad)


def test_a_thread_that_cannot_be_started_costs_no_place(real_loop, monkeypatch):
    limiter = d.ThreadLimiter(1)
    monkeypatch.setattr("dangagreen.loop.thread_pool.idle", [])

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start"):
        d.in_thread(int, limiter=limiter)
    assert limiter.in_use == 0


# -- deadlocks, fork, the end


def test_a_function_in_a_thread_may_wake_us_for_as_long_as_it_takes(real_loop, caplog):
    real_loop.deadlock_seconds = 0.0
    event, block = d.Event(), Blocks()
    other = d.spawn(event.wait)
    task = in_task(block)
    real_loop.call_soon(threading.Timer(0.05, block.go.set).start)
    task.join()
    event.set()
    other.join()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_in_a_forked_child_no_thread_counts_and_others_can_be_used(real_loop):
    limiter, block = d.ThreadLimiter(1), Blocks("value")

    def forks():
        if (pid := fork()) == 0:
            ok = limiter.in_use == 0 and d.in_thread(lambda: 5, limiter=limiter) == 5
            os._exit(0 if ok else 1)
        return exit_code_of(pid) == 0

    task = in_task(block, limiter=limiter)
    assert joined(d.spawn(forks))
    block.go.set()
    assert joined(task) == "value"


def test_a_fork_outside_the_loop_leaves_no_task_waiting_for_a_thread_that_is_not_there(real_loop):
    block = Blocks("value")
    task = in_task(block)
    if (pid := fork()) == 0:
        task.join()
        os._exit(0 if outcome(task) is RuntimeError else 1)
    assert exit_code_of(pid) == 0
    block.go.set()
    assert joined(task) == "value"


PROGRAM = """
import threading
import dangagreen as d

def never():
    begun.set()
    threading.Event().wait()

def main():
    task = d.spawn(lambda: d.in_thread(never, abandon_on_cancel=True))
    while not begun.is_set():
        d.sleep(0.001)

begun = threading.Event()
d.run(main)
print("the end")
"""


@pytest.mark.slow
def test_no_thread_keeps_the_program_from_ending_and_one_that_is_left_is_named():
    code, printed, errors = run_python("-W", "error", "-c", PROGRAM)
    assert (code, printed) == (0, "the end\n")
    assert errors == "the program ends while functions run in threads, and does not wait for them: never\n"


# -- stress, bounded


def test_many_tasks_and_threads(real_loop):
    def work(n):
        return d.from_thread(d.in_thread, lambda: n * 2) if n % 5 == 0 else n * 2

    limiter = d.ThreadLimiter(8)
    with d.TaskGroup() as group:
        tasks = [group.spawn(lambda n=n: d.in_thread(work, n, limiter=limiter)) for n in range(300)]
    assert [task.result() for task in tasks] == [n * 2 for n in range(300)]
    assert limiter.in_use == 0
    assert current_loop() is real_loop


def test_a_loop_that_has_used_it_is_freed(uncollected):
    with d.Loop() as loop:
        assert d.in_thread(int) == 0
        gone = weakref.ref(loop)
    del loop
    gc.collect()
    assert gone() is None


def test_an_argument_by_name_is_no_argument_of_the_function(loop):
    with pytest.raises(TypeError, match=r"in_thread has no argument 'base': .*\(functools\.partial\(f, base=\.\.\.\)"):
        d.in_thread(int, "11", base=2)


# -- tasks of the thread's own


def test_a_task_that_a_function_spawns_in_its_thread_is_told_of_since_it_never_runs(real_loop, pool, caplog):
    task = d.run(d.in_thread, d.spawn, print, "never")
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("spawn, in a thread, has left behind a task on a loop of that thread, which does not run: ")
    assert repr(task) in line
    assert "from_thread(spawn, f)" in line


def test_tasks_that_have_ended_with_a_run_in_the_thread_are_not_told_of(real_loop, pool, caplog):
    assert d.run(d.in_thread, d.run, lambda: d.spawn(d.sleep, 0.001).join()) is None
    assert caplog.records == []
