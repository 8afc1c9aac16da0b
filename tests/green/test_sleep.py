"""sleep and sleep_until: how long they take, in what order sleepers wake, and what a sleep of no seconds does."""

from __future__ import annotations

import pytest

import dangagreen as d
from tests.helpers import result_of


def test_sleep_takes_as_long_as_it_was_told(loop):
    d.sleep(1.5)
    assert loop.clock() == 1001.5


@pytest.mark.in_order
def test_sleepers_wake_in_the_order_of_their_deadlines(loop):
    woken = []

    def sleeper(seconds, name):
        d.sleep(seconds)
        woken.append((name, loop.clock()))

    for seconds, name in ((3, "c"), (1, "a"), (2, "b"), (1, "a2")):
        d.spawn(sleeper, seconds, name)
    d.sleep(10)
    assert woken == [("a", 1001), ("a2", 1001), ("b", 1002), ("c", 1003)]


@pytest.mark.in_order
@pytest.mark.parametrize("seconds", [0, -1])
def test_sleeping_for_nothing_lets_everybody_else_run_once(loop, seconds):
    steps = []

    def stepper(name):
        for number in range(3):
            steps.append(f"{name}{number}")
            d.sleep(seconds)

    one, two = d.spawn(stepper, "a"), d.spawn(stepper, "b")
    one.join()
    two.join()
    assert steps == ["a0", "b0", "a1", "b1", "a2", "b2"]
    assert loop.clock() == 1000


def test_a_task_that_yields_for_ever_does_not_starve_timers(loop):
    task = d.spawn(lambda: [d.sleep(0) for _ in range(100)])
    fired = []
    loop.add_timer(0, lambda: fired.append(task.done))
    task.join()
    assert fired == [False]


@pytest.mark.parametrize("seconds", [30 * 24 * 3600.0, 1e12, float("inf")])
def test_a_sleep_longer_than_the_system_can_count_is_no_error(real_loop, seconds):
    task = d.spawn(d.sleep, seconds)
    d.sleep(0.01)
    assert not task.done
    task.cancel()
    task.join(30)
    assert task.done


def test_sleep_until_takes_a_time_of_the_clock(loop, call):
    def work():
        d.sleep_until(1002.5)
        first = loop.clock()
        d.sleep_until(0)
        return first, loop.clock()

    assert call(work) == (1002.5, 1002.5)


@pytest.mark.in_order
@pytest.mark.parametrize("before", [0, 1, 1000])
def test_sleeping_until_a_time_that_has_passed_lets_everybody_else_run_once(loop, before):
    steps = []

    def ticker(name):
        for step in range(3):
            steps.append((name, step))
            d.sleep_until(loop.clock() - before)

    tasks = [d.spawn(ticker, name) for name in "ab"]
    d.wait(tasks)
    assert steps == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    assert loop.clock() == 1000


def test_sleep_until_does_not_drift(loop):
    ticks = []

    def ticker():
        deadline = loop.time()
        for _ in range(100):
            deadline += 0.01
            d.sleep_until(deadline)
            ticks.append(loop.time())
            loop.clock.jump(0.004)  # its own work

    result_of(ticker)
    assert ticks == pytest.approx([1000 + 0.01 * n for n in range(1, 101)])


def test_a_cancelled_sleep_until_leaves_no_timer(loop):
    task = d.spawn(d.sleep_until, 5000.0)
    d.sleep(1)
    assert "until 5000" in task.waits_for
    task.cancel()
    task.join()
    assert loop.clock() == 1001
    assert len(loop.timers) == 0


def test_sleep_until_cannot_be_called_in_a_callback(loop, take_errors):
    loop.call_soon(d.sleep_until, 1001.0)
    d.sleep(0.1)
    (context,) = take_errors()
    assert isinstance(context.exception, d.CannotParkError)
    assert "sleep_until" in str(context.exception)
