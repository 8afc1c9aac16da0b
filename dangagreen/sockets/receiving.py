"""Receiving: from the kernel into the read buffer or to the caller, and notifying a parked reader or `event_read`.

Rules: a parked reader is arranged by `_await_input` and taken back by `_stop_awaiting`, and nowhere else; errors of
recv(2) are judged by `_ends_input` alone; an error that the OS reports only once (RST) is kept for the next reader,
after all bytes that came before it. What does not belong here: hang-ups, sending, parking.
"""

from __future__ import annotations

import errno
import os
import socket
from _thread import get_ident

from dangagreen import checks
from dangagreen.errors import ClosedError
from dangagreen.loop.handlers import Resumable
from dangagreen.loop.pollers import READ
from dangagreen.loop.turn import LONG_TURN
from dangagreen.sockets.busy import HELD
from dangagreen.sockets.read_buffer import ReadBuffer
from dangagreen.sockets.states import EOF_MET, EOF_TOLD
from dangagreen.tracebacks import is_like, without_traceback

CHUNK = 65536  # bytes that one recv asks for if the amount is not known; malloc has them without an mmap
_BULK_CREDIT = 4 * 1024 * 1024  # bytes of bulk that a task may receive without parking


class Receiving(ReadBuffer):
    """The layer of a socket that receives."""

    __slots__ = {
        "_bulk_credit": "Bytes of bulk that a task may still receive before it parks; once it lingers: were discarded.",
        "_eof": "How far the end of the peer's stream has come: 0, EOF_MET or EOF_TOLD.",
        "_finishing": "Whether `finish()` was called: what the peer still sends is discarded.",
        "_read_error": "The error that has broken the connection, raised after all input in place of EOF; or None.",
        "_sequential": "The style, which decides what a hang-up does: 0 callbacks; 1 tasks; 2 tasks, one has written.",
        "_write_closed": "A slot of back-pressure, which stands here as in C it takes no room beside other small ones.",
    }

    _bulk_credit: int
    _eof: int
    _finishing: bool
    _read_error: OSError | None
    _sequential: int

    # -- callback style

    def read(self, n: int) -> bytes | None:
        """Return at most n bytes; b"" when nothing is there now (EAGAIN); None at EOF, or when the socket is closed.

        An RST is EOF too: `event_err` is called next, unless it closes. Never parks. Raises ValueError for n below 1.
        """
        if self._buffer:
            if n > self.buffered:
                self._add_input(n - self.buffered)
            return self._consume(n)
        if self.closed or self._finishing:
            return None
        try:
            data: bytes = self.sock.recv(n)
        except OSError as error:
            if not self._ends_input(error):
                return b""
        else:
            if data:
                self._last_activity = self.loop.now
                return data
            if n <= 0:
                raise ValueError(f"read({n}): at least one byte must be asked for")
        self._tell_eof()
        return None

    def read_into(self, buffer: bytearray | memoryview) -> int | None:
        """Read into a writable buffer, which may be reused. Returns how many bytes; 0 when nothing is there now.

        Returns None at EOF, or when the socket is closed, as `read` does. For bulk: nothing is allocated. Never parks.
        """
        if self.closed or self._finishing:
            return None
        size = self._receive_into(buffer)
        if size is None:
            self._tell_eof()
        return size

    def push_back_read(self, data: checks.Buffer) -> None:
        """Put bytes back before everything unread; `read` returns them together with what has come since.

        If reading is watched, `event_read` is called again at the end of the turn, as long as it leaves less than there
        was; otherwise when new bytes come, at EOF, or after `watch_read(True)`. Does nothing once closed or finished.
        """
        self.loop.check_thread("push_back_read")
        data = checks.as_bytes(data)
        if data and not self.closed and not self._finishing:
            self._put_before(data)
            if self._watch_read or self._reader is not None:
                self.loop.pending_reads[self] = True

    def watch_read(self, on: bool) -> None:
        """Set whether `event_read` is called when there is input or EOF, also input that was read ahead.

        True puts the connection into callback style. False pauses it; TCP's flow control then stops the peer.
        """
        loop = self.loop
        if get_ident() != loop.thread:
            loop.check_thread("watch_read")
        if not on:
            self._watch_input(False)
        elif not self.closed and not self._finishing:
            if self._timer is None and loop.running:
                self._last_activity = loop.now
            else:
                self._begin_wait()
            if self._registered_mask & READ:
                self._watch_read = True
            else:
                self._watch_input(True)
            self._sequential = 0
            if self._buffer or self._eof == EOF_MET:
                loop.pending_reads.setdefault(self, False)

    # -- a task that waits for input

    def _await_input(self, reader: Resumable) -> bool:
        """Park a reader: the loop resumes it when there is input or EOF. There is no other reader.

        Returns False if there is nothing to wait for: EOF, or closed. Raises OSError if the poller refuses (ENOSPC,
        ENOMEM); then the reader is not parked.
        """
        if self._eof or self._finishing or self.closed:
            return False
        if self._timer is None:
            self._last_activity = self.loop.now
        else:
            self._begin_wait()
        self._reader = reader
        if not self._registered_mask & READ:
            try:
                self._add_interest(READ)
            except BaseException:
                self._stop_awaiting(reader)
                raise
        if not self._sequential and not self._watch_read:
            self._sequential = 1
        return True

    def _stop_awaiting(self, reader: Resumable) -> None:
        """Undo `_await_input` for this reader. Input that was read ahead is for `event_read` now, if watched."""
        if self._reader is reader:
            self._reader = None
            if self._timer is not None:
                self._give_up_wait()
            if self._watch_read:
                self.loop.pending_reads.setdefault(self, False)

    def _may_go_on(self, size: int) -> bool:
        """Whether a task that has received all the bulk it asked for may call recv for `size` more before it parks.

        That saves a turn, and stays in one connection's cached memory: a third of the cost of bulk input. Bounded in
        bytes and in the time since the turn began, for fairness.
        """
        if self._bulk_credit > 0 and not (self._eof or self._is_over() or self._watch_read or self._reader is not None):
            if self.loop.clock() - self.loop.now < LONG_TURN:
                self._bulk_credit -= size
                return True
        self._bulk_credit = _BULK_CREDIT
        return False

    def _was_less(self) -> None:
        """Note that the kernel had less than was asked for: the next bulk read parks first."""
        self._bulk_credit = 0

    def _has_reader(self) -> bool:
        """Whether a task is parked in a read."""
        return self._reader is not None

    def _parked_reader(self) -> Resumable | None:
        """The waiter that is parked in a read of it, or what stands for it; or None."""
        return self._reader

    def _awaits_end(self) -> bool:
        """Whether a parked task or a lingering close waits for the end of the input."""
        return self._reader is not None or self._finishing

    def _interest(self) -> int:
        reads = (self._watch_read or self._reader is not None or self._finishing) and not self._eof
        return READ if reads else 0

    def _is_callback_style(self) -> bool:
        """Whether hang-ups and errors call the hooks. In sequential style a task finds them by reading."""
        return self._watch_read or not self._sequential

    def _set_style(self, sequential: bool) -> None:
        """Set the style of a connection that was not read yet: tasks, or callbacks."""
        self._sequential = int(sequential)

    def _begin_request(self, size: int) -> bool | None:
        """Read up to `size` bytes of a request, unless some are in the buffer; until `watch_read(True)` they are for
        the task of the handler, to be started. False: there is no input, or a handler runs already. None: EOF.
        """
        if self._at_work & 1:
            self._watch_read = False  # at its end reading is watched again
            return False
        if not self._buffer:
            if self._reader is not None:
                return False
            if not (data := Receiving.read(self, size)):
                return None if data is None else False
            self._buffer = data
        self._watch_read, self._sequential = False, 1
        self._at_work += 1
        return True

    def _end_request(self) -> bool:
        """Note that a handler has returned. False at EOF, where nothing else is at work: the connection is to end."""
        if self._eof and self._has_ended() and self._at_work < HELD:
            return False
        self._at_work -= 1
        return True

    def _has_next_request(self) -> bool:
        """Whether the buffer has input for the next call of the handler."""
        return self.buffered > 0 and not self._watch_read and self._reader is None

    def _goes_on_with_callbacks(self) -> bool:
        """Whether a handler that has returned has called `watch_read(True)`."""
        if self._watch_read:
            self._sequential = 0
        return self._watch_read

    # -- the kernel

    def _receive_into(self, buffer: bytearray | memoryview) -> int | None:
        """Receive into a writable buffer, from the read buffer first: how many bytes. 0: none yet; None: EOF."""
        if self.buffered:
            with memoryview(buffer).cast("B") as view:
                return self._consume_into(view)
        try:
            size: int = self.sock.recv_into(buffer)
        except OSError as error:
            return None if self._ends_input(error) else 0
        if size:
            self._heard()
            return size
        if not len(buffer):
            raise ValueError("read_into: the buffer has no room")
        return None

    def _add_input(self, size: int) -> None:
        """Receive up to so many bytes and append them to the buffer, which is not empty; keep EOF, or an error."""
        if self._eof or self.closed or self._finishing:
            return
        try:
            data: bytes = self.sock.recv(size)
        except OSError as error:
            if not self._ends_input(error):
                return
            data = b""
        if data:
            self._heard()
            self._append(data)
        else:
            self._meet_eof()

    def _discard(self) -> int | None:
        """Receive and discard. Returns how many bytes that were in all; None: EOF."""
        try:
            size = len(self.sock.recv(CHUNK))
        except OSError as error:
            if not self._ends_input(error):
                return self._bulk_credit
            size = 0
        self._bulk_credit += size
        if not size:
            self._meet_eof()
            return None
        return self._bulk_credit

    def _ends_input(self, error: OSError) -> bool:
        """Judge an error of recv(2): True if the input has ended by it, which is kept; False for EAGAIN, no memory."""
        if isinstance(error, BlockingIOError) or self._is_short_of_memory(error):
            return False
        self._note_error(error)
        return True

    def _note_error(self, error: OSError) -> None:
        """Keep the first error that has broken the connection: the OS reports it only once."""
        if self._read_error is None:
            self._read_error = without_traceback(error)

    # -- the state of the input

    def _has_news(self) -> bool:
        """Whether there is something for `event_read` that no event announces: bytes that were read ahead, or EOF."""
        return self.buffered > 0 or self._eof == EOF_MET

    def _event_read_is_due(self) -> bool:
        """Whether `event_read` is to be called at a READ event."""
        return self._watch_read and (self._eof < EOF_TOLD or self.buffered > 0)

    def _is_over(self) -> bool:
        """Whether it was closed or finished, so that reading is over."""
        return self.closed or self._finishing

    def _has_ended(self) -> bool:
        """Whether EOF has come, and all input was read."""
        return bool(self._eof) and not self.buffered and self._reader is None

    def _task_writes(self) -> None:
        """A task writes: sequential style, unless callbacks read the connection."""
        if not self._watch_read:
            self._sequential = 2

    def _is_written_by_a_task(self) -> bool:
        """Whether a task has written, in sequential style."""
        return self._sequential == 2

    def _task_has_written(self) -> None:
        """Note that a task has written, in sequential style."""
        if self._sequential:
            self._sequential = 2

    # -- the end of the input

    def _meet_eof(self, eof: int = EOF_MET) -> bool:
        """Note that EOF has come, which no other event may announce. Returns whether it is by an error.

        A parked reader is resumed, after this turn's flush in the next one; else `event_read` is called, if not told.
        """
        self._eof = max(self._eof, eof)
        self.loop.interest_changed.append(self)
        if self._reader is not None:
            self.loop.pending_reads[self] = True
        elif self._watch_read and self._eof == EOF_MET:
            self.loop.pending_reads.setdefault(self, False)
        return self._read_error is not None

    def _tell_eof(self) -> None:
        """Note that `read` returns None for EOF."""
        self._meet_eof(EOF_TOLD)

    def _is_at_eof(self) -> bool:
        return self._eof != 0

    def _is_eof_told(self) -> bool:
        return self._eof >= EOF_TOLD

    def _has_failed(self) -> bool:
        """Whether an error has broken the connection."""
        return self._read_error is not None

    def _is_broken_by(self, error: BaseException) -> bool:
        """Whether it is like the error that has broken the connection."""
        return is_like(error, self._read_error)

    def _reason(self, otherwise: object = None) -> object:
        """The error that has broken the connection, as a reason to close."""
        return self._read_error or otherwise

    def _raise_error(self) -> None:
        """Raise the error that has broken the connection, if one has."""
        if self._read_error is not None:
            raise without_traceback(self._read_error)

    def _cause(self, error: OSError) -> OSError:
        """The error that has broken the connection, if this one only says that it is gone (EPIPE, ENOTCONN)."""
        if error.errno == errno.ENOTCONN and self._read_error is None:
            return self._pending_error() or error
        return self._read_error or error

    def _pending_error(self) -> OSError | None:
        """SO_ERROR as an exception, or None. The OS clears it."""
        number = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return OSError(number, os.strerror(number)) if number else None

    def _discard_input(self) -> None:
        """Discard input from now on; it is received only to find the peer's FIN."""
        self._finishing, self._bulk_credit = True, 0
        self._watch_input(False)
        self._end_reading()

    def _ask_for_error(self) -> None:
        """Keep SO_ERROR as the error that has broken the connection, if there is one."""
        self._read_error = self._read_error or self._pending_error()

    def _end_reading(self) -> None:
        """Drop the read buffer, and wake a parked reader with ClosedError."""
        if self._buffer:
            self._drop_input()
        if self._read_error is not None and self.closed and self.close_reason is None:
            self.close_reason = self._read_error
        if self._reader is not None:  # `_wake_reader`, in line: who closes a socket calls a function less
            reader, self._reader = self._reader, None
            reader._wake(ClosedError(self, self.close_reason), undone=True)

    def _wake_reader(self, error: Exception) -> None:
        """Have a parked reader raise an error."""
        if (reader := self._reader) is not None:
            self._reader = None
            reader._wake(error, undone=True)
