"""Lints of tasks that run: runs that are long, polling, waits for input that nobody reads.

Rules: what is noted is noted at a switch, and looked at there; places in the program are looked up only for what is
suspicious. What does not belong here: what happens in a turn without a task (lint_turns), and for whom tasks wait
(lint_locks).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dangagreen.green.fds import WaitedFor
from dangagreen.green.groups import TaskGroup
from dangagreen.green.parking import GIVING_WAY
from dangagreen.green.sched import running_task, scheduler
from dangagreen.green.waiters import Waiter
from dangagreen.introspect.linting import Findings, LintReport, Patches, Since, name_of, place_here
from dangagreen.introspect.records import TaskRecord, TaskTable
from dangagreen.introspect.stacks import Step, chain, steps_here
from dangagreen.loop.pollers import READ
from dangagreen.sockets.kernel import bytes_read

LONG_SECONDS = 0.02  # a run of a task, from one wait to the next, that is long
LONG_RUNS = 3  # so many long runs of tasks of one name are a finding,
LONG_SHARE = 0.05  # if they are at least this part of all its runs: not where the machine, once in a while, is slow
POLLS = 1000  # waits of a task in sleep(0), one after the other,
POLL_SECONDS = 1.0  # within at least so many seconds,
POLL_RUN = 50e-6  # with less than so many seconds of work between two of them
WAITS = 1000  # waits of a task for the input of one fd, one after the other
_NAMES = 1000  # names of tasks whose runs are counted


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

    def __init__(self, findings: Findings, patches: Patches, since: Since) -> None:
        self._findings = findings
        self._since = since
        self._runs: dict[str, list[int]] = {}  # by names: how many runs, and how many of them were long
        self._resumed: dict[Waiter, tuple[Step, ...]] = {}  # where tasks of suspicious names last waited
        self._polls: dict[Waiter, _Polls] = {}
        self._waits: dict[Waiter, _Waits] = {}
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
        self._since.forget(task)
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
            self._resumed[task] = steps_here()

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
        since = f"from {chain(began)} on" if began else "since it was started"
        if task.wait is not None:
            until, place = f"it waited in {call_of(task)}", place_here()
        else:
            until, place = "it ended", scheduler(task.loop).describe_task(task)[1]
        what = (
            f"task {name_of(task)!r} ran for {seconds:.3f} s, {since}, before {until}, and nothing else could run;"
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
                f"task {name_of(task)!r} wakes itself: {polls.count} times in {now - polls.began:.1f} s it has waited"
                f" in sleep(0), and done next to nothing in between; have it wait for an Event or the like"
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
                    f"task {name_of(task)!r} has called wait_readable {WAITS} times in a row, and has read nothing,"
                    f" though there is input, or its end, of fd {fd}"
                )
                self._findings.add(task.loop, LintReport("idle-wake", what, place_here(), task))

    def close(self) -> None:
        """Forget all tasks."""
        for table in (self._runs, self._resumed, self._polls, self._waits):
            table.clear()


def call_of(task: Waiter) -> str:
    """The call in which a task waits."""
    assert task.wait is not None
    return "leaving a TaskGroup" if isinstance(task.subject, TaskGroup) else task.wait.name
