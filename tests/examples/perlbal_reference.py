"""The page about the parameters of perlbal, made from its table; run as a program, it is written."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "examples" / "perlbal-parameters.md"

HEAD = """\
# Parameters of perlbal

`SET service.parameter = value`, or `SET parameter = value` after `CREATE` or `USE`, in a configuration file of
[perlbal](../../examples/perlbal/README.md) or on its management port. This page is made from the table in
[parameters.py](../../examples/perlbal/parameters.py), and a test compares them. What is marked **ours** is not in the
original; its default is what the original does, or what keeps a request from waiting without end.

Booleans are `on`, `yes`, `true`, `1` and their opposites. Sizes are bytes, or have a `k` or `m` at the end.
"""
COLUMNS = ("| parameter | value | default | |", "|---|---|---|---|")
TITLES = {
    "*": "Of every role",
    "reverse_proxy": "Of reverse_proxy",
    "web_server": "Of web_server",
    "selector": "Of selector",
    "pool": "Of pools",
}


def page() -> str:
    """The page, as the table says it."""
    from perlbal.parameters import POOL_TABLE, SERVICE_TABLE

    sections = [HEAD]
    for role, title in TITLES.items():
        rows = [row for row in (*SERVICE_TABLE.values(), *POOL_TABLE.values()) if row.role == role]
        lines = [_line(row) for row in rows]
        sections.append("\n".join([f"## {title}\n", *COLUMNS, *lines, ""]))
    return "\n".join(sections)


def _line(row: Any) -> str:
    default = "" if row.default is None else f"`{row.default}`" if row.default else "none"
    ours = "**ours**; " if row.ours else ""
    help_ = (ours + row.help).replace("|", "\\|")
    return f"| `{row.name}` | {row.kind or 'text'} | {default} | {help_} |"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "examples"))
    PAGE.write_text(page())
