"""A snapshot as text for a terminal, and as JSON.

Rules: what is long is cut to the first so many, and says how many there are; a line stands for one thing. What does not
belong here: where the values come from.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from typing import Any, TextIO

import dangagreen
from dangagreen import checks
from dangagreen.introspect.collect import OLDEST, snapshot
from dangagreen.introspect.data import (
    AsyncioTaskInfo,
    EndedInfo,
    GroupInfo,
    ListenerInfo,
    LoopInfo,
    Snapshot,
    SocketInfo,
    TaskInfo,
    ThreadInfo,
)
from dangagreen.loop.loop import Loop

MOST = 100  # sockets, tasks and timers that are shown
_LONG = 0.001  # seconds that a task was ready and did not run: with less they are not worth a word


def dump(file: TextIO | None = None, *, loop: Loop | None = None, most: int | None = MOST) -> None:
    """Print what a loop, by default this thread's, is doing, to `file` (by default stderr).

    At most `most` sockets, tasks and timers of each (None: all of them). Raises like `snapshot`.
    """
    if file is not None and not hasattr(file, "write"):
        raise TypeError(f"introspect.dump prints to a file that is open for text, not to {checks.shown(file)}")
    print(as_text(snapshot(loop, most), most), file=sys.stderr if file is None else file, flush=True)


def to_json(loop: Loop | None = None, *, most: int | None = None) -> str:
    """`snapshot(loop, most)` as JSON: an object with the fields of `Snapshot`."""
    return json.dumps(asdict(snapshot(loop, most)))


def as_text(seen: Snapshot, most: int | None = MOST) -> str:
    """A snapshot as lines of text; of the tree of groups `most` lines."""
    return "\n".join(_lines(seen, most))


def _lines(seen: Snapshot, most: int | None) -> Iterator[str]:
    yield from _loop(seen.loop)
    for thread in seen.threads:
        yield from _thread_lines(thread)
    yield from map(_listener, seen.listeners)
    yield from islice(_tree(seen.groups), most)
    for task in seen.tasks:
        yield from _task(task)
    if seen.loop.tasks > len(seen.tasks):
        yield f"... and {seen.loop.tasks - len(seen.tasks)} more tasks"
        yield from _oldest(seen.loop.tasks, seen.loop.most_tasks)
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
        yield from _oldest(seen.loop.timers, seen.loop.most_timers)
    yield from map(_ended, seen.ended)


def _oldest(number: int, kinds: Iterable[tuple[str, int]]) -> Iterator[str]:
    which = "all" if number <= OLDEST else f"the oldest {OLDEST}"
    return (f"    of {which}: {count} {what}" for what, count in kinds)


def _loop(loop: LoopInfo) -> Iterator[str]:
    state = "running" if loop.running else "not running"
    build = ", compiled" if dangagreen.compiled else ""
    yield (
        f"loop of thread {loop.thread!r}: {state}, {loop.turns} turns, {loop.poller}, {loop.descriptors} descriptors"
        f"{build}"
    )
    whole = loop.in_poll + loop.in_turns or 1.0
    yield (
        f"  of {_seconds(loop.seconds)}: {loop.in_poll / whole:.0%} waiting, {loop.in_turns / whole:.0%} at work,"
        f" {loop.in_tasks / whole:.0%} in tasks, {loop.in_callbacks / whole:.0%} in callbacks and the loop"
    )
    median, high, longest = map(_seconds, loop.lag)
    yield f"  a turn takes {median} (median), {high} (99 %), {longest} (longest)"
    if loop.longest > loop.lag[2]:
        yield f"  the longest one of all took {_seconds(loop.longest)}"
    if loop.longest_by is not None:
        yield f"  in the longest: {loop.longest_by}"
    if loop.slowest not in (None, loop.longest_by):
        yield f"  slowest: {loop.slowest}"
    if loop.bytes_in or loop.bytes_out:
        yield f"  all connections: {loop.bytes_in} bytes in, {loop.bytes_out} out"
    count, most = loop.open_files
    if count is not None:
        yield f"  the process has {count}{'' if most is None else f' of at most {most}'} descriptors open"
    if loop.not_freed:
        yield f"  closed connections that are not freed: {_joined(f'{many} {kind}' for kind, many in loop.not_freed)}"
    yield from (f"    now in {place}" for place in loop.stack)
    yield f"  waiting for their turn: {loop.ready} calls, {loop.runnable} tasks; {loop.timers} timers"


def _task(task: TaskInfo) -> Iterator[str]:
    words = [f"task {task.name}: {task.state}"]
    if task.waits_for is not None:
        words.append(f" in {task.waits_for}")
    details = [
        f"waiting {_seconds(task.waiting)}" if task.waiting is not None else None,
        f"busy {_seconds(task.busy)}",
        f"scheduled {_seconds(task.scheduled)}" if task.scheduled >= _LONG else None,
        f"age {_seconds(task.age)}" if task.age is not None else None,
        f"deadline in {_seconds(task.deadline)}" if task.deadline is not None else None,
        f"serves fd {task.serves}" if task.serves is not None else None,
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


def _thread_lines(thread: ThreadInfo) -> Iterator[str]:
    if thread.runs is None:
        yield f"thread {thread.name!r}"
    else:
        used, limit = thread.limit or (0, 0)
        details = [
            f"{thread.runs} for {thread.task or 'nobody'}",
            f"{_seconds(thread.seconds)}" if thread.seconds is not None else None,
            f"{used} of {limit} threads in use",
        ]
        yield f"thread {thread.name!r} runs " + _joined(details)
    yield from (f"    {place}" for place in thread.stack)


def _listener(listener: ListenerInfo) -> str:
    details = [
        f"{listener.state}, {listener.current}{'' if listener.limit is None else f' of {listener.limit}'} open",
        f"{listener.opening} opening" if listener.opening else None,
        f"{listener.waiting} wait to be accepted" if listener.waiting else None,
        f"{listener.accepted} accepted",
        f"{listener.refused} of them refused" if listener.refused else None,
    ]
    return f"server on {', '.join(listener.addresses)}: {_joined(details)}"


def _tree(groups: Iterable[GroupInfo]) -> Iterator[str]:
    """The groups with their tasks; a group of a task in another one stands beneath that task."""
    of_owner: dict[str | None, list[GroupInfo]] = {}
    for group in groups:
        of_owner.setdefault(group.owner, []).append(group)
    children = {task for group in groups for task in group.tasks}
    roots = [group for group in groups if group.owner not in children]
    pending: list[tuple[int, GroupInfo | str]] = [(0, group) for group in reversed(roots)]
    while pending:
        depth, one = pending.pop()
        if isinstance(one, str):
            yield f"{'  ' * depth}{one}"
            pending += [(depth + 1, group) for group in reversed(of_owner.get(one, []))]
            continue
        late = f", {one.deferred} of them not started" if one.deferred else ""
        cancelled = ", cancelled" if one.cancelled else ""
        yield f"{'  ' * depth}group {one.name} of {one.owner}: {len(one.tasks)} tasks{late}{cancelled}"
        pending += [(depth + 1, task) for task in reversed(one.tasks)]


def _ended(ended: EndedInfo) -> str:
    cancelled = ended.cancelled_by is not None or ended.cancelled_at is not None
    words = [
        f"{ended.name} {ended.outcome}{'' if ended.lived is None else f' after {_seconds(ended.lived)}'}",
        f"cancelled by {ended.cancelled_by or 'a callback'}" if cancelled else None,
        f"at {ended.cancelled_at}" if ended.cancelled_at is not None else None,
        f"busy {_seconds(ended.busy)}",
    ]
    return f"ended {_seconds(ended.seconds)} ago: {_joined(words)}"


def _socket(sock: SocketInfo) -> str:
    details = [
        f"{sock.style}, {sock.state}" if sock.style else sock.state,
        "its peer has ended" if sock.peer_ended else None,
        sock.tls,
        f"handler {sock.handler}" if sock.handler is not None else None,
        f"watching {sock.interest}" if sock.interest else None,
        f"read by {sock.reader}" if sock.reader is not None else None,
        f"written by {', '.join(sock.writers)}" if sock.writers else None,
        f"drained by {', '.join(sock.drainers)}" if sock.drainers else None,
        "nobody reads it" if _is_forgotten(sock) else None,
        f"buffered {sock.buffered}" if sock.buffered else None,
        f"queued {sock.queued}" if sock.queued else None,
        f"opened at {sock.opened_at}{_by(sock.opened_by)}" if sock.opened_at is not None else None,
        f"{sock.bytes_in} bytes in, {sock.bytes_out} out" if sock.bytes_in is not None else None,
        f"age {_seconds(sock.age)}" if sock.age is not None else None,
        f"idle {_seconds(sock.idle)}" if sock.idle is not None else None,
    ]
    ends = f" {sock.local} <- {sock.peer}" if sock.peer is not None else ""
    return f"fd {sock.fd} {sock.kind}{ends}: {_joined(details)}"


def _is_forgotten(sock: SocketInfo) -> bool:
    """Whether nothing is seen that would read it some time: a handler may, when it has done what it does now."""
    return sock.style == "tasks" and not (sock.reader or sock.handler or "R" in sock.interest)


def _by(task: str | None) -> str:
    return "" if task is None else f" by {task}"


def _joined(parts: Iterable[Any]) -> str:
    return ", ".join(part for part in parts if part is not None)


def _seconds(seconds: float) -> str:
    """A time in a unit that makes it readable."""
    if abs(seconds) < 1:
        return f"{seconds * 1000:.3g} ms"
    return f"{seconds:.1f} s"
