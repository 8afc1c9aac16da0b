"""ddlockd as a program: its options, its end, and what its clients see."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ddlockclient
import pytest

import dangagreen as d
from lock_clients import DIALOGUES, OK, TAKEN, UNKNOWN, ask, check, clients
from programs import EXAMPLES, SECONDS, Program, connected, expect


@pytest.fixture
def port(start: Any) -> int:
    return start("ddlockd", "--port", "0", "--bind", "127.0.0.1")[0]


@pytest.mark.parametrize("dialogue", DIALOGUES)
def test_each_exchange_over_tcp(port: int, dialogue: str) -> None:
    with connected(port) as (sock, replies):
        for line, _ in DIALOGUES[dialogue]:
            sock.sendall(line)
        sock.sendall(b"the end\n")
        heard = b""
        while not heard.endswith(b"\n" + UNKNOWN) or heard.count(UNKNOWN) <= [r for _, r in DIALOGUES[dialogue]].count(
            UNKNOWN
        ):
            heard += replies.readline()
    check(heard, [*(reply for _, reply in DIALOGUES[dialogue]), UNKNOWN])


@contextlib.contextmanager
def ddlock(*ports: int) -> Iterator[Any]:
    client = ddlockclient.DDLockClient([f"127.0.0.1:{port}" for port in ports])
    try:
        yield client
    finally:
        for cached in client.sockcache.values():
            cached["file"].close()
            cached["socket"].close()


def test_the_client_from_the_package_index(port: int) -> None:
    with ddlock(port) as one, ddlock(port) as two:
        lock = one.trylock("a name: with / and %", timeout=0)
        assert lock
        assert two.trylock("a name: with / and %", timeout=0) is None
        assert "ERR taken" in two.last_error()
        lock.release()
        with two.trylock("a name: with / and %", timeout=0) as again:
            assert again
        assert one.trylock("a name: with / and %", timeout=0)


def test_a_client_that_needs_two_servers(start: Any) -> None:
    first, second = (start("ddlockd", "--port", "0", "--bind", "127.0.0.1")[0] for _ in range(2))
    with ddlock(first, second) as both, ddlock(second) as other, connected(first) as watcher:
        held = other.trylock("x", timeout=0)
        assert both.trylock("x", timeout=0) is None
        assert ask(watcher, b"trylock lock=x") == OK  # it was let go on the first
        assert ask(watcher, b"releaselock lock=x") == OK
        held.release()
        lock = both.trylock("x", timeout=0)
        assert ask(watcher, b"trylock lock=x") == TAKEN
        lock.release()


@pytest.mark.parametrize("end", ["close", "half", "reset", "kill"])
def test_the_end_of_a_connection_frees_what_it_held(port: int, end: str) -> None:
    with connected(port) as watcher:
        if end == "kill":
            code = "import socket, sys; s = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); "
            code += "s.sendall(b'trylock lock=x\\n'); print(s.recv(100)); s.recv(1)"
            with subprocess.Popen([sys.executable, "-c", code, str(port)], stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                assert b"OK" in process.stdout.readline()
                assert ask(watcher, b"trylock lock=x") == TAKEN
                process.kill()
        else:
            with connected(port) as (sock, replies):
                assert ask((sock, replies), b"trylock lock=x") == OK
                assert ask(watcher, b"trylock lock=x") == TAKEN
                if end == "reset":
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                elif end == "half":
                    sock.shutdown(socket.SHUT_WR)
                    assert replies.read() == b""
        expect(lambda: ask(watcher, b"trylock lock=x") == OK)


def test_too_many_connections(start: Any) -> None:
    (port,) = start("ddlockd", "--port", "0", "--bind", "127.0.0.1", "--max-connections", "2")
    with connected(port) as one, connected(port) as two:
        assert (ask(one, b"noop"), ask(two, b"noop")) == (OK, OK)
        with connected(port) as (_, replies):
            assert replies.read() == b"ERR too_many_connections This+server+has+enough+connections\r\n"
    expect(lambda: _answers(port))


def test_those_who_are_refused_do_not_count(start: Any) -> None:
    (port,) = start("ddlockd", "--port", "0", "--bind", "127.0.0.1", "--max-connections", "1")
    with contextlib.ExitStack() as stack:
        with connected(port) as one:
            assert ask(one, b"noop") == OK
            for _ in range(5):  # they are told, and stay
                _, replies = stack.enter_context(connected(port))
                assert replies.readline().startswith(b"ERR too_many_connections ")
        expect(lambda: _answers(port))


@pytest.mark.descriptors(800)
def test_more_connections_than_the_system_allows_files(tmp_path: Path) -> None:
    """They are refused with an error, as those beyond --max-connections are, and nobody else notices."""
    limited = [sys.executable, "-c", "import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (160, 160));"
               "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"]  # fmt: skip
    command = [*limited, str(EXAMPLES / "ddlockd"), "--port=0", "--bind=127.0.0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline().split(":")[-1])
            with connected(port) as first, clients(port, 300) as many:
                assert ask(first, b"trylock lock=x") == OK
                heard = [replies.readline() for _, replies in many[59:120]]
                assert heard == [b"ERR too_many_connections This+server+has+enough+connections\r\n"] * 61
                assert [ask(one, b"trylock lock=x") for one in many[:59]] == [TAKEN] * 59
            expect(lambda: _answers(port))
        finally:
            process.terminate()
            process.communicate(timeout=SECONDS)


@pytest.mark.descriptors(3200)
def test_a_backlog_for_thousands(start: Any, tmp_path: Path) -> None:
    """While the server is busy, here even stopped, clients connect all the same, as many as the system lets it."""
    limit = Path("/proc/sys/net/core/somaxconn")
    count = min(1500, int(limit.read_text()) if limit.exists() else 128)
    pidfile = tmp_path / "pid"
    (port,) = start("ddlockd", "--port", "0", "--bind", "127.0.0.1", f"--pidfile={pidfile}")
    os.kill(int(pidfile.read_text()), signal.SIGSTOP)
    try:
        with clients(port, count) as many:
            os.kill(int(pidfile.read_text()), signal.SIGCONT)
            assert [ask(one, b"trylock lock=%d" % number) for number, one in enumerate(many)] == [OK] * count
    finally:
        os.kill(int(pidfile.read_text()), signal.SIGCONT)


def test_waiting_clients_that_are_killed(port: int) -> None:
    code = "import socket, sys; s = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); "
    code += "s.sendall(b'lock lock=x\\n'); s.recv(1)"
    with clients(port, 3) as (holder, waiter, watcher):
        assert ask(holder, b"trylock lock=x") == OK
        with contextlib.ExitStack() as stack:
            for number in range(3):
                process = stack.enter_context(subprocess.Popen([sys.executable, "-c", code, str(port)]))
                stack.callback(process.kill)
                expect(lambda number=number: ask(watcher, b"waiters lock=x") == b"OK waiters=%d\r\n" % (number + 1))
            waiter[0].sendall(b"lock lock=x\n")
            expect(lambda: ask(watcher, b"waiters lock=x") == b"OK waiters=4\r\n")
        expect(lambda: ask(watcher, b"waiters lock=x") == b"OK waiters=1\r\n")
        assert ask(holder, b"releaselock lock=x") == OK
        assert waiter[1].readline().startswith(b"OK token=")


def take_and_list(sock: socket.socket, path: Path) -> None:
    """Take a lock by a Unix socket, and see it in the list under no name of its own."""
    sock.connect(str(path))
    sock.sendall(b"trylock lock=x\nlocks\n")
    heard = b""
    while heard.count(b"\n") < 3:
        heard += sock.recv(1000)
    assert heard == OK + b"LOCKS:\n  x = DDLockd::Client::Internal(R): open to a Unix socket\n"


def test_several_addresses_have_one_port_and_one_space_of_locks() -> None:
    command = [sys.executable, str(EXAMPLES / "ddlockd"), "--port=0", "--bind=127.0.0.1", "--bind=::1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        words = process.stdout.readline().split()
        port = int(words[-1].rpartition(":")[2])
        assert words[-2:] == [f"127.0.0.1:{port},", f"::1:{port}"]
        with socket.create_connection(("127.0.0.1", port), SECONDS) as one:
            one.sendall(b"trylock lock=a\n")
            assert one.recv(100) == OK
            with socket.create_connection(("::1", port), SECONDS) as other:
                other.sendall(b"trylock lock=a\n")
                assert other.recv(100).startswith(b"ERR ")
        process.terminate()
        assert process.communicate(timeout=SECONDS)[0] == "bye\n"


def test_a_unix_socket_whose_client_has_a_strange_name(tmp_path: Path) -> None:
    path = tmp_path / "lock.sock"
    command = [sys.executable, str(EXAMPLES / "ddlockd"), "--socket", str(path), "--debug=1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(SECONDS)
            sock.bind(os.fsencode(tmp_path) + b"/\xff\n")
            take_and_list(sock, path)
        process.terminate()
        assert process.communicate(timeout=SECONDS)[0] == "connection 1 from a Unix socket\nbye\n"


def _answers(port: int) -> bool:
    with connected(port) as connection:
        return ask(connection, b"noop") == OK


def test_who_waits_when_the_server_ends(tmp_path: Path) -> None:
    program = Program("ddlockd", ("--port", "0", "--bind", "127.0.0.1"), 1, tmp_path / "errors")
    try:
        with clients(program.ports[0], 3) as (holder, waiter, idle):
            ask(holder, b"trylock lock=x")
            waiter[0].sendall(b"lock lock=x\r\n")
            expect(lambda: ask(idle, b"waiters lock=x") == b"OK waiters=1\r\n")
            program.end()
            assert waiter[1].read() == b"ERR shutting_down \r\n"
            assert idle[1].read() == b""
    finally:
        program.process.kill()
        program.process.communicate()


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / "ddlockd"), *options],
        capture_output=True, text=True, timeout=SECONDS,
    )  # fmt: skip


def test_exit_codes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("--bind", "127.0.0.1", "--port", str(taken.getsockname()[1]))
        assert done.returncode == errno.EADDRINUSE
        assert done.stderr.startswith("Error creating socket: ")
        done = run("-d", "--bind", "127.0.0.1", "-p", str(taken.getsockname()[1]))  # a daemon says so, too
        assert done.returncode == errno.EADDRINUSE
        assert done.stderr.startswith("Error creating socket: ")
    done = run("-d", "-p0", "--type=dbi", "-h", "sqlite:/nowhere/at/all")
    assert (done.returncode, done.stderr) == (255, "ddlockd: unable to open database file\n")
    done = run("-p0", "--pidfile=/nowhere/at/all")
    assert done.returncode == 255
    assert "/nowhere/at/all" in done.stderr
    for options in (["-t", "frob"], ["--type=frob"]):
        done = run("-p0", *options)
        assert (done.returncode, done.stdout) == (255, "")
        assert "unknown type 'frob'" in done.stderr
    assert run("-p0", "--type", "dbi").returncode == 255
    assert run("-p0", "--type", "dlmfs").returncode == 255
    assert run("-p0", "--type", "dlmfs", "--directory", "/nowhere/at/all").returncode == 255
    assert run("-p0", "--type", "dbi", "-h", "oracle:x").returncode == 255
    done = run("-p0", "--token-file=/nowhere/at/all")
    assert (done.returncode, done.stdout) == (255, "")
    assert "/nowhere/at/all" in done.stderr
    assert run("--help").returncode == 0


def test_an_unknown_option_does_no_harm(tmp_path: Path) -> None:
    options = ("--port=0", "--bind=127.0.0.1", "--frob", "-n", "--debug=1")
    program = Program("ddlockd", options, 1, tmp_path / "errors")
    try:
        with connected(program.ports[0]) as connection:
            assert ask(connection, b"noop") == OK
        assert program.errors.read_text() == "Unknown option: --frob\n"
        program.process.terminate()
        printed, _ = program.process.communicate(timeout=SECONDS)
        assert re.fullmatch(r"connection 1 from 127\.0\.0\.1:\d+\nbye\n", printed)
        assert program.process.returncode == 0
    finally:
        program.process.kill()
        program.process.communicate()


def test_a_daemon(tmp_path: Path) -> None:
    pidfile, path = tmp_path / "pid", tmp_path / "lock.sock"
    done = run("-d", "--socket", str(path), "--pidfile", str(pidfile))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"ddlockd listens on {path}\n"
    pid = int(pidfile.read_text())
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(SECONDS)
            take_and_list(sock, path)
            assert os.readlink(f"/proc/{pid}/cwd") == "/"
            assert os.getsid(pid) != os.getsid(0)
            assert run("--socket", str(path)).returncode == errno.EADDRINUSE
            os.kill(pid, signal.SIGTERM)
            assert sock.recv(1) == b""
    finally:
        expect(lambda: not path.exists())
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_the_end_of_a_server_frees_its_port(tmp_path: Path) -> None:
    """After kill -9 a new one takes its place at once."""
    port = 0
    for _ in range(2):
        program = Program("ddlockd", (f"-p{port}", "--bind=127.0.0.1"), 1, tmp_path / "errors")
        (port,) = program.ports
        with clients(port, 3) as (connection, waiter, watcher):
            assert ask(connection, b"trylock lock=x") == OK
            waiter[0].sendall(b"lock lock=x\n")
            expect(lambda watcher=watcher: ask(watcher, b"waiters lock=x") == b"OK waiters=1\r\n")
            program.process.kill()
            program.process.communicate()
            assert connection[1].read() == waiter[1].read() == b""


# -- many at once


def compete(port: int, folder: Path, seed: int, rounds: int) -> tuple[int, int]:
    """One client for some rounds: how often it held a lock, and how often it was cut off."""
    chance, held, cut = random.Random(seed), 0, 0
    sock = d.connect(("127.0.0.1", port))
    for _ in range(rounds):
        name = chance.randrange(10)
        waits = chance.random() < 0.5
        sock.write_all(b"%s lock=%d\r\n" % (b"lock" if waits else b"trylock", name))
        if chance.random() < 1 / 3 / rounds:  # before it knows
            sock.close()
            return held, 1
        reply = sock.read_line()
        if reply.startswith(b"OK"):
            held += 1
            proof = folder / str(name)
            proof.touch(exist_ok=False)  # nobody else has it
            for _ in range(chance.randrange(3)):
                d.sleep(0)
            proof.unlink()
            if chance.random() < 1 / 3 / rounds:  # while it holds it
                sock.close()
                return held, 1
            sock.write_all(b"releaselock lock=%d\r\n" % name)
            assert sock.read_line() == OK
        else:
            assert reply == TAKEN
    sock.close()
    return held, cut


@pytest.mark.descriptors(1200)
def test_a_thousand_connections_compete_for_ten_locks(port: int, tmp_path: Path) -> None:
    with d.Loop():
        tasks = [d.spawn(compete, port, tmp_path, seed, 5) for seed in range(1000)]
        with d.timeout(50):
            d.wait(tasks)
        results = [task.result() for task in tasks]
        assert sum(held for held, _ in results) > 500
        assert 100 < sum(cut for _, cut in results) < 600
    with connected(port) as connection:
        assert all(ask(connection, b"trylock lock=%d" % name) == OK for name in range(10))
    assert not any(path.name.isdigit() for path in tmp_path.iterdir())


def test_a_port_that_cannot_be_is_told() -> None:
    done = run("--bind=127.0.0.1", "--port=70000")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error creating socket: the port of ")
