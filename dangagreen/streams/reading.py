"""Reading in sequential style: read_line, read_exactly and the like.

Rules: bytes belong to the buffer until a read returns them, so that a cancellation or a timeout loses nothing; each
unbounded read has a limit, and exceeding it consumes nothing; every call that may park checks for cancellation first,
also when it need not wait. What does not belong here: writing.
"""

from __future__ import annotations

import sys
from _thread import get_ident
from collections.abc import Iterator

from dangagreen import checks
from dangagreen.errors import IncompleteReadError, LimitError, peer_of
from dangagreen.green.parking import checkpoint, park
from dangagreen.green.waiters import Waiter, WaitKind
from dangagreen.parks import parks
from dangagreen.sockets.read_buffer import LARGE
from dangagreen.sockets.receiving import CHUNK
from dangagreen.streams.readiness import SelectableSocket

_LINES = 16384  # bytes that one recv asks for when many small messages may come, which are then read without a park
_MOST = 1024 * 1024  # bytes that it asks for at most for bulk: few large calls are twice as cheap as many small ones
_BULK = CHUNK  # bytes: a recv that asks for more than that receives bulk
_TO_END = 16 * 1024 * 1024


class ReadingSocket(SelectableSocket):
    """The layer of a socket that tasks read.

    While a task is parked in a read it gets the input; otherwise `event_read` does, if reading is watched. Both read
    one buffer. Reads raise ClosedError if the socket is closed on this side, ConnectionError (ConnectionResetError by
    an RST) when the connection is broken, after all input, BusyError while another task is parked in a read, Cancelled
    when the task is cancelled, CannotParkError in a callback.
    """

    __slots__ = ()

    @parks
    def read_exactly(self, n: int) -> bytes:
        """Parks until n bytes are there, and returns them; b"" for 0. Raises IncompleteReadError at EOF before that."""
        loop = self.loop
        task: Waiter | None = loop.current
        if task is None or task.interrupt is not None or self._reader is not None or not next(loop.budget, False):
            task = self._checkpoint("read_exactly")
        if type(n) is not int or n <= 0:
            n = checks.count("the n of read_exactly", n)
            if not n:
                return b""
        while (data := self._consume_exactly(n)) is None:
            missing = n - self.buffered
            if missing > sys.maxsize:
                checks.count("the n of read_exactly", n)
            if not self._fill(task, _READ_EXACTLY, min(max(missing, CHUNK), _MOST)):
                raise IncompleteReadError(self, self._consume_all(), f"the {n} that were asked for")
        return data

    @parks
    def read_line(self, limit: int | None = None) -> bytes:
        r"""Parks until a line is there; returns it with its b"\n", or b"" at EOF.

        Raises IncompleteReadError at EOF within a line; LimitError, and consumes nothing, if the line is longer than
        `limit` bytes, by default `line_limit`.
        """
        task: Waiter | None = self.loop.current
        if task is None or task.interrupt is not None or self._reader is not None:
            task = self._checkpoint("read_line")
        if limit is not None:
            limit = checks.count("the limit of read_line", limit)
        elif (lines := self._lines) is not None:
            for line in lines:
                self._pos = at = self._pos + len(line)
                if at == len(self._buffer):
                    self._drop_input()
                return line
        if buffer := self._buffer:
            start = self._pos
            end = buffer.find(b"\n", start) + 1
        elif not self._fill(task, _READ_LINE):
            checkpoint(self.loop, "read_line")
            return b""
        else:
            buffer, start = self._buffer, self._pos
            end = 0 if start else buffer.find(b"\n") + 1
            if end and end == len(buffer) and limit is None and end <= self._line_limit:
                self._buffer = b""  # one line came in one piece: it is the buffer
                return buffer if type(buffer) is bytes else bytes(buffer)
        if limit is None:
            limit = self._line_limit
        if not end:
            end = self._find(task, _READ_LINE, b"\n", limit)
            if not end:
                return b""
        elif end - start > limit:
            raise self._limit_error(limit, "a line")
        for _ in self.loop.budget:
            return self._consume_line(end)
        self._checkpoint("read_line")
        return self.read_line(limit)

    @parks
    def read_until(self, separator: bytes, limit: int | None = None) -> bytes:
        """Parks until `separator` has come; returns everything up to and with it, or b"" at EOF.

        Raises IncompleteReadError at EOF before the separator; LimitError, and consumes nothing, if it does not end
        within `limit` bytes, by default `line_limit`.
        """
        task = self._checkpoint("read_until")
        if type(separator) is not bytes:
            separator = checks.as_bytes(separator)
        if not separator:
            raise ValueError("read_until: the separator is empty")
        limit = self._usual_limit() if limit is None else checks.count("the limit of read_until", limit)
        return self._consume_up_to(self._find(task, _READ_UNTIL, separator, limit))

    @parks
    def read_some(self, limit: int = CHUNK) -> bytes:
        """Parks until there is input; returns at least one byte and at most `limit`, or b"" at EOF."""
        loop = self.loop
        task: Waiter | None = loop.current
        if task is None or task.interrupt is not None or self._reader is not None or not next(loop.budget, False):
            task = self._checkpoint("read_some")
        if limit is not CHUNK:
            limit = checks.count("at least one byte must be asked for: the limit of read_some", limit, 1)
        while not (buffer := self._buffer):
            if not self._fill(task, _READ_SOME, limit if limit <= _MOST else _MOST):
                return b""
        if len(buffer) <= limit and not self._pos and type(buffer) is bytes:
            self._buffer = b""  # what came in one piece is the buffer
            return buffer
        return self._consume(limit)

    @parks
    def read_some_into(self, buffer: bytearray | memoryview) -> int:
        """Parks until there is input, and reads it into a writable buffer. Returns how many bytes; 0 at EOF.

        For bulk: the buffer may be reused, and nothing is allocated. Raises ValueError for a buffer of size 0.
        """
        task = self._checkpoint("read_some_into")
        room = len(buffer) if type(buffer) is bytearray and buffer else checks.room("read_some_into", buffer)
        while True:
            if not self.buffered and not self._may_go_on(room):
                if not self._fill(task, _READ_SOME_INTO, 0):
                    return 0
            else:
                self._is_asked()
            size = self._receive_into(buffer)
            if size != room:
                self._was_less()
            if size:
                return size
            if size is None:
                self._meet_eof()
                self._check_input()
                return 0

    @parks
    def read_to_end(self, limit: int = _TO_END) -> bytes:
        """Parks until EOF; returns everything unread. Raises LimitError beyond `limit` bytes, and consumes nothing."""
        task = self._checkpoint("read_to_end")
        if limit is not _TO_END:
            limit = checks.count("the limit of read_to_end", limit)
        while (there := self.buffered) <= limit:
            if not self._fill(task, _READ_TO_END, CHUNK if there < LARGE else 4 * CHUNK):
                return self._consume_all()
        raise self._limit_error(limit, "the stream")

    @parks
    def __iter__(self) -> Iterator[bytes]:
        """Parks until a line is there, in each step of the iteration, as `read_line()` does; ends at EOF."""
        loop = self.loop
        while line := self.read_line():
            yield line
            # Lines that came with it, at three quarters of the cost. What parks or raises is left to read_line. Other
            # readers may read in between: bytes stay in the buffer until they are yielded.
            lines, length = self._lines, len(self._buffer)
            for line in lines or ():
                task = loop.current
                if task is None or task.interrupt is not None or self._reader is not None:
                    self._grant_no_lines()
                    break
                self._pos = at = self._pos + len(line)
                if at == length:
                    self._drop_input()
                yield line
                if self._lines is not lines:
                    break

    def _checkpoint(self, call: str) -> Waiter:
        """`checkpoint` of a read. Raises BusyError if another task is parked in a read."""
        task = checkpoint(self.loop, call)
        self._check_reader(task)
        return task

    def _find(self, task: Waiter, wait: WaitKind, separator: bytes, limit: int) -> int:
        """Parks until the separator has come within the limit. Returns the position after it; 0 at EOF."""
        self._search_anew()
        while not (end := self._search(separator)):
            if self.buffered >= limit:
                raise self._limit_error(limit, _up_to(separator))
            if not self._fill(task, wait):
                if partial := self._consume_all():
                    raise IncompleteReadError(self, partial, _up_to(separator))
                return 0
        if self._is_longer(end, limit):
            raise self._limit_error(limit, _up_to(separator))
        return end

    def _fill(self, task: Waiter, wait: WaitKind, size: int = _LINES) -> bool:
        """Parks until there is input, and receives up to `size` bytes into the buffer, or none. Returns False at EOF.

        It parks before recv(2): input that is there already is reported by the next wait anyway. For bulk, which is
        more than _BULK, it does not park if it may call recv again.
        """
        if get_ident() != self.loop.thread:
            self.loop.check_thread(wait.name)
        if size <= _BULK or not self._may_go_on(size):
            if not self._await_input(task):
                return self._check_input()
            park(task, wait, self)  # the loop resumes the task; any other wake undoes the arrangement, and raises
            if self._reader is task:
                self._reader = None
            elif self._is_over():  # top-level code runs at the end of the turn: it was closed meanwhile
                return self._check_input()
            if self._watch_read:
                self.loop.pending_reads.setdefault(self, False)  # what this read leaves over is for event_read
        if self._write_closed:
            self._is_asked()
        if not size:
            return True
        try:
            chunk: bytes = self.sock.recv(size)
        except OSError as error:
            if not self._ends_input(error):  # resumed by push_back_read, or spuriously: the caller looks at the buffer
                self._was_less()
                return True
            chunk = b""
        if not chunk:
            self._meet_eof()
            return self._check_input()
        if self._timer is not None:
            self._last_activity = self.loop.clock()  # the turn may have begun long ago
        if self._buffer:
            self._append(chunk)
        else:
            self._buffer = chunk
        if size > _BULK and len(chunk) < size:
            self._was_less()
        return True

    def _limit_error(self, limit: int, what: str) -> LimitError:
        checkpoint(self.loop, "a read")  # a loop that catches it and tries again has to yield as well
        return LimitError(f"{what} from {peer_of(self)} is longer than the limit of {limit} bytes", limit)


def _up_to(separator: bytes) -> str:
    return "a line" if separator == b"\n" else f"the data up to {separator!r}"


_READ_EXACTLY = WaitKind("read_exactly", ReadingSocket._stop_awaiting)
_READ_LINE = WaitKind("read_line", ReadingSocket._stop_awaiting)
_READ_UNTIL = WaitKind("read_until", ReadingSocket._stop_awaiting)
_READ_SOME = WaitKind("read_some", ReadingSocket._stop_awaiting)
_READ_SOME_INTO = WaitKind("read_some_into", ReadingSocket._stop_awaiting)
_READ_TO_END = WaitKind("read_to_end", ReadingSocket._stop_awaiting)
