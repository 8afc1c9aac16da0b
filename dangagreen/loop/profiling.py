"""Profiling: processor time, wall-clock time, bytes and calls, by class and event, by function and event, and by task.

Rules: it is an instrument, and nothing here runs unless profiling was switched on; the time of a task that a callback
has resumed is the task's, not the callback's, so that the rows add up. What does not belong here: printing, and what
the kernel counts.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from time import perf_counter
from typing import Any
from weakref import WeakKeyDictionary

from dangagreen.loop.instruments import Instrument
from dangagreen.places import named, owner_of

_WHOSE = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)  # the loop's thread, where the system can tell
_FUNCTIONS = {"timer", "call_soon", "fd", "post_loop"}  # events whose subject is a function

Passed = tuple[int, int]  # bytes that were read and sent

_passed_through: Callable[[Any], Passed | None] = lambda _sock: None  # noqa: E731


def count_bytes_by(passed_through: Callable[[Any], Passed | None]) -> None:
    """Have bytes counted by this function of a connection. `dangagreen.introspect` does so when it is imported."""
    global _passed_through
    _passed_through = passed_through


class ProfileRow:
    """What was measured of one kind of callback, or of the tasks of one name."""

    __slots__ = {
        "bytes_in": "Bytes that were read of its connection meanwhile, where they are counted.",
        "bytes_out": "Bytes that were sent to it.",
        "calls": "How often it was called, or has run.",
        "seconds": "Wall-clock time.",
        "system": "Seconds of the processor in the kernel. The sum is exact, its parts are by ticks.",
        "user": "Seconds of the processor in user mode.",
    }

    def __init__(self) -> None:
        self.user = self.system = self.seconds = 0.0
        self.calls = self.bytes_in = self.bytes_out = 0


class Profile(Instrument):
    """What was measured."""

    __slots__ = {
        "_marks": "Processor times and wall-clock time when the innermost row was last added to.",
        "_left": "Connection to the row that was the last one to run for it, and what had passed through it then.",
        "_open": "The rows of what runs now, the innermost at the end, each with its connection.",
        "_passed": "What had passed through that of the innermost one when it was last added to; None: not counted.",
        "rows": '"Class-event", "function-event", "handler-read" or "name-task", to its row.',
    }

    def __init__(self) -> None:
        self.rows: dict[str, ProfileRow] = {}
        self._left: WeakKeyDictionary[Any, tuple[ProfileRow, Passed]] = WeakKeyDictionary()
        self._open: list[tuple[ProfileRow, Any]] = []
        self._marks = (0.0, 0.0, 0.0)
        self._passed: Passed | None = None

    def callback_began(self, subject: Any, event: str) -> None:
        if event in _FUNCTIONS:
            self._begin(f"{named(subject)}-{event}", None)
        else:
            self._begin(f"{_whose(subject, event)}-{event}", subject)

    def callback_ended(self, subject: Any, event: str) -> None:
        self._end()

    def run_began(self, task: Any) -> None:
        self._begin(f"{task.name}-task", getattr(task, "sock", None))  # that of a handler

    def run_ended(self, task: Any) -> None:
        self._end()

    def connection_closed(self, sock: Any) -> None:
        self._add_sent_since(sock, _passed_through(sock) if sock in self._left else None)

    def _begin(self, name: str, sock: Any) -> None:
        self._add_up()
        row = self.rows.get(name)
        if row is None:
            row = self.rows[name] = ProfileRow()
        row.calls += 1
        self._open.append((row, sock))
        self._passed = _passed_through(sock)
        if self._left:
            self._add_sent_since(sock, self._passed)

    def _end(self) -> None:
        self._add_up()
        row, sock = self._open.pop()
        if self._passed is not None and (passed := _passed_through(sock)) is not None:
            self._left[sock] = row, passed
        self._passed = _passed_through(self._open[-1][1]) if self._open else None

    def _add_sent_since(self, sock: Any, passed: Passed | None) -> None:
        """What was sent while nothing ran for a connection, at the end of a turn, had been queued by what ran last."""
        if passed is not None and (left := self._left.pop(sock, None)) is not None:
            row, before = left
            row.bytes_out += max(0, passed[1] - before[1])

    def _add_up(self) -> None:
        """Add what has passed since the last time to the innermost row."""
        used, now = resource.getrusage(_WHOSE), perf_counter()
        if self._open:
            (row, sock), (user, system, then) = self._open[-1], self._marks
            row.user += used.ru_utime - user
            row.system += used.ru_stime - system
            row.seconds += now - then
            if self._passed is not None and (passed := _passed_through(sock)) is not None:
                row.bytes_in += max(0, passed[0] - self._passed[0])  # after a reset the kernel knows nothing
                row.bytes_out += max(0, passed[1] - self._passed[1])
        self._marks = used.ru_utime, used.ru_stime, now

    def data(self) -> dict[str, list[float]]:
        """In the form of Danga::Socket: name to [user seconds, system seconds, calls]."""
        return {name: [row.user, row.system, row.calls] for name, row in self.rows.items()}


def _whose(subject: Any, event: str) -> str:
    """The name of the class; of a connection without one of its own, of `serve_requests`, that of the handler."""
    code_behind = getattr(subject, "_code_behind", None)
    code = subject if code_behind is None else code_behind(f"event_{event}")
    return type(subject).__name__ if code is subject or owner_of(code) is subject else named(code)
