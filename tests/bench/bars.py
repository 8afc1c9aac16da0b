"""The bars that dangagreen is held to, and whether a run meets them.

Rules: a bar says cost of one contestant <= factor x cost of another in the same run. Peers of the same idiom (a call
for each line) and of the faster one (a buffer of one's own) are both shown where they differ: the bars were set for
the first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.bench.contestants import BY_KEY as CONTESTANTS
from tests.bench.results import Results
from tests.bench.workloads import BY_KEY as WORKLOADS

BEST = "best peer"
BEST_BUT_PROTOCOL = "best peer but uvloop Protocol"
BYTES = "bytes"  # the factor is a number of bytes


@dataclass(frozen=True)
class Bar:
    workload: str
    contestant: str
    factor: float
    other: str
    remark: str = ""


def _bars(workload: str, contestant: str, *pairs: tuple[float, str]) -> list[Bar]:
    return [Bar(workload, contestant, factor, other) for factor, other in pairs]


def _streams(workload: str, uvloop: float, gevent: float) -> list[Bar]:
    """Sequential style against streams and gevent, in both idioms; and in theirs."""
    return [
        Bar(workload, "sequential", uvloop, "uvloop-readline"),
        Bar(workload, "sequential", gevent, "gevent-readline"),
        Bar(workload, "sequential", uvloop, "uvloop-streams", "faster idiom"),
        Bar(workload, "sequential", gevent, "gevent", "faster idiom"),
        Bar(workload, "split", uvloop, "uvloop-streams", "same idiom"),
        Bar(workload, "split", gevent, "gevent", "same idiom"),
    ]


BARS = [
    *_bars("request", "callback", (1.00, "uvloop"), (1.20, "c")),
    *_bars("request", "sequential", (1.20, "uvloop")),
    *_streams("request", 0.70, 0.50),
    *_bars("pipelined", "callback", (1.10, "uvloop")),
    *_bars("pipelined", "iteration", (2.0, "uvloop")),
    *_bars("pipelined", "sequential", (2.0, "uvloop")),
    *_streams("pipelined", 0.20, 0.15),
    *_bars("request", "timeouts", (1.15, "sequential")),
    *_bars("pipelined", "timeouts", (1.15, "sequential")),
    *_bars("churn", "callback", (1.00, "uvloop")),
    *_bars("churn", "sequential", (1.15, "uvloop"), (0.20, "gevent")),
    *_bars("receive", "callback", (1.05, BEST)),
    *_bars("receive", "sequential", (1.10, BEST)),
    *_bars("send", "callback", (1.05, BEST)),
    *_bars("send", "sequential", (1.10, BEST)),
    *_bars("active", "callback", (1.00, "uvloop")),
    *_streams("active", 0.65, 0.60),
    *_bars("memory", "callback", (600, BYTES)),
    *_bars("memory", "requests", (800, BYTES)),
    *_bars("memory", "sequential", (1.0, "gevent")),
    *_bars("locks50", "ddlockd", (1.00, "ddlockd-perl")),
    *_bars("spawn", "sequential", (0.20, "gevent"), (0.60, "asyncio")),
    *_bars("spawn_many", "sequential", (0.20, "gevent"), (0.60, "asyncio")),
    *_bars("spawn", "group", (0.20, "gevent"), (0.60, "asyncio")),
    *_bars("spawn_many", "group", (0.20, "gevent"), (0.60, "asyncio")),
    *_bars("timer_cancel", "sequential", (0.80, "asyncio")),
    *_bars("timer_fire", "sequential", (0.80, "asyncio")),
]

_EVERY_PEER, _LOCKS = ("http", "broadcast"), ("locks1", "locks50", "locks500")
# Of the compiled build, in whose runs those above are the bars of the pure one.
COMPILED = [
    *_bars("request", "callback", (0.97, "uvloop")),
    *_bars("request", "sequential", (1.12, "uvloop"), (0.65, "uvloop-readline"), (0.45, "gevent-readline")),
    *_bars("pipelined", "callback", (0.95, "uvloop")),
    *_bars("pipelined", "sequential", (1.6, "uvloop"), (0.10, "gevent-readline")),
    *_bars("pipelined", "iteration", (1.2, "uvloop")),
    *_bars("churn", "callback", (1.00, "uvloop")),
    *_bars("churn", "sequential", (1.25, "uvloop"), (0.25, "gevent")),
    *(Bar(way, style, 1.05, BEST) for way in ("receive", "send") for style in ("callback", "sequential")),
    *_bars("active", "callback", (0.90, "uvloop")),
    *_bars("active", "sequential", (1.15, "uvloop"), (0.50, "gevent-readline")),
    *(Bar(row, "callback", 1.00, BEST) for row in _EVERY_PEER),
    *(Bar(row, "sequential", 1.00, BEST_BUT_PROTOCOL) for row in _EVERY_PEER),
    *(Bar(row, "ddlockd", 1.00, "ddlockd-perl") for row in _LOCKS),
    *_bars("spawn", "sequential", (0.45, "asyncio"), (0.15, "gevent")),
    *_bars("spawn_many", "sequential", (0.70, "asyncio"), (0.15, "gevent")),
    *_bars("timer_cancel", "sequential", (0.35, "asyncio"), (1.00, "uvloop")),
    *_bars("timer_fire", "sequential", (0.35, "asyncio"), (1.00, "uvloop")),
    *_bars("request", "timeouts", (1.08, "sequential")),
    *_bars("pipelined", "timeouts", (1.35, "sequential")),
    *_bars("memory", "callback", (480, BYTES)),
    *_bars("memory", "requests", (480, BYTES)),
    *_bars("memory", "sequential", (0.70, "gevent")),
]


def of_compiled(results: Results) -> list[Bar]:
    """The bars of the compiled build, if a run has measured it."""
    return COMPILED if results.build() == "compiled" else []


def of_pure(results: Results) -> list[Bar]:
    """The bars of the pure build."""
    if results.build() != "compiled":
        return BARS
    return [replace(bar, contestant=_pure(bar.contestant), other=_pure(bar.other)) for bar in BARS]


def _pure(key: str) -> str:
    return f"pure-{key}" if f"pure-{key}" in CONTESTANTS else key


def _peer(results: Results, bar: Bar) -> str | None:
    """The contestant that a bar compares with."""
    if bar.other in (BEST, BEST_BUT_PROTOCOL):
        return results.best_peer(bar.workload, () if bar.other == BEST else ("uvloop",))
    return bar.other


def judged(results: Results, bars: list[Bar]) -> list[tuple[str, str, str, str, str]]:
    """(workload, contestant, bar, figure, verdict) of each of the bars that the run says anything about."""
    rows = []
    for bar in bars:
        if bar.workload not in results.rounds:
            continue
        kind = WORKLOADS[bar.workload].kind
        other = _peer(results, bar)
        if bar.other == BYTES:
            figure = results.median(bar.workload, bar.contestant)
            words, shown = f"<= {bar.factor:.0f} bytes", "?" if figure is None else f"{figure:.0f}"
        else:
            figure = None if other is None else results.ratio(bar.workload, bar.contestant, other)
            peer = CONTESTANTS[other].name(kind) if other else "?"
            words, shown = f"<= {bar.factor:.2f} x {peer}", "?" if figure is None else f"{figure:.2f}"
        verdict = "not measured" if figure is None else "met" if figure <= bar.factor else "missed"
        remark = bar.remark or (f"the {bar.other}" if bar.other in (BEST, BEST_BUT_PROTOCOL) else "")
        title, label = WORKLOADS[bar.workload].title, CONTESTANTS[bar.contestant].name(kind)
        rows.append((title, label, f"{words} ({remark})" if remark else words, shown, verdict))
    return rows
