"""examples/ddlockd_stores.py: locks in a database or in files, by the server as a program, which is killed as well."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from programs import EXAMPLES, SECONDS, Program, connected, expect

OK, TAKEN = b"OK \r\n", b"ERR taken \r\n"
NAMES = [
    b"plain", b"%2e", b"%2e%2e", b"..%2f..%2fescape", b"%00%0a%ff", b"A", b"a", b"%2etoken", b"x" * 5000,
    b"%e2%82%ac" * 90,
]  # fmt: skip


def postgres() -> str | None:
    """The directory of PostgreSQL's programs."""
    found = shutil.which("initdb") or next(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), None)
    return str(Path(found).resolve().parent) if found else None


@pytest.fixture(scope="module")
def postgresql_dsn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("psycopg", reason="the driver is not installed")
    programs = postgres()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    folder = tmp_path_factory.mktemp("postgresql")
    folder.chmod(0o700)
    user: dict[str, Any] = {}
    if os.getuid() == 0:  # it does not run as root
        shutil.chown(folder, "nobody")
        user = {"user": "nobody", "group": "nogroup"}
        for parent in [*folder.parents][:3]:
            parent.chmod(parent.stat().st_mode | 0o055)
    data = folder / "data"
    quiet: dict[str, Any] = {"check": True, "capture_output": True, "timeout": 40, "cwd": folder, **user}
    subprocess.run([f"{programs}/initdb", "-A", "trust", "-U", "tester", "-N", "-D", data], **quiet)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (folder / "log").open("wb") as log:
        os.chmod(folder / "log", 0o666)
        server = subprocess.Popen(
            [f"{programs}/postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", "", "-F"],
            stdout=log, stderr=log, cwd=folder, **user,
        )  # fmt: skip
    try:
        dsn = f"postgresql://tester@127.0.0.1:{port}/postgres"
        expect(lambda: _answers(dsn))
        yield dsn
    finally:
        server.kill()
        server.wait()


def _answers(dsn: str) -> bool:
    import psycopg

    try:
        psycopg.connect(dsn, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.fixture(params=["sqlite", "files", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, ...]:
    """The options of a store of one's own."""
    if request.param == "sqlite":
        return ("--type=dbi", f"--hostname=sqlite:{tmp_path}/locks.sqlite")
    if request.param == "files":
        (tmp_path / "locks").mkdir()
        return ("--type=dlmfs", f"--directory={tmp_path}/locks")
    table = f"t{abs(hash(str(tmp_path)))}"
    return ("--type=dbi", f"--hostname={request.getfixturevalue('postgresql_dsn')}", f"--table={table}")


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """`serve(*options, port=0, freed=0)` starts a server; `freed`: it says, on so many lines, what it has freed."""
    programs: list[Program] = []

    def serve(*options: str, port: int = 0, freed: int = 0) -> Program:
        arguments = (f"--port={port}", "--bind=127.0.0.1", *options)
        program = Program("ddlockd.py", arguments, 1, tmp_path / f"stderr{len(programs)}", before=freed)
        programs.append(program)
        return program

    try:
        yield serve
        for program in programs:
            if program.process.returncode is None:
                program.end()
    finally:
        for program in programs:
            program.process.kill()
            program.process.communicate()


def ask(connection: Any, line: bytes) -> bytes:
    connection[0].sendall(line + b"\r\n")
    return connection[1].readline()


def token(reply: bytes) -> int:
    assert reply.startswith(b"OK token="), reply
    return int(reply[9:])


def test_any_name(serve: Any, store: tuple[str, ...]) -> None:
    program = serve(*store)
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


def test_the_end_of_a_connection_frees_what_it_held(serve: Any, store: tuple[str, ...]) -> None:
    program = serve(*store)
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


def test_a_killed_server_leaves_stale_locks_which_its_next_run_frees(serve: Any, store: tuple[str, ...]) -> None:
    program, other = serve(*store), serve(*store)
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
        program = serve(*store, port=port, freed=1)
        assert program.printed[0] == "2 locks of connections that ended with this server's last run were freed\n"
        with connected(port) as three:
            assert token(ask(three, b"lock lock=a")) > before
            assert ask(three, b"trylock lock=theirs") == TAKEN
            assert ask(two, b"trylock lock=b") == OK


def test_a_lock_of_another_server_is_waited_for(serve: Any, store: tuple[str, ...]) -> None:
    first, second = serve(*store), serve(*store)
    with connected(first.ports[0]) as one, connected(second.ports[0]) as two, connected(second.ports[0]) as three:
        before = token(ask(one, b"lock lock=x"))
        assert ask(two, b"lock lock=x&timeout=0.1").startswith(b"ERR timeout ")
        two[0].sendall(b"lock lock=x\n")
        expect(lambda: ask(three, b"waiters lock=x") == b"OK waiters=1\r\n")
        assert ask(one, b"releaselock lock=x") == OK
        assert token(two[1].readline()) > before


def test_a_lease_ends(serve: Any, store: tuple[str, ...]) -> None:
    program = serve(*store)
    with connected(program.ports[0]) as one, connected(program.ports[0]) as two:
        token(ask(one, b"lock lock=x&ttl=0.2"))
        token(ask(two, b"lock lock=x"))
        assert ask(one, b"releaselock lock=x") == b"ERR didnthave \r\n"


def test_files_stay_in_their_directory(serve: Any, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "locks"
    folder.mkdir(parents=True)
    (folder / "=foreign").write_text("not ours")
    program = serve("--type=dlmfs", f"--directory={folder}")
    with connected(program.ports[0]) as one:
        for name in NAMES:
            assert ask(one, b"trylock lock=" + name) == OK
        assert ask(one, b"trylock lock=foreign") == TAKEN
        files = {path.relative_to(tmp_path).parent.as_posix() for path in tmp_path.rglob("*") if path.name[0] in "=#"}
        assert files == {"deep/locks"}
        lock = json.loads((folder / "=plain").read_text())
        assert lock["server"].endswith(f"127.0.0.1:{program.ports[0]}")
    expect(lambda: [path.name for path in folder.iterdir()] == ["=foreign"])


def test_a_directory_that_goes_and_comes_back(serve: Any, tmp_path: Path) -> None:
    folder = tmp_path / "locks"
    folder.mkdir()
    program = serve("--type=dlmfs", f"--directory={folder}")
    with connected(program.ports[0]) as one:
        assert ask(one, b"trylock lock=x") == OK
        folder.rename(tmp_path / "away")
        assert ask(one, b"trylock lock=y").startswith(b"ERR store_failed ")
        (tmp_path / "away").rename(folder)
        assert ask(one, b"trylock lock=y") == OK
        assert ask(one, b"trylock lock=x") == TAKEN
    assert "FileNotFoundError" in program.errors.read_text()
    program.errors.write_text("")


def test_a_database_that_ends_the_connection(serve: Any, postgresql_dsn: str) -> None:
    import psycopg

    program = serve("--type=dbi", f"--hostname={postgresql_dsn}", "--table=ended")
    with connected(program.ports[0]) as one, psycopg.connect(postgresql_dsn, autocommit=True) as administrator:
        assert ask(one, b"trylock lock=x") == OK
        administrator.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query <> ''"
        )
        assert ask(one, b"trylock lock=y").startswith(b"ERR store_failed ")
        assert ask(one, b"trylock lock=y") == OK  # it has connected anew
        assert ask(one, b"releaselock lock=x") == OK
    assert "ddlockd: DBI: " in program.errors.read_text()
    program.errors.write_text("")


def test_a_driver_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "psycopg.py").write_text("raise ImportError\n")
    (tmp_path / "pymysql.py").write_text("raise ImportError\n")
    for dsn, package in (("postgresql://x/y", "psycopg[binary]"), ("mysql://x/y", "PyMySQL"), ("somehost", "PyMySQL")):
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / "ddlockd.py"), "-p0", "--type=dbi", "-h", dsn],
            capture_output=True, text=True, timeout=SECONDS, env={**os.environ, "PYTHONPATH": str(tmp_path)},
        )  # fmt: skip
        assert done.returncode == 255
        assert f"pip install '{package}'" in done.stderr
