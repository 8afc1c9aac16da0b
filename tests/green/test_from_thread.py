"""from_thread: results and errors, waiting, cancellation, and no thread that is left blocked."""

from __future__ import annotations

import contextvars
import os
import signal
import threading
from functools import partial

import pytest

import dangagreen as d
from dangagreen.green.from_thread import in_loop
from dangagreen.loop.loop import Loop, current_loop
from tests.helpers import OtherThread, attempt, joined, outcome


def test_the_function_runs_in_a_task_of_the_loop_and_may_wait(real_loop):
    def work(n):
        assert current_loop() is real_loop
        assert d.current_task().name.endswith("work")
        d.sleep(0.001)
        return n + 1

    assert OtherThread(lambda: d.from_thread(work, 1, loop=real_loop)).join() == 2
    assert OtherThread(lambda: d.from_thread(partial(work, 1), loop=real_loop)).join() == 2


@pytest.mark.parametrize("error", [ValueError("mine"), d.ShutDown("x"), EOFError()], ids=repr)
def test_what_it_raises_is_raised_in_the_thread_and_reported_to_nobody(real_loop, error):
    def fails():
        raise error

    assert OtherThread(lambda: d.from_thread(fails, loop=real_loop)).join() is error


def test_inside_in_thread_it_knows_the_loop(real_loop):
    def in_loop_again():
        return d.from_thread(lambda: (d.sleep(0.001), current_loop())[1])

    assert d.in_thread(in_loop_again) is real_loop


def test_context_variables_of_the_thread_are_carried_in(real_loop):
    variable = contextvars.ContextVar("variable", default="none")

    def work():
        variable.set("the thread's")
        return d.from_thread(variable.get)

    assert d.in_thread(work) == "the thread's"


def test_where_it_is_refused(real_loop):
    with pytest.raises(RuntimeError, match="would wait for itself"):
        d.from_thread(int, loop=real_loop)
    assert "needs loop=" in str(OtherThread(attempt, d.from_thread, int).join())
    for bad in (5, None):
        assert isinstance(OtherThread(attempt, d.from_thread, bad).join(), TypeError)
    assert isinstance(OtherThread(lambda: d.from_thread(int, loop=5)).join(), TypeError)
    closed = Loop()
    closed.close()
    assert "was closed" in str(OtherThread(lambda: d.from_thread(int, loop=closed)).join())


# -- cancellation


def test_a_task_that_is_cancelled_is_told_to_the_thread(real_loop):
    tasks = []

    def work():
        tasks.append(d.current_task())
        d.sleep(100)

    other = OtherThread(lambda: d.from_thread(work, loop=real_loop))
    while not tasks:
        d.sleep(0.001)
    tasks[0].cancel("enough")
    error = other.join()
    assert isinstance(error, d.TaskCancelledError)
    assert error.reason == "enough"


def test_what_a_cancelled_in_thread_waits_for_in_the_loop_is_cancelled(real_loop):
    event, told = d.Event(), []

    def work():
        try:
            d.from_thread(event.wait)
        except d.TaskCancelledError:
            told.append(d.thread_cancelled())
        told.append(attempt(d.from_thread, d.sleep, 0))  # waits no more,
        told.append(d.from_thread(int))  # and is called nevertheless

    task = d.spawn(d.in_thread, work)
    while not any(other.name.startswith("Event.wait") for other in real_loop.green.tasks):
        d.sleep(0.001)
    task.cancel()
    task.join()
    assert outcome(task) is d.TaskCancelledError
    assert told[0] is True
    assert isinstance(told[1], d.TaskCancelledError)
    assert told[2] == 0


# -- no thread is left blocked


@pytest.fixture
def queued(monkeypatch):
    """An event: a thread has queued a call in a loop."""
    queued, call_soon_threadsafe = threading.Event(), Loop.call_soon_threadsafe

    def queue_and_tell(loop, *call):
        call_soon_threadsafe(loop, *call)
        queued.set()

    monkeypatch.setattr(Loop, "call_soon_threadsafe", queue_and_tell)
    return queued


def test_a_loop_that_does_not_run_is_waited_for(real_loop, queued):
    other = OtherThread(lambda: d.from_thread(int, loop=real_loop))
    assert queued.wait(30)
    assert other.thread.is_alive()
    assert other.join() == 0


@pytest.mark.parametrize("end", ["reset", "close"])
def test_a_reset_and_the_end_of_the_loop_answer_a_call_that_was_not_begun(end, queued):
    with Loop() as loop:
        other = OtherThread(lambda: d.from_thread(int, loop=loop))
        assert queued.wait(30)
        getattr(loop, end)()
        assert "was not made, or not to its end: the loop was" in str(other.ended())


def test_so_do_they_one_that_was_begun(real_loop):
    other = OtherThread(lambda: d.from_thread(d.sleep, 100, loop=real_loop))
    while not any(task.name == "sleep" and task.wait for task in real_loop.green.tasks):
        d.sleep(0.001)
    real_loop.reset()
    assert "the loop was reset" in str(other.ended())


def test_the_end_of_run_answers_all(real_loop):
    others = []

    def main():
        others.append(OtherThread(lambda: d.from_thread(d.sleep, 100, loop=real_loop)))
        while not any(task.name == "sleep" and task.wait for task in real_loop.green.tasks):
            d.sleep(0.001)

    d.run(main)
    assert isinstance(others[0].ended(), d.TaskCancelledError)


def test_ctrl_c_in_a_thread_that_waits_cancels_the_call(poller_class):
    """The main thread may be the other one: of a loop that runs in the background."""
    ended = threading.Event()

    def work():
        os.kill(os.getpid(), signal.SIGINT)
        try:
            d.sleep(100)
        finally:
            ended.set()

    with d.start_in_thread() as background:
        with pytest.raises(KeyboardInterrupt):
            background.call(work)
        assert ended.wait(30)


def test_an_answer_that_comes_too_late_is_put_back(real_loop):
    back = []

    def main_is_interrupted():
        call = threading.Event()

        def slow(timeout=None):
            call.set()
            d.sleep(0.01)
            return "item"

        with pytest.raises(TimeoutError):
            in_loop(real_loop, slow, timeout=0.0, undo=back.append)

    other = OtherThread(main_is_interrupted)
    other.ended()  # the loop did not run meanwhile: it was withdrawn
    d.sleep(0.02)
    assert back == []


def test_many_threads(real_loop):
    """Bounded: each of 8 threads makes 100 calls."""
    total = []

    def add(n):
        total.append(n)
        return len(total)

    others = [OtherThread(lambda k=k: [d.from_thread(add, k, loop=real_loop) for _ in range(100)]) for k in range(8)]
    assert sorted(count for other in others for count in other.join()) == list(range(1, 801))
    assert joined(d.spawn(int)) == 0
