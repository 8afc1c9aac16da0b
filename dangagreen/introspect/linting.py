"""What all lints have in common: telling of a finding once, and looking at what is going on without a trace afterwards.

Rules: one line for each kind and place; functions that are watched are replaced in their class when lints are switched
on, and put back when they are switched off, so that nothing is paid then. What does not belong here: what a finding is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from dangagreen import checks
from dangagreen.errors import ErrorContext
from dangagreen.green.sched import scheduler
from dangagreen.green.stacks import frames
from dangagreen.green.waiters import Waiter
from dangagreen.introspect.records import table_of
from dangagreen.introspect.stacks import chain, steps, steps_here
from dangagreen.loop.error_log import log
from dangagreen.loop.loop import Loop

MOST = 256  # findings that are told, of all kinds


class LintReport(NamedTuple):
    """One finding of `lint`: the argument of its `tell`."""

    kind: str  # its name in the reference, such as "eof-loop"
    what: str  # what was found, in words
    place: str  # "file:line" in the program; "file:line in f, called from file:line" in a function that others call
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
                log().warning("%s", report)
            elif (result := self._tell(report)) is not None:
                checks.outcome("the tell of introspect.lint", result)
        except Exception as error:
            loop.report(ErrorContext(f"the tell of introspect.lint raised; it was to report: {report}", error))
        finally:
            loop.current = current


class Patches:
    """Functions of classes that were replaced.

    Only those of classes that are never compiled to C: of sockets those of `Socket` itself, which inherits them; or
    special methods, by which the interpreter calls them.
    """

    def __init__(self) -> None:
        self._replaced: list[tuple[type, str, object]] = []

    def put(self, owner: type, name: str, wrap: Callable[[Any], Callable[..., Any]]) -> None:
        """Replace a function of a class, which may have inherited it or have none (None), by `wrap(function)`."""
        original: Any = getattr(owner, name, None)
        self._replaced.append((owner, name, vars(owner).get(name)))
        setattr(owner, name, update_wrapper(wrap(original), original))

    def undo(self) -> None:
        """Put back what was there."""
        while self._replaced:
            owner, name, original = self._replaced.pop()
            if original is None:
                delattr(owner, name)
            else:
                setattr(owner, name, original)


def place_here() -> str:
    """ "file:line" of the program's own code that has made the call under way, and by whom that was called."""
    return chain(steps_here())


def place_of_wait(task: Waiter) -> str:
    """ "file:line" of where a parked task waits, and by whom that was called, or else of its spawn."""
    waits = steps(frames(task))
    return chain(waits) if waits else getattr(task, "spawned_at", None) or "?"


class Since:
    """Since when tasks wait: also those of which only that is known that they did so when lints were switched on."""

    def __init__(self) -> None:
        self._adopted: dict[Waiter, float] = {}
        self.parked: WeakKeyDictionary[Loop, float] = WeakKeyDictionary()  # when a task of it has parked last
        self.for_locks: dict[Waiter, float] = {}  # of tasks that are parked for a lock; their lint fills it

    def adopt(self, loop: Loop, now: float) -> None:
        """Take note of the tasks of a loop that wait already, and since when is not known."""
        for task in waiting_tasks(loop):
            if _parked_at(task) is None:
                self._adopted[task] = now
                if (table := table_of(loop)) is not None:
                    table.adopt(task)  # so that its end is told

    def forget(self, task: Waiter) -> None:
        """This task has run since then, and waits again, or has ended."""
        if self._adopted:
            self._adopted.pop(task, None)
        if task.done and self.for_locks:
            self.for_locks.pop(task, None)

    def of(self, task: Waiter) -> float | None:
        """Since when, at the latest, a parked task waits; None if that is not known."""
        parked_at = _parked_at(task)
        return self._adopted.get(task) if parked_at is None else parked_at

    def in_words(self, task: Waiter, seconds: float) -> str:
        """For how long a task waits."""
        if task in self._adopted:
            return f"since before lints were switched on {seconds:.1f} s ago"
        return f"for {seconds:.1f} s"

    def close(self) -> None:
        """Forget all tasks."""
        self._adopted.clear()
        self.for_locks.clear()


def _parked_at(task: Waiter) -> float | None:
    table = table_of(task.loop)
    record = None if table is None else table.records.get(task)
    return None if record is None else record.parked_at


def name_of(task: Waiter) -> str:
    """The name of a task, as in a dump where another one has the same."""
    return scheduler(task.loop).name_of(task)


def waiting_tasks(loop: Loop) -> list[Waiter]:
    """The tasks of a loop that wait."""
    green: Any = loop.green
    return [] if green is None else [task for task in list(green.tasks) if task.wait is not None]
