"""Lints of tasks that go on and on though nothing comes from outside: polls without a time, hand-overs between two.

Rules: what is counted ends where the task really waits, or is woken by something else: a socket, a timer, a thread, a
third task. What does not belong here: polling by `sleep(0)`, and what tasks do in one run (lint_tasks).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dangagreen.green.parking import GIVING_WAY
from dangagreen.green.sched import running_task
from dangagreen.green.waiters import Waiter, WaitKind
from dangagreen.introspect.linting import Findings, LintReport, Patches, name_of, place_here, place_of_wait
from dangagreen.introspect.records import NOBODY, TaskRecord, TaskTable
from dangagreen.sync.handoff import Handoff
from dangagreen.sync.wait_queue import WaitQueue

ASKED = 1000  # calls of a task with a timeout of 0, all in vain, one after the other,
ASK_SECONDS = 1.0  # within at least so many seconds,
HANDED = 10_000  # wake-ups of two tasks by each other, and by nobody else,
HAND_SECONDS = 10.0  # within at least so many seconds,
SPIN_RUN = 50e-6  # with less than so many seconds of work for each of these


class _Streak:
    """What a task does again and again."""

    __slots__ = {
        "began": "When it began.",
        "busy": "Seconds of work since then.",
        "by": "The id of the task that has woken it; of polls 0.",
        "count": "How often.",
    }

    def __init__(self, began: float, by: int = 0) -> None:
        self.began, self.by = began, by
        self.busy = 0.0
        self.count = 0

    def is_vain(self, times: int, seconds: float, now: float) -> bool:
        """Whether it was so many times, took so long, and did next to nothing."""
        return self.count >= times and now - self.began >= seconds and self.busy < self.count * SPIN_RUN


class SpinLints:
    """What is noted of the tasks of all loops."""

    def __init__(self, findings: Findings, patches: Patches) -> None:
        self._findings = findings
        self._asking: Waiter | None = None  # the task that waits with a timeout of 0 just now
        self._asked: dict[Waiter, _Streak] = {}
        self._handed: dict[Waiter, _Streak] = {}
        patches.put(TaskTable, "ran", self._watch_runs)
        patches.put(WaitQueue, "_wait_turn", self._watch_turns)
        patches.put(Handoff, "_wait_to_get", self._watch_gets)
        patches.put(Handoff, "_wait_to_put", self._watch_puts)

    def close(self) -> None:
        """Forget all tasks."""
        self._asked.clear()
        self._handed.clear()

    def _watch_runs(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def ran(table: TaskTable, record: TaskRecord, now: float) -> None:
            before, by = record.busy, record.woken_by
            record.woken_by = NOBODY
            original(table, record, now)
            if (task := running_task()) is not None:
                self._ran(task, by, record.busy - before, now)

        return ran

    def _ran(self, task: Waiter, by: int, seconds: float, now: float) -> None:
        """A task, which that one had woken, has run for so long, and now waits, or has ended."""
        if (asked := self._asked.get(task)) is not None:
            asked.busy += seconds
            wait = task.wait
            if not (wait is not None and (task is self._asking or wait is GIVING_WAY or wait.due)):
                del self._asked[task]
        if task.wait is None or by in (NOBODY, id(task)):
            if self._handed:
                self._handed.pop(task, None)
        else:
            self._was_handed(task, by, seconds, now)

    # -- polls

    def _watch_turns(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def wait_turn(queue: WaitQueue, task: Waiter, wait: WaitKind, timeout: float | None) -> Any:
            if timeout is not None and not timeout > 0:
                self._asks(task, wait)
            return original(queue, task, wait, timeout)

        return wait_turn

    def _watch_gets(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def wait_to_get(queue: Handoff[Any], task: Waiter, wait: WaitKind, timeout: float | None = None) -> Any:
            if timeout is None or timeout > 0:
                return original(queue, task, wait, timeout)
            return self._asking_by(task, wait, original, queue, task, wait, timeout)

        return wait_to_get

    def _watch_puts(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def wait_to_put(
            queue: Handoff[Any], task: Waiter, wait: WaitKind, it: Any, timeout: float | None = None
        ) -> Any:
            if timeout is None or timeout > 0:
                return original(queue, task, wait, it, timeout)
            return self._asking_by(task, wait, original, queue, task, wait, it, timeout)

        return wait_to_put

    def _asking_by(self, task: Waiter, wait: WaitKind, call: Callable[..., Any], *args: Any) -> Any:
        """Make a call that waits until the timer of no time is due."""
        self._asks(task, wait)
        self._asking = task
        try:
            return call(*args)
        finally:
            self._asking = None

    def _asks(self, task: Waiter, wait: WaitKind) -> None:
        now = task.loop.clock()
        asked = self._asked.setdefault(task, _Streak(now))
        asked.count += 1
        if asked.count % ASKED == 0 and asked.is_vain(ASKED, ASK_SECONDS, now):
            del self._asked[task]
            what = (
                f"task {name_of(task)!r} wakes itself: {asked.count} times in {now - asked.began:.1f} s it has asked by"
                f" {wait.name}, with a timeout of 0, in vain, and done next to nothing in between; without that timeout"
                f" it would wait"
            )
            self._findings.add(task.loop, LintReport("self-wake", what, place_here(), task))

    # -- hand-overs

    def _was_handed(self, task: Waiter, by: int, seconds: float, now: float) -> None:
        handed = self._handed.get(task)
        if handed is None or handed.by != by:
            self._handed[task] = _Streak(now, by)
            return
        handed.count += 1
        handed.busy += seconds
        if handed.count % HANDED:
            return
        other = next((one for one in self._handed if id(one) == by), None)
        back = None if other is None else self._handed[other]
        if other is None or back is None or back.by != id(task) or not handed.is_vain(HANDED, HAND_SECONDS, now):
            return
        if back.busy < back.count * SPIN_RUN and back.count >= HANDED - 1:
            del self._handed[task], self._handed[other]
            what = (
                f"tasks {name_of(task)!r} and {name_of(other)!r} ({place_of_wait(other)}) wake each other:"
                f" {handed.count} times in {now - handed.began:.1f} s each was woken by the other and by nothing else,"
                f" and has done next to nothing in between"
            )
            self._findings.add(task.loop, LintReport("self-wake", what, place_here(), task))
