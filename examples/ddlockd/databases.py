"""ddlockd's store in a database: a row for each lock. What differs between databases is a `Dialect`."""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from ddlockd.stores import StoreError

LONGEST_ANSWER = 10  # seconds that a database has for anything: all locks wait for it


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


def find_dialect(dsn: str) -> Dialect:
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


class DatabaseStore:
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
