"""When, where and by whom handlers were made, once the table stands in the place of a loop's dict."""

from __future__ import annotations

import inspect
import os
import socket

import pytest

import dangagreen as d
from dangagreen.loop.births import BirthTable
from dangagreen.testing import wire

FILE = os.path.abspath(__file__)


@pytest.fixture
def table(loop):
    if not isinstance(loop.handlers, BirthTable):
        loop.handlers = BirthTable(loop)
    return loop.handlers


def line_here():
    return f"{FILE}:{inspect.currentframe().f_back.f_lineno}"


def wait_until(condition):
    with d.timeout(30):
        while not condition():
            d.sleep(0.001)


class WithConstructor(d.Socket):
    __slots__ = ("upstream",)

    def __init__(self, sock, connects=False):
        super().__init__(sock)
        self.upstream = d.Socket(wire()[0]) if connects else None


def test_what_the_program_makes_has_its_line_its_time_and_its_task(loop, table):
    made = []

    def body():
        d.sleep(5)
        made.append((d.Socket(wire()[0]), line_here()))

    began = loop.clock()
    d.spawn(body)
    d.sleep(10)
    ((sock, line),) = made
    birth = table.birth(sock)
    assert (birth.time, birth.place) == (began + 5, line)
    assert birth.task.endswith("body")
    sock.close()


def test_it_is_the_line_that_calls_the_class_and_not_one_in_its_constructor(loop, table):
    sock, line = WithConstructor(wire()[0], connects=True), line_here()
    assert table.birth(sock).place == line
    assert table.birth(sock).task is None
    code = WithConstructor.__init__.__code__
    assert table.birth(sock.upstream).place == f"{FILE}:{code.co_firstlineno + 2}"  # which the constructor has made
    sock.upstream.close()
    sock.close()


def test_an_accepted_connection_has_no_place_and_what_its_constructor_opens_has(real_loop):
    real_loop.handlers = table = BirthTable(real_loop)
    made = []

    class Upstream(d.Socket):
        __slots__ = ()

        def event_connect(self):
            pass

    class Proxy(WithConstructor):
        __slots__ = ()

        def __init__(self, sock):
            super().__init__(sock)
            self.upstream = Upstream.connect_to(listener.address)
            made.append(self)

        def event_read(self):
            self.close()

    listener = d.serve(("127.0.0.1", 0), d.Socket.read_line)
    proxy = d.serve(("127.0.0.1", 0), Proxy)
    with d.connect(proxy.address):
        wait_until(lambda: made)
        (sock,) = made
        assert table.birth(sock).place is None
        code = Proxy.__init__.__code__
        assert table.birth(sock.upstream).place == f"{FILE}:{code.co_firstlineno + 2}"
        (own, line) = d.Socket(half_open()), line_here()
        assert table.birth(own).place == line  # after an accept as well
        own.close()
        sock.upstream.close()
    listener.close()
    proxy.close()
    wait_until(lambda: sock not in real_loop.handlers.values())


def half_open():
    one, other = socket.socketpair()
    other.close()
    return one


def test_one_that_could_not_be_made_does_not_count_the_next_as_accepted(real_loop):
    real_loop.handlers = table = BirthTable(real_loop)
    errors = []
    real_loop.on_error = errors.append

    def refuses(sock, listener):
        raise ValueError("no")

    listener = d.Listener(server_socket(), refuses)
    with d.connect(listener.addresses[0]) as client:
        client.read_to_end(10)
    assert [str(context.exception) for context in errors] == ["no"]
    sock, line = d.Socket(half_open()), line_here()
    assert table.birth(sock).place == line
    sock.close()
    listener.close()


def server_socket():
    return socket.create_server(("127.0.0.1", 0))


def test_who_was_there_before_the_table_has_no_birth(loop):
    loop.handlers = dict(loop.handlers)
    old = d.Socket(wire()[0])
    loop.handlers = table = BirthTable(loop)
    assert table[old.fd] is old
    assert table.birth(old) is None
    old.close()
