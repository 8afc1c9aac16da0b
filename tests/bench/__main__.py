"""Run the benchmarks: `python -m tests.bench` in a checkout.

Without options, everything: 5 rounds of each workload with all contestants, interleaved. `--docs` also writes what
docs/benchmarks.md shows; with `--workloads` it measures those, and keeps what it shows of the others. Linux only; the
loads and the C loop are compiled with cc.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from tests.bench import chart, growth, report
from tests.bench.bars import of_compiled
from tests.bench.checking import check
from tests.bench.contestants import BY_KEY as CONTESTANTS
from tests.bench.contestants import Contestant
from tests.bench.results import Results, load, machine
from tests.bench.running import ROOT, Bench, Failed, applies, measure, prepared
from tests.bench.workloads import BY_KEY as WORKLOADS
from tests.bench.workloads import Workload

PAGE = ROOT / "docs" / "benchmarks.md"
KEPT = ROOT / "docs" / "benchmarks"
QUICK, DOCS = 0.1, 0.4  # scales


def chosen(words: str | None, known: dict[str, object], what: str) -> list[str]:
    """The keys that an option names, in the suite's order; all without it."""
    wanted = words.split(",") if words else list(known)
    if unknown := [word for word in wanted if word not in known]:
        sys.exit(f"no such {what}: {', '.join(unknown)}; there are {', '.join(known)}")
    return [key for key in known if key in wanted]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("-w", "--workloads", help=f"of {','.join(WORKLOADS)}")
    parser.add_argument("-c", "--contestants", help=f"of {','.join(CONTESTANTS)}")
    parser.add_argument("-r", "--rounds", type=int, help="default 5, with --quick 1")
    parser.add_argument(
        "-s", "--scale", type=float, help=f"the amount of work; default 1, with --quick {QUICK}, with --docs {DOCS}"
    )
    parser.add_argument("-q", "--quick", action="store_true", help="one round of little work: does everything run?")
    parser.add_argument("--server-cpu", type=int, help="the processor for servers (default: the first)")
    parser.add_argument("--load-cpu", type=int, help="the processor for loads (default: the last)")
    parser.add_argument("--bars", action="store_true", help="the bars, met or missed")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements")
    parser.add_argument("--chart", type=Path, metavar="FILE.svg", help="write a chart")
    parser.add_argument("--docs", action="store_true", help="write docs/benchmarks/ and the tables of the page")
    parser.add_argument("--growth", action="store_true", help="only this: does any work grow faster than its amount?")
    parser.add_argument("--from", dest="source", type=Path, metavar="FILE", help="show an earlier run's --json")
    given = parser.parse_args()
    given.rounds = given.rounds or (1 if given.quick else 5)
    given.scale = given.scale or (QUICK if given.quick else DOCS if given.docs else 1.0)
    if given.docs:
        given.bars = True
        given.json = given.json or KEPT / "results.json"
        given.markdown = given.markdown or KEPT / "results.md"
        given.chart = given.chart or KEPT / "chart.svg"
    return given


def measured(bench: Bench, contestant: Contestant, workload: Workload, scale: float, results: Results) -> None:
    """Check, measure once, and keep the figures, or the reason why there are none."""
    try:
        if workload.mode:
            check(bench, contestant, workload.mode)
        results.add(workload.key, contestant.key, measure(bench, contestant, workload, scale))
    except Failed as error:
        results.excuse(workload.key, contestant.key, f"failed: {error}")


def progress(words: str) -> None:
    """What is being measured now, on a line of its own that is written over."""
    if sys.stderr.isatty():
        print(f"\r{words}\033[K", end="", file=sys.stderr, flush=True)


def rounds(bench: Bench, workload: Workload, keys: list[str], given: argparse.Namespace, results: Results) -> None:
    """All rounds of one workload, the contestants interleaved, every other round in the opposite order."""
    field = [CONTESTANTS[key] for key in keys if applies(CONTESTANTS[key], workload)]
    began = time.monotonic()
    for contestant in field:
        if reason := contestant.missing():
            results.excuse(workload.key, contestant.key, f"missing: {reason}")
    for number in range(given.rounds):
        for contestant in field if number % 2 == 0 else reversed(field):
            if not results.is_out(workload.key, contestant.key):
                progress(f"{workload.title}: round {number + 1}, {contestant.label}")
                measured(bench, contestant, workload, given.scale, results)
    progress("")
    results.runs[workload.key] = {
        "rounds": given.rounds,
        "scale": given.scale,
        "when": time.strftime("%Y-%m-%d"),
        "seconds": round(time.monotonic() - began),
    }


def kept(given: argparse.Namespace, names: list[str], about: dict[str, Any]) -> Results:
    """What the page shows of workloads that were not chosen, if some were; otherwise nothing."""
    if not (given.docs and given.workloads and given.json.exists()):
        return Results()
    results = load(given.json)
    if results.build() != about["machine"]["dangagreen"]:
        sys.exit(f"the page has figures of the {results.build()} build: --docs without --workloads makes them anew")
    for name in names:
        results.forget(name)
    return results


def run(given: argparse.Namespace) -> Results:
    """Measure, and show each workload's table as soon as it is done."""
    keys = chosen(given.contestants, dict(CONTESTANTS), "contestant")
    names = chosen(given.workloads, dict(WORKLOADS), "workload")
    present = [CONTESTANTS[key] for key in keys if not CONTESTANTS[key].missing()]
    about = {"machine": machine(), "versions": sorted({contestant.version() for contestant in present})}
    results = kept(given, names, about)
    results.about = about
    print(report.banner(results), flush=True)
    with prepared(given.server_cpu, given.load_cpu) as bench:
        for name in names:
            rounds(bench, WORKLOADS[name], keys, given, results)
            print(report.terminal(results, WORKLOADS[name]), flush=True)
            if given.json:
                results.save(given.json)  # a run that is interrupted is not lost
    return results


def write(given: argparse.Namespace, results: Results) -> None:
    """The files that were asked for."""
    if given.json:
        results.save(given.json)
    if given.markdown:
        given.markdown.parent.mkdir(parents=True, exist_ok=True)
        given.markdown.write_text(f"# Results\n\n{report.markdown(results)}")
    if given.chart:
        given.chart.parent.mkdir(parents=True, exist_ok=True)
        given.chart.write_text(chart.draw(results))
    if given.docs:
        report.insert(PAGE, "tables", report.markdown(results))
        if results.build() == "compiled":
            report.insert(PAGE, "compiled", report.markdown_bars(results, of_compiled(results)))


def main() -> None:
    if not sys.platform.startswith("linux"):
        sys.exit("the benchmarks need Linux: epoll, and the processor clocks of other processes")
    given = options()
    if given.growth:
        print(growth.table())
        return
    if given.source:
        results = load(given.source)
        for workload in results.workloads():
            print(report.terminal(results, workload))
    else:
        results = run(given)
    if given.bars:
        print(report.terminal_bars(results))
    write(given, results)


if __name__ == "__main__":
    main()
