"""Threads that call functions for loops: outcomes, reuse, their end, fork, and when they count against a deadlock."""

from __future__ import annotations

import os
import signal
import textwrap
import threading
import traceback
import weakref

import pytest

import dangagreen as d
from dangagreen.green.parking import checkpoint, park
from dangagreen.green.waiters import WaitKind, wake
from dangagreen.loop import deadlock, thread_pool
from dangagreen.loop.loop import Loop
from dangagreen.loop.thread_pool import call_in_thread, idle_threads
from tests.helpers import exit_code_of, fork
from tests.programs import run_python


@pytest.fixture
def ask(real_loop, wait_for):
    """`ask(function)`: the outcome of a call in a thread."""

    def ask(function):
        outcome = []
        call_in_thread(real_loop, "asked", function, lambda *result: outcome.extend(result))
        wait_for(lambda: outcome)
        return outcome

    return ask


def test_the_outcome_comes_to_the_loop_in_its_own_thread(real_loop, wait_for):
    seen = []
    call_in_thread(
        real_loop, "one", threading.get_ident, lambda *outcome: seen.append((outcome, threading.get_ident()))
    )
    assert seen == []
    wait_for(lambda: seen)
    (((made_in, error), told_in),) = seen
    assert told_in == real_loop.thread != made_in
    assert error is None


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
def test_what_the_function_raises_comes_too_without_a_frame_of_ours(ask, kind):
    def fail():
        raise kind("why")

    value, error = ask(fail)
    assert value is None
    assert repr(error) == repr(kind("why"))
    assert [frame.name for frame in traceback.extract_tb(error.__traceback__)] == ["fail"]


def test_a_thread_makes_one_call_after_the_other(ask, pool):
    one = ask(threading.current_thread)[0]
    others = [ask(threading.current_thread)[0] for _ in range(20)]
    assert set(others) == {one}
    assert pool.idle == [one]


def test_there_are_as_many_threads_as_calls_under_way(real_loop, wait_for, pool):
    met, seen = threading.Barrier(12), []
    for _ in range(12):
        call_in_thread(real_loop, "meets", lambda: met.wait(30), lambda *outcome: seen.append(outcome))
    wait_for(lambda: len(seen) == 12)
    assert sorted(value for value, _ in seen) == list(range(12))


def test_a_thread_is_called_what_its_call_is(ask):
    assert ask(lambda: threading.current_thread().name) == ["asked", None]
    assert {thread.name for thread in idle_threads()} == {"dangagreen, idle"}


def test_an_idle_thread_ends(ask, pool, monkeypatch):
    monkeypatch.setattr(thread_pool, "IDLE_SECONDS", 0)
    thread = ask(threading.current_thread)[0]
    thread.join(30)
    assert not thread.is_alive()
    assert pool.idle == []


def test_a_thread_that_is_taken_when_it_is_about_to_end_makes_the_call(real_loop, wait_for, pool, monkeypatch):
    """The time to wait is as long as the loop takes to ask again: threads are met at every moment of their end."""
    monkeypatch.setattr(thread_pool, "IDLE_SECONDS", 0.00005)
    threads, done = set(), []
    for number in range(500):
        call_in_thread(real_loop, "one", threading.get_ident, lambda ident, _: (threads.add(ident), done.append(1)))
        wait_for(lambda number=number: len(done) > number)
    assert len(done) == 500


def test_nothing_is_kept_of_a_call(ask, uncollected):
    class Thing:
        pass

    gone = weakref.ref(ask(Thing)[0])

    def fail():
        raise ValueError(Thing())

    error = ask(fail)[1]
    gone_too = weakref.ref(error.args[0])
    del error
    ask(int)  # the thread is done with the last one
    assert gone() is None
    assert gone_too() is None


def test_the_outcome_for_a_closed_loop_is_dropped(pool):
    other, gate, seen = Loop(), threading.Event(), []
    call_in_thread(other, "late", lambda: gate.wait(30), lambda *outcome: seen.append(outcome))
    other.close()
    gate.set()
    pool.end()
    assert seen == []  # what the thread raised, if it did, pytest finds


def test_a_forked_child_starts_threads_of_its_own(ask):
    ask(int)
    assert idle_threads()
    if (child := fork()) == 0:
        signal.alarm(10)
        os._exit(0 if not idle_threads() and ask(lambda: 42) == [42, None] else 1)
    assert exit_code_of(child) == 0
    assert ask(lambda: 42) == [42, None]


def test_a_program_ends_while_a_call_is_under_way():
    program = """
    import threading
    from dangagreen import current_loop
    from dangagreen.loop.thread_pool import call_in_thread

    call_in_thread(current_loop(), "for ever", threading.Event().wait, print)
    print("the end")
    """
    assert run_python("-c", textwrap.dedent(program)) == (0, "the end\n", "")


# -- deadlocks


def test_an_idle_thread_might_not_wake_the_loop_and_a_busy_one_might(real_loop, wait_for, pool, monkeypatch):
    monkeypatch.setattr("os.listdir", lambda path: range(len(pool.idle) + 1 + busy))  # of this process's threads
    busy, gate, done = 1, threading.Event(), []
    call_in_thread(real_loop, "busy one", lambda: gate.wait(30), lambda *_: done.append(1))
    assert [words for words in deadlock.external_wakers() if "busy one" in words]
    gate.set()
    wait_for(lambda: done)
    busy = 0
    assert [words for words in deadlock.external_wakers() if "thread" in words] == []


BY_THREAD = WaitKind("an answer", lambda subject, task: None, by_thread=True)


@pytest.mark.parametrize("by_thread", [True, False])
def test_no_task_is_stuck_while_one_waits_for_a_thread(real_loop, caplog, by_thread):
    real_loop.deadlock_seconds = 0.01

    def wait_for_warning():
        for _ in range(4 if by_thread else 3000):
            if threading.Event().wait(0.01) or caplog.records:
                break

    def wait_for_thread():
        task = checkpoint(real_loop, "an answer")
        call_in_thread(real_loop, "slow", wait_for_warning, lambda *_: wake(task))
        park(task, BY_THREAD if by_thread else WaitKind("an answer", lambda subject, task: None), "slow")

    d.spawn(wait_for_thread).join()
    assert [record for record in caplog.records if "slow" in record.message] == ([] if by_thread else caplog.records)
    assert bool(caplog.records) is not by_thread


def test_top_level_code_that_waits_for_a_thread_is_not_stuck(real_loop, caplog):
    real_loop.deadlock_seconds = 0.01
    task = checkpoint(real_loop, "an answer")
    call_in_thread(real_loop, "slow", lambda: threading.Event().wait(0.04), lambda *_: wake(task))
    park(task, BY_THREAD, "slow")
    assert caplog.records == []
