"""Tasks: Task, join, cancel.

Rules: a task leaves nothing behind in the greenlet that ran it; the frame of `run` lies beneath a parked task, by which
greenlet sees that it is parked: that is why it is not in `life`. What does not belong here: how a task is parked and
woken (parking, sched), and `spawn` (spawning).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextvars import copy_context
from functools import partial
from types import CoroutineType, FrameType, FunctionType
from typing import Any, Generic, ParamSpec, TypeVar

from dangagreen import checks
from dangagreen.errors import Cancelled
from dangagreen.green.life import Life, name_of
from dangagreen.green.parking import current_waiter
from dangagreen.green.scopes import propagate_cancel
from dangagreen.green.task_table import described
from dangagreen.loop.loop import Loop, current_loop
from dangagreen.tracebacks import forget_locals

Params = ParamSpec("Params")
Result = TypeVar("Result")


class Task(Life, Generic[Result]):
    """A function that runs in a greenlet of its own, so that its waits suspend nothing else. Made by `spawn`.

    `join()` parks until it has ended; `result()` and `cancel()` never park. `done` is whether it has ended.
    """

    __slots__ = ()

    def result(self) -> Result:
        """Return what the function returned, or raise what it raised; TaskCancelledError if it was cancelled.

        Never parks. Raises RuntimeError if the task has not ended: `join()` it first.
        """
        outcome: Result = self.outcome()
        return outcome

    def cancel(self, reason: object = None) -> bool:
        """Raise Cancelled at the task's wait, and at each later one, unless a `shield()` protects it. Never parks.

        None of its scopes catches it. A task that has not started never runs. Returns False if it had ended already,
        True otherwise.
        """
        self.loop.check_thread("cancel")
        if self.done:
            return False
        if self.cancelled is None:
            self.cancelled = Cancelled(reason)
            propagate_cancel(self)
        return True

    def __repr__(self) -> str:
        if self.done:
            state = "ended"
        elif self.worker is None:
            state = "not started"
        else:
            state = "running" if self.wait is None else f"parked in {described(self, 'waits_for')}"
        return f"<Task {self.name}, {state}>"

    def __await__(self) -> Generator[Any, None, Result]:
        """Wait, in a coroutine, until the task has ended; return or raise what `result()` does.

        To cancel that coroutine is to cancel the task. Raises TypeError unless `dangagreen.bridge` was imported.
        """
        if _crossing is None:
            raise TypeError("a coroutine can await a task when dangagreen.bridge was imported")
        return _crossing(self)

    # -- its life, on the hub and in its worker

    def run(self) -> bool:
        """Call the function, and end. Called in a worker only."""
        self.loop.current = self
        call: Any
        call, result, error = self.call, None, None
        try:
            result = self._handle() if call is None else call()
            if result is not None and type(result) is CoroutineType:
                checks.outcome(f"the function of task {self.name!r}", result)
        except BaseException as raised:
            error = raised
        del call  # so that `end` frees the arguments
        more = self.end(error, result)
        if error is not None:
            try:
                self._forget_locals(error)
                if not isinstance(error, (Exception, Cancelled)) and not self.error_retrieved:
                    raise error  # KeyboardInterrupt, SystemExit, GreenletExit: out of the worker, to the hub
            finally:
                del self, error  # the error's traceback refers to this frame: a cycle
        return more

    def _handle(self) -> Any:
        """What it runs in the place of a function: a bound method would be 64 bytes more while it is parked."""
        raise NotImplementedError

    def _forget_locals(self, error: BaseException) -> None:
        """Clear the locals of this package's frames in the traceback: they refer to the task, and it to the error."""
        if isinstance(error, Cancelled):  # it is not reported
            error.__traceback__ = error.__context__ = error.__cause__ = None
        else:
            forget_locals(error)


def check_function(call: str, function: Any) -> Callable[..., Any] | str:
    """What a task of this function is named after: the function, or a name. Raises TypeError if it cannot be run."""
    checks.function(call, function, f": write {call}(f, x) for f(x)")
    return function if type(function) is FunctionType else name_of(function)


def make_task(
    loop: Loop,
    function: Callable[..., Result],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    named_after: Callable[..., Any] | str,
    caller: FrameType,
) -> Task[Result]:
    """A task of this function, not queued yet, in a copy of the current context.

    The caller's frame tells where it was spawned; to note that costs a hundredth of a spawn.
    """
    call = partial(function, *args, **kwargs) if args or kwargs else function
    return Task(loop, call, copy_context(), named_after, (caller.f_code, caller.f_lasti))


def current_task() -> Task[Any] | None:
    """The task that makes this call; None in a callback and in top-level code."""
    loop = current_loop()
    task = loop.current or current_waiter(loop)
    return task if isinstance(task, Task) else None


_crossing: Callable[[Task[Any]], Generator[Any, None, Any]] | None = None


def let_coroutines_await(crossing: Callable[[Task[Any]], Generator[Any, None, Any]]) -> None:
    """Set how a coroutine waits for a task. `dangagreen.bridge` does so when it is imported."""
    global _crossing
    _crossing = crossing
