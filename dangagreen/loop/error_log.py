"""The default of `Loop.on_error`: what has failed goes to the logger "dangagreen", each kind so often and no more.

Rules: a peer can make a program fail as often as it likes, but not fill its log. A kind is a type of exception and the
place in the user's code that it came from; the first ten of a minute are told in full, with the traceback, the others
counted, and the count is told. An `on_error` of the user's own gets every one. What does not belong here: what failed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType

from dangagreen.errors import ErrorContext
from dangagreen.frames import is_ours

MOST = 10  # of a kind that are told in full,
SECONDS = 60.0  # in so many seconds since the first of them
KINDS = 256  # that are kept count of at a time

log = logging.getLogger("dangagreen")


class InOneLine(ErrorContext):
    """Something that happens to any server, and is nobody's mistake: it is told without a traceback."""

    __slots__ = ()


class ErrorLog:
    """The log of one loop, whose clock it goes by."""

    __slots__ = ("_clock", "_kinds")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._kinds: dict[tuple[str, str], list[float]] = {}  # [when its minute began, how many there were], in order

    def __call__(self, context: ErrorContext) -> None:
        """Log the message and the traceback; or only count it."""
        now = self._clock()
        self._forget_old(now)
        kind = type(context.exception).__name__, _place(context.exception)
        count = self._kinds.setdefault(kind, [now, 0])
        count[1] += 1
        if count[1] <= MOST:
            log_error(context)
        if count[1] == MOST:
            log.warning("%s at %s: more of these are only counted for %s s", *kind, SECONDS)

    def tell_left_out(self) -> None:
        """At the end: how many of each kind there were beside those that were told."""
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
            log.error("%s at %s: %d more of these were left out", *kind, count - MOST)


def log_error(context: ErrorContext) -> None:
    """The message and the traceback, to the logger "dangagreen"."""
    error = context.exception
    if isinstance(context, InOneLine):
        log.warning("%s", context.message)
    else:
        log.error("%s", context.message, exc_info=(type(error), error, error.__traceback__))


def _place(error: BaseException) -> str:
    """ "file:line" of the innermost frame that is not the library's; of the innermost one, if there is no other."""
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
