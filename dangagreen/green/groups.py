"""Task groups, structured concurrency: tasks that end before the block does.

Rules: the block always waits for its tasks; a cancellation meanwhile cancels them, and does not interrupt the wait. The
first failure cancels the rest, and all failures are raised together. What does not belong here: how a cancellation is
passed on (scopes).
"""

from __future__ import annotations

import contextlib
import sys
from _thread import get_ident
from collections import OrderedDict
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from dangagreen import checks
from dangagreen.errors import Cancelled
from dangagreen.frames import CALLER
from dangagreen.green.parking import checkpoint, park, require_waiter
from dangagreen.green.sched import LoopReset
from dangagreen.green.scopes import CancelScope, shield
from dangagreen.green.tasks import Params, Result, Task, check_function, make_task
from dangagreen.green.waiters import Waiter, WaitKind, wake
from dangagreen.parks import parks

_BARE = (KeyboardInterrupt, SystemExit, GeneratorExit, LoopReset)  # no failures: raised as they are, not in a group


class TaskGroup:
    """`with TaskGroup() as group:` owns the tasks that `group.spawn` makes: they end before the block does.

    The first failure, of a task or of the block itself, cancels everything in the group; when all has ended, the
    failures are raised together, as an ExceptionGroup. With `limit` at most so many tasks run at once; the others
    start, in order, as these end.
    """

    __slots__ = {
        "_bare": "The first KeyboardInterrupt or the like, which is raised as it is; or None.",
        "_deferred": "Tasks that wait to start, beyond the limit, in order.",
        "_failures": "The exceptions of tasks and of the block, in order.",
        "_limit": "How many tasks run at once at most; None is no limit.",
        "_tasks": "The tasks that have not ended, in order.",
        "scope": "The scope of its block and its tasks, which may be assigned a `deadline`.",
    }

    def __init__(self, limit: int | None = None) -> None:
        if limit is not None:
            limit = checks.count("a TaskGroup in which no task could ever run: limit", limit, 1)
        self._limit = limit
        self._tasks: dict[Task[Any], None] = {}
        self._deferred: OrderedDict[Waiter, None] = OrderedDict()
        self.scope: CancelScope = _GroupScope(self._tasks)
        self._failures: list[BaseException] = []
        self._bare: BaseException | None = None

    @property
    def tasks(self) -> list[Task[Any]]:
        """The tasks that have not ended, in the order of their spawning."""
        return list(self._tasks)

    def spawn(self, function: Callable[Params, Result], /, *args: Params.args, **kwargs: Params.kwargs) -> Task[Result]:
        """Start `function(*args, **kwargs)` in a task of the group, soon, in a copy of this context. Never parks.

        Tasks of the group and callbacks may call it as well. In a cancelled group the task never runs. Raises
        RuntimeError before and after the block, TypeError for what is no function.
        """
        named = check_function("spawn", function)
        scope = self.scope
        owner = scope._owner
        if owner is None:
            raise RuntimeError(f"{self!r} cannot spawn: its block has not begun, or is over")
        loop = owner.loop
        if get_ident() != loop.thread:
            loop.check_thread("TaskGroup.spawn")
        task = make_task(loop, function, args, kwargs, named, sys._getframe(CALLER))
        task.group = self
        self._tasks[task] = None
        if (seen := scope._cancel_seen) is not None:
            task.cancelled = task.interrupt = Cancelled(seen.reason)
        elif self._limit is not None and len(self._tasks) - len(self._deferred) > self._limit:
            self._defer(task)
            return task
        loop.runnable.append(task.start)
        return task

    def cancel(self, reason: object = None) -> None:
        """Cancel all tasks of the group, and the wait of its block, which then ends quietly. Never parks."""
        self.scope.cancel(reason)

    def __repr__(self) -> str:
        count = len(self._tasks)
        waiting = f", {len(self._deferred)} of them not started" if self._deferred else ""
        return f"<TaskGroup of {count} task{'' if count == 1 else 's'}{waiting}>"

    # -- the block

    def __enter__(self) -> Self:
        self.scope.__enter__()
        return self

    @parks
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Parks until all tasks have ended. Raises the failures, of tasks and of the block, in one ExceptionGroup.

        A KeyboardInterrupt or SystemExit is raised as it is; a second one, or the end of the loop, ends the wait.
        """
        me = self.scope._owner
        if me is None or require_waiter(me.loop, "leaving a TaskGroup") is not me or self.scope._misplaced(me):
            self.scope.cancel("its group was left in disorder")
            return self.scope._leave(error)  # raises RuntimeError, which says what is wrong
        if error is not None and not isinstance(error, Cancelled):
            self._fail(error, "the block of its group failed")
        if self._tasks:
            self._wait(me)
        caught = self.scope.__exit__(kind, error, traceback)
        failures, self._failures = self._failures, []
        bare, self._bare = self._bare, None
        if bare is not None and not (failures and isinstance(bare, GeneratorExit)):  # which would hide the failures
            if not failures and bare is error:
                return False
            try:
                raise bare from (_together(failures) if failures else None)
            finally:
                del bare, error  # a traceback refers to this frame: a cycle
        if failures:
            raise _together(failures) from None
        if error is None:
            checkpoint(me.loop, "leaving a TaskGroup")
        return caught

    def _wait(self, me: Waiter) -> None:
        """Parks until all tasks have ended; a cancellation reaches the tasks, and does not interrupt this wait."""
        broken_off = False
        with shield():
            while self._tasks:
                try:
                    park(me, _LEAVING, self)
                except BaseException as error:  # Ctrl-C; in top-level code the end of the loop; a reset
                    if broken_off:
                        return
                    broken_off = True
                    self._fail(error, "the wait for its group was broken off")

    # -- the tasks

    def _defer(self, task: Task[Any]) -> None:
        """Park a new task until the limit lets it start: its `resume` is its `start`."""
        self._deferred[task] = None
        task.wait, task.subject = _PLACE, self
        task.resume = task.start

    def _ended(self, task: Task[Any], error: BaseException | None) -> bool:
        del self._tasks[task]
        if self._limit is not None:
            self._give_place(task, self._limit)
        parent = self.scope._owner
        if parent is None or parent.done:  # the block has ended without waiting
            return False
        if error is not None and not isinstance(error, (Cancelled, LoopReset)):
            self._fail(error, f"task {task.name!r} of its group failed")
        if not self._tasks and parent.wait is _LEAVING and parent.subject is self:
            wake(parent)
        return True

    def _give_place(self, task: Task[Any], limit: int) -> None:
        """A task has ended: start deferred ones, as many as the limit allows."""
        self._deferred.pop(task, None)
        task.wait = task.subject = None
        with contextlib.suppress(AttributeError):  # set if it was deferred and never started
            del task.resume
        while self._deferred and len(self._tasks) - len(self._deferred) < limit:
            wake(next(iter(self._deferred)))

    def _fail(self, error: BaseException, why: str) -> None:
        """Note a failure, and cancel the group."""
        if not isinstance(error, _BARE):
            self._failures.append(error)
        elif self._bare is None:
            self._bare = error
        self.scope.cancel(why)


class _GroupScope(CancelScope):
    """The scope of a group's block: to be cancelled there is to be cancelled in all of its tasks."""

    __slots__ = {"_tasks": "The tasks of the group that have not ended, in order."}
    _what = "TaskGroup"

    def __init__(self, tasks: dict[Task[Any], None]) -> None:
        super().__init__(None)
        self._tasks = tasks


def _together(failures: list[BaseException]) -> BaseExceptionGroup[BaseException]:
    return BaseExceptionGroup(f"in a TaskGroup, {len(failures)} failed", failures)


_LEAVING = WaitKind("leaving", lambda group, task: None)
_PLACE = WaitKind("a place", lambda group, task: group._deferred.pop(task), "{0} in {1!r}")
