"""perlbal as a program: its command line, signals, both shutdowns, pid file, daemon, inherited listeners."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perlbal.program import abbreviated
from perlbal_programs import started
from programs import command
from tests.programs import free_port, without_slowness

pytestmark = [pytest.mark.slow_but_first, pytest.mark.timeout(120)]

SECONDS = 50.0  # for a program to start, to answer, and to end, on a machine that is busy with others


def test_options_as_the_original_takes_them():
    words = ["-c", "F", "--c=F", "-d", "--daemon", "--check", "-x=-y"]
    assert abbreviated(words) == ["--config", "F", "--config=F", "--d", "--daemon", "--check", "--x=-y"]


def expect(condition: Callable[[], object]) -> None:
    """Ask again and again until it is true."""
    give_up = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


class Running:
    """A perlbal with a management port and whatever the text says; `{port}` in it is filled in."""

    def __init__(
        self, folder: Path, text: str = "", *options: str, before: tuple[str, ...] = (), fds: tuple[int, ...] = ()
    ):
        self.folder, self.manage, self.port = folder, free_port(), free_port()
        self.file, self.log = folder / "perlbal.conf", folder / "output"
        self.write(text)
        words = [*before, *command("perlbal", "-c", str(self.file))]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, pass_fds=fds)
        expect(lambda: "beginning run" in self.output() or self.process.poll() is not None)
        assert self.process.poll() is None, self.output()

    def write(self, text: str) -> None:
        text = f"CREATE SERVICE mgmt\nSET role = management\nSET listen = 127.0.0.1:{self.manage}\nENABLE mgmt\n{text}"
        self.file.write_text(text.replace("{port}", str(self.port)))

    def output(self) -> str:
        return without_slowness(self.log.read_text())

    def tell(self, line: str) -> bytes:
        """What the management port answers, until it closes."""
        with socket.create_connection(("127.0.0.1", self.manage), SECONDS) as sock:
            sock.sendall(f"{line}\n".encode())
            sock.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: sock.recv(65536), b""))

    def tells(self) -> bool:
        """Whether its management port is open."""
        with contextlib.suppress(ConnectionError):
            return bool(self.tell("uptime"))
        return False

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), SECONDS)

    def get(self) -> bytes:
        with self.connect() as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return b"".join(iter(lambda: sock.recv(65536), b""))

    def ended(self) -> int:
        return self.process.wait(SECONDS)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def start(*arguments, **options):
        started.append(Running(tmp_path, *arguments, **options))
        return started[-1]

    yield start
    for running in started:
        running.process.kill()
        running.process.wait()


@pytest.fixture
def web(tmp_path: Path) -> str:
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "index.html").write_text("hello")
    return (
        f"CREATE SERVICE ws\nSET role = web_server\nSET docroot = {folder}\nSET listen = 127.0.0.1:{{port}}\n"
        "SET persist_client = on\nENABLE ws\n"
    )


@contextlib.contextmanager
def slow_backend() -> Iterator[tuple[int, threading.Event, threading.Event]]:
    """Its port, what is set when a request has come, and what lets it answer."""
    asked, answer = threading.Event(), threading.Event()

    def serve(server: socket.socket) -> None:
        with contextlib.suppress(OSError), server.accept()[0] as sock:
            sock.recv(65536)
            asked.set()
            answer.wait(SECONDS)
            sock.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nslow")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        try:
            yield server.getsockname()[1], asked, answer
        finally:
            answer.set()
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def proxy(port: int) -> str:
    return (
        f"CREATE POOL a\nPOOL a ADD 127.0.0.1:{port}\nCREATE SERVICE rp\nSET role = reverse_proxy\nSET pool = a\n"
        "SET listen = 127.0.0.1:{port}\nENABLE rp\n"
    )


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command("perlbal", *options), capture_output=True, text=True, timeout=SECONDS, check=False)


# -- the command line


def test_help_and_version():
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, "Perlbal version 1.80\n")
    done = run("-h")
    assert done.returncode == 0
    assert "--config=[file]" in done.stderr
    done = run("--nonsense")
    assert done.returncode == 1
    assert "--config=[file]" in done.stderr


ERRORS = "CREATE SERVICE a\nSET role = nope\n\nSET listen = here\nENABLE b\n"


def test_a_configuration_with_an_error_does_not_start(tmp_path):
    file = tmp_path / "f"
    file.write_text(ERRORS)
    done = run("--config", str(file))
    assert done.returncode == 1
    assert done.stdout == f"{file}:2: ERROR: Role not valid for service a\n"
    assert done.stderr == "Error starting up.\n"


def test_check_tells_all_errors_and_starts_nothing(tmp_path):
    file = tmp_path / "f"
    file.write_text(ERRORS)
    done = run("--check", "-c", str(file))
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == (
        f"{file}:2: ERROR: Role not valid for service a\n"
        f"{file}:4: ERROR: Listen argument must be ip:port or port. e.g. 192.168.0.1:80 or 81\n"
        f"{file}:5: ERROR: service 'b' does not exist\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as sock:  # is in use, which is no fault of the file
        port = sock.getsockname()[1]
        file.write_text(f"CREATE SERVICE a\nSET role = management\nSET listen = 127.0.0.1:{port}\nENABLE a\n")
        done = run("--check", "-c", str(file))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        done = run("-c", str(file))
        assert done.returncode == 1
        assert f":4: ERROR: Can't start service 'a' on 127.0.0.1:{port}: Address already in use\n" in done.stdout


def test_a_file_that_is_not_there(tmp_path):
    for options in [["-c"], ["--check", "-c"]]:
        done = run(*options, str(tmp_path / "none"))
        assert done.returncode == 1
        assert "Error opening config file" in done.stderr


def test_nothing_to_listen_on(tmp_path):
    file = tmp_path / "f"
    file.write_text("CREATE SERVICE a\nSET role = web_server\nENABLE a\n")
    done = run("-c", str(file))
    assert done.returncode == 1
    assert "No services or management port configured." in done.stderr


# -- its life


def test_it_says_that_it_runs_and_shuts_down_at_once(start, web, tmp_path):
    running = start(f"SERVER pidfile = {tmp_path}/pid\n{web}")
    assert running.output() == "Running.\nbeginning run\n"
    assert (tmp_path / "pid").read_text() == f"{running.process.pid}\n"
    assert running.get().endswith(b"hello")
    assert running.tell("shutdown") == b""
    assert running.ended() == 0
    assert running.output() == "Running.\nbeginning run\nending run\n"
    assert not (tmp_path / "pid").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it(start, web, tmp_path, number):
    running = start(f"SERVER pidfile = {tmp_path}/pid\n{web}")
    running.process.send_signal(number)
    assert running.ended() == 0
    assert not (tmp_path / "pid").exists()


def test_a_report_upon_a_signal(start, web):
    running = start(web)
    running.process.send_signal(signal.SIGUSR1)
    expect(lambda: "SERVICE ws\n" in running.output())
    assert "SERVICE mgmt\n" in running.output()


@pytest.mark.parametrize("how", ["command", "signal"])
def test_a_graceful_shutdown_lets_requests_end(start, web, how):
    with slow_backend() as (port, asked, answer):
        running = start(proxy(port) + "SET rp.persist_client = on\n")
        idle = running.connect()
        with idle, running.connect() as sock:
            sock.sendall(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert asked.wait(SECONDS)
            if how == "command":
                assert running.tell("shutdown graceful") == b"OK\r\n"
            else:
                running.process.send_signal(signal.SIGTERM)
            assert idle.recv(100) == b""
            with pytest.raises(ConnectionError):
                running.connect().recv(1)
            answer.set()
            received = b"".join(iter(lambda: sock.recv(65536), b""))
        assert received.endswith(b"slow")
        assert b"Connection: close" in received
        assert running.ended() == 0


@pytest.mark.parametrize("how", ["command", "signal"])
def test_a_graceful_shutdown_has_an_end(start, how):
    with slow_backend() as (port, asked, _):
        running = start(proxy(port))
        with running.connect() as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert asked.wait(SECONDS)
            if how == "command":
                assert running.tell("shutdown graceful 1") == b"OK\r\n"
            else:
                running.process.send_signal(signal.SIGTERM)
                expect(lambda: not running.tells())  # two signals that come at once are one
                running.process.send_signal(signal.SIGTERM)
            assert running.ended() == 0


def test_the_file_is_read_again_upon_a_signal(start, web):
    running = start(web)
    running.write(web.replace("persist_client = on", "persist_client = off"))
    running.process.send_signal(signal.SIGHUP)
    expect(lambda: "service ws: persist_client = off" in running.output())
    running.write(web + "NONSENSE\n")
    running.process.send_signal(signal.SIGHUP)
    expect(lambda: "ERROR: unknown command: nonsense" in running.output())
    assert running.get().endswith(b"hello")
    assert running.tell("reload config").startswith(b"ERROR: ")


def test_a_daemon(start, web, tmp_path):
    file, pidfile = tmp_path / "f", tmp_path / "pid"
    port, manage = free_port(), free_port()
    file.write_text(
        f"SERVER pidfile = {pidfile}\nCREATE SERVICE m\nSET role = management\n"
        f"SET listen = 127.0.0.1:{manage}\nENABLE m\n" + web.replace("{port}", str(port))
    )
    done = run("--daemon", "-c", str(file))
    assert (done.returncode, done.stdout) == (0, "")
    pid = int(pidfile.read_text())
    with socket.create_connection(("127.0.0.1", manage), SECONDS) as sock:
        sock.sendall(b"proc\nshutdown\n")
        assert f"pid: {pid}\r\n".encode() in b"".join(iter(lambda: sock.recv(65536), b""))
    expect(lambda: not pidfile.exists())
    file.write_text("NONSENSE\n")
    done = run("-d", "-c", str(file))
    assert (done.returncode, done.stdout) == (1, f"{file}:1: ERROR: unknown command: nonsense\n")


def test_a_listener_is_inherited(start, web, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        passed = os.dup(sock.fileno())
        shell = f'exec 3<&{passed}; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@"'
        running = start(web.replace("{port}", str(port)), before=("bash", "-c", shell, "x"), fds=(passed,))
        os.close(passed)
        running.port = port
        assert running.get().endswith(b"hello")
        running.process.send_signal(signal.SIGTERM)
        assert running.ended() == 0
        with running.connect():  # nobody is refused: the socket is still there
            pass


def test_a_configuration_of_the_original_runs_unchanged(start, tmp_path):
    """What configurations in the wild use, with its blanks, letter cases and comments."""
    (tmp_path / "index.html").write_text("hello")
    text = f"""
# -- a proxy
Load vhosts
XS enable headers
SERVER aio_mode = none
SERVER crash_backtrace=1

CREATE POOL my_apaches
  POOL my_apaches ADD 127.0.0.1:1   # nobody

CREATE SERVICE balancer
  SET role            = reverse_proxy
  SET pool            = my_apaches
  SET persist_client  = on
  SET persist_backend = on
  SET verify_backend  = on
  SET queue_timeout   = 1
ENABLE balancer

CREATE SERVICE docs
  SET role    = web_server
  SET docroot = {tmp_path}
  SET docs.dirindexing = 0
  SET docs persist_client = on
ENABLE docs

CREATE SERVICE vdemo
  SET listen         = 127.0.0.1:{{port}}
  SET role           = selector
  SET plugins        = vhosts
  SET persist_client = on
  VHOST *.example.com     = docs
  VHOST vdemo *           = balancer
ENABLE vdemo
"""
    running = start(text)
    with running.connect() as sock:
        sock.sendall(b"GET / HTTP/1.0\r\nHost: www.example.com\r\n\r\n")
        assert b"".join(iter(lambda: sock.recv(65536), b"")).endswith(b"hello")
    assert re.search(rb"HTTP/1.0 503 ", running.get())


def test_a_signal_that_comes_while_the_configuration_is_loaded_is_obeyed_then(tmp_path):
    rest, port = tmp_path / "rest", free_port()
    os.mkfifo(rest)
    file = tmp_path / "perlbal.conf"
    service = f"CREATE SERVICE m\nSET role = management\nSET listen = 127.0.0.1:{port}\nENABLE m\n"
    file.write_text(f"LOAD include\n{service}INCLUDE = {rest}\n")
    with started(command("perlbal", "-c", str(file)), port) as process:
        process.send_signal(signal.SIGTERM)
        rest.write_text("\n")
        assert process.wait(SECONDS) == 0
