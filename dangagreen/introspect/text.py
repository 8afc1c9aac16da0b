"""A snapshot as text for a terminal, and as JSON.

Rules: what is long is cut to the first so many, and says how many there are; a line stands for one thing. What does not
belong here: where the values come from.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any, TextIO

from dangagreen.introspect.collect import snapshot
from dangagreen.introspect.data import AsyncioTaskInfo, LoopInfo, Snapshot, SocketInfo, TaskInfo
from dangagreen.loop.loop import Loop

MOST = 100  # sockets, tasks and timers that are shown


def dump(file: TextIO | None = None, *, loop: Loop | None = None, most: int | None = MOST) -> None:
    """Print what a loop, by default this thread's, is doing, to `file` (by default stderr).

    At most `most` sockets, tasks and timers of each (None: all of them). Raises like `snapshot`.
    """
    print(as_text(snapshot(loop, most)), file=sys.stderr if file is None else file, flush=True)


def to_json(loop: Loop | None = None, *, most: int | None = None) -> str:
    """`snapshot(loop, most)` as JSON: an object with the fields of `Snapshot`."""
    return json.dumps(asdict(snapshot(loop, most)))


def as_text(seen: Snapshot) -> str:
    """A snapshot as lines of text."""
    return "\n".join(_lines(seen))


def _lines(seen: Snapshot) -> Iterator[str]:
    yield from _loop(seen.loop)
    if seen.threads:
        yield f"  other threads: {', '.join(seen.threads)}"
    for listener in seen.listeners:
        limit = "" if listener.limit is None else f" of {listener.limit}"
        where = ", ".join(listener.addresses)
        yield f"server on {where}: {listener.state}, {listener.current}{limit} open, {listener.accepted} accepted"
    for group in seen.groups:
        late = f", {group.deferred} of them not started" if group.deferred else ""
        cancelled = ", cancelled" if group.cancelled else ""
        yield f"group {group.name} of {group.owner}: {len(group.tasks)} tasks{late}{cancelled}"
    for task in seen.tasks:
        yield from _task(task)
    if seen.loop.tasks > len(seen.tasks):
        yield f"... and {seen.loop.tasks - len(seen.tasks)} more tasks"
    for of_asyncio in seen.asyncio_tasks:
        yield from _asyncio_task(of_asyncio)
    if seen.loop.asyncio_tasks > len(seen.asyncio_tasks):
        yield f"... and {seen.loop.asyncio_tasks - len(seen.asyncio_tasks)} more tasks of asyncio"
    yield from map(_deadlock, deadlocks([*seen.tasks, *seen.asyncio_tasks]))
    yield from map(_socket, seen.sockets)
    shown = len(seen.sockets) + len(seen.listeners)
    if seen.loop.descriptors > shown:
        yield f"... and {seen.loop.descriptors - shown} more descriptors"
    for timer in seen.timers:
        yield f"timer in {_seconds(timer.due)}: {timer.callback} ({timer.place})"
    if seen.loop.timers > len(seen.timers):
        yield f"... and {seen.loop.timers - len(seen.timers)} more timers"
    for ended in seen.ended:
        lived = "" if ended.lived is None else f" after {_seconds(ended.lived)}"
        yield f"ended {_seconds(ended.seconds)} ago: {ended.name} {ended.outcome}{lived}, busy {_seconds(ended.busy)}"


def _loop(loop: LoopInfo) -> Iterator[str]:
    state = "running" if loop.running else "not running"
    yield f"loop of thread {loop.thread!r}: {state}, {loop.turns} turns, {loop.poller}, {loop.descriptors} descriptors"
    whole = loop.in_poll + loop.in_turns or 1.0
    yield (
        f"  of {_seconds(loop.seconds)}: {loop.in_poll / whole:.0%} waiting, {loop.in_turns / whole:.0%} at work,"
        f" {loop.in_tasks / whole:.0%} in tasks"
    )
    median, high, longest = map(_seconds, loop.lag)
    yield f"  a turn takes {median} (median), {high} (99 %), {longest} (longest)"
    if loop.slowest is not None:
        yield f"  slowest: {loop.slowest}"
    yield from (f"    now in {place}" for place in loop.stack)
    yield f"  waiting for their turn: {loop.ready} calls, {loop.runnable} tasks; {loop.timers} timers"


def _task(task: TaskInfo) -> Iterator[str]:
    words = [f"task {task.name}: {task.state}"]
    if task.waits_for is not None:
        words.append(f" in {task.waits_for}")
    details = [
        f"waiting {_seconds(task.waiting)}" if task.waiting is not None else None,
        f"busy {_seconds(task.busy)}",
        f"age {_seconds(task.age)}" if task.age is not None else None,
        f"deadline in {_seconds(task.deadline)}" if task.deadline is not None else None,
        f"group {task.group}" if task.group is not None else None,
        f"which {task.waits_on} can end" if task.waits_on is not None else None,
        f"spawned at {task.spawned_at}" if task.spawned_at is not None else None,
        f"by {task.spawned_by}" if task.spawned_by is not None else None,
    ]
    yield "".join(words) + "; " + _joined(details)
    yield from (f"    {place}" for place in task.stack)


def _asyncio_task(task: AsyncioTaskInfo) -> Iterator[str]:
    details = [
        f"which {task.waits_on} can end" if task.waits_on is not None else None,
        f"awaited by {', '.join(task.awaited_by)}" if task.awaited_by else None,
        f"coroutine {task.coroutine}",
    ]
    waits = f" in {task.waits_for}" if task.waits_for is not None else ""
    yield f"asyncio task {task.name}: {task.state}{waits}; {_joined(details)}"
    yield from (f"    {place}" for place in task.stack)


def deadlocks(tasks: Iterable[TaskInfo | AsyncioTaskInfo]) -> list[tuple[str, ...]]:
    """The names of tasks that wait for each other in a circle: each for the next one, and the last for the first."""
    waits_on = {task.name: task.waits_on for task in tasks}
    found: list[tuple[str, ...]] = []
    done: set[str] = set()
    for start in waits_on:
        path: list[str] = []
        name: str | None = start
        while name is not None and name not in done:
            done.add(name)
            path.append(name)
            name = waits_on.get(name)
        if name in path:
            found.append(tuple(path[path.index(name) :]))
    return found


def _deadlock(names: tuple[str, ...]) -> str:
    return f"DEADLOCK: {' waits for '.join((*names, names[0]))}"


def _socket(sock: SocketInfo) -> str:
    details = [
        f"{sock.style}, {sock.state}" if sock.style else sock.state,
        f"watching {sock.interest}" if sock.interest else None,
        f"read by {sock.reader}" if sock.reader is not None else None,
        "nobody reads it" if sock.style == "tasks" and not (sock.reader or "R" in sock.interest) else None,
        f"buffered {sock.buffered}" if sock.buffered else None,
        f"queued {sock.queued}" if sock.queued else None,
        f"age {_seconds(sock.age)}" if sock.age is not None else None,
    ]
    ends = f" {sock.local} <- {sock.peer}" if sock.peer is not None else ""
    return f"fd {sock.fd} {sock.kind}{ends}: {_joined(details)}"


def _joined(parts: Iterable[Any]) -> str:
    return ", ".join(part for part in parts if part is not None)


def _seconds(seconds: float) -> str:
    """A time in a unit that makes it readable."""
    if abs(seconds) < 1:
        return f"{seconds * 1000:.3g} ms"
    return f"{seconds:.1f} s"
