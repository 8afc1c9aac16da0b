"""When things are called: soon, at a time, or because another thread asked for it.

Rules: calls and timers run in the context that they were made in; `call_soon_threadsafe` is the one way in from
outside the loop's thread. What does not belong here: file descriptors, apart from the pipe that wakes the loop.
"""

from __future__ import annotations

import os
import threading
from _thread import get_ident
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from dangagreen.core.errors import ForeignThreadError
from dangagreen.core.handlers import FdHandler, Handler
from dangagreen.core.pollers import Poller
from dangagreen.core.timers import Timer, Timers


class Schedule:
    """The calls that wait for their turn, in order, and the timers."""

    __slots__ = ("_awake", "_foreign_ends", "_ready", "clock", "poller", "thread", "timers")

    def __init__(self, clock: Callable[[], float], poller: Poller) -> None:
        self.clock = clock
        self.poller = poller
        self.timers = Timers()
        self.thread = get_ident()
        self._ready: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._foreign_ends: FdHandler | None = None  # the pipe by which other threads wake the loop
        self._awake = False

    def register(self, handler: Handler) -> None:
        raise NotImplementedError

    def forget(self, fd: int) -> None:
        raise NotImplementedError

    def time(self) -> float:
        """The clock, in seconds."""
        return self.clock()

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:
        """Call it in this turn, or in the next one if this turn's calls have begun; in a copy of this context."""
        self.check_thread("call_soon")
        self._ready.append((copy_context().run, (callback, *args)))

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any) -> None:
        """The same from any thread, or from a signal handler: the one way into a loop from outside."""
        self._ready.append((copy_context().run, (callback, *args)))
        ends = self._foreign_ends
        if ends is not None and not self._awake:
            self._awake = True
            os.write(ends.wake_fd, b"\0")

    def add_timer(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call it once, no earlier than `seconds` from now (negative ones count as 0), in a copy of this context."""
        self.check_thread("add_timer")
        return self.timers.add(self.clock() + max(0.0, seconds), callback, copy_context())

    def check_thread(self, call: str) -> None:
        """Raise ForeignThreadError unless this is the loop's own thread."""
        if get_ident() != self.thread:
            names = {thread.ident: thread.name for thread in threading.enumerate()}
            raise ForeignThreadError(
                f"{call} was called in thread {names.get(get_ident(), get_ident())!r}, but this loop belongs to thread"
                f" {names.get(self.thread, self.thread)!r}: use loop.call_soon_threadsafe(...)"
            )

    def _listen_for_threads(self) -> None:
        read_end, wake_end = os.pipe()
        os.set_blocking(read_end, False)
        os.set_blocking(wake_end, False)
        self._foreign_ends = FdHandler(self, read_end, self._was_woken, wake_end)

    def _was_woken(self, _mask: int) -> None:
        assert self._foreign_ends is not None
        self._awake = False
        os.read(self._foreign_ends.fd, 4096)
