"""Slow work: what has held up a loop for longer than `slow_seconds`, named and logged after it.

Rules: the grain is one callback, or one run of a task, not a turn of many; the clock is read once for each, and
nothing else is done while nothing is slow. What cannot be seen from here is where the time went inside that callback: a
watchdog thread sees that (`dangagreen.introspect`). What does not belong here: the turn.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from dangagreen import checks
from dangagreen.errors import ErrorContext, connection
from dangagreen.loop.deadlock import DeadlockWatch
from dangagreen.loop.error_log import MOST, Ration, log
from dangagreen.loop.handlers import Handler, Resumable
from dangagreen.loop.pollers import ERR, HUP, READ, WRITE, Poller
from dangagreen.places import innermost, named, owner_of, place_of

SLOW_SECONDS = 0.1  # the default of `slow_seconds`
_HOOKS = ((READ, "event_read"), (WRITE, "event_write"), (ERR, "event_err"), (HUP, "event_hup"))


class SlowReport(NamedTuple):
    """One callback, or one run of a task, that has held up its loop: the argument of `loop.on_slow`."""

    what: str  # what it was, in words
    place: str  # "file:line" of its function, or of where its task waits now, or of the spawn of a task that has ended
    seconds: float  # how long it took, by the loop's clock
    subject: object  # the socket, or the task; None if there is none, or none any more

    def __str__(self) -> str:
        return f"{self.what} held up the loop for {self.seconds:.3f} s: {self.place}"


class SlowLog(Ration):
    """The default of `on_slow`: a line for each, and only a count where there are too many of a kind."""

    __slots__ = ()

    def __call__(self, report: SlowReport) -> None:
        kind = "slow", report.place if report.place != "?" else report.what
        count = self.count(kind)
        if count <= MOST:
            log().warning("%s", report)


class SlowWatch(DeadlockWatch):
    """What a loop knows of slow work: base class of `Loop`."""

    __slots__ = {
        "_on_slow": "The callable that `on_slow` is.",
        "after_turn": "Called with the loop at the end of each turn, by who watches it; None: nobody does.",
        "looked": "The clock's time when the last callback of this turn, or run of a task, had ended.",
        "slow_count": "How many callbacks, and runs of tasks, were slow.",
        "slow_limit": "`slow_seconds`; infinity where that is None.",
        "slow_in_turn": "(turn, report) of what was slowest in the last turn in which anything was slow; or None.",
        "slow_log": "The default of `on_slow`.",
        "slowest": "What took longest of all that was slow: its report, without the subject; or None.",
        "suspect_after": "What ends before this time of the clock was not slow: a past one, plus `slow_limit`.",
        "turns": "How many turns it has begun.",
    }

    def __init__(self, clock: Callable[[], float], poller: Poller) -> None:
        super().__init__(clock, poller)
        self.looked = clock()
        self.slow_limit = SLOW_SECONDS
        self.slow_count = 0
        self.suspect_after = -math.inf
        self.slowest: SlowReport | None = None
        self.slow_in_turn: tuple[int, SlowReport] | None = None
        self.turns = 0
        self.after_turn: Callable[[Any], object] | None = None
        self.slow_log = SlowLog(clock)
        self._on_slow: Callable[[SlowReport], object] = self.slow_log

    @property
    def slow_seconds(self) -> float | None:
        """From how many seconds on a callback, or one run of a task, is reported as slow; None: never. Assignable."""
        return self.slow_limit if self.slow_limit < math.inf else None

    @slow_seconds.setter
    def slow_seconds(self, value: float | None) -> None:
        self.slow_limit = math.inf if value is None else checks.span("slow_seconds", value)
        self.suspect_after = -math.inf

    @property
    def on_slow(self) -> Callable[[SlowReport], object]:
        """Called, right after it, with a `SlowReport` of each callback, or run of a task, that was slow. Assignable.

        By default it logs a line, ten in a minute for each place.
        """
        return self._on_slow

    @on_slow.setter
    def on_slow(self, report: Callable[[SlowReport], object]) -> None:
        checks.function("loop.on_slow", report)
        self._on_slow = report

    # The turn calls these for what ends after `suspect_after`, ten times a second by default, mostly in vain. They set,
    # and return, the next such time. So the turn compares with one time, and subtracts nothing.

    def call_took(self, began: float, ended: float, call: object, kind: str) -> float:
        """A call, or a run of a task, has ended: report it if it was slow. Returns the next `suspect_after`."""
        if ended - began > self.slow_limit:
            described = self.green.describe_run(call) if self.green is not None else None
            what, place, subject = described or (f"{kind} {named(call)}", place_of(call), None)
            self._tell_slow(SlowReport(what, place, ended - began, subject))
        return self._suspect(ended)

    def handler_took(
        self, began: float, ended: float, handler: Handler | None, mask: int, reader: Resumable | None = None
    ) -> float:
        """An event of a handler has ended: its callback, or the run of `reader`, the task that it has resumed.

        Reports it if it was slow; not without a handler. Returns the next `suspect_after`.
        """
        if ended - began > self.slow_limit and handler is not None:
            if reader is not None and self.green is not None:
                what, place, subject = self.green.describe_task(reader.task)
                what += f" on {connection(handler)},"
            else:
                name = next((name for bit, name in _HOOKS if mask & bit), "a callback")
                what = f"{name} of {type(handler).__name__}"
                code = handler._code_behind(name)
                if code is not handler and owner_of(code) is not handler:
                    what += f", which {'makes' if isinstance(innermost(code), type) else 'calls'} {named(code)},"
                if hasattr(handler, "peer_addr_string"):
                    what += f", {connection(handler)},"
                place, subject = place_of(code), handler
            self._tell_slow(SlowReport(what, place, ended - began, subject))
        return self._suspect(ended)

    def _suspect(self, now: float) -> float:
        self.suspect_after = after = now + self.slow_limit
        return after

    def _tell_slow(self, report: SlowReport) -> None:
        kept = report._replace(subject=None)
        self.slow_count += 1
        if self.slowest is None or self.slowest.seconds < report.seconds:
            self.slowest = kept
        turn, slowest = self.slow_in_turn or (-1, kept)
        if turn != self.turns or slowest.seconds < report.seconds:
            self.slow_in_turn = self.turns, kept
        try:
            if (result := self._on_slow(report)) is not None:
                checks.outcome("on_slow", result)
        except Exception as error:
            self.report(ErrorContext(f"loop.on_slow raised; it was to report: {report}", error))
