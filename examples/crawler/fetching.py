"""One page: HTTP/1.1 without TLS, as much of it as a page needs; use a real library for more.

Servers lie. Sizes are bounded before they are believed: of a line, of the headers, of a body, of a chunk.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote_to_bytes

from crawler.links import HTML, media_type
from dangagreen import LimitError, Socket, connect

LONGEST_HEAD = 64 * 1024  # bytes of status line and headers


class BadReply(Exception):
    """The server does not speak HTTP as we know it. The argument says what is wrong."""


@dataclass
class Reply:
    status: int
    headers: dict[str, str]  # names in lower case; of several the last
    body: bytes


class Connection(Socket):
    """A line of a server is a header, or the size of a chunk."""

    __slots__ = ()
    line_limit = 8192


def fetch(url: SplitResult, most: int) -> Reply:
    """Parks until the page is there. Bodies beyond `most` bytes raise LimitError."""
    address = (url.hostname or "", url.port or 80)
    with connect(address, socket_class=Connection) as sock:
        sock.write_all(request(url))
        while True:
            status, headers = read_head(sock)
            if status >= 200:  # before it, a server may say 100 Continue and the like
                break
        html = media_type(headers.get("content-type", "")) in HTML
        return Reply(status, headers, read_body(sock, status, headers, most) if html else b"")


def request(url: SplitResult) -> bytes:
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    host = (url.hostname or "").partition("%")[0]  # without the zone of an IPv6 address, which is our own affair
    host = (f"[{host}]" if ":" in host else host) + (f":{url.port}" if url.port not in (None, 80) else "")
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "User-Agent: crawler", "Connection: close"]
    if url.username is not None:
        user = unquote_to_bytes(url.username) + b":" + unquote_to_bytes(url.password or "")
        lines.append(f"Authorization: Basic {base64.b64encode(user).decode()}")
    return "\r\n".join([*lines, "\r\n"]).encode()


def read_head(sock: Socket) -> tuple[int, dict[str, str]]:
    first = text(sock.read_line())
    match = re.match(r"HTTP/1\.[01] (\d{3})\b", first)
    if not match:
        raise BadReply("no status line")
    headers, size = {}, len(first)
    while line := text(sock.read_line()).strip():
        size += len(line)
        if size > LONGEST_HEAD:
            raise BadReply("endless headers")
        name, colon, value = line.partition(":")
        if not colon:
            raise BadReply("a header without a colon")
        headers[name.strip().lower()] = value.strip()
    return int(match[1]), headers


def text(line: bytes) -> str:
    if not line:
        raise BadReply("an end within the headers")
    return line.decode("latin-1")


def read_body(sock: Socket, status: int, headers: dict[str, str], most: int) -> bytes:
    if status in (204, 304):
        return b""
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return read_chunks(sock, most)
    if "content-length" not in headers:
        return sock.read_to_end(most)
    return sock.read_exactly(bounded(headers["content-length"], 10, most))


def read_chunks(sock: Socket, most: int) -> bytes:
    body = bytearray()
    while size := bounded(text(sock.read_line()).partition(";")[0].strip(), 16, most - len(body)):
        body += sock.read_exactly(size)
        if sock.read_exactly(2) != b"\r\n":
            raise BadReply("a chunk without an end")
    return bytes(body)


def bounded(digits: str, base: int, most: int) -> int:
    """The number, if it is one and no more than `most`."""
    if not re.fullmatch(r"[0-9A-Fa-f]{1,18}", digits):
        raise BadReply(f"a length of {digits[:20]!r}")
    try:
        size = int(digits, base)
    except ValueError:
        raise BadReply(f"a length of {digits!r}") from None
    if size > most:
        raise LimitError(f"a body of more than {most} bytes", most)
    return size
