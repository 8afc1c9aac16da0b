"""Socket in callback style: reading, events and their order, hand-over of the OS socket.

Rules: a hang-up never costs bytes; bytes are in the kernel, in the buffer or in the caller's hands; hooks are called
by the loop alone. What does not belong here: anything that waits.
"""

from __future__ import annotations

import _socket
import socket
from _thread import get_ident
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from dangagreen import checks
from dangagreen.errors import CUT_OFF, BusyError, ClosedError, connection, peer_of
from dangagreen.loop.loop import Loop
from dangagreen.loop.pollers import ERR, HUP, READ, WRITE
from dangagreen.sockets.danga import DangaAliases
from dangagreen.sockets.descriptor import SocketLike
from dangagreen.sockets.endpoint import Endpoint
from dangagreen.sockets.settings import Setting, adopt_settings, size
from dangagreen.sockets.states import (
    BLOCKED,
    BY_PEER,
    EOF_MET,
    EOF_TOLD,
    ERR_TOLD,
    HUP_TOLD,
    HUP_TOLD_AT_END,
    OBSERVED,
    OWES,
)
from dangagreen.sockets.write_queue import Buffer, as_bytes
from dangagreen.tracebacks import without_traceback

_LARGE = 65536  # bytes in a buffer: to copy so many takes no longer than a system call or two
_kind = _socket.socket.type.__get__  # not by the property of socket.socket, which makes an enumeration member
_STREAM = int(socket.SOCK_STREAM)


class CallbackSocket(DangaAliases, Endpoint):
    """A connection, or a listening socket of your own, in a loop: subclass it and override the `event_*` hooks.

    `sock` is anything that looks like a socket and can be made non-blocking. Declare your attributes in `__slots__`,
    and a misspelt one raises AttributeError. Setting, of the class or of one object: `line_limit` (bytes: what
    `read_line`, `read_until` and iteration take at most, where they are not given another limit).
    """

    __slots__ = (
        "_bulk_credit",
        "_buffer",
        "_hangup_state",
        "_line_limit",
        "_pos",
        "_scan_from",
        "_sequential",
    )

    _usual_line_limit: ClassVar[int] = 65536
    line_limit: Setting[int] = Setting(65536, size)

    def __init__(self, sock: SocketLike, loop: Loop | None = None) -> None:
        try:
            if _kind(sock) != _STREAM:
                check_connection(sock)
        except TypeError:  # no OS socket
            check_connection(sock)
        if self._limited is None:  # no server was given the class, which may have been given settings since it was made
            adopt_settings(type(self), fixed=False)
        Endpoint.__init__(self, sock, loop)
        self._line_limit = self._usual_line_limit
        self._buffer: bytes | bytearray = b""
        self._pos = 0
        # Below 0: how much of what is unread a parked reader has looked through. Above 0: the position up to which
        # `read_line` gives lines of the buffer without any more ado.
        self._scan_from = 0
        self._hangup_state = 0
        self._bulk_credit = 0  # bytes of bulk that may be received without waiting first
        self._sequential = 0  # whose style decides what a hang-up does: 0 callbacks; 1 sequential; 2 and has written
        self._peer: Any = None
        self._local: Any = None
        if (limited := self._limited) is None:
            limited = self.idle_timeout is not None or self.lifetime is not None
        if limited:
            self._created_at = self._last_activity = self.loop.clock()
            self._check_limits()

    def _was_set(self, name: str) -> None:
        super()._was_set(name)
        if name == "line_limit":
            self._line_limit = self.line_limit
            self._scan_from = 0

    # -- reading

    def read(self, n: int) -> bytes | None:
        """At most n bytes; b"" when nothing is there now; None when the connection has ended or is closed."""
        if self._buffer:
            if n > self.buffered:
                self._add_input(n - self.buffered)
            return self._consume(n)
        if self._write_closed and (self.closed or self._finishing):
            return None
        try:
            data: bytes = self.sock.recv(n)
        except BlockingIOError:
            return b""
        except OSError as error:
            if self._is_short_of_memory(error):
                return b""
            self._read_error = without_traceback(error)
        else:
            if data:
                self._last_activity = self.loop.now
                return data
            if n <= 0:
                raise ValueError(f"read({n}): at least one byte must be asked for")
        self._on_eof()
        return None

    def read_into(self, buffer: bytearray | memoryview) -> int | None:
        """`read` into a writable buffer of your own, which may be used again and again: how many bytes it got.

        0 when nothing is there now; None when the connection has ended or is closed. For bulk: nothing is allocated.
        """
        if self._buffer:
            with memoryview(buffer).cast("B") as view:
                size = min(len(view), self.buffered)
                view[:size] = self._buffer[self._pos : self._pos + size]
            self._consume(size)
            return size
        if self._write_closed and (self.closed or self._finishing):
            return None
        try:
            size = self.sock.recv_into(buffer)
        except BlockingIOError:
            return 0
        except OSError as error:
            if self._is_short_of_memory(error):
                return 0
            self._read_error = without_traceback(error)
        else:
            if size:
                self._last_activity = self.loop.now
                return size  # type: ignore[no-any-return]
            if not len(buffer):
                raise ValueError("read_into: the buffer has no room")
        self._on_eof()
        return None

    def _add_input(self, size: int) -> None:
        """Add to a buffer that is not empty what the kernel has, up to so many bytes.

        Otherwise a handler that pushes back what is incomplete would never see the rest. An end, or an error, is kept
        for the read after it.
        """
        if self._eof or self.closed or self._finishing:
            return
        try:
            data: bytes = self.sock.recv(size)
        except BlockingIOError:
            return
        except OSError as error:
            if self._is_short_of_memory(error):
                return
            self._read_error, data = without_traceback(error), b""
        if data:
            self._last_activity = self.loop.now
            self._append(data)
        else:
            self._meet_end(EOF_MET)

    def _append(self, data: bytes) -> None:
        """Add to a buffer that is not empty."""
        buffer = self._buffer
        if isinstance(buffer, bytearray):
            buffer += data
        else:
            joined = buffer[self._pos :] + data
            self._buffer = joined if len(joined) <= _LARGE else bytearray(joined)
            self._pos, self._scan_from = 0, min(self._scan_from, 0)

    def _on_eof(self) -> None:
        """There is nothing more to read, and `read` says so."""
        self._meet_end(EOF_TOLD)
        if self._read_error is not None:  # no event need tell of it any more
            self.loop.ready.append(partial(self.loop.call, self, self._tell_error))

    def _meet_end(self, eof: int) -> None:
        """No event need announce the end any more. A task that waits for what has come to its end is to find it."""
        self._eof = eof
        self.loop.interest_changed.append(self)
        if self._reader is not None:
            self.loop.pending_reads[self] = True

    def push_back_read(self, data: Buffer) -> None:
        """Put bytes before everything unread.

        If reading is watched, `event_read` is called again at the end of the turn, for as long as it leaves less than
        there was. One that leaves everything waits for new bytes, for the end of the stream, or for `watch_read(True)`.
        """
        self.loop.check_thread("push_back_read")
        data = as_bytes(data)
        if data and not self.closed and not self._finishing:
            self._put_before(data)
            self._scan_from = 0
            if self._watch_read or self._reader is not None:
                self.loop.pending_reads[self] = True

    def _put_before(self, data: bytes) -> None:
        """Put bytes before those in the buffer.

        One that is large grows at its head by as much as it holds: then to put many small pieces there takes a time
        that is proportional to their size, whatever lies behind them.
        """
        buffer, start = self._buffer, self._pos
        unread = len(buffer) - start
        if unread + len(data) <= _LARGE:
            self._buffer, self._pos = data + buffer[start:], 0
            return
        if start < len(data) or type(buffer) is bytes:
            grown = bytearray(max(unread, len(data)))
            start = len(grown)
            grown += memoryview(buffer)[self._pos :]
            self._buffer = buffer = grown
        self._pos = start - len(data)
        buffer[self._pos : start] = data  # type: ignore[index]

    def watch_read(self, on: bool) -> None:
        """Have `event_read` called whenever there is input, also input that was read ahead; or no longer."""
        loop = self.loop
        if get_ident() != loop.thread:
            loop.check_thread("watch_read")
        if not on:
            self._watch_read = False
        elif not self.closed and not self._finishing:
            if self._timer is None and loop.running:
                self._last_activity = loop.now
            else:
                self._begin_wait()
            if self._registered_mask & READ:
                self._watch_read, self._sequential = True, 0
            else:
                self._begin_to_watch()
            if self._buffer or self._eof == EOF_MET:
                loop.pending_reads.setdefault(self, False)

    def _begin_to_watch(self) -> None:
        """`watch_read`, where the kernel has to be told."""
        before, self._watch_read = self._watch_read, True
        try:
            self._add_interest(READ)
        except BaseException:
            self._watch_read = before
            raise
        self._sequential = 0

    @property
    def buffered(self) -> int:
        """How many bytes were read ahead or pushed back, and are not read yet."""
        return len(self._buffer) - self._pos

    @property
    def idle(self) -> bool:
        """Does it wait for the next request? When it does, a drain of its listener ends it. A subclass that knows more
        may override this, for a request of which this object shows no trace: `return super().idle and not self.jobs`.
        Or hold `busy()` for as long as there is one.
        """
        waits = self._reader is not None if not self._watch_read else not self._watch_write
        return waits and not self._at_work and self._queue is None and not self._has_input()

    def _answers(self) -> None:
        self._write_closed = OBSERVED | (OWES if self._buffer else 0)  # there is more to answer
        if self._sequential:
            self._sequential = 2

    def _consume(self, n: int) -> bytes:
        """Take up to n bytes out of the buffer, which is not empty."""
        if n <= 0:
            raise ValueError(f"read({n}): at least one byte must be asked for")
        buffer, start = self._buffer, self._pos
        taken = buffer[start : start + n]
        self._scan_from = 0
        if start + n >= len(buffer):
            self._buffer, self._pos = b"", 0
        elif isinstance(buffer, bytearray):
            self._pos = start + n
            if self._pos > len(buffer) // 4 * 3:  # not each time: there is room for what is pushed back
                del buffer[: self._pos]
                self._pos = 0
        else:
            self._pos = start + n
        return taken if isinstance(taken, bytes) else bytes(taken)

    def _has_input(self) -> bool:
        """Is there input that nobody has read, in the buffer or in the kernel?"""
        if self._buffer:
            return True
        try:
            return bool(self.sock.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return False
        except OSError as error:
            if self._is_short_of_memory(error):
                return True  # so it seems
            self._read_error = self._read_error or without_traceback(error)  # which the OS tells but once
            return False

    def _peer_has_acted(self) -> bool:
        if self._sending == BLOCKED:
            before = self.unsent
            self._try_again()
            if self.closed or self.unsent < before:
                return True
        if self._eof or not (self._watch_read or self._reader is not None):
            return False
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError as error:
            if not self._is_short_of_memory(error):
                self._read_error = self._read_error or without_traceback(error)  # which the OS tells but once
        return True

    # -- events

    def event_err(self) -> object:
        """Called once when an error has broken the connection and, where reading is watched, all its input was read.

        It closes, with that error as the reason, unless there is input that nobody has read.
        """
        if self.closed or self._finishing:  # by what a subclass does before it calls this
            return None
        self._read_error = self._read_error or self._pending_error()
        if not self._has_input():
            self._hangup_state |= BY_PEER
            self.close(self._read_error or "an error on the socket")
        return None

    def event_hup(self) -> object:
        """Called when the peer hung up and, where reading is watched, all its input was read. It closes if so."""
        if not (self.closed or self._finishing) and not self._has_input():
            self._hangup_state |= BY_PEER
            self.close(self._read_error or "the peer hung up")
        return None

    def _hook(self, event: str, call: Callable[[], object]) -> None:
        profile = self.loop.profile
        result = call() if profile is None else profile.measure(self, event, call)
        if result is not None and result is not checks.RESUMED:
            checks.outcome(f"event_{event}", result)

    def _events(self, mask: int) -> None:
        if self.closed:
            return None
        if self._finishing:
            return self._late_events(mask)
        ended = mask & (ERR | HUP)
        if mask & READ or ended:
            self._readable()
        if (mask & WRITE or (ended and self._sending == BLOCKED)) and not self.closed:
            if self._watch_write or self._queue is not None:
                self._hook("write", self.event_write)
        if ended and not self.closed:
            self._hang_up(ended)
        if mask & self._registered_mask and not self.closed:
            self._update_registration()
        return None

    def _readable(self) -> None:
        if self._reader is not None:
            self._hook("read", self._reader.resume)
        elif self._watch_read and (self._eof < EOF_TOLD or self._buffer):
            self._hook("read", self.event_read)
            if self._timer is not None:  # what it did meanwhile was its own work
                self._was_at_work()

    def _hang_up(self, ended: int) -> None:
        """An error or a hang-up, after what could be read and written at once was. Input goes first."""
        if self._reader is not None or self._finishing:
            return
        if self._watch_read or not self._sequential:
            if self._watch_read and (self._eof < EOF_TOLD or self._buffer) and (ended & HUP or self._has_input()):
                return
            if ended & ERR or self._read_error is not None:
                self._tell_error()
            stage = HUP_TOLD if self._eof < EOF_TOLD else HUP_TOLD_AT_END
            if ended & HUP and not self._hangup_state & stage and not self.closed:
                self._hangup_state |= stage
                self._hook("hup", self.event_hup)
        if self._reader is None and self._sending != BLOCKED and not self.closed:
            self._unregister()

    def _tell_error(self) -> None:
        """Call `event_err`, once, unless tasks read this socket: they find the error by reading."""
        silent = self.closed or self._finishing or self._hangup_state & ERR_TOLD or self._reader is not None
        if not silent and (self._watch_read or not self._sequential):
            self._hangup_state |= ERR_TOLD
            self._hook("err", self.event_err)

    def _write_failed(self, error: OSError) -> None:
        """A reset that a send has met is told to nobody else: the reader finds it here, after all that is readable."""
        broken = error.errno in CUT_OFF and not self._eof
        if broken:
            self._read_error = self._read_error or without_traceback(error)
        was_closed = self.closed
        super()._write_failed(error)
        if broken and self.closed and not was_closed:  # there was nothing to read, and whoever tries finds out why
            self._hangup_state |= BY_PEER

    def _pushed_back(self, just_now: bool) -> bool:
        """Deliver what was pushed back or read ahead. Is there more for the next turn?

        A parked task has seen what is in the buffer, unless it was pushed back `just_now`.
        """
        if self._reader is not None:
            if just_now:
                self._readable()
            return False
        if not (self._watch_read and (self._buffer or self._eof == EOF_MET)):
            return False
        if self._deliver() or not self._buffer:  # without a buffer the end is still to be told
            return self._watch_read and self._reader is None and (bool(self._buffer) or self._eof == EOF_MET)
        self.loop.pending_reads.pop(self, None)  # from now on only what is new counts
        if self._eof and self._sending != BLOCKED and not self.closed:  # nor will a hang-up bring anything
            self._unregister()
        return False

    def _deliver(self) -> bool:
        """Call `event_read` for what is in the buffer. Has it made progress, or seen something new?"""
        before, ended = self.buffered, self._eof
        heard = self._last_activity = (
            self._last_activity + 0.0
        )  # an object of its own, in whose place whatever is received puts another
        self._hook("read", self.event_read)
        new = self._last_activity is not heard or self._eof != ended
        if self._timer is not None:  # what it did meanwhile was its own work
            self._was_at_work()
        return new or self.buffered < before or self._reader is not None or not self._watch_read

    # -- the end

    def steal_socket(self) -> tuple[Any, bytes]:
        """Hand over the OS socket and what was read ahead or pushed back, and close this object.

        Raises BusyError while somebody is parked in a read, or while bytes are queued that the kernel does not take.
        """
        self.loop.check_thread("steal_socket")
        if self._reader is not None:
            raise BusyError(f"steal_socket: a task is reading from {connection(self)}")
        self._try_again()
        if self.closed:
            raise ClosedError(self, self.close_reason)
        if self._queue:  # an empty one is being flushed: we are in the last callable of it
            raise BusyError(f"steal_socket: {self.unsent} bytes to {peer_of(self)} are not sent: drain() first")
        if self._read_error is not None:  # of which the OS socket would not tell its next owner
            raise without_traceback(self._read_error)
        sock, rest = self.sock, bytes(self._buffer[self._pos :])
        self._unregister()
        self.loop.unregister(self.fd)
        self.sock = _Stolen()
        self.close("its OS socket was handed over")
        return sock, rest

    def _no_more_reading(self) -> None:
        self._buffer, self._pos = b"", 0
        if self._read_error is not None and self.closed and self.close_reason is None:
            self.close_reason = self._read_error
        if self._reader is not None:
            self._release_reader()

    def _release_reader(self) -> None:
        """There will be nothing to read: the greenlet layer wakes who waits for it."""

    def _may_be_read(self) -> bool:
        if self._finishing or self._eof:
            return bool(self._buffer)
        return self._watch_read or self._reader is not None or bool(self._sequential) or self._has_input()


def room_of(call: str, buffer: Any) -> int:
    """For how many bytes a writable buffer has room. Raises TypeError for another thing, ValueError for one of none."""
    try:
        with memoryview(buffer) as view:
            if view.readonly:
                raise TypeError
            room = view.nbytes
    except TypeError:
        raise TypeError(f"{call} needs a writable buffer, such as a bytearray, not {checks.shown(buffer)}") from None
    if not room:
        raise ValueError(f"{call}: the buffer has no room")
    return room


def check_connection(sock: Any) -> None:
    """Raise TypeError for what a Socket cannot be made of."""
    needs = ("fileno", "recv", "send", "setblocking")
    if not all(callable(getattr(sock, name, None)) for name in needs):
        raise TypeError(f"a Socket is made of a socket, or of what has its methods, not of {checks.shown(sock)}")
    if getattr(sock, "type", None) == socket.SOCK_DGRAM:
        raise TypeError(f"a Socket needs a stream, and {checks.shown(sock)} is for datagrams")


class _Stolen:
    """In the place of an OS socket that was handed over."""

    def close(self) -> None:
        """It belongs to somebody else now."""
