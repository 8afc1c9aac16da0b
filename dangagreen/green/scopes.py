"""Cancel scopes: blocks of code whose waits are cancelled by a deadline or by hand, or are shielded from that.

Rules: a task's scopes form a list, from the innermost out; a Cancelled belongs to the outermost cancelled scope that no
shield hides, and only that one catches it. Cancellation is level-triggered: each wait in a cancelled scope raises
again. A task has one deadline timer for all of its scopes: it stays when a scope ends, and when it fires it is set for
the next deadline. What does not belong here: how a task is woken (waiters), and groups of tasks.
"""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Iterable, Iterator
from functools import partial
from math import inf
from types import TracebackType
from typing import Any, Self

from dangagreen import checks
from dangagreen.errors import Cancelled
from dangagreen.green.parking import current_waiter, require_waiter
from dangagreen.green.sched import foreign
from dangagreen.green.waiters import TopLevel, Waiter, deliver_cancel
from dangagreen.loop.loop import current_loop, here
from dangagreen.loop.turn import latest


class CancelScope:
    """A block that can be cancelled and may have a deadline: `with timeout(...) as scope`, and the like.

    `cancelled_caught` is True after the block if that ended, or raised TimeoutError, because the scope was cancelled or
    expired. `cancel` and the deadline may be used by any code in the loop's thread.
    """

    __slots__ = {
        "_deadline": "When it expires, in seconds of the loop's clock; None: never, or not yet known.",
        "_entered": "Whether its block was entered.",
        "_own_cancel": "Its own cancellation: it was cancelled, or has expired; None otherwise.",
        "_expired": "Whether its deadline has passed.",
        "_parent": "The scope around it in its task, once it was entered; None: it is the outermost.",
        "_cancel_seen": "What a wait directly inside it raises: its own or an outer cancellation; or None.",
        "_seconds": "Its time limit in seconds from its beginning; None: none, or a deadline was assigned.",
        "_task": "The task whose code it is, while it is open.",
        "cancelled_caught": "Whether its block was ended because it was cancelled, or has expired.",
    }

    _what = "CancelScope"
    _raises = _shields = False  # whether an expiry raises TimeoutError; whether outer cancellations are hidden
    _tasks: Iterable[Waiter] = ()  # tasks of its group, which are cancelled with it

    _parent: CancelScope | None
    _task: Waiter | None
    _own_cancel: Cancelled | None
    _cancel_seen: Cancelled | None

    def __init__(self, seconds: float | None) -> None:
        if seconds is not None and type(seconds) is not int and (type(seconds) is not float or seconds != seconds):
            seconds = checks.seconds(f"the time of {self._what}", seconds)
        self._seconds = seconds
        self._deadline: float | None = None
        self._task = self._own_cancel = self._cancel_seen = None
        self._entered = self._expired = self.cancelled_caught = False

    # -- the block

    def __enter__(self) -> Self:
        loop: Any = latest.loop
        if loop is None or loop.thread != get_ident():
            loop = here.loop or current_loop()
        task: Waiter | None = loop.current
        if task is None or self._entered:
            task = self._checkpoint()
        worker = task.worker
        if worker is not None and worker.gr_frame is not None:  # suspended: this is another greenlet
            raise foreign(task, f"with {self._what}(...)")
        seconds = self._seconds
        if seconds is not None:
            clock = loop.clock  # to read a slot and call it in one expression costs the interpreter twice as much
            try:
                now = clock()
                self._deadline = deadline = now + seconds
            except OverflowError:  # an int that is too large: rare, so not checked before
                checks.seconds(f"the time of {self._what}", seconds)
                raise
            timer = task.deadline_timer
            due = inf if timer is None else timer.deadline
            if due > deadline or not deadline > now:
                self._expire_or_arm(task, deadline)
        elif self._deadline is not None:
            self._expire_or_arm(task, self._deadline)
        self._entered = True
        self._task = task
        self._parent = task.scope
        task.scope = self
        if task.interrupt is not None or self._own_cancel is not None:
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
        """The task that enters. Raises RuntimeError if the scope was used before, CannotParkError in a callback."""
        if self._entered:
            raise RuntimeError(f"{self!r} was entered before: a scope is used once, make another one")
        return require_waiter(current_loop(), f"with {self._what}(...)")

    def _leave(self, error: BaseException | None) -> bool:
        """`__exit__` when the task is cancelled, or the scope is left in the wrong place. Returns whether it caught."""
        task = self._task
        if task is None:
            raise RuntimeError(f"{self!r} was left, and is not open")
        if get_ident() != task.loop.thread:
            task.loop.check_thread(f"leaving {self._what}(...)")
        wrong = None if task.loop.current is task and task.scope is self else self._misplaced(task)
        self._unlink(task)
        if wrong is not None:
            if task.done and isinstance(error, GeneratorExit):  # a generator freed with its task: no harm
                return False
            raise RuntimeError(wrong)
        if self._own_cancel is None or self._cancel_seen is not self._own_cancel or not isinstance(error, Cancelled):
            return False  # not cancelled; or an outer scope is as well, and catches it
        self.cancelled_caught = True
        if self._expired and self._raises:
            raise TimeoutError(self._own_cancel.reason) from error
        return True

    def _misplaced(self, task: Waiter) -> str | None:
        """The error message if the scope is left in another task, or out of order; None if all is right."""
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
        """Take the scope out of the task's list, and work out anew what interrupts the task."""
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
            task.deadline_timer.cancel()  # top-level code has no end that would do so
            task.deadline_timer = None

    # -- for its users

    @property
    def deadline(self) -> float | None:
        """When it expires, in seconds of the loop's clock; None: never, or `timeout(seconds)` was not entered yet.

        Assignable, before or inside the block: a time that has passed expires it. An expiry cannot be undone.
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
        if task is not None and deadline is not None and self._own_cancel is None:
            if self._expire_or_arm(task, deadline):
                propagate_cancel(task, self)

    def reschedule(self, deadline: float | None) -> None:
        """Assign `deadline`."""
        self.deadline = deadline

    @property
    def cancelled(self) -> bool:
        """Whether it was cancelled or has expired."""
        return self._own_cancel is not None or self._is_late()

    def cancel(self, reason: object = None) -> None:
        """Raise Cancelled at the wait that its task is in, and at each later one inside the block.

        The block then ends quietly. Does nothing if the scope is cancelled already, or its block is over.
        """
        task = self._task
        if task is not None:
            task.loop.check_thread("CancelScope.cancel")
        if self._own_cancel is None:
            if self._is_late():
                self._expire()
            else:
                self._own_cancel = Cancelled(reason)
            if task is not None:
                propagate_cancel(task, self)

    @property
    def _owner(self) -> Waiter | None:
        """The task whose block it is, while that is open."""
        return self._task

    def __repr__(self) -> str:
        if self._seconds is not None:
            bound = f"{self._seconds}"
        else:
            bound = "" if self._deadline is None else f"{self._deadline:.3f}"
        state = "expired" if self._expired else "cancelled" if self.cancelled else "open" if self._task else "not open"
        return f"<{self._what}({bound}), {state}>"

    # -- for the scheduler: it and all around it

    def _outwards(self) -> Iterator[CancelScope]:
        scope: CancelScope | None = self
        while scope is not None:
            yield scope
            scope = scope._parent

    def _has_deadlines(self) -> bool:
        """Whether the deadline timer of its task is needed by one of them."""
        return any(scope._deadline is not None for scope in self._outwards())

    def _forget_deadlines(self) -> None:
        """The loop has cancelled all timers."""
        for scope in self._outwards():
            scope._deadline = None

    def _end_all(self, reset: Cancelled) -> None:
        """The loop was reset: waits raise that inside shields as well."""
        for scope in self._outwards():
            scope._cancel_seen = reset

    # -- the clock

    def _is_late(self) -> bool:
        """Whether its deadline has passed; the deadline timer may not have fired yet."""
        return self._task is not None and self._deadline is not None and self._task.loop.clock() >= self._deadline

    def _expire(self) -> None:
        """Cancel it because its deadline has passed, unless it is cancelled already."""
        if self._own_cancel is not None:
            return
        self._expired = True
        limit = f"the deadline {self._deadline}" if self._seconds is None else f"the limit of {self._seconds} s"
        self._own_cancel = Cancelled(f"{limit} has passed")

    def _expire_or_arm(self, task: Waiter, deadline: float) -> bool:
        """Expire it if its deadline has passed, otherwise set the deadline timer. Returns whether it has expired."""
        if deadline <= task.loop.clock():
            self._expire()
            return True
        _arm(task, deadline)
        return False


class shield(CancelScope):  # noqa: N801
    """A block whose waits are not interrupted by cancellations from outside: outer scopes, its task, its group.

    The next wait after the block is. The shield itself may be cancelled, and be assigned a deadline.
    """

    __slots__ = ()
    _what = "shield"
    _shields = True

    def __init__(self) -> None:
        CancelScope.__init__(self, None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        return self._leave(error)  # what it has hidden takes effect now


def propagate_cancel(task: Waiter, first: CancelScope | None = None) -> None:
    """Pass a cancellation on inwards: from the task's scope `first` (None: the outermost) to the tasks of groups."""
    told: list[tuple[Waiter, CancelScope | None]] = [(task, first)]
    for task, first in told:
        inwards: list[CancelScope] = []
        outer = task.scope
        while outer is not None:
            inwards.append(outer)
            scope, outer = outer, outer._parent
            if scope is first:
                break
        pending = task.cancelled if outer is None else outer._cancel_seen
        for scope in reversed(inwards):
            before = scope._cancel_seen
            pending = scope._cancel_seen = scope._own_cancel if pending is None or scope._shields else pending
            if before is None and pending is not None:
                for child in scope._tasks:
                    if child.cancelled is None:
                        child.cancelled = Cancelled(pending.reason)
                        told.append((child, None))
        deliver_cancel(task, pending)


def close_scopes(task: Waiter) -> None:
    """At the end of a task: cancel its deadline timer, and the scopes that a generator has left open."""
    if task.deadline_timer is not None:
        task.deadline_timer.cancel()
        task.deadline_timer = None
    if task.scope is not None:
        task.cancelled = task.cancelled or Cancelled("its task has ended")
        propagate_cancel(task)
        task.scope = None


def around(task: Waiter) -> Iterator[CancelScope]:
    """The scopes that can cancel the task's wait, from the innermost out, through its groups, up to a shield."""
    scope: CancelScope | None = task.scope
    while True:
        while scope is not None:
            yield scope
            if scope._shields:
                return
            scope = scope._parent
        scope = None if task.group is None else task.group.scope
        if scope is None or scope._task is None:  # no group, or its block has ended without waiting for the task
            return
        task = scope._task


def _arm(task: Waiter, deadline: float) -> None:
    """Have the task's deadline timer fire at this time, or before."""
    timer = task.deadline_timer
    if deadline == inf or (timer is not None and timer.deadline <= deadline):
        return
    if timer is not None:
        timer.cancel()
    task.deadline_timer = task.loop.timers.add_first(deadline, partial(_on_deadline, task))


def set_deadline_anew(task: Waiter) -> None:
    """All timers of the loop were cleared: have the task's own scopes expire in time."""
    former, task.deadline_timer = task.deadline_timer, None
    if former is not None:
        _arm(task, former.deadline)


def _on_deadline(task: Waiter) -> None:
    """The deadline timer has fired: expire each scope whose deadline has passed, and set it for the next one."""
    task.deadline_timer = None
    now = task.loop.now
    expired: CancelScope | None = None
    following = inf
    scope: CancelScope | None = task.scope
    while scope is not None:
        if scope._deadline is not None and scope._own_cancel is None:
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
