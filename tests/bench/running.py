"""Processes: compile the C programs, start a server on one processor and its load on another, read the clocks.

Rules: what is measured is the processor time of the server's process, user and system, as the kernel accounts for it
in nanoseconds; nothing but loopback; every wait is bounded; only processes that were started here are ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.contestants import HERE, Contestant
from tests.bench.protocol import many_files
from tests.bench.workloads import Workload

ROOT = HERE.parent.parent
START_SECONDS = 30
LOAD_SECONDS = 320
PROGRAMS = ("server", "talk", "churn", "bulk", "broadcast", "locks")


class Failed(Exception):
    """A measurement that could not be made, and why."""


@dataclass
class Bench:
    """Where the C programs are, and on which processors servers and loads run."""

    built: Path
    server_cpu: int | None = None
    load_cpu: int | None = None
    checked: set[tuple[str, str]] = field(default_factory=set)

    def popen(self, command: list[str], cpu: int | None, **options: Any) -> subprocess.Popen[str]:
        """Start a process on a processor, with its output piped."""

        def pin() -> None:
            if cpu is not None:
                os.sched_setaffinity(0, {cpu})

        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, preexec_fn=pin, **options
        )


@contextlib.contextmanager
def prepared(server_cpu: int | None, load_cpu: int | None) -> Iterator[Bench]:
    """Compile, and pin: by default the server to the first processor that we may use, the load to the last."""
    if not shutil.which("cc"):
        sys.exit("the suite needs a C compiler, cc, for its loads")
    many_files()
    processors = sorted(os.sched_getaffinity(0))
    if server_cpu is None and load_cpu is None and len(processors) > 1:
        server_cpu, load_cpu = processors[0], processors[-1]
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        for program in PROGRAMS:
            source, target = HERE / "c" / f"{program}.c", Path(directory) / program
            subprocess.run(["cc", "-O2", "-Wall", "-o", str(target), str(source)], check=True, timeout=120)
        yield Bench(Path(directory), server_cpu, load_cpu)


def processor_time(pid: int) -> float:
    """Seconds of user and system time of a running process, all its threads (the clock of clock_getcpuclockid)."""
    return time.clock_gettime((~pid) << 3 | 2)


def resident(pid: int) -> int:
    """Bytes of memory that are the process's own."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise Failed("no figure for memory")


def read_line(process: subprocess.Popen[str], seconds: float, what: str) -> str:
    """A line of its output. Raises Failed, with what it had to complain of, if there is none in time."""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)  # type: ignore[arg-type]
        line = process.stdout.readline() if selector.select(seconds) else ""  # type: ignore[union-attr]
    if line:
        return line.strip()
    process.kill()
    words = (process.communicate(timeout=10)[1] or "").strip().split("\n")
    raise Failed(f"{what}: {words[-1] or 'nothing was heard of it'}")


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """End the process with the block."""
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


@contextlib.contextmanager
def serving(bench: Bench, contestant: Contestant, mode: str) -> Iterator[tuple[int, int]]:
    """Its server, running: (pid, port)."""
    command = contestant.server_command(mode, bench.built)
    assert command is not None
    with ended(bench.popen(command, bench.server_cpu)) as server:
        yield server.pid, int(re.findall(r"\d+", read_line(server, START_SECONDS, "the server"))[-1])


def measure(bench: Bench, contestant: Contestant, workload: Workload, scale: float) -> dict[str, float]:
    """One measurement: {"cost": per unit, "per_second", "p50", "p90", "p99", "max"}, as far as there are such."""
    return KINDS[workload.kind](bench, contestant, workload, workload.work(scale))


def applies(contestant: Contestant, workload: Workload) -> bool:
    """Does the contestant have code for this workload?"""
    if workload.kind == "micro":
        return contestant.micro_command(workload.key, 1) is not None
    if workload.kind == "startup":
        return contestant.startup_command() is not None
    return contestant.server_command(workload.mode, Path()) is not None


def _under_load(bench: Bench, contestant: Contestant, workload: Workload, work: int) -> dict[str, float]:
    with serving(bench, contestant, workload.mode) as (pid, port), _load(bench, workload, port, work) as load:
        before = processor_time(pid)
        figures = _go(load)
        cpu = processor_time(pid) - before
    return _figures(figures, cpu)


@contextlib.contextmanager
def _load(bench: Bench, workload: Workload, port: int, work: int) -> Iterator[subprocess.Popen[str]]:
    """The load, connected and warmed up."""
    assert workload.load is not None
    program, *arguments = workload.load(work, max(1, work // 10))
    command = [str(bench.built / program), str(port), *arguments]
    with ended(bench.popen(command, bench.load_cpu, stdin=subprocess.PIPE)) as load:
        if read_line(load, LOAD_SECONDS, "the load") != "ready":
            raise Failed("the load did not get ready")
        yield load


def _go(load: subprocess.Popen[str]) -> dict[str, float]:
    assert load.stdin is not None
    load.stdin.write("\n")
    load.stdin.flush()
    figures: dict[str, float] = json.loads(read_line(load, LOAD_SECONDS, "the load"))
    return figures


def _figures(figures: dict[str, float], cpu: float) -> dict[str, float]:
    units, seconds = figures.pop("units"), figures.pop("seconds")
    return {"cost": cpu / units * 1e6, "per_second": units / seconds, **figures}


def _memory(bench: Bench, contestant: Contestant, workload: Workload, work: int) -> dict[str, float]:
    """What `work` idle connections add to the server's memory, after a few have come and gone."""
    with serving(bench, contestant, workload.mode) as (pid, port):
        with _load(bench, workload, port, 100):
            pass
        time.sleep(0.3)
        before = resident(pid)
        with _load(bench, workload, port, work):
            time.sleep(0.3)
            return {"cost": (resident(pid) - before) / work}


def _micro(bench: Bench, contestant: Contestant, workload: Workload, work: int) -> dict[str, float]:
    command = contestant.micro_command(workload.key, work)
    assert command is not None
    with ended(bench.popen(command, bench.server_cpu)) as process:
        figures = json.loads(read_line(process, LOAD_SECONDS, "the process"))
    return _figures(figures, figures.pop("cpu"))


def _startup(bench: Bench, contestant: Contestant, _workload: Workload, work: int) -> dict[str, float]:
    """Processor time of `work` processes, one after the other, in ms each.

    One goes before, for the disk, and so that all modules are compiled, as those of an installed package are.
    """
    command = contestant.startup_command()
    assert command is not None
    compiled = {"PYTHONPYCACHEPREFIX": str(bench.built / "compiled"), "PYTHONDONTWRITEBYTECODE": ""}
    cpu = 0.0
    started = time.perf_counter()
    for turn in range(work + 1):
        if turn == 1:
            cpu, started = 0.0, time.perf_counter()
        process = bench.popen(command, bench.server_cpu, env={**os.environ, **compiled})
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        process.communicate(timeout=10)
        if process.returncode:
            raise Failed(f"exit status {process.returncode}")
        cpu += usage.ru_utime + usage.ru_stime
    return {"cost": cpu / work * 1e3, "per_second": work / (time.perf_counter() - started)}


KINDS: dict[str, Callable[[Bench, Contestant, Workload, int], dict[str, float]]] = {
    "server": _under_load,
    "memory": _memory,
    "micro": _micro,
    "startup": _startup,
}
