"""Examples run as programs, and plain blocking connections to talk to them."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from tests.programs import without_slowness

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
SECONDS = 30.0  # what a program may take to start, to end, and to answer


def command(name: str, *options: str) -> list[str]:
    """What starts an example, which is a module or a package."""
    package = EXAMPLES / name
    return [sys.executable, "-W", "error", str(package if package.is_dir() else f"{package}.py"), *options]


def run(name: str, *options: str) -> tuple[int, str, str]:
    """What becomes of a program that ends by itself: its status, its output, and its complaints."""
    done = subprocess.run(command(name, *options), capture_output=True, text=True, timeout=SECONDS)
    return done.returncode, done.stdout, without_slowness(done.stderr)


class Program:
    """A running example: the ports that it printed, one a line, and the other lines before them."""

    def __init__(self, name: str, options: tuple[str, ...], lines: int, errors: Path, before: int = 0) -> None:
        self.errors = errors
        with errors.open("wb") as stderr:
            self.process = subprocess.Popen(command(name, *options), stdout=subprocess.PIPE, stderr=stderr, text=True)
        self.printed = [self.process.stdout.readline() for _ in range(before + lines)]
        self.ports = [int(port) for line in self.printed for port in re.findall(r":(\d+)/?$", line)]
        assert len(self.ports) == lines, [*self.printed, errors.read_text()]

    def complaints(self) -> str:
        """What it has written to stderr."""
        return without_slowness(self.errors.read_text())

    def end(self) -> None:
        """As Ctrl-C does; where this process ignores it, so does the program, and hears SIGTERM instead."""
        ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        self.process.send_signal(signal.SIGTERM if ignored else signal.SIGINT)
        output, _ = self.process.communicate(timeout=SECONDS)
        assert self.complaints() == ""
        assert (output, self.process.returncode) == ("bye\n", 0)


@contextlib.contextmanager
def connected(port: int) -> Iterator[tuple[socket.socket, BinaryIO]]:
    """A connection, and a file to read its answers from."""
    with socket.create_connection(("127.0.0.1", port), SECONDS) as sock, sock.makefile("rb") as replies:
        yield sock, replies


def answer(port: int, data: bytes) -> bytes:
    """Send it, end the stream, and read to the end."""
    with connected(port) as (sock, replies):
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        return replies.read()


def expect(condition: Callable[[], object]) -> None:
    """Ask again and again until it is true."""
    give_up = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < give_up
