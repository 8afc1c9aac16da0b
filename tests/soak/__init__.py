"""Long runs with random programs, injected faults and hostile input. `python -m tests.soak --help` in a checkout."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from random import Random

MOST_FOUND = 20  # what is wrong, before a run ends


class Clock:
    """A monotonic clock on which the time that a busy or suspended machine holds up the process hardly passes.

    It is read twice in a turn at least; where none waits for longer than `LONGEST_WAIT`, what is between two readings
    beyond twice as much is such a time.
    """

    LONGEST_WAIT = 0.5

    def __init__(self) -> None:
        self._read = self._now = time.monotonic()

    def __call__(self) -> float:
        before, self._read = self._read, time.monotonic()
        self._now += min(self._read - before, 2 * self.LONGEST_WAIT)
        return self._now


class Budget:
    """So many seconds from now: call it to hear whether they are over."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def __call__(self) -> bool:
        return time.monotonic() >= self._end


def describe(error: BaseException) -> str:
    """The error, or those of a group, each with the lines that it came through last."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(map(describe, error.exceptions))
    frames, trace = [], error.__traceback__
    while trace is not None:
        frames.append(f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"{error!r} ({' '.join(frames[-6:])})"


def repeated(once: Callable[[int], list[str]], random: Random, seconds: float) -> tuple[int, list[str]]:
    """Run programs until the time is up, `once(number)` each: how many, and what was found wrong."""
    runs, over = 0, Budget(seconds)
    found: list[str] = []
    while not over() and len(found) < MOST_FOUND:
        runs += 1
        found += once(random.randrange(1 << 40))
    return runs, found
