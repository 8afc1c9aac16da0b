"""examples/faulty.py: each of its four faults is found as the guide's page on seeing inside says."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from programs import EXAMPLES, Program, answer

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc")]
SECONDS = 30.0
SLOW = re.compile(r"^event_read of Report, .* held up the loop for (?:0\.[3-9]|[1-9])\S* s: .*faulty\.py:\d+$", re.M)
LEAK = re.compile(r"^fd \d+ Socket .*nobody reads it, opened at \S+faulty.py:75", re.M)
LINT = re.compile(r"^lint deadlock: .* has acquired at \S+alone\.py:(\d+): \S+alone\.py:(\d+)$", re.M)
FULL = re.compile(r"^fd \d+ Feed .*: callbacks, open, watching RW, queued \d+", re.M)


def dumped(program: Program, pid: int, mark: str) -> str:
    """What it prints upon a dump, up to a line that begins so."""
    before = len(program.errors.read_text())
    subprocess.run([sys.executable, "-m", "dangagreen", "dump", str(pid)], check=True, capture_output=True, timeout=60)
    give_up = time.monotonic() + SECONDS
    while True:
        text = program.errors.read_text()[before:]
        if re.search(rf"^{mark}", text, re.MULTILINE) and text.endswith("\n"):
            return text
        assert time.monotonic() < give_up, text
        time.sleep(0.05)


def test_it_is_one_file_and_lints_find_the_transfer(tmp_path: Path) -> None:
    alone = tmp_path / "alone.py"
    alone.write_text((EXAMPLES / "faulty.py").read_text())
    with (tmp_path / "errors").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, str(alone), "--lint", "--port", "0"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=errors
        )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"faulty has the process id ")
        give_up = time.monotonic() + SECONDS
        while not (found := LINT.search(text := (tmp_path / "errors").read_text())):
            assert time.monotonic() < give_up, text
            time.sleep(0.05)
        lines = alone.read_text().splitlines()
        assert [lines[int(number) - 1].strip() for number in found.groups()] == ["with source:", "with target:"]
    finally:
        process.kill()
        process.communicate()


def test_the_four_faults(tmp_path: Path) -> None:
    program = Program("faulty", ("--port", "0"), 1, tmp_path / "errors", before=1)
    try:
        pid = int(program.printed[0].split()[-1])
        assert answer(program.ports[0], b"hello\n") == b"HELLO\n"
        give_up = time.monotonic() + SECONDS
        while True:  # until the slow reader's queue has outgrown the kernel's buffers, and some look-ups are forgotten
            text = dumped(program, pid, "fd ")
            leaks = LEAK.findall(text)
            if FULL.search(text) and len(leaks) > 3 and SLOW.search(program.errors.read_text()):
                break
            assert time.monotonic() < give_up, text
        assert re.search(r"^DEADLOCK: (transfer#\d+) waits for transfer#\d+ waits for \1$", text, re.M)
        while len({*leaks} & {*LEAK.findall(dumped(program, pid, "fd "))}) < 4:  # the same ones, at a later time
            assert time.monotonic() < give_up
    finally:
        program.process.kill()
        program.process.communicate()
