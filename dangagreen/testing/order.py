"""Tasks in a random order that a seed repeats: finds code that depends on the order in which ready tasks run.

Rules: what promises an order keeps it: `call_soon` calls, timers, queues of waiters. The order is random where there is
none to rely on: tasks that were started or woken in one round, or sleep until the same moment. What does not belong
here: the loop, which knows nothing of it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from contextvars import Context
from functools import partial
from heapq import heappop, heappush
from random import Random
from typing import Any

from dangagreen.green.sched import Worker
from dangagreen.loop.loop import Loop
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
            places = [place for place, call in enumerate(self) if _is_task(call)]
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

    __slots__ = ("_moment", "_random")

    def __init__(self, owner: Loop, random: Random) -> None:
        super().__init__(owner)
        self._random = random
        self._moment = -math.inf  # the deadline of those that were shuffled last

    def pop_due(self, now: float, mark: int) -> Timer | None:
        deadline = self.next_deadline()
        if deadline is not None and self._moment != deadline <= now:
            self._moment = deadline
            self._shuffle(deadline)
        return super().pop_due(now, mark)

    def _shuffle(self, deadline: float) -> None:
        """Let the sleepers of this moment change places."""
        heap, pending, numbers = self.heap, self._pending, []
        while heap and heap[0][0] == deadline:
            if (number := heappop(heap)[1]) in pending:
                numbers.append(number)
        sleepers = [pending[number] for number in numbers if _is_sleeper(pending[number])]
        self._random.shuffle(sleepers)
        for number in numbers:
            heappush(heap, (deadline, number))
            if _is_sleeper(pending[number]):
                pending[number] = timer = sleepers.pop()
                timer._number = number


def shuffle_tasks(loop: Loop, random: Random) -> None:
    """Have a fresh loop run its ready tasks in random order."""
    loop.ready = ShuffledQueue(random)
    loop.runnable = ShuffledQueue(random)
    loop.timers = ShuffledTimers(loop, random)


def _is_task(call: Any) -> bool:
    """Does it start or resume a task? Otherwise it was made by call_soon, or stands for the place of a sleep(0)."""
    return not isinstance(call, partial) or not isinstance(getattr(call.func, "__self__", None), (Context, deque))


def _is_sleeper(timer: Timer) -> bool:
    return isinstance(getattr(timer.callback, "__self__", None), Worker)
