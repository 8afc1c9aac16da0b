"""asyncio's graph of who awaits whom, which Python has kept since 3.14, goes on through tasks of ours.

Rules: what a task of ours awaits is entered as awaited by the tasks of asyncio's that wait for our one: that await it,
or a task that joins it, or the one in whose group it is. Nothing of ours is in the graph, as tools that read it from
outside follow tasks of asyncio's alone. It is entered when the task begins to wait, and when a coroutine begins to
await the task; not when a task of ours joins one that waits already. What does not belong here: who is woken.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from dangagreen.green.groups import TaskGroup
from dangagreen.green.tasks import Task
from dangagreen.green.waiters import Waiter

KEPT = sys.version_info >= (3, 14)
entered: dict[Waiter, list[Any]] = {}  # a task of ours that awaits a future, to who was entered as awaiting that


def enter(future: asyncio.Future[Any], task: Waiter) -> None:
    """This task of ours begins to await the future."""
    if isinstance(task, Task) and (task.group is not None or task.joiners):
        for awaiter in _awaiters(task):
            add(future, task, awaiter)


def add(future: asyncio.Future[Any], task: Waiter, awaiter: asyncio.Task[Any] | None) -> None:
    """This task of asyncio's awaits the task of ours that awaits the future."""
    if sys.version_info >= (3, 14) and awaiter is not None:
        asyncio.future_add_to_awaited_by(future, awaiter)
        entered.setdefault(task, []).append(awaiter)


def leave(future: asyncio.Future[Any], task: Waiter) -> None:
    """This task of ours does not await the future any more."""
    if sys.version_info >= (3, 14):
        for awaiter in entered.pop(task, ()):
            asyncio.future_discard_from_awaited_by(future, awaiter)


def _awaiters(task: Waiter) -> set[asyncio.Task[Any]]:
    """Tasks of asyncio's that wait for this one, themselves or through others of ours."""
    found: set[asyncio.Task[Any]] = set()
    seen: set[Any] = set()
    left: list[Any] = [task]
    while left:
        one = left.pop()
        if isinstance(one, asyncio.Future):
            found.update(one._asyncio_awaited_by or ())  # type: ignore[attr-defined]
        elif isinstance(one, Task) and one not in seen:
            seen.add(one)
            left += one.joiners
            if isinstance(one.group, TaskGroup):
                left.append(one.group.scope._owner)
    return found
