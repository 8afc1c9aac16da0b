"""The tasks of a loop as a table of text: state, what each waits for, where it was spawned.

Rules: it may be made at any time, and never raises, whatever the `repr` of an object does. What does not belong here:
the tasks themselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dangagreen.loop.loop import Loop, loop_or_current

_HEADINGS = ("task", "state", "waits for", "spawned at")


def task_table(loop: Loop | None = None, most: int | None = None) -> str:
    """The tasks of a loop, by default this thread's, one a line: name, state, what it waits for, where it was spawned.

    States: not started, ready, running, parked. Returns "" if there are none; of more than `most` tasks only the number
    of the others. May be called at any time, in a signal handler or another thread too.
    """
    loop = loop_or_current(loop)
    return loop.green.table(most) if loop.green is not None else ""


def table(tasks: Iterable[Any], running: object) -> str:
    """A table of these tasks, one of which may be `running`, with headings; "" if there are none."""
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
    """An attribute of the task as text in one line; "-" if it is empty."""
    try:
        words = getattr(task, attribute, None)
        return " ".join(words.split()) if words else "-"
    except Exception as error:
        return f"({type(error).__name__} in its description)"
