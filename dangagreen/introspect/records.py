"""Notes for snapshots: ages, how long tasks run and wait, which have ended, how long turns take.

Rules: nothing of this runs before `dangagreen.introspect` is imported: then tables that take notes are put in the place
of a loop's dicts, and a switch away from a task notes the time. What does not belong here: what is made of it.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from dangagreen.errors import Cancelled
from dangagreen.green.sched import guard_parking, keep_tasks_in, running_task
from dangagreen.green.waiters import Waiter
from dangagreen.loop.handlers import Handler
from dangagreen.loop.loop import Loop, watch_loops

_ENDED = 100  # tasks that have ended: so many of them are remembered
_TURNS = 1000  # the lag is that of so many turns

_numbers = itertools.count(1)


class TaskRecord:
    """What is noted of one task."""

    __slots__ = {
        "began": "When it was made, on the loop's clock; None if that was before the import.",
        "busy": "How many seconds it has run, up to its last wait.",
        "name": "Its unique name.",
        "parked_at": "Since when it waits; None while it runs, or if that is not known.",
        "parent": "The unique name of the task that has spawned it, or None.",
        "resumed_at": "Since when it runs; None before it has.",
    }

    def __init__(self, name: str, began: float | None, parent: str | None) -> None:
        self.name = f"{name}#{next(_numbers)}"
        self.began = began
        self.busy = 0.0
        self.parent = parent
        self.parked_at: float | None = None
        self.resumed_at: float | None = None


class TaskTable(dict[Waiter, None]):
    """The tasks of a loop that have not ended, with a record of each, and the records of the last that have."""

    def __init__(self, loop: Loop) -> None:
        super().__init__()
        self._loop = loop
        self.records: dict[Waiter, TaskRecord] = {}
        self.ended: deque[tuple[TaskRecord, str, float]] = deque(maxlen=_ENDED)  # with the outcome, and when
        self.busy = 0.0  # of all tasks
        self._ran_at = 0.0  # when a task last stopped running

    def __setitem__(self, task: Waiter, nothing: None) -> None:
        super().__setitem__(task, nothing)
        loop = self._loop
        parent = self.records.get(loop.current)
        self.records[task] = TaskRecord(task.name, loop.clock(), None if parent is None else parent.name)

    def __delitem__(self, task: Waiter) -> None:
        super().__delitem__(task)
        if (record := self.records.pop(task, None)) is not None:
            now = self._loop.clock()
            self.ran(record, now)
            self.ended.appendleft((record, _outcome(task.ended_by()), now))

    def adopt(self, task: Waiter) -> TaskRecord:
        """The record of a task; made here if it is older than the import."""
        record = self.records.get(task)
        if record is None:
            record = TaskRecord(task.name, None, None)
            if task in self:
                self.records[task] = record
        return record

    def ran(self, record: TaskRecord, now: float) -> None:
        """A task has run until now: it waits, or has ended."""
        began = record.resumed_at
        if began is None:  # its first run: it began after what has run before it in this turn
            began = max(self._loop.looked, record.began or 0.0, self._ran_at)
        record.busy += now - began
        self.busy += now - began
        self._ran_at = now


def _outcome(error: BaseException | None) -> str:
    if error is None:
        return "returned"
    if isinstance(error, Cancelled):
        return "was cancelled" if error.reason is None else f"was cancelled: {error.reason}"
    try:
        return f"raised {error!r}"
    except Exception:
        return f"raised {type(error).__name__}"


class HandlerTable(dict[int, Handler]):
    """The descriptors of a loop, with the times of their coming."""

    def __init__(self, loop: Loop) -> None:
        super().__init__()
        self._clock = loop.clock
        self._born: dict[int, tuple[int, float]] = {}  # fd to the id of its handler, and when it came

    def __setitem__(self, fd: int, handler: Handler) -> None:
        super().__setitem__(fd, handler)
        self._born[fd] = id(handler), self._clock()

    def age(self, handler: Handler, now: float) -> float | None:
        """For how many seconds the handler is here; None if it came before the import."""
        identity, born = self._born.get(handler.fd, (0, 0.0))
        return now - born if identity == id(handler) else None


class LoopRecord:
    """What is noted of the turns of a loop."""

    def __init__(self, loop: Loop) -> None:
        self.since = self._worked_until = loop.clock()
        self.in_turns = self.in_poll = 0.0
        self.lags: deque[float] = deque(maxlen=_TURNS)

    def waited(self, loop: Loop) -> float:
        """For how many seconds the loop has waited for events, the wait before the turn in progress included."""
        return self.in_poll + (max(0.0, loop.now - self._worked_until) if loop.running else 0.0)

    def turned(self, loop: Loop) -> None:
        """A turn is over: it began at `loop.now`, and until then the loop has waited since the end of the last one."""
        ended = loop.clock()
        self.lags.append(ended - loop.now)
        self.in_turns += ended - loop.now
        self.in_poll = self.waited(loop)
        self._worked_until = ended


loop_records: WeakKeyDictionary[Loop, LoopRecord] = WeakKeyDictionary()


def _watch(loop: Loop) -> None:
    handlers, loop.handlers = loop.handlers, HandlerTable(loop)
    dict.update(loop.handlers, handlers)
    record = loop_records[loop] = LoopRecord(loop)
    loop.after_turn = record.turned


def _timed(switch: Callable[[], Any]) -> Callable[[], Any]:
    """A switch away from a task, which notes how long the task has run, and when it goes on."""

    def park() -> Any:
        task = running_task()
        table = None if task is None else getattr(task.loop.green, "tasks", None)
        if task is None or not isinstance(table, TaskTable):
            return switch()
        record, clock = table.adopt(task), task.loop.clock
        now = record.parked_at = clock()
        table.ran(record, now)
        try:
            return switch()
        finally:
            record.parked_at, record.resumed_at = None, clock()

    return park


keep_tasks_in(TaskTable)
guard_parking(_timed)
watch_loops(_watch)
