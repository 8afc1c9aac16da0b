"""Circles: who waits for whom."""

from __future__ import annotations

import pytest

from tests.introspect.seeing import answers

pytestmark = pytest.mark.slow_but_first  # each starts a program

HEAD = """
from dangagreen.introspect.circles import blocker, circle
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
