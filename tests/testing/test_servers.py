"""A server in a thread, for tests: it is shared by them, its errors are told, and it is judged at its end."""

from __future__ import annotations

import functools
import threading

import pytest

import dangagreen as d
from dangagreen.testing.servers import ServerThread


def echo(sock):
    for line in sock:
        if line == b"bad\n":
            raise ValueError("a bad line")
        sock.write_all(line)


def careless(sock):
    sock.loop.add_timer(100, print)


def start(handler):
    return ServerThread(functools.partial(d.serve, ("127.0.0.1", 0), handler))


def ask(server, line):
    with d.connect(server.listener.address, 5) as sock:
        sock.write_all(line)
        return sock.read_line()


@pytest.mark.parametrize("as_task", [False, True], ids=["top-level code", "task"])
def test_it_serves_and_ends(as_task):
    before = threading.active_count()

    def test():
        server = start(echo)
        try:
            assert ask(server, b"hello\n") == b"hello\n"
            assert server.take_errors() == []
        finally:
            assert server.end() == []
        with pytest.raises(ConnectionRefusedError):
            d.connect(server.listener.address, 5)

    d.run(test) if as_task else test()
    assert threading.active_count() - before <= 1  # a thread of the pool


def test_errors_are_taken_once():
    server = start(echo)
    try:
        assert ask(server, b"bad\n") == b""
        (context,) = server.take_errors()
        assert str(context.exception) == "a bad line"
        assert server.take_errors() == []
    finally:
        assert server.end() == []


def test_what_it_leaves_is_told_at_its_end():
    server = start(careless)
    with d.connect(server.listener.address, 5) as sock:
        sock.read_to_end(10)
    (leak,) = server.end()
    assert leak.startswith("timer: print")


def test_a_server_that_cannot_start_leaves_no_thread():
    before = threading.active_count()
    with pytest.raises(TypeError):
        start(None)
    assert threading.active_count() == before
