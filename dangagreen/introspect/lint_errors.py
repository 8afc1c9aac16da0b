"""A lint of errors that are lost: of a task that was waited for, by `join` or the like, and never asked for its result.

Rules: an error that reaches no caller is reported by the loop; here it is the caller that has dropped it. It is told
when the task is freed, since until then it may be asked. What does not belong here: other calls (lint_calls).
"""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Callable
from typing import Any
from weakref import ref

from dangagreen.green.tasks import Task
from dangagreen.green.waiters import Waiter
from dangagreen.introspect.linting import Findings, LintReport, Patches
from dangagreen.introspect.records import TaskTable
from dangagreen.introspect.stacks import raised_at
from dangagreen.loop.loop import Loop


class ErrorLints:
    """What is noted of tasks that have failed, and were waited for."""

    def __init__(self, findings: Findings, patches: Patches) -> None:
        self._findings = findings
        self._failed: dict[int, ref[Waiter]] = {}  # by the ids of the tasks
        patches.put(TaskTable, "__delitem__", self._watch_ends)
        patches.put(Task, "result", self._watch_answers)
        patches.put(Task, "_failure", self._watch_answers)  # it is reported after all: the wait was interrupted

    def _watch_ends(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def ended(table: TaskTable, task: Any) -> None:
            original(table, task)
            error = task.ended_by()
            if isinstance(error, Exception) and task.group is None and task.joiners:
                place = raised_at(error) or task.spawned_at or "?"
                self._note(task, table.loop, f"task {task.name!r} has failed, by {type(error).__name__}", place)

        return ended

    def _note(self, task: Waiter, loop: Loop, who: str, place: str) -> None:
        key = id(task)

        def freed(_task: ref[Waiter]) -> None:
            if self._failed.pop(key, None) is not None and get_ident() == loop.thread:
                what = f"{who}, and who has waited for it has not asked for its result(), which raises that: it is lost"
                self._findings.add(loop, LintReport("lost-error", what, place, None))

        self._failed[key] = ref(task, freed)

    def _watch_answers(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def answer(task: Waiter, *arguments: Any) -> Any:
            if task.done:
                self._failed.pop(id(task), None)
            return original(task, *arguments)

        return answer

    def close(self) -> None:
        """Forget all tasks."""
        self._failed.clear()
