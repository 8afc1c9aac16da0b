"""Redis's protocol: requests as they are read, replies as they are sent.

A request is a line, then so many times a line and a block of bytes; or a line as humans type it. Replies are ordinary
Python values, which `encode` turns into bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TypeAlias

from dangagreen import LimitError, Socket
from miniredis.portions import Work

LONGEST_BULK = 32 * 1024 * 1024  # bytes; Redis takes 512 MB, of which a copy would stop the others for half a second
LONGEST_LINE = 64 * 1024  # as Redis's own
MANY = 1024 * 1024  # words in a request
USUAL = 32  # bytes of a line that says a length; what is longer is not kept in a cache
PIECE = 64 * 1024  # bytes that are sent in one go
SYNTAX = b"ERR syntax error"

Request = list[bytes]
Reply: TypeAlias = "int | str | bytes | Text | Refusal | Sequence[Reply] | Mapping[bytes, Reply] | None"

# of a command: the fewest words of a request, its name included, the most, and what to call
Command: TypeAlias = "tuple[int, int, Callable[..., Reply | Work[Reply]]]"


class Refusal(Exception):
    """The answer is an error. The argument is its text, as bytes."""


class Several(list[Reply]):
    """Not one reply but so many, or none."""


class NoArray(list[Reply]):
    """An array that is not there, such as the replies of a transaction that was not made."""


class Text:
    """A long text for humans, which RESP3 tells from a value."""

    def __init__(self, text: bytes) -> None:
        self.text = text


# -- requests


def read_request(client: Socket) -> Request:
    """Parks until a request is there; returns its words: none for an empty one, or at the end of the stream."""
    try:
        line = client.read_line()
        if line[:1] != b"*":
            return split(line)
        count = length(line, b"*", b"multibulk", MANY) if len(line) < USUAL else None
        if count is None:
            count = odd_length(client, line, b"*", b"multibulk", MANY)
        words = []
        for _ in range(count):
            line = client.read_line()
            size = length(line) if len(line) < USUAL else None
            if size is None:
                size = odd_length(client, line)
            if size <= PIECE:
                words.append(client.read_exactly(size + 2)[:-2])
            else:  # not copied once more
                words.append(client.read_exactly(size))
                client.read_exactly(2)
        return words
    except LimitError:
        raise Refusal(b"ERR Protocol error: too big inline request") from None


@lru_cache(1024)  # most requests have the same few lengths
def length(line: bytes, mark: bytes = b"$", what: bytes = b"bulk", most: int = LONGEST_BULK) -> int | None:
    r"""The number in a line like b"*3\r\n" or b"$5\r\n". Less than 0 words are none. None for an odd line."""
    if line[:1] != mark:
        raise Refusal(b"ERR Protocol error: expected '%b', got '%b'" % (mark, line[:1]))
    if line.find(b"\r") != len(line) - 2:
        return None
    found = re.fullmatch(rb"0|-?[1-9]\d{0,18}", line[1:-2])
    number = int(found[0]) if found else most + 1
    if number > most or number < (-(2**63) if mark == b"*" else 0):
        raise Refusal(b"ERR Protocol error: invalid %b length" % what)
    return number


def odd_length(client: Socket, line: bytes, mark: bytes = b"$", what: bytes = b"bulk", most: int = LONGEST_BULK) -> int:
    r"""To Redis the end of a line is b"\r" and one more byte, whatever that is. Parks until it is there."""
    end = line.find(b"\r")
    if end < 0:
        line += client.read_until(b"\r") + client.read_exactly(1)
    else:
        client.push_back_read(line[end + 2 :])
    return length(line[: line.index(b"\r")] + b"\r\n", mark, what, most) or 0


def number(text: bytes) -> int:
    if re.fullmatch(rb"0|-?[1-9]\d{0,18}", text) and -(2**63) <= int(text) < 2**63:
        return int(text)
    raise Refusal(b"ERR value is not an integer or out of range")


PLAIN = re.compile(rb"[^\"'\0\v\f]*")
WORD = re.compile(
    rb"""[ \t\n\r\v\f]*+([^ \t\n\r"']*+)(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\'|\\(?!'))*)')?(?=[ \t\n\r\v\f]|$)""",
    re.DOTALL,
)
ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(.))", re.DOTALL)
ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}


def split(line: bytes) -> Request:
    """The words of a line as humans type it. A word may end in quotes, double ones with escapes."""
    if PLAIN.fullmatch(line):
        return line.split()
    line, words, at = line.partition(b"\0")[0].removesuffix(b"\n").removesuffix(b"\r"), [], 0
    while at < len(line):
        found = WORD.match(line, at)
        if not found:
            raise Refusal(b"ERR Protocol error: unbalanced quotes in request")
        plain, quoted, literal = found.groups()
        if not plain and quoted is literal:  # both are None: there were blanks, and then the end
            break
        words.append(plain + ESCAPE.sub(unescaped, quoted or b"") + (literal or b"").replace(b"\\'", b"'"))
        at = found.end()
    return words


def unescaped(found: re.Match[bytes]) -> bytes:
    return bytes([int(found[1], 16)]) if found[1] else ESCAPES.get(found[2], found[2])


# -- replies


def simple(reply: Reply, protocol: int) -> bytes | None:
    """The bytes of a reply that has no parts, and is not long: str is a word like OK."""
    match reply:
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(reply), reply) if len(reply) <= PIECE else None
        case str():
            return f"+{reply}\r\n".encode()
        case int():
            return b":%d\r\n" % reply
        case None:
            return b"_\r\n" if protocol == 3 else b"$-1\r\n"
        case Refusal():
            return b"-%b\r\n" % re.sub(rb"[\r\n]", b" ", reply.args[0])
        case NoArray():
            return b"_\r\n" if protocol == 3 else b"*-1\r\n"
    return None


def parts(reply: Reply, protocol: int) -> Iterator[bytes]:
    """The bytes of any reply, in parts: dict is a map, tuple news (in RESP2, which has neither, arrays)."""
    data = simple(reply, protocol)
    if data is not None:
        yield data
        return
    several: Sequence[Reply] = ()
    match reply:
        case bytes():
            yield from (b"$%d\r\n" % len(reply), reply, b"\r\n")
        case Text():
            text = (b"txt:" if protocol == 3 else b"") + reply.text
            yield from (b"%b%d\r\n" % (b"=" if protocol == 3 else b"$", len(text)), text, b"\r\n")
        case Several():
            several = reply
        case Mapping():
            several = [part for pair in reply.items() for part in pair]
            yield b"%%%d\r\n" % len(reply) if protocol == 3 else b"*%d\r\n" % len(several)
        case list() | tuple():
            several = reply
            yield b"%b%d\r\n" % (b">" if protocol == 3 and isinstance(reply, tuple) else b"*", len(reply))
    for one in several:
        yield from parts(one, protocol)


def encode(reply: Reply, protocol: int) -> bytes:
    """The bytes of a reply, at once."""
    return b"".join(parts(reply, protocol))


def pieces(reply: Reply, protocol: int) -> Iterator[bytes]:
    """The bytes of any reply, so many at a time. A long value is not copied as a whole."""
    piece: list[bytes] = []
    size = 0
    for part in parts(reply, protocol):
        if len(part) > PIECE:
            yield b"".join(piece)
            piece, size = [], 0
            view = memoryview(part)
            yield from (bytes(view[start : start + PIECE]) for start in range(0, len(part), PIECE))
        else:
            piece.append(part)
            size += len(part)
            if size >= PIECE:
                yield b"".join(piece)
                piece, size = [], 0
    yield b"".join(piece)
