"""The chart: one panel of horizontal bars for each workload, as an SVG of plain shapes.

Rules: shorter is better; a bar that is too long for its panel is cut, and says how long it is; no dependency.
"""

from __future__ import annotations

from html import escape

from tests.bench.results import LIMITS, OURS, Results
from tests.bench.workloads import Workload

WIDTH, LABEL, BAR, LINE, TITLE, GAP = 860, 230, 460, 18, 28, 22  # pixels
LONGEST = 8.0  # a bar of this many times the reference, or the median, fills the panel
COLOURS = {"ours": "#2e8b57", "limit": "#9a9a9a", "peer": "#6c8ebf"}
STYLE = "text{font:12px sans-serif;fill:#222}.t{font-weight:bold;font-size:14px}"


def draw(results: Results) -> str:
    """The whole picture."""
    parts, top = [], GAP
    for workload in results.workloads():
        panel, height = _panel(results, workload, top)
        parts += panel
        top += height + GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top}" viewBox="0 0 {WIDTH} {top}">'
    background = f'<rect width="{WIDTH}" height="{top}" fill="#fff"/>'
    return "\n".join([head, f"<style>{STYLE}</style>", background, *parts, "</svg>", ""])


def _panel(results: Results, workload: Workload, top: int) -> tuple[list[str], int]:
    contestants = results.ranked(workload)
    costs = {c.key: results.median(workload.key, c.key) or 0.0 for c in contestants}
    ordered = sorted(contestants, key=lambda contestant: costs[contestant.key])
    shortest = min(costs.values(), default=1.0) or 1.0
    base = costs.get(workload.reference) or shortest
    full = min(max(costs.values(), default=1.0), LONGEST * max(base, shortest)) or 1.0
    what = f"{workload.per} per {workload.unit}"
    parts = [f'<text class="t" x="10" y="{top + 14}">{escape(workload.title)}, {escape(what)}</text>']
    for i, contestant in enumerate(ordered):
        cost, y = costs[contestant.key], top + TITLE + i * LINE
        kind = "ours" if contestant.key in OURS else "limit" if contestant.key in LIMITS else "peer"
        length = max(1, round(BAR * min(cost, full) / full))
        words = f"{cost:,.0f}" if cost >= 100 else f"{cost:.2f}"
        if workload.reference in costs:
            words += f"  ({cost / base:.2f} x)"
        words += " ..." if cost > full else ""
        parts += [
            f'<text x="{LABEL - 8}" y="{y + 12}" text-anchor="end">{escape(contestant.name(workload.kind))}</text>',
            f'<rect x="{LABEL}" y="{y + 2}" width="{length}" height="{LINE - 5}" fill="{COLOURS[kind]}"/>',
            f'<text x="{LABEL + length + 6}" y="{y + 12}">{words}</text>',
        ]
    return parts, TITLE + len(ordered) * LINE
