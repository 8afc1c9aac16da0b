"""The lint of waits that nobody can end: when tasks are looked at, and what is said."""

from __future__ import annotations

import sys

import pytest

import dangagreen as d
from tests.introspect.seeing import finds, finds_nothing, linted

pytestmark = [
    pytest.mark.slow_but_first,  # each starts a program
    pytest.mark.skipif(d.compiled and sys.version_info >= (3, 14), reason="what C borrows there is not known"),
]

WAITING = """
def take(queue):
    queue.get()  # HERE
def begin():
    queue = d.Queue()
    d.spawn(take, queue)
    d.spawn(queue.qsize)
"""


def test_a_task_that_waits_for_a_queue_of_its_own():
    finds(
        "lost-wait",
        WAITING
        + """
def main():
    begin()
    for _ in range(90):
        d.sleep(1)
""",
        "task 'take' has waited in get of a Queue for ",
        "no other code can reach this Queue any more",
    )


def test_a_task_that_waits_in_vain_while_nothing_else_happens():
    linted(
        WAITING
        + """
def main():
    begin()
    loop.add_timer(31, lambda: times.append(kinds()))
    d.sleep(400)
times = []
d.run(main)
assert times == [["lost-wait"]] or sys.version_info >= (3, 14), times
"""
    )


@pytest.mark.parametrize(
    "take",
    [
        "queue.get(timeout=100)",
        "queue.get() if kept.append(queue) else queue.get()",
        "d.sleep(100)",
        "d.Event().wait()",
    ],
    ids=["with a timeout", "kept", "for a time", "on purpose"],
)
def test_waits_that_may_end(take):
    finds_nothing(
        "kept = []\n"
        + WAITING.replace("queue.get()", take)
        + """
def main():
    begin()
    for _ in range(90):
        d.sleep(1)
"""
    )


def test_a_wait_with_a_deadline_around_it():
    finds_nothing(
        WAITING
        + """
def take_in_time(queue):
    with d.move_on_after(1000):
        take(queue)
def main():
    d.spawn(take_in_time, d.Queue())
    for _ in range(90):
        d.sleep(1)
"""
    )


def test_a_wait_that_is_not_long():
    finds_nothing(
        WAITING
        + """
def main():
    begin()
    for _ in range(28):
        d.sleep(1)
"""
    )


def test_tasks_are_looked_at_more_and_more_seldom_and_not_too_many_at_a_time():
    linted("""
from dangagreen.introspect import lint_waits
looks = []
def note(tasks, _observed):
    looks.append((loop.clock() - began, len(list(tasks))))
    return []
lint_waits.lost = note
def main():
    global began
    began = loop.clock()
    queue = d.Queue()
    tasks = [d.spawn(queue.get) for _ in range(LOST)]
    for _ in range(320):
        d.sleep(1)
    for task in tasks:
        task.cancel()
LOST = 1
d.run(main)
times = [time for time, _ in looks]
assert len(times) == 4, looks
assert all(2 * one <= other <= 2 * one + 36 for one, other in zip(times, times[1:])), looks
looks.clear()
LOST = 250
d.run(main)
assert [count for _, count in looks[:3]] == [50, 50, 50], looks
""")
