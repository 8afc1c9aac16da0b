"""What a snapshot holds: plain values, frozen, without a reference to anything of the program's.

Rules: times are in seconds, sizes in bytes; None is what is not known, or does not apply; what has happened since
`dangagreen.introspect` was imported is known, what was before is not. What does not belong here: how it is found out.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LoopInfo:
    """A loop. Of the times of its turns only what came after the import of `dangagreen.introspect` counts."""

    thread: str  # the name of its thread
    running: bool
    turns: int
    seconds: float  # since it is being watched
    in_poll: float  # of these, waiting for events, the wait under way included
    in_turns: float  # of these, at work, the turn under way included
    in_tasks: float  # of the time at work, in tasks
    in_callbacks: float  # what is left of it: in callbacks, and in the loop itself
    lag: tuple[float, float, float]  # how long a turn took: median, 99th percentile, longest, of the last 1,000
    longest: float  # how long the longest turn took
    longest_by: str | None  # the slowest callback or run of a task in it, in words, if that was reported as slow
    bytes_in: int | None  # of all connections, those that have closed included; None where not all were looked at
    bytes_out: int | None
    open_files: tuple[int | None, int | None]  # file descriptors of the process, and how many it may have
    not_freed: tuple[tuple[str, int], ...]  # (class, how many) of closed connections that the program still refers to
    slowest: str | None  # the slowest callback or run of a task that was reported as slow, in words
    poller: str
    descriptors: int
    tasks: int
    most_tasks: tuple[tuple[str, int], ...]  # (where spawned, how many): three places of most of the oldest 1,000
    asyncio_tasks: int
    ready: int  # calls that wait for their turn
    runnable: int  # tasks that do
    timers: int
    most_timers: tuple[tuple[str, int], ...]  # (what they call, how many): three of most of the oldest 1,000
    stack: tuple[str, ...]  # "file:line function" of the program's frames that run now, innermost first


@dataclass(frozen=True, slots=True)
class SocketInfo:
    """Something with a descriptor: a connection, or another handler of the program's."""

    fd: int
    kind: str  # its class
    style: str  # "callbacks" or "tasks" at this moment; "" for what has neither
    state: str  # "open", "finishing" (its queue is being sent, or it lingers), "closed"; "opening": a handshake
    peer_ended: bool  # its FIN or RST has come; of TCP on Linux also if nobody has read so far
    peer: str | None
    local: str | None
    interest: str  # "R", "W", "RW" or ""
    buffered: int  # input that nobody has read
    queued: int  # output that the kernel has not taken
    bytes_in: int | None  # received by the kernel since it was opened; of TLS as encrypted; None where nobody counts
    bytes_out: int | None  # taken by the kernel
    handler: str | None  # the task that its server has started for it, or for its request, and that has not ended
    reader: str | None  # the task that is parked in a read of it, or in `select`
    writers: tuple[str, ...]  # those parked in `write_all`, in their order
    drainers: tuple[str, ...]  # those that wait until all is sent: in `drain`, `send_file`, at the end of its block
    opened_at: str | None  # "file:line" where the program has made it; None where the loop has, as for a server
    opened_by: str | None  # the task that has
    age: float | None
    idle: (
        float | None
    )  # since bytes last came or went; where the kernel does not tell: since the peer last sent or read
    tls: str | None  # version and cipher suite


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """A task, or top-level code that waits."""

    name: str  # unique among the tasks of the loop: the task's name, "#" and a number
    state: str  # "not started", "ready", "running" or "parked"
    waits_for: str | None
    waits_on: str | None  # the one task that can end that wait: it holds the lock, or is joined; or that of asyncio's
    waiting: float | None  # for how long
    busy: float  # how long it has run, in all, the run under way included
    waited: float  # how long it has waited, in all, waits that are over
    scheduled: float  # how long it was ready to run, and others ran, in all
    spawned_at: str | None  # "file:line"
    spawned_by: str | None  # the task that has spawned it; its `spawned_by` goes on with the chain
    age: float | None
    deadline: float | None  # in so many seconds the first of its scopes expires
    serves: int | None  # the fd of the connection whose handler it is
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
    outcome: str  # "returned", "raised ValueError(...)", "was cancelled: ...", "ended with ..." its connection's error
    seconds: float  # ago
    lived: float | None
    busy: float
    waited: float
    scheduled: float
    cancelled_by: str | None  # the task whose code has cancelled it, or whose failure has; None: a callback or the loop
    cancelled_at: (
        str | None
    )  # "file:line" of the program's code that did; None: a deadline, a failure, the end of `run`


@dataclass(frozen=True, slots=True)
class GroupInfo:
    """A task group that has tasks."""

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
    refused: int  # of these, how many by a handshake, or a PROXY header, that has failed
    opening: int  # connections in a handshake
    current: int
    limit: int | None
    waiting: int | None  # in the kernel's accept queues, as beyond the limit; None where the kernel does not tell


@dataclass(frozen=True, slots=True)
class ThreadInfo:
    """Another thread of the process."""

    name: str
    runs: str | None  # the function that `in_thread` has given it
    task: str | None  # the task that waits for that; None: it was abandoned, or is of another loop
    seconds: float | None  # for how long it runs
    limit: tuple[int, int] | None  # how many threads its limiter has in use, and of how many
    stack: tuple[str, ...]  # "file:line function" of the program's frames, innermost first


@dataclass(frozen=True, slots=True)
class ProfileInfo:
    """What was measured of one kind of callback, or of the tasks of one name. What ran within is not in it."""

    name: str  # "Class-event", "function-event" or "name-task"
    calls: int  # or runs
    user: float  # of the processor, in user mode
    system: float  # of the processor, in the kernel
    seconds: float  # of wall-clock time
    bytes_in: int  # that were read meanwhile of its connection, or that of its handler, where that is counted (TCP)
    bytes_out: int  # that were sent


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
    threads: tuple[ThreadInfo, ...]
    ended: tuple[EndedInfo, ...]  # the last one first
