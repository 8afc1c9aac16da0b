"""Reading in sequential style: the calls that look blocking, and how input gets into the buffer.

Rules: bytes belong to the buffer until a read returns them, so that a cancellation or a timeout loses nothing; what
is unbounded takes a limit, and reaching it consumes nothing; every call that may park looks for cancellation first,
also when it need not wait. What does not belong here: writing.
"""

from __future__ import annotations

import sys
from _thread import get_ident
from collections.abc import Iterator
from io import BytesIO
from itertools import islice

from dangagreen import checks
from dangagreen.errors import ClosedError, IncompleteReadError, LimitError, peer_of
from dangagreen.green.parking import checkpoint, park
from dangagreen.green.waiters import Waiter, WaitKind, wake
from dangagreen.loop.pollers import READ
from dangagreen.loop.turn import LONG_TURN
from dangagreen.parks import parks
from dangagreen.sockets.sock import room_of
from dangagreen.sockets.states import BY_PEER, EOF_MET, OBSERVED, OWES
from dangagreen.sockets.write_queue import as_bytes
from dangagreen.streams.readiness import SelectableSocket
from dangagreen.tracebacks import without_traceback

_CHUNK = 65536  # what one recv asks for, when nobody knows how much will come; no mmap for each of them
_LINES = 16384  # the same where many small things may come: they are read without a park, and others wait meanwhile
_MOST = 1024 * 1024  # what it asks for when more is wanted: few large ones are twice as cheap as many small ones
_LARGE = 65536  # a buffer beyond this grows in place
_BULK_CREDIT = 4 * 1024 * 1024  # bytes of bulk that a task may receive without parking
_LINES_AT_ONCE = 16  # lines that a task is given in one go: so many calls of its budget,
_SHORT = 2048  # and so many bytes in all
_NEWLINE = 10
_TO_END = 16 * 1024 * 1024


class ReadingSocket(SelectableSocket):
    """The part of a socket that tasks read.

    While a task is parked in a read it gets the input; otherwise `event_read` does, if reading is watched. Both see
    one buffer. Reads raise ClosedError once the socket was closed on this side, ConnectionError when the connection
    broke, BusyError while another task is parked in a read, Cancelled when the task was cancelled. In a callback all
    of them raise CannotParkError.
    """

    __slots__ = ()

    @parks
    def read_exactly(self, n: int) -> bytes:
        """Parks until n bytes are there. Raises IncompleteReadError if the peer ends first; b"" for 0."""
        loop = self.loop
        task: Waiter | None = loop.current
        if task is None or task.interrupt is not None or self._reader is not None or not next(loop.budget, False):
            task = self._checkpoint("read_exactly")
        if type(n) is not int or n <= 0:
            n = checks.count("the n of read_exactly", n)
            if not n:
                return b""
        while len(self._buffer) - self._pos < n:
            missing = n - self.buffered
            fill = self._fill if missing <= _CHUNK else self._fill_bulk
            if missing > sys.maxsize:
                checks.count("the n of read_exactly", n)
            if not fill(task, _READ_EXACTLY, min(max(missing, _CHUNK), _MOST)):
                raise self._incomplete(f"the {n} that were asked for")
        buffer, start = self._buffer, self._pos
        if start + n < len(buffer) and type(buffer) is bytes:
            self._pos = start + n
            return buffer[start : start + n]
        return self._consume(n)

    @parks
    def read_line(self, limit: int | None = None) -> bytes:
        r"""Parks until a line, ended by b"\n", is there; returns it with its end, or b"" at the end of the stream.

        Raises IncompleteReadError if the stream ends within a line, LimitError if a line is longer than `limit`,
        by default `line_limit`.
        """
        task: Waiter | None = self.loop.current
        if task is None or task.interrupt is not None or self._reader is not None:
            task = self._checkpoint("read_line")
        if limit is not None:
            limit = checks.count("the limit of read_line", limit)
        buffer = self._buffer
        if not buffer:
            if not self._fill(task, _READ_LINE):
                checkpoint(self.loop, "read_line")
                return b""
            buffer = self._buffer
            if limit is None and not self._pos and 0 < buffer.find(b"\n") + 1 == len(buffer) <= self._line_limit:
                self._buffer = b""  # one line came in one piece: it is the buffer
                return buffer if type(buffer) is bytes else bytes(buffer)
        start = self._pos
        end = buffer.find(b"\n", start) + 1
        if limit is None:
            if end and end < self._scan_from:
                self._pos = end
                return buffer[start:end]  # type: ignore[return-value]
            limit = self._line_limit
        if not end:
            end = self._find(task, _READ_LINE, b"\n", limit)
            if not end:
                return b""
            buffer, start = self._buffer, self._pos
        if end - start > limit:
            raise self._limit_error(limit, "a line")
        for _ in self.loop.budget:
            if type(buffer) is bytes:
                if end < len(buffer):
                    if start:  # there have been others
                        self._give_lines(end, end - start)
                    self._pos = end
                    return buffer[start:end]
                if not start:
                    self._buffer = b""  # one line came in one piece: it is the buffer
                    return buffer
            return self._consume(end - start)
        self._checkpoint("read_line")
        return self.read_line(limit)

    def _give_lines(self, end: int, size: int) -> None:
        """Let `read_line` return the next lines in fewer steps, if they are about as long as this one. The budget of
        calls pays for them at once."""
        most = min(_LINES_AT_ONCE * size, _SHORT, self._line_limit)
        self._scan_from = min(len(self._buffer), end + most)
        next(islice(self.loop.budget, _LINES_AT_ONCE, None), None)

    @parks
    def read_until(self, separator: bytes, limit: int | None = None) -> bytes:
        """Parks until `separator` has come; returns everything up to its end, or b"" at the end of the stream.

        Raises IncompleteReadError if the stream ends before it, LimitError if it is not within the first `limit` bytes,
        by default `line_limit`.
        """
        loop = self.loop
        task: Waiter | None = loop.current
        if task is None or task.interrupt is not None or self._reader is not None or not next(loop.budget, False):
            task = self._checkpoint("read_until")
        separator = as_bytes(separator)
        if not separator:
            raise ValueError("read_until: the separator is empty")
        limit = self._line_limit if limit is None else checks.count("the limit of read_until", limit)
        end = self._find(task, _READ_UNTIL, separator, limit)
        if end - self._pos > limit:
            raise self._limit_error(limit, _up_to(separator))
        return self._consume(end - self._pos) if end else b""

    @parks
    def read_some(self, limit: int = _CHUNK) -> bytes:
        """Parks until there is anything; returns up to `limit` bytes, or b"" at the end of the stream."""
        loop = self.loop
        task: Waiter | None = loop.current
        if task is None or task.interrupt is not None or self._reader is not None or not next(loop.budget, False):
            task = self._checkpoint("read_some")
        if limit is not _CHUNK:
            limit = checks.count("at least one byte must be asked for: the limit of read_some", limit, 1)
        while not self._buffer:
            if limit <= _CHUNK:
                there = self._fill(task, _READ_SOME, limit)
            else:
                there = self._fill_bulk(task, _READ_SOME, min(limit, _MOST))
            if not there:
                return b""
        return self._consume(limit)

    @parks
    def read_some_into(self, buffer: bytearray | memoryview) -> int:
        """Parks until there is anything; puts it into a writable buffer, and returns how many bytes; 0 at the end.

        `read_some` for bulk: the buffer is yours, and may be used again and again.
        """
        loop = self.loop
        task: Waiter | None = loop.current
        if task is None or task.interrupt is not None or self._reader is not None or not next(loop.budget, False):
            task = self._checkpoint("read_some_into")
        room = room_of("read_some_into", buffer)
        while True:
            if not self._buffer and not self._may_go_on(_READ_SOME_INTO):
                if not self._fill(task, _READ_SOME_INTO, 0):
                    return 0
                self._bulk_credit = _BULK_CREDIT
            size = self.read_into(buffer)
            self._bulk_credit = self._bulk_credit - room if size == room else 0
            if size:
                return size
            if size is None:
                self._eof = EOF_MET  # a callback has not heard of it
                if self._read_error is not None:
                    raise without_traceback(self._read_error)

    @parks
    def read_to_end(self, limit: int = _TO_END) -> bytes:
        """Parks until the peer ends its stream; returns everything unread. Raises LimitError beyond `limit` bytes."""
        loop = self.loop
        task: Waiter | None = loop.current
        if task is None or task.interrupt is not None or self._reader is not None or not next(loop.budget, False):
            task = self._checkpoint("read_to_end")
        if limit is not _TO_END:
            limit = checks.count("the limit of read_to_end", limit)
        while len(self._buffer) - self._pos <= limit:
            fill = self._fill if self.buffered < _LARGE else self._fill_bulk
            if not fill(task, _READ_TO_END, _CHUNK if self.buffered < _LARGE else 4 * _CHUNK):
                return self._consume(len(self._buffer)) if self._buffer else b""
        raise self._limit_error(limit, "the stream")

    @parks
    def __iter__(self) -> Iterator[bytes]:
        """Parks until a line is there, for each up to the end of the stream, as `read_line()` returns it."""
        loop = self.loop
        while line := self.read_line():
            yield line
            buffer, at = self._buffer, self._pos
            if not buffer or type(buffer) is not bytes or len(buffer) - at > self._line_limit:
                continue
            # Lines that came with it, at three quarters of the cost. What parks or raises is left to read_line, and one
            # line in so many; others may read in between, since the bytes stay in the buffer until they are handed out.
            more: Iterator[bytes] = BytesIO(buffer)
            more.seek(at)  # type: ignore[attr-defined]
            if len(buffer) - at > min(_LINES_AT_ONCE * len(line), _SHORT):  # else there are about so many, or fewer
                next(islice(loop.budget, _LINES_AT_ONCE, None), None)
                more = islice(more, _LINES_AT_ONCE)
            for line in more:
                task = loop.current
                if task is None or task.interrupt is not None or self._reader is not None or line[-1] != _NEWLINE:
                    break
                at += len(line)
                if at < len(buffer):
                    self._pos = at
                else:
                    self._buffer, self._pos = b"", 0
                yield line
                if self._pos != at or self._buffer is not buffer:
                    break

    def _checkpoint(self, call: str) -> Waiter:
        """The task that reads. Raises what keeps it from reading."""
        task = checkpoint(self.loop, call)
        if self._reader is not None:
            raise self._busy(task)
        return task

    def _find(self, task: Waiter, wait: WaitKind, separator: bytes, limit: int) -> int:
        """The position after the next separator, once it has come; 0 at a clean end."""
        self._scan_from = 0
        while True:
            buffer, start = self._buffer, self._pos
            end = buffer.find(separator, start + max(0, 1 - self._scan_from - len(separator)))
            if end >= 0:
                return end + len(separator)
            self._scan_from = start - len(buffer)
            if -self._scan_from >= limit:
                raise self._limit_error(limit, _up_to(separator))
            if not self._fill(task, wait):
                if self._buffer:
                    raise self._incomplete(_up_to(separator))
                return 0

    def _fill(self, task: Waiter, wait: WaitKind, size: int = _LINES) -> bool:
        """Parks until there is input, and adds it, unless `size` is 0, to the buffer. False at the end of the stream.

        It parks before it calls recv: input that is there already is reported by the next wait anyway.
        """
        loop = self.loop
        if get_ident() != loop.thread:
            loop.check_thread(wait.name)
        if self._write_closed or self._eof or self._reader is not None:
            self._check_fill(task)
            if self._eof:
                return False
        if self._timer is None:
            self._last_activity = loop.now
        else:
            self._begin_wait()
        self._reader = task
        if not self._registered_mask & READ:
            self._need_input()
        if not self._sequential and not self._watch_read:
            self._sequential = 1
        park(task, wait, self)
        self._reader = None  # dispatch resumes the task itself; any other wake has undone this, and raises
        if self._write_closed or self._eof > 0:  # a callback has found the end meanwhile, or closed
            self._check_fill(task)
            if self._eof > 0:
                return False
            if self._write_closed & OBSERVED:
                self._write_closed |= OWES
        if self._watch_read:
            loop.pending_reads.setdefault(self, False)  # what this read leaves over is for event_read
        return self._receive(size) if size else True

    def _may_go_on(self, wait: WaitKind) -> bool:
        """May a task that has just got all the bulk that it had asked for try for more before it parks?

        That saves a turn, and keeps to one connection's memory for a while: in all a third of what bulk receive costs.
        Bounded in bytes and in the time since the turn began, so that others have their turn.
        """
        loop = self.loop
        if get_ident() != loop.thread:
            loop.check_thread(wait.name)
        usual = not (self._write_closed or self._eof or self._watch_read or self._reader is not None)
        return usual and self._bulk_credit > 0 and loop.clock() - loop.now < LONG_TURN

    def _fill_bulk(self, task: Waiter, wait: WaitKind, size: int) -> bool:
        """The same for bulk, without parking where it may go on."""
        before = self.buffered
        if self._may_go_on(wait):
            self._bulk_credit -= size
            there = self._receive(size)
        else:
            there = self._fill(task, wait, size)
            self._bulk_credit = _BULK_CREDIT
        if self.buffered - before < size:
            self._bulk_credit = 0
        return there

    def _receive(self, size: int = _CHUNK) -> bool:
        """Add to the buffer what the kernel has, be it nothing. False at the end of the stream."""
        try:
            chunk: bytes = self.sock.recv(size)
        except BlockingIOError:
            return True  # woken by push_back_read, or for nothing: the caller looks at the buffer, and may come again
        except OSError as error:
            if self._is_short_of_memory(error):
                return True
            self._eof, self._read_error = EOF_MET, without_traceback(error)
            self.loop.interest_changed.append(self)
            raise
        if not chunk:
            self._eof = EOF_MET
            self.loop.interest_changed.append(self)
            if self._read_error is not None:  # which somebody else has met
                raise without_traceback(self._read_error)
            return False
        if self._timer is not None:
            self._last_activity = self.loop.clock()  # others may have been at work since the turn began
        if not self._buffer:
            self._buffer = chunk
            self._scan_from = 0
        else:
            self._append(chunk)
        return True

    def _check_fill(self, task: Waiter) -> None:
        """Raise what forbids to wait for input: an end of ours, another reader, an end that was an error."""
        if (self.closed or self._finishing) and not self._hangup_state & BY_PEER:
            raise ClosedError(self, self.close_reason if self.closed else "finish() was called")
        if self._reader is not None:
            raise self._busy(task)
        if self.closed:
            self._eof = self._eof or EOF_MET
        if self._eof and self._read_error is not None:  # before that there may be input that came before it
            raise without_traceback(self._read_error)

    def _incomplete(self, wanted: str) -> IncompleteReadError:
        partial = self._consume(len(self._buffer)) if self._buffer else b""
        return IncompleteReadError(self, partial, wanted)

    def _limit_error(self, limit: int, what: str) -> LimitError:
        checkpoint(self.loop, "a read")  # who tries again and again is to give way as well
        return LimitError(f"{what} from {peer_of(self)} is longer than the limit of {limit} bytes", limit)

    def _release_reader(self) -> None:
        super()._release_reader()
        if self._reader is not None:
            wake(self._reader.task, ClosedError(self, self.close_reason))


def _up_to(separator: bytes) -> str:
    return "a line" if separator == b"\n" else f"the data up to {separator!r}"


def _stop_reading(sock: ReadingSocket, task: Waiter) -> None:
    if sock._reader is not task:
        return
    sock._reader = None
    if sock._timer is not None:
        sock._give_up_wait()
    if sock._watch_read:
        sock.loop.pending_reads.setdefault(sock, False)


_READ_EXACTLY = WaitKind("read_exactly", _stop_reading)
_READ_LINE = WaitKind("read_line", _stop_reading)
_READ_UNTIL = WaitKind("read_until", _stop_reading)
_READ_SOME = WaitKind("read_some", _stop_reading)
_READ_SOME_INTO = WaitKind("read_some_into", _stop_reading)
_READ_TO_END = WaitKind("read_to_end", _stop_reading)
