"""The one door through which every wait goes, and a block of code in which it is shut: no_parking.

Rules: whatever a task waits for, somebody is first arranged to wake it (the caller's part), then it parks here, then it
is woken: the first wake counts and undoes the arrangement. `no_parking` costs nothing where it is not used: for as long
as it lasts the loop has no current task, as in a callback, so that every call that may park takes its longer way, and
is refused. What does not belong here: what is waited for.
"""

from __future__ import annotations

import contextlib
import sys
from _thread import get_ident
from types import FrameType
from typing import Any

from dangagreen.errors import Cancelled, CannotParkError
from dangagreen.frames import CALLER, LOOPS, is_ours
from dangagreen.green.sched import Waiter, WaitKind, foreign, scheduler, top_level, wake
from dangagreen.green.task_table import described
from dangagreen.loop.loop import Loop, current_loop, here
from dangagreen.loop.schedule import OrderedCall
from dangagreen.loop.turn import LONG_TURN
from dangagreen.parks import parks

_CALLS = (True,) * 128  # that need not wait, before the clock is looked at,
_FEW_CALLS = (True,) * 4  # and in a turn that is older than that
_MANY = 64  # budgets that one task spends in a turn, where the clock does not tell how long that takes


def checkpoint(loop: Loop, call: str) -> Waiter:
    """The task that makes this call, which may park. Every such call begins here, also when it need not wait; those
    that many programs make very often look in line at what this looks at, and come here if there is something to do.

    Parks when the task has gone on for long without a wait. Raises what cancels the task; CannotParkError in a
    callback; ForeignThreadError in another thread.
    """
    task: Waiter | None = loop.current
    if task is None or get_ident() != loop.thread:
        task = require_waiter(loop, call)
    if task.interrupt is not None:
        raise interrupted(task)
    for _ in loop.budget:
        return task
    look_at_the_clock(task)
    return task


def look_at_the_clock(task: Waiter) -> None:
    """The budget of calls is spent: begin a new one, and give way if the turn is old, and this task one of the reasons.

    How long a task has gone on is measured from its first look in an old turn, so that whoever makes few calls is left
    in peace; the older the turn, the less it may be, so that many such tasks do not add up.
    """
    loop = task.loop
    began = loop.now if loop.current is not None else task.turned  # type: ignore[attr-defined]
    now = loop.clock()
    age = now - began
    loop.budget = iter(_CALLS)
    if 0 < age < LONG_TURN:
        return
    sched, spender = scheduler(loop), (id(task), began)
    worker = task.worker
    if task is sched.collector or (worker is not None and worker.gr_frame is not None):  # code that cannot be suspended
        return
    if sched.spender != spender:
        sched.spender, sched.looked, sched.spent = spender, now, 0
    sched.spent += 1
    if not age:  # a clock that stands still while somebody runs, as in tests
        if sched.spent >= _MANY:
            park(task, _GIVING_WAY_FOR, loop.timers.add(now + LONG_TURN, task.resume))
        return
    loop.budget = iter(_FEW_CALLS)
    if (now - sched.looked) * (1 + age / LONG_TURN) >= LONG_TURN:
        give_way(task, GIVING_WAY)


@parks
def give_way(task: Waiter, wait: WaitKind) -> None:
    """Parks until everybody else has run once."""
    loop, then = task.loop, None
    if loop.runnable:  # these first, should they be too many for one turn
        then = OrderedCall(loop.ready.append, task.resume)
        loop.runnable.append(then)
    else:
        loop.ready.append(task.resume)
    park(task, wait, then)
    if task.interrupt is not None:  # meanwhile
        raise interrupted(task)


def undo_giving_way(then: Any, task: Waiter) -> None:
    """Undo what `give_way` has arranged."""
    for queue, call in ((task.loop.runnable, then), (task.loop.ready, task.resume)):
        with contextlib.suppress(ValueError):
            queue.remove(call)


def require_waiter(loop: Loop, call: str) -> Waiter:
    """The same as `entering`, cancelled or not, and however long it has gone on."""
    if get_ident() != loop.thread:
        loop.check_thread(call)
    task: Waiter | None = loop.current
    if task is None:
        sched = scheduler(loop)
        if loop.running or sched.no_parking is not None:
            raise CannotParkError(_cannot_park(call, sched.no_parking))
        check_present(loop, call)
        task = top_level(loop)
        loop.now = loop.clock()  # it was the time of the last turn
    return task


def check_present(loop: Loop, call: str) -> None:
    """Raise RuntimeError where another loop of this thread is running: the caller is not this one's top-level code."""
    present = here.loop
    if present is not None and present is not loop and present.running:
        raise RuntimeError(f"{call} of something that belongs to another loop than the one that runs here")


def interrupted(task: Waiter) -> BaseException:
    """What to raise at a wait of a task that has been interrupted: Cancelled anew each time, anything else once."""
    error = task.interrupt
    assert error is not None
    if isinstance(error, Cancelled):
        return Cancelled(error.reason)
    task.interrupt = None
    task.update_interrupt()
    return error


@parks
def park(task: Waiter, wait: WaitKind, subject: Any) -> None:
    """Parks until somebody wakes the task. The caller has arranged for that, and `wait` tells how to undo it."""
    task.wait = wait
    task.subject = subject
    loop = task.loop
    current, loop.current = loop.current, None
    try:
        if task.unflushed_socket is not None:  # only now: sending may already wake the task
            sock, task.unflushed_socket = task.unflushed_socket, None
            try:
                sock._flush()
            except Exception as error:  # the socket's affair, not that of what the task waits for
                loop.handler_failed(sock, error)
        if task.interrupt is not None and task.wait is not None:  # cancelled since it last looked
            raise interrupted(task)
        worker = task.worker
        if worker is not None and worker.gr_frame is not None:  # suspended, so that we are in somebody else's
            raise foreign(task, wait.name)
        to_hub = task.to_hub  # a slot that is called where it is read costs the interpreter twice as much
        if to_hub():
            raise task.subject
    except BaseException:
        if task.wait is not None:  # nobody has woken it: this came out of the flush
            wait.undo(subject, task)
        raise
    finally:
        task.wait = task.subject = None
        loop.current = current


@parks
def park_for(task: Waiter, wait: WaitKind, subject: Any, timeout: float | None) -> None:
    """Parks until then as well, and raises TimeoutError after `timeout` seconds (None is no limit).

    The caller has checked them before it arranged anything.
    """
    if timeout is None:
        return park(task, wait, subject)

    def time_is_up() -> None:
        wake(task, TimeoutError(f"{described(task, 'waits_for')} took longer than {timeout} s"))

    timer = task.loop.timers.add(task.loop.clock() + timeout, time_is_up)
    try:
        park(task, wait, subject)
    finally:
        timer.cancel()
    return None


def _cannot_park(call: str, no_parking: Any) -> str:
    """Say who made the call, from the frames between the loop and here."""
    frame: FrameType | None = sys._getframe()
    callback = None
    if no_parking is not None:
        while frame is not None and is_ours(frame):
            frame = frame.f_back
        who = frame.f_code.co_qualname if frame is not None else "?"
        return (
            f"{call} may have to wait, and was called by {who} inside no_parking(), which {no_parking.caller} has"
            f" entered so that nothing else runs meanwhile. Do it before or after that block"
        )
    while frame is not None and frame not in LOOPS:
        if not is_ours(frame):
            callback = frame.f_code.co_qualname
        frame = frame.f_back
    return (
        f"{call} may have to wait, and was called in the callback {callback or '?'}, which runs on the loop itself, so"
        f" that nothing else could run meanwhile. Do it in a task: spawn(...)"
    )


class NoParking:
    """What `no_parking()` gives. Attributes: `task`, who has entered it, and `caller`, the name of its function."""

    __slots__ = ("_before", "_loop", "caller", "outer", "task")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def __enter__(self) -> None:
        loop, sched = self._loop, scheduler(self._loop)
        loop.check_thread("no_parking")
        self.caller = sys._getframe(CALLER).f_code.co_qualname
        self.task: Waiter | None = current_waiter(loop)
        self._before: Waiter | None = loop.current
        self.outer: NoParking | None = sched.no_parking
        sched.no_parking = self
        loop.current = None  # every call that may park now looks closer

    def __exit__(self, *_error: object) -> None:
        loop, sched = self._loop, scheduler(self._loop)
        if sched.no_parking is self:
            sched.no_parking = self.outer
        elif self.task is None or not self.task.done:  # else it was forgotten with its task
            raise RuntimeError("no_parking() blocks are left in the reverse order of entering")
        if loop.current is not None:
            raise RuntimeError("no_parking() was left in another task. Does a generator yield inside the block?")
        if self._before is not None and not self._before.done:
            loop.current = self._before


def no_parking() -> NoParking:
    """A block in which every call that may park raises CannotParkError, also where it would not have had to wait.

    So nothing else of this loop runs between its beginning and its end, whatever is called in it.
    """
    return NoParking(current_loop())


def current_waiter(loop: Loop) -> Waiter | None:
    """Whose code this is; None in a callback."""
    task: Waiter | None = loop.current
    if task is None:
        sched = scheduler(loop)
        if sched.no_parking is not None:
            task = sched.no_parking.task
        if (task is None or task.done) and not loop.running:
            task = sched.top_level
    return task


GIVING_WAY = WaitKind("giving way", undo_giving_way, "{0} to others", due=True)
_GIVING_WAY_FOR = WaitKind("giving way", lambda timer, task: timer.cancel(), "{0} to others")
