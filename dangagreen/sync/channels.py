"""Channel, for a stream of items between tasks, and Future, for one value.

Rules: closing a channel loses nothing for which `send` has returned; a future is set once, and its value can be asked
for any number of times. What does not belong here: wait queues and fairness (handoff).
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
from dangagreen.green.parking import checkpoint, park_for
from dangagreen.green.waiters import Waiter, WaitKind
from dangagreen.loop.loop import Loop
from dangagreen.parks import parks
from dangagreen.sync.handoff import Handoff, Item, Watchable, leave_getters, leave_putters

Value = TypeVar("Value")


class Channel(Handoff[Item]):
    """A FIFO channel from senders to receivers, tasks or callbacks of one loop, that can be closed.

    `capacity` is how many items may be sent ahead of their receivers; with 0 `send` waits for a `receive` (rendezvous).
    Tasks that wait are served first come, first served. A `receive` that raises has taken nothing, a `send` that raises
    has sent nothing. Calls that change it raise ForeignThreadError in another thread.
    """

    __slots__ = ()

    def __init__(self, capacity: float = 0, *, loop: Loop | None = None) -> None:
        """`capacity`: an int, or `math.inf`. Raises ValueError for a negative one, TypeError for anything else."""
        if capacity != inf:
            capacity = checks.count("the capacity of a Channel", capacity)
        super().__init__(loop)
        self._max_items = capacity
        self.queue = deque()

    @property
    def capacity(self) -> float:
        """How many items may be sent ahead of their receivers."""
        return self._max_items

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._ended

    @property
    def buffered(self) -> int:
        """How many items were sent and not received yet."""
        return len(self.queue)

    @parks
    def send(self, item: Item) -> None:
        """Parks until there is room for the item; with capacity 0, until it is received.

        Raises ClosedChannelError if the channel was, or is meanwhile, closed: then the item was not sent.
        """
        task = checkpoint(self.loop, "send")
        if not self._put_or_hand_over(item):
            self._wait_to_put(task, _SEND, item)

    def send_nowait(self, item: Item) -> None:
        """Send the item. Never parks. Raises `queue.Full` where `send` would wait, ClosedChannelError as it does."""
        if get_ident() != self.loop.thread:
            self.loop.check_thread("send_nowait")
        if not self._put_or_hand_over(item):
            raise Full

    @parks
    def receive(self) -> Item:
        """Parks until there is an item, and returns it. Raises ChannelEnd when the channel is closed and empty."""
        task = checkpoint(self.loop, "receive")
        return self._get_and_refill() if self.ready else self._wait_to_get(task, _RECEIVE)

    def receive_nowait(self) -> Item:
        """Take the next item. Never parks. Raises `queue.Empty` if there is none, ChannelEnd as `receive` does."""
        if get_ident() != self.loop.thread:
            self.loop.check_thread("receive_nowait")
        if not self.ready:
            raise Empty
        return self._get_and_refill()

    def close(self) -> None:
        """Close it: a `send`, parked or later, raises ClosedChannelError; receivers get what was sent, then ChannelEnd.

        Never parks. A second call does nothing.
        """
        self.loop.check_thread("close")
        self._end()

    @parks
    def __iter__(self) -> Iterator[Item]:
        """Parks until there is an item, in each step, as `receive()` does; ends where that raises ChannelEnd."""
        with suppress(ChannelEnd):
            while True:
                yield self.receive()

    def _closed_error(self) -> Exception:
        return ClosedChannelError(f"{self!r}: nothing can be sent any more")

    def _exhausted_error(self) -> Exception:
        return ChannelEnd(f"{self!r}: everything that was sent has been received")

    def __repr__(self) -> str:
        size = f"{self.buffered} of {self.capacity} items" if self.capacity else "without capacity"
        return f"<Channel, {size}{', closed' if self._ended else ''}>"


class Future(Watchable, Generic[Value]):
    """A value, or an exception, that is set once, later; any number of tasks wait for it.

    Calls that change it raise ForeignThreadError in another thread, which is to use
    `loop.call_soon_threadsafe(future.set_result, value)`.
    """

    __slots__ = {
        "_error": "The exception that was set, or None.",
        "_traceback": "The traceback that the exception had when it was set.",
        "_value": "The value that was set.",
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
        """Whether it is set, so that `wait` returns at once."""
        return self.done

    def set_result(self, value: Value) -> None:
        """Set the value, and wake the tasks that wait. Never parks. Raises RuntimeError if it was set before."""
        self._set("set_result")
        self._value = value
        self._wake_watchers()

    def set_exception(self, error: BaseException) -> None:
        """Set an exception for `wait` and `result` to raise. Never parks. Raises RuntimeError if it is set already.

        A Cancelled is raised as TaskCancelledError: it must not cancel the tasks that wait.
        """
        if not isinstance(error, BaseException):
            raise TypeError(f"set_exception needs an exception, not {error!r}")
        self._set("set_exception")
        if isinstance(error, Cancelled):
            error = TaskCancelledError("the task that was to set this future was cancelled", error.reason)
        self._error, self._traceback = error, error.__traceback__
        self._wake_watchers()

    @parks
    def wait(self, timeout: float | None = None) -> Value:
        """Parks until it is set. Returns the value, or raises the exception; TimeoutError after `timeout` seconds."""
        if timeout is not None:
            timeout = checks.seconds("the timeout of wait", timeout)
        task = checkpoint(self.loop, "wait")
        if not self.done:
            self._watch(task)
            park_for(task, _WAIT, self, timeout)
        return self.result()

    def result(self) -> Value:
        """Return the value, or raise the exception. Never parks. Raises RuntimeError if it is not set."""
        if not self.done:
            raise RuntimeError(f"{self!r}: wait() for it first")
        if self._error is None:
            return self._value  # type: ignore[return-value]
        raise self._error.with_traceback(self._traceback)  # without the frames of earlier calls

    def _set(self, call: str) -> None:
        """Note that it is set. Raises RuntimeError if it was set before, ForeignThreadError in another thread."""
        self.loop.check_thread(call)
        if self.done:
            raise RuntimeError(f"{self!r}: it is set only once")
        self.done = True

    def __repr__(self) -> str:
        if not self.done:
            return "<Future, not set>"
        return f"<Future: {self._value!r}>" if self._error is None else f"<Future: {self._error!r}>"


def _leave(future: Future[object], task: Waiter) -> None:
    """Undo what a parked `wait` has arranged."""
    future._unwatch(task)


_SEND = WaitKind("send", leave_putters)
_RECEIVE = WaitKind("receive", leave_getters)
_WAIT = WaitKind("wait", _leave)
