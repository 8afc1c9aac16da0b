"""How examples go on without a terminal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from programs import EXAMPLES, SECONDS

SERVES = """
import os, sys
from daemon import daemonize

os.umask(0o077)
reads, writes = os.pipe()
if os.fork():
    os.close(writes)
    print(os.fdopen(reads).read())
    sys.exit()
started = os.getpid()
if os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
serving = daemonize({umask})
serving()
null = os.stat(os.devnull)
told = [os.getsid(0) == os.getpid() != started, os.getcwd(), [os.fstat(n).st_rdev == null.st_rdev for n in range(3)]]
os.write(writes, repr((*told, oct(os.umask(0)))).encode())
"""


def python(source: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(EXAMPLES)!r})\n{source}"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)


@pytest.mark.parametrize(("umask", "then"), [("", "0o77"), ("umask=0", "0o0")])
def test_it_belongs_to_no_terminal(umask: str, then: str, tmp_path: Path) -> None:
    done = python(SERVES.format(umask=umask), tmp_path)
    assert (done.stdout, done.stderr) == (f"{(True, '/', [True] * 3, then)!r}\n", "")


def test_where_it_was_started_one_has_the_status_of_what_failed(tmp_path: Path) -> None:
    done = python("import daemon\ndaemon.daemonize()\nprint('not here')\nsys.exit(7)", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (7, "not here\n", "")


def test_where_it_was_started_one_goes_once_it_serves(tmp_path: Path) -> None:
    done = python("import daemon\ndaemon.daemonize()()\nsys.exit(7)", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
