"""What each event of each class costs in processor time, as Danga::Socket's EnableProfiling shows it.

Rules: nothing here runs unless profiling was switched on. What does not belong here: wall-clock time, printing.
"""

from __future__ import annotations

import resource
from collections.abc import Callable


class Profile:
    """`data` maps "Class-event" to [user seconds, system seconds, calls]."""

    __slots__ = ("data",)

    def __init__(self) -> None:
        self.data: dict[str, list[float]] = {}

    def measure(self, owner: object, event: str, call: Callable[[], object]) -> object:
        """Make the call, answer what it answers, and add what it took to the row of the owner's class."""
        row = self.data.setdefault(f"{type(owner).__name__}-{event}", [0.0, 0.0, 0])
        before = resource.getrusage(resource.RUSAGE_SELF)
        try:
            return call()
        finally:
            after = resource.getrusage(resource.RUSAGE_SELF)
            row[0] += after.ru_utime - before.ru_utime
            row[1] += after.ru_stime - before.ru_stime
            row[2] += 1
