"""What servers and loads say to each other, and what every Python server does with it: one copy for all of them.

Modes: `lines` answers REPLY to each line, by a call of `handle`; `http` splits the headers of each request into a dict
and answers HTTP_REPLY; `receive` counts bytes up to the peer's end and answers their number in a line; `send` gets a
number in a line and answers that many bytes; `broadcast` greets with REPLY and sends each line to everybody.
"""

from __future__ import annotations

import resource

REQUEST = b"hello world 1\n"
REPLY = b"+PONG\r\n"
MESSAGE = b"broadcast: the same sixty-four bytes go to everybody who listens\n"
BLOCK = b"x" * (1 << 18)  # what `send` writes at a time; zeros might be one page of zeros, and not memory
CHUNK = 65536  # what one recv asks for
LARGE = 1 << 18  # the same in `receive`
BACKLOG = 4096

HTTP_REQUEST = (
    b"GET /articles/2024/on-event-loops?page=3&sort=newest HTTP/1.1\r\n"
    b"Host: www.example.org\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"
    b"Accept-Language: en-US,en;q=0.5\r\n"
    b"Accept-Encoding: gzip, deflate, br\r\n"
    b"Referer: https://www.example.org/articles\r\n"
    b"Connection: keep-alive\r\n"
    b"Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n"
    b"Cache-Control: max-age=0\r\n"
    b"\r\n"
)
HTTP_REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\nServer: bench\r\n\r\nHello, world!"
NOT_FOUND = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
END = b"\r\n\r\n"


def handle(_line: bytes) -> bytes:
    """What a server does with one line."""
    return REPLY


def handle_http(head: bytes) -> bytes:
    """What a server does with one request: its head, with or without the empty line that ends it."""
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    headers = dict([line.split(": ", 1) for line in lines])
    return HTTP_REPLY if first[:4] == "GET " and "Host" in headers else NOT_FOUND


def answer_lines(data: bytes) -> tuple[bytes, bytes]:
    """The replies to all complete lines of `data`, and what is left of it."""
    lines = data.split(b"\n")
    rest = lines.pop()
    if len(lines) == 1:
        return handle(lines[0]), rest
    return b"".join([handle(line) for line in lines]), rest


def answer_http(data: bytes) -> tuple[bytes, bytes]:
    """The same for requests."""
    heads = data.split(END)
    rest = heads.pop()
    if len(heads) == 1:
        return handle_http(heads[0]), rest
    return b"".join([handle_http(head) for head in heads]), rest


ANSWERS = {"lines": answer_lines, "http": answer_http}


def blocks(size: int) -> tuple[int, bytes]:
    """How many whole BLOCKs make up `size` bytes, and the rest."""
    return size // len(BLOCK), BLOCK[: size % len(BLOCK)]


def small_reads(transport: object) -> None:
    """Have asyncio's own transports ask for CHUNK at a time. They ask for 256 KiB, for which glibc maps and unmaps
    memory at every event: that would make asyncio three times as slow in workloads of small messages."""
    if hasattr(transport, "max_size"):
        transport.max_size = CHUNK


def many_files() -> None:
    """Allow as many connections as the system does."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def serving_on(port: int) -> None:
    """Tell the suite where the server is."""
    print(port, flush=True)
