"""A lint of errors that are lost: of a task that was waited for and never asked for its result, and of a Future.

Rules: an error of a task that reaches no caller is reported by the loop; here it is the caller that has dropped it.
That of a Future nobody else reports. It is told when the task or the Future is freed, since until then it may be asked.
What does not belong here: other calls (lint_calls).
"""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Callable
from typing import Any
from weakref import ref

from dangagreen.green.tasks import Task
from dangagreen.introspect.linting import Findings, LintReport, Patches, place_here
from dangagreen.introspect.records import TaskTable
from dangagreen.introspect.stacks import raised_at
from dangagreen.loop.loop import Loop
from dangagreen.sync.channels import Future


class ErrorLints:
    """What is noted of tasks that have failed, and were waited for, and of Futures that were given an exception."""

    def __init__(self, findings: Findings, patches: Patches) -> None:
        self._findings = findings
        self._failed: dict[int, ref[Any]] = {}  # by the ids of the tasks and Futures
        patches.put(TaskTable, "__delitem__", self._watch_ends)
        patches.put(Task, "result", self._watch_answers)
        patches.put(Task, "_failure", self._watch_answers)  # it is reported after all: the wait was interrupted
        patches.put(Future, "set_exception", self._watch_settings)
        patches.put(Future, "result", self._watch_answers)  # `wait` calls it

    def _watch_ends(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def ended(table: TaskTable, task: Any) -> None:
            original(table, task)
            error = task.ended_by()
            if isinstance(error, Exception) and task.group is None and task.joiners:
                place = raised_at(error) or task.spawned_at or "?"
                who = f"task {task.name!r} has failed, by {type(error).__name__}, and who has waited for it"
                what = f"{who} has not asked for its result(), which raises that: it is lost"
                self._note(task, table.loop, what, place)

        return ended

    def _watch_settings(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def set_exception(future: Future[Any], error: BaseException) -> None:
            original(future, error)
            if isinstance(error, Exception):
                who = f"a Future was given an exception, {type(error).__name__}, and nobody"
                what = f"{who} has asked for it, by wait() or result(), which raise it: it is lost"
                self._note(future, future.loop, what, raised_at(error) or place_here())

        return set_exception

    def _note(self, failed: Any, loop: Loop, what: str, place: str) -> None:
        key = id(failed)

        def freed(_failed: ref[Any]) -> None:
            if self._failed.pop(key, None) is not None and get_ident() == loop.thread:
                self._findings.add(loop, LintReport("lost-error", what, place, None))

        self._failed[key] = ref(failed, freed)

    def _watch_answers(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def answer(asked: Any, *arguments: Any) -> Any:
            if asked.done:
                self._failed.pop(id(asked), None)
            return original(asked, *arguments)

        return answer

    def close(self) -> None:
        """Forget them all."""
        self._failed.clear()
