"""Taking a snapshot: what the loop, its tasks, groups, timers and threads are at this moment.

Rules: nothing is changed, and nothing of the program's own is called but `repr`; it may be called at any time, in a
signal handler as well, in the thread of the loop; a table is copied before it is looked at. What does not belong here:
sockets and servers (connections), how it is printed.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from itertools import islice, starmap
from typing import Any

from dangagreen import checks
from dangagreen.green.groups import TaskGroup
from dangagreen.green.scopes import around
from dangagreen.green.stacks import frames
from dangagreen.green.task_table import described, telling_apart
from dangagreen.green.tasks import Task
from dangagreen.green.waiters import Waiter
from dangagreen.introspect import stacks
from dangagreen.introspect.circles import blocker
from dangagreen.introspect.connections import listener_info, open_files, socket_info
from dangagreen.introspect.data import (
    AsyncioTaskInfo,
    EndedInfo,
    GroupInfo,
    LoopInfo,
    Snapshot,
    SocketInfo,
    TaskInfo,
    ThreadInfo,
    TimerInfo,
)
from dangagreen.introspect.records import HandlerTable, LoopRecord, TaskTable, loop_records
from dangagreen.loop.handlers import Handler
from dangagreen.loop.loop import Loop, loop_or_current
from dangagreen.loop.timers import Timer
from dangagreen.net.handler_task import HandlerTask
from dangagreen.places import innermost, named, owner_of, place_of, unwrapped, with_place
from dangagreen.sockets.acceptor import Acceptor
from dangagreen.sockets.sock import CallbackSocket
from dangagreen.sync.locks import Mutex
from dangagreen.sync.threads import jobs

OLDEST = 1000  # so many tasks and timers, the oldest, are counted by where they come from
_HAVE_OWNERS = (Mutex, Waiter, TaskGroup)  # one or a few tasks can end a wait for these


def snapshot(loop: Loop | None = None, most: int | None = None) -> Snapshot:
    """A loop, by default this thread's, as plain data. Of sockets, tasks, those of asyncio, and timers at most so many.

    Takes some 20 us for each task and each socket, in which nothing else runs. Raises ForeignThreadError in another
    thread than the loop's, ValueError for a negative `most`.
    """
    most = None if most is None else checks.count("most", most)
    loop = loop_or_current(loop)
    loop.check_thread("introspect.snapshot")
    collector = Collector(loop)
    with telling_apart(collector.name):
        return collector.collect(most)


class Collector:
    """Takes one snapshot of one loop."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.now = loop.clock()
        green: Any = loop.green
        self.table: dict[Waiter, None] = {} if green is None else green.tasks
        self.tasks = list(self.table)
        top = None if green is None else green.top_level
        self.waiting = [] if top is None or top.wait is None else [top]
        self.running = None if green is None else green.running()
        bridge = None if green is None else green.bridge  # it tells of asyncio, of which this module knows nothing
        self.of_asyncio = [] if bridge is None else bridge.seen_tasks([*self.waiting, *self.tasks])

    def collect(self, most: int | None) -> Snapshot:
        handlers = [handler for handler in list(self.loop.handlers.values()) if handler is not self.loop.wakeup_pair]
        servers: dict[Any, list[Acceptor]] = {}
        for handler in handlers:
            if isinstance(handler, Acceptor):
                servers.setdefault(handler.server, []).append(handler)
        sockets = [handler for handler in handlers if not isinstance(handler, Acceptor)]
        queues: list[Any] = [handler for handler in sockets if getattr(handler, "unsent", 0)]
        chosen = _chosen(sockets, sorted(queues, key=lambda sock: sock.unsent, reverse=True), most)
        by_fd = sorted(chosen, key=lambda handler: handler.fd)
        shown = [
            socket_info(handler, self.loop.handlers, self.now, self.name, self._served_by.get(id(handler)))
            for handler in by_fd
        ]
        tasks = [*self.waiting, *self.tasks]
        stuck = [task for task in tasks if task.wait is not None and isinstance(task.subject, _HAVE_OWNERS)]
        return Snapshot(
            loop=self._loop(len(handlers), shown if len(shown) == len(sockets) else None),
            sockets=tuple(shown),
            tasks=tuple(map(self._task, _chosen(tasks, stuck, most))),
            asyncio_tasks=tuple(map(self._asyncio_task, islice(self.of_asyncio, most))),
            groups=tuple(self._groups()),
            timers=tuple(islice(self._timers(), most)),
            listeners=tuple(starmap(listener_info, servers.items())),
            threads=tuple(self._threads()),
            ended=tuple(self._ended()),
        )

    # -- the loop

    def _loop(self, descriptors: int, sockets: list[SocketInfo] | None) -> LoopInfo:
        """`sockets`: all of them, or None."""
        loop, handlers = self.loop, self.loop.handlers
        record = loop_records.get(loop) or LoopRecord(loop)
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        in_poll, in_turns = record.times(loop, self.now)
        in_tasks = 0.0
        if isinstance(self.table, TaskTable):
            if self.running is not None and self.running in self.table:
                self.table.adopt(self.running)  # of which nothing may be noted yet
            in_tasks = min(in_turns, self.table.busy + self.table.running_for(self.running, self.now))
        gone = (handlers.bytes_in, handlers.bytes_out) if isinstance(handlers, HandlerTable) else (0, 0)
        return LoopInfo(
            thread=names.get(loop.thread, str(loop.thread)),
            running=loop.running,
            turns=loop.turns,
            seconds=self.now - record.since,
            in_poll=in_poll,
            in_turns=in_turns,
            in_tasks=in_tasks,
            in_callbacks=max(0.0, in_turns - in_tasks),
            lag=_lag(list(record.lags)),
            longest=record.longest,
            longest_by=None if record.longest_by is None else str(record.longest_by),
            bytes_in=None if sockets is None else gone[0] + sum(sock.bytes_in or 0 for sock in sockets),
            bytes_out=None if sockets is None else gone[1] + sum(sock.bytes_out or 0 for sock in sockets),
            open_files=open_files(),
            not_freed=self._not_freed(),
            slowest=None if loop.slowest is None else str(loop.slowest),
            poller=type(loop.poller).__name__,
            descriptors=descriptors,
            tasks=len(self.waiting) + len(self.tasks),
            most_tasks=_commonest(self.tasks, _spawn, _spawned_at),
            asyncio_tasks=len(self.of_asyncio),
            ready=len(loop.ready),
            runnable=len(loop.runnable),
            timers=len(timers := self._pending()),
            most_timers=_commonest(timers, _called, _called_in_words),
            stack=() if not loop.running else stacks.in_words(stacks.running()),
        )

    def _not_freed(self) -> tuple[tuple[str, int], ...]:
        handlers = self.loop.handlers
        gone = handlers.gone.left() if isinstance(handlers, HandlerTable) else []
        kinds = Counter(type(sock).__name__ for sock in gone if isinstance(sock, CallbackSocket) and sock.closed)
        return tuple(kinds.most_common())

    def _pending(self) -> list[Timer]:
        """The timers, without those that only look on."""
        loop = self.loop
        return [timer for timer in loop.timers.pending() if timer not in loop.onlookers]

    def _timers(self) -> Iterator[TimerInfo]:
        pending = sorted(self._pending(), key=lambda timer: timer.deadline)
        for timer in pending:
            task = getattr(owner_of(timer.callback), "task", None)  # of a greenlet that sleeps
            if isinstance(task, Waiter):
                place = stacks.place_of(frames(task))
                if place == "?":  # none of the program's code waits
                    place = getattr(task, "spawned_at", None) or place
                yield TimerInfo(timer.deadline - self.now, f"resumes {self.name(task)}", place)
            else:
                owner = owner_of(unwrapped(timer.callback))
                whose = f" of fd {owner.fd}" if isinstance(owner, Handler) else ""
                yield TimerInfo(timer.deadline - self.now, named(timer.callback) + whose, place_of(timer.callback))

    # -- tasks

    def name(self, task: Waiter | None) -> str:
        """The unique name of a task."""
        if task is None or not isinstance(self.table, TaskTable) or task not in self.table:
            return "?" if task is None else task.name
        return self.table.adopt(task).name

    def _task(self, task: Waiter) -> TaskInfo:
        record = self.table.adopt(task) if isinstance(self.table, TaskTable) and task in self.table else None
        deadlines = [scope.deadline for scope in around(task) if scope.deadline is not None]
        if task.wait is not None:
            state = "parked"
        elif task is self.running:
            state = "running"
        else:
            state = "not started" if task.worker is None else "ready"
        parked_at = record.parked_at if record is not None and task.wait is not None else None
        busy = 0.0 if record is None else record.busy
        if state == "running" and isinstance(self.table, TaskTable):
            busy += self.table.running_for(task, self.now)
        return TaskInfo(
            name=self.name(task) if record is None else record.name,
            state=state,
            waits_for=described(task, "waits_for") if task.wait is not None else None,
            waits_on=self._waits_on(task),
            waiting=None if parked_at is None else self.now - parked_at,
            busy=busy,
            waited=0.0 if record is None else record.waited,
            scheduled=0.0 if record is None else record.scheduled,
            spawned_at=getattr(task, "spawned_at", None),
            spawned_by=None if record is None else record.parent,
            age=None if record is None or record.began is None else self.now - record.began,
            deadline=min(deadlines) - self.now if deadlines else None,
            serves=task.sock.fd if isinstance(task, HandlerTask) and not task.sock.closed else None,
            group=self._groups_by_id[id(task.group)][0] if id(task.group) in self._groups_by_id else None,
            stack=stacks.in_words(stacks.running() if state == "running" else frames(task)),
        )

    @cached_property
    def _served_by(self) -> dict[int, Waiter]:
        """The id of a connection, to the task of its handler."""
        return {id(task.sock): task for task in self.tasks if isinstance(task, HandlerTask)}

    def _waits_on(self, task: Waiter) -> str | None:
        """The unique name of the task that holds the lock for which this one waits, or that it joins."""
        if task.wait is not None and id(task) in self._awaited:
            return self._awaited[id(task)]
        other = blocker(task)
        return self.name(other) if isinstance(other, Task) else None

    # -- tasks of asyncio's

    @cached_property
    def _awaited(self) -> dict[int, str]:
        """The id of a task of ours, to the name of the one of asyncio's that it awaits."""
        return {id(waiter): seen.name for seen in self.of_asyncio for waiter in seen.awaited_by}

    @cached_property
    def _asyncio_names(self) -> dict[int, str]:
        return {id(seen.task): seen.name for seen in self.of_asyncio}

    def _asyncio_task(self, seen: Any) -> AsyncioTaskInfo:
        awaits = seen.awaits
        waits = awaits is not None and not seen.running
        if isinstance(awaits, Task):
            waits_on = None if awaits.done else self.name(awaits)
        else:
            waits_on = self._asyncio_names.get(id(awaits))
        return AsyncioTaskInfo(
            name=seen.name,
            coroutine=seen.coroutine,
            state="running" if seen.running else "waiting" if waits else "ready",
            waits_for=described(seen, "waits_for") if waits else None,
            waits_on=waits_on if waits else None,
            awaited_by=tuple(map(self.name, seen.awaited_by)),
            stack=stacks.in_words(stacks.running() if seen.running else seen.frames),
        )

    # -- what has ended

    def _ended(self) -> Iterator[EndedInfo]:
        if isinstance(self.table, TaskTable):
            for record, outcome, when in list(self.table.ended):
                lived = None if record.began is None else when - record.began
                yield EndedInfo(
                    name=record.name,
                    outcome=outcome,
                    seconds=self.now - when,
                    lived=lived,
                    busy=record.busy,
                    waited=record.waited,
                    scheduled=record.scheduled,
                    cancelled_by=None if record.cancelled is None else record.cancelled[1],
                    cancelled_at=None if record.cancelled is None else record.cancelled[2],
                )

    # -- threads

    def _threads(self) -> Iterator[ThreadInfo]:
        """The other threads of the process, with what `in_thread` has given them."""
        given = {job.thread: job for job in jobs()}
        running = sys._current_frames()
        running.pop(threading.get_ident(), None)  # this very frame: a cycle, which would keep all that was looked at
        for thread in threading.enumerate():
            if thread.ident == self.loop.thread:
                continue
            job = given.get(thread.ident or 0)
            waits = job is not None and job.waiter is not None and job.loop is self.loop
            yield ThreadInfo(
                name=thread.name,
                runs=None if job is None else job.name,
                task=self.name(job.waiter) if job is not None and waits else None,
                seconds=None if job is None or job.began is None else job.loop.clock() - job.began,
                limit=None if job is None else (job.limiter.in_use, job.limiter.limit),
                stack=stacks.in_words(stacks.outward(running.get(thread.ident or 0))),
            )

    # -- groups

    @cached_property
    def _groups_by_id(self) -> dict[int, tuple[str, TaskGroup]]:
        """The groups that have tasks, each with its name: that of its owner, and a number."""
        groups = {id(task.group): task.group for task in self.tasks if task.group is not None}
        return {
            which: (f"{self.name(group.scope._owner)}/{number}", group)
            for number, (which, group) in enumerate(groups.items(), 1)
        }

    def _groups(self) -> Iterator[GroupInfo]:
        for name, group in self._groups_by_id.values():
            tasks, owner = group.tasks, group.scope._owner
            yield GroupInfo(
                name=name,
                owner=None if owner is None else self.name(owner),
                tasks=tuple(map(self.name, tasks)),
                deferred=sum(task.worker is None and task.wait is not None for task in tasks),
                cancelled=group.scope.cancelled,
            )


def _commonest(
    things: list[Any], key: Callable[[Any], Any], words: Callable[[Any], str]
) -> tuple[tuple[str, int], ...]:
    """Of what is alike by `key` the three kinds with the most things, in words for one of them, and how many.

    Of very many things these are the first, which are the oldest: those that were forgotten are among them.
    """
    things = things[:OLDEST]
    keys = list(map(key, things))
    one_of = dict(zip(keys, things, strict=True))
    return tuple((words(one_of[kind]), count) for kind, count in Counter(keys).most_common(3))


def _spawn(task: Any) -> object:
    """What tells places of spawns apart; to hash the code itself would take much longer."""
    return (id(task.origin[0]), task.origin[1]) if task.origin else task.name


def _spawned_at(task: Any) -> str:
    place = getattr(task, "spawned_at", None)
    return f"called {task.name!r}" if place is None else f"spawned at {place}"


def _called(timer: Any) -> int | None:
    """What tells the functions that timers call apart: all that resume a task count as one."""
    if _resumes_a_task(timer):
        return None
    function = innermost(timer.callback)
    return id(getattr(function, "__code__", function))


def _called_in_words(timer: Any) -> str:
    return "for waits of tasks" if _resumes_a_task(timer) else f"of {with_place(timer.callback)}"


def _resumes_a_task(timer: Any) -> bool:
    return hasattr(owner_of(unwrapped(timer.callback)), "task")


def _lag(lags: Iterable[float]) -> tuple[float, float, float]:
    """The median, the 99th percentile, and the longest."""
    ordered = sorted(lags) or [0.0]
    return ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100], ordered[-1]


def _chosen(things: list[Any], first: list[Any], most: int | None) -> Iterable[Any]:
    """At most so many of these things, in their order: `first`, who seldom are as they should be, and then others."""
    if most is None or len(things) <= most:
        return things
    kept = set(map(id, first[:most]))
    others = (id(thing) for thing in things if id(thing) not in kept)
    kept.update(list(islice(others, most - len(kept))))
    return [thing for thing in things if id(thing) in kept]
