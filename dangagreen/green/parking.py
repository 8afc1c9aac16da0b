"""Parking: the one way into a wait, for every call that may suspend a task; and no_parking, a block without any.

Rules: the caller first arranges for a wake-up (a timer, a place in a wait queue), then the task parks here, then it is
woken: the first wake counts, and undoes the arrangement. `no_parking` costs nothing where it is not used: during its
block the loop has no current task, as in a callback, so that each call that may park leaves its fast path, and is
refused. What does not belong here: what is waited for.
"""

from __future__ import annotations

import contextlib
import sys
from _thread import get_ident
from functools import partial
from types import FrameType
from typing import Any

from dangagreen.errors import Cancelled, CannotParkError
from dangagreen.frames import LOOPS, is_ours, line_of, program_frame
from dangagreen.green.sched import foreign, scheduler, top_level
from dangagreen.green.task_table import described
from dangagreen.green.waiters import Waiter, WaitKind, wake
from dangagreen.loop.error_log import log
from dangagreen.loop.loop import Loop, current_loop, here
from dangagreen.loop.schedule import OrderedCall
from dangagreen.loop.turn import LONG_TURN
from dangagreen.parks import parks
from dangagreen.sockets.write_queue import WriteQueue

_CALLS = (True,) * 128  # a budget: calls that need not wait before the clock is read
_FEW_CALLS = (True,) * 4  # a budget in a turn that is older than LONG_TURN
_flush = WriteQueue._flush  # nobody overrides it
INSISTENT = 1000  # calls of an interrupted task that were refused for one cancellation: it will hardly end by itself
_MANY = 64  # budgets that one task may spend in a turn on a clock that stands still


def checkpoint(loop: Loop, call: str) -> Waiter:
    """The entry of each call that may park, also when it need not wait. Returns the task that makes the call.

    The hottest calls test inline what this tests, and call it if one of the tests fails. Parks, to yield, when the task
    has run for about a millisecond without a wait. Raises the task's cancellation; CannotParkError in a callback;
    ForeignThreadError in another thread.
    """
    task: Waiter | None = loop.current
    if task is None or get_ident() != loop.thread:
        task = require_waiter(loop, call)
    if task.interrupt is not None:
        raise interrupted_before(task)
    for _ in loop.budget:
        return task
    look_at_the_clock(task)
    return task


def look_at_the_clock(task: Waiter) -> None:
    """The task's budget of calls is spent: begin a new one, and yield if the turn is old and this task has its share.

    The task's share is measured from its first look in an old turn, so that a task with few calls does not yield; the
    older the turn, the smaller the share, so that many busy tasks do not add up.
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
    if task is sched.collector or (worker is not None and worker.gr_frame is not None):  # it cannot be suspended
        return
    if sched.spender != spender:
        sched.spender, sched.looked, sched.spent = spender, now, 0
    sched.spent += 1
    if not age:  # a clock that stands still while code runs, as in tests
        if sched.spent >= _MANY:
            park(task, _GIVING_WAY_FOR, loop.timers.add(now + LONG_TURN, task.resume))
        return
    loop.budget = iter(_FEW_CALLS)
    if (now - sched.looked) * (1 + age / LONG_TURN) >= LONG_TURN:
        give_way(task, GIVING_WAY)


@parks
def give_way(task: Waiter, wait: WaitKind) -> None:
    """Parks until every other task and call that is ready has run once. Raises the task's cancellation."""
    park(task, wait, come_last(task))
    if task.interrupt is not None:  # cancelled meanwhile
        raise interrupted(task)


def come_last(task: Waiter) -> Any:
    """Have a task resumed when every other one and call that is ready has run once; returns what its wait undoes."""
    loop = task.loop
    if not loop.runnable:
        loop.ready.append(task.resume)
        return None
    then = OrderedCall(loop.ready.append, task.resume)  # these run first, even if they take several turns
    loop.runnable.append(then)
    return then


def undo_giving_way(then: Any, task: Waiter) -> None:
    """Undo what `give_way` has arranged."""
    loop, first = task.loop, task.resume if then is None else then.args[0]
    for queue, call in (
        (loop.runnable, then),
        (loop.ready, first),
        (loop.ready, task.resume),
    ):  # see `Scheduler.listen`
        with contextlib.suppress(ValueError):
            queue.remove(call)


def require_waiter(loop: Loop, call: str) -> Waiter:
    """The task, or top-level code, that makes this call; unlike `checkpoint`, cancelled or not, and without yielding.

    Raises CannotParkError in a callback and inside no_parking(), ForeignThreadError in another thread.
    """
    if get_ident() != loop.thread:
        loop.check_thread(call)
    task: Waiter | None = loop.current
    if task is None:
        sched = scheduler(loop)
        if sched.no_parking is not None:
            raise sched.no_parking.refuse(call)
        if loop.running:
            raise CannotParkError(_cannot_park(call))
        check_present(loop, call)
        task = top_level(loop)
        loop.now = loop.clock()  # `now` was the time of the last turn
    return task


def check_present(loop: Loop, call: str) -> None:
    """Raise RuntimeError if another loop of this thread is running: the caller is no top-level code of this loop."""
    present = here.loop
    if present is not None and present is not loop and present.running:
        raise RuntimeError(f"{call} of something that belongs to another loop than the one that runs here")


def interrupted(task: Waiter) -> BaseException:
    """The exception for a wait of an interrupted task: a new Cancelled each time; a KeyboardInterrupt once."""
    error = task.interrupt
    assert error is not None
    if isinstance(error, Cancelled):
        return Cancelled(error.reason)
    task.interrupt = None
    task.update_interrupt()
    return error


def interrupted_before(task: Waiter) -> BaseException:
    """The exception for a call that an interrupted task makes. It may make such calls in a loop, and never end.

    So it yields like any other call that need not wait: the others run, and a signal is heard. Once for each task and
    cancellation the log tells of it.
    """
    pending, error = task.interrupt, interrupted(task)
    if isinstance(pending, Cancelled):
        times = pending.refused = pending.refused or {}
        times[id(task)] = count = times.get(id(task), 0) + 1
        if count == INSISTENT:
            _tell_of_insistence(task, error, count)
    for _ in task.loop.budget:
        return error
    task.interrupt = None
    try:
        look_at_the_clock(task)
    finally:
        task.update_interrupt()
    return error


def _tell_of_insistence(task: Waiter, error: BaseException, count: int) -> None:
    frame = program_frame(sys._getframe())
    log().warning(
        "%s goes on, though each wait in it is interrupted (%s), %s times by now%s. What catches Cancelled, as"
        " `except:` and `except BaseException:` do, is to raise it again",
        task.in_words(),
        error,
        count,
        "" if frame is None else f": {line_of(frame)}",
    )


def park(task: Waiter, wait: WaitKind, subject: Any) -> None:
    """Parks until the task is woken. The caller has arranged for that; `wait.undo(subject, task)` takes it back.

    First sends what the task has written. Raises the error that it is woken with, or the task's cancellation.
    """
    task.wait = wait
    task.subject = subject
    loop = task.loop
    current, loop.current = loop.current, None
    try:
        if task.unflushed_socket is not None:  # after `wait` is set: sending may already wake the task
            sock, task.unflushed_socket = task.unflushed_socket, None
            try:
                _flush(sock)
            except Exception as error:  # it costs the socket; the task may wait for something else
                loop.handler_failed(sock, error)
        if task.interrupt is not None and task.wait is not None:  # cancelled since it last looked
            raise interrupted(task)
        worker = task.worker
        if worker is not None and worker.gr_frame is not None:  # suspended: this is another greenlet
            raise foreign(task, wait.name)
        to_hub = task.to_hub  # to read a slot and call it in one expression costs the interpreter twice as much
        if to_hub():
            raise task.subject
    except BaseException:
        if task.wait is not None:  # not woken: raised before the switch, or thrown by a reset
            wait.undo(subject, task)
        raise
    finally:
        task.wait = task.subject = None
        loop.current = current


parks(park)  # not as a decorator: compiled, that would make it a function in Python, which is dearer to call


@parks
def park_for(task: Waiter, wait: WaitKind, subject: Any, timeout: float | None) -> None:
    """Parks until the task is woken; raises TimeoutError if that is not within `timeout` seconds (None: no limit).

    The caller has checked the timeout before it arranged anything.
    """
    if timeout is None:
        return park(task, wait, subject)
    timer = task.loop.timers.add(task.loop.clock() + timeout, TimeLimit(_time_is_up, task, timeout))
    try:
        park(task, wait, subject)
    finally:
        timer.cancel()
    return None


class TimeLimit(partial[None]):
    """The callback of the timer of `park_for`, by which it is seen that a wait, of the task `args[0]`, has one."""

    __slots__ = ()


def _time_is_up(task: Waiter, timeout: float) -> None:
    wake(task, TimeoutError(f"{described(task, 'waits_for')} took longer than {timeout} s"))


def _cannot_park(call: str) -> str:
    """The message of a CannotParkError; it names the callback, found in the frames between the loop and here."""
    frame: FrameType | None = sys._getframe()
    callback = None
    while frame is not None and frame not in LOOPS:
        if not is_ours(frame):
            callback = frame.f_code.co_qualname
        frame = frame.f_back
    return (
        f"{call} may have to wait, and was called in the callback {callback or '?'}, which runs on the loop itself, so"
        f" that nothing else could run meanwhile. Do it in a task: spawn(...)"
    )


class NoParking:
    """A no_parking() block."""

    __slots__ = {
        "_before": "The loop's current task when the block was entered.",
        "_loop": "The loop.",
        "caller": "The name of the function that has entered it.",
        "outer": "The no_parking() block around it, or None.",
        "task": "The task whose code it is; None in a callback.",
    }

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def __enter__(self) -> None:
        loop, sched = self._loop, scheduler(self._loop)
        loop.check_thread("no_parking")
        self.caller = _function_of_the_program()
        self.task: Waiter | None = current_waiter(loop)
        self._before: Waiter | None = loop.current
        self.outer: NoParking | None = sched.no_parking
        sched.no_parking = self
        loop.current = None  # each call that may park now leaves its fast path

    def refuse(self, call: str) -> CannotParkError:
        """The error for a call that may park, made inside this block."""
        who = _function_of_the_program()
        return CannotParkError(
            f"{call} may have to wait, and was called by {who} inside no_parking(), which {self.caller} has entered so"
            f" that nothing else runs meanwhile. Do it before or after that block"
        )

    def __exit__(self, *_error: object) -> None:
        loop, sched = self._loop, scheduler(self._loop)
        if sched.no_parking is self:
            sched.no_parking = self.outer
        elif self.task is None or not self.task.done:  # otherwise it was closed with its task
            raise RuntimeError("no_parking() blocks are left in the reverse order of entering")
        if loop.current is not None:
            raise RuntimeError("no_parking() was left in another task. Does a generator yield inside the block?")
        if self._before is not None and not self._before.done:
            loop.current = self._before


def _function_of_the_program() -> str:
    """The name of the innermost function that is not of this package."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and is_ours(frame):
        frame = frame.f_back
    return frame.f_code.co_qualname if frame is not None else "?"


def no_parking() -> NoParking:
    """A block in which every call that may park raises CannotParkError, also if it need not wait.

    So no other code of this loop runs during the block, whatever is called in it: it is atomic.
    """
    return NoParking(current_loop())


def current_waiter(loop: Loop) -> Waiter | None:
    """The task, or top-level code, that runs now; None in a callback. Inside no_parking() as well."""
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
