"""Scopes: blocks of code whose waits are interrupted by the clock or by hand, or are protected from it.

Rules: a task's scopes form a list, from the innermost out; an interruption belongs to the outermost cancelled scope
that no shield hides, and only that one catches it. A cancelled scope stays so: each wait in it raises Cancelled again.
A task has one timer for all of its scopes: it is left alone when a scope ends, and looks for the next deadline when it
rings. What does not belong here: how a task is woken (that is sched), and tasks of one's own (groups).
"""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Iterable, Iterator
from functools import partial
from math import inf
from types import TracebackType
from typing import Self

from dangagreen import checks
from dangagreen.errors import Cancelled
from dangagreen.green.parking import current_waiter, require_waiter
from dangagreen.green.sched import TopLevel, Waiter, deliver_cancel, foreign
from dangagreen.loop.loop import current_loop, here


class CancelScope:
    """A block that can be cancelled and may have a deadline: what `with timeout(...) as scope` and its like give.

    `cancelled_caught` is True after the block if it has ended, or has raised TimeoutError, because the scope was
    cancelled or expired. `cancel` and the deadline may be used by anybody in the loop's thread.
    """

    __slots__ = {
        **dict.fromkeys(("_deadline", "_entered", "_error", "_expired", "_parent", "_pending", "_seconds", "_task")),
        "cancelled_caught": "Whether its block has ended because it was cancelled, or has expired.",
    }

    _what = "CancelScope"
    _raises = _shields = False  # TimeoutError when it expires; is what comes from outside hidden?
    _tasks: Iterable[Waiter] = ()  # those of its group, which are cancelled with it

    _parent: CancelScope | None  # the next one out, once it was entered
    _task: Waiter | None  # while it is open
    _error: Cancelled | None  # it was cancelled, or has expired
    _pending: Cancelled | None  # what a wait in it raises

    def __init__(self, seconds: float | None) -> None:
        if seconds is not None and type(seconds) is not int and (type(seconds) is not float or seconds != seconds):
            seconds = checks.seconds(f"the time of {self._what}", seconds)
        self._seconds = seconds
        self._deadline: float | None = None
        self._task = self._error = self._pending = None
        self._entered = self._expired = self.cancelled_caught = False

    # -- the block

    def __enter__(self) -> Self:
        loop = here.loop or current_loop()
        task: Waiter | None = loop.current
        if task is None or self._entered:
            task = self._checkpoint()
        worker = task.worker
        if worker is not None and worker.gr_frame is not None:  # suspended, so that we are in somebody else's
            raise foreign(task, f"with {self._what}(...)")
        seconds = self._seconds
        if seconds is not None:
            clock = loop.clock  # a slot that is called where it is read costs the interpreter twice as much
            try:
                self._deadline = deadline = clock() + seconds
            except OverflowError:  # an int that is too large: so rare that it is not looked at before
                checks.seconds(f"the time of {self._what}", seconds)
                raise
            alarm = task.deadline_timer
            if alarm is None or alarm.deadline > deadline or not seconds > 0:
                self._expire_or_arm(task, deadline)
        elif self._deadline is not None:
            self._expire_or_arm(task, self._deadline)
        self._entered = True
        self._task = task
        self._parent = task.scope
        task.scope = self
        if task.interrupt is not None or self._error is not None:
            propagate_cancel(task, self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        task = self._task
        if task is None or task.scope is not self or task.interrupt is not None or task.loop.current is not task:
            return self._leave(error)
        task.scope = self._parent
        self._task = None
        return False

    def _checkpoint(self) -> Waiter:
        if self._entered:
            raise RuntimeError(f"{self!r} was entered before: a scope is used once, make another one")
        return require_waiter(current_loop(), f"with {self._what}(...)")

    def _leave(self, error: BaseException | None) -> bool:
        """The same, if there is an interruption to be seen to, or if something is wrong."""
        task = self._task
        if task is None:
            raise RuntimeError(f"{self!r} was left, and is not open")
        if get_ident() != task.loop.thread:
            task.loop.check_thread(f"leaving {self._what}(...)")
        wrong = None if task.loop.current is task and task.scope is self else self._misplaced(task)
        self._unlink(task)
        if wrong is not None:
            if task.done and isinstance(error, GeneratorExit):  # thrown away with the task: too late to do harm
                return False
            raise RuntimeError(wrong)
        if self._error is None or self._pending is not self._error or not isinstance(error, Cancelled):
            return False  # not cancelled, or one further out is as well: it is that one's
        self.cancelled_caught = True
        if self._expired and self._raises:
            raise TimeoutError(self._error.reason) from error
        return True

    def _misplaced(self, task: Waiter) -> str | None:
        """What is wrong with leaving the scope here and now, in words."""
        who = current_waiter(task.loop)
        if who is not task:
            where = "a callback" if who is None else repr(who.name)
            problem = f"{self!r} was entered in {task.name!r} and left in {where}: a scope is left where it was entered"
        elif task.scope is not self:
            problem = f"{self!r} was left before {task.scope!r}, which was entered later: the last in is the first out"
        else:
            return None
        return f"{problem}. Does a generator yield inside the block?"

    def _unlink(self, task: Waiter) -> None:
        inner, scope = None, task.scope
        while scope is not None and scope is not self:
            inner, scope = scope, scope._parent
        self._task = None
        if scope is None:  # the task has ended
            return
        if inner is None:
            task.scope = self._parent
            task.update_interrupt()
        else:
            inner._parent = self._parent
            propagate_cancel(task, inner)
        if task.scope is None and type(task) is TopLevel and task.deadline_timer is not None:
            task.deadline_timer.cancel()  # there is no end of the task to do it
            task.deadline_timer = None

    # -- for everybody

    @property
    def deadline(self) -> float | None:
        """When it expires, in seconds of the loop's clock; None: never, or `timeout(seconds)` was not entered yet.

        May be assigned, at once or later: a time that has passed expires it. Nothing takes back that it is cancelled.
        """
        return self._deadline

    @deadline.setter
    def deadline(self, deadline: float | None) -> None:
        if deadline is not None:
            deadline = checks.seconds(f"the deadline of {self._what}", deadline)
        task = self._task
        if task is not None:
            task.loop.check_thread("CancelScope.deadline")
        self._seconds = None
        self._deadline = deadline
        if task is not None and deadline is not None and self._error is None and self._expire_or_arm(task, deadline):
            propagate_cancel(task, self)

    def reschedule(self, deadline: float | None) -> None:
        """Assign `deadline`."""
        self.deadline = deadline

    @property
    def cancelled(self) -> bool:
        """Whether it was cancelled, or has expired."""
        return self._error is not None or self._is_late()

    def cancel(self, reason: object = None) -> None:
        """Raise Cancelled at the wait that its task is in, and at each later one inside the block, which then ends.

        Harmless when it is cancelled already, or over.
        """
        task = self._task
        if task is not None:
            task.loop.check_thread("CancelScope.cancel")
        if self._error is None:
            if self._is_late():
                self._expire()
            else:
                self._error = Cancelled(reason)
            if task is not None:
                propagate_cancel(task, self)

    def __repr__(self) -> str:
        if self._seconds is not None:
            bound = f"{self._seconds}"
        else:
            bound = "" if self._deadline is None else f"{self._deadline:.3f}"
        state = "expired" if self._expired else "cancelled" if self.cancelled else "open" if self._task else "not open"
        return f"<{self._what}({bound}), {state}>"

    # -- the clock

    def _is_late(self) -> bool:
        """Its time has come, and the alarm may not have rung yet."""
        return self._task is not None and self._deadline is not None and self._task.loop.clock() >= self._deadline

    def _expire(self) -> None:
        if self._error is not None:
            return
        self._expired = True
        limit = f"the deadline {self._deadline}" if self._seconds is None else f"the limit of {self._seconds} s"
        self._error = Cancelled(f"{limit} has passed")

    def _expire_or_arm(self, task: Waiter, deadline: float) -> bool:
        """Expire it if it is late, otherwise see to it that it expires in time."""
        if deadline <= task.loop.clock():
            self._expire()
            return True
        _arm(task, deadline)
        return False


class timeout(CancelScope):  # noqa: N801  a block is written as a call, as those of contextlib are
    """A block that may take so long: a wait that takes longer is interrupted, and the block raises TimeoutError.

    The time begins with the block. None is no limit. A block that ends without an interrupted wait raises nothing.
    """

    __slots__ = ()
    _what = "timeout"
    _raises = True


class timeout_at(CancelScope):  # noqa: N801
    """The same, up to a time of the loop's clock."""

    __slots__ = ()
    _what = "timeout_at"
    _raises = True

    def __init__(self, deadline: float | None) -> None:
        super().__init__(None)
        self.deadline = deadline


class move_on_after(CancelScope):  # noqa: N801
    """The same as `timeout`, but the block just ends; see `cancelled_caught`."""

    __slots__ = ()
    _what = "move_on_after"

    def __init__(self, seconds: float | None = None) -> None:
        super().__init__(seconds)


class shield(CancelScope):  # noqa: N801
    """A block that sees nothing of what is cancelled outside of it: scopes, its task, its group.

    After it the next wait does. It can be given a deadline, and be cancelled, itself.
    """

    __slots__ = ()
    _what = "shield"
    _shields = True

    def __init__(self) -> None:
        super().__init__(None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        return self._leave(error)  # what it has hidden may be seen now


def current_deadline() -> float | None:
    """The earliest deadline that a wait made here would see; None: there is none; -inf: it is cancelled already."""
    task = current_waiter(current_loop())
    if task is None:
        return None
    if _inherited_cancel(task, task.scope) is not None:
        return -inf
    return min((scope._deadline for scope in _around(task) if scope._deadline is not None), default=None)


def propagate_cancel(task: Waiter, first: CancelScope | None = None) -> None:
    """Have a task and all below it see what was cancelled: from its scope `first` inwards, or with None all of it."""
    told: list[tuple[Waiter, CancelScope | None]] = [(task, first)]
    for task, first in told:
        inwards: list[CancelScope] = []
        outer = task.scope
        while outer is not None:
            inwards.append(outer)
            scope, outer = outer, outer._parent
            if scope is first:
                break
        pending = task.cancelled if outer is None else outer._pending
        for scope in reversed(inwards):
            before = scope._pending
            pending = scope._pending = scope._error if pending is None or scope._shields else pending
            if before is None and pending is not None:
                for child in scope._tasks:
                    if child.cancelled is None:
                        child.cancelled = Cancelled(pending.reason)
                        told.append((child, None))
        deliver_cancel(task, pending)


def close_scopes(task: Waiter) -> None:
    """The task ends: its alarm goes, and what it has left open, in a generator, is cancelled."""
    if task.deadline_timer is not None:
        task.deadline_timer.cancel()
        task.deadline_timer = None
    if task.scope is not None:
        task.cancelled = task.cancelled or Cancelled("its task has ended")
        propagate_cancel(task)
        task.scope = None


def _inherited_cancel(task: Waiter, scope: CancelScope | None) -> Cancelled | None:
    """What a wait directly inside this scope of the task sees; with None, outside of them all."""
    return task.cancelled if scope is None else scope._pending


def _around(task: Waiter) -> Iterator[CancelScope]:
    """The scopes that are seen from inside the task, from the innermost out, through its groups, up to a shield."""
    scope: CancelScope | None = task.scope
    while True:
        while scope is not None:
            yield scope
            if scope._shields:
                return
            scope = scope._parent
        scope = None if task.group is None else task.group.scope
        if scope is None or scope._task is None:  # no group, or one that did not wait for it
            return
        task = scope._task


def _arm(task: Waiter, deadline: float) -> None:
    """Have the task's alarm ring at this time, or before."""
    alarm = task.deadline_timer
    if deadline == inf or (alarm is not None and alarm.deadline <= deadline):
        return
    if alarm is not None:
        alarm.cancel()
    task.deadline_timer = task.loop.timers.add_first(deadline, partial(_on_deadline, task))


def _on_deadline(task: Waiter) -> None:
    """Expire every scope whose time has come, before the task is woken, and wait for the next deadline."""
    task.deadline_timer = None
    now = task.loop.now
    expired: CancelScope | None = None
    following = inf
    scope: CancelScope | None = task.scope
    while scope is not None:
        if scope._deadline is not None and scope._error is None:
            if scope._deadline <= now:
                scope._expire()
                expired = scope
            else:
                following = min(following, scope._deadline)
        scope = scope._parent
    if following < inf:
        _arm(task, following)
    if expired is not None:
        propagate_cancel(task, expired)
