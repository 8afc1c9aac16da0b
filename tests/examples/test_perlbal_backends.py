"""A connection to a node: how a body is framed, who keeps it, and requests in sequential style."""

from __future__ import annotations

from typing import Any

import pytest

from dangagreen import run, spawn
from dangagreen.loop.loop import Loop
from dangagreen.testing import virtual_loop
from dangagreen.testing.wire import wire
from perlbal.backends import UNTIL_CLOSE, Backend
from perlbal.heads import BadHead, RequestHead, parse_response
from perlbal.pools import Nodes


class Keeper:
    """Notes what it is told."""

    service = None

    def __init__(self) -> None:
        self.told: list[str] = []

    def connected(self, backend: Backend) -> None:
        self.told.append("connected")

    def released(self, backend: Backend) -> None:
        self.told.append("released")

    def gone(self, backend: Backend, reason: object) -> None:
        self.told.append("gone")


def made() -> tuple[Backend, Keeper, Any]:
    near, far = wire()
    keeper = Keeper()
    backend = Backend(near, Nodes().named("10.0.0.1:80"), keeper)
    return backend, keeper, far


@pytest.mark.parametrize(
    ("head", "method", "left", "keeps"),
    [
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5", "GET", 5, True),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive", "GET", UNTIL_CLOSE, False),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5", "GET", 5, False),
        ("HTTP/1.0 200 OK\r\nConnection: x-keep-alive-y\r\nContent-Length: 5", "GET", 5, True),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5", "GET", 5, True),
        ("HTTP/1.1 200 OK\r\nConnection: TE, close\r\nContent-Length: 5", "GET", 5, False),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5", "HEAD", 0, True),
        ("HTTP/1.1 204 OK", "GET", 0, True),
        ("HTTP/1.1 304 OK\r\nContent-Length: 5", "GET", 0, True),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", "GET", UNTIL_CLOSE, True),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip", "GET", UNTIL_CLOSE, False),
    ],
)
def test_how_a_body_is_framed(loop: Loop, head: str, method: str, left: int, keeps: bool) -> None:
    backend, _, far = made()
    backend.begin(None, RequestHead(method, "/", 11))  # type: ignore[arg-type]
    assert backend._begin_body(parse_response(f"{head}\r\n\r\n".encode())) is keeps
    assert backend.left == left
    backend.release(keep=False)
    far.close()


def test_its_node_counts_a_request_as_long_as_it_lasts(loop: Loop) -> None:
    backend, keeper, far = made()
    backend.begin(None, RequestHead("GET", "/", 10))  # type: ignore[arg-type]
    assert backend.node.active == 1
    backend.release(keep=False)
    backend.release(keep=False)
    assert (backend.node.active, backend.closed, keeper.told) == (0, True, ["gone"])
    far.close()


def test_whether_its_end_has_come_before_the_loop_tells(loop: Loop) -> None:
    backend, _, far = made()
    assert not backend.has_input()
    far.close()
    assert backend.has_input()
    backend.close()
    other, _, far = made()
    far.reset()
    assert other.has_input()
    other.close()


def test_a_request_in_sequential_style() -> None:
    def main() -> tuple[int, bytes, int]:
        backend, _, far = made()

        def serve() -> None:
            far.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")

        spawn(serve)
        answer = backend.ask(None, RequestHead("GET", "/x", 10))  # type: ignore[arg-type]
        body = backend.read_exactly(backend.left)
        asked = far.recv(1000)
        assert asked == b"GET /x HTTP/1.0\r\n\r\n"
        backend.release(keep=False)
        far.close()
        return answer.code, body, backend.node.requests

    with virtual_loop():
        assert run(main) == (200, b"ok", 1)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.0 200 OK\r\n", b"x\r\n\r\n", b"X: " + b"y" * 60_000 + b"\r\n"])
def test_what_is_no_answer_in_sequential_style(said: bytes) -> None:
    def main() -> None:
        backend, _, far = made()
        far.send(said) if said else None
        far.shutdown(1)
        try:
            with pytest.raises((BadHead, EOFError)):
                backend.ask(None, RequestHead("GET", "/x", 10))  # type: ignore[arg-type]
        finally:
            backend.release(keep=False)
            far.close()

    with virtual_loop():
        run(main)
