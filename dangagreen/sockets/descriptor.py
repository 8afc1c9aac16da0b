"""What listeners and connections have in common: an OS socket in a loop's map, its interest, its close.

Rules: interest follows from state, in `_interest()` and nowhere else; interest that is gone is unregistered lazily,
when an unwanted event arrives; the OS socket stays open, and in the map, until the turn ends; after ENOBUFS or ENOMEM
the socket is left alone for a while. What does not belong here: reading, writing, what an event means.
"""

from __future__ import annotations

import socket
import struct
import weakref
from _thread import get_ident
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import partial
from typing import Any, Protocol

from dangagreen.errors import NO_ROOM, OUT_OF_BUFFERS
from dangagreen.loop.handlers import PAUSED, UNREGISTERED, Handler
from dangagreen.loop.loop import Loop, current_loop, here, loop_or_current
from dangagreen.loop.pollers import ERR, HUP, READ, WRITE
from dangagreen.loop.timers import Timer
from dangagreen.tracebacks import without_traceback

_SOCKET, _LINGER = int(socket.SOL_SOCKET), int(socket.SO_LINGER)
_LINGER_TIME = struct.Struct("ii")  # struct linger, socket(7): on or off, seconds
PAUSE_SECONDS = 0.02  # pause of a socket after ENOBUFS or ENOMEM


class SocketLike(Protocol):
    """What a Socket can be made of: `socket.socket`, an end of `dangagreen.testing.wire`, and the like.

    None of these methods blocks after `setblocking(False)`. Others, such as `getpeername` and `setsockopt`, are used if
    the object has them.
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

    `sock` is the OS socket, `fd` its file descriptor, `loop` the loop, `closed` whether `close` was called and
    `close_reason` its argument; of an exception a copy without its traceback, which refers to the socket.
    """

    __slots__ = {
        "_listener": "The listener that has accepted it, or None.",
        "close_reason": "What `close` was called with; of an exception an equal copy. None while it is open.",
        "loop": "The loop that it belongs to.",
        "sock": "The OS socket, or what looks like one.",
    }

    loop: Loop

    def __init__(self, sock: Any, loop: Loop | None = None) -> None:
        loop = here.loop or current_loop() if loop is None else loop_or_current(loop)
        try:
            sock.setblocking(False)
        except OSError:  # EBADF says nothing of whose fault it is
            if sock.fileno() != -1:
                raise
        self.loop = loop
        self.sock = sock
        self.fd = sock.fileno()
        self._registered_mask = UNREGISTERED
        if self.fd < 0:
            if self.fd == -1:
                raise ValueError(f"{sock!r} is closed: a descriptor needs an open socket")
            self._registered_mask = PAUSED  # it stands for an OS socket that is to come: see `_set_socket`
        self.closed = self._watch_read = self._watch_write = False
        self.close_reason: object = None
        self._listener: Any = None
        self._context = copy_context()
        self._reader = self._queue = self._timer = None
        loop.register(self)
        loop.interest_changed.append(self)  # registered even if it watches nothing: hang-ups are reported all the same

    def _set_context(self, context: Context) -> None:
        """Set the context (contextvars) of its callbacks, its timer and its handler."""
        timer = self._timer
        self._context = context
        if timer is not None:
            timer.context = context

    def _set_socket(self, sock: Any) -> None:
        """Go on with this OS socket, in the place of what has stood for it."""
        self.loop.unregister(self.fd)
        self.sock = sock
        self.fd = sock.fileno()
        self._registered_mask = UNREGISTERED
        self.loop.register(self)
        self.loop.interest_changed.append(self)

    def _set_listener(self, listener: Any) -> None:
        """Set the listener that has accepted it."""
        self._listener = listener

    # -- interest

    def _is_of(self, listener: Any) -> bool:
        """Whether this listener has accepted it."""
        return self._listener is listener

    def _accepted_by(self) -> Any:
        """The listener that has accepted it, or None."""
        return self._listener

    def _waits(self) -> bool:
        """Whether it waits for its peer: to send, or to take what is queued."""
        return self._watch_read or self._reader is not None or self._queue is not None

    def _waits_for_input_alone(self) -> bool:
        """Whether it waits for input and has nothing to send."""
        waits = self._reader is not None if not self._watch_read else not self._watch_write
        return waits and self._queue is None

    def _interest(self) -> int:
        """The bits that the poller is to watch for."""
        return (READ if self._watch_read else 0) | (WRITE if self._watch_write else 0)

    def _add_interest(self, bit: int) -> None:
        """Register `bit`, which `_interest()` has from now on, with the poller, unless it is registered.

        Raises OSError if the poller refuses (ENOSPC, ENOMEM): then the caller takes back what has made it wanted.
        """
        told = self._registered_mask
        if not told & bit and not self.closed:
            if told == UNREGISTERED:
                want = self._interest()
                self.loop.poller.add(self.fd, want)
                self._registered_mask = want  # not before: the poller may refuse
                self.loop.handlers[self.fd] = self  # where it is already, but in a forked child that uses it
                unsettled = self.loop.interest_changed
                if unsettled and unsettled[-1] is self:  # made just now: no update is needed any more
                    unsettled.pop()
            else:
                self._update_registration()

    def _update_registration(self) -> None:
        """Register exactly `_interest()` with the poller. Raises OSError if it refuses more interest."""
        if not self.closed and (want := self._interest()) != self._registered_mask != PAUSED:
            new = self._registered_mask == UNREGISTERED
            tell = self.loop.poller.add if new else self.loop.poller.modify
            try:
                tell(self.fd, want)
            except OSError as error:
                if self._registered_mask == UNREGISTERED or want & ~self._registered_mask or error.errno not in NO_ROOM:
                    raise
                return  # less interest was refused, which does no harm: the next event asks for it again
            if new:
                self.loop.handlers[self.fd] = self
            self._registered_mask = want

    def _watch_input(self, on: bool) -> None:
        """Set whether the loop calls `event_read` for input. Raises OSError, with no change, if the poller refuses."""
        before, self._watch_read = self._watch_read, on
        if on and not self._registered_mask & READ:
            try:
                self._add_interest(READ)
            except BaseException:
                self._watch_read = before
                raise

    def _watch_output(self, on: bool) -> None:
        """Set whether the loop calls `event_write` when it is writable. Raises like `_watch_input`."""
        before, self._watch_write = self._watch_write, on
        if on and not self._registered_mask & WRITE:
            try:
                self._add_interest(WRITE)
            except BaseException:
                self._watch_write = before
                raise

    def _watch_from_the_start(self) -> None:
        """Watch input, at the end of a constructor. If the poller refuses: leave the loop, and raise its OSError."""
        try:
            self._watch_input(True)
        except BaseException:
            self._release()
            raise

    def _look_at_interest(self, bit: int) -> None:
        """Update the registration at once, not lazily, if this bit is registered."""
        if self._registered_mask & bit:
            self._update_registration()

    def _unregister(self) -> None:
        """Remove it from the poller, so that no event comes, not even a hang-up, until interest is added again."""
        if self._registered_mask != UNREGISTERED:
            self._registered_mask = UNREGISTERED
            try:
                self.loop.poller.remove(self.fd)
            except (OSError, KeyError, ValueError):  # EBADF, ENOENT: other code has closed it; ValueError: no fd yet
                pass

    def _ignore(self, mask: int) -> None:
        """Nobody wants these events: have no more of them; a hang-up the poller reports whatever it is asked for."""
        self._update_registration()
        if mask & (ERR | HUP):
            self._unregister()

    def _release(self) -> None:
        """Leave the loop at once, without closing the OS socket."""
        self._unregister()
        self.loop.unregister(self.fd)
        self.closed = True

    def _is_short_of_memory(self, error: OSError) -> bool:
        """Whether the error is ENOBUFS or ENOMEM. Then the socket is paused: nothing is asked of it for a while."""
        if error.errno not in OUT_OF_BUFFERS:
            return False
        if self._registered_mask != PAUSED and not self.closed:
            self._unregister()
            self._registered_mask = PAUSED
            self._call_at(self.loop.clock() + PAUSE_SECONDS, partial(_end_pause, weakref.ref(self)))
        return True

    def _shut_writing(self, again: Callable[[], None]) -> bool:
        """shutdown(2) of writing: a FIN. Returns False, and calls `again` later, if the kernel has no memory now."""
        if self.closed:
            return False
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno not in OUT_OF_BUFFERS:
                raise
            self._call_at(self.loop.clock() + PAUSE_SECONDS, again)
            return False
        return True

    def _is_told_of(self, bit: int) -> bool:
        """Whether the poller watches for this bit."""
        return bool(self._registered_mask & bit) and self._registered_mask != PAUSED

    def _is_paused(self) -> bool:
        """Whether it is paused after ENOBUFS or ENOMEM."""
        return self._registered_mask == PAUSED

    def _call_at(self, deadline: float, callback: Callable[[], object]) -> Timer:
        """Set a timer that calls it in the context of this object."""
        return self.loop.timers.add(deadline, callback, self._context)

    # -- the end

    def close(self, reason: object = None) -> None:
        """Close now (abrupt): drop the write queue, wake parked tasks with ClosedError; a second call does nothing.

        The OS socket is closed at the end of the turn; with input unread the kernel then sends an RST. `reason` is kept
        as `close_reason`. Override it to hear of the end. Never parks. Prefer `finish()` after a reply.
        """
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
        if loop.instruments is not None:
            loop.instruments.closed(self)
        loop.close_later(self)
        if self._listener is not None:
            self._listener._connection_closed()

    _abandon = close

    def _on_close(self) -> None:
        """Called once when the object closes: drop what it holds, and wake parked tasks."""

    def _close_fd(self) -> None:
        if len(self._context):  # a variable in it may refer to this object, which is a cycle
            self._context = Context()
        sock = self.sock
        try:
            if sock.getsockopt(_SOCKET, _LINGER):  # on? Without the third argument the call is cheaper
                _linger_in_background(sock)
        except (OSError, AttributeError):  # no OS socket
            pass
        sock.close()


def _linger_in_background(sock: Any) -> None:
    """Switch SO_LINGER off before close(2), so that the kernel sends the rest in the background.

    With a linger time close(2) blocks, also on a non-blocking socket, and would block the loop. A time of 0, which asks
    for an RST, is left as it is.
    """
    on, seconds = _LINGER_TIME.unpack(sock.getsockopt(_SOCKET, _LINGER, _LINGER_TIME.size))
    if on and seconds:
        sock.setsockopt(_SOCKET, _LINGER, _LINGER_TIME.pack(0, 0))


def _end_pause(reference: weakref.ref[Descriptor]) -> None:
    """The end of a pause: have the interest of the descriptor registered, if it still exists and is still paused."""
    paused = reference()
    if paused is not None and paused._registered_mask == PAUSED:
        paused._registered_mask = UNREGISTERED
        paused.loop.interest_changed.append(paused)
