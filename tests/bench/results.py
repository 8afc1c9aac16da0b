"""Figures: medians and spreads of rounds, ratios, and the file they are kept in.

Rules: every figure that is shown is the median over the rounds of one run; a contestant without figures has a reason.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Container, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import dangagreen
from tests.bench import contestants
from tests.bench.contestants import BY_KEY, Contestant
from tests.bench.workloads import WORKLOADS, Workload

OURS = tuple(contestant.key for contestant in (*contestants.OURS, *contestants.PURE))
LIMITS = ("c", "bare")  # what is no library


class Results:
    """Measurements by workload and contestant: lists of dicts, one for each round; and when and how they were made."""

    def __init__(self) -> None:
        self.about: dict[str, Any] = {}
        self.runs: dict[str, dict[str, Any]] = {}  # by workload: "rounds", "scale", "when", "seconds" that it took
        self.rounds: dict[str, dict[str, list[dict[str, float]]]] = {}
        self.reasons: dict[str, dict[str, str]] = {}

    def add(self, workload: str, contestant: str, figures: dict[str, float]) -> None:
        self.rounds.setdefault(workload, {}).setdefault(contestant, []).append(figures)

    def excuse(self, workload: str, contestant: str, reason: str) -> None:
        """Why there are no figures. What was measured before the failure does not count."""
        self.reasons.setdefault(workload, {})[contestant] = reason
        self.rounds.get(workload, {}).pop(contestant, None)

    def is_out(self, workload: str, contestant: str) -> bool:
        return contestant in self.reasons.get(workload, {})

    def median(self, workload: str, contestant: str, figure: str = "cost") -> float | None:
        rounds = self.rounds.get(workload, {}).get(contestant, [])
        values = [figures[figure] for figures in rounds if figure in figures]
        return median(values) if values else None

    def spread(self, workload: str, contestant: str) -> tuple[float, float]:
        """The smallest and the largest cost of all rounds."""
        costs = [figures["cost"] for figures in self.rounds[workload][contestant]]
        return min(costs), max(costs)

    def ratio(self, workload: str, contestant: str, to: str) -> float | None:
        cost, other = self.median(workload, contestant), self.median(workload, to)
        return None if cost is None or not other else cost / other

    def best_peer(self, workload: str, but: Container[str] = ()) -> str | None:
        """The contestant of least cost that is neither dangagreen nor a bare loop, nor one of `but`."""
        costs = [(self.median(workload, key), key) for key in self.rounds.get(workload, {}) if key not in but]
        peers = [(cost, key) for cost, key in costs if cost is not None and key not in OURS + LIMITS]
        return min(peers)[1] if peers else None

    def workloads(self) -> Iterator[Workload]:
        """Those that there is anything to say about."""
        return (w for w in WORKLOADS if w.key in self.rounds or w.key in self.reasons)

    def ranked(self, workload: Workload) -> list[Contestant]:
        """The contestants that have figures: the reference first, then by cost."""
        keys = [key for key, rounds in self.rounds.get(workload.key, {}).items() if rounds]
        keys.sort(key=lambda key: (key != workload.reference, self.median(workload.key, key) or 0.0))
        return [BY_KEY[key] for key in keys]

    def build(self) -> str:
        """Which build of dangagreen was measured, "compiled" or "pure"; the compiled one beside the pure one."""
        machine: dict[str, str] = self.about["machine"]
        return machine["dangagreen"]

    def forget(self, workload: str) -> None:
        """Drop what was measured of a workload, which is to be measured anew."""
        for kept in (self.rounds, self.reasons, self.runs):
            kept.pop(workload, None)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"about": self.about, "runs": self.runs, "rounds": self.rounds, "reasons": self.reasons}
        path.write_text(json.dumps(content, indent=1) + "\n")


def load(path: Path) -> Results:
    """What an earlier run has saved."""
    results, content = Results(), json.loads(path.read_text())
    results.about, results.runs = content["about"], content["runs"]
    results.rounds, results.reasons = content["rounds"], content["reasons"]
    return results


def machine() -> dict[str, str]:
    """This machine in words."""
    cpu = memory = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal"):
            memory = f"{int(line.split()[1]) / 1024**2:.0f} GiB"
    virtual = " (virtual)" if "hypervisor" in Path("/proc/cpuinfo").read_text() else ""
    return {
        "processor": f"{cpu}{virtual}, {os.cpu_count()} processors",
        "memory": memory,
        "system": f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "dangagreen": "compiled" if dangagreen.compiled else "pure",
    }
