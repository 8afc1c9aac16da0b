"""What listeners and connections share: an OS socket in a loop's map, its interest, its end.

Rules: interest follows from state, in `_interest()` and nowhere else; what is not wanted any more is told to the kernel
lazily, when an unwanted event arrives; the OS socket stays open, and in the map, until the turn ends; while the kernel
is short of memory it is asked for nothing. What does not belong here: reading, writing, what an event means.
"""

from __future__ import annotations

import socket
import weakref
from _thread import get_ident
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import partial
from typing import Any, Protocol

from dangagreen import checks
from dangagreen.errors import NO_ROOM, OUT_OF_BUFFERS
from dangagreen.loop.handlers import PAUSED, UNREGISTERED, Handler
from dangagreen.loop.loop import Loop, current_loop, here, loop_or_current
from dangagreen.loop.pollers import READ, WRITE
from dangagreen.loop.timers import Timer
from dangagreen.tracebacks import without_traceback

PAUSE_SECONDS = 0.02  # until the kernel is asked again for what it had no memory for


class SocketLike(Protocol):
    """What a Socket can be made of: `socket.socket`, an end of `dangagreen.testing.wire`, and whatever behaves alike.

    As those of the standard library, none of these waits once `setblocking(False)` was called. Others, such as
    `getpeername` and `setsockopt`, are used where they are there.
    """

    def fileno(self) -> int: ...
    def setblocking(self, flag: bool, /) -> None: ...
    def recv(self, size: int, flags: int = ..., /) -> bytes: ...
    def recv_into(self, buffer: bytearray | memoryview, nbytes: int = ..., flags: int = ..., /) -> int: ...
    def send(self, data: bytes | memoryview, flags: int = ..., /) -> int: ...
    def shutdown(self, how: int, /) -> None: ...
    def close(self) -> None: ...


class Descriptor(Handler):
    """An OS socket, or anything that looks like one, registered with a loop.

    `sock` is the OS socket, `fd` its number, `loop` the loop, `closed` whether `close` was called and `close_reason`
    what it was called with; of an exception a copy without its traceback, which would hold all that it has passed.
    """

    __slots__ = {
        "_listener": "The listener that has accepted it, or None.",
        "_watch_write": "Whether `event_write` is to be called when it can be written to.",
        "close_reason": "What `close` was called with; of an exception an equal copy. None while it is open.",
        "sock": "The OS socket, or what looks like one.",
    }

    loop: Loop

    def __init__(self, sock: Any, loop: Loop | None = None) -> None:
        loop = here.loop or current_loop() if loop is None else loop_or_current(loop)
        sock.setblocking(False)
        self.loop = loop
        self.sock = sock
        self.fd = sock.fileno()
        if self.fd < 0:
            raise ValueError(f"{sock!r} is closed: a descriptor needs an open socket")
        self.closed = self._watch_read = self._watch_write = False
        self.close_reason: object = None
        self._listener: Any = None
        self._context = copy_context()
        self._reader = self._queue = self._timer = None
        self._registered_mask = UNREGISTERED
        loop.register(self)
        loop.interest_changed.append(self)  # so that one that watches nothing still learns of hang-ups

    def _set_context(self, context: Context) -> None:
        """Run its callbacks, its timer and its handler with these context variables."""
        timer = self._timer
        self._context = context
        if timer is not None:
            timer.context = context

    def _set_listener(self, listener: Any) -> None:
        self._listener = listener

    # -- interest

    def _waits(self) -> bool:
        """Does it wait for its peer: for input, or until it takes what is queued?"""
        return self._watch_read or self._reader is not None or self._queue is not None

    def _waits_for_input_alone(self) -> bool:
        waits = self._reader is not None if not self._watch_read else not self._watch_write
        return waits and self._queue is None

    def _interest(self) -> int:
        """The bits that it needs now."""
        return (READ if self._watch_read else 0) | (WRITE if self._watch_write else 0)

    def _add_interest(self, bit: int) -> None:
        """Make sure that the kernel watches for `bit`, which has just become wanted.

        Raises OSError where the poller refuses (ENOSPC, ENOMEM): then the caller takes back what made it wanted.
        """
        told = self._registered_mask
        if not told & bit and not self.closed:
            if told == UNREGISTERED:
                want = self._interest()
                self.loop.poller.add(self.fd, want)
                self._registered_mask = want  # not before: the poller may refuse
                unsettled = self.loop.interest_changed
                if unsettled and unsettled[-1] is self:  # it was made just now, and is settled
                    unsettled.pop()
            else:
                self._update_registration()

    def _update_registration(self) -> None:
        """Make what the kernel watches exactly what is wanted."""
        if not self.closed and (want := self._interest()) != self._registered_mask != PAUSED:
            tell = self.loop.poller.add if self._registered_mask == UNREGISTERED else self.loop.poller.modify
            try:
                tell(self.fd, want)
            except OSError as error:
                if self._registered_mask == UNREGISTERED or want & ~self._registered_mask or error.errno not in NO_ROOM:
                    raise
                return  # to hear of less does not matter so much: the next event asks for it again
            self._registered_mask = want

    def _watch_input(self, on: bool) -> None:
        """Have the loop call `event_read` when there is input, or no longer. If the poller refuses, it raises OSError,
        and all is as before."""
        before, self._watch_read = self._watch_read, on
        if on and not self._registered_mask & READ:
            try:
                self._add_interest(READ)
            except BaseException:
                self._watch_read = before
                raise

    def _watch_output(self, on: bool) -> None:
        """The counterpart for `event_write`."""
        before, self._watch_write = self._watch_write, on
        if on and not self._registered_mask & WRITE:
            try:
                self._add_interest(WRITE)
            except BaseException:
                self._watch_write = before
                raise

    def _look_at_interest(self, bit: int) -> None:
        """Tell the kernel at once if this is wanted no more."""
        if self._registered_mask & bit:
            self._update_registration()

    def _unregister(self) -> None:
        """Hear nothing from the kernel, hang-ups included, until something is wanted again."""
        if self._registered_mask != UNREGISTERED:
            self._registered_mask = UNREGISTERED
            try:
                self.loop.poller.remove(self.fd)
            except (OSError, KeyError):  # EBADF, ENOENT: the OS socket was closed behind our back
                pass

    def _release(self) -> None:
        """Leave the loop at once, and the OS socket as it is."""
        self._unregister()
        self.loop.unregister(self.fd)
        self.closed = True

    def _is_short_of_memory(self, error: OSError) -> bool:
        """Does the error mean that the kernel has no memory now? Then it is asked for nothing for a while."""
        if error.errno not in OUT_OF_BUFFERS:
            return False
        if self._registered_mask != PAUSED and not self.closed:
            self._unregister()
            self._registered_mask = PAUSED
            self._call_at(self.loop.clock() + PAUSE_SECONDS, partial(_end_pause, weakref.ref(self)))
        return True

    def _shut_writing(self, again: Callable[[], None]) -> bool:
        """Send the end of the stream. Where the kernel has no memory for it now, False, and `again` is called later."""
        if self.closed:  # meanwhile
            return False
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno not in OUT_OF_BUFFERS:
                raise
            self._call_at(self.loop.clock() + PAUSE_SECONDS, again)
            return False
        return True

    def _is_paused(self) -> bool:
        """Is the kernel asked for nothing, since it had no memory?"""
        return self._registered_mask == PAUSED

    def _call_at(self, deadline: float, callback: Callable[[], object]) -> Timer:
        """Call it then, with the context variables of this object."""
        return self.loop.timers.add(deadline, callback, self._context)

    # -- events

    def _hook(self, event: str, call: Callable[[], object]) -> None:
        """Call a hook, `event_` and this name, or who is called in its place."""
        profile = self.loop.profile
        result = call() if profile is None else profile.measure(self, event, call)
        if result is not None and result is not checks.RESUMED:
            checks.outcome(f"event_{event}", result)

    # -- the end

    def close(self, reason: object = None) -> None:
        """Close now. The OS socket goes at the end of the turn; a second call does nothing."""
        if self.closed:
            return
        loop = self.loop
        if get_ident() != loop.thread:
            loop.check_thread("close")
        self.closed = True
        if reason is not None:
            self.close_reason = without_traceback(reason, self) if isinstance(reason, BaseException) else reason
        self._watch_read = self._watch_write = False
        self._on_close()
        self._unregister()
        loop.close_later(self)
        if self._listener is not None:
            self._listener._connection_closed()

    _abandon = close

    def _on_close(self) -> None:
        """Drop what is held and wake who is parked; called once, when the object closes."""

    def _close_fd(self) -> None:
        self.sock.close()


def _end_pause(reference: weakref.ref[Descriptor]) -> None:
    """Tell the poller what is wanted, if the descriptor is still there, and still paused."""
    paused = reference()
    if paused is not None and paused._registered_mask == PAUSED:
        paused._registered_mask = UNREGISTERED
        paused.loop.interest_changed.append(paused)
