"""Uploads that are collected in files: when, how they are sent, and who may leave at which point."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dangagreen import task_table
from dangagreen.loop.loop import Loop
from proxy_wires import ANSWERED, GET, OK, End, Proxy

HEAD = b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
CHUNKED = b"POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def proxy(
    loop: Loop, run_turns: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, advance: Callable[[float], None],
    tmp_path: Path,
) -> Iterator[Proxy]:  # fmt: skip
    proxy = Proxy(loop, run_turns, monkeypatch)
    proxy.set(buffer_uploads="on", buffer_uploads_path=tmp_path, buffer_upload_threshold_size="10")
    proxy.capacity = 2_000_000
    yield proxy
    settle(proxy, lambda: not task_table())  # of which some are still at their files
    proxy.end()
    advance(6)
    assert os.listdir(tmp_path) == []


def settle(proxy: Proxy, condition: Callable[[], object]) -> None:
    """Run turns, in real time: threads write to the disk."""
    until = time.monotonic() + 10
    while not condition():
        proxy.turns(3)
        time.sleep(0.001)
        assert time.monotonic() < until


def received(proxy: Proxy, size: int, number: int = -1) -> bytes:
    """What a node has received, the body of which has so many bytes."""
    got = b""

    def whole() -> bool:
        nonlocal got
        if len(proxy.nodes) > number:
            got += proxy.nodes[number].received() or b""
        return len(got.partition(b"\r\n\r\n")[2]) >= size

    settle(proxy, lambda: proxy.nodes)
    settle(proxy, whole)
    return got


def answer(proxy: Proxy, client: End, data: bytes = OK) -> bytes:
    proxy.node().send(data)
    got = b""

    def whole() -> bool:
        nonlocal got
        got += client.received() or b""
        return client.near.exchange is None and bool(got)

    settle(proxy, whole)
    return got


@pytest.mark.parametrize("size", [10, 1000, 700_000])
def test_a_large_one_is_collected_before_a_backend_is_asked_for(proxy: Proxy, size: int, tmp_path: Path) -> None:
    client = proxy.client(HEAD % size + b"x" * 5, capacity=2_000_000)
    settle(proxy, lambda: os.listdir(tmp_path))
    assert proxy.nodes == []
    assert client.near.state == "buffering_upload"
    assert os.listdir(tmp_path)[0].startswith(f"rp-none-{client.near.fd}-")
    client.send(b"y" * (size - 5))
    head, _, body = received(proxy, size).partition(b"\r\n\r\n")
    assert f"Content-Length: {size}".encode() in head
    assert body == b"x" * 5 + b"y" * (size - 5)
    assert answer(proxy, client) == ANSWERED
    client.send(GET)  # in callback style again
    proxy.answer()
    assert client.received() == ANSWERED
    assert len(proxy.nodes) == 1
    proxy.check()


def test_a_small_one_is_not(proxy: Proxy, tmp_path: Path) -> None:
    client = proxy.client(HEAD % 9 + b"123456789")
    proxy.answer()
    assert client.received() == ANSWERED
    assert os.listdir(tmp_path) == []
    proxy.check()


def test_without_a_threshold_of_size_none_is(proxy: Proxy) -> None:
    proxy.set(buffer_upload_threshold_size="0")
    client = proxy.client(HEAD % 20 + b"1234567890" * 2)
    proxy.answer()
    assert client.received() == ANSWERED
    proxy.check()


@pytest.mark.parametrize(
    ("after", "parameters", "reason"),
    [
        (1.0, {"buffer_upload_threshold_time": "5"}, b"time"),  # 10 bytes in 1 s, 90 are left
        (1.0, {"buffer_upload_threshold_time": "0", "buffer_upload_threshold_rate": "20"}, b"rate"),
        (1.0, {"buffer_upload_threshold_time": "5", "buffer_upload_threshold_rate": "20"}, b"time"),
        (1.0, {"buffer_upload_threshold_time": "0", "buffer_upload_threshold_rate": "5"}, b""),
        (0.1, {"buffer_upload_threshold_time": "5"}, b""),
        (None, {}, b"size"),
    ],
)
def test_why_one_is_collected(
    proxy: Proxy, after: float | None, parameters: dict[str, str], reason: bytes, monkeypatch: pytest.MonkeyPatch,
    advance: Callable[[float], None],
) -> None:  # fmt: skip
    monkeypatch.setenv("PERLBAL_DEBUG_BUFFERED_UPLOADS", "1")
    if after is not None:
        proxy.set(buffer_upload_threshold_size="0", buffer_backend_connect="10", **parameters)
    client = proxy.client(HEAD % 100)
    if after is not None:
        advance(after)
    client.send(b"x" * 10)
    proxy.turns()
    client.send(b"x" * 90)
    head = received(proxy, 100).partition(b"\r\n\r\n")[0]
    assert (b"X-PERLBAL-BUFFERED-UPLOAD-REASON: " + reason in head) if reason else (b"X-PERLBAL" not in head)
    assert answer(proxy, client) == ANSWERED
    proxy.check()


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (b"0\r\n\r\n", b""),
        (b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\n", b"abcde"),
        (b"30D40\r\n" + b"z" * 200_000 + b"\r\n0\r\n\r\n", b"z" * 200_000),
    ],
)
def test_a_chunked_one_gets_a_length(proxy: Proxy, data: bytes, body: bytes) -> None:
    client = proxy.client(CHUNKED.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"), capacity=2_000_000)
    assert client.received() == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(data + GET)
    head, _, got = received(proxy, len(body)).partition(b"\r\n\r\n")
    assert got == body
    assert f"\r\nContent-Length: {len(body)}\r\n".encode() in head + b"\r\n"
    assert b"Transfer-Encoding" not in head
    assert b"Expect" not in head
    proxy.node().send(OK)
    settle(proxy, lambda: client.near.served == 1)
    proxy.answer()  # what came behind it
    assert client.received() == ANSWERED * 2
    proxy.check()


@pytest.mark.parametrize(("data", "code"), [(b"5\r\nabcde\r\n", 413), (b"no\r\n", 400), (b"1\r\nab\r\n", 400)])
def test_a_chunked_one_that_lies_or_is_too_large_is_refused(proxy: Proxy, data: bytes, code: int) -> None:
    proxy.set(max_chunked_request_size="4")
    client = proxy.client(CHUNKED)
    client.send(data)
    settle(proxy, client.near.close if client.near.closed else lambda: client.near.exchange is None)
    assert (client.received() or b"").startswith(b"HTTP/1.0 %d " % code)
    assert client.ended()
    assert proxy.nodes == []
    proxy.check()


def test_trouble_on_the_disk_is_a_500(proxy: Proxy, tmp_path: Path) -> None:
    proxy.service.buffer_uploads_path = str(tmp_path / "none")
    client = proxy.client(HEAD % 20 + b"x")
    settle(proxy, lambda: client.near.exchange is None)
    assert (client.received() or b"").startswith(b"HTTP/1.0 500 ")
    assert client.ended()
    proxy.check()


@pytest.mark.parametrize("sent", [0, 1, 19])
@pytest.mark.parametrize("leave", [End.close, End.reset], ids=["closes", "resets"])
def test_a_client_leaves_before_all_is_there(proxy: Proxy, sent: int, leave: Callable[[End], None]) -> None:
    client = proxy.client(HEAD % 20)
    client.send(b"x" * sent) if sent else None
    proxy.turns()
    leave(client)
    settle(proxy, lambda: client.near.closed)
    assert proxy.nodes == []
    proxy.check()


def test_a_client_leaves_while_it_waits_for_a_backend(proxy: Proxy) -> None:
    proxy.connects = lambda name: None
    client = proxy.client(HEAD % 20 + b"x" * 20)
    settle(proxy, lambda: proxy.queues.waiting)
    client.close()
    settle(proxy, lambda: client.near.closed)
    proxy.connect(proxy.node())
    proxy.check()


def test_a_client_leaves_while_the_file_is_sent(proxy: Proxy) -> None:
    proxy.capacity = 10_000
    client = proxy.client(HEAD % 500_000 + b"x" * 500_000, capacity=2_000_000)
    settle(proxy, lambda: proxy.nodes and proxy.node().received())
    client.close()
    settle(proxy, lambda: client.near.closed)
    assert proxy.node().near.closed
    proxy.check()


@pytest.mark.parametrize("leave", [End.close, End.reset], ids=["closes", "resets"])
def test_a_backend_leaves_while_the_file_is_sent(proxy: Proxy, leave: Callable[[End], None]) -> None:
    proxy.capacity = 10_000
    client = proxy.client(HEAD % 500_000 + b"x" * 500_000, capacity=2_000_000)
    settle(proxy, lambda: proxy.nodes and proxy.node().received())
    leave(proxy.node())
    settle(proxy, lambda: client.near.exchange is None)
    assert (client.received() or b"").startswith(b"HTTP/1.0 502 ")
    proxy.check()


def test_a_backend_answers_while_the_file_is_sent(proxy: Proxy, advance: Callable[[float], None]) -> None:
    proxy.capacity = 10_000
    client = proxy.client(HEAD % 500_000 + b"x" * 500_000, capacity=2_000_000)
    settle(proxy, lambda: proxy.nodes and proxy.node().received())
    assert answer(proxy, client) == ANSWERED
    advance(1.1)
    assert proxy.node().near.closed  # which has not taken all of the request
    client.send(GET)
    proxy.answer()
    assert client.received() == ANSWERED
    proxy.check()


def test_a_backend_that_takes_it_slowly_is_not_silent(proxy: Proxy, advance: Callable[[float], None]) -> None:
    proxy.set(backend_timeout="30", idle_timeout="1000", persist_client="on")
    proxy.capacity = 100_000  # a second for each, or for each piece that a thread reads
    size = 8_000_000
    client = proxy.client(HEAD % size, capacity=9_000_000)
    client.send(b"x" * size)
    got = received(proxy, 1)

    def takes_some() -> bool:
        nonlocal got
        piece = proxy.node().received() or b""
        got += piece
        return bool(piece)

    began = proxy.loop.clock()
    while len(got.partition(b"\r\n\r\n")[2]) < size:
        advance(1)
        settle(proxy, takes_some)
    assert proxy.loop.clock() - began > 60
    assert answer(proxy, client) == ANSWERED
    proxy.check()


def test_the_wait_for_a_backend_is_bounded(proxy: Proxy, advance: Callable[[float], None]) -> None:
    proxy.connects = lambda name: False
    client = proxy.client(HEAD % 20 + b"x" * 20)
    settle(proxy, lambda: proxy.queues.waiting)
    advance(11)
    assert (client.received() or b"").startswith(b"HTTP/1.0 503 ")
    proxy.check()


def test_a_client_that_sends_nothing_is_closed(proxy: Proxy) -> None:
    client = proxy.client(HEAD % 20 + b"x")
    settle(proxy, lambda: client.near.body_left == 19)
    proxy.loop.clock.jump(31)  # type: ignore[attr-defined]
    proxy.turns()
    client.near.look_at_clock(proxy.loop.clock())
    settle(proxy, lambda: client.near.closed)
    proxy.check()
