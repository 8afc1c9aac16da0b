"""Every server answers correctly before it is measured: requests whole, in pieces, several at once, and the end.

Rules: plain blocking sockets, bounded by a timeout; a server that fails is not measured, and the run says so.
"""

from __future__ import annotations

import socket

from tests.bench.contestants import Contestant
from tests.bench.protocol import BLOCK, HTTP_REPLY, HTTP_REQUEST, MESSAGE, REPLY, REQUEST
from tests.bench.running import Bench, Failed, serving

SECONDS = 10


def check(bench: Bench, contestant: Contestant, mode: str) -> None:
    """Raise Failed unless the server of this mode is right. Once for each run."""
    if (contestant.key, mode) in bench.checked:
        return
    with serving(bench, contestant, mode) as (_, port):
        try:
            CHECKS[mode](port)
        except OSError as error:
            raise Failed(f"the server does not answer rightly: {error!r}") from error
    bench.checked.add((contestant.key, mode))


def _connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=SECONDS)


def _expect(sock: socket.socket, wanted: bytes) -> None:
    got = b""
    while len(got) < len(wanted):
        data = sock.recv(min(65536, len(wanted) - len(got)))
        if not data:
            break
        got += data
    if got != wanted:
        raise Failed(f"{len(wanted)} bytes were due, {wanted[:40]!r}..., and {len(got)} came, {got[:40]!r}...")


def _expect_end(sock: socket.socket) -> None:
    sock.shutdown(socket.SHUT_WR)
    if rest := sock.recv(100):
        raise Failed(f"{rest!r} came where the end was due")


def _requests(port: int, request: bytes, reply: bytes) -> None:
    with _connect(port) as one, _connect(port) as two:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one.sendall(request)
        _expect(one, reply)
        two.sendall(request * 16)
        _expect(two, reply * 16)
        for cut in (1, 5, len(request) - 1):  # in the middle, and between the two bytes of a line's end
            one.sendall(request + request[:cut])
            _expect(one, reply)
            one.sendall(request[cut:])
            _expect(one, reply)
        _expect_end(one)
        _expect_end(two)


def _receive(port: int) -> None:
    for size in (0, 1, 5_000_000):
        with _connect(port) as sock:
            sock.sendall(bytes(size))
            sock.shutdown(socket.SHUT_WR)
            _expect(sock, b"%d\n" % size)
            if sock.recv(1):
                raise Failed("more came after the count")


def _send(port: int) -> None:
    with _connect(port) as sock:
        for size in (1, len(BLOCK), 20 * len(BLOCK) + 17):
            sock.sendall(b"%d\n" % size)
            _expect(sock, b"x" * size)
        _expect_end(sock)


def _broadcast(port: int) -> None:
    with _connect(port) as one, _connect(port) as two, _connect(port) as three:
        for sock in (one, two, three):
            _expect(sock, REPLY)
        for sender in (one, three):
            sender.sendall(MESSAGE[:10])
            sender.sendall(MESSAGE[10:])
            for sock in (one, two, three):
                _expect(sock, MESSAGE)
        _expect_end(two)
        one.sendall(MESSAGE)
        for sock in (one, three):
            _expect(sock, MESSAGE)


def _locks(port: int) -> None:
    with _connect(port) as one, _connect(port) as two:
        for sock, request, reply in (
            (one, b"trylock lock=x%3Ay\r\n", b"OK \r\n"),
            (two, b"trylock lock=x:y\r\n", b"ERR taken \r\n"),
            (two, b"releaselock lock=x:y\r\n", b"ERR didnthave \r\n"),
            (one, b"releaselock lock=x:y\r\n", b"OK \r\n"),
            (two, b"trylock lock=x:y\r\n", b"OK \r\n"),
            (two, b"frob\r\n", b"ERR unknown_command Unknown+server+command\r\n"),
        ):
            sock.sendall(request)
            _expect(sock, reply)
        _expect_end(two)
        one.sendall(b"trylock lock=x:y\r\n")
        _expect(one, b"OK \r\n")


CHECKS = {
    "lines": lambda port: _requests(port, REQUEST, REPLY),
    "http": lambda port: _requests(port, HTTP_REQUEST, HTTP_REPLY),
    "receive": _receive,
    "send": _send,
    "broadcast": _broadcast,
    "locks": _locks,
}
