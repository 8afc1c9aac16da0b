"""select on queues and channels: an item wakes one of those who wait, and is never left lying beside them."""

from __future__ import annotations

import contextlib
from queue import Empty, Full
from random import Random

import pytest

import dangagreen as d
from tests.inside import run_tasks


def takes(queue, taken, other=None):
    """A task that selects, and takes the first item that comes."""

    def take():
        sources = (queue,) if other is None else (other, queue)
        while True:
            if d.select(*sources) is not queue:
                return
            with contextlib.suppress(Empty):
                taken.append((d.current_task().name, queue.get_nowait()))
                return

    return take


@pytest.mark.parametrize("make", [d.Queue, lambda: d.Channel(100)], ids=["queue", "channel"])
def test_an_item_wakes_one_of_those_who_select(loop, run_turns, make):
    queue, taken = make(), []
    put = getattr(queue, "put_nowait", None) or queue.send_nowait
    tasks = [d.spawn(lambda: (d.select(queue), taken.append(1))) for _ in range(50)]
    run_turns(2)
    put("x")
    run_tasks(loop)
    assert len(taken) == 1
    take = getattr(queue, "get_nowait", None) or queue.receive_nowait
    take()
    run_turns(5)
    assert len(taken) == 1
    for _ in range(3):
        put("x")
    run_tasks(loop)
    assert len(taken) == 4
    run_turns(60)  # nobody takes the items: everybody is told
    assert len(taken) == 50
    assert all(task.done for task in tasks)


@pytest.mark.in_order
def test_an_item_whose_selecting_task_is_cancelled_wakes_the_next(loop, run_turns):
    queue, taken = d.Queue(), []
    tasks = [d.spawn(takes(queue, taken)) for _ in range(5)]
    run_turns(2)
    queue.put_nowait("x")
    assert tasks[0].wait is None  # woken
    tasks[0].cancel()
    run_turns(7)
    assert len(taken) == 1
    for task in tasks:
        task.cancel()
    run_turns(2)


def test_an_item_whose_selecting_task_takes_another_source_wakes_the_next(loop, run_turns):
    queue, event, taken = d.Queue(), d.Event(), []
    first = d.spawn(takes(queue, taken, event))
    run_turns(1)
    second = d.spawn(takes(queue, taken))
    run_turns(1)
    queue.put_nowait("x")
    event.set()
    run_turns(4)
    assert first.done
    assert second.done
    assert [item for _, item in taken] == ["x"]


@pytest.mark.parametrize("seed", range(20))
def test_no_item_waits_for_ever_beside_tasks_that_select(loop, run_turns, seed):
    random = Random(seed)
    queues = [d.Queue(random.choice([0, 1, 3])) for _ in range(3)]
    taken, made = [], 0
    tasks = []

    def take(sources):
        while True:
            queue = d.select(*sources)
            if random.random() < 0.3:
                d.sleep(random.choice([0, 0.01]))
            with contextlib.suppress(Empty):
                taken.append(queue.get_nowait())

    def get(queue):
        while True:
            taken.append(queue.get())
            d.sleep(0.01)

    for _ in range(12):
        tasks.append(d.spawn(take, random.sample(queues, random.randrange(1, 4))))
    tasks.append(d.spawn(get, queues[0]))
    for _ in range(200):
        step = random.random()
        if step < 0.6:
            with contextlib.suppress(Full):
                random.choice(queues).put_nowait(made)
                made += 1
        elif step < 0.75 and len(tasks) > 6:
            tasks.pop(random.randrange(len(tasks) - 1)).cancel()
        elif step < 0.85:
            tasks.insert(0, d.spawn(take, random.sample(queues, random.randrange(1, 4))))
        else:
            run_turns(random.randrange(3))
    tasks.insert(0, d.spawn(take, queues))
    deadline = loop.clock() + 5
    loop.run(lambda: loop.clock() > deadline or not any(map(d.Queue.qsize, queues)))
    assert sorted(taken) == list(range(made))
    for task in tasks:
        task.cancel()
    run_turns(3)
