"""Tasks as their users see them: spawn, Task, join, cancel, sleep.

Rules: a failure that nobody takes care of is reported once; nothing of a task outlives it in the greenlet that it
borrowed. What does not belong here: how a task is parked and woken (that is sched).
"""

from __future__ import annotations

import contextlib
import sys
from _thread import get_ident
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import partial
from types import CodeType
from typing import Any, Generic, ParamSpec, TypeVar

from dangagreen.core.errors import Cancelled, ErrorContext, TaskCancelledError
from dangagreen.core.loop import Loop, current_loop
from dangagreen.green.sched import Wait, Waiter, entering, park, park_for, scheduler, wake

Params = ParamSpec("Params")
Result = TypeVar("Result")


class Task(Waiter, Generic[Result]):
    """A function that runs in a greenlet of its own and may wait. Made by `spawn`.

    `done` is True once it has ended; `name` may be assigned. `result()` and `cancel()` never wait, `join()` does.
    """

    __slots__ = ("__weakref__", "_call", "_error", "_joiners", "_origin", "_result", "name", "owned")

    _result: Result
    _error: BaseException | None

    def __init__(
        self,
        loop: Loop,
        call: Callable[[], Result],
        context: Context,
        named_after: Callable[..., Any],
        origin: tuple[CodeType, int] | None = None,
    ) -> None:
        self.loop = loop  # what Waiter.__init__ does, in line: a tenth of a spawn
        self.wait = self.interrupt = self.dirty = self.worker = None
        self.done = self.owned = False  # owned: somebody else takes care of its failure
        self.context = context
        self._call: Callable[[], Result] | None = call
        self.name: str = getattr(named_after, "__qualname__", None) or _name_of(named_after)
        self._origin = origin
        self._joiners: list[Waiter] | None = None
        scheduler(loop).tasks[self] = None

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
        loop = self.loop
        me: Waiter | None = loop.current
        if me is None or me.interrupt is not None or get_ident() != loop.thread:
            me = entering(loop, "join")
        if self.done:
            return
        if self is me:
            raise RuntimeError(f"{self!r} cannot join itself")
        if self._joiners is None:
            self._joiners = [me]
        else:
            self._joiners.append(me)
        if timeout is None:
            park(me, _JOIN, self)
        else:
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
        return self._result

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

    def run(self) -> None:
        """Call the function. Only in a worker."""
        loop = self.loop
        loop.current = self
        error = None
        try:
            self._result = self._call()  # type: ignore[misc]
        except BaseException as raised:
            error = raised
        if self.dirty is not None:
            loop.unflushed.append(self.dirty)
            self.dirty = None
        loop.current = None
        self.end(error)
        if error is not None:
            try:
                if not isinstance(error, (Exception, Cancelled)):
                    raise error  # KeyboardInterrupt, SystemExit, GreenletExit: out of the worker, to the hub
            finally:
                del self, error  # or the error's traceback would tie the task to itself by this frame

    def end(self, error: BaseException | None) -> None:
        self.done = True
        self._error = error
        self.worker = self._call = self.context = None
        del self.loop.green.tasks[self]  # type: ignore[union-attr]
        joiners, self._joiners = self._joiners, None
        if joiners is not None:
            for joiner in joiners:
                wake(joiner)
        if error is not None and not joiners and not self.owned and isinstance(error, Exception):
            where = f", spawned at {self.spawned_at}," if self._origin else ""
            self.loop.report(ErrorContext(f"task {self.name!r}{where} failed", error, self))


def _name_of(function: Any) -> str:
    while isinstance(function, partial):
        function = function.func
    return getattr(function, "__qualname__", None) or repr(function)


def spawn(function: Callable[Params, Result], /, *args: Params.args, **kwargs: Params.kwargs) -> Task[Result]:
    """Run `function(*args, **kwargs)` in a task of its own, soon, in a copy of this context."""
    if not callable(function):
        raise TypeError(f"spawn needs a function, not {function!r}: write spawn(f, x) for f(x)")
    loop = current_loop()
    frame = sys._getframe(1)
    call = partial(function, *args, **kwargs) if args or kwargs else function
    task = Task(loop, call, copy_context(), function, (frame.f_code, frame.f_lasti))
    loop._runnable.append(task.start)
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
        loop._ready.append(task.resume)
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
        task.loop._ready.remove(task.resume)


_JOIN = Wait("join", _undo_join)
_SLEEP = Wait("sleep", lambda timer, task: timer.cancel(), "{0} until {1.deadline:.3f}")
_YIELD = Wait("sleep(0)", _undo_yield, "{0}")
