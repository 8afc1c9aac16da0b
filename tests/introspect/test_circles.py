"""Circles: who waits for whom, of objects that only look like tasks."""

from __future__ import annotations

import dangagreen as d
from dangagreen.introspect.circles import blocker, circle


def test_a_chain_of_locks_joins_and_groups_is_followed(loop):
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
        tasks = [d.spawn(outer)]
        tasks.append(d.spawn(joins, tasks[0]))
        d.sleep(1)
        group = tasks[0].subject
        child = group.tasks[1]
        assert circle(tasks[0]) == [tasks[0], child, tasks[1]]
        assert circle(child) == [child, tasks[1], tasks[0]]
        assert [blocker(one) for one in (child, tasks[1], tasks[0])] == [tasks[1], tasks[0], None]
        assert circle(group.tasks[0]) == []
        tasks[1].cancel()
        tasks[0].join()

    d.run(main)


def test_a_long_chain_is_not_followed_to_its_end(loop):
    tasks = [d.spawn(d.sleep, 10)]
    for _ in range(3000):
        tasks.append(d.spawn(tasks[-1].join))
    d.sleep(1)
    assert circle(tasks[-1]) == []
    d.wait(tasks)
