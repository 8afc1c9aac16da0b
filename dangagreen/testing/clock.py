"""A clock that jumps: a loop on it waits for nothing, and fires its timers in order.

Rules: time passes only when nothing else can happen, and then straight to the next deadline. It knows what happens
within the process, real sockets included; another process or thread is outrun, so do not mix it with those.
"""

from __future__ import annotations

import weakref
from random import Random

from dangagreen import checks
from dangagreen.errors import Deadlock
from dangagreen.green.task_table import task_table
from dangagreen.loop.loop import Loop
from dangagreen.loop.pollers import Events, Poller, available_pollers
from dangagreen.testing.order import shuffle_tasks
from dangagreen.testing.wire import WireEnd, end_of


class StalledError(Deadlock):
    """Nothing can happen any more: no event, no timer, and everybody waits. Attribute: `table`, as of Deadlock."""


class VirtualClock:
    """Call it for the time, in seconds; `jump` moves it on."""

    __slots__ = ("now",)

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def jump(self, seconds: float) -> None:
        """Let time pass. Raises ValueError for a negative number."""
        seconds = checks.seconds("the time of jump", seconds)
        if seconds < 0:
            raise ValueError(f"jump({seconds}): time does not go back")
        self.now += seconds


class VirtualPoller:
    """A poller for wire ends, and for real fds by way of a real poller; instead of waiting it moves the clock.

    `waits` counts the calls of `wait`, which is the turns of the loop. `patience` is how many real seconds it grants
    real fds when no deadline is left to jump to, before it raises StalledError.
    """

    def __init__(self, clock: VirtualClock | None = None, real: Poller | None = None, patience: float = 1.0) -> None:
        self.clock = clock if clock is not None else VirtualClock()
        self.patience = checks.seconds("the patience of a VirtualPoller", patience)
        self.waits = 0
        self._real = real if real is not None else available_pollers()[0]()
        self._ends: dict[int, tuple[WireEnd, int]] = {}
        self._random: Random | None = None  # for the order of events
        self._loop: weakref.ref[Loop] | None = None  # whose tasks StalledError is to name

    def add(self, fd: int, mask: int) -> None:
        end = end_of(fd)
        if end is None:
            self._real.add(fd, mask)
        elif fd in self._ends:
            raise FileExistsError(f"fd {fd} is being watched already")
        else:
            self._ends[fd] = (end, mask)

    def modify(self, fd: int, mask: int) -> None:
        if fd in self._ends:
            self._ends[fd] = (self._ends[fd][0], mask)
        else:
            self._real.modify(fd, mask)

    def remove(self, fd: int) -> None:
        if self._ends.pop(fd, None) is None:
            self._real.remove(fd)

    def wait(self, timeout: float | None) -> Events:
        self.waits += 1
        events = [(fd, ready) for fd, (end, mask) in self._ends.items() if (ready := end.events(mask))]
        events += self._real.wait(0)
        if self._random is not None:
            self._random.shuffle(events)
        if events or timeout == 0:
            return events
        if timeout is not None:
            self.clock.jump(timeout)
            return events
        events = self._real.wait(self.patience)
        if not events:
            loop = self._loop() if self._loop is not None else None
            table = task_table(loop, 50) if loop is not None else ""
            raise StalledError("everybody waits, and nothing can happen any more", table)
        return events

    def close(self) -> None:
        self._ends.clear()
        self._real.close()


def virtual_loop(real: Poller | None = None, *, seed: int | None = None) -> Loop:
    """A loop on a virtual clock; `loop.clock` is the clock and `loop.poller` the poller.

    With a `seed`, tasks that are ready at the same time run in a random order, the same one for the same seed, and so
    are the events of one moment.
    """
    clock = VirtualClock()
    poller = VirtualPoller(clock, real)
    loop = Loop(clock=clock, poller=poller)
    loop.deadlock_seconds = None  # the poller finds out for itself, and at once
    poller._loop = weakref.ref(loop)
    if seed is not None:
        poller._random = random = Random(seed)
        shuffle_tasks(loop, random)
    return loop
