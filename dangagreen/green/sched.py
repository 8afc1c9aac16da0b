"""The scheduler: the hub, the waiters that it resumes (tasks and top-level code), and the greenlets that run tasks.

Rules: only the greenlet that runs the loop, the hub, resumes tasks; tasks never switch to each other. This module alone
imports greenlet. What does not belong here: the way into a wait (parking).
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
    """One kind of wait: what tables and errors call it, and how its arrangement is undone."""

    __slots__ = {
        "due": "True: the task only yields, and is not woken before its turn, which checks for cancellation then.",
        "name": "The call that waits.",
        "undo": "A function of (subject, task) that takes back what was arranged to wake the task.",
        "words": "A format of (name, subject) that describes a wait.",
    }

    def __init__(
        self, name: str, undo: Callable[[Any, Waiter], object], words: str = "{0} of {1!r}", due: bool = False
    ) -> None:
        self.name = name
        self.undo = undo
        self.words = words
        self.due = due


class Waiter:
    """What can be parked: a task, or top-level code. Base class of `Task`."""

    __slots__ = {
        "cancelled": "Its own cancellation, by `Task.cancel` or its group; or None.",
        "context": "The context (contextvars) that it runs in.",
        "deadline_timer": "A timer that fires at the earliest deadline of its scopes, or before; or None.",
        "done": "Whether it has ended.",
        "interrupt": "What each call that may park raises: by `cancelled` and its scopes; or by Ctrl-C; or None.",
        "loop": "The loop that it runs on.",
        "resume": "Switches to it. For the hub only.",
        "scope": "Its innermost open scope, or None.",
        "subject": "What it is parked for: the object; or the error that it is to raise, after `throw`.",
        "to_hub": "Switches from it to the hub; returns true if it is to raise the error in `subject`.",
        "unflushed_socket": "The socket that it wrote to last, whose queue is sent when it parks or ends; or None.",
        "wait": "What it is parked for: the kind of wait. None while it runs, and once it was woken.",
        "worker": "The greenlet that runs it; None before it starts and after it has ended.",
    }

    group: Any = None  # the TaskGroup that it belongs to
    context: Context | None
    resume: Callable[[], object]
    to_hub: Callable[[], object]
    subject: Any

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.wait: WaitKind | None = None
        self.interrupt: BaseException | None = None
        self.cancelled: Cancelled | None = None
        self.scope: Any = None
        self.deadline_timer: Timer | None = None
        self.unflushed_socket: Any = None
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
        """What it is parked for, as text; None if it is not parked."""
        if self.wait is None:
            return None
        return self.wait.words.format(self.wait.name, self.subject)

    def start(self) -> None:
        """Run it in a worker until it first parks. Called on the hub only."""
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
        """Resume it with an error to raise. One that has not started is ended: it is cancelled."""
        if self.worker is None:
            self.start()
        else:  # it raises the error itself, after the switch: so `__context__` is what it was handling
            self.subject = error
            self.worker.switch(True)

    def scopes(self) -> Iterator[Any]:
        """The open scopes, from the innermost out."""
        scope = self.scope
        while scope is not None:
            yield scope
            scope = scope._parent

    def update_interrupt(self) -> None:
        """Set `interrupt` by its scopes and its own cancellation. A KeyboardInterrupt stays until it was raised."""
        if self.interrupt is None or isinstance(self.interrupt, Cancelled):
            self.interrupt = self.cancelled if self.scope is None else self.scope._pending

    def _on_task_end(self, task: Waiter) -> None:
        """Called by a task that it joins or watches, at its end."""
        if self.subject is task and self.wait is not None:  # `wake`, with nothing to undo: 3 percent of a spawn
            self.wait = None
            self.loop.runnable.append(self.resume)
        else:
            wake(self)

    def run(self) -> None:
        """Run it to its end. Called in its worker."""
        raise NotImplementedError

    def end(self, error: BaseException | None) -> None:
        """Note that it has returned, or raised `error`."""
        raise NotImplementedError

    def end_unstarted(self, error: BaseException) -> None:
        """Note that it was cancelled before it started."""
        self.end(error)


class Throw(partial[None]):
    """A queued call that resumes a task with an error: its `throw`, and the error."""

    __slots__ = ()


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
        self.resume = self.switch
        if not sched.workers:
            sched.loop._close_with_thread()  # a greenlet cannot be resumed in another thread
        sched.workers[self] = None


def _work() -> None:
    """The loop of a worker. As a method it would add a tenth to the stack that each parked task keeps."""
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
    """Top-level code, outside any task, that makes a call which waits: the loop runs underneath it meanwhile."""

    __slots__ = {
        "_thrown": "Whether it was woken to raise the error in `subject`.",
        "_woken": "Whether it was woken since the loop began to run underneath it.",
        "turned": "When the loop last ran underneath it, by the loop's clock.",
    }

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop)
        self.turned = loop.clock()
        self.resume = self._resume
        self.to_hub = self._run_loop

    def _resume(self) -> None:
        self._woken = True
        self.wait = None  # a second wake before the end of the turn does nothing

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
        except BaseException:  # Ctrl-C: a resumption may be queued already, and is dropped
            ours = (self.resume, self.throw)
            kept = [call for call in ready if (call.func if type(call) is Throw else call) not in ours]
            if len(kept) < len(ready):
                ready.clear()
                ready.extend(kept)
            raise
        return self._thrown


class Collector(Waiter):
    """Stands for the task, or top-level code, in which a garbage collection is in progress, until that is over.

    What it calls, by a `__del__` or a weakref's callback, is refused where it would wait. It has a place of its own, as
    it may strike in the middle of a wait of that task. So it costs nothing to who parks otherwise.
    """

    __slots__ = {
        "_before": "The current task when the collection began.",
        "_entered": "Whether it is the current task.",
    }

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop)
        self.resume, self.to_hub = _do_nothing, self._refuse
        self._entered = False

    @property
    def name(self) -> str:
        return "the garbage collector"

    def throw(self, error: BaseException) -> None:
        """Nothing to do: a collector is never parked."""

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
    """The `resume` of a collector, which is never parked."""


class Scheduler:
    """The greenlet side of one loop: the hub, the workers, the tasks. It attaches itself as `loop.green`."""

    __slots__ = {
        "collector": "Stands for the current task during a garbage collection.",
        "forevers": "Each serve_forever that waits.",
        "hub": "The greenlet that runs the loop.",
        "idle": "Workers without a task, kept for the next ones.",
        "looked": "The clock's time when `spender` first spent a budget in this turn.",
        "loop": "The loop.",
        "no_parking": "The innermost no_parking() block that is open, or None.",
        "spender": "(id of the task, turn) of the task that last spent a budget of calls; None at first.",
        "spent": "How many budgets `spender` has spent in this turn.",
        "tasks": "The tasks that have not ended, in the order of their making.",
        "to_hub": "Switches to the hub.",
        "top_level": "The waiter that stands for top-level code, or None.",
        "workers": "All workers, idle or not.",
    }

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.tasks: dict[Waiter, None] = {}
        self.idle: list[Worker] = []
        self.workers: dict[Worker, None] = {}
        self.top_level: TopLevel | None = None
        self.no_parking: Any = None
        self.collector = Collector(loop)
        self.forevers: list[Any] = []
        self.spender: tuple[int, float] | None = None
        self.looked = 0.0
        self.spent = 0
        loop.green = self
        self.adopt()

    def adopt(self) -> None:
        """Make the current greenlet the hub."""
        self.hub = getcurrent()
        self.to_hub = self.hub.switch
        for worker in self.workers:
            if worker.parent is not self.hub:
                worker.parent = self.hub
                if worker.task is not None:
                    worker.task.to_hub = self.to_hub

    def reset(self) -> None:
        """End every task where it is parked, running its `finally` blocks, and free the workers."""
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
        """A garbage collection begins, or is over, in this thread. (In a callback nothing may park anyway.)"""
        if not begins:
            self.collector.leave()
        elif self.loop.current is not None or not self.loop.running:
            self.collector.enter()

    def forget_no_parking(self, task: Waiter) -> None:
        """Close the `no_parking()` blocks of a task that has ended: a generator may have left one open."""
        while self.no_parking is not None and self.no_parking.task is task:
            self.no_parking = self.no_parking.outer

    def has_waiters(self) -> bool:
        """Whether there is a task, or top-level code that waits."""
        return bool(self.tasks) or (self.top_level is not None and self.top_level.wait is not None)

    def idle_deadline_timers(self) -> int:
        """How many deadline timers are set whose waiters have no scope with a deadline any more."""
        waiters = [waiter for waiter in (*self.tasks, self.top_level) if waiter is not None]
        timed = [waiter for waiter in waiters if waiter.deadline_timer is not None]
        return sum(all(scope._deadline is None for scope in waiter.scopes()) for waiter in timed)

    def table(self, most: int | None = None) -> str:
        """The table of tasks, and of top-level code if it waits; of more than `most` only the number of the others."""
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
    """The scheduler of a loop, made at first use."""
    return loop.green or Scheduler(loop)  # type: ignore[return-value]


def top_level(loop: Loop) -> TopLevel:
    """The waiter that stands for the loop's top-level code, made at first use."""
    sched = scheduler(loop)
    if sched.top_level is None:
        sched.top_level = TopLevel(loop)
    return sched.top_level


def foreign(task: Waiter, call: str) -> CannotParkError:
    """The error for a call that this task seems to make, in a greenlet that is not its own."""
    return CannotParkError(
        f"{call} may have to wait, and was called in {getcurrent()!r}, which is not one of this library's greenlets: a"
        f" wake-up would resume task {task.name!r} instead. Call it in the task itself, or in one made by spawn(...)"
    )


def end_forevers(loop: Loop) -> bool:
    """Have each serve_forever drain, as at SIGTERM, since the loop was stopped. Returns False if there is none."""
    forevers = scheduler(loop).forevers
    for forever in forevers:
        forever.end()
    return bool(forevers)


def wake(task: Waiter, error: BaseException | None = None) -> bool:
    """Have the loop resume a parked task, with an error to raise if one is given. The first wake counts.

    Returns False, and does nothing, if the task is not parked any more, or only yields.
    """
    wait = task.wait
    if wait is None or wait.due:
        return False
    wait.undo(task.subject, task)
    task.wait = None
    task.loop.runnable.append(task.resume if error is None else Throw(task.throw, error))
    return True


def deliver_cancel(task: Waiter, pending: Cancelled | None) -> None:
    """Have each wait of the task, from the one that it is in on, raise Cancelled with the reason of `pending`, if any.

    A KeyboardInterrupt that is still to be raised, once, goes first.
    """
    if task.interrupt is None or isinstance(task.interrupt, Cancelled):
        task.interrupt = pending
    if pending is not None and task.wait is not None:
        wake(task, Cancelled(pending.reason))
