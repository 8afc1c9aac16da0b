"""Locks in a database, and as files, by the server as a program, which is killed as well."""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pymysql
import pytest

from ddlockd import databases
from ddlockd.server import find_store
from lock_clients import NAMES, OK, TAKEN, ask
from programs import EXAMPLES, SECONDS, connected, expect
from tests.databases import Database, connects, postgresql_in, program_of
from tests.programs import free_port, missing


@pytest.fixture(scope="module")
def folder() -> Iterator[Callable[[], Path]]:
    """Makes one that others may enter."""
    with contextlib.ExitStack() as stack:
        yield lambda: Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))


@pytest.fixture(scope="module")
def postgresql(folder: Callable[[], Path]) -> Iterator[tuple[str, Database]]:
    with postgresql_in(folder()) as found:
        yield found


@pytest.fixture(scope="module")
def mysql(folder: Callable[[], Path]) -> Iterator[tuple[str, Database]]:
    server = program_of("mariadbd", "usr/sbin/mariadbd", "usr/libexec/mariadbd")
    install = program_of("mariadb-install-db", "usr/bin/mariadb-install-db")
    if server is None or install is None:
        missing("MariaDB (Debian: mariadb-server)")
    port = free_port()
    connect = partial(pymysql.connect, host="127.0.0.1", port=port, user="root")
    database = Database(folder(), lambda: connects(connect, pymysql.err.OperationalError))
    data = f"--datadir={database.folder}/data"
    database.prepare(install, "--no-defaults", data, "--auth-root-authentication-method=normal", "--skip-test-db")
    database.command = [
        server, "--no-defaults", data, f"--port={port}", "--bind-address=127.0.0.1", "--socket=socket",
        "--pid-file=pid", "--innodb-flush-log-at-trx-commit=2", "--innodb-buffer-pool-size=8M",
    ]  # fmt: skip
    try:
        database.start()
        with connect() as connection, connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE ddlock")
        yield f"mysql://root@127.0.0.1:{port}/ddlock", database
    finally:
        database.kill()


def options_of(kind: str, request: pytest.FixtureRequest, folder: Path) -> tuple[str, ...]:
    if kind == "sqlite":
        return ("--type=dbi", f"--hostname=sqlite:{folder}/locks.sqlite")
    if kind == "files":
        (folder / "locks").mkdir()
        return ("--type=dlmfs", f"--directory={folder}/locks")
    dsn, _ = request.getfixturevalue(kind)
    return ("--type=dbi", f"--hostname={dsn}", f"--table=t{abs(hash(str(folder)))}")


@pytest.fixture(params=["sqlite", "files", "postgresql", "mysql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, ...]:
    """The options of a store of one's own."""
    return options_of(request.param, request, tmp_path)


def token(reply: bytes) -> int:
    assert reply.startswith(b"OK token="), reply
    return int(reply[9:])


def test_any_name(ddlockd: Any, store: tuple[str, ...]) -> None:
    program = ddlockd(*store)
    with connected(program.ports[0]) as one, connected(program.ports[0]) as two:
        for name in NAMES:
            assert ask(one, b"trylock lock=" + name) == OK, name
            assert ask(two, b"trylock lock=" + name) == TAKEN, name
            assert ask(two, b"releaselock lock=" + name) == b"ERR didnthave \r\n"
        two[0].sendall(b"locks\n" + b"noop\n")
        listed = b""
        while not listed.endswith(OK):
            listed += two[1].readline()
        assert listed.count(b"(R): open to 127.0.0.1:") == len(NAMES)
        assert b"  " + b"x" * 5000 + b" = DDLockd::Client::" in listed
        assert b"\0\n\xff = " in listed
        for name in NAMES:
            assert ask(one, b"releaselock lock=" + name) == OK
            assert ask(two, b"trylock lock=" + name) == OK


def test_the_end_of_a_connection_frees_what_it_held(ddlockd: Any, store: tuple[str, ...]) -> None:
    program = ddlockd(*store)
    with connected(program.ports[0]) as watcher:
        with connected(program.ports[0]) as one, connected(program.ports[0]) as two:
            assert ask(one, b"trylock lock=x") == OK
            one[0].sendall(b"trylock lock=y\ntrylock lock=z\n")  # it will be gone before it has its answers
            two[0].sendall(b"lock lock=x\n")
            expect(lambda: ask(watcher, b"waiters lock=x") == b"OK waiters=1\r\n")
            one[0].close()
            one[1].close()
            token(two[1].readline())
        for name in (b"x", b"y", b"z"):
            expect(lambda name=name: ask(watcher, b"trylock lock=" + name) == OK)


def test_a_killed_server_leaves_stale_locks_which_its_next_run_frees(ddlockd: Any, store: tuple[str, ...]) -> None:
    program, other = ddlockd(*store), ddlockd(*store)
    (port,) = program.ports
    with connected(port) as one, connected(other.ports[0]) as two:
        before = token(ask(one, b"lock lock=a"))
        assert ask(one, b"trylock lock=b") == OK
        assert ask(two, b"trylock lock=theirs") == OK
        assert ask(one, b"trylock lock=theirs") == TAKEN  # another server's
        assert ask(two, b"trylock lock=a") == TAKEN
        assert b"holder=DDLockd" in ask(two, b"holder lock=a")
        assert b"&token=%d\r\n" % before in ask(two, b"holder lock=a")
        program.process.kill()
        program.process.wait()
        assert ask(two, b"trylock lock=a") == TAKEN  # nobody can know that they have ended
        program = ddlockd(*store, port=port, freed=1)
        assert program.printed[0] == "2 locks of connections that ended with this server's last run were freed\n"
        with connected(port) as three:
            assert token(ask(three, b"lock lock=a")) > before
            assert ask(three, b"trylock lock=theirs") == TAKEN
            assert ask(two, b"trylock lock=b") == OK


def test_a_lock_of_another_server_is_waited_for(ddlockd: Any, store: tuple[str, ...]) -> None:
    first, second = ddlockd(*store), ddlockd(*store)
    with connected(first.ports[0]) as one, connected(second.ports[0]) as two, connected(second.ports[0]) as three:
        before = token(ask(one, b"lock lock=x"))
        assert ask(two, b"lock lock=x&timeout=0.1").startswith(b"ERR timeout ")
        two[0].sendall(b"lock lock=x\n")
        expect(lambda: ask(three, b"waiters lock=x") == b"OK waiters=1\r\n")
        assert ask(one, b"releaselock lock=x") == OK
        assert token(two[1].readline()) > before


def test_a_lease_ends(ddlockd: Any, store: tuple[str, ...]) -> None:
    program = ddlockd(*store)
    with connected(program.ports[0]) as one, connected(program.ports[0]) as two:
        token(ask(one, b"lock lock=x&ttl=0.2"))
        token(ask(two, b"lock lock=x"))
        assert ask(one, b"releaselock lock=x") == b"ERR didnthave \r\n"


def end_connections(dsn: str) -> None:
    """All that the database has but the one which says so."""
    parts = urlsplit(dsn)
    if parts.scheme == "postgresql":
        with psycopg.connect(dsn, autocommit=True) as administrator:
            others = "pid <> pg_backend_pid() AND query <> ''"
            administrator.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")
        return
    with pymysql.connect(host="127.0.0.1", port=parts.port, user="root") as database, database.cursor() as cursor:
        cursor.execute("SELECT id FROM information_schema.processlist WHERE db = 'ddlock'")
        for (number,) in cursor.fetchall():
            cursor.execute(f"KILL {number}")


@pytest.mark.parametrize("kind", ["postgresql", "mysql"])
def test_a_database_that_ends_the_connection(
    ddlockd: Any, request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    """As it does with one that was idle for long: the client notices nothing."""
    dsn, _ = request.getfixturevalue(kind)
    program = ddlockd(*options_of(kind, request, tmp_path))
    with connected(program.ports[0]) as one:
        assert ask(one, b"trylock lock=x") == OK
        end_connections(dsn)
        assert ask(one, b"trylock lock=y") == OK  # it has connected anew
        assert ask(one, b"releaselock lock=x") == OK


@pytest.mark.parametrize("kind", ["postgresql", "mysql"])
def test_a_database_that_goes_and_comes_back(
    ddlockd: Any, request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    _, database = request.getfixturevalue(kind)
    program = ddlockd(*options_of(kind, request, tmp_path))
    with connected(program.ports[0]) as one, connected(program.ports[0]) as two, connected(program.ports[0]) as three:
        before = token(ask(one, b"lock lock=kept"))
        assert ask(two, b"trylock lock=dropped") == OK
        token(ask(three, b"lock lock=leased&ttl=2"))
        one[0].sendall(b"lock lock=leased&ttl=600\n")
        expect(lambda: ask(three, b"waiters lock=leased") == b"OK waiters=1\r\n")
        assert ask(three, b"noop") == OK
        database.kill()
        try:
            assert ask(two, b"trylock lock=x").startswith(b"ERR store_failed ")
            two[0].shutdown(socket.SHUT_RDWR)  # what it holds cannot be given back now
            assert one[1].readline().startswith(b"ERR store_failed ")  # the lease has run out, and nobody can tell
        finally:
            database.start()
        expect(lambda: ask(three, b"trylock lock=dropped") == OK)
        assert token(ask(one, b"lock lock=leased")) > before
        assert ask(three, b"releaselock lock=leased") == b"ERR didnthave \r\n"
        assert ask(three, b"trylock lock=kept") == TAKEN
        assert ask(one, b"releaselock lock=kept") == OK
        assert ask(three, b"trylock lock=x") == OK
    assert "ddlockd: DBI: " in program.errors.read_text()
    program.errors.write_text("")


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mysql"])
def test_a_database_that_does_not_answer(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Because another program has locked the table: it gets so many seconds, and whoever asks is told then."""
    monkeypatch.setattr(databases, "LONGEST_ANSWER", 1)
    options = argparse.Namespace(hostname=f"sqlite:{tmp_path}/locks.sqlite", table="unanswered", type="dbi")
    if kind != "sqlite":
        options.hostname, _ = request.getfixturevalue(kind)
    keeper, other = (find_store(options, place) for place in ("here", "there"))
    assert isinstance(keeper, databases.DatabaseStore)
    assert isinstance(other, databases.DatabaseStore)
    assert keeper.open() == other.open() == 0
    cursor = other.database.cursor()
    begin, end = {
        "sqlite": ("BEGIN EXCLUSIVE", "ROLLBACK"),
        "postgresql": ("BEGIN; LOCK TABLE unanswered", "ROLLBACK"),
        "mysql": ("LOCK TABLES unanswered WRITE", "UNLOCK TABLES"),
    }[kind]
    cursor.execute(begin)
    with pytest.raises(keeper.dialect.errors[0]):
        keeper.take(b"x", 1, "me", True)
    cursor.execute(end)
    token = keeper.take(b"x", 1, "me", True)
    assert other.holder(b"x") == ("me", token)
    keeper.forget(1)
    keeper.close()
    other.close()


def test_servers_that_start_at_the_same_moment_make_one_table(ddlockd: Any, store: tuple[str, ...]) -> None:
    command = [sys.executable, "-W", "error", str(EXAMPLES / "ddlockd"), "--port=0", "--bind=127.0.0.1", *store]
    programs = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    try:
        ports = [int(program.stdout.readline().split(":")[-1]) for program in programs]  # type: ignore[union-attr]
        tokens = []
        for port in ports:
            with connected(port) as one:
                tokens.append(token(ask(one, b"lock lock=x")))
        assert tokens == [1, 2, 3, 4]
    finally:
        for program in programs:
            program.terminate()
            assert program.communicate(timeout=SECONDS)[1] == ""


def test_waiting_clients_of_a_server_that_is_killed(ddlockd: Any, store: tuple[str, ...]) -> None:
    program = ddlockd(*store)
    (port,) = program.ports
    with connected(port) as holder, connected(port) as waiter, connected(port) as watcher:
        before = token(ask(holder, b"lock lock=x"))
        waiter[0].sendall(b"lock lock=x\n")
        expect(lambda: ask(watcher, b"waiters lock=x") == b"OK waiters=1\r\n")
        program.process.kill()
        program.process.wait()
        assert waiter[1].read() == b""
    program = ddlockd(*store, port=port, freed=1)
    with connected(port) as waiter:
        assert token(ask(waiter, b"lock lock=x")) > before


def test_a_driver_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "psycopg.py").write_text("raise ImportError\n")
    (tmp_path / "pymysql.py").write_text("raise ImportError\n")
    for dsn, package in (("postgresql://x/y", "psycopg[binary]"), ("mysql://x/y", "PyMySQL"), ("somehost", "PyMySQL")):
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / "ddlockd"), "-p0", "--type=dbi", "-h", dsn],
            capture_output=True, text=True, timeout=SECONDS, env={**os.environ, "PYTHONPATH": str(tmp_path)},
        )  # fmt: skip
        assert done.returncode == 255
        assert f"pip install '{package}'" in done.stderr
