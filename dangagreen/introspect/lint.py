"""lint: mistakes that a program can make without an error being raised, each named in one log line.

Rules: off, it costs nothing, and nothing is left of it. What is named is certain, or happens so many times in a row
that it can hardly be anything else; the reference has the numbers. What does not belong here: the lints (`lint_*`).
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

from dangagreen import checks
from dangagreen.green.sched import drop_guard, guard_parking
from dangagreen.introspect.lint_calls import CallLints
from dangagreen.introspect.lint_queues import QueueLints
from dangagreen.introspect.lint_tasks import TaskLints
from dangagreen.introspect.lint_turns import IdleSockets, TurnLints
from dangagreen.introspect.lint_waits import WaitLints
from dangagreen.introspect.linting import Findings, LintReport, Patches
from dangagreen.loop.loop import Loop, all_loops, watch_loops


class Lints:
    """All lints, which are on until `close()`."""

    def __init__(self, tell: Callable[[LintReport], object] | None) -> None:
        self._findings = findings = Findings(tell)
        self._patches = patches = Patches()
        self._tasks = TaskLints(findings, patches)
        self._queues = QueueLints(findings, patches)
        self._idle = IdleSockets(patches)
        self._calls = CallLints(findings, patches)
        self._waits = WaitLints(findings, self._queues)
        self._turns: WeakKeyDictionary[Loop, TurnLints] = WeakKeyDictionary()
        guard_parking(self._tasks.guard)
        for loop in all_loops():
            self.watch(loop)

    def watch(self, loop: Loop) -> None:
        """Look at the turns of a loop."""
        self._turns[loop] = TurnLints(loop, self._findings, self._idle, self._sweep)

    def _sweep(self, loop: Loop, now: float) -> None:
        self._tasks.sweep(loop, now)
        self._queues.sweep(loop, now)
        self._waits.sweep(loop, now)

    def close(self) -> None:
        """Put everything back."""
        drop_guard(self._tasks.guard)
        self._patches.undo()
        for loop, turns in list(self._turns.items()):
            turns.close(loop)
        self._tasks.close()


_on: list[Lints] = []


def lint(on: bool = True, tell: Callable[[LintReport], object] | None = None) -> None:
    """From now on log a line, at WARNING, for each suspicious piece of code that is met; `False` ends that.

    One line for each kind of finding and place. `tell` gets the findings instead, as `LintReport`, in the thread of the
    loop, and must not wait. To switch it on again begins anew. It is about all loops.
    """
    if tell is not None:
        checks.function("introspect.lint", tell)
    while _on:
        _on.pop().close()
    if on:
        _on.append(Lints(tell))


def _watch_new(loop: Loop) -> None:
    for lints in _on:
        lints.watch(loop)


watch_loops(_watch_new)
