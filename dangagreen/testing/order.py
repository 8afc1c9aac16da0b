"""Tasks in a random order that a seed repeats: finds code that depends on the order in which ready tasks run.

Rules: what promises an order keeps it: `call_soon` calls, timers, queues of waiters. The order is random where there is
none to rely on: tasks that were started or woken in one round, or sleep until the same moment. What does not belong
here: the loop, which knows nothing of it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any, ClassVar

from dangagreen.green.sched import scheduler
from dangagreen.loop.loop import Loop, certain_loop
from dangagreen.loop.pollers import Events, Poller
from dangagreen.loop.schedule import OrderedCall
from dangagreen.loop.timers import Timer, Timers

Call = Callable[[], object]


class ShuffledQueue(deque[Call]):
    """Calls that wait for their turn. When those of a round are gone, the tasks among the next ones are shuffled."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._random = random
        self._round = 0  # how many are left of it

    def popleft(self) -> Call:
        if self._round <= 0:
            self._round = len(self)
            places = [place for place, call in enumerate(self) if not isinstance(call, OrderedCall)]
            tasks = [self[place] for place in places]
            self._random.shuffle(tasks)
            for place, task in zip(places, tasks, strict=True):
                self[place] = task
        self._round -= 1
        return super().popleft()

    def clear(self) -> None:
        self._round = 0
        super().clear()


class ShuffledTimers(Timers):
    """Timers, where it is random which of several tasks that sleep until the same moment wakes first."""

    __slots__ = {
        "_loop": "The loop.",
        "_moment": "The deadline of the tasks that were shuffled last.",
        "_random": "The source of the order.",
    }

    def __init__(self, loop: Loop, random: Random) -> None:
        super().__init__(loop)
        self._loop = loop
        self._random = random
        self._moment = -math.inf

    def pop_due(self, now: float, mark: int) -> Timer | None:
        deadline = self.next_deadline()
        if deadline is not None and self._moment != deadline <= now:
            self._moment = deadline
            self._shuffle(deadline)
        return super().pop_due(now, mark)

    def _shuffle(self, deadline: float) -> None:
        """Let the sleepers of this moment change places."""
        heap, pending, numbers = self.heap, self.by_number, []
        while heap and heap[0][0] == deadline:
            if (number := heappop(heap)[1]) in pending:
                numbers.append(number)
        parked = (task for task in scheduler(self._loop).tasks if task.wait is not None)  # only these have a subject
        slept_on = {task.subject for task in parked if isinstance(task.subject, Timer)}
        sleepers = [timer for number in numbers if (timer := pending[number]) in slept_on]
        self._random.shuffle(sleepers)
        for number in numbers:
            heappush(heap, (deadline, number))
            if pending[number] in slept_on:
                self.renumber(sleepers.pop(), number)


class ShuffledPoller:
    """A poller that reports the events of a wait in random order; `random_order` derives the class of each.

    Without an argument it is on a poller of its own, as a forked child needs it.
    """

    kind: ClassVar[Callable[[], Poller]]
    random: ClassVar[Random]

    def __init__(self, poller: Poller | None = None) -> None:
        self._poller = type(self).kind() if poller is None else poller

    def wait(self, timeout: float | None) -> Events:
        events = self._poller.wait(timeout)
        self.random.shuffle(events)
        return events

    def __getattr__(self, name: str) -> Any:
        return getattr(self._poller, name)


def shuffle_tasks(loop: Loop, random: Random) -> None:
    """Have a fresh loop run its ready tasks in random order."""
    loop.ready = ShuffledQueue(random)
    loop.runnable = ShuffledQueue(random)
    loop.timers = ShuffledTimers(loop, random)


def random_order(loop: Loop, seed: int) -> None:
    """Have a fresh loop, on the real clock, run in random order what has none: as `virtual_loop(seed=...)` does.

    What the kernel does stays its own affair. Raises RuntimeError if the loop is in use already.
    """
    random = Random(seed)
    if certain_loop(loop).turns or loop.handlers or loop.ready or loop.runnable or loop.timers:
        raise RuntimeError("random_order() needs a fresh loop, and this one is in use")
    shuffle_tasks(loop, random)
    kind = type(loop.poller)
    loop.poller = type(kind.__name__, (ShuffledPoller,), {"kind": kind, "random": random})(loop.poller)
