"""Tasks as their users see them: spawn, Task, join, cancel, sleep.

Rules: a failure that nobody takes care of is reported once; nothing of a task outlives it in the greenlet that it
borrowed. What does not belong here: how a task is parked and woken (that is sched).
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from contextvars import Context, copy_context
from types import CodeType
from typing import Any, Generic, ParamSpec, TypeVar

from dangagreen.core.errors import Cancelled, ErrorContext, TaskCancelledError
from dangagreen.core.loop import Loop, current_loop
from dangagreen.green.sched import Wait, Waiter, entering, park, park_for, scheduler, wake

Params = ParamSpec("Params")
Result = TypeVar("Result")

_NO_KWARGS: dict[str, Any] = {}


class Task(Waiter, Generic[Result]):
    """A function that runs in a greenlet of its own and may wait. Made by `spawn`.

    `done` is True once it has ended; `name` may be assigned. `result()` and `cancel()` never wait, `join()` does.
    """

    __slots__ = (
        "__weakref__", "_args", "_context", "_error", "_function", "_joiners", "_kwargs", "_name", "_named_after",
        "_origin", "_result", "owned",
    )  # fmt: skip

    def __init__(
        self,
        loop: Loop,
        function: Callable[..., Result],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: Context,
        named_after: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__(loop)
        self._function: Callable[..., Result] | None = function
        self._named_after: Callable[..., Any] | None = named_after or function
        self._args = args
        self._kwargs = kwargs
        self._context: Context | None = context
        self._name: str | None = None
        self._origin: tuple[CodeType, int] | None = None
        self.owned = False  # somebody else takes care of its failure
        self._result: Any = None
        self._error: BaseException | None = None
        self._joiners: list[Waiter] | None = None
        scheduler(loop).tasks[self] = None

    @property
    def name(self) -> str:
        if self._name is None:
            self._name = getattr(self._named_after, "__qualname__", None) or repr(self._named_after)
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        self._name = name

    @property
    def spawned_at(self) -> str | None:
        """ "file:line" of the spawn."""
        if self._origin is None:
            return None
        code, instruction = self._origin
        line = next((line for start, end, line in code.co_lines() if start <= instruction < end), None)
        return f"{code.co_filename}:{line}"

    def join(self, timeout: float | None = None) -> None:
        """Parks until the task has ended, however it ended. Raises TimeoutError after `timeout` seconds."""
        me = entering(self.loop, "join")
        if self.done:
            return
        if self is me:
            raise RuntimeError(f"{self!r} cannot join itself")
        if self._joiners is None:
            self._joiners = []
        self._joiners.append(me)
        park_for(me, _JOIN, self, timeout)

    def result(self) -> Result:
        """What the function returned, or raise what it raised; TaskCancelledError if it was cancelled.

        Raises RuntimeError while the task is still running: `join()` it first.
        """
        if not self.done:
            raise RuntimeError(f"{self!r} has no result yet: join() it first")
        if isinstance(self._error, Cancelled):
            message = f"task {self.name!r} was cancelled"
            reason = self._error.reason
            raise TaskCancelledError(message if reason is None else f"{message}: {reason}", reason)
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[no-any-return]

    def cancel(self, reason: object = None) -> bool:
        """Raise Cancelled at the task's wait and at each later one. Before it has started, it never runs.

        True unless the task had ended already.
        """
        self.loop.check_thread("cancel")
        if self.done:
            return False
        if not isinstance(self.interrupt, Cancelled):
            self.interrupt = Cancelled(reason)
            wake(self, Cancelled(reason))
        return True

    def __repr__(self) -> str:
        if self.done:
            state = "ended"
        elif self.wait is not None:
            state = f"parked in {self.waits_for}"
        else:
            state = "not started" if self.worker is None else "running"
        return f"<Task {self.name}, {state}>"

    # -- its life, on the hub and in its worker

    def start(self) -> None:
        """Run until it first parks. Only on the hub."""
        if self.interrupt is not None:
            self.end(None, self.interrupt)
        else:
            scheduler(self.loop).start(self, self._context)

    def run(self) -> None:
        """Call the function. Only in a worker."""
        self.loop.current = self
        result = error = None
        try:
            result = self._function(*self._args, **self._kwargs)  # type: ignore[misc]
        except BaseException as raised:
            error = raised
        if self.dirty is not None:
            self.loop.unflushed.append(self.dirty)
            self.dirty = None
        self.loop.current = None
        self.end(result, error)
        try:
            if error is not None and not isinstance(error, (Exception, Cancelled)):
                raise error  # KeyboardInterrupt, SystemExit, GreenletExit: out of the worker, to the hub
        finally:
            del self, error  # or the error's traceback would tie the task to itself by this frame

    def end(self, result: Any, error: BaseException | None) -> None:
        self.done = True
        self._result = result
        self._error = error
        if self._named_after is self._function:
            self.name  # noqa: B018  a function that a closure made goes, its name stays
            self._named_after = None
        self.leave_worker()
        self._function = self._context = None
        self._args, self._kwargs = (), _NO_KWARGS
        del scheduler(self.loop).tasks[self]
        joiners, self._joiners = self._joiners, None
        for joiner in joiners or ():
            wake(joiner)
        if isinstance(error, Exception) and not joiners and not self.owned:
            where = f", spawned at {self.spawned_at}," if self._origin else ""
            self.loop.report(ErrorContext(f"task {self.name!r}{where} failed", error, self))


def spawn(function: Callable[Params, Result], /, *args: Params.args, **kwargs: Params.kwargs) -> Task[Result]:
    """Run `function(*args, **kwargs)` in a task of its own, soon, in a copy of this context."""
    if not callable(function):
        raise TypeError(f"spawn needs a function, not {function!r}: write spawn(f, x) for f(x)")
    loop = current_loop()
    task = Task(loop, function, args, kwargs, copy_context())
    frame = sys._getframe(1)
    task._origin = (frame.f_code, frame.f_lasti)
    loop._runnable.append((task.start, ()))
    return task


def sleep(seconds: float) -> None:
    """Parks until `seconds` have passed; 0, or less, lets everybody else run once."""
    loop = current_loop()
    task: Waiter | None = loop.current
    if task is None or task.interrupt is not None:
        task = entering(loop, "sleep")
    if seconds > 0:
        park(task, _SLEEP, loop.timers.add(loop.clock() + seconds, task.resume))
    else:
        loop._ready.append((task.resume, ()))
        park(task, _YIELD, None)


def current_task() -> Task[Any] | None:
    """The task that runs now; None in a callback and in top-level code."""
    task: Task[Any] | None = current_loop().current
    return task


def _undo_join(joined: Task[Any], task: Waiter) -> None:
    if joined._joiners is not None and task in joined._joiners:
        joined._joiners.remove(task)


def _undo_yield(_subject: Any, task: Waiter) -> None:
    with contextlib.suppress(ValueError):
        task.loop._ready.remove((task.resume, ()))


_JOIN = Wait("join", _undo_join)
_SLEEP = Wait("sleep", lambda timer, task: timer.cancel(), "{0} until {1.deadline:.3f}")
_YIELD = Wait("sleep(0)", _undo_yield, "{0}")
