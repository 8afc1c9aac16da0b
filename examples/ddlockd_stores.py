"""Where ddlockd keeps its locks: in memory, in a database, or as files in a directory.

The first is a dictionary, and asking it takes no time. The others wait for disks and servers, so a thread does that,
one call after the other, and the task that asks is parked meanwhile. They outlive the server: what an earlier run of
this server left behind is freed at the start, since the connections that held it have ended. Several servers may share
one database or directory; each frees only its own.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib
import json
import os
import re
import socket
import sqlite3
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import quote_from_bytes, unquote, urlsplit

from dangagreen import Result, current_loop

Answer = TypeVar("Answer")
LONGEST_FILE_NAME = 200


class StoreError(Exception):
    """The locks cannot be asked for. The argument says why."""


class Keeper(Protocol):
    """What keeps locks. It may block: each call is made in the store's thread."""

    def open(self) -> int:
        """Free what earlier runs of this server have left; how many these were."""

    def take(self, name: bytes, connection: int, holder: str, numbered: bool) -> int | None:
        """Take it for a connection: a fencing token, 0 unless `numbered`. None if somebody has it."""

    def release(self, name: bytes, connection: int) -> bool:
        """Free it. False if the connection does not hold it."""

    def forget(self, connection: int) -> None:
        """Free all that a connection holds."""

    def holder(self, name: bytes) -> tuple[str, int] | None:
        """Who holds it, on whatever server, and with which token."""

    def everything(self) -> list[tuple[bytes, str]]:
        """All locks, and who holds them."""

    def close(self) -> None: ...


class Store:
    """The locks in memory: what the server knows anyway. The base of the other one."""

    direct = True  # nothing has to be asked: the server's own table is all there is
    name = "Internal"

    def __init__(self) -> None:
        self._token = 0

    def next_token(self) -> int:
        """Larger than any before, also than those of an earlier run, if the clock was not put back."""
        self._token = max(self._token + 1, time.time_ns())
        return self._token

    def take(self, name: bytes, connection: int, holder: str, numbered: bool) -> int | None:
        raise NotImplementedError

    def release(self, name: bytes, connection: int) -> bool:
        raise NotImplementedError

    def forget(self, connection: int, then: Callable[[], object]) -> None:
        raise NotImplementedError

    def holder(self, name: bytes) -> tuple[str, int] | None:
        raise NotImplementedError

    def everything(self) -> list[tuple[bytes, str]]:
        raise NotImplementedError

    def close(self) -> None:
        pass


class StoreInThread(Store):
    """A keeper that may block, behind calls that park. `forget` does not even do that."""

    direct = False

    def __init__(self, name: str, keeper: Keeper) -> None:
        super().__init__()
        self.name = name
        self._keeper = keeper
        self._loop = current_loop()
        self._thread = ThreadPoolExecutor(1, name)  # one thread: calls are done in the order in which they are made

    def open(self) -> int:
        """At the start, before anything else runs: it may block."""
        return self._thread.submit(self._keeper.open).result()

    def close(self) -> None:
        """What was asked for is still done."""
        self._thread.submit(self._keeper.close)
        self._thread.shutdown()

    def take(self, name: bytes, connection: int, holder: str, numbered: bool) -> int | None:
        answer = self._ask(self._keeper.take, name, connection, holder, numbered)
        try:
            return answer.wait()
        except BaseException:
            if not answer.done:  # nobody waits for it any more: it must not stay taken
                self._ask(self._keeper.release, name, connection)
            raise

    def release(self, name: bytes, connection: int) -> bool:
        return self._ask(self._keeper.release, name, connection).wait()

    def forget(self, connection: int, then: Callable[[], object]) -> None:
        self._ask(self._keeper.forget, connection, then=then)

    def holder(self, name: bytes) -> tuple[str, int] | None:
        return self._ask(self._keeper.holder, name).wait()

    def everything(self) -> list[tuple[bytes, str]]:
        return self._ask(self._keeper.everything).wait()

    def _ask(
        self, call: Callable[..., Answer], *arguments: Any, then: Callable[[], object] | None = None
    ) -> Result[Answer]:
        answer: Result[Answer] = Result()

        def settle(done: Future[Answer]) -> None:
            error = done.exception()
            if error is None:
                answer.set_result(done.result())
            else:
                print(f"ddlockd: {self.name}: {error!r}", file=sys.stderr, flush=True)
                answer.set_exception(StoreError(str(error)))
            if then is not None:
                then()

        future = self._thread.submit(call, *arguments)
        future.add_done_callback(lambda done: self._loop.call_soon_threadsafe(settle, done))
        return answer


# -- files


class Files:
    """A file for each lock. To link a finished file to its name is what only one can do."""

    def __init__(self, directory: Path, server: str) -> None:
        self.directory = directory
        self.server = server
        self.run = uuid.uuid4().hex
        self.held: dict[int, set[bytes]] = {}  # by connection

    def open(self) -> int:
        if not self.directory.is_dir():
            raise StoreError(f"{self.directory} is no directory")
        stale = [path for path, lock in self._locks() if lock.get("server") == self.server]
        for path in stale:
            path.unlink()
        return len(stale)

    def take(self, name: bytes, connection: int, holder: str, numbered: bool) -> int | None:
        path = self._path(name)
        if path.exists():
            return None
        token = self._next_token() if numbered else 0
        lock = {"name": quote_from_bytes(name), "server": self.server, "run": self.run, "connection": connection}
        new = self.directory / f".new-{self.run}"
        new.write_text(json.dumps({**lock, "holder": holder, "token": token}))
        try:
            os.link(new, path)
        except FileExistsError:
            return None
        finally:
            new.unlink()
        self.held.setdefault(connection, set()).add(name)
        return token

    def release(self, name: bytes, connection: int) -> bool:
        names = self.held.get(connection, set())
        if name not in names:
            return False
        self._path(name).unlink(missing_ok=True)
        names.remove(name)
        return True

    def forget(self, connection: int) -> None:
        for name in self.held.pop(connection, set()):
            self._path(name).unlink(missing_ok=True)

    def holder(self, name: bytes) -> tuple[str, int] | None:
        lock = _read(self._path(name))
        return None if lock is None else (str(lock["holder"]), int(lock["token"]))

    def everything(self) -> list[tuple[bytes, str]]:
        return [(_unquoted(lock["name"]), str(lock["holder"])) for _, lock in self._locks()]

    def close(self) -> None:
        pass

    def _path(self, name: bytes) -> Path:
        """A name of its own for each lock, which cannot leave the directory."""
        quoted = quote_from_bytes(name, safe="")
        short = f"={quoted}" if len(quoted) <= LONGEST_FILE_NAME else f"#{hashlib.sha256(name).hexdigest()}"
        return self.directory / short

    def _locks(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        for path in self.directory.iterdir():
            if path.name[0] in "=#" and (lock := _read(path)) is not None:
                yield path, lock

    def _next_token(self) -> int:
        descriptor = os.open(self.directory / ".token", os.O_RDWR | os.O_CREAT, 0o666)
        with os.fdopen(descriptor, "r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            token = int(file.read() or 0) + 1
            file.seek(0)
            file.write(f"{token}\n")
            file.flush()
        return token


def _read(path: Path) -> dict[str, Any] | None:
    try:
        lock = json.loads(path.read_text())
    except (OSError, ValueError):  # it has just gone, or somebody else's
        return None
    return lock if isinstance(lock, dict) and {"name", "holder", "token"} <= lock.keys() else None


def _unquoted(name: str) -> bytes:
    return unquote(name, "latin-1").encode("latin-1")


# -- databases


class Dialect(Protocol):
    """What differs between databases."""

    mark: str  # for an argument
    binary: str
    key: str
    begin: str
    errors: tuple[type[Exception], type[Exception]]  # any, and that of a name that is there already

    def connect(self) -> Any: ...


class Sqlite:
    mark, binary, key, begin = "?", "BLOB", "BLOB", "BEGIN IMMEDIATE"
    errors: tuple[type[Exception], type[Exception]] = (sqlite3.Error, sqlite3.IntegrityError)

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)

    def connect(self) -> Any:
        return sqlite3.connect(self.path, isolation_level=None, timeout=5)


class Postgresql:
    mark, binary, key, begin = "%s", "BYTEA", "BYTEA", "BEGIN"

    def __init__(self, url: str) -> None:
        self.url = url
        self.driver = _driver("psycopg", "psycopg[binary]")
        self.errors = (self.driver.Error, self.driver.IntegrityError)

    def connect(self) -> Any:
        return self.driver.connect(self.url, autocommit=True, connect_timeout=10)


class Mysql:
    mark, binary, key, begin = "%s", "MEDIUMBLOB", "BINARY(32)", "BEGIN"

    def __init__(self, url: str) -> None:
        self.url = urlsplit(url)
        self.driver = _driver("pymysql", "PyMySQL")
        self.errors = (self.driver.MySQLError, self.driver.IntegrityError)

    def connect(self) -> Any:
        return self.driver.connect(
            host=self.url.hostname,
            port=self.url.port or 3306,
            user=unquote(self.url.username or "root"),
            password=unquote(self.url.password or ""),
            database=self.url.path.strip("/") or "ddlock",
            autocommit=True,
            connect_timeout=10,
        )


def _driver(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise StoreError(f"this database needs a driver: pip install '{package}'") from None


class Database:
    """A row for each lock, in a table with a unique name. Names are of any length, so the key is their digest."""

    def __init__(self, dialect: Dialect, table: str, server: str) -> None:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,50}", table):
            raise StoreError(f"{table!r} cannot be the name of a table")
        self.dialect = dialect
        self.table = table
        self.server = server
        self.run = uuid.uuid4().hex
        self.database: Any = None

    def open(self) -> int:
        dialect, table = self.dialect, self.table
        with self._transaction() as run:
            run(
                f"CREATE TABLE IF NOT EXISTS {table} (id {dialect.key} PRIMARY KEY, name {dialect.binary} NOT NULL,"
                " server VARCHAR(300) NOT NULL, run VARCHAR(32) NOT NULL, connection BIGINT NOT NULL,"
                " holder VARCHAR(300) NOT NULL, token BIGINT NOT NULL)"
            )
            run(f"CREATE TABLE IF NOT EXISTS {table}_token (last BIGINT NOT NULL)")
            if not run(f"SELECT last FROM {table}_token").fetchall():
                run(f"INSERT INTO {table}_token VALUES (0)")
            freed: int = run(f"DELETE FROM {table} WHERE server = ? AND run <> ?", self.server, self.run).rowcount
        return freed

    def take(self, name: bytes, connection: int, holder: str, numbered: bool) -> int | None:
        table, token = self.table, 0
        with suppress(self.dialect.errors[1]), self._transaction() as run:
            row = (_digest(name), name, self.server, self.run, connection, holder, 0)
            run(f"INSERT INTO {table} VALUES (?, ?, ?, ?, ?, ?, ?)", *row)
            if numbered:
                run(f"UPDATE {table}_token SET last = last + 1")
                ((token,),) = run(f"SELECT last FROM {table}_token").fetchall()
                run(f"UPDATE {table} SET token = ? WHERE id = ?", token, _digest(name))
            return token
        return None

    def release(self, name: bytes, connection: int) -> bool:
        mine = (_digest(name), self.server, self.run, connection)
        with self._transaction() as run:
            where = "id = ? AND server = ? AND run = ? AND connection = ?"
            return bool(run(f"DELETE FROM {self.table} WHERE {where}", *mine).rowcount)

    def forget(self, connection: int) -> None:
        with self._transaction() as run:
            where = "server = ? AND run = ? AND connection = ?"
            run(f"DELETE FROM {self.table} WHERE {where}", self.server, self.run, connection)

    def holder(self, name: bytes) -> tuple[str, int] | None:
        with self._transaction() as run:
            rows = run(f"SELECT holder, token FROM {self.table} WHERE id = ?", _digest(name)).fetchall()
        return (str(rows[0][0]), int(rows[0][1])) if rows else None

    def everything(self) -> list[tuple[bytes, str]]:
        with self._transaction() as run:
            return [(bytes(name), holder) for name, holder in run(f"SELECT name, holder FROM {self.table}").fetchall()]

    def close(self) -> None:
        if self.database is not None:
            self.database.close()

    @contextmanager
    def _transaction(self) -> Iterator[Callable[..., Any]]:
        """All of it or nothing. A connection that has failed is given up, and made anew the next time."""
        if self.database is None:
            self.database = self.dialect.connect()
        cursor = self.database.cursor()

        def run(statement: str, *arguments: object) -> Any:
            cursor.execute(statement.replace("?", self.dialect.mark), arguments)
            return cursor

        try:
            run(self.dialect.begin)
            yield run
            run("COMMIT")
        except self.dialect.errors[1]:
            run("ROLLBACK")
            raise
        except BaseException:
            database, self.database = self.database, None
            with suppress(Exception):
                database.close()
            raise


def _digest(name: bytes) -> bytes:
    return hashlib.sha256(name).digest()


def _dialect(dsn: str) -> Dialect:
    scheme, colon, rest = dsn.partition(":")
    match scheme:
        case "sqlite" if rest:
            return Sqlite(rest)
        case "postgresql" | "postgres":
            return Postgresql(dsn)
        case "mysql":
            return Mysql(dsn)
        case _ if colon:
            raise StoreError(f"{dsn} is none of sqlite:PATH, postgresql://…, mysql://… and a MySQL host")
    return Mysql(f"mysql://{dsn}/ddlock")


def open_store(options: argparse.Namespace, place: str) -> tuple[Store, int]:
    """The store that the options ask for, and how many locks of an earlier run were freed. It may block."""
    server = f"{socket.gethostname()} {place}"
    match options.type:
        case "internal":
            return Store(), 0
        case "dlmfs" if options.directory:
            store = StoreInThread("Dlmfs", Files(Path(options.directory).absolute(), server))
        case "dbi" if options.hostname:
            store = StoreInThread("DBI", Database(_dialect(options.hostname), options.table, server))
        case "dlmfs":
            raise StoreError("--type dlmfs needs --directory=PATH")
        case "dbi":
            raise StoreError("--type dbi needs --hostname=DSN")
        case other:
            raise StoreError(f"unknown type {other!r}: internal, dlmfs or dbi")
    try:
        return store, store.open()
    except Exception as error:
        store.close()
        raise StoreError(str(error)) from error
