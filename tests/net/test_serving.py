"""serve and serve_requests: the styles, addresses, how handlers end, contexts."""

from __future__ import annotations

import contextvars
import functools
import inspect
import logging
import socket
from typing import ClassVar

import pytest

import dangagreen as d
from dangagreen.green.sched import scheduler
from dangagreen.net.serving import ServeOptions
from tests.connections import LOCAL, STYLES, Echo, ask, echo_lines

var = contextvars.ContextVar("var", default="unset")


styles = pytest.mark.parametrize(
    ("server", "handler"),
    [*STYLES.values(), (d.serve_requests, echo_lines)],
    ids=[*STYLES, "requests-loop"],
)


# -- three ways to serve


@styles
def test_each_style_echoes(real_loop, served, client, server, handler):
    listener = served(handler, server)
    clients = [client(listener) for _ in range(3)]
    for number in range(3):
        for index, sock in enumerate(clients):
            line = b"%d %d\n" % (index, number)
            assert ask(sock, line) == line
    assert listener.connections == 3


@styles
def test_each_style_answers_what_was_sent_at_once(real_loop, served, client, server, handler):
    sock = client(served(handler, server))
    sock.write_all(b"one\ntwo\nthree\nfour\n")
    assert sock.read_exactly(19) == b"one\ntwo\nthree\nfour\n"


@styles
def test_each_style_ends_the_connection_when_the_peer_does(real_loop, served, client, wait_for, server, handler):
    listener = served(handler, server)
    sock = client(listener)
    ask(sock, b"x\n")
    sock.sock.shutdown(socket.SHUT_WR)
    assert sock.read_line() == b""
    wait_for(lambda: not listener.connections)
    assert not scheduler(real_loop).tasks


def test_serve_with_a_class_makes_an_instance_for_each_connection(real_loop, served, client):
    made = []

    class Noted(Echo):
        __slots__ = ()

        def __init__(self, sock):
            super().__init__(sock)
            made.append(self)

    listener = served(Noted)
    for _ in range(2):
        ask(client(listener), b"x\n")
    assert len(made) == 2
    assert all(type(sock) is Noted for sock in made)


def test_serve_with_a_function_uses_the_socket_class(real_loop, served, client):
    class Mine(d.Socket):
        __slots__ = ()

    def handler(sock):
        sock.write_all(type(sock).__name__.encode() + b"\n")

    assert client(served(handler, socket_class=Mine)).read_line() == b"Mine\n"


def test_a_handlers_task_is_named_after_it(real_loop, served, client):
    def handler(sock):
        sock.write_all(d.current_task().name.encode() + b"\n")

    assert b"handler" in client(served(handler)).read_line()


@pytest.mark.parametrize("handler", [None, 5, "handler", int])
def test_a_handler_that_is_neither_a_socket_class_nor_a_function_is_refused(loop, handler):
    for server in (d.serve, d.serve_requests):
        with pytest.raises(TypeError):
            server(LOCAL, handler)


def test_serve_requests_wants_a_function(loop):
    with pytest.raises(TypeError):
        d.serve_requests(LOCAL, Echo)


@pytest.mark.parametrize("call", [d.serve, d.serve_requests])
def test_help_names_the_options_that_types_know(call):
    parameters = inspect.signature(call).parameters.values()
    named = {one.name for one in parameters if one.kind is one.KEYWORD_ONLY}
    assert named == ServeOptions.__optional_keys__ | {"socket_class"}


# -- addresses


def test_ipv6(real_loop, served, client):
    listener = served(echo_lines, address=("::1", 0))
    assert listener.address[0] == "::1"
    assert ask(client(listener), b"six\n") == b"six\n"


def test_a_path_is_a_unix_socket_and_goes_with_its_listener(real_loop, served, client, tmp_path, wait_for):
    path = tmp_path / "socket"
    listener = served(echo_lines, address=path)
    assert listener.address == str(path)
    sock = client(listener)
    assert ask(sock, b"unix\n") == b"unix\n"
    sock.close()
    wait_for(lambda: not listener.connections)
    listener.close()
    d.sleep(0)
    assert not path.exists()


def test_a_socket_that_listens_already(real_loop, served, client):
    with socket.socket() as ready:
        ready.bind(LOCAL)
        ready.listen()
        listener = served(echo_lines, address=ready)
        assert listener.address == ready.getsockname()
        sock = client(listener)
        assert ask(sock, b"ready\n") == b"ready\n"
        sock.close()
        d.sleep(0)
        listener.close()
        d.sleep(0)


def test_an_address_that_is_taken_raises_and_names_it(real_loop, served):
    listener = served(echo_lines)
    with pytest.raises(OSError, match=str(listener.address[1])):
        d.serve(listener.address, echo_lines)


def test_nodelay_is_on_by_default_and_can_be_turned_off(real_loop, served, client):
    def handler(sock):
        sock.write_all(b"%d\n" % sock.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    sock = client(served(handler))
    assert sock.read_line() != b"0\n"
    assert sock.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert client(served(handler, nodelay=False)).read_line() == b"0\n"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_connection_that_would_be_to_itself_is_refused(host, real_loop, monkeypatch):
    """As a client that tries a port of the ephemeral range time and again comes to have (RFC 9293, 3.5)."""
    made = []

    class Bound(socket.socket):
        def connect_ex(self, address):
            made.append(self)
            self.bind(address)
            return super().connect_ex(address)

    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        port = probe.getsockname()[1]
    monkeypatch.setattr(socket, "socket", Bound)
    with pytest.raises(ConnectionRefusedError, match=f"cannot connect to .*{port}"):
        d.connect((host, port), 30)
    assert [sock.fileno() for sock in made] == [-1]


def test_a_closed_listener_accepts_no_more_and_leaves_its_connections(real_loop, served, client):
    listener = served(echo_lines)
    sock = client(listener)
    assert ask(sock, b"before\n") == b"before\n"
    listener.close()
    d.sleep(0)
    with pytest.raises(ConnectionRefusedError):
        d.connect(listener.address, 30)
    assert ask(sock, b"after\n") == b"after\n"


@styles
def test_max_connections_lets_the_others_wait(real_loop, served, client, wait_for, server, handler):
    listener = served(handler, server, max_connections=2)
    first, second, third = [client(listener) for _ in range(3)]
    for sock in (first, second):
        ask(sock, b"x\n")
    third.write_all(b"third\n")
    for _ in range(20):
        d.sleep(0)
    waiting = d.spawn(third.read_line)
    with pytest.raises(TimeoutError):
        waiting.join(0.02)
    assert listener.connections == 2
    first.close()
    waiting.join(30)
    assert waiting.result() == b"third\n"
    assert listener.connections == 2


# -- how a handler ends


@styles
def test_a_failing_handler_costs_its_own_connection_and_is_reported_once(
    real_loop, served, client, take_errors, wait_for, server, handler
):
    error = KeyError("mine")

    class Failing(Echo):
        __slots__ = ()

        def event_read(self):
            data = self.read(100)
            if data is None:
                self.close()
            elif b"fail" in data:
                raise error
            else:
                self.write(b"fine\n")

    def failing(sock):
        while line := sock.read_line():
            if b"fail" in line:
                raise error
            sock.write_all(b"fine\n")

    listener = served(Failing if handler is Echo else failing, server)
    other, sock = client(listener), client(listener)
    ask(other, b"x\n")
    sock.write_all(b"fail\n")
    assert sock.read_to_end() == b""
    (context,) = take_errors()
    assert context.exception is error
    assert context.exception.__traceback__ is not None
    wait_for(lambda: listener.connections == 1)
    assert ask(other, b"x\n") == b"fine\n"


def test_a_class_that_cannot_be_made_is_reported_and_the_server_lives_on(real_loop, served, client, take_errors):
    fail = [True]

    class Failing(Echo):
        __slots__ = ()

        def __init__(self, sock):
            super().__init__(sock)
            if fail.pop() if fail else False:
                raise KeyError("mine")

    listener = served(Failing)
    assert client(listener).read_to_end() == b""
    assert [type(context.exception) for context in take_errors()] == [KeyError]
    assert ask(client(listener), b"fine\n") == b"fine\n"


def test_a_handler_that_ends_by_its_own_peers_end_is_no_failure(real_loop, served, client, caplog, wait_for):
    caplog.set_level(logging.DEBUG, logger="dangagreen")
    listener = served(lambda sock: sock.read_exactly(100))
    sock = client(listener)
    sock.write_all(b"part")
    sock.drain()
    sock.close()
    d.sleep(0)
    wait_for(lambda: not listener.connections)
    (record,) = [record for record in caplog.records if "ended" in record.getMessage()]
    assert record.levelno == logging.DEBUG
    assert not record.exc_info


def test_a_reset_by_its_own_peer_is_no_failure(real_loop, served, client, wait_for):
    started = []

    def handler(sock):
        started.append(sock)
        sock.read_line()

    listener = served(handler)
    sock = client(listener)
    wait_for(lambda: started)
    sock.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()
    d.sleep(0)
    wait_for(lambda: not listener.connections)


def test_a_reset_that_a_write_finds_is_no_failure(real_loop, served, client, wait_for):
    def handler(sock):
        sock.read_line()
        while True:
            sock.write_all(b"x" * 65536)
            sock.drain()

    listener = served(handler)
    sock = client(listener)
    sock.write_all(b"go\n")
    sock.read_exactly(100000)
    sock.close()
    d.sleep(0)
    wait_for(lambda: not listener.connections)


def test_a_socket_that_others_close_ends_its_handler_quietly(real_loop, served, client, wait_for):
    socks = []

    def handler(sock):
        socks.append(sock)
        sock.read_line()

    listener = served(handler)
    sock = client(listener)
    wait_for(lambda: socks)
    socks[0].close("kicked out")
    assert sock.read_line() == b""
    assert listener.connections == 0


def test_the_end_of_another_connection_is_a_failure_of_the_handler(real_loop, served, client, take_errors):
    backend = served(lambda sock: sock.write_all(b"half a li"))

    def proxy(sock):
        with d.connect(backend.address, 30) as upstream:
            sock.write_all(upstream.read_line())

    assert client(served(proxy)).read_to_end() == b""
    (context,) = take_errors()
    assert isinstance(context.exception, EOFError)
    assert context.exception.partial == b"half a li"


def test_what_the_handler_wrote_last_arrives_though_its_peer_is_still_sending(real_loop, served, client):
    reply = b"y" * 300_000

    def handler(sock):
        sock.read_exactly(10)
        sock.write_all(reply)

    sock = client(served(handler))

    def chatter():
        try:
            for _ in range(50):
                sock.write_all(b"x" * 4000)
                sock.drain()
        except ConnectionError:
            pass

    task = d.spawn(chatter)
    assert sock.read_to_end() == reply
    sock.close()
    task.join(30)


def test_a_handler_may_close_its_socket_itself(real_loop, served, client):
    listener = served(lambda sock: sock.close())
    assert client(listener).read_to_end() == b""
    assert listener.connections == 0


# -- interrupts, and the end of run


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("server", [d.serve, d.serve_requests])
def test_an_interrupt_in_a_handler_leaves_the_loop(real_loop, served, client, kind, server):
    def handler(sock):
        sock.read_line()
        raise kind("out")

    listener = served(handler, server)
    sock = client(listener)
    sock.write_all(b"x\n")
    with pytest.raises(kind, match="out"):
        sock.read_line()
    assert sock.read_line() == b""
    assert listener.connections == 0


@pytest.mark.parametrize("server", [d.serve, d.serve_requests])
def test_handlers_at_work_when_run_ends_are_cancelled_and_reported_to_nobody(real_loop, server):
    ended = []

    def handler(sock):
        try:
            sock.write_all(sock.read_line())
            sock.read_exactly(1000)
        finally:
            ended.append(sock.closed)

    def main():
        sock = d.connect(server(LOCAL, handler).address, 30)
        ask(sock, b"x\n")
        sock.write_all(b"unfinished")
        sock.drain()
        d.sleep(0.01)

    d.run(main)
    assert ended == [False]
    assert d.Socket.descriptor_map() == {}


# -- contexts


def test_callbacks_and_tasks_of_one_connection_share_one_context(real_loop, served, client):
    class Marked(d.Socket):
        __slots__ = ()

        def event_read(self):
            if var.get() == "where serve was called":
                var.set("set by a callback")
            super().event_read()

    def handler(sock):
        line = sock.read_line()
        before = var.get()
        if line:
            var.set(line.decode().strip())
            sock.write_all(before.encode() + b"\n")

    token = var.set("where serve was called")
    listener = served(handler, d.serve_requests, socket_class=Marked)
    var.reset(token)
    one, two = client(listener), client(listener)
    assert ask(one, b"set by one\n") == b"set by a callback\n"
    assert ask(one, b"set again\n") == b"set by one\n"
    assert ask(two, b"set by two\n") == b"set by a callback\n"
    assert ask(one, b"x\n") == b"set again\n"
    assert var.get() == "unset"


def test_a_handler_runs_in_the_context_where_serve_was_called(real_loop, served, client):
    token = var.set("at serve")
    listener = served(lambda sock: sock.write_all(var.get().encode()))
    var.reset(token)
    token = var.set("at connect")
    assert client(listener).read_to_end() == b"at serve"
    var.reset(token)


# -- with run, under event_loop, while profiling


def test_run_serves_and_winds_up(real_loop, served):
    def main():
        listener = d.serve(LOCAL, echo_lines)
        idle, sock = d.connect(listener.address, 30), d.connect(listener.address, 30)
        assert not idle.closed
        return ask(sock, b"x\n")

    assert d.run(main) == b"x\n"
    assert d.Socket.descriptor_map() == {}
    assert not scheduler(real_loop).tasks


def test_tasks_run_under_event_loop_as_well(real_loop, served, client):
    sock = client(served(echo_lines))
    got = []

    def work():
        got.append(ask(sock, b"x\n"))
        with pytest.raises(RuntimeError, match="running"):
            d.Socket.event_loop()
        real_loop.stop()

    d.spawn(work)
    d.Socket.event_loop()
    assert got == [b"x\n"]


@styles
def test_each_style_works_while_profiling(real_loop, served, client, server, handler):
    d.Socket.enable_profiling()
    sock = client(served(handler, server))
    for _ in range(3):
        assert ask(sock, b"x\n") == b"x\n"
    assert sum(calls for _, _, calls in d.Socket.profiling_data().values()) >= 3
    d.Socket.disable_profiling()
    assert ask(sock, b"x\n") == b"x\n"


# -- handlers that never began, and groups in them; what is refused


class Unlucky(d.Socket):
    """Its handler is cancelled before it has started."""

    __slots__ = ()

    cancelled: ClassVar = []

    def __init__(self, sock):
        super().__init__(sock)
        self.loop.call_soon(self.cancel_all)

    def cancel_all(self):
        for task in scheduler(self.loop).tasks:
            self.cancelled.append(task.cancel("before it started"))


def test_a_handler_that_is_cancelled_before_it_starts_leaves_no_connection_behind(real_loop, served, client, wait_for):
    started = []
    Unlucky.cancelled.clear()
    listener = served(started.append, socket_class=Unlucky)
    peer = client(listener)
    wait_for(lambda: Unlucky.cancelled)
    assert started == []
    assert listener.connections == 0
    assert peer.read_some() == b""


def test_a_handler_whose_group_saw_its_own_peers_end_has_ended_normally(real_loop, served, client, caplog, wait_for):
    def copy(sock):
        with d.TaskGroup() as group:
            group.spawn(sock.read_exactly, 100)
            group.spawn(d.sleep, 100)

    def nested(sock):
        with d.TaskGroup() as group:
            group.spawn(copy, sock)

    caplog.set_level(logging.DEBUG, logger="dangagreen")
    for handler in (copy, nested):
        sock = client(served(handler))
        sock.write_all(b"too few")
        sock.finish()
        wait_for(lambda: any("ended with its peer" in record.getMessage() for record in caplog.records))
        assert all(record.levelno == logging.DEBUG for record in caplog.records)
        caplog.clear()


def test_another_failure_beside_it_in_the_group_is_reported(real_loop, served, client, wait_for, take_errors):
    def handler(sock):
        with d.TaskGroup() as group:
            group.spawn(sock.read_exactly, 100)
            group.spawn(fail)

    def fail():
        try:
            d.sleep(100)
        finally:
            raise ValueError("mine")

    sock = client(served(handler))
    sock.write_all(b"too few")
    sock.finish()
    errors = []
    wait_for(lambda: errors.extend(take_errors()) or errors)
    assert "2 failed" in str(errors[0].exception)


@pytest.mark.parametrize("start", [d.serve, d.serve_requests, d.spawn, d.run, lambda f: d.TaskGroup().spawn(f)])
def test_a_coroutine_function_is_refused_at_once(loop, start):
    async def handler(sock):
        """Somebody comes from asyncio."""

    arguments = (LOCAL, handler) if start in (d.serve, d.serve_requests) else (handler,)
    with pytest.raises(TypeError, match="async def"):
        start(*arguments)
    with pytest.raises(TypeError, match="async def"):
        start(*arguments[:-1], functools.partial(handler, 1))


@pytest.mark.parametrize("port", [-1, 65536, 80000])
def test_a_port_that_cannot_be_is_refused(loop, port):
    for use in (lambda address: d.serve(address, Echo), d.connect):
        with pytest.raises(ValueError, match=f"{port}.*is not between 0 and 65535"):
            use(("127.0.0.1", port))
    with pytest.raises(TypeError, match="no int"):
        d.serve(("127.0.0.1", None), Echo)


def test_listening_on_a_name_that_does_not_exist_names_it(loop):
    with pytest.raises(OSError, match=r"cannot look up \('no such host', 80\)"):
        d.serve(("no such host", 80), Echo)
