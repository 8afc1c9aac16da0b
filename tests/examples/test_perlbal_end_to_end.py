"""The proxy as a program, between real clients and real backends."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import pytest

from perlbal_backends import ALL, DYNAMIC, FILES, NGINX, STATIC, backend, curl
from perlbal_peers import ours, program
from perlbal_programs import output_of
from programs import command, expect
from tests.programs import free_port

pytestmark = pytest.mark.slow
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")

SERVICE = """CREATE POOL a
{nodes}
CREATE SERVICE rp
  SET role = reverse_proxy
  SET listen = 127.0.0.1:{port}
  SET pool = a
  SET persist_client = on
  SET persist_backend = on
{more}
ENABLE rp
CREATE SERVICE m
  SET role = management
  SET listen = 127.0.0.1:{management}
ENABLE m
"""


class Running:
    """The program, and its ports."""

    def __init__(self, process: subprocess.Popen[str], port: int, management: int) -> None:
        self.process, self.port, self.management = process, port, management

    def url(self, path: object) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"

    def ask(self, command: str) -> list[str]:
        """The lines that a command of the management port answers."""
        with socket.create_connection(("127.0.0.1", self.management), 10) as sock, sock.makefile("r") as lines:
            sock.sendall(f"{command}\n".encode())
            answer = []
            for line in lines:
                if line.strip() in (".", "OK") or line.startswith("ERROR"):
                    break
                answer.append(line.strip())
        return answer

    def unsent(self) -> float:
        """How many KB are queued for clients and backends."""
        (line,) = (line for line in self.ask("socks summary") if line.startswith("Aggregate"))
        return float(line.split()[-1].removesuffix("k"))

    def memory(self) -> int:
        """Resident memory, in bytes."""
        with open(f"/proc/{self.process.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def proxy(folder: Path, nodes: Sequence[int | str], more: str = "") -> Iterator[Running]:
    port, management = free_port(), free_port()
    names = (node if isinstance(node, str) else f"127.0.0.1:{node}" for node in nodes)
    lines = "\n".join(f"  POOL a ADD {name}" for name in names)
    file = folder / "perlbal.conf"
    file.write_text(SERVICE.format(nodes=lines, port=port, management=management, more=more))
    with ours(file, port) as process:
        yield Running(process, port, management)


@pytest.fixture(params=ALL)
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, int]]:
    """The name of a real backend, and its port."""
    with backend(request.param, tmp_path) as port:
        if port is None:
            pytest.skip(f"{request.param} is not installed")
        yield request.param, port


# -- real backends


@needs_curl
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_real_backends(node: tuple[str, int], version: str, tmp_path: Path) -> None:
    name, port = node
    with proxy(tmp_path, [port], f"  SET backend_http_version = {version}\n  SET verify_backend = off") as running:
        for size in FILES:
            url = running.url(f"{size}.txt")
            expected = b"0123456789" * (size // 10)
            assert curl(url) == expected
            assert curl("--http1.0", url) == expected
            assert curl(url, url, url) == expected * 3
            head = curl("-I", url)
            assert head.startswith(b"HTTP/1."), head
        if name in STATIC:
            if name != "lighttpd" or version == "1.1":  # which takes a Range of HTTP/1.1 alone
                assert curl("-r", "5-14", running.url("1000.txt")) == b"5678901234"
            assert curl("-o", "/dev/null", "-w", "%{http_code}", running.url("none")) == b"404"
        else:
            body = os.urandom(300_000)
            (tmp_path / "body").write_bytes(body)
            for how in ("-H", "Expect:"), ("-H", "Expect: 100-continue"), ("--http1.0",):
                assert curl(*how, "--data-binary", f"@{tmp_path}/body", running.url("echo")) == body
            if version == "1.1" and name != "waitress":
                chunked = "-H", "Transfer-Encoding: chunked"
                got = curl(*chunked, "--data-binary", f"@{tmp_path}/body", running.url("echo"))
                assert got == (body if name == "uvicorn" else b"")  # our application asks for a length
        assert sum(int(line.rpartition(" ")[2]) for line in running.ask("nodes") if " responsecodes 5" in line) == 0


@needs_curl
@pytest.mark.parametrize("name", DYNAMIC)
def test_uploads_through_files(name: str, tmp_path: Path) -> None:
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    body = os.urandom(3_000_000)
    (tmp_path / "body").write_bytes(body)
    with backend(name, tmp_path) as port:
        if port is None:
            pytest.skip(f"{name} is not installed")
        with proxy(tmp_path, [port], f"  SET buffer_uploads_path = {uploads}\n  SET buffer_uploads = on") as running:
            for more in ((), ("-H", "Transfer-Encoding: chunked"), ("--limit-rate", "10M")):
                assert curl(*more, "--data-binary", f"@{tmp_path}/body", running.url("echo")) == body
            expect(lambda: not list(uploads.iterdir()))  # a thread removes the last one, after the answer


@pytest.mark.parametrize("library", ["requests", "httpx"])
def test_real_clients(library: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    clients = importlib.import_module(library)
    with backend("uvicorn", tmp_path) as port:
        if port is None:
            pytest.skip("uvicorn is not installed")
        with proxy(tmp_path, [port], "  SET backend_http_version = 1.1") as running:
            with clients.Session() if library == "requests" else clients.Client() as client:
                for size in FILES * 2:
                    answer = client.get(running.url(size), timeout=20)
                    assert (answer.status_code, answer.content) == (200, b"0123456789" * (size // 10))
                answer = client.post(running.url("echo"), content=iter([b"ab", b"cd"])) if library == "httpx" else (
                    client.post(running.url("echo"), data=iter([b"ab", b"cd"]))
                )  # fmt: skip
                assert answer.content == b"abcd"
            assert running.ask("nodes")[-1].endswith(f"responsecodes 200 {len(FILES) * 2 + 1}")


# -- where nodes are


def nginx_on(folder: Path, listen: str, more: str = "") -> tuple[list[str], Path]:
    """What starts an nginx that listens there."""
    path = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if path is None:
        pytest.skip("nginx is not installed")
    files = folder / "files"
    files.mkdir()
    folder.chmod(0o755)
    (files / "10.txt").write_text("0123456789")
    file = folder / "nginx.conf"
    text = NGINX.format(folder=folder, port="PORT").replace("listen 127.0.0.1:PORT;", f"listen {listen}; {more}")
    file.write_text(text)
    return [path, "-c", str(file)], files


@needs_curl
@pytest.mark.parametrize("where", ["unix", "ipv6", "name"])
def test_nodes_of_other_kinds(where: str, tmp_path: Path) -> None:
    port = free_port()
    listen, node = {
        "unix": (f"unix:{tmp_path}/node 127.0.0.1:{port}", f"unix:{tmp_path}/node"),
        "ipv6": (f"[::1]:{port}", f"[::1]:{port}"),
        "name": (f"127.0.0.1:{port}", f"localhost:{port}"),
    }[where]
    command, _ = nginx_on(tmp_path, listen.replace(" ", "; listen "))
    host = "::1" if where == "ipv6" else "127.0.0.1"
    with program(command, port, host=host), proxy(tmp_path, [node]) as running:
        assert curl(running.url("10.txt"), running.url("10.txt")) == b"0123456789" * 2
        assert running.ask("show pool a") == [f"{node} 1"]


@needs_curl
@pytest.mark.parametrize("verified", [True, False])
def test_nodes_that_speak_tls(verified: bool, tmp_path: Path) -> None:
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    certificate = authority.issue_cert("inner.example")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    port = free_port()
    pem = tmp_path / "server.pem"
    command, _ = nginx_on(tmp_path, f"127.0.0.1:{port} ssl", f"ssl_certificate {pem}; ssl_certificate_key {pem};")
    name = "inner.example" if verified else "other.example"
    pool = f"  SET a.tls = on\n  SET a.tls_ca_file = {tmp_path}/ca.pem\n  SET a.tls_name = {name}"
    with program(command, port), proxy(tmp_path, [port], f"{pool}\n  SET queue_timeout = 1") as running:
        status = curl("-o", "/dev/null", "-w", "%{http_code}", running.url("10.txt"))
        assert status == (b"200" if verified else b"503")
        if verified:
            assert curl(running.url("10.txt")) == b"0123456789"


# -- a large download


class Large:
    """A backend that sends so many bytes, as fast as it can."""

    def __init__(self, size: int) -> None:
        self.size, self.sent = size, 0
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError), self.server.accept()[0] as connection:
            connection.recv(65536)
            connection.sendall(f"HTTP/1.0 200 OK\r\nContent-Length: {self.size}\r\n\r\n".encode())
            piece = bytes(1_000_000)
            while self.sent < self.size:
                connection.sendall(piece)
                self.sent += len(piece)


@pytest.mark.timeout(200)
def test_a_download_of_a_gigabyte_needs_bounded_memory(tmp_path: Path) -> None:
    large = Large(1_000_000_000)
    with proxy(tmp_path, [large.port]) as running, contextlib.closing(large.server):
        before = running.memory()
        most = 0
        with socket.create_connection(("127.0.0.1", running.port), 20) as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            buffer = bytearray(1_000_000)
            expect(lambda: running.unsent() > 256)  # it is as far behind as it may be
            assert large.sent < 30_000_000
            received = 0
            while size := sock.recv_into(buffer):
                received += size
                if received % 100 == 0:
                    most = max(most, running.memory())
        assert received > 1_000_000_000
        assert most - before < 10_000_000


# -- many clients, and backends that are killed


class Ended(Exception):
    """A connection has ended without a byte of an answer."""


class Counting:
    """Clients that ask all the time, and count what they hear.

    `ended`: how often a connection that was kept between two requests was ended just as the next one was sent.
    """

    def __init__(self, port: int, count: int) -> None:
        self.port = port
        self.codes: Counter[str] = Counter()
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self._ask, daemon=True, args=(number,)) for number in range(count)]
        for thread in self.threads:
            thread.start()

    def _ask(self, number: int) -> None:
        choice = random.Random(number)
        while not self.over.is_set():
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 20) as sock:
                self._talk(sock, choice, number)

    def _talk(self, sock: socket.socket, choice: random.Random, number: int) -> None:
        with sock.makefile("rb") as replies:
            for turn in range(choice.randrange(1, 30)):
                if self.over.is_set():
                    return
                token = f"{number}-{choice.randrange(10**9)}"
                sock.sendall(f"GET /{token} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                try:
                    code, body, stays = response(replies)
                except Ended:
                    self.codes["ended" if turn else "none"] += 1
                    return
                except (OSError, ValueError):
                    self.codes["none"] += 1
                    return
                self.codes[code if code != "200" or body == token.encode() else "another's"] += 1
                if not stays or self.over.wait(choice.random() * 0.05):
                    return

    def answered(self, count: int) -> None:
        """Wait until so many more requests were answered."""
        before = self.codes.total()
        expect(lambda: self.codes.total() >= before + count)

    def end(self) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join(30)


def response(replies: BinaryIO) -> tuple[str, bytes, bool]:
    """Code, body, and whether the connection stays. Raises Ended, ValueError where there is no whole response."""
    try:
        line = replies.readline()
    except ConnectionError:
        line = b""
    if not line:
        raise Ended
    length, stays = 0, False
    while (field := replies.readline().strip().lower()) != b"":
        length = int(field.split()[1]) if field.startswith(b"content-length:") else length
        stays = stays or field == b"connection: keep-alive"
    body = replies.read(length)
    if len(body) != length:
        raise ValueError
    return line.split()[1].decode(), body, stays


ECHO = """
import socket, sys, threading

def talk(connection):
    with connection, connection.makefile("rb") as lines:
        while line := lines.readline():
            while lines.readline() not in (b"\\r\\n", b""):
                pass
            token = line.split()[1][1:]
            kept = b"HTTP/1.0 200 OK\\r\\nConnection: keep-alive\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(token)
            connection.sendall(kept + token)

server = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=200)
while True:
    threading.Thread(target=talk, args=(server.accept()[0],), daemon=True).start()
"""


@contextlib.contextmanager
def echoes(nodes: list[int]) -> Iterator[None]:
    """Backends that answer with the path."""
    with contextlib.ExitStack() as stack:
        for node in nodes:
            stack.enter_context(program([sys.executable, "-c", ECHO, str(node)], node))
        yield


@pytest.mark.timeout(120)
def test_under_load_a_live_reconfiguration_and_a_graceful_shutdown_fail_no_request(tmp_path: Path) -> None:
    nodes = [free_port() for _ in range(4)]
    with echoes(nodes), proxy(tmp_path, nodes, "  SET backend_persist_cache = 20") as running:
        clients = Counting(running.port, 100)
        file = tmp_path / "perlbal.conf"
        before = file.read_text()
        for number in range(4):
            clients.answered(100)
            running.ask(f"POOL a REMOVE 127.0.0.1:{nodes[number]}")
            clients.answered(50)
            changed = before.replace("cache = 20", f"cache = {number + 1}\n  SET rp.connect_ahead = {number}")
            file.write_text(changed.replace(f"  POOL a ADD 127.0.0.1:{nodes[-number]}\n", ""))
            assert running.ask("reload config")
            file.write_text(before)
            assert running.ask("reload config")
        assert set(clients.codes) == {"200"}
        assert running.ask("shutdown graceful 10") == []
        assert running.process.wait(15) == 0
        clients.end()
        codes = clients.codes
    assert set(codes) <= {"200", "ended"}, codes  # between two requests a shutdown ends connections
    assert codes["ended"] <= 100
    assert codes["200"] > 500


def ask_while_killing(port: int, nodes: list[int], seconds: float) -> tuple[int, Counter[str]]:
    """For so long, ask, while one backend at a time is killed and started again: how often, and what clients heard."""

    def start(number: int) -> None:
        command = [sys.executable, "-c", ECHO, str(nodes[number])]
        processes[number] = stack.enter_context(program(command, nodes[number]))

    with contextlib.ExitStack() as stack:
        processes: dict[int, subprocess.Popen[str]] = {}
        for number in range(len(nodes)):
            start(number)
        clients = Counting(port, 200)
        kills, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            number = kills % len(nodes)
            processes[number].kill()
            processes[number].wait()
            clients.answered(100)
            start(number)
            kills += 1
            clients.answered(100)
        clients.end()
    return kills, clients.codes


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seconds", [5, 30])
def test_backends_are_killed_one_at_a_time_and_each_request_has_one_answer(tmp_path: Path, seconds: int) -> None:
    ports = [free_port() for _ in range(4)]
    with proxy(tmp_path, ports, "  SET backend_persist_cache = 20") as running:
        kills, codes = ask_while_killing(running.port, ports, seconds)
    assert kills >= seconds // 3
    assert codes["none"] == codes["ended"] == codes["another's"] == 0, codes
    assert codes["200"] > 100 * seconds
    assert codes["200"] > 100 * (codes.total() - codes["200"]), codes
    assert set(codes) <= {"200", "502", "503", "none", "ended", "another's"}


# -- load


@pytest.mark.parametrize("more", [(), ("-k",)], ids=["a connection each", "kept alive"])
def test_ab_through_the_proxy(tmp_path: Path, more: tuple[str, ...]) -> None:
    nodes = [free_port(), free_port()]
    with echoes(nodes), proxy(tmp_path, nodes) as running:
        said = output_of("ab", "-q", "-n", "600", "-c", "20", *more, running.url("abc")).decode()
    assert re.search(r"Complete requests: +600\n", said), said
    assert re.search(r"Failed requests: +0\n", said), said
    assert "Non-2xx" not in said
    assert re.search(rf"Keep-Alive requests: +{'[1-9]' if more else '0$'}", said, re.MULTILINE) or not more, said
    assert re.search(r"HTML transferred: +1800 bytes", said), said


def test_wrk_through_the_proxy(tmp_path: Path) -> None:
    nodes = [free_port(), free_port()]
    with echoes(nodes), proxy(tmp_path, nodes, "  SET backend_persist_cache = 20") as running:
        said = output_of("wrk", "-t", "1", "-c", "20", "-d", "1s", running.url("abc")).decode()
    assert re.search(r"[1-9]\d* requests in", said), said
    assert "Non-2xx" not in said
    assert "Socket errors" not in said


# -- descriptors


def test_clients_that_take_all_descriptors_leave_some_for_backends(tmp_path: Path) -> None:
    node, port, management = free_port(), free_port(), free_port()
    file = tmp_path / "perlbal.conf"
    more = "  SET connect_ahead = 0"
    file.write_text(SERVICE.format(nodes=f"  POOL a ADD 127.0.0.1:{node}", port=port, management=management, more=more))
    limited = ["sh", "-c", 'ulimit -n 96; exec "$@"', "sh", *command("perlbal", "-c", str(file))]
    with echoes([node]), program(limited, port) as process, contextlib.ExitStack() as stack:
        running = Running(process, port, management)
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 20)) for _ in range(150)]
        assert int(running.ask("fd")[1].split()[1]) < 96 - 4  # a management connection finds room, too
        for number, client in enumerate(clients[:5]):
            client.sendall(f"GET /{number} HTTP/1.0\r\n\r\n".encode())
            with client.makefile("rb") as replies:
                assert response(replies)[:2] == ("200", str(number).encode())
        for client in clients[:80]:
            client.close()
        clients[-1].sendall(b"GET /last HTTP/1.0\r\n\r\n")  # it is accepted once there is room again
        with clients[-1].makefile("rb") as replies:
            assert response(replies)[:2] == ("200", b"last")
