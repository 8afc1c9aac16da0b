"""A lint of waits that nobody can end: no other code can reach what a task waits for.

Rules: a task is looked at when it has waited for long, and then more and more seldom. What does not belong here: waits
in a circle (lint_tasks), and how references are found (reach).
"""

from __future__ import annotations

from collections.abc import Container
from itertools import chain, islice
from typing import Any
from weakref import WeakKeyDictionary

from dangagreen.green.groups import TaskGroup
from dangagreen.green.tasks import Task
from dangagreen.green.waiters import Waiter
from dangagreen.introspect.circles import without_limit
from dangagreen.introspect.linting import Findings, LintReport, Since, name_of, place_of_wait, waiting_tasks
from dangagreen.introspect.reach import PARKED_FOR, lost
from dangagreen.loop.loop import Loop
from dangagreen.sync.handoff import Handoff
from dangagreen.sync.locks import Mutex

LOST_SECONDS = 30.0  # for which a task has waited when it is looked at; then after twice as long, and so on
LOST_TASKS = 50  # tasks that are looked at at a time


class WaitLints:
    """What is noted of long waits."""

    def __init__(self, findings: Findings, queues: Container[Handoff[Any]], since: Since) -> None:
        self._findings = findings
        self._since = since
        self._queues = queues  # those to which another lint has a weak reference
        self._swept: WeakKeyDictionary[Loop, float] = WeakKeyDictionary()
        self._seen: WeakKeyDictionary[Waiter, float] = WeakKeyDictionary()  # how long they had waited when looked at

    def adopt(self, loop: Loop, now: float) -> None:
        """The first look is LOST_SECONDS from now."""
        self._swept[loop] = now

    def swept(self, loop: Loop) -> float:
        """When the last look at this loop was."""
        return self._swept.get(loop, 0.0)

    def sweep(self, loop: Loop, now: float) -> None:
        """Look, every LOST_SECONDS, at the tasks of one loop that have waited for long."""
        if now - self.swept(loop) < LOST_SECONDS:
            return
        self._swept[loop] = now
        waiting = {
            task: now - since
            for task in waiting_tasks(loop)
            if (since := self._since.of(task)) is not None and now - since >= LOST_SECONDS and _waits_for_others(task)
        }
        due = [task for task, seconds in waiting.items() if self._is_due(task, seconds)][:LOST_TASKS]
        if not due:
            return
        self._seen.update((task, waiting[task]) for task in due)
        looked_at = list(islice(dict.fromkeys(chain(due, waiting)), LOST_TASKS))
        for task in lost(without_limit(looked_at), self._queues):
            self._tell(task, waiting[task])

    def _is_due(self, task: Waiter, seconds: float) -> bool:
        seen = self._seen.get(task, 0.0)
        return seen > seconds or seconds >= 2 * seen

    def _tell(self, task: Waiter, seconds: float) -> None:
        assert task.wait is not None
        kind = type(task.subject).__name__
        what = (
            f"task {name_of(task)!r} has waited in {task.wait.name} of a {kind} {self._since.in_words(task, seconds)},"
            f" and will for ever, if it is not cancelled: no other code can reach this {kind} any more"
        )
        self._findings.add(task.loop, LintReport("lost-wait", what, place_of_wait(task), task))


def _waits_for_others(task: Waiter) -> bool:
    """Whether a parked task waits for what other code has to do with an object, or for tasks to end."""
    subject = task.subject
    if task.wait is None or task.worker is None or task.wait.by_thread or isinstance(subject, Mutex):
        return False
    return isinstance(subject, (*PARKED_FOR, Task, TaskGroup))
