"""What the loop knows of the things it serves, and the simplest of them: an fd without an object.

Rules: the loop needs of a handler what `Handler` has, and nothing else; each of its slots is written by one layer of
sockets, which is named there. What does not belong here: sockets.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from typing import Any, Protocol

from dangagreen import checks
from dangagreen.loop.pollers import READ, WRITE, Poller

UNREGISTERED = 32  # "the poller does not know this fd": a bit of its own, so that a test for READ or WRITE is false
PAUSED = UNREGISTERED | READ | WRITE  # nor is it to be told for a while: what is asked for counts as told


class Reader(Protocol):
    """Who is parked in a read of a handler: the waiter itself, or what stands in its place."""

    @property
    def resume(self) -> Callable[[], object]: ...  # for the loop: there is input, or an end
    @property
    def task(self) -> Any: ...  # the waiter, for those who wake it by other ways


class TaskLayer(Protocol):
    """What the loop tells the greenlet layer, which attaches itself as `Loop.green`."""

    no_parking: object  # the block of that name that is open, or None

    def adopt(self) -> None: ...  # the greenlet that calls this runs the loop from now on
    def reset(self) -> None: ...  # every task ends now
    def collection(self, begins: bool) -> None: ...  # nobody may park in a garbage collection, which begins or is over
    def has_waiters(self) -> bool: ...  # is there a task, or top-level code that waits?
    def idle_deadline_timers(self) -> int: ...  # how many timers of its own will find nothing to do
    def table(self, most: int | None = None) -> str: ...  # the tasks, so many at most, and what they wait for


class Registrar(Protocol):
    """What a handler needs of the loop to come and to go."""

    poller: Poller

    def register(self, handler: Handler) -> None: ...
    def unregister(self, fd: int) -> None: ...


class Handler:
    """An object that owns a file descriptor. A turn reads its slots, and calls its methods; a subclass sets all of the
    slots before it registers itself with the loop, and overrides what the loop may come to call of it."""

    __slots__ = {
        **dict.fromkeys(("__weakref__",)),
        "_context": "The context that its callbacks run in.",
        "_queue": "What is to be sent, a list or a deque; None where there is nothing. Of the write queue.",
        "_reader": "Who is parked in a read of it, or None. Of reading in sequential style.",
        "_registered_mask": "What the poller watches it for; UNREGISTERED, PAUSED.",
        "_timer": "What limits how long it may wait, or None. Of timeouts.",
        "_watch_read": "Whether `event_read` is to be called when there is input.",
        "closed": "Whether `close` was called, here or by the library.",
        "fd": "The number of the OS socket's file descriptor.",
        "loop": "The loop that it belongs to.",
    }

    _context: Context
    _queue: Any
    _reader: Reader | None
    _registered_mask: int
    _timer: Any
    _watch_read: bool
    closed: bool
    fd: int
    loop: Any

    def event_read(self) -> object:
        """Called when there is something to read, while reading is watched. A subclass that watches must override."""
        raise NotImplementedError(f"{type(self).__name__} must override event_read")

    def close(self, reason: object = None) -> None:
        """Leave the loop, and have the OS socket closed."""
        raise NotImplementedError

    def _events(self, mask: int) -> None:
        """Whatever is not the plain "readable, and somebody reads"."""
        raise NotImplementedError

    def _interest(self) -> int:
        """The bits that it waits for."""
        raise NotImplementedError

    def _update_registration(self) -> None:
        """Make what the kernel watches what it should be."""
        raise NotImplementedError

    def _pushed_back(self, just_now: bool) -> bool:
        """Deliver what was pushed back. Is there more?"""
        raise NotImplementedError

    def _flush(self) -> None:
        """Send what is queued."""
        raise NotImplementedError

    def _was_at_work(self) -> None:
        """`event_read` has returned, where the time that it waits is limited."""
        raise NotImplementedError

    def _abandon(self, reason: object) -> None:
        """`close`, without what a subclass makes of it."""
        raise NotImplementedError

    def _close_fd(self) -> None:
        """It was closed, and the turn is over."""
        raise NotImplementedError


class FdHandler(Handler):
    """An fd without an object: one of `other_fds`, whose `callback` is called with the event bits."""

    __slots__ = ("callback",)

    loop: Registrar

    def __init__(self, loop: Registrar, fd: int, callback: Callable[[int], object]) -> None:
        self.loop = loop
        self.fd = fd
        self.callback = callback
        self.closed = self._watch_read = False
        self._reader = self._queue = self._timer = None
        self._context = copy_context()
        self._registered_mask = READ
        loop.register(self)
        try:
            loop.poller.add(fd, READ)
        except BaseException:
            loop.unregister(fd)
            raise

    def watch_anew(self) -> None:
        """Its number may be that of another file by now: the kernel watches files."""
        with suppress(OSError, KeyError):
            self.loop.poller.remove(self.fd)
        self.loop.poller.add(self.fd, READ)

    def _events(self, mask: int) -> None:
        if not self.closed and (result := self.callback(mask)) is not None:
            checks.outcome(f"{self!r}", result)

    def _interest(self) -> int:
        return READ

    def close(self, reason: object = None) -> None:
        if not self.closed:
            self.closed = True
            self.loop.unregister(self.fd)
            try:
                self.loop.poller.remove(self.fd)
            except (OSError, KeyError):  # it was closed before it was taken out
                pass
            self._close_fd()

    _abandon = close

    def _close_fd(self) -> None:
        """It is the caller's."""

    def __repr__(self) -> str:
        return f"<fd {self.fd}: {self.callback!r}>"
