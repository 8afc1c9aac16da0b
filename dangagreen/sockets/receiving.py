"""Receiving: from the kernel into the buffer or the caller's hands, and who hears of it: a parked reader, `event_read`.

Rules: a parked reader is arranged by `_await_input` and taken back by `_stop_awaiting`, and nowhere else; what recv
says when it fails is looked at by `_ends_input` alone; an error that the OS tells but once is kept for whoever reads
next, after all that came before it. What does not belong here: hang-ups, what is to be sent, waiting itself.
"""

from __future__ import annotations

import errno
import os
import socket
from _thread import get_ident

from dangagreen import checks
from dangagreen.errors import ClosedError
from dangagreen.loop.handlers import Reader
from dangagreen.loop.pollers import READ
from dangagreen.loop.turn import LONG_TURN
from dangagreen.sockets.read_buffer import ReadBuffer
from dangagreen.sockets.states import EOF_MET, EOF_TOLD
from dangagreen.tracebacks import without_traceback

CHUNK = 65536  # what one recv asks for, when nobody knows how much will come; no mmap for each of them
_BULK_CREDIT = 4 * 1024 * 1024  # bytes of bulk that a task may receive without parking


class Receiving(ReadBuffer):
    """The receiving half of a socket."""

    __slots__ = {
        "_bulk_credit": "Bytes of bulk that a task may still receive before it parks.",
        "_eof": "How far the end of the peer's stream has come: 0, EOF_MET or EOF_TOLD.",
        "_finishing": "Whether `finish()` was called: what the peer still sends is discarded.",
        "_read_error": "What has broken the connection: it stands in the place of a clean end, after all input.",
        "_sequential": "Whose style decides what a hang-up does: 0 callbacks; 1 tasks; 2 tasks, and one has written.",
    }

    _bulk_credit: int
    _eof: int
    _finishing: bool
    _read_error: OSError | None
    _sequential: int

    # -- callback style

    def read(self, n: int) -> bytes | None:
        """At most n bytes; b"" when nothing is there now; None when the connection has ended or is closed."""
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
        """`read` into a writable buffer of your own, which may be used again and again: how many bytes it got.

        0 when nothing is there now; None when the connection has ended or is closed. For bulk: nothing is allocated.
        """
        if self.closed or self._finishing:
            return None
        size = self._receive_into(buffer)
        if size is None:
            self._tell_eof()
        return size

    def push_back_read(self, data: checks.Buffer) -> None:
        """Put bytes before everything unread.

        If reading is watched, `event_read` is called again at the end of the turn, for as long as it leaves less than
        there was. One that leaves everything waits for new bytes, for the end of the stream, or for `watch_read(True)`.
        """
        self.loop.check_thread("push_back_read")
        data = checks.as_bytes(data)
        if data and not self.closed and not self._finishing:
            self._put_before(data)
            if self._watch_read or self._reader is not None:
                self.loop.pending_reads[self] = True

    def watch_read(self, on: bool) -> None:
        """Have `event_read` called whenever there is input, also input that was read ahead; or no longer."""
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

    def _await_input(self, reader: Reader) -> bool:
        """Have the loop resume this reader, of whom there is none yet, when there is input, or an end.

        False where it need not wait, since nothing will come. Raises OSError where the poller refuses; then nobody
        reads.
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

    def _stop_awaiting(self, reader: Reader) -> None:
        """Take that back, if it is this reader's, and nothing has come. What was read ahead is for `event_read` now."""
        if self._reader is reader:
            self._reader = None
            if self._timer is not None:
                self._give_up_wait()
            if self._watch_read:
                self.loop.pending_reads.setdefault(self, False)

    def _receive(self, size: int) -> bool:
        """Add to the buffer what the kernel has, be it nothing, up to `size` bytes: for the reader who was resumed for
        that, and is parked no more; or, with 0, merely unpark him. False where nothing more will come."""
        if self._reader is not None:
            self._reader = None
            if self._watch_read:
                self.loop.pending_reads.setdefault(self, False)  # what this read leaves over is for event_read
        if self._eof or self._finishing or self.closed:
            return False
        if not size:
            return True
        try:
            chunk: bytes = self.sock.recv(size)
        except OSError as error:
            if not self._ends_input(error):
                return True  # resumed by push_back_read, or for nothing: the caller looks, and may come again
            chunk = b""
        if not chunk:
            self._meet_eof()
            return False
        if self._timer is not None:
            self._last_activity = self.loop.clock()  # others may have been at work since the turn began
        if self._buffer:
            self._append(chunk)
        else:
            self._buffer = chunk
            self._scan_from = 0
        return True

    def _may_go_on(self, call: str, size: int) -> bool:
        """May a task that has just got all the bulk that it had asked for try for `size` more before it parks?

        That saves a turn, and keeps to one connection's memory for a while: in all a third of what bulk receive costs.
        Bounded in bytes and in the time since the turn began, so that others have their turn.
        """
        loop = self.loop
        if get_ident() != loop.thread:
            loop.check_thread(call)
        if self._bulk_credit > 0 and not (self._eof or self._finishing or self._watch_read or self._reader is not None):
            if loop.clock() - loop.now < LONG_TURN:
                self._bulk_credit -= size
                return True
        self._bulk_credit = _BULK_CREDIT
        return False

    def _was_less(self) -> None:
        """The kernel had less than it was asked for: to try for more would be in vain."""
        self._bulk_credit = 0

    # -- who hears of it

    def _readable(self) -> None:
        """There is input, or an end."""
        if self._reader is not None:
            self._hook("read", self._reader.resume)
        elif self._event_read_is_due():
            self._hook("read", self.event_read)
            if self._timer is not None:  # what it did meanwhile was its own work
                self._was_at_work()

    def _deliver_read_ahead(self, just_now: bool) -> bool | None:
        """Deliver what was pushed back or read ahead. True: there is more for the next turn; None: there is, and
        `event_read` leaves it until there is something new.

        A parked task has seen what is in the buffer, unless it was pushed back `just_now`.
        """
        if self._reader is not None:
            if just_now:
                self._readable()
            return False
        if not (self._watch_read and self._has_news()):
            return False
        before, ended, mark = self.buffered, self._eof, self._mark()
        self._hook("read", self.event_read)
        new = self._last_activity is not mark or self._eof != ended
        if self._timer is not None:  # what it did meanwhile was its own work
            self._was_at_work()
        reads = self._watch_read and self._reader is None
        if new or self.buffered < before or not reads or not self._buffer:  # without a buffer the end is to be told
            return reads and self._has_news()
        return None

    def _has_reader(self) -> bool:
        """Is a task parked in a read?"""
        return self._reader is not None

    def _is_callback_style(self) -> bool:
        """Are hang-ups and errors told to the hooks? In sequential style whoever reads finds them."""
        return self._watch_read or not self._sequential

    def _set_style(self, sequential: bool) -> None:
        """Who decides that before anybody has read: tasks, or callbacks."""
        self._sequential = int(sequential)

    def _begin_request(self) -> None:
        """There is input: it is for the task of a handler, which is to be started, until `watch_read(True)`."""
        self._watch_read, self._sequential = False, 1
        self._at_work += 1

    def _has_next_request(self) -> bool:
        """Is there more in the buffer, for nobody but the next handler?"""
        return bool(self._buffer) and not self._watch_read and self._reader is None

    def _goes_on_with_callbacks(self) -> bool:
        """Has a handler that has returned called `watch_read(True)`?"""
        if self._watch_read:
            self._sequential = 0
        return self._watch_read

    # -- the kernel

    def _receive_into(self, buffer: bytearray | memoryview) -> int | None:
        """Put into it what is in our buffer, or else in the kernel's: how many bytes. 0: none yet; None: the end."""
        if self._buffer:
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
        """Add to a buffer that is not empty what the kernel has, up to so many bytes.

        Otherwise a handler that pushes back what is incomplete would never see the rest. An end, or an error, is kept
        for the read after it.
        """
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
        """Receive, and let go of it: how many bytes. 0: none yet; None: the end."""
        try:
            size = len(self.sock.recv(CHUNK))
        except OSError as error:
            if not self._ends_input(error):
                return 0
            size = 0
        if not size:
            self._meet_eof()
        return size or None

    def _peek(self) -> int | None:
        """Does the kernel have something for us? It stays there. 1; 0: nothing yet; -1: the end; None: an error."""
        try:
            return len(self.sock.recv(1, socket.MSG_PEEK)) or -1
        except OSError as error:
            return None if self._ends_input(error) else 0

    def _ends_input(self, error: OSError) -> bool:
        """recv has failed. True if the input has ended with that, and then it is noted; False: nothing is there yet, or
        the kernel has no memory now."""
        if isinstance(error, BlockingIOError) or self._is_short_of_memory(error):
            return False
        self._note_error(error)
        return True

    def _note_error(self, error: OSError) -> None:
        """Keep the first error that has broken the connection: the OS tells it but once."""
        if self._read_error is None:
            self._read_error = without_traceback(error)

    # -- what may be known of the input

    @property
    def ready(self) -> bool:
        """For `select`: a read would not wait, since there is input, or the end, or the socket was closed.

        False while a task is parked in a read: the input is that task's.
        """
        if self._buffer or self._eof or self.closed or self._finishing:
            return True
        if self._reader is not None:
            return False
        there = self._peek()
        if there is None:  # the OS tells it but once
            self._meet_eof()
        return there != 0

    def _has_input(self) -> bool:
        """Is there input that nobody has read, in the buffer or in the kernel? So it seems where that has no memory."""
        return bool(self._buffer) or self._peek() == 1 or self._is_paused()

    def _has_news(self) -> bool:
        """Is there something that no event will tell `event_read`: bytes that were read ahead, or the end?"""
        return bool(self._buffer) or self._eof == EOF_MET

    def _event_read_is_due(self) -> bool:
        """Is `event_read` to be called when there is input, and may there be any?"""
        return self._watch_read and (self._eof < EOF_TOLD or bool(self._buffer))

    def _is_over(self) -> bool:
        """Is nobody to read it any more, since it was closed or finished?"""
        return self.closed or self._finishing

    def _has_ended(self) -> bool:
        """Has the peer's stream ended, and was all of it read?"""
        return bool(self._eof) and not self._buffer and self._reader is None

    def _waits_in_vain(self) -> bool:
        """Do those who read it wait for input, and the kernel has none, nor an end?"""
        if self._eof or not (self._watch_read or self._reader is not None):
            return True
        return self._peek() == 0 and not self._is_paused()

    def _may_be_read(self) -> bool:
        """May somebody still read it, so that its end will be found there?"""
        if self._finishing or self._eof:
            return bool(self._buffer)
        return self._watch_read or self._reader is not None or bool(self._sequential) or self._has_input()

    def _task_writes(self) -> None:
        """A task queues something: unless callbacks read it as well, tasks have it."""
        if not self._watch_read:
            self._sequential = 2

    def _task_has_written(self) -> None:
        if self._sequential:
            self._sequential = 2

    # -- the end of the input

    def _meet_eof(self, eof: int = EOF_MET) -> None:
        """There is nothing more to receive, and no event need announce it any more. A parked task that waits for what
        has come to its end is to find it; or `event_read`, what was only met."""
        self._eof = max(self._eof, eof)
        self.loop.interest_changed.append(self)
        if self._reader is not None:
            self.loop.pending_reads[self] = True
        elif self._watch_read and self._eof == EOF_MET:
            self.loop.pending_reads.setdefault(self, False)

    def _tell_eof(self) -> None:
        """There is nothing more to read, and `read` says so."""
        self._meet_eof(EOF_TOLD)

    def _cause(self, error: OSError) -> OSError:
        """What has broken the connection, where the error only says that it is gone (EPIPE, or ENOTCONN)."""
        if error.errno == errno.ENOTCONN and self._read_error is None:
            return self._pending_error() or error
        return self._read_error or error

    def _pending_error(self) -> OSError | None:
        """The error that the OS has to tell, which it then tells nobody else."""
        number = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return OSError(number, os.strerror(number)) if number else None

    def _discard_input(self) -> None:
        """From now on what comes is for nobody: it is received so that the peer's end is heard of."""
        self._finishing = True
        self._watch_input(False)
        self._end_reading()

    def _ask_for_error(self) -> None:
        """Note what has broken the connection, if the OS can tell."""
        self._read_error = self._read_error or self._pending_error()

    def _end_reading(self) -> None:
        """The buffer is dropped, and whoever is parked in a read is woken with ClosedError."""
        if self._buffer:
            self._drop_input()
        if self._read_error is not None and self.closed and self.close_reason is None:
            self.close_reason = self._read_error
        if self._reader is not None:
            self._reader._wake(ClosedError(self, self.close_reason))
