"""Tasks as their users see them: spawn, Task, join, cancel, sleep, sleep_until.

Rules: a failure that nobody takes care of is reported once; nothing of a task outlives it in the greenlet that it
borrowed. What does not belong here: how a task is parked and woken (that is sched).
"""

from __future__ import annotations

import sys
from _thread import get_ident
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import partial
from types import CodeType, CoroutineType, FunctionType, MethodType
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

from dangagreen import checks
from dangagreen.checks import NOT_RUN
from dangagreen.errors import Cancelled, ErrorContext, TaskCancelledError
from dangagreen.frames import CALLER
from dangagreen.green.parking import checkpoint, current_waiter, give_way, park, park_for, undo_giving_way
from dangagreen.green.sched import Scheduler, Waiter, WaitKind, scheduler
from dangagreen.green.scopes import CancelScope, close_scopes, propagate_cancel
from dangagreen.green.task_table import described
from dangagreen.loop.loop import Loop, current_loop, here
from dangagreen.parks import parks
from dangagreen.tracebacks import forget_locals, without_traceback

Params = ParamSpec("Params")
Result = TypeVar("Result")


class Group(Protocol):
    """What a task needs of the group that it belongs to."""

    @property
    def scope(self) -> CancelScope: ...

    def _ended(self, task: Task[Any], error: BaseException | None) -> bool:
        """The task has ended. True if the group takes care of the error."""


class Joiner(Protocol):
    """Who wants to know when a task ends: a waiter, or what waits for several."""

    def _on_task_end(self, task: Task[Any], /) -> object: ...


class Task(Waiter, Generic[Result]):
    """A function that runs in a greenlet of its own and may wait. Made by `spawn`.

    `done` is True once it has ended; `name` may be assigned. `result()` and `cancel()` never wait, `join()` does.
    """

    __slots__ = {
        **dict.fromkeys(
            (
                "__weakref__",
                "_call",
                "_error",
                "_joiners",
                "_origin",
                "_result",
                "error_retrieved",
                "group",
            )
        ),
        "name": "What errors and tables call it: the function's name, unless another one was assigned.",
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
        self.loop = loop  # what Waiter.__init__ does, in line: a tenth of a spawn
        self.wait = self.interrupt = self.cancelled = self.scope = self.worker = None
        self.deadline_timer = self.unflushed_socket = None
        self.done = self.error_retrieved = False  # or it was reported
        self.context = context
        self._call: Callable[[], Result] | None = call
        self.name: str = getattr(named_after, "__qualname__", None) or _name_of(named_after)
        self._origin = origin
        self._joiners: dict[Joiner, bool] | None = None  # True: it takes care of a failure, come what may
        self.group: Group | None = None
        sched: Scheduler = loop.green or scheduler(loop)  # type: ignore[assignment]
        sched.tasks[self] = None

    @property
    def spawned_at(self) -> str | None:
        """ "file:line" of the spawn."""
        if self._origin is None:
            return None
        code, instruction = self._origin
        line = next((line for start, end, line in code.co_lines() if start <= instruction < end), None)
        return f"{code.co_filename}:{line}"

    @parks
    def join(self, timeout: float | None = None) -> None:
        """Parks until the task has ended, however it ended. Raises TimeoutError after `timeout` seconds."""
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
            raise self._hand_out(self._error)
        return self._result

    def _hand_out(self, error: BaseException) -> BaseException:
        """What it failed with, to be raised: whoever asks first gets the very error.

        The task keeps an equal one, which tells the same, and holds none of the frames in which it is asked for.
        """
        self._error = without_traceback(error).with_traceback(error.__traceback__)
        self._error.__cause__, self._error.__context__ = error.__cause__, error.__context__
        self._error.__suppress_context__ = error.__suppress_context__
        return error

    def cancel(self, reason: object = None) -> bool:
        """Raise Cancelled at the task's wait, and at each later one, that no `shield()` protects.

        None of its scopes catches it. A task that has not started never runs. True unless it had ended already.
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

    # -- those who wait for its end

    @property
    def ready(self) -> bool:
        """For `select`: the same as `done`."""
        return self.done

    def _watch(self, joiner: Joiner) -> None:
        if joiner is self:
            raise RuntimeError(f"{self!r} cannot wait for itself")
        if self._joiners is None:
            self._joiners = {}
        self._joiners[joiner] = False

    def _unwatch(self, joiner: Joiner) -> None:
        if self._joiners is not None:
            self._joiners.pop(joiner, None)

    def _report_if_unretrieved(self) -> None:
        """Nobody has it handed back: report its failure, unless that was done, or somebody still looks at it."""
        if self.done and isinstance(self._error, Exception) and not self.error_retrieved and not self._joiners:
            self.error_retrieved = True
            failure = self._failure(self._error)
            context, self.context = self.context, None
            if context is None:
                self.loop.report(failure)
            else:
                context.run(self.loop.report, failure)

    def _failure(self, error: Exception) -> ErrorContext:
        """What is reported."""
        where = f", spawned at {self.spawned_at}," if self._origin else ""
        return ErrorContext(f"task {self.name!r}{where} failed", error, self)

    def _mark_retrieved(self) -> None:
        """It has ended, and somebody has it, who takes care of its failure."""
        self.error_retrieved = True
        self.context = None

    def _missed(self) -> None:
        """Ctrl-C has ended the loop under top-level code that joined it. If it has ended, nobody has seen that."""
        if self.done:
            self.error_retrieved = False
            self._report_if_unretrieved()

    # -- its life, on the hub and in its worker

    def run(self) -> None:
        """Call the function. Only in a worker."""
        loop = self.loop
        loop.current = self
        call, error = self._call, None  # read first and then called, as in `park`
        try:
            self._result = result = call()  # type: ignore[misc]
            if result is not None and type(result) is CoroutineType:
                checks.outcome(f"the function of task {self.name!r}", result)
        except BaseException as raised:
            error = raised
        del call  # what it holds goes when `end` lets go of it
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
                del self, error  # or the error's traceback would tie the task to itself by this frame

    def _forget_locals(self, error: BaseException) -> None:
        """It has failed, and its failure was told: our frames hold the task, which holds the error."""
        if isinstance(error, Cancelled):  # nobody is shown it
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
                self._joiners = joiners  # and its context, until the last who looks at it has let go
                return
            self.error_retrieved = bool(joiners)
            self.context = None
            self._report_if_unretrieved()
        self.context = None


def _name_of(function: Any) -> str:
    if isinstance(function, str):  # it was asked for already
        return function
    while isinstance(function, partial):
        function = function.func
    owner = getattr(function, "__self__", None)
    if isinstance(function, MethodType) and not isinstance(owner, type):  # by the class that its user knows
        return f"{type(owner).__qualname__}.{function.__name__}"
    return getattr(function, "__qualname__", None) or repr(function)


def check_function(call: str, function: Any) -> Callable[..., Any] | str:
    """What a task of this function is named after, it or a name. Raises TypeError for what cannot run in a task."""
    checks.function(call, function, f": write {call}(f, x) for f(x)")
    return function if type(function) is FunctionType else _name_of(function)


def spawn(function: Callable[Params, Result], /, *args: Params.args, **kwargs: Params.kwargs) -> Task[Result]:
    """Run `function(*args, **kwargs)` in a task of its own, soon, in a copy of this context."""
    named: Callable[..., Any] | str = function
    if type(function) is not FunctionType or function.__code__.co_flags & NOT_RUN:  # quickly told of most
        named = check_function("spawn", function)
    loop = here.loop or current_loop()
    frame = sys._getframe(CALLER)
    call = partial(function, *args, **kwargs) if args or kwargs else function
    task = Task(loop, call, copy_context(), named, (frame.f_code, frame.f_lasti))
    loop.runnable.append(task.start)
    return task


@parks
def sleep(seconds: float) -> None:
    """Parks until `seconds` have passed; 0, or less, lets everybody else run once."""
    loop = current_loop()
    task: Waiter | None = loop.current
    if task is None or task.interrupt is not None:
        task = checkpoint(loop, "sleep")
    if (kind := type(seconds)) is not float and kind is not int:  # what is usual is looked at no closer
        seconds = checks.seconds("the time of sleep", seconds)
    try:
        deadline = loop.clock() + seconds if seconds > 0 else None
    except OverflowError:
        return sleep(checks.seconds("the time of sleep", seconds))
    if deadline is not None:
        return park(task, _SLEEP, loop.timers.add(deadline, task.resume))
    if seconds != seconds:
        checks.seconds("the time of sleep", seconds)
    return give_way(task, _YIELD)


@parks
def sleep_until(deadline: float) -> None:
    """Parks until the loop's clock shows `deadline`; if it does already, lets everybody else run once."""
    loop = current_loop()
    task = checkpoint(loop, "sleep_until")
    deadline = checks.seconds("the deadline of sleep_until", deadline)
    if deadline > loop.clock():
        park(task, _SLEEP, loop.timers.add(deadline, task.resume))
    else:
        give_way(task, _YIELD)


def current_task() -> Task[Any] | None:
    """The task that runs now; None in a callback and in top-level code."""
    loop = current_loop()
    task = loop.current or current_waiter(loop)
    return task if isinstance(task, Task) else None


_JOIN = WaitKind("join", Task._unwatch, "{0} of task {1.name!r}")  # not its repr: two may wait for each other
_SLEEP = WaitKind("sleep", lambda timer, task: timer.cancel(), "{0} until {1.deadline:.3f}")
_YIELD = WaitKind("sleep(0)", undo_giving_way, "{0}", due=True)
