"""The tasks of a loop as a table of text: state, what each waits for, where it was spawned.

Rules: it may be made at any time, and never raises, whatever the `repr` of an object does. What does not belong here:
the tasks themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from threading import local
from typing import Any

from dangagreen import checks
from dangagreen.loop.loop import Loop, loop_or_current

_HEADINGS = ("task", "state", "waits for", "spawned at")


class _Telling(local):
    """What this thread is telling just now."""

    name_of: Callable[[Any], str | None] | None = None  # by which name a task is told apart there


_telling = _Telling()


@contextmanager
def telling_apart(name_of: Callable[[Any], str | None]) -> Iterator[None]:
    """A block in which the words about other tasks, such as whom one joins, call these by what tells them apart."""
    before, _telling.name_of = _telling.name_of, name_of
    try:
        yield
    finally:
        _telling.name_of = before


def called(task: Any) -> str:
    """What a task is called in words about others: its name, or in a table that which tells it apart."""
    name_of = _telling.name_of
    name: str = task.name
    return name if name_of is None else name_of(task) or name


def task_table(loop: Loop | None = None, most: int | None = None) -> str:
    """The tasks of a loop, by default this thread's, one a line: name, state, what it waits for, where it was spawned.

    Those of one name are told apart: "name#2". States: not started, ready, running, parked. Returns "" if there are
    none; of more than `most` tasks only the number of the others. May be called at any time, in a signal handler or
    another thread too.
    """
    most = None if most is None else checks.count("most", most)
    loop = loop_or_current(loop)
    return loop.green.table(most) if loop.green is not None else ""


def told_apart(tasks: Iterable[Any], unique: Callable[[Any], str | None]) -> dict[Any, str]:
    """Tasks, each with its name; where several have the same one, with that of `unique`, or its number among them."""
    of_name: dict[str, list[Any]] = {}
    for task in tasks:
        of_name.setdefault(described(task, "name"), []).append(task)
    return {
        task: name if len(same) == 1 else unique(task) or f"{name}#{number}"
        for name, same in of_name.items()
        for number, task in enumerate(same, 1)
    }


def table(tasks: Iterable[Any], running: object, names: Mapping[Any, str]) -> str:
    """A table of these tasks, one of which may be `running`, with headings; "" if there are none."""
    with telling_apart(names.get):
        rows = [_row(task, running, names.get(task) or described(task, "name")) for task in tasks]
    if not rows:
        return ""
    rows.insert(0, _HEADINGS)
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _row(task: Any, running: object, name: str) -> tuple[str, ...]:
    if task.wait is not None:
        state = "parked"
    elif task is running:
        state = "running"
    else:
        state = "not started" if task.worker is None else "ready"
    return name, state, described(task, "waits_for"), described(task, "spawned_at")


def described(task: Any, attribute: str) -> str:
    """An attribute of the task as text in one line; "-" if it is empty."""
    try:
        words = getattr(task, attribute, None)
        return " ".join(words.split()) if words else "-"
    except Exception as error:
        return f"({type(error).__name__} in its description)"
