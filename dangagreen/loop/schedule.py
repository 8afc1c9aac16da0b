"""When things are called: soon, at a time, or because another thread asked for it.

Rules: calls and timers run in the context that they were made in; `call_soon_threadsafe` is the one way in from
outside the loop's thread. What does not belong here: file descriptors.
"""

from __future__ import annotations

import sys
import threading
from _thread import get_ident
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import Context, copy_context
from functools import partial
from types import FrameType, FunctionType
from typing import Any

from dangagreen import checks
from dangagreen.checks import NOT_RUN
from dangagreen.errors import ForeignThreadError
from dangagreen.frames import LOOPS, is_ours
from dangagreen.loop.handlers import Handler
from dangagreen.loop.pollers import Poller
from dangagreen.loop.timers import Timer, Timers
from dangagreen.loop.wakeup import WakeupPair
from dangagreen.parks import PARKING

_ASSIGNING = "assigning "  # the argument of `check_thread` for an assignment begins so; the attribute's name follows
_IN_THREAD = "dangagreen.sync.threads", "_Job.run"  # by what `in_thread` calls a function, in its thread


class OrderedCall(partial[Any]):
    """A queued call that keeps its place in the queue, also when a test runs tasks in a random order.

    A `partial`, not a class with a `__call__`: the interpreter calls it without a frame.
    """

    __slots__ = ()


class ContextCall(OrderedCall):
    """A call of `call_soon`, in its context."""

    __slots__ = {"context": "The context (contextvars) that it is made in, and in which its error is reported."}

    context: Context


class _Closed(deque[Callable[[], object]]):
    """The queue of calls of a closed loop: empty, and an append raises RuntimeError."""

    def append(self, _call: Callable[[], object]) -> None:
        raise RuntimeError(_IS_CLOSED)

    def extend(self, _calls: Iterable[Callable[[], object]]) -> None:
        raise RuntimeError(_IS_CLOSED)


_IS_CLOSED = "this loop was closed: make another one"
_NO_THREAD = 0  # the `thread` of a closed loop: no thread's identifier, so that fast paths call `check_thread`


def _way_in(loop: Schedule, name: str) -> str:
    """The call to make in place of the public one: `from_thread`, in a function that `in_thread` runs for this loop."""
    arguments = _as_arguments(name)
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame not in LOOPS:  # where a loop runs in this thread, `from_thread` would stop it
        if _is_in_thread(frame) and frame.f_locals["self"].loop is loop:
            return f"from_thread({arguments.removeprefix('spawn, ')})"
        frame = frame.f_back
    return f"loop.call_soon_threadsafe({arguments})"


def _is_in_thread(frame: FrameType) -> bool:
    return (frame.f_globals.get("__name__"), frame.f_code.co_qualname) == _IN_THREAD


def _as_arguments(name: str) -> str:
    """The public call that is being made, as arguments for `call_soon_threadsafe`: "sock.write, data"."""
    frame = sys._getframe()
    if not is_ours(frame) or _is_in_thread(frame):  # compiled to C: no frame tells what the call was given
        return name
    while (outer := frame.f_back) is not None and is_ours(outer) and not _is_in_thread(outer):
        frame = outer
    code = frame.f_code
    names = list(code.co_varnames[: code.co_argcount])
    call, function = code.co_name, frame.f_globals.get(code.co_name)
    may_park = (frame.f_globals.get("__name__"), code.co_qualname) in PARKING
    if names and names[0] == "self":
        owner = frame.f_locals.get("instance", frame.f_locals["self"])  # `instance`: of a descriptor's __set__
        if call == "__init__":
            return ", ".join([type(owner).__name__, *names[1:2]])
        word = "sock" if hasattr(owner, "unsent") else type(owner).__name__.lower()
        if name.startswith(_ASSIGNING):
            return f"setattr, {word}, {name.removeprefix(_ASSIGNING)!r}, value"
        function = getattr(type(owner), call, None)
        del names[0]
        if call.startswith("__"):  # __iter__, which calls `name`, or __exit__
            call = name
            names.clear()
        call = f"{word}.{call}"
    required = names[: len(names) - len(getattr(function, "__defaults__", None) or ())]
    return ", ".join([*(["spawn"] if may_park else []), call, *required])


class Schedule:
    """Queued calls, timers, and the way in from other threads: base class of `Loop`."""

    __slots__ = {
        "clock": "The clock: a function that returns seconds.",
        "closed": "Whether `close` was called.",
        "poller": "The poller, which waits for events.",
        "ready": "Calls to make in this turn or the next one, in order.",
        "runnable": "Tasks to start or resume, as calls, in order.",
        "thread": "The identifier of the thread that the loop belongs to.",
        "timers": "The timers.",
        "wakeup_pair": "The handler by which other threads wake the loop; None until it has run.",
    }

    def __init__(self, clock: Callable[[], float], poller: Poller) -> None:
        self.clock = clock
        self.poller = poller
        self.timers = Timers(self, clock())
        self.thread = get_ident()
        self.closed = False
        self.ready: deque[Callable[[], object]] = deque()
        self.runnable: deque[Callable[[], object]] = deque()
        self.wakeup_pair: WakeupPair | None = None

    def register(self, handler: Handler) -> None:
        """Put a handler into the descriptor map."""
        raise NotImplementedError

    def unregister(self, fd: int) -> None:
        """Take an fd out of the descriptor map."""
        raise NotImplementedError

    def time(self) -> float:
        """The loop's clock, in seconds."""
        return self.clock()

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:
        """Call it in this turn, or in the next one if this turn's calls have begun; in a copy of the current context.

        Of very many, 64 are called in a turn, in order. Raises TypeError for what is no function, ForeignThreadError in
        another thread, RuntimeError after `close()`.
        """
        if get_ident() != self.thread:
            self._check_open("call_soon")
        if type(callback) is not FunctionType or callback.__code__.co_flags & NOT_RUN:  # a quick test that most pass
            checks.function("call_soon", callback, ": write call_soon(f, x) for f(x)")
        context = copy_context()
        call = ContextCall(context.run, callback, *args)
        call.context = context
        self.ready.append(call)

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any) -> None:
        """Call it soon, like `call_soon`, and wake the loop. May be called from any thread or signal handler.

        Raises TypeError for what is no function, RuntimeError after `close()`.
        """
        checks.function("call_soon_threadsafe", callback, ": write call_soon_threadsafe(f, x) for f(x)")
        context = copy_context()
        call = ContextCall(context.run, callback, *args)
        call.context = context
        self._queue_from_outside(call)

    def _queue_from_outside(self, call: Callable[[], object]) -> None:
        """Queue a call, and wake the loop. May be called from any thread or signal handler."""
        queue = self.ready
        if self.closed:
            raise RuntimeError(_IS_CLOSED)
        deque.append(queue, call)  # not `queue.append`: a guest's tells the host, which other threads may not call
        if (pair := self.wakeup_pair) is not None:
            pair.wake()

    def add_timer(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call it once, no earlier than `seconds` from now (negative ones count as 0), in a copy of this context.

        Returns a Timer, which has `cancel()`. Raises like `call_soon`, and ValueError for NaN.
        """
        if get_ident() != self.thread:
            self._check_open("add_timer")
        if type(callback) is not FunctionType or callback.__code__.co_flags & NOT_RUN:  # a quick test that most pass
            checks.function("add_timer", callback)
        if (kind := type(seconds)) is not float and kind is not int:  # a quick test that most pass
            seconds = checks.seconds("the time of a timer", seconds)
        try:
            if not seconds > 0:
                seconds = 0.0 if seconds == seconds else checks.seconds("the time of a timer", seconds)
            deadline = self.clock() + seconds
        except OverflowError:
            return self.add_timer(checks.seconds("the time of a timer", seconds), callback)
        return self.timers.add(deadline, callback, copy_context())

    def check_thread(self, call: str) -> None:
        """Raise ForeignThreadError, in the name of `call`, unless this is the loop's thread, or the loop is closed."""
        if get_ident() != self.thread and not self.closed:
            names = {thread.ident: thread.name for thread in threading.enumerate()}
            raise ForeignThreadError(
                f"{call} was called in thread {names.get(get_ident(), get_ident())!r}, but this loop belongs to thread"
                f" {names.get(self.thread, self.thread)!r}: use {_way_in(self, call)}"
            )

    def _check_open(self, call: str) -> None:
        """Raise RuntimeError if the loop is closed, ForeignThreadError unless this is its thread."""
        if self.closed:
            raise RuntimeError(_IS_CLOSED)
        self.check_thread(call)

    def _close_schedule(self) -> None:
        """Refuse calls from now on."""
        self.closed = True
        self.thread = _NO_THREAD
        self.ready = self.runnable = _Closed()
