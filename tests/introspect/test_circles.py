"""Circles: who waits for whom."""

from __future__ import annotations

import pytest

from tests.introspect.seeing import answers

pytestmark = pytest.mark.slow_but_first  # each starts a program

HEAD = """
from dangagreen.introspect.circles import blocker, circle, circles, without_limit
loop = virtual_loop()
loop.__enter__()
"""


def test_a_chain_of_locks_joins_and_groups_is_followed():
    answers(
        HEAD
        + """
first, second = d.Lock(), d.Lock()
def inner():
    with second:
        pass
def outer():
    with first, d.TaskGroup() as group:
        group.spawn(d.sleep, 50)
        group.spawn(inner)
def joins(task):
    with second:
        task.join()
def main():
    owner = d.spawn(outer)
    other = d.spawn(joins, owner)
    d.sleep(1)
    sleeper, child = owner.subject.tasks
    assert circle(owner) == [owner, child, other]
    assert circle(child) == [child, other, owner]
    assert [blocker(one) for one in (child, other, owner)] == [other, owner, None]
    assert circle(sleeper) == []
    other.cancel()
    owner.join()
d.run(main)
loop.close()
"""
    )


def test_a_task_that_has_not_begun_waits_for_none_of_its_group_alone():
    answers(
        HEAD
        + """
def first(group):
    d.sleep(1)
    group.spawn(d.sleep, 1).join()
def main():
    with d.TaskGroup(limit=2) as group:
        tasks = [group.spawn(first, group), group.spawn(d.sleep, 9)]
        d.sleep(2)
        later = group.tasks[2]
        assert later.worker is None and tasks[0].subject is later
        assert circle(later) == circle(tasks[0]) == []
d.run(main)
loop.close()
"""
    )


def test_a_long_chain_is_not_followed_to_its_end():
    answers(
        HEAD
        + """
def main():
    tasks = [d.spawn(d.sleep, 10)]
    for _ in range(3000):
        tasks.append(d.spawn(tasks[-1].join))
    d.sleep(1)
    assert circle(tasks[-1]) == []
    d.wait(tasks)
d.run(main)
loop.close()
"""
    )


def test_all_circles_each_once():
    answers(
        HEAD
        + """
def two(mine, yours):
    with mine:
        d.sleep(1)
        with yours:
            pass
def main():
    locks = [d.Lock() for _ in range(7)]
    ring = [d.spawn(two, locks[n], locks[(n + 1) % 3]) for n in range(3)]
    pair = [d.spawn(two, locks[3], locks[4]), d.spawn(two, locks[4], locks[3])]
    behind = [d.spawn(two, locks[5], locks[0]), d.spawn(pair[0].join), d.spawn(d.sleep, 90)]
    alone = d.spawn(two, locks[6], locks[6])
    chain = [d.spawn(d.sleep, 90)]
    for _ in range(3000):
        chain.append(d.spawn(chain[-1].join))
    d.sleep(2)
    tasks = [*behind, *ring, *pair, alone, *chain]
    for seen in tasks, tasks[::-1]:
        assert sorted(map(len, circles(seen))) == [1, 2, 3]
        assert {frozenset(one) for one in circles(seen)} == {frozenset(ring), frozenset(pair), frozenset([alone])}
        assert all(blocker(one) is other for found in circles(seen) for one, other in zip(found, found[1:] + found[:1]))
    for task in tasks:
        task.cancel()
d.run(main)
loop.close()
"""
    )


@pytest.mark.parametrize(
    "wait",
    ["lock.acquire(timeout=9)", "queue.get(timeout=9)", "queue.put(1, timeout=9)", "task.join(9)", "event.wait(9)"],
)
def test_a_wait_with_a_timeout_has_a_limit(wait):
    answers(
        HEAD
        + f"""
def timed():
    {wait}
def by_scope():
    with d.timeout(99):
        event.wait()
def main():
    global lock, queue, event, task
    lock, queue, event, task = d.Lock(), d.Queue(1), d.Event(), d.spawn(d.sleep, 99)
    with lock:
        if "put" in {wait!r}:
            queue.put(0)
        tasks = [d.spawn(timed), d.spawn(by_scope), d.spawn(event.wait), task]
        d.sleep(1)
        assert without_limit(tasks) == tasks[2:]
    for one in tasks:
        one.cancel()
d.run(main)
loop.close()
"""
    )
