"""Calls from other threads into a loop: from_thread, and what queues and events make of it.

Rules: the function runs in a task of the loop, so it may wait, while the thread blocks; a thread that gives up
withdraws a call that has not begun, and cancels one that has; what a call that was given up has taken is put back; a
loop that is reset or closed leaves no thread blocked. What does not belong here: threads that are started here.
"""

from __future__ import annotations

import threading
import time
from _thread import allocate_lock, get_ident
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

from dangagreen import checks
from dangagreen.errors import ForeignThreadError
from dangagreen.green.life import name_of
from dangagreen.green.sched import LoopReset
from dangagreen.green.tasks import Task
from dangagreen.loop.loop import Loop, here

Result = TypeVar("Result")

_NEW, _BEGUN, _OVER = range(3)
_TURN_SECONDS = 1.0  # how long a call whose time is up waits for the turn of a loop that is running


class Caller(threading.local):
    """Who this thread works for: what `in_thread` has given it to do, or None."""

    job: Any = None


caller = Caller()


class ThreadCall:
    """One call of a function in a loop, for which a thread waits."""

    __slots__ = {
        "_answered": "Held until there is an answer: the thread waits by acquiring it.",
        "_context": "The context (contextvars) of the thread.",
        "_error": "What the function has raised, or what has kept it from being called.",
        "_function": "The function, with its arguments.",
        "_job": "What `in_thread` has given the thread to do, or None.",
        "_lock": "Guards the state.",
        "_loop": "The loop.",
        "_name": "The name of the task.",
        "_state": "Not begun; begun; or over: answered, withdrawn or given up.",
        "_task": "The task that runs the function, once begun.",
        "_undo": "What to call, in the loop, with a result for which no thread waits any more; or None.",
        "_value": "What the function has returned.",
    }

    def __init__(
        self,
        loop: Loop,
        name: str,
        function: Callable[[], Any],
        undo: Callable[[Any], object] | None = None,
    ) -> None:
        self._loop = loop
        self._name = name
        self._function = function
        self._undo = undo
        self._context = copy_context()
        self._job = caller.job
        self._lock, self._answered = allocate_lock(), allocate_lock()
        self._answered.acquire()
        self._state = _NEW
        self._task: Task[Any] | None = None
        self._value: Any = None
        self._error: BaseException | None = None

    # -- in the thread

    def make(self, timeout: float | None = None) -> Any:
        """Have the loop make the call, and block until it has ended; returns or raises its outcome.

        Raises TimeoutError if the loop has not begun it within `timeout` seconds (None: no limit), RuntimeError if the
        loop was closed. What limits a call that was begun is the function's affair.
        """
        self._loop._expect(self)  # before it is queued: a loop that is closed meanwhile answers it
        try:
            self._loop.call_soon_threadsafe(self._begin)
            in_time = self._answered.acquire(timeout=-1 if timeout is None else min(timeout, threading.TIMEOUT_MAX))
            if not in_time and self._loop.running:  # it comes to it in its next turn, also with a timeout of 0
                in_time = self._answered.acquire(timeout=_TURN_SECONDS)
            if not in_time and not self._is_withdrawn():
                in_time = self._answered.acquire()
        except BaseException:
            self._give_up()
            raise
        finally:
            self._loop._no_longer_expect(self)
        if not in_time:
            raise TimeoutError
        if self._error is None:
            return self._value
        try:
            raise self._error
        finally:
            self._error = None  # its traceback refers to this frame: a cycle

    def _is_withdrawn(self) -> bool:
        """Withdraw the call, unless it has begun."""
        with self._lock:
            withdrawn = self._state == _NEW
            if withdrawn:
                self._state = _OVER
        return withdrawn

    def _give_up(self) -> None:
        """Ctrl-C in a thread that waits, or the loop was closed: nobody wants the answer."""
        with self._lock:
            state, self._state = self._state, _OVER
        if self._loop.closed:
            return
        if state == _BEGUN and self._task is not None:
            self._loop.call_soon_threadsafe(self._task.cancel, "the thread that has made this call has given it up")
        elif state == _OVER and self._error is None and self._undo is not None:
            self._loop.call_soon_threadsafe(self._undo, self._value)

    # -- in the loop

    def _begin(self) -> None:
        with self._lock:
            if self._state != _NEW:
                return
            self._state = _BEGUN
            task: Task[Any] = Task(self._loop, self._call, self._context, self._name)
            self._task = task
        task._watch(self, True)
        if self._job is not None:
            self._job.call = self
        self._loop.runnable.append(task.start)

    def _call(self) -> Any:
        if self._job is not None and self._job.cancelled:
            self.cancel(self._job.reason)
        return self._function()

    def cancel(self, reason: object) -> None:
        """Cancel the task: what it was called for was cancelled."""
        if self._task is not None:
            self._task.cancel(reason)

    def _on_task_end(self, task: Task[Any]) -> None:
        """The task has ended: answer."""
        if self._job is not None:
            self._job.call = None
        try:
            value, error = task.result(), None
        except LoopReset:
            return self.fail("the loop was reset")
        except BaseException as raised:
            value, error = None, raised
        if not self._answer(value, error) and error is None and self._undo is not None:
            self._undo(value)
        del error
        return None

    def fail(self, why: str) -> None:
        """The loop does not come to it any more: answer with a RuntimeError. From any thread."""
        self._answer(None, RuntimeError(f"a call from a thread was not made, or not to its end: {why}"))

    def _answer(self, value: Any, error: BaseException | None) -> bool:
        """Answer, unless it is over: returns whether the thread gets the answer."""
        with self._lock:
            if self._state == _OVER:
                return False
            self._state = _OVER
            self._value, self._error = value, error
            self._answered.release()
            return True


def in_loop(
    loop: Loop,
    function: Callable[..., Result],
    *args: Any,
    timeout: float | None = None,
    undo: Callable[[Result], object] | None = None,
) -> Result:
    """Call `function(*args, timeout=…)` in a task of the loop, from another thread, which blocks until it has ended.

    Raises TimeoutError if the loop has not begun it in time; the function gets what is left of the timeout.
    """
    _check_may_block(function.__qualname__)
    name = f"{function.__qualname__} for a thread"
    if timeout is None:
        return ThreadCall(loop, name, partial(function, *args), undo).make()  # type: ignore[no-any-return]
    deadline = time.monotonic() + timeout

    def call() -> Result:
        return function(*args, timeout=max(0.0, deadline - time.monotonic()))

    return ThreadCall(loop, name, call, undo).make(max(0.0, timeout))  # type: ignore[no-any-return]


def from_thread(function: Callable[..., Result], /, *args: Any, loop: Loop | None = None) -> Result:
    """Call `function(*args)` in a task of the loop, from another thread, which blocks until it has ended.

    The function may wait. Returns what it returns, or raises what it raises; TaskCancelledError if it was cancelled.
    `loop`: inside a function that `in_thread` runs the loop of that call, if none is given. Raises ForeignThreadError
    where another loop is running in this thread, which would stop; RuntimeError in the loop's own thread, without a
    loop, and if the loop was closed; then, or at a reset or the end of `run`, a call that has not begun raises it as
    well. It waits for as long as the loop does not run.
    """
    checks.function("from_thread", function)
    if loop is None:
        if caller.job is None:
            raise RuntimeError("from_thread needs loop=... in a thread that in_thread has not started")
        loop = caller.job.loop
    elif not isinstance(loop, Loop):
        raise TypeError(f"{checks.shown(loop)} is no Loop")
    if get_ident() == loop.thread:
        raise RuntimeError(
            "from_thread was called in the loop's own thread, which would wait for itself: call the function"
        )
    _check_may_block("from_thread")
    return ThreadCall(loop, name_of(function), partial(function, *args)).make()  # type: ignore[no-any-return]


def _check_may_block(call: str) -> None:
    """Raise ForeignThreadError if a loop runs in this thread: it would stop."""
    if here.loop is not None and here.loop.running:
        raise ForeignThreadError(
            f"{call} of another thread's loop would block this thread, in which a loop is running: use in_thread"
        )


def thread_cancelled() -> bool:
    """Whether the call of `in_thread` that runs in this thread was cancelled: then it is time to return.

    False in any other thread. Once this has said so, a value that the function returns counts for nothing.
    """
    return caller.job is not None and caller.job.is_cancelled()
