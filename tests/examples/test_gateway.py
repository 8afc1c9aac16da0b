"""examples/gateway.py, from the outside: with a real database, and real HTTP servers behind it."""

from __future__ import annotations

import contextlib
import http.server
import re
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from programs import SECONDS, Program, connected, expect, run
from sites import Quiet
from tests.programs import free_port, needed


@pytest.fixture(scope="module")
def database(database_url: str) -> Iterator[str]:
    """The address of a database with tea in stock."""
    for module in ("asyncpg", "httpx"):
        needed(module)
    with psycopg.connect(database_url, autocommit=True) as administrator:
        administrator.execute("create database shop")
        url = database_url.replace("/postgres", "/shop")
        with psycopg.connect(url) as connection:
            connection.execute("create table stock (item text primary key, amount int)")
            connection.execute("insert into stock values ('tea', 12), ('zero', 0), ('löffel', 3)")
        yield url
        administrator.execute("drop database shop with (force)")


class Upstream:
    """An HTTP server that answers as `answer` has it, and counts how many requests it has at a time."""

    def __init__(self) -> None:
        self.at_once = self.most = self.asked = 0
        self.go = threading.Event()  # for what is under /slow
        self.lock = threading.Lock()
        upstream = self

        class Handler(Quiet):
            def do_GET(self) -> None:
                with upstream.lock:
                    upstream.asked += 1
                    upstream.at_once += 1
                    upstream.most = max(upstream.most, upstream.at_once)
                try:
                    status, body = upstream.answer(self.path)
                finally:
                    with upstream.lock:
                        upstream.at_once -= 1
                with contextlib.suppress(ConnectionError):
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, path: str) -> tuple[int, bytes]:
        if path.startswith("/slow") or path == "/price/zero":
            assert self.go.wait(SECONDS)
        if path.startswith("/price/") and path != "/price/salt":
            return 200, b"3.50"
        if path == "/much":
            return 200, b"x" * (2 * 1024 * 1024)
        return (404, b"none") if path == "/price/salt" else (200, f"you asked for {path}".encode())


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    upstream = Upstream()
    thread = threading.Thread(target=upstream.server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield upstream
    finally:
        upstream.go.set()
        upstream.server.shutdown()
        thread.join()
        upstream.server.server_close()


@pytest.fixture
def gateway(start: Any, database: str, upstream: Upstream) -> Callable[..., int]:
    """`gateway(*options)` starts one, and answers its port."""
    return lambda *options: start(
        "gateway", "--port", "0", "--upstream", upstream.url, "--database", database, *options
    )[0]


def ask(ends: tuple[socket.socket, Any], line: bytes) -> bytes:
    """The first line of the answer, without its end."""
    ends[0].sendall(line + b"\n")
    return read_line(ends)


def read_line(ends: tuple[socket.socket, Any]) -> bytes:
    line = ends[1].readline()
    assert line.endswith(b"\n"), line
    return line[:-1]


def test_both_styles_answer(gateway: Any) -> None:
    with connected(gateway()) as client:
        assert ask(client, b"ping") == b"pong"
        assert ask(client, b"stock tea") == b"ok 12"
        assert ask(client, b"stock salt") == b"unknown"
        assert ask(client, "stock löffel".encode()) == b"ok 3"
        assert ask(client, b"offer tea") == b"ok 3.50 12"
        assert ask(client, b"offer salt") == b"unknown"
        assert ask(client, b"get /some/where?a=b") == b"ok 200 29"
        assert client[1].read(29) == b"you asked for /some/where?a=b"


def test_lines_of_a_client_are_answered_in_their_order(gateway: Any) -> None:
    """Whatever the pieces in which they come, and in whichever style each of them is answered."""
    lines = [b"ping", b"stock tea", b"ping", b"ping", b"", b"offer tea", b"nonsense", b"ping", b"stock zero"]
    answers = [b"pong", b"ok 12", b"pong", b"pong", b"ok 3.50 12", None, b"pong", b"ok 0"]
    data = b"".join(line + b"\n" for line in lines)
    with connected(gateway()) as client:
        client[0].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for size in (1, 3, 5, len(data)):
            for begin in range(0, len(data), size):
                client[0].sendall(data[begin : begin + size])
            for answer in answers:
                line = read_line(client)
                assert line == answer or (answer is None and line.startswith(b"error: ping, ")), line
        client[0].shutdown(socket.SHUT_WR)
        assert client[1].read() == b""


def test_no_more_calls_than_allowed_are_under_way(gateway: Any, upstream: Upstream) -> None:
    port = gateway("--calls", "2")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(port)) for _ in range(8)]
        for n, (sock, _) in enumerate(clients):
            sock.sendall(b"get /slow/%d\n" % n)
        expect(lambda: upstream.at_once == 2)
        with connected(port) as other:
            assert ask(other, b"ping") == b"pong"  # what needs no call does not wait
        upstream.go.set()
        for n, client in enumerate(clients):
            status = read_line(client).split()
            assert status[:2] == [b"ok", b"200"]
            assert client[1].read(int(status[2])) == b"you asked for /slow/%d" % n
    assert (upstream.most, upstream.asked) == (2, 8)


def active(database: str) -> int:
    """How many queries about the stock the database has."""
    query = "select count(*) from pg_stat_activity where query like 'select amount%' and state = 'active'"
    with psycopg.connect(database) as connection:
        ((count,),) = connection.execute(query).fetchall()
    return int(count)


def test_a_query_that_takes_too_long_is_cut_off(gateway: Any, database: str) -> None:
    """It is gone from the database, and the connections of the pool serve others."""
    port = gateway("--seconds", "0.3", "--connections", "2", "--calls", "9")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(port)) for _ in range(3)]
        with psycopg.connect(database) as locker:
            locker.execute("lock table stock in access exclusive mode")
            for sock, _ in clients:
                sock.sendall(b"stock tea\n")
            for client in clients:
                assert read_line(client) == b"error: TimeoutError"
            expect(lambda: active(database) == 0)
        for client in clients:
            expect(lambda client=client: ask(client, b"stock tea") == b"ok 12")


def test_an_answer_that_takes_too_long_is_cut_off(gateway: Any, upstream: Upstream) -> None:
    port = gateway("--seconds", "0.3", "--connections", "1")
    with connected(port) as client:
        for _ in range(3):
            assert ask(client, b"get /slow") == b"error: TimeoutError"
        assert ask(client, b"offer zero") == b"error: TimeoutError"
        expect(lambda: ask(client, b"stock tea") == b"ok 12")
        expect(lambda: ask(client, b"offer tea") == b"ok 3.50 12")


def test_a_server_that_is_away_is_told_and_costs_no_other(gateway: Any, upstream: Upstream) -> None:
    port = gateway()
    upstream.server.socket.close()
    with connected(port) as client:
        assert ask(client, b"get /x") == b"error: ConnectError"
        assert ask(client, b"offer tea") == b"error: ConnectError"
        assert ask(client, b"stock tea") == b"ok 12"


def test_a_database_that_ends_its_connections(gateway: Any, database: str) -> None:
    port = gateway("--connections", "1")
    with connected(port) as client:
        assert ask(client, b"stock tea") == b"ok 12"
        with psycopg.connect(database, autocommit=True) as administrator:
            others = "pid <> pg_backend_pid() and datname = 'shop'"
            administrator.execute(f"select pg_terminate_backend(pid) from pg_stat_activity where {others}")
        expect(lambda: ask(client, b"stock tea") == b"ok 12")


def test_what_is_not_passed_on(gateway: Any) -> None:
    with connected(gateway()) as client:
        for line, complaint in [
            (b"get http://127.0.0.1:1/elsewhere", b"error: a path begins with /"),
            (b"get /much", b"error: the answer has more than 1048576 bytes"),
            (b"get /\x01", b"error: InvalidURL"),
            (b"stock a\0b", b"error: CharacterNotInRepertoireError"),
            (b"nonsense", b"error: ping, stock ITEM, get PATH, offer ITEM"),
        ]:
            assert ask(client, line) == complaint
            assert ask(client, b"stock tea") == b"ok 12"


def test_a_line_that_is_too_long_or_does_not_come_to_its_end(gateway: Any) -> None:
    port = gateway("--seconds", "0.2")
    for data in (b"x" * 2000, b"stock t"):
        with connected(port) as client:
            client[0].sendall(data)
            assert client[1].read().startswith(b"error: a line has 1000 bytes at most")


def test_one_who_goes_while_its_call_is_under_way_is_no_failure(gateway: Any, upstream: Upstream) -> None:
    """It has a complaint on stderr neither, which `start` looks at."""
    port = gateway("--calls", "1")
    with connected(port) as gone:
        gone[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        gone[0].sendall(b"get /slow\n")
        expect(lambda: upstream.at_once == 1)
    upstream.go.set()
    with connected(port) as client:
        assert ask(client, b"get /x").startswith(b"ok 200 ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_was_asked_is_answered_at_the_end(
    database: str, upstream: Upstream, tmp_path: Path, number: signal.Signals
) -> None:
    options = ("--port", "0", "--upstream", upstream.url, "--database", database)
    program = Program("gateway", options, 1, tmp_path / "errors")
    try:
        with connected(program.ports[0]) as client, connected(program.ports[0]) as idle:
            assert ask(idle, b"ping") == b"pong"
            client[0].sendall(b"get /slow\n")
            expect(lambda: upstream.at_once == 1)
            program.process.send_signal(number)
            assert idle[1].read() == b""  # it has begun to end
            upstream.go.set()
            assert client[1].read().startswith(b"ok 200 ")
        output, _ = program.process.communicate(timeout=SECONDS)
        assert (output, program.process.returncode, program.complaints()) == ("bye\n", 0, "")
    finally:
        program.process.kill()
        program.process.communicate()


def test_what_it_cannot_begin_with_is_told_in_a_line(database: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for options in (
            ("--database", database, "--port", port),
            ("--database", re.sub(r":\d+/", f":{free_port()}/", database)),
            ("--database", database.replace("/shop", "/nothing")),
            ("--database", "nonsense"),
            ("--database", database, "--calls", "-1"),
        ):
            status, output, complaint = run("gateway", "--port", "0", *options)
            assert (status, output) == (1, ""), options
            assert complaint.startswith("gateway: "), options
            assert complaint.count("\n") == 1, complaint
