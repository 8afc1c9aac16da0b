"""Chunked bodies (RFC 9112, section 7.1): decoding as the bytes come, and encoding.

Rules: what two servers might read differently is refused, not repaired: sizes with signs or more than 16 digits, lines
that end by a bare LF, data that is longer than its size says. Lines are bounded. What does not belong here: where
the bytes come from, and what they are for.
"""

from __future__ import annotations

import re

from perlbal.heads import Refused

LAST = b"0\r\n\r\n"
LINE_LIMIT = 4096  # bytes of a line with a size and its extensions
TRAILER_LIMIT = 16384  # bytes of all lines after the last chunk
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?\Z")
_TRAILER = re.compile(rb"[!#-'*+\-.0-9A-Z^-z|~]+:[\t\x20-\x7e\x80-\xff]*\Z")


class BadChunk(Refused):
    """What came is no chunked body, or too much of one."""

    def __init__(self, text: str, code: int = 400) -> None:
        super().__init__(code, text)


def chunk(data: bytes) -> bytes:
    """One chunk; of no bytes nothing, as that would be the end."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


class ChunkDecoder:
    """Takes the bytes of a chunked body as they come, and gives the body.

    `done`: the end was found; then `rest` is what came after it. `size`: bytes of the body so far, of which there may
    be `most`; 0 is no limit.
    """

    __slots__ = ("_in_trailer", "_left", "_line", "_trailer", "done", "most", "rest", "size")

    def __init__(self, most: int = 0) -> None:
        self.most = most
        self._left = -1  # bytes of the chunk that are to come; 0: only the end of its line; -1: a line is to come
        self._line = b""  # the beginning of a line
        self._in_trailer = False
        self._trailer = 0
        self.done = False
        self.rest = b""
        self.size = 0

    def feed(self, data: bytes) -> bytes:
        """The bytes of the body that are in `data`. Raises BadChunk."""
        pieces = []
        while data and not self.done:
            if self._left > 0:
                piece = data[: self._left]
                data = data[self._left :]
                self._left -= len(piece)
                self.size += len(piece)
                pieces.append(piece)
            else:
                data = self._take_line(data)
        if 0 < self.most < self.size:
            raise BadChunk("The request is too large", 413)
        if self.done:
            self.rest += data
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _take_line(self, data: bytes) -> bytes:
        """Take a line, or what there is of it. Returns what comes behind it."""
        end = data.find(b"\n")
        piece = data if end < 0 else data[: end + 1]
        self._line += piece
        if len(self._line) > LINE_LIMIT:
            raise BadChunk("a line of a chunked body is too long")
        if end >= 0:
            line, self._line = self._line, b""
            if not line.endswith(b"\r\n"):
                raise BadChunk("a line of a chunked body ends without CR")
            self._read_line(line[:-2])
        elif self._left == 0 and self._line != b"\r":
            raise BadChunk("a chunk is longer than its size")
        return data[len(piece) :]

    def _read_line(self, line: bytes) -> None:
        """A whole line, without its end."""
        if self._left == 0:
            if line:
                raise BadChunk("a chunk is longer than its size")
            self._left = -1
        elif self._in_trailer:
            self._trailer += len(line)
            if self._trailer > TRAILER_LIMIT:
                raise BadChunk("the trailer of a chunked body is too long")
            if line and not _TRAILER.match(line):
                raise BadChunk("a line of the trailer is no header")
            self.done = not line
        elif (size := _SIZE.match(line)) is None:
            raise BadChunk("invalid chunk size")
        else:
            self._left = int(size[1], 16) or -1
            self._in_trailer = self._left < 0
