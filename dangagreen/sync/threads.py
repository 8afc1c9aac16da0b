"""Functions that block, in threads: in_thread, and the limiter of how many run at once.

Rules: the task waits, and the loop goes on; a cancelled task waits for its function to end, unless it is told to
abandon it; a thread that was abandoned counts for its limiter until it has ended; what it raises then is reported. What
does not belong here: the pool of threads (loop/thread_pool), and the way back into the loop (green/from_thread).
"""

from __future__ import annotations

import atexit
import os
from _thread import get_ident
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any, Never, TypeVar

from dangagreen import checks
from dangagreen.errors import Cancelled, ErrorContext
from dangagreen.green.from_thread import ThreadCall, caller
from dangagreen.green.life import name_of
from dangagreen.green.parking import checkpoint, park
from dangagreen.green.sched import scheduler
from dangagreen.green.scopes import shield
from dangagreen.green.waiters import Waiter, WaitKind, wake
from dangagreen.loop.error_log import log
from dangagreen.loop.loop import Loop, current_loop, here
from dangagreen.loop.thread_pool import call_in_thread
from dangagreen.parks import parks
from dangagreen.sync.locks import Semaphore

Result = TypeVar("Result")

_THREADS = 40  # of `in_thread` without a limiter of its own, for each loop


class ThreadLimiter:
    """How many functions `in_thread` runs at once; further calls wait in line. It belongs to one loop."""

    __slots__ = {
        "_free": "What calls wait for.",
        "in_use": "How many threads run for it.",
        "limit": "How many may run at once.",
    }

    def __init__(self, limit: int) -> None:
        """Raises ValueError for less than one."""
        self.limit = checks.count("the limit of a ThreadLimiter", limit, 1)
        self._free = Semaphore(self.limit)
        self.in_use = 0

    def _take(self) -> None:
        """Wait in line until a thread may run."""
        self._free.acquire()
        self.in_use += 1

    def _give_back(self) -> None:
        """A thread has ended."""
        self.in_use -= 1
        self._free.release()

    def __repr__(self) -> str:
        return f"<ThreadLimiter, {self.in_use} of {self.limit}>"


class _Job:
    """One call of `in_thread`."""

    __slots__ = {
        "_abandoned": "Whether nobody waits for it.",
        "_error": "What the function has raised, or None.",
        "_seen": "Whether the function has asked, and knows that it was cancelled.",
        "_value": "What it has returned.",
        "began": "When its thread has begun, on the loop's clock; None before.",
        "call": "The call of `from_thread` that its thread waits for, or None.",
        "cancelled": "Whether the task was cancelled.",
        "done": "Whether it has ended.",
        "limiter": "The limiter that it counts for.",
        "loop": "The loop that waits for it.",
        "name": "The name of the function.",
        "reason": "The reason of the cancellation.",
        "thread": "The identifier of its thread; 0 before that has begun.",
        "waiter": "The task that waits, or None.",
    }

    def __init__(self, loop: Loop, waiter: Waiter, name: str, limiter: ThreadLimiter) -> None:
        self.loop = loop
        self.name = name
        self.waiter: Waiter | None = waiter
        self.limiter = limiter
        self._abandoned = self._seen = self.cancelled = self.done = False
        self.call: ThreadCall | None = None
        self.reason: object = None
        self.thread = 0
        self.began: float | None = None
        self._value: Any = None
        self._error: BaseException | None = None

    # -- in the thread

    def run(self, function: Callable[[], Any]) -> Any:
        """Call the function, in a thread of the pool."""
        caller.job = self
        self.thread, self.began = get_ident(), self.loop.clock()
        try:
            return function()
        except BaseException:
            if self.loop.closed:
                log().exception("%s failed in a thread, after the loop that had waited for it was closed", self.name)
            raise
        finally:
            caller.job = None
            _running.pop(self, None)
            if (loop := here.loop) is not None and loop.green is not None:
                self._tell_of_tasks(loop)

    def _tell_of_tasks(self, loop: Loop) -> None:
        """Tasks on a loop of the thread's own wait in vain: nothing runs it when the function has ended."""
        if tasks := list(scheduler(loop).tasks):
            log().warning(
                "%s, in a thread, has left behind %s on a loop of that thread, which does not run: %s. In a thread,"
                " from_thread(spawn, f) starts a task on the loop that has called in_thread",
                self.name,
                "a task" if len(tasks) == 1 else f"{len(tasks)} tasks",
                ", ".join(f"{task!r}, spawned at {getattr(task, 'spawned_at', None)}" for task in tasks[:3]),
            )

    def is_cancelled(self) -> bool:
        """The answer of `thread_cancelled`."""
        self._seen = self._seen or self.cancelled
        return self.cancelled

    # -- in the loop

    def ended(self, value: Any, error: BaseException | None) -> None:
        """The function has returned or raised."""
        self.done = True
        self.limiter._give_back()
        if self._abandoned:
            if error is not None:
                words = f"{self.name} failed in a thread, for which in_thread had ceased to wait"
                self.loop.report(ErrorContext(words, error))
        else:
            self._value, self._error = value, error
            if self.waiter is not None and self.waiter.wait is _IN_THREAD:
                wake(self.waiter)

    def wait(self, abandon_on_cancel: bool) -> Any:
        """Parks until the function has ended; returns or raises its outcome, or the cancellation."""
        assert self.waiter is not None
        try:
            try:
                park(self.waiter, _IN_THREAD, self)
            except Cancelled as error:
                self.cancel(error.reason)
                if abandon_on_cancel:
                    raise
                with shield():
                    while not self.done:
                        park(self.waiter, _IN_THREAD, self)
                if self._seen and self._error is None:
                    raise
        except BaseException:
            self._abandoned = not self.done
            self.cancel(None)
            raise
        finally:
            self.waiter = None
        return self.outcome()

    def lose_thread(self) -> None:
        """In a forked child, which has no thread. If its loop was running, it has forgotten who waited already."""
        if self.loop.running:
            self.limiter._give_back()
        else:
            error = RuntimeError(f"{self.name} ran in a thread when the process forked, and does so in the parent")
            self.loop.ready.append(partial(self.ended, None, error))

    def cancel(self, reason: object) -> None:
        """Have the function told, and what it waits for in the loop cancelled."""
        if not self.done and not self.cancelled:
            self.cancelled, self.reason = True, reason
            if self.call is not None:
                self.call.cancel(reason)

    def outcome(self) -> Any:
        """What the function has returned; or raises what it has raised."""
        if self._error is None:
            return self._value
        try:
            raise self._error
        finally:
            self._error = None  # its traceback refers to this frame: a cycle

    def __repr__(self) -> str:
        return self.name


@parks
def in_thread(
    function: Callable[..., Result],
    /,
    *args: Any,
    abandon_on_cancel: bool = False,
    limiter: ThreadLimiter | None = None,
    **unknown: Never,
) -> Result:
    """Parks until `function(*args)` has ended in a thread; returns what it returns, or raises what it raises.

    It runs in a copy of this context (contextvars). `limiter`: by default one of 40 threads for each loop. If the task
    is cancelled, `thread_cancelled()` is true in the function, calls of `from_thread` that it makes are cancelled, and
    the task waits for its end: its result stands, and the next wait is interrupted, unless it has returned because
    `thread_cancelled()` has said so: then Cancelled is raised here. With `abandon_on_cancel` the task does not wait,
    nor does it at Ctrl-C: the thread goes on, and what it raises is reported to `loop.on_error`.
    """
    if unknown:
        name = next(iter(unknown))
        raise TypeError(
            f"in_thread has no argument {name!r}: if the function has, use in_thread(functools.partial(f, {name}=...))"
        )
    loop = current_loop()
    task = checkpoint(loop, "in_thread")
    checks.function("in_thread", function, ": write in_thread(f, x) for f(x)")
    if limiter is None:
        limiter = _limiter_of(loop)
    elif not isinstance(limiter, ThreadLimiter):
        raise TypeError(f"in_thread needs a ThreadLimiter, not {checks.shown(limiter)}")
    job = _Job(loop, task, name_of(function), limiter)
    limiter._take()
    try:
        _running[job] = None
        call = partial(copy_context().run, job.run, partial(function, *args))
        call_in_thread(loop, job.name, call, job.ended)
    except BaseException:  # no thread can be started
        del _running[job]
        limiter._give_back()
        raise
    return job.wait(abandon_on_cancel)  # type: ignore[no-any-return]


def jobs() -> list[_Job]:
    """The calls of `in_thread`, of all loops, that run now, or are about to."""
    return list(_running)


def _limiter_of(loop: Loop) -> ThreadLimiter:
    """The limiter of calls without one."""
    sched = scheduler(loop)
    if sched.thread_limiter is None:
        sched.thread_limiter = ThreadLimiter(_THREADS)
    return sched.thread_limiter  # type: ignore[no-any-return]


def _after_fork_in_child() -> None:
    """No thread exists in the child: what waits for one raises, where the parent's tasks go on there at all."""
    jobs = list(_running)
    _running.clear()
    for job in jobs:
        if not job.loop.closed:
            job.lose_thread()


def _at_exit() -> None:
    if names := ", ".join(job.name for job in list(_running)):
        log().warning("the program ends while functions run in threads, and does not wait for them: %s", names)


_running: dict[_Job, None] = {}
_IN_THREAD = WaitKind("in_thread", lambda _job, _task: None, by_thread=True)
os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
