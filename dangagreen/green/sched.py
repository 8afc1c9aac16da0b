"""Waiters: the greenlets that wait for things, the workers that they borrow, and the hub.

Rules: only the greenlet that runs the loop, the hub, resumes tasks; tasks never switch to each other. This module alone
imports greenlet. What does not belong here: how one comes to wait and is woken (that is parking).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import Context
from functools import partial
from itertools import chain, islice
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

from dangagreen.errors import Cancelled, CannotParkError
from dangagreen.green.task_table import table
from dangagreen.loop.loop import Loop
from dangagreen.loop.timers import Timer

LoopReset = GreenletExit  # what a reset of the loop raises in each task

_IDLE_WORKERS = 256  # greenlets kept for the next tasks: a cold one costs about ten times a recycled one


class WaitKind:
    """One kind of waiting: its name, how its arrangement is undone, as a function of (subject, task), and its words.

    `due`: for its turn only. Nobody wakes it before that, and the task looks then for what interrupts it. To take
    one of many that wait for their turns out of the middle would cost the more the more they are.
    """

    __slots__ = ("due", "name", "undo", "words")

    def __init__(
        self, name: str, undo: Callable[[Any, Waiter], object], words: str = "{0} of {1!r}", due: bool = False
    ) -> None:
        self.name = name
        self.undo = undo
        self.words = words
        self.due = due


class Waiter:
    """Who can be parked: a task, or top-level code.

    `wait` and `subject` say what it is parked for; `interrupt` is what every call that may park raises on entry. It
    follows from `cancelled`, its own cancellation, and from its scopes, of which `scope` is the innermost. `resume` and
    `throw` switch to it, and are for the hub alone; `to_hub` switches away from it, and answers true where it is to
    raise the error that `throw` has left in `subject`.
    """

    __slots__ = {
        **dict.fromkeys((
            "cancelled", "context", "deadline_timer", "interrupt", "resume", "scope", "subject", "to_hub",
            "unflushed_socket", "wait", "worker",
        )),
        "done": "Whether it has ended.",
        "loop": "The loop that it runs on.",
    }  # fmt: skip

    group: Any = None  # the group that it belongs to
    context: Context | None  # what it runs in
    resume: Callable[[], object]
    to_hub: Callable[[], object]
    subject: Any

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.wait: WaitKind | None = None  # None while it runs, and once it was woken
        self.interrupt: BaseException | None = None
        self.cancelled: Cancelled | None = None
        self.scope: Any = None
        self.deadline_timer: Timer | None = None  # rings at the earliest deadline of its scopes, or before
        self.unflushed_socket: Any = None  # it wrote to that last: what is queued leaves when it parks or ends
        self.worker: Worker | None = None
        self.done = False

    @property
    def name(self) -> str:
        return "top-level code"

    @property
    def task(self) -> Waiter:
        """Who reads, where it is parked in a read."""
        return self

    @property
    def waits_for(self) -> str | None:
        """What the task is parked for, in words; None if it is not parked."""
        if self.wait is None:
            return None
        return self.wait.words.format(self.wait.name, self.subject)

    def start(self) -> None:
        """Run in a worker until it first parks. Only on the hub."""
        if self.interrupt is not None:
            return self.end_unstarted(self.interrupt)
        sched: Scheduler = self.loop.green  # type: ignore[assignment]
        idle = sched.idle
        self.worker = worker = idle.pop() if idle else Worker(sched)
        worker.task = self
        worker.gr_context = self.context
        self.to_hub = sched.to_hub
        self.resume = resume = worker.resume
        resume()
        return None

    def throw(self, error: BaseException) -> None:
        """Resume it with an error. One that has not started finds by itself that it is cancelled."""
        if self.worker is None:
            self.start()
        else:  # raised by itself, after the switch: so does the error keep the one that was being handled there
            self.subject = error
            self.worker.switch(True)

    def scopes(self) -> Iterator[Any]:
        """Its open scopes, from the innermost out."""
        scope = self.scope
        while scope is not None:
            yield scope
            scope = scope._parent

    def update_interrupt(self) -> None:
        """Work out what interrupts it now. What is raised only once, a KeyboardInterrupt, stays until it was."""
        if self.interrupt is None or isinstance(self.interrupt, Cancelled):
            self.interrupt = self.cancelled if self.scope is None else self.scope._pending

    def _on_task_end(self, task: Waiter) -> None:
        """A task that it joins, or watches, has ended."""
        if self.subject is task and self.wait is not None:  # `wake`, with nothing to undo: 3 percent of a spawn
            self.wait = None
            self.loop.runnable.append(self.resume)
        else:
            wake(self)

    def run(self) -> None:
        """What its worker does."""
        raise NotImplementedError

    def end(self, error: BaseException | None) -> None:
        """It has returned, or raised."""
        raise NotImplementedError

    def end_unstarted(self, error: BaseException) -> None:
        """It was cancelled before it has started."""
        self.end(error)


class Throw(partial[None]):
    """A resumption with an error, which waits for its turn: the task's `throw`, and the error."""

    __slots__ = ()


class Worker(greenlet):
    """A greenlet that runs one task after another."""

    __slots__ = ("resume", "sched", "task")

    task: Waiter | None

    def __init__(self, sched: Scheduler) -> None:
        super().__init__(_work, sched.hub)
        self.sched = sched
        self.resume = self.switch  # made once, not for each task
        if not sched.workers:
            sched.loop._close_with_thread()  # in another one it could not be resumed
        sched.workers[self] = None


def _work() -> None:
    """What a worker runs. As a method it would add a tenth to what each parked task keeps of its stack."""
    worker: Worker = getcurrent()  # type: ignore[assignment]
    sched = worker.sched
    idle = sched.idle
    try:
        while True:
            worker.task.run()  # type: ignore[union-attr]
            worker.task = None
            worker.gr_context = None
            if len(idle) >= _IDLE_WORKERS:
                return
            idle.append(worker)
            sched.to_hub()
    finally:
        worker.task = None
        del sched.workers[worker], worker.resume


class TopLevel(Waiter):
    """Plain code outside any task that makes a call which waits: the loop runs underneath it for so long."""

    __slots__ = ("_thrown", "_woken", "turned")

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop)
        self.turned = loop.clock()  # when the loop has last run
        self.resume = self._resume
        self.to_hub = self._run_loop

    def _resume(self) -> None:
        self._woken = True
        self.wait = None  # so that nobody wakes it again before the turn has ended

    def throw(self, error: BaseException) -> None:
        self.subject, self._thrown = error, True
        self._resume()

    def _run_loop(self) -> bool:
        self._woken = self._thrown = False
        ready = self.loop.runnable
        try:
            while not self._woken:
                self.loop.run(lambda: self._woken)
                if not self._woken:
                    end_forevers(self.loop)
        except BaseException:  # an interrupt may have come before a resumption that was on its way
            ours = (self.resume, self.throw)
            kept = [call for call in ready if (call.func if type(call) is Throw else call) not in ours]
            if len(kept) < len(ready):
                ready.clear()
                ready.extend(kept)
            raise
        return self._thrown


class Collector(Waiter):
    """In the place of the task, or top-level code, in which a garbage collection is under way, until that is over.

    What it calls, by a `__del__` or a weakref's callback, is refused where it would wait. It has a place of its own, as
    it may strike in the middle of a wait of that task. So it costs nothing to who parks otherwise.
    """

    __slots__ = ("_before", "_entered")

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop)
        self.resume, self.to_hub = _do_nothing, self._refuse
        self._entered = False

    @property
    def name(self) -> str:
        return "the garbage collector"

    def throw(self, error: BaseException) -> None:
        """It is never parked."""

    def enter(self) -> None:
        self._before, self.loop.current = self.loop.current, self
        self._entered = True

    def leave(self) -> None:
        if self._entered:
            self._entered = False
            self.loop.current, self._before = self._before, None
            if self.unflushed_socket is not None:
                self.loop.to_flush.append(self.unflushed_socket)
                self.unflushed_socket = None
            if self.deadline_timer is not None:
                self.deadline_timer.cancel()
                self.deadline_timer = None

    def _refuse(self) -> None:
        assert self.wait is not None
        raise CannotParkError(
            f"{self.wait.name} would have to wait inside a garbage collection, in a __del__ or a weakref callback, and"
            f" the collector would be off meanwhile. Do it in a task of its own: spawn(...)"
        )


def _do_nothing() -> None:
    """It is not parked."""


class Scheduler:
    """The greenlet side of one loop: the hub, the workers, the tasks. It attaches itself as `loop.green`."""

    __slots__ = (
        "collector", "forevers", "hub", "idle", "looked", "loop", "no_parking", "spender", "spent", "tasks", "to_hub",
        "top_level", "workers",
    )  # fmt: skip

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.tasks: dict[Waiter, None] = {}
        self.idle: list[Worker] = []
        self.workers: dict[Worker, None] = {}
        self.top_level: TopLevel | None = None
        self.no_parking: Any = None  # the innermost no_parking() block that is open
        self.collector = Collector(loop)
        self.forevers: list[Any] = []  # each serve_forever that is at it
        self.spender: tuple[int, float] | None = None  # the id of the task that spent a budget last, and its turn
        self.looked = 0.0  # when it has done so first,
        self.spent = 0  # and how often since
        loop.green = self
        self.adopt()

    def adopt(self) -> None:
        """The current greenlet is the hub from now on."""
        self.hub = getcurrent()
        self.to_hub = self.hub.switch
        for worker in self.workers:
            if worker.parent is not self.hub:
                worker.parent = self.hub
                if worker.task is not None:
                    worker.task.to_hub = self.to_hub

    def reset(self) -> None:
        """End every task where it is, its `finally` blocks run; let go of the workers."""
        self.adopt()
        while self.tasks:  # they may spawn others while they end
            for task in list(self.tasks):
                if not task.done:
                    self._end(task)
        for worker in list(self.workers):
            worker.throw(GreenletExit)
        self.idle.clear()
        if self.top_level is not None:  # the loop cancels all timers
            self.top_level.deadline_timer = None
            for scope in self.top_level.scopes():
                scope._deadline = None

    def collection(self, begins: bool) -> None:
        """In this thread. A callback cannot park anyway."""
        if not begins:
            self.collector.leave()
        elif self.loop.current is not None or not self.loop.running:
            self.collector.enter()

    def forget_no_parking(self, task: Waiter) -> None:
        """The task has ended. A generator that has outlived it may hold its block open."""
        while self.no_parking is not None and self.no_parking.task is task:
            self.no_parking = self.no_parking.outer

    def has_waiters(self) -> bool:
        """Is there a task, or top-level code that waits?"""
        return bool(self.tasks) or (self.top_level is not None and self.top_level.wait is not None)

    def idle_deadline_timers(self) -> int:
        """How many waiters have a timer for their scopes' deadlines, and no scope with a deadline any more."""
        waiters = [waiter for waiter in (*self.tasks, self.top_level) if waiter is not None]
        timed = [waiter for waiter in waiters if waiter.deadline_timer is not None]
        return sum(all(scope._deadline is None for scope in waiter.scopes()) for waiter in timed)

    def table(self, most: int | None = None) -> str:
        """The tasks, and the top-level code if it waits, as text; `most` of them and how many more there are."""
        top = self.top_level
        running = self.loop.current if self.no_parking is None else self.no_parking.task
        waiting = [top] if top is not None and top.wait is not None else []
        text = table(islice(chain(waiting, self.tasks), most), running)
        more = len(waiting) + len(self.tasks) - most if most is not None else 0
        return f"{text}\n... and {more} more" if more > 0 else text

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
        for scope in task.scopes():  # shields as well
            scope._pending = reset
        while not task.done:
            task.worker.throw(GreenletExit)


def scheduler(loop: Loop) -> Scheduler:
    """The loop's greenlet side, made at first use."""
    return loop.green or Scheduler(loop)  # type: ignore[return-value]


def top_level(loop: Loop) -> TopLevel:
    """The plain code that runs the loop underneath itself, as a waiter, made at first use."""
    sched = scheduler(loop)
    if sched.top_level is None:
        sched.top_level = TopLevel(loop)
    return sched.top_level


def foreign(task: Waiter, call: str) -> CannotParkError:
    """What to raise where this task is current, and its code runs in a greenlet that is not its own."""
    return CannotParkError(
        f"{call} may have to wait, and was called in {getcurrent()!r}, which is none of this library's greenlets: to be"
        f" woken would resume task {task.name!r} in its place. Call it in the task itself, or in one made by spawn(...)"
    )


def end_forevers(loop: Loop) -> bool:
    """The loop was stopped: have each serve_forever drain, as at SIGTERM. False if there is none."""
    forevers = scheduler(loop).forevers
    for forever in forevers:
        forever.end()
    return bool(forevers)


def wake(task: Waiter, error: BaseException | None = None) -> bool:
    """Have the loop resume a parked task, with an error if one is given. False if it is not parked any more, or not for
    longer than its turn takes to come."""
    wait = task.wait
    if wait is None or wait.due:
        return False
    wait.undo(task.subject, task)
    task.wait = None
    task.loop.runnable.append(task.resume if error is None else Throw(task.throw, error))
    return True


def deliver_cancel(task: Waiter, pending: Cancelled | None) -> None:
    """From now on every wait of the task, beginning with the one that it is in, raises what is `pending`, if anything.

    Each time anew. What is raised only once, a KeyboardInterrupt, goes first.
    """
    if task.interrupt is None or isinstance(task.interrupt, Cancelled):
        task.interrupt = pending
    if pending is not None and task.wait is not None:
        wake(task, Cancelled(pending.reason))
