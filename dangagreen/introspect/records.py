"""Notes for snapshots: ages, how long tasks run and wait, which have ended and why, how long turns take.

Rules: nothing of this runs before `dangagreen.introspect` is imported: then tables that take notes are put in the place
of a loop's dicts and its queue of tasks, and a switch away from a task notes the time. What does not belong here:
what is made of it.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from dangagreen.errors import Cancelled
from dangagreen.frames import program_frames
from dangagreen.green.sched import guard_parking, keep_tasks_in, running_task
from dangagreen.green.told_tasks import ToldTasks
from dangagreen.green.waiters import Waiter, watch_cancellations
from dangagreen.introspect.stacks import place_of, running
from dangagreen.loop.births import BirthTable
from dangagreen.loop.gone import Gone
from dangagreen.loop.loop import Loop, watch_loops
from dangagreen.loop.slowness import SlowReport
from dangagreen.places import owner_of
from dangagreen.sockets.kernel import counted

_ENDED = 100  # tasks that have ended: so many of them are remembered
_TURNS = 1000  # the lag is that of so many turns

NOBODY = id(None)  # the id of whose code has woken a task where that was no task's

_numbers = itertools.count(1)

Cancellation = tuple[Cancelled | None, str | None, str | None]  # that, the task whose code it was, and the place


class TaskRecord:
    """What is noted of one task."""

    __slots__ = {
        "began": "When it was made, on the loop's clock; None if that was before the import.",
        "busy": "How many seconds it has run, up to its last wait.",
        "cancelled": "Its last cancellation, or None.",
        "given_name": "The name of the task when it was made.",
        "number": "What makes it unique.",
        "parked_at": "Since when it waits; None while it runs, or if that is not known.",
        "parent": "The unique name of the task that has spawned it, or None.",
        "resumed_at": "Since when it runs; None before it has.",
        "scheduled": "How many seconds it was ready, and did not run.",
        "waited": "How many seconds it has waited, up to the last time that it was woken.",
        "woken_by": "The id of the task whose code has done that; NOBODY: none.",
        "woken_at": "When it was started or woken; None once it runs, and if the loop resumes it without that.",
    }

    def __init__(self, name: str, began: float | None, parent: str | None) -> None:
        self.given_name, self.number = name, next(_numbers)
        self.began = began
        self.busy = 0.0
        self.parent = parent
        self.parked_at: float | None = None
        self.resumed_at: float | None = None
        self.woken_at: float | None = None
        self.woken_by = NOBODY
        self.waited = self.scheduled = 0.0
        self.cancelled: Cancellation | None = None

    @property
    def name(self) -> str:
        """The unique name of the task."""
        return f"{self.given_name}#{self.number}"

    def was_cancelled(self, pending: Cancelled, by: str | None, at: str) -> None:
        """Note who cancels it, once for each cancellation."""
        if self.cancelled is None or self.cancelled[0] is not pending:
            self.cancelled = pending, by, None if at == "?" else at

    def ended(self, noted: Cancellation, seen: Cancelled | None) -> None:
        """Note that it has ended; `seen` is the cancellation that it saw then: it may have survived the one `noted`."""
        self.cancelled = (None, *noted[1:]) if noted[0] is seen else None


class TaskTable(ToldTasks):
    """The tasks of a loop that have not ended, with a record of each, and the records of the last that have."""

    __slots__ = {
        "busy": "How many seconds all tasks have run.",
        "ended": "The records of tasks that have ended, the last one first, each with the outcome, and when.",
        "ran_at": "When a task last stopped running.",
        "records": "Task to its record.",
    }

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop)
        self.records: dict[Waiter, TaskRecord] = {}
        self.ended: deque[tuple[TaskRecord, str, float]] = deque(maxlen=_ENDED)
        self.busy = self.ran_at = 0.0

    def __setitem__(self, task: Waiter, nothing: None) -> None:
        loop = self.loop
        parent = self.records.get(loop.current)
        self.records[task] = TaskRecord(task.name, loop.clock(), None if parent is None else parent.name)
        ToldTasks.__setitem__(self, task, nothing)

    def __delitem__(self, task: Waiter) -> None:
        ToldTasks.__delitem__(self, task)
        if (record := self.records.pop(task, None)) is not None:
            now = self.loop.clock()
            self.ran(record, now)
            if record.cancelled is not None:
                record.ended(record.cancelled, task.cancel_seen)
            error = task.ended_by()
            self.ended.appendleft((record, _end_of(task) if error is None else _outcome(error), now))

    def adopt(self, task: Waiter) -> TaskRecord:
        """The record of a task; made here if it is older than the import."""
        record = self.records.get(task)
        if record is None:
            record = TaskRecord(task.name, None, None)
            if task in self:
                self.records[task] = record
        return record

    def unique_name(self, task: Waiter) -> str | None:
        return self.adopt(task).name if task in self else None

    def ran(self, record: TaskRecord, now: float) -> None:
        """A task has run until now: it waits, or has ended."""
        began = record.resumed_at
        if began is None:
            began = self.first_resumed(record)
            if record.woken_at is not None:
                record.scheduled += max(0.0, began - record.woken_at)
                record.woken_at = None
        spent = now - began
        record.busy += spent
        self.busy += spent
        self.ran_at = now

    def first_resumed(self, record: TaskRecord) -> float:
        """When the first run of a task has begun, which is not over: after what has run before it in this turn."""
        return max(self.loop.looked, record.began or 0.0, self.ran_at)

    def running_for(self, task: Waiter | None, now: float) -> float:
        """For how many seconds this task, which runs, has done so since its last wait; 0 for None, and for others."""
        record = self.records.get(task)  # type: ignore[arg-type]
        if record is None:
            return 0.0
        return now - (self.first_resumed(record) if record.resumed_at is None else record.resumed_at)

    def name_of(self, task: Waiter | None) -> str | None:
        """The unique name of a task, also of the one that has ended last: its end may cancel others."""
        if task is not None and task.done and self.ended:
            return self.ended[0][0].name
        record = self.records.get(task) if task is not None else None
        return None if record is None else record.name


class TaskQueue(deque[Callable[[], object]]):
    """The tasks of a loop that are to run, with a note in the record of each of when it came here."""

    __slots__ = {"_loop": "The loop."}

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop.runnable)
        loop.runnable.clear()  # the turn in progress may go on with it
        self._loop = loop

    def append(self, call: Callable[[], object]) -> None:
        deque.append(self, call)
        loop = self._loop
        if (table := table_of(loop)) is not None:
            owner: Any = owner_of(call)
            record = table.records.get(owner)  # the task, of its start
            if record is None:  # its greenlet
                record = table.records.get(getattr(call if owner is None else owner, "task", None))  # type: ignore[arg-type]
            if record is not None:
                record.woken_at, record.woken_by = loop.clock(), id(loop.current)


def table_of(loop: Loop) -> TaskTable | None:
    """The records of a loop's tasks; None if it has had no task yet."""
    green: Any = loop.green
    return green.tasks if green is not None and type(green.tasks) is TaskTable else None


def _end_of(task: Waiter) -> str:
    """How a task has ended that has raised nothing: a handler may have seen the end of its connection."""
    reason = getattr(getattr(task, "sock", None), "close_reason", None)
    return f"ended with {_shown(reason)}" if isinstance(reason, Exception) else "returned"


def _outcome(error: BaseException) -> str:
    if isinstance(error, Cancelled):
        return "was cancelled" if error.reason is None else f"was cancelled: {error.reason}"
    return f"raised {_shown(error)}"


def _shown(error: BaseException) -> str:
    try:
        return repr(error)
    except Exception:
        return type(error).__name__


class HandlerTable(BirthTable):
    """The descriptors of a loop, with when and by whom they came, and the bytes of those that have gone."""

    __slots__ = {
        "bytes_in": "Bytes that connections have received that have gone since.",
        "bytes_out": "Bytes that these have sent.",
        "gone": "Those that have gone and are not freed.",
    }

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop)
        self.bytes_in = self.bytes_out = 0
        self.gone = Gone()

    def __delitem__(self, fd: int) -> None:
        """Called before the OS socket is closed: count what has passed through it."""
        handler = self[fd]
        self.gone.add(handler)
        if (passed := counted(handler)) is not None:
            self.bytes_in += passed[0]
            self.bytes_out += passed[1]
        dict.__delitem__(self, fd)

    def name_of(self, task: Waiter) -> str | None:
        table = table_of(self.loop)
        return None if table is None else table.name_of(task)


class LoopRecord:
    """What is noted of the turns of a loop."""

    __slots__ = {
        "_batch": "The events of the last turn that was over: while the loop has these it waits for others. Where this"
        " begins while the loop runs, and no code of the program's does, it waits.",
        "_polls": "Whether there was work left then, so that the loop asks for events and does not wait.",
        "_worked_until": "When the last turn was over.",
        "in_poll": "How many seconds the loop has waited for events, up to the last turn.",
        "in_turns": "How many seconds all turns took.",
        "lags": "How long each of the last turns took.",
        "longest": "How long the longest turn of all took.",
        "longest_by": "What was reported as slow in that, or None.",
        "since": "When the loop was first looked at.",
    }

    def __init__(self, loop: Loop) -> None:
        self.since = self._worked_until = loop.clock()
        self._polls = False
        self._batch = None if loop.running and any(program_frames(running())) else loop.batch
        self.in_turns = self.in_poll = 0.0
        self.lags: deque[float] = deque(maxlen=_TURNS)
        self.longest = 0.0
        self.longest_by: SlowReport | None = None

    def times(self, loop: Loop, now: float) -> tuple[float, float]:
        """For how many seconds the loop has waited for events, and was at work, until now; what is under way counts."""
        if not loop.running:
            return self.in_poll, self.in_turns
        began = now if loop.batch is self._batch else max(loop.now, self._worked_until)
        if self._polls:
            began = self._worked_until
        return self.in_poll + began - self._worked_until, self.in_turns + now - began

    def turned(self, loop: Loop) -> None:
        """A turn is over: it began at `loop.now`, and until then the loop has waited since the end of the last one."""
        ended = loop.clock()
        began = loop.now
        lag = ended - began
        self.lags.append(lag)
        self.in_turns += lag
        if lag > self.longest:
            self.longest = lag
            turn, report = loop.slow_in_turn or (0, None)
            self.longest_by = report if turn == loop.turns else None
        if began > self._worked_until:
            if self._polls:
                self.in_turns += began - self._worked_until
            else:
                self.in_poll += began - self._worked_until
        self._worked_until, self._batch = ended, loop.batch
        self._polls = bool(loop.ready or loop.runnable or loop.pending_reads)


loop_records: WeakKeyDictionary[Loop, LoopRecord] = WeakKeyDictionary()


def _watch(loop: Loop) -> None:
    loop.handlers = HandlerTable(loop)
    loop.runnable = TaskQueue(loop)
    record = loop_records[loop] = LoopRecord(loop)
    loop.after_turn = record.turned


def _timed(switch: Callable[[], Any]) -> Callable[[], Any]:
    """A switch away from a task, which notes how long the task has run, and when it goes on."""

    table: TaskTable | None = None  # of the one loop whose switch this is

    def park() -> Any:
        nonlocal table
        task = running_task()
        if task is None or (table is None and (table := table_of(task.loop)) is None):
            return switch()
        loop = task.loop
        record, clock = table.records.get(task) or table.adopt(task), loop.clock
        parked = record.parked_at = clock()
        table.ran(record, parked)
        try:
            return switch()
        finally:
            if (woken := record.woken_at) is None:
                woken = loop.now if loop.now > parked else parked  # by an event, or a timer
            record.waited += woken - parked
            record.scheduled += (now := clock()) - woken
            record.parked_at = record.woken_at = None
            record.resumed_at = now

    return park


def _note_cancellation(task: Waiter, pending: Cancelled) -> None:
    if (table := table_of(task.loop)) is not None and task in table:
        table.adopt(task).was_cancelled(pending, table.name_of(running_task()), place_of(running()))


keep_tasks_in(TaskTable)
guard_parking(_timed)
watch_loops(_watch)
watch_cancellations(_note_cancellation)
