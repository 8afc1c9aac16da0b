"""What tasks tell each other: Channel, for many things, and Future, for one.

Rules: closing a channel loses nothing that `send` has returned for; a result is set once and can be had any number of
times. What does not belong here: how items find those who wait for them (that is passage).
"""

from __future__ import annotations

from _thread import get_ident
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from math import inf
from queue import Empty, Full
from types import TracebackType
from typing import Generic, TypeVar

from dangagreen import checks
from dangagreen.errors import Cancelled, ChannelEnd, ClosedChannelError, TaskCancelledError
from dangagreen.green.parking import checkpoint, park_for, parks
from dangagreen.green.sched import Waiter, WaitKind
from dangagreen.loop.loop import Loop
from dangagreen.sync.handoff import Handoff, Item, Source, leave_getters, leave_putters

Value = TypeVar("Value")


class Channel(Handoff[Item]):
    """Items go from senders to receivers, both of which are tasks or callbacks of one loop, until it is closed.

    `capacity` is how many items it holds that nobody has received yet; with 0 a sender waits for its receiver. Those
    who wait are served in the order in which they came. A `receive` that raises has taken nothing, a `send` that
    raises has sent nothing. What changes it raises ForeignThreadError in another thread.
    """

    __slots__ = ()

    def __init__(self, capacity: float = 0, *, loop: Loop | None = None) -> None:
        """`capacity` is a whole number, or `math.inf`. Raises ValueError if it is negative, TypeError otherwise."""
        if capacity != inf:
            capacity = checks.count("the capacity of a Channel", capacity)
        super().__init__(loop)
        self._room = capacity
        self.queue = deque()

    @property
    def capacity(self) -> float:
        """How many items it holds beside those that are handed over."""
        return self._room

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._ended

    @property
    def buffered(self) -> int:
        """How many items were sent that nobody has received."""
        return len(self.queue)

    @parks
    def send(self, item: Item) -> None:
        """Parks until there is room for the item; without any capacity, until somebody receives it.

        Raises ClosedChannelError once the channel was closed, also while parked.
        """
        task = checkpoint(self.loop, "send")
        if not self._pass_on(item):
            self._wait_to_put(task, _SEND, item)

    def send_nowait(self, item: Item) -> None:
        """Send, or raise `queue.Full` if that would have to wait. Never parks. Raises like `send`."""
        if get_ident() != self.loop.thread:
            self.loop.check_thread("send_nowait")
        if not self._pass_on(item):
            raise Full

    @parks
    def receive(self) -> Item:
        """Parks until there is an item, and takes it. Raises ChannelEnd if it is closed and nothing is left."""
        task = checkpoint(self.loop, "receive")
        return self._take() if self.ready else self._wait_to_get(task, _RECEIVE)

    def receive_nowait(self) -> Item:
        """Take an item, or raise `queue.Empty` if none is there. Never parks. Raises like `receive`."""
        if get_ident() != self.loop.thread:
            self.loop.check_thread("receive_nowait")
        if not self.ready:
            raise Empty
        return self._take()

    def close(self) -> None:
        """Let nothing in any more. Never parks; a second time it does nothing.

        Who is parked in a `send` gets ClosedChannelError. Receivers get what was sent before, then ChannelEnd.
        """
        self.loop.check_thread("close")
        self._end()

    @parks
    def __iter__(self) -> Iterator[Item]:
        """Parks until there is an item, time and again, as `receive()` does, until it is closed and empty."""
        with suppress(ChannelEnd):
            while True:
                yield self.receive()

    def _refusal(self) -> Exception:
        return ClosedChannelError(f"{self!r}: nothing can be sent any more")

    def _nothing_more(self) -> Exception:
        return ChannelEnd(f"{self!r}: everything that was sent has been received")

    def __repr__(self) -> str:
        size = f"{self.buffered} of {self.capacity} items" if self.capacity else "without capacity"
        return f"<Channel, {size}{', closed' if self._ended else ''}>"


class Future(Source, Generic[Value]):
    """A value, or an exception, that somebody will set, once; any number of tasks wait for it. `done` once it is set.

    What changes it raises ForeignThreadError in another thread: that uses `loop.call_soon_threadsafe(r.set_result, x)`.
    """

    __slots__ = {
        **dict.fromkeys(("_error", "_traceback", "_value")),
        "done": "Whether the result, or an exception, was set.",
    }

    def __init__(self, *, loop: Loop | None = None) -> None:
        super().__init__(loop)
        self.done = False
        self._value: Value | None = None
        self._error: BaseException | None = None
        self._traceback: TracebackType | None = None

    @property
    def ready(self) -> bool:
        """Whether it is set."""
        return self.done

    def set_result(self, value: Value) -> None:
        """Set the value. Never parks. Raises RuntimeError if it was set before."""
        self._set("set_result")
        self._value = value
        self._tell()

    def set_exception(self, error: BaseException) -> None:
        """Set an exception to be raised where the value is asked for. Never parks. Raises RuntimeError if it was set.

        Cancelled stands for the cancellation of one task alone: it is raised as TaskCancelledError.
        """
        if not isinstance(error, BaseException):
            raise TypeError(f"set_exception needs an exception, not {error!r}")
        self._set("set_exception")
        if isinstance(error, Cancelled):
            error = TaskCancelledError("what was to set this result was cancelled", error.reason)
        self._error, self._traceback = error, error.__traceback__
        self._tell()

    @parks
    def wait(self, timeout: float | None = None) -> Value:
        """Parks until it is set; returns the value, or raises the exception. TimeoutError after `timeout` seconds."""
        if timeout is not None:
            timeout = checks.seconds("the timeout of wait", timeout)
        task = checkpoint(self.loop, "wait")
        if not self.done:
            self._watch(task)
            park_for(task, _WAIT, self, timeout)
        return self.result()

    def result(self) -> Value:
        """The value, or raise the exception. Never parks. Raises RuntimeError if it is not set."""
        if not self.done:
            raise RuntimeError(f"{self!r}: wait() for it first")
        if self._error is None:
            return self._value  # type: ignore[return-value]
        raise self._error.with_traceback(self._traceback)  # not with that of everybody who has asked before

    def _set(self, call: str) -> None:
        self.loop.check_thread(call)
        if self.done:
            raise RuntimeError(f"{self!r}: it is set only once")
        self.done = True

    def __repr__(self) -> str:
        if not self.done:
            return "<Future, not set>"
        return f"<Future: {self._value!r}>" if self._error is None else f"<Future: {self._error!r}>"


def _leave(result: Future[object], task: Waiter) -> None:
    result._unwatch(task)


_SEND = WaitKind("send", leave_putters)
_RECEIVE = WaitKind("receive", leave_getters)
_WAIT = WaitKind("wait", _leave)
