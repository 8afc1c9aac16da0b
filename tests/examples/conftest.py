"""The examples, run as a user runs them: as programs on a port of their own, ended by Ctrl-C, without a complaint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lock_clients import in_memory
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


@pytest.fixture
def memory() -> Iterator[Any]:
    """ddlockd on a virtual clock, without a listener: the loop."""
    with in_memory() as loop:
        yield loop


@pytest.fixture
def ddlockd(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """`ddlockd(*options, port=0, freed=0)` starts ddlockd; `freed`: it says, on so many lines, what it has freed."""
    programs: list[Program] = []

    def start(*options: str, port: int = 0, freed: int = 0) -> Program:
        arguments = (f"--port={port}", "--bind=127.0.0.1", *options)
        program = Program("ddlockd", arguments, 1, tmp_path / f"stderr{len(programs)}", before=freed)
        programs.append(program)
        return program

    try:
        yield start
        for program in programs:
            if program.process.returncode is None:
                program.end()
    finally:
        for program in programs:
            program.process.kill()
            program.process.communicate()
