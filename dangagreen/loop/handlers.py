"""What the loop knows of the things it serves, and the simplest of them: an fd without an object.

Rules: the loop needs of a handler what `Handler` says, and nothing else. What does not belong here: sockets.
"""

from __future__ import annotations

import socket
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


class Handler(Protocol):
    """What the loop needs of an object that owns a file descriptor."""

    fd: int
    closed: bool
    _reader: Reader | None  # who is parked in a read
    _watch_read: bool
    _context: Context
    _registered_mask: int

    @property
    def _timer(self) -> object: ...  # what limits how long it may wait, or None
    @property
    def _queue(self) -> object: ...  # what is to be sent, or None
    def event_read(self) -> object: ...
    def close(self, reason: object = None) -> None: ...
    def _events(self, mask: int) -> None: ...  # whatever is not the plain "readable, and somebody reads"
    def _pushed_back(self, just_now: bool) -> bool: ...  # deliver what was pushed back; is there more?
    def _flush(self) -> None: ...
    def _interest(self) -> int: ...  # the bits for which it waits
    def _was_at_work(self) -> None: ...  # after event_read, where the time that it waits is limited
    def _update_registration(self) -> None: ...  # make the kernel's interest what it should be
    def _close_fd(self) -> None: ...
    def _abandon(self, reason: object) -> None: ...  # close(), without what a subclass makes of it


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


class FdHandler:
    """An fd without an object: one of `other_fds`, or the socket by which other threads wake the loop."""

    __slots__ = (
        "_context",
        "_loop",
        "_queue",
        "_reader",
        "_registered_mask",
        "_watch_read",
        "callback",
        "closed",
        "fd",
        "ends",
    )

    _timer = None

    def __init__(
        self, loop: Registrar, fd: int, callback: Callable[[int], object], ends: tuple[socket.socket, ...] = ()
    ) -> None:
        self._loop = loop
        self.fd = fd
        self.callback = callback
        self.ends = ends  # of the loop's own pair of sockets, which are ours to close
        self.closed = self._watch_read = False
        self._reader: Reader | None = None
        self._context = copy_context()
        self._queue = None
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
            self._loop.poller.remove(self.fd)
        self._loop.poller.add(self.fd, READ)

    def event_read(self) -> object:
        return self.callback(READ)

    def _events(self, mask: int) -> None:
        if not self.closed and (result := self.callback(mask)) is not None:
            checks.outcome(f"{self!r}", result)

    def _interest(self) -> int:
        return READ

    def close(self, reason: object = None) -> None:
        if not self.closed:
            self.closed = True
            self._loop.unregister(self.fd)
            try:
                self._loop.poller.remove(self.fd)
            except (OSError, KeyError):  # it was closed before it was taken out
                pass
            self._close_fd()

    _abandon = close

    def _close_fd(self) -> None:
        for end in self.ends:
            end.close()

    def _pushed_back(self, just_now: bool) -> bool:
        return False

    def _flush(self) -> None:
        raise AssertionError("an fd without an object has nothing to flush")

    _update_registration = _was_at_work = _flush

    def __repr__(self) -> str:
        return f"<fd {self.fd}: {self.callback!r}>"
