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
from types import FunctionType
from typing import Any

from dangagreen import checks
from dangagreen.checks import NOT_RUN
from dangagreen.errors import ForeignThreadError
from dangagreen.frames import is_ours
from dangagreen.loop.handlers import Handler
from dangagreen.loop.pollers import Poller
from dangagreen.loop.timers import Timer, Timers
from dangagreen.loop.wakeup import WakeupPair
from dangagreen.parks import PARKING

_ASSIGNING = "assigning "  # what `check_thread` is told where an attribute is assigned, before its name


class OrderedCall(partial[Any]):
    """A call that keeps its place among those that wait for their turn, also where a test has tasks run in any order.

    A `partial`, and no class with a `__call__` of its own, since the interpreter makes the call without a frame.
    """

    __slots__ = ()


class ContextCall(OrderedCall):
    """What `call_soon` was given, to be called in its `context`: what it raises is reported there."""

    __slots__ = ("context",)

    context: Context


class _Closed(deque[Callable[[], object]]):
    """The calls of a closed loop: there are none, and none comes."""

    def append(self, _call: Callable[[], object]) -> None:
        raise RuntimeError(_IS_CLOSED)

    def extend(self, _calls: Iterable[Callable[[], object]]) -> None:
        raise RuntimeError(_IS_CLOSED)


_IS_CLOSED = "this loop was closed: make another one"
_NO_THREAD = 0  # in the place of the thread of a closed loop: who compares it with his own looks closer


def _as_arguments(name: str) -> str:
    """The public call that is being made, as `call_soon_threadsafe` takes it: "sock.write, data"."""
    frame = sys._getframe(1)
    while (outer := frame.f_back) is not None and is_ours(outer):
        frame = outer
    code = frame.f_code
    names = list(code.co_varnames[: code.co_argcount])
    call, function = code.co_name, frame.f_globals.get(code.co_name)
    may_park = (frame.f_globals.get("__name__"), code.co_qualname) in PARKING
    if names and names[0] == "self":
        owner = frame.f_locals.get("instance", frame.f_locals["self"])  # a descriptor's, or the object itself
        if call == "__init__":
            return ", ".join([type(owner).__name__, *names[1:2]])
        word = "sock" if hasattr(owner, "unsent") else type(owner).__name__.lower()
        if name.startswith(_ASSIGNING):
            return f"setattr, {word}, {name.removeprefix(_ASSIGNING)!r}, value"
        function = getattr(type(owner), call, None)
        del names[0]
        if call.startswith("__"):  # iteration, which calls `name` time and again, or the end of a block
            call = name
            names.clear()
        call = f"{word}.{call}"
    required = names[: len(names) - len(getattr(function, "__defaults__", None) or ())]
    return ", ".join([*(["spawn"] if may_park else []), call, *required])


class Schedule:
    """The calls that wait for their turn, in order, and the timers."""

    __slots__ = {
        **dict.fromkeys(("wakeup_pair", "ready", "runnable", "timers")),
        "clock": "The clock: a callable that answers seconds.",
        "closed": "Whether `close` was called.",
        "poller": "What waits for events.",
        "thread": "The identifier of the thread that the loop belongs to.",
    }

    def __init__(self, clock: Callable[[], float], poller: Poller) -> None:
        self.clock = clock
        self.poller = poller
        self.timers = Timers(self)
        self.thread = get_ident()
        self.closed = False
        self.ready: deque[Callable[[], object]] = deque()
        self.runnable: deque[Callable[[], object]] = deque()  # tasks to start or to resume
        self.wakeup_pair: WakeupPair | None = None  # by which other threads wake the loop, once it has run

    def register(self, handler: Handler) -> None:
        raise NotImplementedError

    def unregister(self, fd: int) -> None:
        raise NotImplementedError

    def time(self) -> float:
        """The clock, in seconds."""
        return self.clock()

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:
        """Call it in this turn, or in the next one if this turn's calls have begun; in a copy of this context.

        Of very many, 64 are called in a turn, in order.
        """
        if get_ident() != self.thread:
            self._check_open("call_soon")
        if type(callback) is not FunctionType or callback.__code__.co_flags & NOT_RUN:  # quickly told of most
            checks.function("call_soon", callback, ": write call_soon(f, x) for f(x)")
        context = copy_context()
        call = ContextCall(context.run, callback, *args)
        call.context = context
        self.ready.append(call)

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any) -> None:
        """The same from any thread, or from a signal handler: the one way into a loop from outside."""
        checks.function("call_soon_threadsafe", callback, ": write call_soon_threadsafe(f, x) for f(x)")
        context = copy_context()
        call = ContextCall(context.run, callback, *args)
        call.context = context
        self.ready.append(call)
        if (pair := self.wakeup_pair) is not None:
            pair.wake()

    def add_timer(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call it once, no earlier than `seconds` from now (negative ones count as 0), in a copy of this context."""
        if get_ident() != self.thread:
            self._check_open("add_timer")
        if type(callback) is not FunctionType or callback.__code__.co_flags & NOT_RUN:  # quickly told of most
            checks.function("add_timer", callback)
        if (kind := type(seconds)) is not float and kind is not int:  # what is usual is looked at no closer
            seconds = checks.seconds("the time of a timer", seconds)
        try:
            if not seconds > 0:
                seconds = 0.0 if seconds == seconds else checks.seconds("the time of a timer", seconds)
            deadline = self.clock() + seconds
        except OverflowError:
            return self.add_timer(checks.seconds("the time of a timer", seconds), callback)
        return self.timers.add(deadline, callback, copy_context())

    def check_thread(self, call: str) -> None:
        """Raise ForeignThreadError unless this is the loop's own thread. Of a closed loop nothing can be torn."""
        if get_ident() != self.thread and not self.closed:
            names = {thread.ident: thread.name for thread in threading.enumerate()}
            raise ForeignThreadError(
                f"{call} was called in thread {names.get(get_ident(), get_ident())!r}, but this loop belongs to thread"
                f" {names.get(self.thread, self.thread)!r}: use loop.call_soon_threadsafe({_as_arguments(call)})"
            )

    def _check_open(self, call: str) -> None:
        """Raise RuntimeError if the loop was closed, ForeignThreadError unless this is its own thread."""
        if self.closed:
            raise RuntimeError(_IS_CLOSED)
        self.check_thread(call)

    def _close_schedule(self) -> None:
        """Refuse whatever comes from now on."""
        self.closed = True
        self.thread = _NO_THREAD
        self.ready = self.runnable = _Closed()
