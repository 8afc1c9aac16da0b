"""Programs to compare and to talk to: the proxy, ours and the original, and a backend whose answers are scripted."""

from __future__ import annotations

import contextlib
import re
import selectors
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
ORIGINAL = shutil.which("perlbal")
SILENCE = 0.5  # seconds without a byte after which an exchange is over, on a connection that stays open
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@contextlib.contextmanager
def program(
    command: list[str], port: int, cwd: Path | None = None, host: str = "127.0.0.1"
) -> Iterator[subprocess.Popen[str]]:
    """A program that listens on a port."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=cwd)
    try:
        until = time.monotonic() + 20
        while True:
            try:
                socket.create_connection((host, port), 1).close()
                break
            except OSError:
                assert process.poll() is None, process.communicate()[0]
                assert time.monotonic() < until, f"{command[0]} does not listen"
                time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


@contextlib.contextmanager
def ours(configuration: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    with program([sys.executable, str(EXAMPLES / "perlbal"), "-c", str(configuration)], port) as process:
        yield process


@contextlib.contextmanager
def original(configuration: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    assert ORIGINAL is not None
    with program([ORIGINAL, "-c", str(configuration)], port) as process:
        yield process


class Backend:
    """A server whose answers are `answers`, by the field X-Answer of the request; `seen` is what it got, by X-Case.

    It closes the connection after those that do not say keep-alive.
    """

    def __init__(self, answers: dict[str, bytes]) -> None:
        self.answers = answers
        self.seen: dict[str, list[bytes]] = {}
        self.server = socket.create_server(("127.0.0.1", 0), backlog=500)
        self.port = int(self.server.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        buffer = b""
        with connection, contextlib.suppress(OSError):
            while True:
                while b"\r\n\r\n" not in buffer:
                    if not (data := connection.recv(65536)):
                        return
                    buffer += data
                head, _, buffer = buffer.partition(b"\r\n\r\n")
                length = LENGTH.search(head)
                size = int(length[1]) if length else 0
                while len(buffer) < size:
                    if not (data := connection.recv(65536)):
                        return
                    buffer += data
                body, buffer = buffer[:size], buffer[size:]
                self.seen.setdefault(field(head, "X-Case"), []).append(head + b"\r\n\r\n" + body)
                answer = self.answers[field(head, "X-Answer")]
                if head.startswith(b"HEAD "):
                    before, blank, after = answer.partition(b"\r\n\r\n")
                    if b" 100 " in before:
                        before += blank + after.partition(blank)[0]
                    answer = before + blank
                connection.sendall(answer)
                if b"keep-alive" not in answer.lower().partition(b"\r\n\r\n")[0]:
                    return

    def close(self) -> None:
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()


def field(head: bytes, name: str) -> str:
    match = re.search(rb"\r\n" + name.encode() + rb": *([^\r\n]*)", head, re.IGNORECASE)
    return match[1].decode("latin-1") if match else ""


def exchange_all(port: int, requests: dict[str, list[bytes]], at_once: int = 60) -> dict[str, tuple[bytes, bool]]:
    """What comes back for each request, whose pieces are sent one after the other, and whether the connection ended."""
    left, running = list(requests.items())[::-1], {}
    results: dict[str, tuple[bytes, bool]] = {}
    with selectors.DefaultSelector() as selector:
        while left or running:
            while left and len(running) < at_once:
                name, pieces = left.pop()
                sock = socket.create_connection(("127.0.0.1", port), 10)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setblocking(False)
                selector.register(sock, selectors.EVENT_READ)
                running[sock] = [name, list(pieces), b"", time.monotonic()]
            for key, _ in selector.select(0.01):
                talk = running[key.fileobj]
                try:
                    data = key.fileobj.recv(1_000_000)
                except ConnectionResetError:
                    data = b""
                talk[2] += data
                talk[3] = time.monotonic()
                if not data:
                    talk[3] = -1.0
            for sock, talk in list(running.items()):
                if talk[1] and talk[3] >= 0:
                    with contextlib.suppress(OSError):
                        sock.send(talk[1].pop(0))
                    talk[3] = time.monotonic()
                elif talk[3] < 0 or time.monotonic() - talk[3] > SILENCE:
                    results[talk[0]] = talk[2], talk[3] < 0
                    selector.unregister(sock)
                    sock.close()
                    del running[sock]
    return results
