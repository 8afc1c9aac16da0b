"""Lints of tasks that wait for others: a lock that is held while others wait for it, circles of waits.

Rules: what is noted is noted at a switch, and where a lock is acquired; it is looked at there, or when a turn ends;
of what was so before, that is told. What does not belong here: waits that nobody can end (lint_waits).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from dangagreen.green.groups import TaskGroup
from dangagreen.green.sched import Switch, running_task
from dangagreen.green.stacks import frames
from dangagreen.green.tasks import Task
from dangagreen.green.waiters import Waiter
from dangagreen.introspect.circles import circle, circles, without_limit
from dangagreen.introspect.lint_tasks import call_of
from dangagreen.introspect.linting import (
    Findings,
    LintReport,
    Patches,
    Since,
    name_of,
    place_here,
    place_of_wait,
    waiting_tasks,
)
from dangagreen.introspect.stacks import Step, chain, steps, steps_here
from dangagreen.loop.loop import Loop
from dangagreen.sync.locks import Mutex

HELD_SECONDS = 5.0  # for which the holder of a lock waits for something else, and others for the lock
_HELD = 64  # locks of one task of which it is kept where they were acquired

_Places = dict[int, tuple[Step, ...]]  # by the ids of locks


class _Parked(NamedTuple):
    """A wait of a task."""

    since: float
    call: str
    for_lock: bool


class LockLints:
    """What is noted of the waits for locks, and for the ends of tasks, of all loops."""

    def __init__(self, findings: Findings, patches: Patches, since: Since) -> None:
        self._findings = findings
        self._since = since
        self._for_locks = since.for_locks
        self._acquired: WeakKeyDictionary[Task[Any], _Places] = WeakKeyDictionary()  # where tasks have acquired locks
        self._by_others: _Places = {}  # where top-level code has, or a garbage collection: no weak references to these
        for name in ("acquire", "__enter__"):
            patches.put(Mutex, name, self._watch_acquisitions)

    def close(self) -> None:
        """Forget all tasks."""
        self._acquired.clear()
        self._by_others.clear()

    # -- what is noted

    def _watch_acquisitions(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def acquire(lock: Mutex, *args: Any, **kwargs: Any) -> Any:
            before = lock.holder
            acquired = original(lock, *args, **kwargs)
            if acquired and (holder := lock.holder) is not None and holder is not before:
                self._note_place(holder, lock, steps_here())
            return acquired

        return acquire

    def _note_place(self, holder: Waiter, lock: Mutex, place: tuple[Step, ...]) -> None:
        places = self._acquired.setdefault(holder, {}) if isinstance(holder, Task) else self._by_others
        if len(places) >= _HELD:
            del places[next(iter(places))]
        places[id(lock)] = place

    def adopt(self, loop: Loop, now: float) -> None:
        """Look at the tasks that wait already."""
        waiting = waiting_tasks(loop)
        for task in waiting:
            if isinstance(task.subject, Mutex):
                self._for_locks[task] = self._since.of(task) or now
                self._note_place(task, task.subject, steps(frames(task)))  # where it has asked for it
        for tasks in circles(waiting):
            if len(tasks) > 1:
                self._tell_of_circle(tasks)

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
        self._since.parked[task.loop] = now
        if for_lock := isinstance(subject, Mutex):
            self._for_locks[task] = now
        elif self._for_locks:
            self._for_locks.pop(task, None)
        if for_lock or isinstance(subject, (Task, TaskGroup)):
            tasks = circle(task)
            if len(tasks) > 1:  # one alone may have its lock released by another, soon: `sweep` looks at it
                self._tell_of_circle(tasks)
        return _Parked(now, call_of(task), for_lock)

    def _goes_on(self, task: Waiter, parked: _Parked) -> None:
        if self._for_locks:
            self._for_locks.pop(task, None)
            if not parked.for_lock and task.loop.clock() - parked.since >= HELD_SECONDS:
                self._look_at_locks(task, parked.since, parked.call, place_here)

    # -- circles

    def _tell_of_circle(self, tasks: list[Waiter]) -> None:
        """Tasks wait for each other. One that runs parks just now."""
        if len(without_limit(tasks)) < len(tasks):
            return
        task = tasks[0]
        place = place_here() if running_task() is task else place_of_wait(task)
        links = [
            f"{name_of(one)!r} ({place if one is task else place_of_wait(one)}) waits {self._for(one, other)}"
            for one, other in zip(tasks, [*tasks[1:], task], strict=True)
        ]
        alone = ", unless another task releases it" if len(tasks) == 1 else ""
        what = f"a wait that cannot end{alone}: {', '.join(links)}"
        self._findings.add(task.loop, LintReport("deadlock", what, place, task))

    def _for(self, task: Waiter, other: Waiter) -> str:
        """For what of another task's a task waits."""
        if isinstance(lock := task.subject, Mutex):
            return f"for the {type(lock).__name__} that {name_of(other)!r} has {self._place_of(other, lock)}"
        return f"for the end of {name_of(other)!r}"

    # -- locks

    def sweep(self, loop: Loop, now: float) -> None:
        """Look at the locks for which tasks of a loop wait, and at those who hold them."""
        holders: dict[Waiter, None] = {}
        for task, since in list(self._for_locks.items()):
            lock = task.subject if task.wait is not None else None
            if task.loop is loop and isinstance(lock, Mutex) and now - since >= HELD_SECONDS:
                if (holder := lock.holder) is task:
                    self._tell_of_circle([task])
                elif holder is not None and not holder.done:
                    holders[holder] = None
                elif holder is not None:
                    self._tell_of_lost_lock(task, lock, holder, now - since)
        for holder in holders:
            began = self._since.of(holder)
            if began is None or isinstance(holder.subject, Mutex) or now - began < HELD_SECONDS or circle(holder):
                continue
            self._look_at_locks(holder, began, call_of(holder), partial(place_of_wait, holder))

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
                f"task {name_of(holder)!r} holds a {type(lock).__name__}, {self._place_of(holder, lock)}, while it"
                f" waits in {call}, {self._since.in_words(holder, now - since)}, and {_others(tasks)} for that lock"
            )
            self._findings.add(holder.loop, LintReport("held-lock", what, place(), holder))

    def _tell_of_lost_lock(self, task: Waiter, lock: Mutex, holder: Waiter, seconds: float) -> None:
        what = (
            f"task {name_of(task)!r} has waited {self._since.in_words(task, seconds)} for a {type(lock).__name__},"
            f" which task {name_of(holder)!r} has {self._place_of(holder, lock)}, and not released before it ended"
        )
        self._findings.add(task.loop, LintReport("held-lock", what, place_of_wait(task), task))

    def _place_of(self, holder: Waiter, lock: Mutex) -> str:
        """Where a lock was acquired."""
        places = self._acquired.get(holder, {}) if isinstance(holder, Task) else self._by_others
        place = places.get(id(lock))
        return "acquired before lints were switched on" if place is None else f"acquired at {chain(place)}"


def _others(tasks: list[Waiter]) -> str:
    first = f"{name_of(tasks[0])!r} ({place_of_wait(tasks[0])})"
    return f"{first} waits" if len(tasks) == 1 else f"{first} and {len(tasks) - 1} more wait"
