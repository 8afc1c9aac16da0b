"""The contestants: what each is called, what it needs, and the commands that start it.

Rules: a contestant that cannot run here is reported as missing with the reason, never left out in silence; a workload
that a contestant has no code for is shown as "-".
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path

import dangagreen

HERE = Path(__file__).parent
ALL_MODES = ("lines", "http", "receive", "send", "broadcast")
LINES = ("lines",)
MICRO = ("spawn", "spawn_many", "switch", "timer_cancel", "timer_fire")
TIMERS = ("timer_cancel", "timer_fire")
STYLES = ("sequential", "own split", "bare epoll")  # which play no part but in servers


@dataclass(frozen=True)
class Contestant:
    """`server` and `micro` are modules below this package (or Perl files), `arguments` what they get after the mode."""

    key: str
    label: str
    needs: str = ""  # the distribution on PyPI, "perl" or "cc"
    server: str = ""
    modes: tuple[str, ...] = ALL_MODES
    arguments: tuple[str, ...] = ()
    micro: str = ""
    micro_modes: tuple[str, ...] = MICRO
    imports: str = ""  # what the start-up workload imports
    slowness: tuple[tuple[str, int], ...] = ()  # (mode, do this many times less), where it would take minutes
    program: tuple[str, ...] = ()  # in place of `server`: what the interpreter is to run
    pure: bool = False  # the pure modules, where there are compiled ones as well

    def server_command(self, mode: str, built: Path) -> list[str] | None:
        """How to start its server, or None if it has none for this mode."""
        if mode not in self.modes or not (self.server or self.program):
            return None
        if self.program:
            return [*self._interpreter(), *self.program]
        if self.needs == "cc":
            return [str(built / self.server), mode]
        if self.needs == "perl":
            return ["perl", str(HERE / "servers" / self.server), mode]
        return [*self._interpreter(), "-m", f"tests.bench.servers.{self.server}", mode, *self.arguments]

    def micro_command(self, mode: str, count: int) -> list[str] | None:
        """How to measure a workload within one process."""
        if not self.micro or mode not in self.micro_modes:
            return None
        count = str(max(100, count // dict(self.slowness).get(mode, 1)))
        if self.needs == "perl":
            return ["perl", str(HERE / "micro" / self.micro), mode, count]
        return [*self._interpreter(), "-m", f"tests.bench.micro.{self.micro}", mode, count, *self.arguments[:1]]

    def startup_command(self) -> list[str] | None:
        if not self.imports:
            return None
        if self.needs == "perl":
            return ["perl", f"-M{self.imports}", "-e1"]
        return [*self._interpreter(), "-c", f"import {self.imports}"]

    def _interpreter(self) -> list[str]:
        """What runs a Python program; env(1) gives its process to it."""
        return ["env", "DANGAGREEN_PURE=1", sys.executable] if self.pure else [sys.executable]

    def name(self, kind: str) -> str:
        """Its label; where the style plays no part, that of the library."""
        if kind not in ("micro", "startup"):
            return self.label
        library, *styles = self.label.removesuffix(" Protocol").split(", ")
        return ", ".join([library, *(style for style in styles if style not in STYLES)])

    def missing(self) -> str | None:
        """Why it cannot run here, or None."""
        if self.pure and not dangagreen.compiled:
            return "what is installed is the pure build"
        return _missing(self.needs)

    def version(self) -> str:
        return _version(self.needs)


@cache
def _missing(needs: str) -> str | None:
    if needs == "cc":
        return None if shutil.which("cc") else "no C compiler (cc)"
    if needs == "ddlockd" and "DDLOCKD" not in os.environ:
        return "the environment variable DDLOCKD does not name its program"
    if needs in ("perl", "ddlockd"):
        if not shutil.which("perl"):
            return "no perl"
        probe = subprocess.run(["perl", "-MDanga::Socket", "-e1"], capture_output=True, timeout=20, check=False)
        return "no Danga::Socket for perl (Debian: libdanga-socket-perl)" if probe.returncode else None
    if needs and importlib.util.find_spec(needs) is None:
        return f"{needs} is not installed"
    return None


@cache
def _version(needs: str) -> str:
    if needs == "cc":
        return _first_line(["cc", "--version"])
    if needs == "ddlockd":
        return "ddlockd, the original"
    if needs == "perl":
        return _first_line(["perl", "-MDanga::Socket", "-e", 'print "Danga::Socket $Danga::Socket::VERSION, perl $^V"'])
    return f"{needs} {version(needs)}" if needs else f"Python {sys.version.split()[0]}"


def _first_line(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout.split("\n")[0]


OURS = (
    Contestant("callback", "dangagreen, callback", "greenlet", "callback"),
    Contestant(
        "sequential", "dangagreen, sequential", "greenlet", "sequential", arguments=("task",),
        micro="on_dangagreen", imports="dangagreen",
    ),
    Contestant("requests", "dangagreen, serve_requests", "greenlet", "sequential", ("lines", "http"), ("requests",)),
    Contestant("split", "dangagreen, sequential, own split", "greenlet", "sequential", LINES, ("split",)),
    Contestant("iteration", "dangagreen, sequential, iteration", "greenlet", "sequential", LINES, ("iteration",)),
    Contestant("timeouts", "dangagreen, sequential, timeouts", "greenlet", "sequential", LINES, ("timeouts",)),
    Contestant("idle", "dangagreen, sequential, idle_timeout", "greenlet", "sequential", LINES, ("idle",)),
    Contestant("group", "dangagreen, TaskGroup", "greenlet", arguments=("group",), micro="on_dangagreen",
               micro_modes=("spawn", "spawn_many")),
    Contestant("ddlockd", "ddlockd on dangagreen", "greenlet", modes=("locks",),
               program=("examples/ddlockd", "--port=0", "--bind=127.0.0.1")),
)  # fmt: skip
# The same by the pure modules, where the compiled build is installed.
PURE = tuple(replace(one, key=f"pure-{one.key}", label=f"{one.label}, pure", pure=True) for one in OURS)

CONTESTANTS = (
    Contestant("c", "C, epoll", "cc", "server"),
    Contestant("bare", "Python, bare epoll", "", "bare", imports="socket, select"),
    *OURS,
    *PURE,
    Contestant(
        "asyncio", "asyncio Protocol", "", "protocols", arguments=("asyncio",),
        micro="on_asyncio", imports="asyncio",
    ),
    Contestant(
        "uvloop", "uvloop Protocol", "uvloop", "protocols", arguments=("uvloop",),
        micro="on_asyncio", imports="uvloop",
    ),
    Contestant("asyncio-streams", "asyncio streams, own split", "", "streams", arguments=("asyncio",)),
    Contestant("asyncio-readline", "asyncio streams, readline", "", "streams", ("lines", "http"),
               ("asyncio", "readline")),
    Contestant("uvloop-streams", "uvloop streams, own split", "uvloop", "streams", arguments=("uvloop",)),
    Contestant("uvloop-readline", "uvloop streams, readline", "uvloop", "streams", ("lines", "http"),
               ("uvloop", "readline")),
    Contestant("gevent", "gevent, own split", "gevent", "on_gevent", micro="on_gevent", imports="gevent"),
    Contestant("gevent-readline", "gevent, makefile", "gevent", "on_gevent", LINES, ("readline",)),
    Contestant("eventlet", "eventlet, own split", "eventlet", "on_eventlet", micro="on_eventlet",
               imports="eventlet"),
    Contestant("trio", "trio, own split", "trio", "on_trio", micro="on_trio", imports="trio",
               slowness=(("timer_fire", 10),)),
    Contestant("curio", "curio, own split", "curio", "on_curio", micro="on_curio", imports="curio",
               slowness=(("timer_cancel", 10), ("timer_fire", 20))),
    Contestant("perl", "Danga::Socket (Perl)", "perl", "danga.pl", micro="danga.pl", micro_modes=TIMERS,
               imports="Danga::Socket", slowness=(("timer_cancel", 10_000), ("timer_fire", 10))),
    Contestant("ddlockd-perl", "ddlockd, the original (Perl)", "ddlockd", modes=("locks",),
               program=("-m", "tests.bench.servers.original")),
)  # fmt: skip

BY_KEY = {contestant.key: contestant for contestant in CONTESTANTS}
