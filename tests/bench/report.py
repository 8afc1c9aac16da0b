"""Tables: for the terminal and in Markdown, from the same rows.

Rules: one table for each workload; contestants by cost, the reference first; the missing and the failed are named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench.bars import Bar, judged, of_compiled, of_pure
from tests.bench.contestants import BY_KEY
from tests.bench.results import OURS, Results
from tests.bench.workloads import Workload

Row = Sequence[str]
BAR_HEADINGS = ("workload", "contestant", "bar", "figure", "")
MARKS = r"(?P<begin><!-- begin: {} -->\n).*?(?P<end><!-- end: {} -->)"


def headings(workload: Workload) -> Row:
    unit = f"{workload.per} of processor per {workload.unit}" if workload.per != "bytes" else "bytes each"
    first = ["contestant", unit]
    if workload.reference:
        first.append(f"x {BY_KEY[workload.reference].name(workload.kind)}")
    first.append("spread")
    if workload.kind in ("memory", "startup"):
        return first
    first.append(f"{workload.plural}/s")
    return [*first, "latency p50, us", "p90", "p99"] if workload.kind == "server" else first


def rows(results: Results, workload: Workload) -> list[Row]:
    found: list[Row] = []
    for contestant in results.ranked(workload):
        key = contestant.key
        cost = results.median(workload.key, key) or 0.0
        row = [contestant.name(workload.kind), _number(cost)]
        if workload.reference:
            ratio = results.ratio(workload.key, key, workload.reference)
            row.append("?" if ratio is None else f"{ratio:.2f}")
        low, high = results.spread(workload.key, key)
        row.append(f"{_number(low)} - {_number(high)}")
        for figure in ("per_second", "p50", "p90", "p99"):
            value = results.median(workload.key, key, figure)
            if value is not None and len(row) < len(headings(workload)):
                row.append(f"{value:,.0f}")
        found.append(row)
    return found


def absent(results: Results, workload: Workload) -> list[str]:
    """The contestants that have no figures, and why."""
    reasons = results.reasons.get(workload.key, {})
    return [f"{BY_KEY[key].name(workload.kind)}: {reason}" for key, reason in reasons.items()]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 100 else f"{value:.2f}"


# -- on the terminal


def plain(head: Row, body: list[Row]) -> str:
    """Columns of equal width, the first to the left, numbers to the right."""
    widths = [max(len(row[i]) if i < len(row) else 0 for row in [head, *body]) for i in range(len(head))]
    lines = []
    for row in [head, ["-" * width for width in widths], *body]:
        cells = [
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def terminal(results: Results, workload: Workload) -> str:
    body = plain(headings(workload), rows(results, workload))
    return "\n".join([f"\n{workload.title}", body, *(f"- {line}" for line in absent(results, workload))])


def terminal_bars(results: Results) -> str:
    return f"\nBars\n{plain(BAR_HEADINGS, judged(results, [*of_compiled(results), *of_pure(results)]))}"


# -- in Markdown


def _table(head: Row, body: list[Row]) -> list[str]:
    rule = ["---", *["--:"] * (len(head) - 1)]
    return ["| " + " | ".join(row) + " |" for row in (head, rule, *body)]


def markdown(results: Results) -> str:
    """All tables, with what each workload means, the bars of the pure build, and what was measured with what."""
    lines: list[str] = []
    for workload in results.workloads():
        ours = {BY_KEY[key].name(workload.kind) for key in OURS}
        body = [[f"**{row[0]}**" if row[0] in ours else row[0], *row[1:]] for row in rows(results, workload)]
        lines += [f"### {workload.title}", "", workload.meaning, "", *_table(headings(workload), body), ""]
        if reasons := absent(results, workload):
            lines += [*(f"- {line}" for line in reasons), ""]
    lines += ["### Bars", "", markdown_bars(results, of_pure(results))]
    about = results.about
    lines += ["### Made with", ""]
    lines += [f"- {name}: {words}" for name, words in about["machine"].items()]
    lines += [f"- {words}" for words in about["versions"]]
    lines += [f"- {words}" for words in _runs(results)]
    return "\n".join([*lines, ""])


def markdown_bars(results: Results, bars: list[Bar]) -> str:
    """Bars, as a table."""
    return "\n".join([*_table(BAR_HEADINGS, judged(results, bars)), ""])


def _runs(results: Results) -> Iterator[str]:
    """When and how workloads were measured, in a line for each way: tables may be of different runs."""
    ways: dict[str, list[str]] = {}
    for workload in results.workloads():
        if run := results.runs.get(workload.key):
            way = f"{run['rounds']} rounds, scale {run['scale']}, {run['when']}"
            ways.setdefault(way, []).append(workload.title)
    seconds = sum(run["seconds"] for run in results.runs.values())
    for way, titles in ways.items():
        yield way if len(ways) == 1 else f"{way}: {'; '.join(titles)}"
    if seconds:
        yield f"{seconds / 60:.0f} minutes for all of it"


def banner(results: Results) -> str:
    """What is measured, on what, in a line."""
    machine = results.about["machine"]
    return f"dangagreen {machine['dangagreen']}, {machine['python']}, {machine['system']}, {machine['processor']}"


def insert(page: Path, place: str, tables: str) -> None:
    """Put tables into a page, between the two marks of this name."""
    text, marks = page.read_text(), re.compile(MARKS.format(place, place), re.DOTALL)
    if not marks.search(text):
        raise ValueError(f"{page.name} has no place for {place}")
    page.write_text(marks.sub(lambda match: f"{match['begin']}\n{tables}\n{match['end']}", text))
