"""Profiling: processor time of each event of each class, as Danga::Socket's EnableProfiling measures it.

Rules: nothing here runs unless profiling was switched on. What does not belong here: wall-clock time, printing.
"""

from __future__ import annotations

import resource
from collections.abc import Callable


class Profile:
    """What was measured."""

    __slots__ = {"data": 'Maps "Class-event" to [user seconds, system seconds, calls].'}

    def __init__(self) -> None:
        self.data: dict[str, list[float]] = {}

    def measure(self, owner: object, event: str, call: Callable[[], object]) -> object:
        """Make the call, return what it returns, and add its processor time to the row of the owner's class."""
        row = self.data.setdefault(f"{type(owner).__name__}-{event}", [0.0, 0.0, 0])
        before = resource.getrusage(resource.RUSAGE_SELF)
        try:
            return call()
        finally:
            after = resource.getrusage(resource.RUSAGE_SELF)
            row[0] += after.ru_utime - before.ru_utime
            row[1] += after.ru_stime - before.ru_stime
            row[2] += 1
