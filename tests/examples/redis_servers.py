"""A real redis-server to compare miniredis with, and conversations with both."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from programs import connected
from tests.programs import free_port, missing

LONGEST_BULK = 32 * 1024 * 1024


@contextlib.contextmanager
def real_redis(directory: Path) -> Iterator[int]:
    """Its port. Skips the test where the program is not installed."""
    program = shutil.which("redis-server")
    if program is None:
        missing("redis-server (Debian: redis-server)")
    port = free_port()
    options = f"--port {port} --bind 127.0.0.1 --databases 1 --appendonly no --proto-max-bulk-len {LONGEST_BULK}"
    command = [program, *options.split(), "--save", "", "--dir", str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            log = []
            while not (log and b"Ready to accept connections" in log[-1]):
                log.append(process.stdout.readline())
                assert log[-1], log
            yield port
        finally:
            process.kill()


class Error(str):
    """The first word of an error: what is to be the same."""


class Push(tuple[Any, ...]):
    """What RESP3 tells unasked."""


class End(Exception):
    """There is no more."""


def packed(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def read_reply(stream: Any) -> Any:
    """One reply of either protocol. Raises End."""
    line = stream.readline()
    if not line.endswith(b"\r\n"):
        raise End
    kind, rest = line[:1], line[1:-2]
    match kind:
        case b"+":
            return rest.decode()
        case b"-":
            return Error(rest.split()[0].decode())
        case b":":
            return int(rest)
        case b"_":
            return None
        case b"$" | b"=":
            if rest == b"-1":
                return None
            return (kind, stream.read(int(rest) + 2)[:-2]) if kind == b"=" else stream.read(int(rest) + 2)[:-2]
        case b"%":
            return {read_reply(stream): read_reply(stream) for _ in range(int(rest))}
    assert kind in b"*>", line
    several = None if rest == b"-1" else [read_reply(stream) for _ in range(int(rest))]
    return ["no array"] if several is None else Push(several) if kind == b">" else several


def conversation(port: int, data: bytes, pause_at: int = 0) -> list[Any]:
    """All replies to these bytes, up to the end of the stream; sent in two pieces, if so asked."""
    replies = []
    with connected(port) as (sock, stream):
        with contextlib.suppress(ConnectionError):  # it may have ended the connection meanwhile
            if pause_at:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.sendall(data[:pause_at])
            sock.sendall(data[pause_at:])
            sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(End, ConnectionError):
            while True:
                replies.append(read_reply(stream))
    return replies
