"""Groups: tasks that end before the block does.

Rules: whatever comes, the block waits for its tasks; what comes meanwhile reaches them, and not the wait. The first
failure cancels the rest, and all failures leave together. What does not belong here: how cancelling spreads (scopes).
"""

from __future__ import annotations

import contextlib
import sys
from _thread import get_ident
from collections import OrderedDict
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from types import TracebackType
from typing import Any, Self

from dangagreen import checks
from dangagreen.errors import Cancelled
from dangagreen.frames import CALLER
from dangagreen.green.parking import checkpoint, park, require_waiter
from dangagreen.green.sched import LoopReset, Waiter, WaitKind, wake
from dangagreen.green.scopes import CancelScope, shield
from dangagreen.green.tasks import Params, Result, Task, check_function
from dangagreen.parks import parks

_BARE = (KeyboardInterrupt, SystemExit, GeneratorExit, LoopReset)  # no failures: what they end is more than a group


class TaskGroup:
    """`with TaskGroup() as group:` owns the tasks that `group.spawn` makes: they end before the block does.

    The first failure, of a task or of the block itself, cancels everything in the group; when all has ended, the
    failures are raised together, as an ExceptionGroup. With `limit` at most so many tasks run at once; the others
    start, in order, as these end.
    """

    __slots__ = {
        **dict.fromkeys(("_bare", "_deferred", "_failures", "_limit", "_tasks")),
        "scope": "The scope that its block and its tasks are in, with a `deadline`.",
    }

    def __init__(self, limit: int | None = None) -> None:
        if limit is not None:
            limit = checks.count("a TaskGroup in which no task could ever run: limit", limit, 1)
        self._limit = limit
        self._tasks: dict[Task[Any], None] = {}  # those that have not ended
        self._deferred: OrderedDict[Waiter, None] = OrderedDict()  # those of them that wait for a place
        self.scope: CancelScope = _GroupScope(self._tasks)
        self._failures: list[BaseException] = []
        self._bare: BaseException | None = None  # the first one that is raised as it is

    @property
    def tasks(self) -> list[Task[Any]]:
        """The tasks that have not ended, in the order of their spawning."""
        return list(self._tasks)

    def spawn(self, function: Callable[Params, Result], /, *args: Params.args, **kwargs: Params.kwargs) -> Task[Result]:
        """Run `function(*args, **kwargs)` in a task of the group, soon, in a copy of this context. It never parks.

        Tasks of the group and callbacks may do it as well. In a group that is cancelled the task never runs. Raises
        RuntimeError before and after the block.
        """
        named = check_function("spawn", function)
        scope = self.scope
        if scope._task is None:
            raise RuntimeError(f"{self!r} cannot spawn: its block has not begun, or is over")
        loop = scope._task.loop
        if get_ident() != loop.thread:
            loop.check_thread("TaskGroup.spawn")
        frame = sys._getframe(CALLER)
        call = partial(function, *args, **kwargs) if args or kwargs else function
        task = Task(loop, call, copy_context(), named, (frame.f_code, frame.f_lasti))
        task.group = self
        self._tasks[task] = None
        if scope._pending is not None:
            task.cancelled = task.interrupt = Cancelled(scope._pending.reason)
        elif self._limit is not None and len(self._tasks) - len(self._deferred) > self._limit:
            self._defer(task)
            return task
        loop.runnable.append(task.start)
        return task

    def cancel(self, reason: object = None) -> None:
        """Cancel all tasks of the group and what its block waits for. The block then ends quietly."""
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
        """Parks until all tasks have ended. Raises the failures, theirs and that of the block, in one ExceptionGroup.

        A KeyboardInterrupt or SystemExit leaves as it is, and a second one, or the end of the loop, does not wait.
        """
        me = self.scope._task
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
        if bare is not None and not (failures and isinstance(bare, GeneratorExit)):  # which nobody would see
            if not failures and bare is error:
                return False
            try:
                raise bare from (_together(failures) if failures else None)
            finally:
                del bare, error  # a traceback would hold them by this frame
        if failures:
            raise _together(failures) from None
        if error is None:
            checkpoint(me.loop, "leaving a TaskGroup")
        return caught

    def _wait(self, me: Waiter) -> None:
        """Parks until all tasks have ended. Cancelling reaches them, and not this."""
        broken_off = False
        with shield():
            while self._tasks:
                try:
                    park(me, _LEAVING, self)
                except BaseException as error:  # Ctrl-C; out of the loop, in top-level code; a reset
                    if broken_off:
                        return
                    broken_off = True
                    self._fail(error, "the wait for its group was broken off")

    # -- the tasks

    def _defer(self, task: Task[Any]) -> None:
        """Have it wait for a place: to resume it is to start it."""
        self._deferred[task] = None
        task.wait, task.subject = _PLACE, self
        task.resume = task.start

    def _ended(self, task: Task[Any], error: BaseException | None) -> bool:
        del self._tasks[task]
        if self._limit is not None:
            self._give_place(task, self._limit)
        parent = self.scope._task
        if parent is None or parent.done:  # it did not wait
            return False
        if error is not None and not isinstance(error, (Cancelled, LoopReset)):
            self._fail(error, f"task {task.name!r} of its group failed")
        if not self._tasks and parent.wait is _LEAVING and parent.subject is self:
            wake(parent)
        return True

    def _give_place(self, task: Task[Any], limit: int) -> None:
        self._deferred.pop(task, None)
        task.wait = task.subject = None
        with contextlib.suppress(AttributeError):  # it may have waited, and never started
            del task.resume
        while self._deferred and len(self._tasks) - len(self._deferred) < limit:
            wake(next(iter(self._deferred)))

    def _fail(self, error: BaseException, why: str) -> None:
        if not isinstance(error, _BARE):
            self._failures.append(error)
        elif self._bare is None:
            self._bare = error
        self.scope.cancel(why)


class _GroupScope(CancelScope):
    """The scope of a group's block: to be cancelled there is to be cancelled in all of its tasks."""

    __slots__ = ("_tasks",)
    _what = "TaskGroup"

    def __init__(self, tasks: dict[Task[Any], None]) -> None:
        super().__init__(None)
        self._tasks = tasks


def _together(failures: list[BaseException]) -> BaseExceptionGroup[BaseException]:
    return BaseExceptionGroup(f"in a TaskGroup, {len(failures)} failed", failures)


_LEAVING = WaitKind("leaving", lambda group, task: None)
_PLACE = WaitKind("a place", lambda group, task: group._deferred.pop(task), "{0} in {1!r}")
