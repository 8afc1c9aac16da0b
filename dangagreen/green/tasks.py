"""Tasks: spawn, Task, join, cancel.

Rules: an exception that reaches no caller is reported once; a task leaves nothing behind in the greenlet that ran it.
What does not belong here: how a task is parked and woken (parking, sched).
"""

from __future__ import annotations

import sys
from _thread import get_ident
from collections.abc import Callable, Generator
from contextvars import Context, copy_context
from functools import partial
from types import CodeType, CoroutineType, FrameType, FunctionType, MethodType
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

from dangagreen import checks
from dangagreen.checks import NOT_RUN
from dangagreen.errors import Cancelled, ErrorContext, TaskCancelledError
from dangagreen.frames import CALLER
from dangagreen.green.parking import checkpoint, current_waiter, park, park_for
from dangagreen.green.sched import Runnable, Scheduler, scheduler
from dangagreen.green.scopes import CancelScope, close_scopes, propagate_cancel
from dangagreen.green.task_table import described
from dangagreen.green.waiters import Waiter, WaitKind
from dangagreen.loop.loop import Loop, current_loop, here
from dangagreen.parks import parks
from dangagreen.places import place_of_instruction
from dangagreen.tracebacks import forget_locals, without_traceback

Params = ParamSpec("Params")
Result = TypeVar("Result")


class Group(Protocol):
    """A TaskGroup, as its tasks need it."""

    @property
    def scope(self) -> CancelScope: ...

    def _ended(self, task: Task[Any], error: BaseException | None) -> bool:
        """Called at the end of a task. Returns whether the group raises the error, so that it is not reported."""


class Joiner(Protocol):
    """What is notified when a task ends: a waiter in `join` or `select`, or a `wait` for several tasks."""

    def _on_task_end(self, task: Task[Any], /) -> object: ...


class Task(Runnable, Generic[Result]):
    """A function that runs in a greenlet of its own, so that its waits suspend nothing else. Made by `spawn`.

    `join()` parks until it has ended; `result()` and `cancel()` never park. `done` is whether it has ended.
    """

    __slots__ = {
        "__weakref__": "Weak references to it work.",
        "_call": "The function with its arguments; None once it has ended.",
        "_error": "What it raised; None if it returned, or has not ended.",
        "_joiners": "What is notified at its end; True: takes care of a failure for certain, as `join` does. Or None.",
        "origin": "(code, instruction) of the spawn, or None.",
        "_result": "What it returned.",
        "error_retrieved": "Whether its exception reached a caller, or was reported.",
        "group": "The TaskGroup that it belongs to, or None.",
        "name": "Its name in errors and tables: by default the function's; assignable.",
    }

    _result: Result
    _error: BaseException | None

    def __init__(
        self,
        loop: Loop,
        call: Callable[[], Result],
        context: Context,
        named_after: Callable[..., Any] | str,
        origin: tuple[CodeType, int] | None = None,
    ) -> None:
        self.loop = loop  # Waiter.__init__, inlined: a tenth of a spawn
        self.wait = self.interrupt = self.cancelled = self.scope = self.worker = None
        self.deadline_timer = self.unflushed_socket = None
        self.done = self.error_retrieved = False
        self.context = context
        self._call: Callable[[], Result] | None = call
        self.name: str = named_after.__qualname__ if type(named_after) is FunctionType else name_of(named_after)
        self.origin = origin
        self._joiners: dict[Joiner, bool] | None = None
        self.group: Group | None = None
        sched: Scheduler = loop.green or scheduler(loop)  # type: ignore[assignment]
        sched.tasks[self] = None

    @property
    def spawned_at(self) -> str | None:
        """ "file:line" of the spawn, or None."""
        return None if self.origin is None else place_of_instruction(*self.origin)

    def ended_by(self) -> BaseException | None:
        return self._error

    def function(self) -> object:
        return self._call

    @parks
    def join(self, timeout: float | None = None) -> None:
        """Parks until the task has ended, however it ended; does not raise what the task raised.

        Raises TimeoutError after `timeout` seconds (None is no limit), RuntimeError if a task joins itself.
        """
        loop = self.loop
        me: Waiter | None = loop.current
        if me is None or me.interrupt is not None or self.done or get_ident() != loop.thread:
            me = checkpoint(loop, "join")
        if timeout is not None:
            timeout = checks.seconds("the timeout of join", timeout)
        if self.done:
            return
        if self is me:
            raise RuntimeError(f"{self!r} cannot join itself")
        if self._joiners is None:
            self._joiners = {me: True}
        else:
            self._joiners[me] = True
        try:
            if timeout is None:
                park(me, _JOIN, self)
            else:
                park_for(me, _JOIN, self, timeout)
        except BaseException as error:
            if not isinstance(me, Task) and not isinstance(error, (Cancelled, TimeoutError)):
                self._missed()
            raise

    def result(self) -> Result:
        """Return what the function returned, or raise what it raised; TaskCancelledError if it was cancelled.

        Never parks. Raises RuntimeError if the task has not ended: `join()` it first.
        """
        if not self.done:
            raise RuntimeError(f"{self!r} has no result yet: join() it first")
        if isinstance(self._error, Cancelled):
            message = f"task {self.name!r} was cancelled"
            reason = self._error.reason
            raise TaskCancelledError(message if reason is None else f"{message}: {reason}", reason)
        if self._error is not None:
            raise self._hand_out(self._error)
        return self._result

    @property
    def was_cancelled(self) -> bool:
        """Whether it has ended because it was cancelled."""
        return self.done and isinstance(self._error, Cancelled)

    def _hand_out(self, error: BaseException) -> BaseException:
        """The exception for `result()` to raise: the first caller gets the exception itself.

        The task keeps an equal copy with the same traceback, which refers to none of the frames of its callers.
        """
        self._error = without_traceback(error).with_traceback(error.__traceback__)
        self._error.__cause__, self._error.__context__ = error.__cause__, error.__context__
        self._error.__suppress_context__ = error.__suppress_context__
        return error

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

    # -- those who wait for its end

    @property
    def ready(self) -> bool:
        """Whether it has ended, for `select`."""
        return self.done

    @property
    def joiners(self) -> tuple[Joiner, ...]:
        """Who is notified at its end."""
        return tuple(self._joiners or ())

    def _watch(self, joiner: Joiner, cares: bool = False) -> None:
        """Have the joiner notified at its end. With `cares` the joiner takes care of a failure for certain.

        Raises RuntimeError if the joiner is the task itself.
        """
        if joiner is self:
            raise RuntimeError(f"{self!r} cannot wait for itself")
        if self._joiners is None:
            self._joiners = {}
        self._joiners[joiner] = cares

    def _unwatch(self, joiner: Joiner) -> None:
        """Undo `_watch`, or what `join` has arranged."""
        if self._joiners is not None:
            self._joiners.pop(joiner, None)

    def _report_if_unretrieved(self) -> None:
        """Report the exception that has ended it, if that reached no caller, and no joiner is left that may get it."""
        if self.done and isinstance(self._error, Exception) and not self.error_retrieved and not self._joiners:
            self.error_retrieved = True
            failure = self._failure(self._error)
            context, self.context = self.context, None
            if context is None:
                self.loop.report(failure)
            else:
                context.run(self.loop.report, failure)

    def _report_anyway(self) -> None:
        """Report the exception that has ended it, if one has: a joiner that cares for it cannot raise it."""
        if isinstance(self._error, Exception):
            self.loop.report(self._failure(self._error))

    def _failure(self, error: Exception) -> ErrorContext:
        """The argument of `on_error` for its exception."""
        where = f", spawned at {self.spawned_at}," if self.origin else ""
        return ErrorContext(f"task {self.name!r}{where} failed", error, self)

    def _mark_retrieved(self) -> None:
        """Note that it is returned to a caller, who owns its exception now."""
        self.error_retrieved = True
        self.context = None

    def _missed(self) -> None:
        """Ctrl-C has interrupted a `join` by top-level code: if the task ended by an exception, report that."""
        if self.done:
            self.error_retrieved = False
            self._report_if_unretrieved()

    # -- its life, on the hub and in its worker

    def run(self) -> None:
        """Call the function, and end. Called in a worker only."""
        loop = self.loop
        loop.current = self
        call, error = self._call, None  # to read a slot and call it in one expression would cost more
        try:
            self._result = result = call()  # type: ignore[misc]
            if result is not None and type(result) is CoroutineType:
                checks.outcome(f"the function of task {self.name!r}", result)
        except BaseException as raised:
            error = raised
        del call  # so that `end` frees the arguments
        if self.unflushed_socket is not None:
            loop.to_flush.append(self.unflushed_socket)
            self.unflushed_socket = None
        loop.current = None
        self.end(error)
        if error is not None:
            try:
                self._forget_locals(error)
                if not isinstance(error, (Exception, Cancelled)) and not self.error_retrieved:
                    raise error  # KeyboardInterrupt, SystemExit, GreenletExit: out of the worker, to the hub
            finally:
                del self, error  # the error's traceback refers to this frame: a cycle

    def _leave_to_parent(self) -> None:
        self.scope = self.deadline_timer = None  # its blocks are not left here, and cancel nothing
        Task.end(self, Cancelled("it goes on in the parent process"))

    def _go_on_alone(self) -> None:
        """In a forked child: those who wait for its end do so in the parent. Failures are reported."""
        self.group = self._joiners = None

    def _forget_locals(self, error: BaseException) -> None:
        """Clear the locals of this package's frames in the traceback: they refer to the task, and it to the error."""
        if isinstance(error, Cancelled):  # it is not reported
            error.__traceback__ = error.__context__ = error.__cause__ = None
        else:
            forget_locals(error)

    def end(self, error: BaseException | None) -> None:
        if self.deadline_timer is not None or self.scope is not None:
            close_scopes(self)
        self.done = True
        self._error = error
        self.worker = self._call = None
        sched: Scheduler = self.loop.green  # type: ignore[assignment]
        del sched.tasks[self]
        if sched.no_parking is not None:
            sched.forget_no_parking(self)
        joiners, self._joiners = self._joiners, None
        if joiners is not None:
            for joiner in joiners:
                joiner._on_task_end(self)
        if self.group is not None:
            self.error_retrieved = self.group._ended(self, error)
        if error is not None and isinstance(error, Exception) and not self.error_retrieved:
            if joiners and not any(joiners.values()):
                self._joiners = joiners  # until the last joiner is done with it: it may retrieve the error
                return
            self.error_retrieved = bool(joiners)
            self.context = None
            self._report_if_unretrieved()
        self.context = None


def name_of(function: Any) -> str:
    """What a call of this function is named after: through partials, which may hold any amount of data."""
    if isinstance(function, str):  # a name already
        return function
    while isinstance(function, partial):
        function = function.func
    owner = getattr(function, "__self__", None)
    if isinstance(function, MethodType) and not isinstance(owner, type):  # by the class of the object
        return f"{type(owner).__qualname__}.{function.__name__}"
    return getattr(function, "__qualname__", None) or repr(function)


def check_function(call: str, function: Any) -> Callable[..., Any] | str:
    """What a task of this function is named after: the function, or a name. Raises TypeError if it cannot be run."""
    checks.function(call, function, f": write {call}(f, x) for f(x)")
    return function if type(function) is FunctionType else name_of(function)


def spawn(function: Callable[Params, Result], /, *args: Params.args, **kwargs: Params.kwargs) -> Task[Result]:
    """Start `function(*args, **kwargs)` in a task of its own, soon, in a copy of the current context. Never parks.

    Raises TypeError for what is no function, and for an `async def` or a generator function.
    """
    named: Callable[..., Any] | str = function
    if type(function) is not FunctionType or function.__code__.co_flags & NOT_RUN:  # a quick test that most pass
        named = check_function("spawn", function)
    loop = here.loop or current_loop()
    frame = sys._getframe(CALLER)
    call = partial(function, *args, **kwargs) if args or kwargs else function
    task = Task(loop, call, copy_context(), named, (frame.f_code, frame.f_lasti))  # `make_task`, in line: 1 percent
    loop.runnable.append(task.start)
    return task


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


_JOIN = WaitKind("join", Task._unwatch, "{0} of task {1.name!r}")  # not its repr: two may wait for each other
