"""lint: mistakes that a program can make without an error being raised, each named in one log line.

Rules: off, it costs nothing, and nothing is left of it. What is named is certain, or happens so many times in a row
that it can hardly be anything else; the reference has the numbers. What does not belong here: the lints (`lint_*`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from weakref import WeakKeyDictionary

from dangagreen import checks
from dangagreen.errors import ForeignThreadError
from dangagreen.green.sched import drop_guard, guard_parking
from dangagreen.introspect.lint_calls import CallLints, ScopeLints
from dangagreen.introspect.lint_errors import ErrorLints
from dangagreen.introspect.lint_locks import HELD_SECONDS, LockLints
from dangagreen.introspect.lint_queues import QueueLints
from dangagreen.introspect.lint_spins import SpinLints
from dangagreen.introspect.lint_tasks import TaskLints
from dangagreen.introspect.lint_turns import IdleSockets, TurnLints
from dangagreen.introspect.lint_waits import LOST_SECONDS, WaitLints
from dangagreen.introspect.linting import Findings, LintReport, Patches, Since, waiting_tasks
from dangagreen.loop.loop import Loop, for_each_loop, watch_loops

_LATE = 0.001  # seconds, so that the time is over, however it is rounded


class Lints:
    """All lints, which are on until `close()`."""

    def __init__(self, tell: Callable[[LintReport], object] | None) -> None:
        self._findings = findings = Findings(tell)
        self._patches = patches = Patches()
        self._since = Since()
        self._tasks = TaskLints(findings, patches, self._since)
        self._spins = SpinLints(findings, patches)
        self._locks = LockLints(findings, patches, self._since)
        self._queues = QueueLints(findings, patches)
        self._idle = IdleSockets(patches)
        self._calls = CallLints(findings, patches)
        self._scopes = ScopeLints(findings, patches)
        self._errors = ErrorLints(findings, patches)
        self._waits = WaitLints(findings, self._queues, self._since)
        self._turns: WeakKeyDictionary[Loop, TurnLints] = WeakKeyDictionary()
        self._is_over = False
        guard_parking(self._locks.guard)
        for_each_loop(self.watch)

    def watch(self, loop: Loop) -> None:
        """Look at the turns of a loop, and at what waits there already. Called in the loop's thread, if it runs."""
        if self._is_over:
            return
        self._turns[loop] = TurnLints(loop, self._findings, self._idle, self._sweep, self._look_later)
        now = loop.clock()
        self._since.adopt(loop, now)
        self._locks.adopt(loop, now)
        self._waits.adopt(loop, now)
        if waiting_tasks(loop):
            self._since.parked[loop] = now
            self._look_later(loop)

    def _look_later(self, loop: Loop) -> None:
        """Have a timer look at what waits, though nothing may happen in this loop, if it is of use.

        It is due when the task that was the last one to park has waited for long enough, for a lock and then to be
        lost. When that was looked at there is none until a task parks again.
        """
        if (parked := self._since.parked.get(loop)) is None:
            return
        now, due = loop.clock(), parked + HELD_SECONDS + _LATE
        if due <= now:
            due = max(parked, self._waits.swept(loop)) + LOST_SECONDS + _LATE
            if parked + LOST_SECONDS + _LATE <= now:
                del self._since.parked[loop]
                return
        if any(timer.deadline <= due for timer in loop.onlookers):
            return
        self._cancel_timer(loop)

        def look() -> None:
            loop.onlookers.discard(timer)
            if not self._is_over:
                self._look(loop, loop.clock())
                self._look_later(loop)

        timer = loop.timers.add(due, look)
        loop.onlookers.add(timer)

    def _sweep(self, loop: Loop, now: float) -> None:
        self._look(loop, now)
        self._queues.sweep(loop, now)  # at these times alone: at another look soon after, no queue would be longer

    def _look(self, loop: Loop, now: float) -> None:
        self._locks.sweep(loop, now)
        self._waits.sweep(loop, now)

    def _cancel_timer(self, loop: Loop) -> None:
        with suppress(ForeignThreadError):  # of a loop that does not run: its `look` does nothing then
            for timer in list(loop.onlookers):
                timer.cancel()
                loop.onlookers.discard(timer)

    def close(self) -> None:
        """Put everything back."""
        self._is_over = True
        drop_guard(self._locks.guard)
        self._patches.undo()
        for loop, turns in list(self._turns.items()):
            turns.close(loop)
        for_each_loop(self._cancel_timer)
        for part in (self._tasks, self._spins, self._locks, self._errors, self._since):
            part.close()


_on: list[Lints] = []


def lint(on: bool = True, tell: Callable[[LintReport], object] | None = None) -> None:
    """From now on log a line, at WARNING, for each suspicious piece of code that is met; `False` ends that.

    One line for each kind of finding and place. `tell` gets the findings instead, as `LintReport`, in the thread of the
    loop, and must not wait. To switch it on again begins anew. It is about all loops.
    """
    if not isinstance(on, bool):
        raise TypeError(f"introspect.lint is given True or False, not {checks.shown(on)}: a function is for tell=...")
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
