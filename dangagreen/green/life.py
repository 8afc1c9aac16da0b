"""The life of a task: how it begins, who waits for its end, and what becomes of its error.

Rules: an exception that reaches no caller is reported once. What does not belong here: what lies beneath the code of a
task that is parked (`Task.run`), and what users alone ask of one (tasks).
"""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Callable
from contextvars import Context
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any, Protocol

from dangagreen import checks
from dangagreen.errors import Cancelled, ErrorContext, TaskCancelledError
from dangagreen.green.parking import checkpoint, park, park_for
from dangagreen.green.sched import Scheduler, Worker, scheduler
from dangagreen.green.scopes import CancelScope, close_scopes
from dangagreen.green.task_table import called
from dangagreen.green.waiters import Waiter, WaitKind
from dangagreen.loop.loop import Loop
from dangagreen.parks import parks
from dangagreen.places import place_of_instruction
from dangagreen.tracebacks import without_traceback


class Group(Protocol):
    """A TaskGroup, as its tasks need it."""

    @property
    def scope(self) -> CancelScope: ...

    def _ended(self, task: Any, error: BaseException | None) -> bool:
        """Called at the end of a task. Returns whether the group raises the error, so that it is not reported."""


class Joiner(Protocol):
    """What is notified when a task ends: a waiter in `join` or `select`, or a `wait` for several tasks."""

    def _on_task_end(self, task: Any, /) -> object: ...


class Runnable(Waiter):
    """A waiter that a worker runs: base class of `Task`."""

    __slots__ = ()

    def start(self, ended: Worker | None = None) -> None:
        """Run it in a worker until it first parks. Called on the hub; or by a worker, `ended`, that runs it next."""
        if self.interrupt is not None:
            return self.end_unstarted(self.interrupt)
        sched: Scheduler = self.loop.green  # type: ignore[assignment]
        if ended is None:
            idle = sched.idle
            worker = idle.pop() if idle else Worker(sched)
        else:
            worker = ended
        self.worker = worker
        worker.task = self
        worker.gr_context = self.context
        self.to_hub = sched.from_tasks
        self.resume = resume = worker.resume
        if ended is None:
            resume()
        return None

    def start_next(self, worker: Worker) -> bool:
        """Have the worker, in which it has ended, run what is next in the queue, if that is a task to be started.

        So a task that never parks costs no switch to the hub and back. Only the hub resumes tasks.
        """
        loop = self.loop
        following: Any = loop.runnable[0].__self__  # type: ignore[attr-defined]
        if not isinstance(following, Runnable) or following.worker is not None or (start := loop.next_task()) is None:
            return False
        worker.task = None
        start(worker)
        return worker.task is not None  # it was not cancelled before


class Life(Runnable):
    """What is hot of `Task`, its base class: its beginning, those who wait for its end, its end."""

    __slots__ = {
        "__weakref__": "Weak references to it work.",
        "call": "The function with its arguments; None once it has ended, and where it runs a method of its own.",
        "_error": "What it raised; None if it returned, or has not ended.",
        "_joiners": "What is notified at its end; True: takes care of a failure for certain, as `join` does. Or None.",
        "origin": "(code, instruction) of the spawn, or None.",
        "_result": "What it returned.",
        "error_retrieved": "Whether its exception reached a caller, or was reported.",
        "group": "The TaskGroup that it belongs to, or None.",
        "_name": "The `name`.",
    }

    _error: BaseException | None
    _result: Any

    def __init__(
        self,
        loop: Loop,
        call: Callable[[], object] | None,
        context: Context,
        named_after: Callable[..., Any] | str,
        origin: tuple[CodeType, int] | None = None,
    ) -> None:
        self.loop = loop  # Waiter.__init__, inlined: a tenth of a spawn
        self.wait = self.interrupt = self.cancelled = self.scope = self.worker = None
        self.deadline_timer = self.unflushed_socket = None
        self.done = self.error_retrieved = False
        self.context = context
        self.call = call
        self._name: str = named_after.__qualname__ if type(named_after) is FunctionType else name_of(named_after)
        self.origin = origin
        self._joiners: dict[Joiner, bool] | None = None
        self.group: Group | None = None
        sched: Scheduler = loop.green or scheduler(loop)  # type: ignore[assignment]
        sched.tasks[self] = None

    @property
    def name(self) -> str:
        """What errors and tables call it: a str, assignable; by default the name of the function."""
        return self._name

    @name.setter
    def name(self, value: str) -> None:
        self._name = checks.text("the name of a task", value)

    @property
    def spawned_at(self) -> str | None:
        """ "file:line" of the spawn, or None."""
        return None if self.origin is None else place_of_instruction(*self.origin)

    @property
    def called(self) -> str:
        """What words about others call it: its name, or in a table what tells it apart there."""
        return called(self)

    def ended_by(self) -> BaseException | None:
        """The exception that has ended it, if one has."""
        return self._error

    def function(self) -> object:
        """The function that it runs; None once it has ended."""
        return self.call

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
            if not isinstance(me, Life) and not isinstance(error, (Cancelled, TimeoutError)):
                self._missed()
            raise

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

    # -- its end, and its error

    def end(self, error: BaseException | None, result: object = None) -> bool:
        """Note that it has returned `result`, or raised `error`. Returns what `run` does."""
        loop = self.loop
        if self.unflushed_socket is not None:
            loop.to_flush.append(self.unflushed_socket)
            self.unflushed_socket = None
        if loop.current is self:  # not if it never ran, and not in a forked child
            loop.current = None
        if self.deadline_timer is not None or self.scope is not None:
            close_scopes(self)
        self.done = True
        self._error, self._result = error, result
        self.worker = self.call = None
        sched: Scheduler = loop.green  # type: ignore[assignment]
        del sched.tasks[self]
        sched.ended, sched.ended_from = self._name, self.origin  # `note_end`, in line: 1 percent
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
                return False
            self.error_retrieved = bool(joiners)
            self.context = None
            self._report_if_unretrieved()
        self.context = None
        if queue := loop.runnable:
            return type(queue[0]) is MethodType  # as `start` is, and `resume` is not
        return False

    def _leave_to_parent(self) -> None:
        self.scope = self.deadline_timer = None  # its blocks are not left here, and cancel nothing
        Life.end(self, Cancelled("it goes on in the parent process"))

    def _go_on_alone(self) -> None:
        """In a forked child: those who wait for its end do so in the parent. Failures are reported."""
        self.group = self._joiners = None

    def outcome(self) -> Any:
        """What `Task.result` returns, or raises."""
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


_JOIN = WaitKind("join", Life._unwatch, "{0} of task {1.called!r}")  # not its repr: two may wait for each other
