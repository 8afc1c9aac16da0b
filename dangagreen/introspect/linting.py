"""What all lints have in common: telling of a finding once, and looking at what is going on without a trace afterwards.

Rules: one line for each kind and place; functions that are watched are replaced in their class when lints are switched
on, and put back when they are switched off, so that nothing is paid then. What does not belong here: what a finding is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from typing import Any, NamedTuple

from dangagreen import checks
from dangagreen.errors import ErrorContext
from dangagreen.green.stacks import program_places
from dangagreen.green.waiters import Waiter
from dangagreen.introspect.stacks import place_of, running
from dangagreen.loop.loop import Loop
from dangagreen.loop.registry import log

MOST = 256  # findings that are told, of all kinds


class LintReport(NamedTuple):
    """One finding of `lint`: the argument of its `tell`."""

    kind: str  # its name in the reference, such as "eof-loop"
    what: str  # what was found, in words
    place: str  # "file:line" in the program
    subject: object  # the task, the socket, the queue or the callback

    def __str__(self) -> str:
        return f"lint {self.kind}: {self.what}: {self.place}"


class Findings:
    """Tells of each finding, once for its kind and place."""

    def __init__(self, tell: Callable[[LintReport], object] | None) -> None:
        self._tell = tell
        self._told: set[tuple[str, str]] = set()

    def add(self, loop: Loop, report: LintReport) -> None:
        """Tell of this, unless the same was told. What `tell` raises goes to `loop.on_error`; it must not park."""
        key = report.kind, report.place
        if key in self._told or len(self._told) >= MOST:
            return
        self._told.add(key)
        current, loop.current = loop.current, None
        try:
            if self._tell is None:
                log.warning("%s", report)
            elif (result := self._tell(report)) is not None:
                checks.outcome("the tell of introspect.lint", result)
        except Exception as error:
            loop.report(ErrorContext(f"the tell of introspect.lint raised; it was to report: {report}", error))
        finally:
            loop.current = current


class Patches:
    """Functions of classes that were replaced."""

    def __init__(self) -> None:
        self._replaced: list[tuple[type, str, object]] = []

    def put(self, owner: type, name: str, wrap: Callable[[Any], Callable[..., Any]]) -> None:
        """Replace a function of a class by `wrap(function)`."""
        original = vars(owner)[name]
        self._replaced.append((owner, name, original))
        setattr(owner, name, update_wrapper(wrap(original), original))

    def undo(self) -> None:
        """Put back what was there."""
        while self._replaced:
            owner, name, original = self._replaced.pop()
            setattr(owner, name, original)


def place_here() -> str:
    """ "file:line" of the program's own code that has made the call under way; "?" if there is none."""
    return place_of(running())


def place_of_wait(task: Waiter) -> str:
    """ "file:line" of where a parked task waits, or else of its spawn."""
    return next(program_places(task), None) or getattr(task, "spawned_at", None) or "?"
