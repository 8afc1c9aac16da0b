"""A virtual clock: a loop on it never sleeps, and fires its timers in order.

Rules: time passes only when nothing else can happen, and then jumps to the next deadline. What happens within the
process counts, real sockets included; another process or thread would be outrun, so do not mix it with those. What does
not belong here: connections (wire), and the order of tasks (order).
"""

from __future__ import annotations

import weakref
from random import Random

from dangagreen import checks
from dangagreen.errors import Deadlock
from dangagreen.green.task_table import task_table
from dangagreen.loop.deadlock import external_wakers
from dangagreen.loop.loop import Loop
from dangagreen.loop.pollers import Events, Poller, available_pollers, check_poller
from dangagreen.testing.order import shuffle_tasks
from dangagreen.testing.wire_end import WireEnd, end_of


class StalledError(Deadlock):
    """Nothing can happen any more: no event, no timer, and all tasks wait. Attribute: `table`, as of Deadlock."""


class VirtualClock:
    """A clock that stands still: call it for the time, in seconds; `jump` moves it on."""

    __slots__ = {"now": "The time, in seconds."}

    def __init__(self, now: float = 1000.0) -> None:
        self.now = checks.seconds("the time of a VirtualClock", now)

    def __call__(self) -> float:
        return self.now

    def jump(self, seconds: float) -> None:
        """Move the clock on by so many seconds. Raises ValueError for a negative number."""
        self.now += checks.span("the time of jump", seconds)


class VirtualPoller:
    """A poller for wire ends, and for real fds by a real poller; instead of waiting it moves the clock.

    `waits` counts the calls of `wait`, one for each turn of the loop. `patience`: how many real seconds it waits for
    real fds and other threads, if there are any, when no deadline is left to jump to, before it raises StalledError.
    """

    def __init__(self, clock: VirtualClock | None = None, real: Poller | None = None, patience: float = 1.0) -> None:
        if clock is not None and not isinstance(clock, VirtualClock):
            raise TypeError(f"VirtualPoller needs a VirtualClock, not {checks.shown(clock)}")
        if real is not None:
            check_poller("VirtualPoller", real)
        self.clock = clock if clock is not None else VirtualClock()
        self.patience = checks.span("the patience of a VirtualPoller", patience)
        self.waits = 0
        self._real = real if real is not None else available_pollers()[0]()
        self._fds = 0  # how many real ones are watched
        self._ends: dict[int, tuple[WireEnd, int]] = {}
        self._random: Random | None = None  # shuffles the events of a wait
        self._loop: weakref.ref[Loop] | None = None  # the loop whose tasks StalledError lists

    def add(self, fd: int, mask: int) -> None:
        """Watch an fd for the bits of `mask`. Raises FileExistsError if it is watched already."""
        end = end_of(fd)
        if end is None:
            self._real.add(fd, mask)
            self._fds += 1
        elif fd in self._ends:
            raise FileExistsError(f"fd {fd} is being watched already")
        else:
            self._ends[fd] = (end, mask)

    def modify(self, fd: int, mask: int) -> None:
        """Watch an fd, which is watched already, for other bits. Raises KeyError or OSError if it is not."""
        if fd in self._ends:
            self._ends[fd] = (self._ends[fd][0], mask)
        else:
            self._real.modify(fd, mask)

    def remove(self, fd: int) -> None:
        """Watch an fd no more. Raises KeyError or OSError if it is not watched."""
        if self._ends.pop(fd, None) is None:
            self._real.remove(fd)
            self._fds -= 1

    def wait(self, timeout: float | None) -> Events:
        """Return the events that are there; without any, move the clock by `timeout` (None: no deadline) and return [].

        Raises StalledError if there is no deadline and no real fd has an event for `patience` real seconds, at once if
        there is none.
        """
        self.waits += 1
        events = self.events()
        if self._random is not None:
            self._random.shuffle(events)
        if events or timeout == 0:
            return events
        if timeout is not None:
            self.clock.jump(timeout)
            return events
        events = self._real.wait(self.patience if self._may_be_woken() else 0)
        if not events:
            loop = self._loop() if self._loop is not None else None
            table = task_table(loop, 50) if loop is not None else ""
            raise StalledError("all tasks wait, and nothing can wake them", table)
        return events

    def _may_be_woken(self) -> bool:
        """Whether a real fd may, other than that of the wake-up pair, or another thread, or a handler of a signal."""
        return self._fds > 1 or any(external_wakers())

    def events(self) -> Events:
        """The events that are there now."""
        events = [(fd, ready) for fd, (end, mask) in self._ends.items() if (ready := end.events(mask))]
        return events + self._real.wait(0)

    def close(self) -> None:
        """Let go of the real poller."""
        self._ends.clear()
        self._real.close()


def virtual_loop(real: Poller | None = None, *, seed: int | None = None) -> Loop:
    """A loop on a virtual clock: `loop.clock` is its VirtualClock, `loop.poller` its VirtualPoller.

    `real` is the poller for real fds. With a `seed`, tasks that are ready at the same time run, and events of the same
    moment come, in a random order, the same one for the same seed.
    """
    random = None if seed is None else Random(seed)
    clock = VirtualClock()
    poller = VirtualPoller(clock, real)
    loop = Loop(clock=clock, poller=poller)
    loop.deadlock_seconds = None  # the poller raises StalledError at once
    loop.slow_seconds = None  # a jump of the clock is no slow code
    poller._loop = weakref.ref(loop)
    if random is not None:
        poller._random = random
        shuffle_tasks(loop, random)
    return loop
