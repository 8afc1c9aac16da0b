"""Waiters: who is woken, how often and by what; top-level code that waits."""

from __future__ import annotations

import pytest

import dangagreen as d
from dangagreen.green.parking import park
from dangagreen.green.waiters import WaitKind, deliver_cancel, wake
from dangagreen.testing import StalledError

undone = []
WAIT = WaitKind("a test", lambda subject, task: undone.append(subject), "{0} about {1}")
DUE = WaitKind("its turn", lambda subject, task: undone.append(subject), due=True)


@pytest.fixture(autouse=True)
def nothing_undone():
    undone.clear()


def parked(kind, subject="this"):
    """A task that is parked, and what came of it."""
    came = []

    def work():
        try:
            park(d.current_task(), kind, subject)
            came.append("woken")
        except BaseException as error:
            came.append(type(error))

    task = d.spawn(work)
    d.sleep(1)
    assert task.wait is kind
    return task, came


def test_the_first_wake_counts_and_undoes_the_arrangement(loop):
    task, came = parked(WAIT)
    assert task.waits_for == "a test about this"
    assert wake(task)
    assert undone == ["this"]
    assert not wake(task, ValueError("too late"))
    d.sleep(1)
    assert came == ["woken"]
    assert undone == ["this"]


def test_a_wake_with_an_error_raises_it_at_the_wait(loop):
    task, came = parked(WAIT)
    assert wake(task, ValueError("in time"))
    assert came == []
    d.sleep(1)
    assert came == [ValueError]


def test_who_waits_for_its_turn_alone_is_woken_by_nobody(loop):
    task, came = parked(DUE)
    assert not wake(task)
    assert came == undone == []
    loop.runnable.append(task.resume)
    d.sleep(1)
    assert came == ["woken"]


def test_a_cancellation_is_delivered_at_the_wait_and_kept_for_the_next_one(loop):
    task, came = parked(WAIT)
    deliver_cancel(task, d.Cancelled("enough"))
    assert task.interrupt.reason == "enough"
    d.sleep(1)
    assert came == [d.Cancelled]


def test_what_is_raised_once_goes_before_a_cancellation(loop):
    task, _ = parked(DUE)
    task.interrupt = KeyboardInterrupt()
    deliver_cancel(task, d.Cancelled("enough"))
    assert isinstance(task.interrupt, KeyboardInterrupt)
    task.interrupt = None
    loop.runnable.append(task.resume)
    task.join()


# -- top-level code


def test_top_level_code_sleeps_joins_and_reads_while_tasks_run(loop, pair):
    sock, far = pair()
    steps = []

    def work():
        for number in range(3):
            d.sleep(1)
            steps.append(number)
        far.send(b"line\n")

    task = d.spawn(work)
    d.sleep(1.5)
    assert steps == [0]
    assert sock.read_line() == b"line\n"
    task.join()
    assert steps == [0, 1, 2]
    assert not loop.running


def test_top_level_code_after_a_failed_wait_can_wait_again(loop):
    task = d.spawn(d.sleep, 5)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            task.join(1)
    task.join()
    assert loop.clock() == 1005


def test_top_level_code_that_waits_for_nothing_is_told(loop, pair):
    loop.poller.patience = 0
    sock, _ = pair()
    with pytest.raises(StalledError):
        sock.read_line()
    assert sock.as_string()
    d.sleep(1)


def test_top_level_read_can_be_repeated_after_an_exception_left_the_loop(loop, pair):
    sock, far = pair()

    def interrupt():
        raise KeyboardInterrupt

    loop.add_timer(1, interrupt)
    with pytest.raises(KeyboardInterrupt):
        sock.read_line()
    far.send(b"still there\n")
    assert sock.read_line() == b"still there\n"


def test_the_loop_ends_and_top_level_calls_start_it_again(loop):
    loop.call_soon(loop.stop)
    loop.run()
    d.sleep(1)
    loop.call_soon(loop.stop)
    loop.run()
    d.sleep(1)
    assert loop.clock() == 1002
