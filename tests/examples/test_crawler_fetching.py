"""Fetching a page: what is asked for, and servers that lie."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from crawler import fetching
from programs import SECONDS
from sites import OK, crawl, liar, says


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        ((OK, b"Content-Length: 5\r\n\r\nhello"), "1 with status 200"),
        ((OK, b"\r\nup to the end"), "1 with status 200"),
        ((b"HTTP/1.1 100 Continue\r\n\r\n", OK, b"\r\n"), "1 with status 200"),
        ((OK, b"Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n"), "1 with status 200"),
        ((OK, b"Content-Length: 10\r\n\r\nhello"), "1: ended too early"),
        ((OK, b"Content-Length: -1\r\n\r\n"), "1: a length of '-1'"),
        ((OK, b"Content-Length: 99999999999\r\n\r\n"), "1: too large"),
        ((OK, b"Content-Length: ", b"9" * 100, b"\r\n\r\n"), "1: a length of '99999999999999999999'"),
        ((OK, b"Content-Length: ff\r\n\r\n"), "1: a length of 'ff'"),
        ((OK, b"Transfer-Encoding: chunked\r\n\r\nffffffffff\r\n"), "1: too large"),
        ((OK, b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n"), "1: a chunk without an end"),
        ((OK, b"Transfer-Encoding: chunked\r\n\r\n3\r\nab"), "1: ended too early"),
        ((OK, b"\r\n", b"x" * 2_000_000), "1: too large"),
        ((b"SSH-2.0-server\r\n",), "1: no status line"),
        ((b"HTTP/1.1 200 OK\r\nno header\r\n\r\n",), "1: a header without a colon"),
        ((b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 50_000), "1: endless headers"),
        ((b"HTTP/1.1 200 OK\r\nX: ", b"y" * 50_000), "1: too large"),
        ((b"HTTP/1.1 200 OK\r\nX: y\r\n",), "1: an end within the headers"),
        ((), "1: an end within the headers"),
    ],
)
def test_servers_that_lie(reply: tuple[bytes, ...], outcome: str) -> None:
    with liar(says(*reply)) as url:
        assert crawl(url).splitlines()[-1] == f"  {outcome}"


def test_servers_that_never_come_to_an_end() -> None:
    def drip(sock: socket.socket) -> None:
        sock.sendall(OK + b"\r\n")
        for _ in range(1000):
            sock.sendall(b".")
            threading.Event().wait(0.01)

    with liar(drip) as dripping, liar(lambda sock: sock.recv(1)) as silent:
        printed = crawl(dripping, silent, "--page-seconds", "0.3")
    assert printed.splitlines() == ["pages: 0, bytes: 0", "failures: 2", "  2: too slow"]


@contextlib.contextmanager
def recorded(*replies: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A server that gives these replies, one after the other; its address, and the requests that it has had."""
    requests: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def work() -> None:
            for reply in replies:
                sock, _ = listener.accept()
                with sock, contextlib.suppress(OSError):
                    sock.settimeout(SECONDS)
                    request = b""
                    while not request.endswith(b"\r\n\r\n"):
                        request += sock.recv(65536)
                    requests.append(request)
                    sock.sendall(reply)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield "127.0.0.1:{}".format(*listener.getsockname()[1:]), requests
        finally:
            thread.join(SECONDS)
            assert not thread.is_alive()


def test_who_asks_for_what() -> None:
    page = OK.replace(b"text/html", b"TEXT/Html;Charset=LATIN-1") + b"\r\n<base href='/x/'>"
    page += b"<a href='\xfc?\xfc#part'><!--<a href=no>--><script>'<a href=no>'</script>"
    moved = b"HTTP/1.1 302 Found\r\nLocation: y?\xc3\xbc#part\r\n\r\n"
    with recorded(page, moved, OK + b"\r\n<a href='y?%C3%BC#other'>") as (address, requests):
        printed = crawl(f"http://user:pass%20word@{address}#part")
    assert printed.splitlines()[1:] == ["  2 with status 200", "  1 with status 302"]
    assert [request.split()[1] for request in requests] == [b"/", b"/x/%C3%BC?%FC", b"/x/y?%C3%BC"]
    for request in requests:
        lines = request.split(b"\r\n")
        assert [line for line in lines if line.startswith(b"Host:")] == [b"Host: " + address.encode()]
        assert b"Authorization: Basic dXNlcjpwYXNzIHdvcmQ=" in lines


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://h/", "h"),
        ("http://u:p@H:80/", "h"),
        ("http://u@h:8080/", "h:8080"),
        ("http://[::1]/", "[::1]"),
        ("http://[fe80::1%25eth0]:81/", "[fe80::1]:81"),
        ("http://h:/", "h"),
    ],
)
def test_the_host_header(url: str, host: str) -> None:
    assert f"\r\nHost: {host}\r\n" in fetching.request(urlsplit(url)).decode()
    assert ("Authorization" in fetching.request(urlsplit(url)).decode()) == ("@" in url)


def test_nobody_is_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert crawl(f"http://127.0.0.1:{port}/").splitlines()[-1] == "  1: cannot connect to ('127.0.0.1', {}): {}".format(
        port, "Connection refused"
    )
