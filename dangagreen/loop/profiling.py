"""Profiling: processor time, wall-clock time and calls, by class and event, by function and event, and by task.

Rules: it is an instrument, and nothing here runs unless profiling was switched on; the time of a task that a callback
has resumed is the task's, not the callback's, so that the rows add up. What does not belong here: printing.
"""

from __future__ import annotations

import resource
import time
from typing import Any

from dangagreen.loop.instruments import Instrument
from dangagreen.places import named

_WHOSE = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)  # the loop's thread, where the system can tell


class ProfileRow:
    """What was measured of one kind of callback, or of the tasks of one name."""

    __slots__ = {
        "calls": "How often it was called, or has run.",
        "seconds": "Wall-clock time.",
        "system": "Seconds of the processor in the kernel.",
        "user": "Seconds of the processor in user mode.",
    }

    def __init__(self) -> None:
        self.user = self.system = self.seconds = 0.0
        self.calls = 0


class Profile(Instrument):
    """What was measured."""

    __slots__ = {
        "_marks": "Processor times and wall-clock time when the innermost row was last added to.",
        "_open": "The rows of what runs now, the innermost at the end.",
        "rows": '"Class-event", or "name-task", to its row.',
    }

    def __init__(self) -> None:
        self.rows: dict[str, ProfileRow] = {}
        self._open: list[ProfileRow] = []
        self._marks = (0.0, 0.0, 0.0)

    def callback_began(self, subject: Any, event: str) -> None:
        is_function = event in ("timer", "call_soon", "fd", "post_loop")
        self._begin(f"{named(subject) if is_function else type(subject).__name__}-{event}")

    def callback_ended(self, subject: Any, event: str) -> None:
        self._end()

    def run_began(self, task: Any) -> None:
        self._begin(f"{task.name}-task")

    def run_ended(self, task: Any) -> None:
        self._end()

    def _begin(self, name: str) -> None:
        self._add_up()
        row = self.rows.get(name)
        if row is None:
            row = self.rows[name] = ProfileRow()
        row.calls += 1
        self._open.append(row)

    def _end(self) -> None:
        self._add_up()
        self._open.pop()

    def _add_up(self) -> None:
        """Add what has passed since the last time to the innermost row."""
        used, now = resource.getrusage(_WHOSE), time.perf_counter()
        if self._open:
            row, (user, system, then) = self._open[-1], self._marks
            row.user += used.ru_utime - user
            row.system += used.ru_stime - system
            row.seconds += now - then
        self._marks = used.ru_utime, used.ru_stime, now

    def data(self) -> dict[str, list[float]]:
        """In the form of Danga::Socket: name to [user seconds, system seconds, calls]."""
        return {name: [row.user, row.system, row.calls] for name, row in self.rows.items()}
