"""The read buffer: bytes that were received or pushed back, and not read yet.

Rules: bytes stay here until a read returns them; taking from the head, and pushing back, take time proportional to what
is taken or pushed back, however much lies behind. What does not belong here: system calls, waiting.
"""

from __future__ import annotations

from io import BytesIO
from itertools import islice
from typing import ClassVar

from dangagreen.sockets.idle import IdleClock
from dangagreen.sockets.settings import Setting, size

LARGE = 65536  # bytes: up to so many a copy costs no more than a system call or two; a larger buffer grows in place
_LINES_AT_ONCE = 16  # lines that a task gets in one go, at most: so many calls of its budget
_SHORT = 2048  # and so many bytes at most


class ReadBuffer(IdleClock):
    """The layer of a socket that has its read buffer: `_buffer` from `_pos` on, immutable while it is small.

    Setting, of the class or of one object: `line_limit` (bytes: the default limit of `read_line`, `read_until` and
    iteration).
    """

    __slots__ = {
        "_buffer": "The bytes, after some that were taken and are not deleted yet; a bytearray where it is large.",
        "_line_limit": "`line_limit`: a slot is read four times as fast as a setting.",
        "_lines": "The lines from `_pos` on that were granted: `read_line` gives them without any more ado. Or None.",
        "_pos": "Where in the buffer the unread bytes begin.",
        "_scan_from": "Below 0: so many of the unread bytes were searched by a parked reader.",
    }

    _buffer: bytes | bytearray
    _line_limit: int
    _lines: BytesIO | None
    _pos: int
    _scan_from: int
    _usual_line_limit: ClassVar[int] = 65536  # what the class has: see `settings.adopt_settings`
    line_limit: Setting[int] = Setting(65536, size)

    def _was_set(self, name: str) -> None:
        """Called when a setting was assigned for this object."""
        if name == "line_limit":
            self._line_limit = self.line_limit
            self._grant_no_lines()

    @property
    def buffered(self) -> int:
        """How many bytes were read ahead or pushed back, and are not read yet."""
        return len(self._buffer) - self._pos

    # -- putting

    def _append(self, data: bytes) -> None:
        """Append received bytes to the buffer, which is not empty."""
        buffer = self._buffer
        if isinstance(buffer, bytearray):
            buffer += data
        else:
            joined = buffer[self._pos :] + data
            self._buffer = joined if len(joined) <= LARGE else bytearray(joined)
            self._pos, self._lines = 0, None

    def _put_behind(self, data: bytes) -> None:
        """Append received bytes to the buffer, which may be empty."""
        if self._buffer:
            self._append(data)
        else:
            self._buffer, self._scan_from = data, 0

    def _put_before(self, data: bytes) -> None:
        """Put bytes before those in the buffer.

        A large buffer grows at its head by as much as it holds, so that pushing back many small pieces takes time
        proportional to their size, however much lies behind them.
        """
        self._scan_from, self._lines = 0, None
        buffer, start = self._buffer, self._pos
        unread = len(buffer) - start
        if unread + len(data) <= LARGE:
            self._buffer, self._pos = data + buffer[start:], 0
            return
        if start < len(data) or type(buffer) is bytes:
            grown = bytearray(max(unread, len(data)))
            start = len(grown)
            grown += memoryview(buffer)[self._pos :]
            self._buffer = buffer = grown
        self._pos = start - len(data)
        buffer[self._pos : start] = data  # type: ignore[index]

    # -- taking

    def _consume(self, n: int) -> bytes:
        """Take up to n bytes from the buffer, which is not empty. Raises ValueError for n below 1."""
        if n <= 0:
            raise ValueError(f"read({n}): at least one byte must be asked for")
        buffer, start = self._buffer, self._pos
        taken = buffer[start : start + n]
        self._scan_from, self._lines = 0, None
        if start + n >= len(buffer):
            self._buffer, self._pos = b"", 0
        elif isinstance(buffer, bytearray):
            self._pos = start + n
            if self._pos > len(buffer) // 4 * 3:  # not each time: the space serves what is pushed back
                del buffer[: self._pos]
                self._pos = 0
        else:
            self._pos = start + n
        return taken if isinstance(taken, bytes) else bytes(taken)

    def _consume_into(self, view: memoryview) -> int:
        """Take as many bytes as the view has room for, and copy them there. Returns how many."""
        size = min(len(view), len(self._buffer) - self._pos)
        view[:size] = self._buffer[self._pos : self._pos + size]
        self._consume(size)
        return size

    def _consume_exactly(self, n: int) -> bytes | None:
        """Take n bytes, n at least 1; None if there are fewer."""
        buffer, start = self._buffer, self._pos
        if (end := start + n) < len(buffer) and type(buffer) is bytes:
            self._pos, self._lines = end, None
            return buffer[start:end]
        return self._consume(n) if end <= len(buffer) else None

    def _consume_up_to(self, end: int) -> bytes:
        """Take the bytes before this position; b"" for 0."""
        return self._consume(end - self._pos) if end else b""

    def _consume_line(self, end: int) -> bytes:
        """Take the line that ends before this position.

        Lines behind it that have come are granted, if they are about as long as this one: `read_line` gives them in
        fewer steps, and the budget of calls pays for them at once, unless they are the last.
        """
        buffer, start = self._buffer, self._pos
        if type(buffer) is not bytes:
            return self._consume(end - start)
        self._lines = None
        if end >= len(buffer):
            self._buffer, self._pos = b"", 0
            return buffer[start:]  # which is the buffer itself, where it is one line
        self._pos = end
        size = end - start
        most = min(_LINES_AT_ONCE * size, _SHORT, self._line_limit)
        stop = buffer.rfind(b"\n", end, end + most) + 1
        if stop:
            self._lines = BytesIO(buffer[end:stop])
            if stop < len(buffer):  # otherwise the next read has to receive, and parks
                next(islice(self.loop.budget, (stop - end) // size, None), None)
        return buffer[start:end]

    def _usual_limit(self) -> int:
        """`line_limit`, for who does not know the slot."""
        return self._line_limit

    def _grant_no_lines(self) -> None:
        """Have the next `read_line` look at the buffer again."""
        self._lines = None

    def _consume_all(self) -> bytes:
        """Take all bytes; b"" if there are none."""
        return self._consume(len(self._buffer)) if self._buffer else b""

    def _drop_input(self) -> None:
        """Discard the buffer."""
        self._buffer, self._pos, self._scan_from, self._lines = b"", 0, 0, None

    # -- looking

    def _search(self, separator: bytes) -> int:
        """The position after the next separator; 0 if there is none, and then the next search goes on from there."""
        buffer, start = self._buffer, self._pos
        if not buffer:
            return 0
        end = buffer.find(separator, start + max(0, 1 - self._scan_from - len(separator)))
        if end >= 0:
            return end + len(separator)
        self._scan_from = start - len(buffer)
        return 0

    def _is_longer(self, end: int, limit: int) -> bool:
        """Whether more than `limit` bytes lie before this position."""
        return end - self._pos > limit

    def _search_anew(self) -> None:
        """Begin a search for another separator: the next one starts at the head."""
        self._scan_from = 0
