"""perlbal, and the original where it is installed, run as programs; what real clients and other programs say."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from programs import SECONDS, command
from tests.programs import without_slowness


def needs(program: str) -> str:
    """Where a program is; the test is skipped, and says so, where it is not installed."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path


def wait_for_port(process: subprocess.Popen[str], port: int) -> None:
    give_up = time.monotonic() + SECONDS
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < give_up
        time.sleep(0.02)


@contextlib.contextmanager
def started(arguments: list[str], port: int) -> Iterator[subprocess.Popen[str]]:
    """A program that listens on a port; it is killed at the end of the block, if it still runs."""
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_for_port(process, port)
        yield process
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def perlbal(directory: Path, configuration: str, port: int) -> Iterator[subprocess.Popen[str]]:
    """Ours, with a configuration by which it listens on a port. It ends by SIGTERM, without a complaint."""
    file = directory / "perlbal.conf"
    file.write_text(configuration)
    with started(command("perlbal", "-c", str(file)), port) as process:
        yield process
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            _, complaints = process.communicate(timeout=SECONDS)
            assert without_slowness(complaints) == ""
            assert process.returncode == 0


@contextlib.contextmanager
def original(directory: Path, configuration: str, port: int) -> Iterator[subprocess.Popen[str]]:
    """The Perl original, where it is installed."""
    path = needs("perlbal")
    file = directory / "original.conf"
    file.write_text(configuration)
    with started([path, "-c", str(file)], port) as process:
        yield process


def output_of(*arguments: str, stdin: bytes = b"") -> bytes:
    """What a program writes, which has to succeed."""
    done = subprocess.run(
        [needs(arguments[0]), *arguments[1:]], input=stdin, capture_output=True, timeout=6 * SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
