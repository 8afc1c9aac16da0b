"""Mutated exchanges, on the side of the client and on that of the backend: whatever comes, nothing is left behind, each
request has an end, and others are served."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dangagreen.testing import virtual_loop
from proxy_wires import ANSWERED, GET, OK, Proxy

REQUESTS = [
    GET,
    b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"PUT http://h:1/p HTTP/1.0\r\nConnection: keep-alive\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    b"HEAD * HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: a=b\r\n folded\r\n\r\n",
]
ANSWERS = [
    OK,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.0 204 None\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nX-Reproxy-File: /etc/none\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.0 500 No\r\nContent-Length: 2\r\n\r\nno",
]
SETTINGS = [
    {},
    {"backend_http_version": "1.1", "buffer_backend_connect": "0"},
    {"buffer_uploads": "on", "buffer_upload_threshold_size": "1"},
    {"buffer_backend_connect": "2", "enable_error_retries": "on", "error_retry_schedule": "0,1"},
]


@st.composite
def mutated(draw: Any, seeds: list[bytes]) -> bytes:
    """A seed, or two, with some bytes replaced, removed, repeated or put in."""
    data = bytearray(b"".join(draw(st.lists(st.sampled_from(seeds), min_size=1, max_size=2))))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.integers(0, 12)))
        match draw(st.sampled_from(["replace", "remove", "repeat", "insert"])):
            case "replace":
                data[at:end] = draw(st.binary(max_size=12))
            case "remove":
                del data[at:end]
            case "repeat":
                data[at:at] = data[at:end] * draw(st.integers(1, 3))
            case "insert":
                data[at:at] = draw(
                    st.sampled_from([b"\r\n", b"\n", b"\r", b"\0", b": ", b" ", b"-1", b"99999999999999999999"])
                )
    return bytes(data)


pieces = st.lists(st.integers(1, 60), max_size=6)


def cut(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    for size in sizes:
        if data:
            yield data[:size]
            data = data[size:]
    if data:
        yield data


@contextmanager
def fresh(parameters: dict[str, str]) -> Iterator[tuple[Proxy, Callable[[float], None]]]:
    """A proxy on a loop of its own. At the end nothing is left, and it serves."""

    def run_turns(count: int) -> None:
        left = iter(range(count))
        loop.loop_timeout = 0
        loop.run(lambda: next(left, None) is None)
        loop.loop_timeout = None

    def advance(seconds: float) -> None:
        timer = loop.add_timer(seconds, lambda: None)
        loop.run(lambda: not timer.active)

    errors: list[Any] = []
    with virtual_loop() as loop, pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as uploads:
        loop.on_error = errors.append
        for module in "reproxying", "uploads":  # virtual time does not wait for threads
            patch.setattr(f"perlbal.{module}.in_thread", lambda function, *arguments: function(*arguments))
        proxy = Proxy(loop, run_turns, patch).set(persist_client="on", enable_reproxy="on", **parameters)
        proxy.set(buffer_uploads_path=uploads)
        yield proxy, advance
        for end in proxy.clients:
            end.close()
        advance(100)
        proxy.check()
        client = proxy.client(GET)
        proxy.turns()
        proxy.answer(number=next(n for n, end in enumerate(proxy.nodes) if end.near.consumer is not None))
        assert client.received() == ANSWERED
        proxy.check()
        proxy.end()
        advance(10)
        assert os.listdir(uploads) == []
    assert errors == []


@given(mutated(REQUESTS), pieces, st.sampled_from(SETTINGS), st.integers(0, 3))
@settings(max_examples=250, deadline=None)
def test_clients(data: bytes, sizes: list[int], parameters: dict[str, str], answers: int) -> None:
    with fresh(parameters) as (proxy, advance):
        client = proxy.client()
        for piece in cut(data, sizes):
            if not client.near.closed:
                client.sock.send(piece)
            proxy.turns(3)
            if answers and proxy.nodes and not proxy.nodes[-1].near.closed and proxy.nodes[-1].received():
                answers -= 1
                proxy.nodes[-1].send(OK)
        proxy.turns()
        if not answers:
            advance(65 * 8)  # what waits for a backend has an answer by then, and what is behind it
            assert client.near.exchange is None or client.near.body_left


@given(mutated(ANSWERS), pieces, st.sampled_from(SETTINGS), st.sampled_from(["closes", "resets", "stays"]))
@settings(max_examples=250, deadline=None)
def test_backends(data: bytes, sizes: list[int], parameters: dict[str, str], leaves: str) -> None:
    with fresh(parameters) as (proxy, advance):
        client = proxy.client(GET)
        node = proxy.node()
        for piece in cut(data, sizes):
            if not node.near.closed:
                node.sock.send(piece)
            proxy.turns(3)
        if leaves == "closes":
            node.close()
        elif leaves == "resets":
            node.reset()
        proxy.turns()
        advance(65)
        for other in proxy.nodes[1:]:
            other.close()
        advance(130)
        got = client.received()
        assert got is None or got.startswith(b"HTTP/1."), got
        assert got is not None or client.near.closed
        assert client.near.exchange is None
