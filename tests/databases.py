"""Database servers of one's own, on loopback, for tests that need a real one."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg

from tests.programs import free_port, missing

SECONDS = 60.0  # how long a server may take to answer


class Database:
    """A database server that can be ended and started again.

    Not in pytest's directories, which each of its runs forbids to other users.
    """

    def __init__(self, folder: Path, answers: Callable[[], bool]) -> None:
        self.folder = folder
        self.user: dict[str, Any] = {}
        self.answers = answers
        self.command: list[str] = []
        if os.getuid() == 0:  # none of them runs as root
            shutil.chown(folder, "nobody")
            self.user = {"user": "nobody", "group": "nogroup"}

    def prepare(self, *command: str) -> None:
        subprocess.run(command, check=True, capture_output=True, timeout=50, cwd=self.folder, **self.user)

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, cwd=self.folder, **self.user)
        give_up = time.monotonic() + SECONDS
        while not self.answers():
            assert time.monotonic() < give_up

    def kill(self) -> None:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        others = [int(number) for number in children.read_text().split()] if children.exists() else []
        self.process.kill()
        for number in others:  # PostgreSQL's, of groups of their own, might answer once more
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        self.process.wait()


def program_of(name: str, *places: str) -> str | None:
    found = shutil.which(name)
    return found or next((str(path) for place in places for path in sorted(Path("/").glob(place))), None)


@contextlib.contextmanager
def postgresql_in(folder: Path) -> Iterator[tuple[str, Database]]:
    """A PostgreSQL of which others may enter the folder: how to connect to it, and the server. Skips without one."""
    initdb = program_of("initdb", "usr/lib/postgresql/*/bin/initdb")
    if initdb is None:
        missing("PostgreSQL (Debian: postgresql)")
    port = free_port()
    dsn = f"postgresql://tester@127.0.0.1:{port}/postgres"
    database = Database(folder, lambda: connects(psycopg.connect, psycopg.OperationalError, dsn))
    data = str(database.folder / "data")
    database.prepare(initdb, "-A", "trust", "-U", "tester", "-N", "-D", data)
    server = str(Path(initdb).resolve().parent / "postgres")
    database.command = [server, "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", "", "-F"]
    try:
        database.start()
        yield dsn, database
    finally:
        database.kill()


def connects(connect: Callable[..., Any], refusal: type[Exception], *arguments: Any) -> bool:
    try:
        connect(*arguments, connect_timeout=5).close()
    except refusal:
        return False
    return True
