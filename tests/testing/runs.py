"""What the tests of the pytest plugin have in common: options, and the beginnings of files of tests."""

from __future__ import annotations

from importlib.util import find_spec

PLUGIN = "dangagreen.testing.plugin"
OPTIONS = ("-p", PLUGIN, "-p", "no:cacheprovider", "-W", "error")
# pytest-asyncio warns without
ASYNCIO = ("-o", "asyncio_default_fixture_loop_scope=function") if find_spec("pytest_asyncio") is not None else ()
HEAD = """
import os, time
import pytest
import dangagreen as d
from dangagreen import Socket, current_loop, sleep, spawn
from dangagreen.testing import wire, wait_until_idle
"""


HANDLERS = """
def echo(sock):
    for line in sock:
        if line == b"bad\\n":
            raise ValueError("a bad line")
        sock.write_all(line)

def ask(address, line):
    with d.connect(address) as sock:
        sock.write_all(line)
        return sock.read_line()
"""


def text(result):
    """What pytest has printed, without the summary at the end: under CI that repeats what stands above."""
    return result.stdout.str().partition("short test summary info")[0]
