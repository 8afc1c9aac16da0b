"""Where ddlockd keeps locks that are to outlive it: what such a store is, and the one that is a directory of files.

What an earlier run of a server has left behind is freed at its start, since the connections that held it have ended.
Several servers may share a directory, or a database (`databases`); each frees only its own. All of this blocks: see
`stored_locks` for the thread that it is done in.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote_from_bytes, unquote

LONGEST_FILE_NAME = 200


class StoreError(Exception):
    """The locks cannot be asked for. The argument says why."""


class Store(Protocol):
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


class FileStore:
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
