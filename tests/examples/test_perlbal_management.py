"""The management port of perlbal over a real connection: commands, pages, and any bytes at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

import dangagreen as d
from perlbal.services import World
from perlbal_worlds import configured

PORT = """
CREATE SERVICE mgmt
SET role = management
SET listen = 127.0.0.1:0
ENABLE mgmt
"""


@contextlib.contextmanager
def managed() -> Iterator[tuple[World, d.Listener]]:
    """A world with a management port, while the loop is this test's."""
    d.Socket.reset()
    world = configured(PORT)
    listener = world.services["mgmt"].listener
    try:
        yield world, listener
    finally:
        listener.close()
        d.Socket.reset()


@pytest.fixture
def port() -> Iterator[tuple[World, d.Listener]]:
    with managed() as both:
        yield both


def answer(listener: d.Listener, *pieces: bytes) -> bytes:
    """What comes back for these bytes, to the end."""
    with d.connect(listener.address) as sock:
        for piece in pieces:
            sock.write_all(piece)
            sock.drain()
        with d.timeout(10):
            sock.write_eof()
            return sock.read_to_end(1 << 20)


def test_commands_and_answers(port):
    _, listener = port
    assert answer(listener, b"show service\r\nuse mgmt\nverbose off\nuse mgmt\nset foo=1\n") == (
        b"mgmt 127.0.0.1:0 ENABLED\r\n.\r\nOK\r\nERROR: Unknown service parameter 'foo'\r\n"
    )


@pytest.mark.parametrize("word", [b"quit", b"exit"])
def test_quit(port, word):
    assert answer(port[1], b"uptime 1\n" + word + b"\r\nuse mgmt\n").endswith(b"takes no arguments\r\n")


def test_words_that_only_look_like_quit(port):
    assert answer(port[1], b"quite\nno exit\n") == (b"ERROR: unknown command: quite\r\nERROR: unknown command: no\r\n")


def test_empty_lines_are_fine(port):
    assert answer(port[1], b"\n", b"\r\n\n # x\nuse mgmt\n") == b"OK\r\n"


def test_a_line_in_pieces_and_an_end_without_a_line_end(port):
    assert answer(port[1], b"use", b" mg", b"mt\nuse mgmt") == b"OK\r\n"


def test_a_line_without_end_is_refused(port):
    assert answer(port[1], b"a" * 100_000) == b"ERROR: the line is too long\r\n"


def test_bytes_that_are_no_text(port):
    assert answer(port[1], b"\xff\x00\x80\nset \xff = 1\n\0\nuse mgmt\n") == (
        b"ERROR: invalid command\r\nERROR: usage: SET [<service>] <param> = <value>\r\nERROR: invalid command\r\nOK\r\n"
    )


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        (b"/", b"200 OK", b"<a href='/service?mgmt'>mgmt</a> - management (127.0.0.1:0)"),
        (b"/socks", b"200 OK", b"1 Perlbal::ClientManage"),
        (b"/service?mgmt", b"200 OK", b"SERVICE mgmt"),
        (b"/service?<b>", b"404 Not Found", b"/service?&lt;b&gt;"),
        (b"/nope", b"404 Not Found", b"/nope"),
    ],
)
def test_pages(port, path, status, text):
    head, _, body = answer(port[1], b"GET " + path + b" HTTP/1.0\r\nA: b\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 " + status)
    assert f"Content-Length: {len(body)}\r\n".encode() in head
    assert text in body


def test_a_page_of_somebody_else_and_a_head_request(port):
    world, listener = port
    world.pages["/metrics"] = lambda: ("text/plain", "up 1\n")
    assert answer(listener, b"GET /metrics?x HTTP/1.1\r\nHost: a\r\n\r\n") == (
        b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\nConnection: close\r\n\r\nup 1\n"
    )
    assert answer(listener, b"HEAD /metrics HTTP/1.0\r\n\r\n").endswith(
        b"Content-Length: 5\r\nConnection: close\r\n\r\n"
    )


def test_a_client_that_asks_for_much_and_reads_nothing_keeps_nobody_waiting(port):
    world, listener = port
    for number in range(2000):
        world.create_service(f"service_with_a_long_name_{number}")
    with d.connect(listener.address) as idle:
        idle.write_all(b"show service\n" * 500)
        assert b"OK" in answer(listener, b"use mgmt\n")


def test_connections_are_listed(port):
    _, listener = port
    lines = answer(listener, b"socks\n").decode().split("\r\n")
    assert lines[0] == "   fd    age"
    assert (
        sum(
            line.endswith("Perlbal::TCPListener(R): open: listening on 127.0.0.1:0 for service 'mgmt'")
            for line in lines
        )
        == 1
    )
    assert sum("    0s Perlbal::ClientManage(R): open to 127.0.0.1:" in line for line in lines) == 1
