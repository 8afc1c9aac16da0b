"""Lints of tasks: runs that are long, polling, a lock that is held while others wait for it, circles of waits.

Rules: what is noted is noted at a switch, and looked at there, or when a turn ends; places in the program are looked up
only for what is suspicious. What does not belong here: what happens in a turn without a task (lint_turns).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from dangagreen.green.fds import WaitedFor
from dangagreen.green.groups import TaskGroup
from dangagreen.green.parking import GIVING_WAY
from dangagreen.green.sched import Switch, running_task, scheduler
from dangagreen.green.tasks import Task
from dangagreen.green.waiters import Waiter
from dangagreen.introspect.circles import circle, without_limit
from dangagreen.introspect.linting import Findings, LintReport, Patches, place_here, place_of_wait
from dangagreen.introspect.records import TaskRecord, TaskTable
from dangagreen.loop.loop import Loop
from dangagreen.loop.pollers import READ
from dangagreen.sockets.kernel import bytes_read
from dangagreen.sync.locks import Mutex

LONG_SECONDS = 0.02  # a run of a task, from one wait to the next, that is long
LONG_RUNS = 3  # so many long runs of tasks of one name are a finding,
LONG_SHARE = 0.05  # if they are at least this part of all its runs: not where the machine, once in a while, is slow
POLLS = 1000  # waits of a task in sleep(0), one after the other,
POLL_SECONDS = 1.0  # within at least so many seconds,
POLL_RUN = 50e-6  # with less than so many seconds of work between two of them
WAITS = 1000  # waits of a task for the input of one fd, one after the other
HELD_SECONDS = 5.0  # for which the holder of a lock waits for something else, and others for the lock
_NAMES = 1000  # names of tasks whose runs are counted


class _Parked(NamedTuple):
    """A wait of a task."""

    since: float
    call: str
    for_lock: bool


class _Polls:
    """The waits in sleep(0) of one task, one after the other."""

    __slots__ = {"began": "When the first one began.", "busy": "Seconds of work in between.", "count": "How many."}

    def __init__(self, began: float) -> None:
        self.began = began
        self.busy = 0.0
        self.count = 0


class _Waits:
    """The waits of one task for the input of one fd, one after the other."""

    __slots__ = {"count": "How many.", "fd": "The fd.", "read": "How many bytes were read from it, at half of WAITS."}

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.count = 0
        self.read: int | None = None


class TaskLints:
    """What is noted of the tasks of all loops."""

    def __init__(self, findings: Findings, patches: Patches) -> None:
        self._findings = findings
        self._runs: dict[str, list[int]] = {}  # by names: how many runs, and how many of them were long
        self._resumed: dict[Waiter, str] = {}  # the places at which tasks of suspicious names last waited
        self._polls: dict[Waiter, _Polls] = {}
        self._waits: dict[Waiter, _Waits] = {}
        self._for_locks: dict[Waiter, float] = {}  # tasks that are parked for a lock, and since when
        patches.put(TaskTable, "ran", self._watch_runs)

    # -- runs

    def _watch_runs(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def ran(table: TaskTable, record: TaskRecord, now: float) -> None:
            before = record.busy
            original(table, record, now)
            task = running_task()
            if task is not None and (task.wait is not None or task.done):
                self._ran(task, record.busy - before, now)

        return ran

    def _ran(self, task: Waiter, seconds: float, now: float) -> None:
        """A task has run for so long, and now waits, or has ended."""
        runs = self._runs.get(task.name)
        if runs is None:
            if len(self._runs) >= _NAMES:
                del self._runs[next(iter(self._runs))]
            runs = self._runs[task.name] = [0, 0]
        runs[0] += 1
        if seconds >= LONG_SECONDS:
            runs[1] += 1
            if runs[1] >= LONG_RUNS and runs[1] >= runs[0] * LONG_SHARE:
                self._tell_of_run(task, seconds, runs)
        wait = task.wait
        if wait is not GIVING_WAY:
            self._look_at_wait(task, seconds, now)
        if wait is None:
            self._resumed.pop(task, None)
        elif runs[1]:
            self._resumed[task] = place_here()

    def _look_at_wait(self, task: Waiter, seconds: float, now: float) -> None:
        """A task that has run for so long waits again, or has ended: does it do so again and again to no effect?"""
        if task.wait is not None and task.wait.due:
            self._has_polled(task, seconds, now)
        elif self._polls:
            self._polls.pop(task, None)
        if task.wait is not None and isinstance(task.subject, WaitedFor):
            self._waits_for_fd(task, task.subject)
        elif self._waits:
            self._waits.pop(task, None)

    def _tell_of_run(self, task: Waiter, seconds: float, runs: list[int]) -> None:
        began = self._resumed.get(task)
        since = f"from {began} on" if began is not None else "since it was started"
        if task.wait is not None:
            until, place = f"it waited in {_call(task)}", place_here()
        else:
            until, place = "it ended", scheduler(task.loop).describe_task(task)[1]
        what = (
            f"task {task.name!r} ran for {seconds:.3f} s, {since}, before {until}, and nothing else could run;"
            f" {runs[1]} of {runs[0]} runs were such"
        )
        self._findings.add(task.loop, LintReport("long-run", what, place, task))

    def _has_polled(self, task: Waiter, seconds: float, now: float) -> None:
        """A task waits in sleep(0)."""
        polls = self._polls.get(task)
        if polls is None:
            self._polls[task] = _Polls(now)
            return
        polls.count += 1
        polls.busy += seconds
        if polls.count < POLLS or now - polls.began < POLL_SECONDS:
            return
        self._polls[task] = _Polls(now)
        if polls.busy < polls.count * POLL_RUN:
            what = (
                f"task {task.name!r} wakes itself: {polls.count} times in {now - polls.began:.1f} s it has waited in"
                f" sleep(0), and done next to nothing in between; have it wait for an Event or the like"
            )
            self._findings.add(task.loop, LintReport("self-wake", what, place_here(), task))

    def _waits_for_fd(self, task: Waiter, waited_for: WaitedFor) -> None:
        """A task waits until an fd is readable, or writable."""
        fd = waited_for.fd
        waits = self._waits.get(task)
        if waits is None or waits.fd != fd or waited_for.waiters.get(READ) is not task:
            waits = self._waits[task] = _Waits(fd)
        waits.count += 1
        if waits.count == WAITS // 2:
            waits.read = bytes_read(fd)
        elif waits.count == WAITS:
            waits.count = 0
            if waits.read is not None and waits.read == bytes_read(fd):
                what = (
                    f"task {task.name!r} has called wait_readable {WAITS} times in a row, and has read nothing, though"
                    f" there is input, or its end, of fd {fd}"
                )
                self._findings.add(task.loop, LintReport("idle-wake", what, place_here(), task))

    # -- waits

    def guard(self, switch: Switch) -> Switch:
        """A switch away from a task, with a look before and after it."""

        def park() -> Any:
            task = running_task()
            if task is None:
                return switch()
            parked = self._parks(task)
            try:
                return switch()
            finally:
                self._goes_on(task, parked)

        return park

    def _parks(self, task: Waiter) -> _Parked:
        assert task.wait is not None
        now, subject = task.loop.clock(), task.subject
        for_lock = isinstance(subject, Mutex)
        if for_lock:
            self._for_locks[task] = now
        if for_lock or isinstance(subject, (Task, TaskGroup)):
            tasks = circle(task)
            if len(tasks) > 1:  # one alone may have its lock released by another, soon: `sweep` looks at it
                self._tell_of_circle(tasks)
        return _Parked(now, _call(task), for_lock)

    def _goes_on(self, task: Waiter, parked: _Parked) -> None:
        if self._for_locks:
            self._for_locks.pop(task, None)
            if not parked.for_lock and task.loop.clock() - parked.since >= HELD_SECONDS:
                self._look_at_locks(task, parked.since, parked.call, place_here)

    def _tell_of_circle(self, tasks: list[Waiter]) -> None:
        """Tasks wait for each other. One that runs parks just now."""
        if len(without_limit(tasks)) < len(tasks):
            return
        task = tasks[0]
        place = place_here() if _runs(task) else place_of_wait(task)
        links = [
            f"{name_of(one)!r} ({place if one is task else place_of_wait(one)}) waits {_for(one, other)}"
            for one, other in zip(tasks, [*tasks[1:], task], strict=True)
        ]
        alone = ", unless another task releases it" if len(tasks) == 1 else ""
        what = f"a wait that cannot end{alone}: {', '.join(links)}"
        self._findings.add(task.loop, LintReport("deadlock", what, place, task))

    # -- locks

    def sweep(self, loop: Loop, now: float) -> None:
        """Look at the locks for which tasks of a loop wait, and at those who hold them."""
        table: Any = scheduler(loop).tasks
        holders: dict[Waiter, Mutex] = {}
        for task, since in list(self._for_locks.items()):
            if task.loop is loop and task.wait is not None and now - since >= HELD_SECONDS:
                lock: Mutex = task.subject
                if (holder := lock.holder) is task:
                    self._tell_of_circle([task])
                elif holder is not None and not holder.done:
                    holders[holder] = lock
                elif holder is not None:
                    self._tell_of_lost_lock(task, lock, holder, now - since)
        for holder in holders:
            record = table.records.get(holder) if isinstance(table, TaskTable) else None
            if holder.wait is None or isinstance(holder.subject, Mutex) or record is None or record.parked_at is None:
                continue
            if now - record.parked_at >= HELD_SECONDS and not circle(holder):
                self._look_at_locks(holder, record.parked_at, _call(holder), partial(place_of_wait, holder))

    def _look_at_locks(self, holder: Waiter, since: float, call: str, place: Callable[[], str]) -> None:
        """A task waits, or has waited, for long: are there locks that it holds, for which others wait?"""
        now = holder.loop.clock()
        held: dict[Mutex, list[Waiter]] = {}
        for task, began in list(self._for_locks.items()):
            lock = task.subject
            if isinstance(lock, Mutex) and lock.holder is holder and now - max(began, since) >= HELD_SECONDS:
                held.setdefault(lock, []).append(task)
        for lock, tasks in held.items():
            what = (
                f"task {holder.name!r} holds {_named(lock)} while it waits in {call}, for {now - since:.1f} s, and"
                f" {_others(tasks)} for that lock"
            )
            self._findings.add(holder.loop, LintReport("held-lock", what, place(), holder))

    def _tell_of_lost_lock(self, task: Waiter, lock: Mutex, holder: Waiter, seconds: float) -> None:
        what = (
            f"task {task.name!r} has waited {seconds:.1f} s for {_named(lock)}, which task {holder.name!r} has"
            f" acquired, and not released before it ended"
        )
        self._findings.add(task.loop, LintReport("held-lock", what, place_of_wait(task), task))

    def close(self) -> None:
        """Forget all tasks."""
        for table in (self._runs, self._resumed, self._polls, self._waits, self._for_locks):
            table.clear()


def _runs(task: Waiter) -> bool:
    return running_task() is task


def _for(task: Waiter, other: Waiter) -> str:
    """For what of another task's a task waits."""
    if isinstance(task.subject, Mutex):
        return f"for the {type(task.subject).__name__} that {name_of(other)!r} holds"
    return f"for the end of {name_of(other)!r}"


def name_of(task: Waiter) -> str:
    """The unique name of a task."""
    table: Any = scheduler(task.loop).tasks
    return table.adopt(task).name if isinstance(table, TaskTable) and task in table else task.name


def _call(task: Waiter) -> str:
    """The call in which a task waits."""
    assert task.wait is not None
    return "leaving a TaskGroup" if isinstance(task.subject, TaskGroup) else task.wait.name


def _named(lock: Mutex) -> str:
    """A lock in a finding."""
    return f"a {type(lock).__name__}"


def _others(tasks: list[Waiter]) -> str:
    first = f"{tasks[0].name!r} ({place_of_wait(tasks[0])})"
    return f"{first} waits" if len(tasks) == 1 else f"{first} and {len(tasks) - 1} more wait"
