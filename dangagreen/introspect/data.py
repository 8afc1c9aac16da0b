"""What a snapshot holds: plain values, frozen, without a reference to anything of the program's.

Rules: times are in seconds, sizes in bytes; None is what is not known, or does not apply; what has happened since
`dangagreen.introspect` was imported is known, what was before is not. What does not belong here: how it is found out.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LoopInfo:
    """A loop. Of its turns and their times only what came after the import of `dangagreen.introspect` counts."""

    thread: str  # the name of its thread
    running: bool
    turns: int
    seconds: float  # since it is being watched
    in_poll: float  # of these, waiting for events
    in_turns: float  # of these, at work
    in_tasks: float  # of the time at work, in tasks; what is left was in callbacks and in the loop itself
    lag: tuple[float, float, float]  # how long a turn took: median, 99th percentile, longest, of the last 1,000
    slowest: str | None  # the slowest callback or run of a task that was reported as slow, in words
    poller: str
    descriptors: int
    tasks: int
    asyncio_tasks: int
    ready: int  # calls that wait for their turn
    runnable: int  # tasks that do
    timers: int
    stack: tuple[str, ...]  # "file:line function" of the program's frames that run now, innermost first


@dataclass(frozen=True, slots=True)
class SocketInfo:
    """Something with a descriptor: a connection, or another handler of the program's."""

    fd: int
    kind: str  # its class
    style: str  # "callbacks" or "tasks" at this moment; "" for what has neither
    state: str  # "open", "finishing" (its queue is being sent, or it lingers) or "closed"
    peer: str | None
    local: str | None
    interest: str  # "R", "W", "RW" or ""
    buffered: int  # input that nobody has read
    queued: int  # output that the kernel has not taken
    reader: str | None  # the task that is parked in a read of it
    age: float | None


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """A task, or top-level code that waits."""

    name: str  # unique among the tasks of the loop: the task's name, "#" and a number
    state: str  # "not started", "ready", "running" or "parked"
    waits_for: str | None
    waits_on: str | None  # the one task that can end that wait: it holds the lock, or is joined; or that of asyncio's
    waiting: float | None  # for how long
    busy: float  # how long it has run
    spawned_at: str | None  # "file:line"
    spawned_by: str | None  # the task that has spawned it; its `spawned_by` goes on with the chain
    age: float | None
    deadline: float | None  # in so many seconds the first of its scopes expires
    group: str | None  # the group that it belongs to, by the name in `GroupInfo`
    stack: tuple[str, ...]  # "file:line function" of the program's frames, innermost first


@dataclass(frozen=True, slots=True)
class AsyncioTaskInfo:
    """A task of an asyncio loop that this loop hosts, or whose guest it is. Since when it waits is not known."""

    name: str
    coroutine: str
    state: str  # "ready", "running" or "waiting"
    waits_for: str | None  # the function of asyncio's that it waits in, or the future
    waits_on: str | None  # the one task, ours or asyncio's, that can end that wait
    awaited_by: tuple[str, ...]  # tasks of ours that wait for it in `await_`
    stack: tuple[str, ...]  # "file:line function" of the program's coroutines, innermost first


@dataclass(frozen=True, slots=True)
class EndedInfo:
    """A task that has ended: one of the last hundred."""

    name: str
    outcome: str  # "returned", "raised ValueError(...)" or "was cancelled: ..." with the reason
    seconds: float  # ago
    lived: float | None
    busy: float


@dataclass(frozen=True, slots=True)
class GroupInfo:
    """A task group whose block is open, or that has tasks."""

    name: str  # that of its owner, and a number
    owner: str | None  # the task whose block it is
    tasks: tuple[str, ...]  # whose groups are those with them as owners: a tree
    deferred: int  # of these, how many the limit keeps from starting
    cancelled: bool


@dataclass(frozen=True, slots=True)
class TimerInfo:
    """A timer."""

    due: float  # in so many seconds
    callback: str
    place: str  # "file:line"


@dataclass(frozen=True, slots=True)
class ListenerInfo:
    """A server."""

    addresses: tuple[str, ...]
    state: str  # "accepting", "full" (at its limit), "pausing" (no descriptors are left) or "draining"
    accepted: int  # so far
    current: int
    limit: int | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All of one loop at one moment."""

    loop: LoopInfo
    sockets: tuple[SocketInfo, ...]
    tasks: tuple[TaskInfo, ...]
    asyncio_tasks: tuple[AsyncioTaskInfo, ...]
    groups: tuple[GroupInfo, ...]
    timers: tuple[TimerInfo, ...]
    listeners: tuple[ListenerInfo, ...]
    threads: tuple[str, ...]  # the other threads of the process, by name
    ended: tuple[EndedInfo, ...]  # the last one first
