"""The default of `Loop.on_error`: errors go to the logger "dangagreen", rate-limited by kind.

Rules: a peer may cause any number of errors, and must not fill the log. A kind is a type of exception and the place in
the user's code where it was raised; the first ten in a minute are logged with their traceback, the others are counted,
and the count is logged. An `on_error` of the user's own gets every error. What does not belong here: what failed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING

from dangagreen.errors import ErrorContext
from dangagreen.frames import is_ours

if TYPE_CHECKING:
    import logging

MOST = 10  # errors of a kind that are logged in full
SECONDS = 60.0  # within so many seconds since the first of them
KINDS = 256  # kinds that are counted at a time
DEBUG = 10  # logging.DEBUG


@cache
def log() -> logging.Logger:
    """The logger "dangagreen". It is asked for when the first loop is made: who only imports this package does not load
    `logging`, a tenth of the whole; and once a loop runs, nothing is left to load when no more files can be opened.
    """
    import logging

    return logging.getLogger("dangagreen")


class InOneLine(ErrorContext):
    """An error that happens to any server and is no mistake, such as a slow peer: logged in one line at WARNING."""

    __slots__ = ()


class Ration:
    """How many lines of each kind are logged: ten in a minute, and a count of those that were left out."""

    __slots__ = {
        "_clock": "The loop's clock.",
        "_kinds": "Kind to [when its minute began, how many there were since], in the order of beginning.",
    }

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._kinds: dict[tuple[str, str], list[float]] = {}
        log()  # loads logging

    def count(self, kind: tuple[str, str]) -> int:
        """Count one of this kind, (what, place). Returns the number of it in its minute: above MOST it is left out."""
        now = self._clock()
        self._forget_old(now)
        count = self._kinds.setdefault(kind, [now, 0])
        count[1] += 1
        return int(count[1])

    def tell_left_out(self) -> None:
        """Log how many of each kind were only counted. Called at the end."""
        while self._kinds:
            self._forget_first()

    def _forget_old(self, now: float) -> None:
        while self._kinds:
            began, _ = next(iter(self._kinds.values()))
            if now < began + SECONDS and len(self._kinds) < KINDS:
                return
            self._forget_first()

    def _forget_first(self) -> None:
        kind = next(iter(self._kinds))
        _, count = self._kinds.pop(kind)
        if count > MOST:
            log().error("%s at %s: %d more of these were left out", *kind, count - MOST)


class ErrorLog(Ration):
    """The error log of one loop."""

    __slots__ = ()

    def __call__(self, context: ErrorContext) -> None:
        """Log the error with its traceback, or only count it."""
        kind = type(context.exception).__name__, _place(context.exception)
        count = self.count(kind)
        if count <= MOST:
            log_error(context)
        if count == MOST:
            log().warning("%s at %s: more of these are only counted for %s s", *kind, SECONDS)


def log_error(context: ErrorContext) -> None:
    """Log one error, with its traceback, to the logger "dangagreen"."""
    error = context.exception
    if isinstance(context, InOneLine):
        log().warning("%s", context.message)
    else:
        log().error("%s", context.message, exc_info=(type(error), error, error.__traceback__))


def _place(error: BaseException) -> str:
    """ "file:line" of the innermost frame that is not of this package; of the innermost one, if all are."""
    place, step = "an unknown place", error.__traceback__
    ours = True
    while step is not None:
        inside = is_ours(step.tb_frame)
        if ours or not inside:
            place, ours = _line(step), inside
        step = step.tb_next
    return place


def _line(step: TracebackType) -> str:
    return f"{step.tb_frame.f_code.co_filename}:{step.tb_lineno}"
