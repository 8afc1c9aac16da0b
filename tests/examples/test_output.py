"""examples/output.py, and that no example fails since nobody is left to read what it prints."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from programs import EXAMPLES, SECONDS, command, connected
from tests.programs import without_slowness

SERVERS = {
    "echo": ["--port=0"],
    "chat": ["--port=0"],
    "miniredis": ["--port=0", "--status-port=0"],
    "ddlockd": ["--port=0", "--bind=127.0.0.1"],
}


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_whose_reader_has_gone(name: str, tmp_path: Path) -> None:
    """As `server | head -1`: it goes on, and ends as it would have otherwise."""
    errors = tmp_path / "errors"
    with errors.open("wb") as stderr:
        process = subprocess.Popen(command(name, *SERVERS[name]), stdout=subprocess.PIPE, stderr=stderr, text=True)
    with process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().split(":")[-1])
            process.stdout.close()
            with connected(port) as (sock, _):
                sock.sendall(b"PING\r\n")
                assert sock.recv(1)  # it serves, and so hears signals
            process.send_signal(signal.SIGTERM)
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()
    assert without_slowness(errors.read_text()) == ""


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-", ">&- 2>&- <&-", "| true", "2>&1 | true"])
def test_a_server_that_nobody_has_ever_heard(name: str, redirection: str, tmp_path: Path) -> None:
    """It starts, and ends by a signal with status 0. What it prints goes to no other stream, nor into a connection."""
    status = tmp_path / "status"
    code = (
        "import os, runpy, signal, sys, threading\n"
        f"sys.path.insert(0, {str(EXAMPLES)!r})\n"
        "handled, handle = threading.Event(), signal.signal\n"
        "def handles(number, handler):\n"
        "    before = handle(number, handler)\n"
        "    if number == signal.SIGTERM:\n"
        "        handled.set()\n"
        "    return before\n"
        "def end():\n"
        "    handled.wait()\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "signal.signal = handles\n"
        "threading.Thread(target=end, daemon=True).start()\n"
        f"sys.argv = {command(name, *SERVERS[name])[3:]!r}\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    shell = f'{{ "{sys.executable}" -W error "{script}"; echo $? >"{status}"; }} {redirection}'
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, timeout=2 * SECONDS)
    assert (status.read_text(), done.stderr) == ("0\n", "")
    if not redirection.startswith("2>&-"):
        assert done.stdout == ""


@pytest.mark.parametrize("redirection", [">&-", "2>&-", "| true", "2>&1 | true"])
def test_the_crawler_whose_reader_has_gone(redirection: str, tmp_path: Path) -> None:
    status = tmp_path / "status"
    words = " ".join(command("crawler", "--seconds=0.5", "http://127.0.0.1:1/"))
    shell = f'{{ {words}; echo $? >"{status}"; }} {redirection}'
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, timeout=2 * SECONDS)
    assert status.read_text() == "0\n"
    assert "Traceback" not in done.stderr
    assert "\033" not in done.stdout


def test_a_full_disk_is_a_failure() -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full here")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command("crawler", "http://127.0.0.1:1/"), stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode != 0
    assert "No space left on device" in done.stderr
