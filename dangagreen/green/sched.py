"""The scheduler: the hub, which resumes tasks, and the greenlets that run them.

Rules: only the greenlet that runs the loop, the hub, resumes tasks; tasks never switch to each other. This module and
lender alone import greenlet. What does not belong here: what a task waits for, and how it is woken (waiters).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

from dangagreen.errors import Cancelled, CannotParkError
from dangagreen.green.stacks import last_run
from dangagreen.green.task_table import table, told_apart
from dangagreen.green.told_tasks import Resume, ToldTasks, exchange
from dangagreen.green.waiters import Collector, Roster, Throw, TopLevel, Waiter
from dangagreen.loop.instruments import Instruments
from dangagreen.loop.loop import Loop, for_each_loop
from dangagreen.places import owner_of, place_of_instruction

LoopReset = GreenletExit  # what a reset of the loop raises in each task

Switch = Callable[[], Any]  # from a task, or top-level code, to the hub

_IDLE_WORKERS = 256  # greenlets kept for the next tasks: a cold one costs about ten times a recycled one


class Worker(greenlet):
    """A greenlet that runs one task after another."""

    __slots__ = {
        "resume": "Its `switch`, made once and not for each task.",
        "sched": "The scheduler that it belongs to.",
        "task": "The task that it runs; None between two.",
    }

    task: Waiter | None

    def __init__(self, sched: Scheduler) -> None:
        super().__init__(_work, sched.hub)
        self.sched = sched
        self.resume: Resume = self.tell_and_switch if sched.tells_of_runs else self.switch
        if not sched.workers:
            sched.loop.close_with_thread()  # a greenlet cannot be resumed in another thread
        sched.workers[self] = None

    def tell_and_switch(self, *error: Any) -> Any:
        """In the place of `switch` while instruments hear of runs."""
        sched, task = self.sched, self.task
        if (instruments := sched.loop.instruments) is None or task not in sched.tasks:
            return self.switch(*error)
        return instruments.during("run", (task,), self.switch, *error)


def _work() -> None:
    """The loop of a worker. As a method it would add a tenth to the stack that each parked task keeps."""
    worker: Worker = getcurrent()  # type: ignore[assignment]
    sched = worker.sched
    idle = sched.idle
    try:
        while True:
            if worker.task.run() and worker.task.start_next(worker):  # type: ignore[union-attr]
                continue
            worker.task = None
            worker.gr_context = None
            if len(idle) >= _IDLE_WORKERS:
                return
            idle.append(worker)
            to_hub = sched.to_hub  # to read a slot and call it in one expression costs the interpreter twice as much
            to_hub()
    finally:
        worker.task = None
        del sched.workers[worker], worker.resume


class Scheduler(Roster):
    """The greenlet side of one loop: the hub, the workers, the tasks. It attaches itself as `loop.green`."""

    __slots__ = {
        "bridge": "What `dangagreen.bridge` keeps of the asyncio loops that this loop lives with, or None.",
        "closers": "Functions that end what tasks used, called when all tasks have ended, before the sockets close.",
        "collector": "Stands for the current task during a garbage collection.",
        "forevers": "Each serve_forever that waits.",
        "given_up": "Whether Ctrl-C has ended the wait for tasks that were cancelled at the end of the program.",
        "hub": "The greenlet that runs the loop.",
        "main": "The task of `run`, or None.",
        "looked": "The clock's time when `spender` first spent a budget in this turn.",
        "loop": "The loop.",
        "signals": "The callbacks of signals, or None.",
        "spender": "(id of the task, turn) of the task that last spent a budget of calls; None at first.",
        "spent": "How many budgets `spender` has spent in this turn.",
        "tells_of_runs": "Whether instruments hear of each run of a task.",
        "thread_limiter": "The limiter of `in_thread` for calls without one, made at first use; or None.",
        "to_hub": "Switches to the hub.",
        "top_level": "The waiter that stands for top-level code, or None.",
        "workers": "All workers, idle or not.",
    }

    def __init__(self, loop: Loop) -> None:
        super().__init__()
        self.loop = loop
        self.tasks = _new_table(loop)
        self.workers: dict[Worker, None] = {}
        self.tells_of_runs = False
        self.top_level: TopLevel | None = None
        self.collector = Collector(loop)
        self.forevers: list[Any] = []
        self.bridge: Any = None
        self.signals: Any = None
        self.main: Waiter | None = None
        self.given_up = False
        self.thread_limiter: Any = None
        self.closers: list[Callable[[], object]] = []
        self.spender: tuple[int, float] | None = None
        self.looked = 0.0
        self.spent = 0
        loop.green = self
        self.listen(loop.instruments)
        self.adopt()

    def adopt(self) -> None:
        """Make the current greenlet the hub."""
        self.hub = getcurrent()
        self.to_hub = self.hub.switch
        self.from_tasks = guarded(self.to_hub)
        for worker in self.workers:
            if worker.parent is not self.hub:
                worker.parent = self.hub
                if worker.task is not None:
                    worker.task.set_hub(self.from_tasks)

    def put_guards(self) -> None:
        """Put the guards that there are now before the switches of what there is already."""
        self.from_tasks = guarded(self.to_hub)
        for worker in self.workers:
            if worker.task is not None:
                worker.task.set_hub(self.from_tasks)
        if self.top_level is not None:
            self.top_level.set_hub(guarded(self.top_level.run_loop))

    def reset(self) -> None:
        """End every task where it is parked, running its `finally` blocks, and free the workers."""
        self.adopt()
        if self.bridge is not None:
            self.bridge.over = True
        for worker in list(self.workers):  # first those that run no task but what tasks wait for
            if worker.task is not None and worker.task not in self.tasks:
                worker.throw(GreenletExit)
        self._end_all()
        for close in list(self.closers):
            close()
        self._end_all()  # what they have spawned
        for worker in list(self.workers):
            worker.throw(GreenletExit)
        self.bridge = None
        self.idle.clear()
        if self.top_level is not None:  # the loop cancels all timers
            self.top_level.deadline_timer = None
            if self.top_level.scope is not None:
                self.top_level.scope._forget_deadlines()

    def listen(self, instruments: Instruments | None) -> None:
        """Tell these of tasks, and of their runs, from now on; None: nobody."""
        told = ToldTasks if instruments is not None and instruments.hear("task") else dict
        if type(self.tasks) is not told and type(self.tasks) in (ToldTasks, dict):  # others tell themselves
            tasks = ToldTasks(self.loop) if told is ToldTasks else {}
            tasks.update(self.tasks)
            self.tasks = tasks
        runs = instruments is not None and instruments.hear("run")
        if runs is not self.tells_of_runs:
            self.tells_of_runs = runs
            resumptions: dict[Resume, Resume] = {}
            for worker in self.workers:
                former, worker.resume = worker.resume, worker.tell_and_switch if runs else worker.switch
                resumptions[former] = worker.resume
                if worker.task is not None:
                    worker.task.resume = worker.resume
            exchange(self.loop, resumptions)

    def stopping(self) -> None:
        """The loop's `stop` was called: who hosts it makes a turn."""
        if self.bridge is not None:
            self.bridge.stopping()

    def collection(self, begins: bool) -> None:
        """A garbage collection begins, or is over, in this thread. (In a callback nothing may park anyway.)"""
        if not begins:
            self.collector.leave()
        elif self.loop.current is not None or not self.loop.running:
            self.collector.enter()

    def has_waiters(self) -> bool:
        """Whether there is a task, or top-level code that waits."""
        return bool(self.tasks) or (self.top_level is not None and self.top_level.wait is not None)

    def awaits_thread(self) -> bool:
        """Whether a task, or top-level code, waits for what a thread does: then all the others need not be stuck."""
        waits = [waiter.wait for waiter in (*self.tasks, self.top_level) if waiter is not None]
        return any(wait is not None and wait.by_thread for wait in waits)

    def idle_deadline_timers(self) -> int:
        """How many deadline timers are set whose waiters have no scope with a deadline any more."""
        waiters = [waiter for waiter in (*self.tasks, self.top_level) if waiter is not None]
        timed = [waiter for waiter in waiters if waiter.deadline_timer is not None]
        return sum(waiter.scope is None or not waiter.scope._has_deadlines() for waiter in timed)

    def running(self) -> Waiter | None:
        """The task that runs now, in a `no_parking()` block too; None while a callback, or the loop itself, does."""
        return self.loop.current if self.no_parking is None else self.no_parking.task  # type: ignore[no-any-return]

    def names(self) -> dict[Waiter, str]:
        """The tasks, and top-level code that waits, by the names that tell them apart: in a dump they have the same."""
        return self._names(self._waiters())

    def _waiters(self) -> list[Waiter]:
        top = self.top_level
        return [*([top] if top is not None and top.wait is not None else ()), *self.tasks]  # another thread may ask

    def _names(self, waiters: list[Waiter]) -> dict[Waiter, str]:
        return told_apart(waiters, self.tasks.unique_name if isinstance(self.tasks, ToldTasks) else lambda _task: None)

    def name_of(self, task: Waiter) -> str:
        """The name by which a task is told apart; of one that has ended its own."""
        return self.names().get(task, task.name)

    def table(self, most: int | None = None) -> str:
        """The table of tasks, and of top-level code if it waits; of more than `most` only the number of the others."""
        waiters = self._waiters()
        shown = waiters[:most]
        joined = [waiter.subject for waiter in shown if waiter.wait is not None and isinstance(waiter.subject, Waiter)]
        names = self._names(list(dict.fromkeys([*shown, *joined])))
        text = table(shown, self.running(), names)
        return f"{text}\n... and {len(waiters) - len(shown)} more" if len(waiters) > len(shown) else text

    def describe_run(self, call: Any) -> tuple[str, str, Any] | None:
        """The task that a call of the loop has started or resumed: as `describe_task`; None if it was none."""
        owner = call.task if isinstance(call, Throw) else owner_of(call)
        if isinstance(owner, Worker):
            if owner.task is None:
                place = place_of_instruction(*self.ended_from) if self.ended_from is not None else "?"
                return f"task {self.ended!r}, before it ended,", place, None
            owner = owner.task
        return self.describe_task(owner) if isinstance(owner, Waiter) else None

    def describe_task(self, task: Waiter) -> tuple[str, str, Waiter]:
        """(words, "file:line", task) of a task that has just run: see `last_run`."""
        return *last_run(task), task

    def _end_all(self) -> None:
        while self.tasks:  # they may spawn others while they end
            for task in list(self.tasks):
                if not task.done:
                    self._end(task)

    def _end(self, task: Waiter) -> None:
        reset = Cancelled("the loop was reset")
        if task.worker is None:
            task.end(reset)
            return
        if task.wait is not None:
            if not task.wait.due:  # its turn never comes
                task.wait.undo(task.subject, task)
            task.wait = None
        task.cancelled = task.interrupt = reset
        if task.scope is not None:
            task.scope._end_all(reset)
        while not task.done:
            task.worker.throw(GreenletExit)


_guards: list[Callable[[Switch], Switch]] = []
_new_table: Callable[[Loop], dict[Waiter, None]] = lambda _loop: {}  # noqa: E731


def keep_tasks_in(new_table: Callable[[Loop], dict[Waiter, None]]) -> None:
    """Have the tasks of each scheduler kept in a dict of this kind: it learns of each beginning and end."""
    global _new_table
    _new_table = new_table
    for_each_loop(_exchange_table)


def _exchange_table(loop: Loop) -> None:
    if loop.green is not None:
        sched = scheduler(loop)
        tasks, sched.tasks = sched.tasks, _new_table(loop)
        sched.tasks.update(tasks)


def running_task() -> Waiter | None:
    """The task in whose greenlet this is called; None elsewhere."""
    return getattr(getcurrent(), "task", None)


def guard_parking(guard: Callable[[Switch], Switch]) -> None:
    """Have `guard(switch)` in the place of each switch away from a task, or top-level code: it may raise instead.

    `dangagreen.bridge` and `dangagreen.introspect` do so, once, when they are imported. Without them nothing is done
    at a switch.
    """
    _guards.append(guard)
    _put_guards()


def drop_guard(guard: Callable[[Switch], Switch]) -> None:
    """Undo `guard_parking`, from the next switch on."""
    _guards.remove(guard)
    _put_guards()


def _put_guards() -> None:
    for_each_loop(lambda loop: None if loop.green is None else scheduler(loop).put_guards())


def guarded(switch: Switch) -> Switch:
    """This switch, with the guards before it if there are any; and as a function in Python where one traces."""
    for guard in _guards:
        switch = guard(switch)
    if sys.gettrace() is None:
        return switch
    return lambda: switch()  # a tracer, as coverage's, learns by its return that another greenlet runs


def scheduler(loop: Loop) -> Scheduler:
    """The scheduler of a loop, made at first use."""
    return loop.green or Scheduler(loop)  # type: ignore[return-value]


def top_level(loop: Loop) -> TopLevel:
    """The waiter that stands for the loop's top-level code, made at first use."""
    sched = scheduler(loop)
    if sched.top_level is None:
        sched.top_level = top = TopLevel(loop)
        top.set_hub(guarded(top.run_loop))
    return sched.top_level


def foreign(task: Waiter, call: str) -> CannotParkError:
    """The error for a call that this task seems to make, in a greenlet that is not its own."""
    return CannotParkError(
        f"{call} may have to wait, and was called in {getcurrent()!r}, which is not one of this library's greenlets: a"
        f" wake-up would resume task {task.name!r} instead. Call it in the task itself, or in one made by spawn(...)"
    )
