"""Where ddlockd keeps locks that are to outlive it: in a database, or as files in a directory.

What an earlier run of a server has left behind is freed at its start, since the connections that held it have ended.
Several servers may share one database or directory; each frees only its own. All of this blocks: see `ddlockd_locks.py`
for the thread that it is done in.
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
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote_from_bytes, unquote, urlsplit

LONGEST_FILE_NAME = 200
LONGEST_ANSWER = 10  # seconds that a database has for anything: all locks wait for it


class StoreError(Exception):
    """The locks cannot be asked for. The argument says why."""


class Keeper(Protocol):
    """What keeps locks. It may block, and raises what it likes. There is one call at a time."""

    kind: str

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


# -- files


class Files:
    """A file for each lock. To link a finished file to its name is what only one can do."""

    kind = "Dlmfs"

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
        token = reserve(self.directory / ".token", 1) if numbered else 0
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
        self._unlink(name)
        names.remove(name)
        return True

    def forget(self, connection: int) -> None:
        for name in self.held.get(connection, ()):
            self._unlink(name)
        self.held.pop(connection, None)  # only now: if that has failed, it is tried again

    def holder(self, name: bytes) -> tuple[str, int] | None:
        lock = _read(self._path(name))
        return None if lock is None else (str(lock["holder"]), int(lock["token"]))

    def everything(self) -> list[tuple[bytes, str]]:
        return [(_unquoted(lock["name"]), str(lock["holder"])) for _, lock in self._locks()]

    def close(self) -> None:
        pass

    def _unlink(self, name: bytes) -> None:
        """It may have gone, but not with the directory, which may come back."""
        try:
            self._path(name).unlink()
        except FileNotFoundError:
            if not self.directory.is_dir():
                raise

    def _path(self, name: bytes) -> Path:
        """A name of its own for each lock, which cannot leave the directory."""
        quoted = quote_from_bytes(name, safe="")
        short = f"={quoted}" if len(quoted) <= LONGEST_FILE_NAME else f"#{hashlib.sha256(name).hexdigest()}"
        return self.directory / short

    def _locks(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        for path in self.directory.iterdir():
            if path.name[0] in "=#" and (lock := _read(path)) is not None:
                yield path, lock


def reserve(path: Path, count: int) -> int:
    """Add to the number in a file, which begins at 0, and return what it is then: nobody else is given the same."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    with os.fdopen(descriptor, "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        number = int(file.read() or 0) + count
        file.seek(0)
        file.write(f"{number}\n")
        file.flush()
        os.fsync(file)
    return number


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
    lost: tuple[type[Exception], ...]  # what a connection that has ended meanwhile may raise

    def connect(self) -> Any: ...


class Sqlite:
    mark, binary, key, begin = "?", "BLOB", "BLOB", "BEGIN IMMEDIATE"
    errors: tuple[type[Exception], type[Exception]] = (sqlite3.Error, sqlite3.IntegrityError)
    lost: tuple[type[Exception], ...] = ()

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)

    def connect(self) -> Any:
        return sqlite3.connect(self.path, isolation_level=None, timeout=LONGEST_ANSWER, check_same_thread=False)


class Postgresql:
    mark, binary, key, begin = "%s", "BYTEA", "BYTEA", "BEGIN"

    def __init__(self, url: str) -> None:
        self.url = url
        self.driver = _driver("psycopg", "psycopg[binary]")
        self.errors = (self.driver.Error, self.driver.IntegrityError)
        self.lost: tuple[type[Exception], ...] = (self.driver.Error,)

    def connect(self) -> Any:
        limits = {"connect_timeout": LONGEST_ANSWER, "tcp_user_timeout": LONGEST_ANSWER * 1000}
        database = self.driver.connect(self.url, autocommit=True, **limits)
        database.execute(f"SET statement_timeout = '{LONGEST_ANSWER}s'")
        return database


class Mysql:
    mark, binary, key, begin = "%s", "MEDIUMBLOB", "BINARY(32)", "BEGIN"

    def __init__(self, url: str) -> None:
        self.url = urlsplit(url)
        self.driver = _driver("pymysql", "PyMySQL")
        self.errors = (self.driver.MySQLError, self.driver.IntegrityError)
        self.lost: tuple[type[Exception], ...] = (self.driver.MySQLError,)

    def connect(self) -> Any:
        return self.driver.connect(
            host=self.url.hostname,
            port=self.url.port or 3306,
            user=unquote(self.url.username or "root"),
            password=unquote(self.url.password or ""),
            database=self.url.path.strip("/") or "ddlock",
            autocommit=True,
            connect_timeout=LONGEST_ANSWER,
            read_timeout=LONGEST_ANSWER,
            write_timeout=LONGEST_ANSWER,
        )


def _driver(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise StoreError(f"this database needs a driver: pip install '{package}'") from None


class Database:
    """A row for each lock, in a table with a unique name. Names are of any length, so the key is their digest."""

    kind = "DBI"

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
        with suppress(dialect.errors[0]), self._transaction() as run:  # another server may make them at this moment
            run(
                f"CREATE TABLE IF NOT EXISTS {table} (id {dialect.key} PRIMARY KEY, name {dialect.binary} NOT NULL,"
                " server VARCHAR(300) NOT NULL, run VARCHAR(32) NOT NULL, connection BIGINT NOT NULL,"
                " holder VARCHAR(300) NOT NULL, token BIGINT NOT NULL)"
            )
            run(f"CREATE TABLE IF NOT EXISTS {table}_token (id INT PRIMARY KEY, last BIGINT NOT NULL)")
        with suppress(dialect.errors[1]), self._transaction() as run:
            run(f"INSERT INTO {table}_token VALUES (1, 0)")
        with self._transaction() as run:
            freed: int = run(f"DELETE FROM {table} WHERE server = ? AND run <> ?", self.server, self.run).rowcount
        return freed

    def take(self, name: bytes, connection: int, holder: str, numbered: bool) -> int | None:
        table, key, token = self.table, _digest(name), 0
        with suppress(self.dialect.errors[1]), self._transaction() as run:
            if run(f"SELECT token FROM {table} WHERE id = ?", key).fetchall():  # to fail to insert is much dearer
                return None
            row = (key, name, self.server, self.run, connection, holder, 0)
            run(f"INSERT INTO {table} VALUES (?, ?, ?, ?, ?, ?, ?)", *row)
            if numbered:
                run(f"UPDATE {table}_token SET last = last + 1")
                ((token,),) = run(f"SELECT last FROM {table}_token").fetchall()
                run(f"UPDATE {table} SET token = ? WHERE id = ?", token, key)
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
        cursor = self._begin()

        def run(statement: str, *arguments: object) -> Any:
            cursor.execute(statement.replace("?", self.dialect.mark), arguments)
            return cursor

        try:
            yield run
            run("COMMIT")
        except self.dialect.errors[1]:
            run("ROLLBACK")
            raise
        except BaseException:
            self._give_up()
            raise

    def _begin(self) -> Any:
        """A cursor in a new transaction. The database may have ended the connection since: so nothing is lost yet."""
        if self.database is not None:
            with suppress(*self.dialect.lost):
                cursor = self.database.cursor()
                cursor.execute(self.dialect.begin)
                return cursor
            self._give_up()
        self.database = self.dialect.connect()
        cursor = self.database.cursor()
        cursor.execute(self.dialect.begin)
        return cursor

    def _give_up(self) -> None:
        database, self.database = self.database, None
        if database is not None:
            with suppress(Exception):
                database.close()


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


def find_keeper(options: argparse.Namespace, place: str) -> Keeper | None:
    """What the options ask for; None for the server's own memory."""
    server = f"{socket.gethostname()} {place}"
    match options.type:
        case "internal":
            return None
        case "dlmfs" if options.directory:
            return Files(Path(options.directory).absolute(), server)
        case "dbi" if options.hostname:
            return Database(_dialect(options.hostname), options.table, server)
        case "dlmfs":
            raise StoreError("--type dlmfs needs --directory=PATH")
        case "dbi":
            raise StoreError("--type dbi needs --hostname=DSN")
    raise StoreError(f"unknown type {options.type!r}: internal, dlmfs or dbi")
