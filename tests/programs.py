"""Programs that tests run in an interpreter of their own, which imports from where this one does."""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import os
import random
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

PROGRAM_SECONDS = 240  # what one may take, on a machine that is busy with others: a test that is slower has failed
PYTHONPATH = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

PORTS = set(range(10_000, 32_000))
given: set[int] = set()  # of those, by this process
locks = os.open(Path(tempfile.gettempdir(), f"dangagreen-ports-{os.getuid()}"), os.O_RDWR | os.O_CREAT, 0o600)

# What programs begin with in which Ctrl-C strikes: Python's own handler, and what tells that a `finally` has run.
PREAMBLE = """
import os, signal, socket, sys
import dangagreen as d

signal.signal(signal.SIGINT, signal.default_int_handler)

def say(words):
    os.write(1, words.encode() + b"\\n")

def last(name, function, *args):
    try:
        function(*args)
    finally:
        say("finally " + name)
"""

# What programs begin with that others look into: those may, also where only the parents of a process may trace it.
TRACEABLE = """
import ctypes
ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)  # PR_SET_PTRACER, PR_SET_PTRACER_ANY
"""


def without_slowness(log: str) -> str:
    """A log without the lines that say that a loop was held up: a machine that is busy with other things does that."""
    return "".join(line for line in log.splitlines(keepends=True) if "held up the loop" not in line)


def run_python(*arguments, text_in=None):
    """Run an interpreter that imports from where this one does: (its exit code, what it wrote, what it complained).

    That a loop was held up is no complaint.
    """
    done = subprocess.run(
        [sys.executable, *arguments],
        input=text_in,
        capture_output=True,
        text=True,
        timeout=PROGRAM_SECONDS,
        env=os.environ | PYTHONPATH,
        check=False,
    )
    return done.returncode, done.stdout, without_slowness(done.stderr)


def start_python(*arguments, stdin=False):
    """Start one, with pipes to read from what it writes and what it complains of, and one for its input if asked."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | ({"stdin": subprocess.PIPE} if stdin else {})
    return subprocess.Popen([sys.executable, *arguments], text=True, env=os.environ | PYTHONPATH, **pipes)


def ended(process):
    """Wait for its end: (the lines that it wrote, what it complained but that it was held up, its exit code)."""
    out, err = process.communicate(timeout=PROGRAM_SECONDS)
    return out.splitlines(), without_slowness(err), process.returncode


def free_port() -> int:
    """A port of 127.0.0.1 for a program that cannot choose one itself; none that the kernel chooses for anybody.

    Nobody is given it twice: a byte of a file is locked for it until this process ends, since two that run tests at the
    same time would now and then choose one that the other has found free and whose program has yet to listen.
    """
    for port in random.SystemRandom().sample(sorted(PORTS - given), 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            fcntl.lockf(locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            given.add(port)
            return port
    raise AssertionError("a hundred ports are all in use")


def missing(what):
    """Skips the test; but not in CI, which installs what there is to be had."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} is not installed")
    pytest.skip(f"{what} is not installed")


def needed(name):
    """The module. Skips the file, or the test, where it is not installed; but not in CI, which installs it."""
    return importlib.import_module(name) if os.environ.get("CI") else pytest.importorskip(name)
