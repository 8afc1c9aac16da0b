"""How long a connection may live, and how it ends well: idle and lifetime timeouts, and finish().

Rules: one timer for a connection however many reads it sees; a peer never loses the tail of a reply to a reset; every
wait for a peer that does not behave is bounded. What does not belong here: what a protocol does on a timeout.
"""

from __future__ import annotations

import errno
import math
import os
import socket
import struct
from _thread import get_ident
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from dangagreen.errors import BROKEN, OUT_OF_BUFFERS
from dangagreen.loop.loop import Loop
from dangagreen.loop.pollers import READ, WRITE
from dangagreen.sockets.busy import HELD, Busy
from dangagreen.sockets.descriptor import PAUSE_SECONDS
from dangagreen.sockets.settings import Setting, seconds, seconds_or_none, size
from dangagreen.sockets.states import BLOCKED, EOF_MET, IDLE, MUTE
from dangagreen.sockets.write_queue import WriteQueue

_CHUNK = 65536
_SOCKET, _LINGER = int(socket.SOL_SOCKET), int(socket.SO_LINGER)
_LINGER_TIME = struct.Struct("ii")  # socket(7): is it on, and for how many seconds


class Lifetime(WriteQueue):
    """A socket with an end.

    Settings, of the class or of one object: `idle_timeout` (seconds that it may wait for its peer, a handler's own work
    not counted; None is no limit), `lifetime` (seconds in all; set for an object, since it was first given a limit),
    `linger_seconds` and `linger_bytes` (how long, and how much late input, `finish()` bears with).
    """

    __slots__ = ("_at_work", "_created_at", "_eof", "_finishing", "_linger_budget", "_read_error")

    _limited: ClassVar[bool | None] = None  # has the class a limit in time? None: look
    idle_timeout: Setting[float | None] = Setting(None, seconds_or_none)
    lifetime: Setting[float | None] = Setting(None, seconds_or_none)
    linger_seconds: Setting[float] = Setting(5.0, seconds)
    linger_bytes: Setting[int] = Setting(16 * 1024 * 1024, size)

    def __init__(self, sock: Any, loop: Loop | None = None) -> None:
        WriteQueue.__init__(self, sock, loop)
        self._eof = 0  # see `states`
        self._read_error: OSError | None = None  # what has broken the connection: in place of a clean end
        self._finishing = False
        self._at_work = 0  # 1 while a handler of serve_requests runs, and HELD more for each busy() that is held
        self._created_at = 0.0
        self._linger_budget = 0

    # -- timeouts

    def _was_set(self, name: str) -> None:
        super()._was_set(name)
        if name not in ("idle_timeout", "lifetime"):
            return
        now = self.loop.clock()
        if not self._created_at:
            self._created_at = now
        if not self._finishing:  # then its timer is that of the lingering
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            elif self._last_activity > 0:
                self._last_activity = now
            if self.idle_timeout is not None or self.lifetime is not None:
                self._timer = self.loop.timers.add(max(now, self._limit(now)), self._check_limits, self._context)

    def _limit(self, now: float) -> float:
        """When the first of its limits will have passed, if it hears nothing more."""
        deadline = math.inf if self.lifetime is None else self._created_at + self.lifetime
        if self.idle_timeout is not None:
            waits = self._last_activity > 0 and self._waits_for_peer()
            deadline = min(deadline, (self._last_activity if waits else now) + self.idle_timeout)
        return deadline

    def _check_limits(self) -> None:
        """Close when a limit has passed; otherwise look again when the next one may have."""
        now = self.loop.clock()
        deadlines = []
        if self.lifetime is not None:
            deadlines.append(self._created_at + self.lifetime)
            if now >= deadlines[-1]:
                return self.close(f"its lifetime of {self.lifetime} s is over")
        if self.idle_timeout is not None:
            waits = self._last_activity > 0 and self._waits_for_peer()
            deadlines.append((self._last_activity if waits else now) + self.idle_timeout)
            if now >= deadlines[-1]:
                timer = self._timer
                if not self._peer_has_acted():
                    return self.close(f"the peer was idle for {self.idle_timeout} s")
                if self.closed or self._timer is not timer:  # by a hook, which may have set its limits
                    return None
                self._last_activity, deadlines[-1] = now, now + self.idle_timeout
        self._timer = None
        if deadlines:  # its class may have been given None meanwhile
            self._timer = self.loop.timers.add(min(deadlines), self._check_limits, self._context)
        return None

    def _peer_has_acted(self) -> bool:
        """Has it done what was waited for, and nobody has looked yet? What lies in the kernel counts as heard: it may
        have come long ago, while the process was stopped or busy."""
        return False

    def _begin_wait(self) -> None:
        """From now on it waits for its peer, if it did not before; after a wait that was given up from so much earlier.

        To be called before what makes it wait.
        """
        if self._last_activity > 0 and self._waits_for_peer():
            return
        waited, self._last_activity = min(0.0, self._last_activity), self.loop.clock()
        if waited and self._timer is not None and self.idle_timeout is not None and not self._finishing:
            self._last_activity += waited
            deadline = self._last_activity + self.idle_timeout
            if deadline < self._timer.deadline:
                self._timer.cancel()
                self._timer = self.loop.timers.add(deadline, self._check_limits, self._context)

    def _give_up_wait(self) -> None:
        """It has heard nothing. If it waits no more, the time that it has waited is kept, as a negative one."""
        if not self._waits_for_peer():
            self._last_activity = min(0.0, self._last_activity - self.loop.clock())

    def _was_at_work(self) -> None:
        """It has heard something, and what it did then was its own work. From now on it waits."""
        self._last_activity = self.loop.clock()

    def _waits_for_peer(self) -> bool:
        waits = self._watch_read or self._reader is not None or self._queue is not None
        return waits and self._at_work < HELD

    def busy(self) -> Busy:
        """Work is going on for this connection that it does not show: an answer that is to come from a task or a timer.

        Until the end of a `with` block, or until `release()` of what this returns, a drain takes the connection for one
        at work, and `idle_timeout` does not count. Several may be held at once.
        """
        return Busy(self)

    def _was_released(self) -> None:
        """Nobody holds it any more."""

    # -- finish

    def write_eof(self) -> None:
        """Shut writing down when everything queued was sent, and go on reading. It never waits.

        What is written after this goes nowhere.
        """
        if not self._write_closed & MUTE:
            self.loop.check_thread("write_eof")
            self._write_closed = MUTE  # before the queue leaves: what is written from within that comes after the end
            self._after_the_queue(self._end_writing)

    def _end_writing(self) -> None:
        """The queue has left: send the FIN. A lingering close is over if the peer has ended before."""
        if self._finishing and self._eof:
            return self.close()
        try:
            self._shut_writing(self._end_writing)
        except OSError as error:
            self._write_failed(self._cause(error))
        return None

    def _tell_the_end(self) -> None:
        try:
            self._shut_writing(self._tell_the_end)
        except OSError as error:
            if error.errno not in BROKEN:  # there is no other way to tell it
                self.close(self._write_error)

    def _cause(self, error: OSError) -> OSError:
        """What has broken the connection, where the error only says that it is gone (EPIPE, or ENOTCONN)."""
        if error.errno == errno.ENOTCONN and self._read_error is None:
            return self._pending_error() or error
        return self._read_error or error

    def _pending_error(self) -> OSError | None:
        """The error that the OS has to tell, which it then tells nobody else."""
        number = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return OSError(number, os.strerror(number)) if number else None

    def _shut_writing(self, again: Callable[[], None]) -> bool:
        """Send the end of the stream. Where the kernel has no memory for it now, False, and `again` is called later."""
        if self.closed:  # meanwhile
            return False
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno not in OUT_OF_BUFFERS:
                raise
            self.loop.timers.add(self.loop.clock() + PAUSE_SECONDS, again, self._context)
            return False
        return True

    def _after_the_queue(self, call: Callable[[], object]) -> None:
        """Do it when what is queued was sent, also where what is written goes nowhere any more."""
        self._enqueue(call)
        if self._sending == IDLE:
            self._flush()

    def finish(self) -> None:
        """Send what is queued, shut writing down, discard late input until the peer ends or a bound is met, and close.

        It never waits, in either style. Closing with input unread would make the kernel send a reset, which may
        overtake the reply. What is written after this goes nowhere.
        """
        if self.closed or self._finishing:
            return None
        if get_ident() != self.loop.thread:
            self.loop.check_thread("finish")
        if self._write_error is not None:
            return self.close(self._write_error)
        if self._eof and self._queue is None:  # there is nobody to wait for
            return self.close()
        self._finishing = True
        self._linger_budget = 0
        self._watch_read = self._watch_write = False
        self._no_more_reading()
        if self._timer is not None:
            self._timer.cancel()
        try:
            if not self._write_closed & MUTE:  # else write_eof() has sent the FIN, or queued it
                self._write_closed = MUTE
                self._after_the_queue(self._end_writing)
        finally:  # what was queued may raise
            if not self.closed:
                self._linger()
                self._hear_the_end()
        return None

    def _hear_the_end(self) -> None:
        try:
            self._add_interest(READ)
        except BaseException as error:
            self.close(error)
            raise

    def _linger(self) -> None:
        deadline = self.loop.clock() + self.linger_seconds
        if self._created_at and self.lifetime is not None:
            deadline = min(deadline, self._created_at + self.lifetime)
        self._timer = self.loop.timers.add(deadline, partial(self._lingered, self.unsent), self._context)

    def _lingered(self, unsent: int) -> None:
        if self._created_at and self.lifetime is not None and self.loop.clock() >= self._created_at + self.lifetime:
            return self.close(f"its lifetime of {self.lifetime} s is over")
        self._hear_late()
        if self.closed:
            return None
        if self.unsent < unsent:  # slow, but reading
            self._linger()
        else:
            did = "took no more" if self.unsent else "did not end its side"
            self.close(f"the peer {did} for {self.linger_seconds} s after finish()")
        return None

    def _hear_late(self) -> None:
        """While it lingers: take in what lies in the kernel, which may have come in time."""
        before = -1
        while not self.closed and self._linger_budget != before:
            before = self._linger_budget
            self._late_events(READ | WRITE)

    def _late_events(self, mask: int) -> None:
        """What the loop reports while finishing: room for the rest of the reply, and input that nobody wants."""
        if mask & ~READ:  # after a hang-up as well, of which no WRITE need tell
            self._try_again()
        if self.closed or not mask & ~WRITE:
            return None
        try:
            late = self.sock.recv(_CHUNK)
        except BlockingIOError:
            return None
        except OSError as error:
            return None if self._is_short_of_memory(error) else self.close(error)
        self._linger_budget += len(late)
        if not late:
            self._eof = self._eof or EOF_MET
            if self._queue is None:
                self.close()
            else:
                self._update_registration()
        elif self._linger_budget > self.linger_bytes:
            self.close(f"the peer sent more than {self.linger_bytes} bytes after finish()")
        return None

    def _no_more_reading(self) -> None:
        """The buffer is dropped, and whoever is parked in a read is woken with ClosedError."""

    def _close_fd(self) -> None:
        sock = self.sock
        try:
            if sock.getsockopt(_SOCKET, _LINGER):  # is it on? One more argument, for the whole of it, would be dearer
                _linger_in_background(sock)
        except (OSError, AttributeError):  # it only looks like a socket
            pass
        sock.close()

    def _on_close(self) -> None:
        WriteQueue._on_close(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._no_more_reading()

    def _interest(self) -> int:
        reads = (self._watch_read or self._reader is not None or self._finishing) and not self._eof
        return (READ if reads else 0) | (WRITE if self._watch_write or self._sending == BLOCKED else 0)


def _linger_in_background(sock: Any) -> None:
    """Have the kernel send what is left after close(2), as it does where no linger time is set.

    With one, close(2) waits for that, also on a non-blocking socket, and with it the loop. A time of 0, which asks for
    a reset, is left as it is.
    """
    on, seconds = _LINGER_TIME.unpack(sock.getsockopt(_SOCKET, _LINGER, _LINGER_TIME.size))
    if on and seconds:
        sock.setsockopt(_SOCKET, _LINGER, _LINGER_TIME.pack(0, 0))
