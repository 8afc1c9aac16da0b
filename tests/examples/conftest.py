"""The examples, run as a user runs them: as programs on a port of their own, ended by Ctrl-C, without a complaint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from programs import Program


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., list[int]]]:
    """`start(name, *options, lines=1)` runs an example, which prints a line for each port, and answers the ports."""
    programs: list[Program] = []

    def start(name: str, *options: str, lines: int = 1) -> list[int]:
        programs.append(Program(name, options, lines, tmp_path / f"stderr{len(programs)}"))
        return programs[-1].ports

    try:
        yield start
        for program in programs:
            program.end()
    finally:
        for program in programs:
            program.process.kill()
            program.process.communicate()
