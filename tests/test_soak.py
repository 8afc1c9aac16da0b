"""The soak runs at all, and finds nothing in a few seconds. `python -m tests.soak --seconds 600` looks longer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent


def soak(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.soak", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170)


def test_a_short_soak_with_a_fresh_seed_finds_nothing() -> None:
    done = soak("--seconds", "8")
    print(done.stdout, done.stderr)  # with the seed, that is
    assert done.returncode == 0
    assert [line.split(":")[0] for line in done.stdout.splitlines()[1:]] == ["programs", "ends", "faults", "parsers"]
    assert "0 wrong" in done.stdout


def test_it_ends_with_1_when_something_is_wrong(tmp_path: Path) -> None:
    """Here an in-memory recv loses what is beyond a thousand bytes."""
    (tmp_path / "sitecustomize.py").write_text(
        "from dangagreen.testing.wire_end import WireEnd\n"
        "recv = WireEnd.recv\n"
        "WireEnd.recv = lambda end, n, flags=0: recv(end, n, flags)[:1000]\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", "--seconds", "60", "--kinds", "programs", "--seed", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=170,
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": ""},
    )
    assert done.returncode == 1
    assert done.stdout.startswith("seed 1\n")
    assert "program " in done.stdout


def test_an_unknown_kind_is_refused() -> None:
    done = soak("--kinds", "programs,nonsense")
    assert done.returncode == 1
    assert "no such kind: nonsense" in done.stderr
