"""What is everybody doing: the tasks of a loop as a table of text.

Rules: it may be asked for at any time, and never fails, whatever the `repr` of somebody's object does. What does not
belong here: what the tasks are, and who waits for whom.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dangagreen.loop.loop import Loop, loop_or_current

_HEADINGS = ("task", "state", "waits for", "spawned at")


def task_table(loop: Loop | None = None, most: int | None = None) -> str:
    """The tasks of a loop, by default this thread's, one a line: name, state, what it waits for, where it was spawned.

    The states: not started, ready, running, parked. "" if there are none. Beyond `most` only how many more there are.
    """
    loop = loop_or_current(loop)
    return loop.green.table(most) if loop.green is not None else ""


def table(tasks: Iterable[Any], running: object) -> str:
    """These tasks, one of which may be `running`, with headings; "" if there are none."""
    rows = [_row(task, running) for task in tasks]
    if not rows:
        return ""
    rows.insert(0, _HEADINGS)
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _row(task: Any, running: object) -> tuple[str, ...]:
    if task.wait is not None:
        state = "parked"
    elif task is running:
        state = "running"
    else:
        state = "not started" if task.worker is None else "ready"
    return described(task, "name"), state, described(task, "waits_for"), described(task, "spawned_at")


def described(task: Any, attribute: str) -> str:
    """In one line, "-" if there are none."""
    try:
        words = getattr(task, attribute, None)
        return " ".join(words.split()) if words else "-"
    except Exception as error:
        return f"({type(error).__name__} in its description)"
