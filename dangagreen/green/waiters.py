"""Waiters, which are tasks and top-level code: what they wait for, and how they are woken.

Rules: a waiter is woken once, and only while it is parked; only the loop resumes it, at its turn. Nothing here knows
what a greenlet is: to switch is to call `resume`, `to_hub` or `resume_with`. What does not belong here: the way into a
wait (parking), the hub and the greenlets that run tasks (sched).
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from functools import partial
from types import CodeType
from typing import Any

from dangagreen.errors import Cancelled, CannotParkError
from dangagreen.loop.handlers import Resumable
from dangagreen.loop.loop import Loop
from dangagreen.loop.timers import Timer


class WaitKind:
    """One kind of wait: what tables and errors call it, and how its arrangement is undone."""

    __slots__ = {
        "by_thread": "True: it ends by what a thread does, or by a signal, so that no task need be stuck for ever.",
        "due": "True: the task only yields, and is not woken before its turn, which checks for cancellation then.",
        "name": "The call that waits.",
        "undo": "A function of (subject, task) that takes back what was arranged to wake the task.",
        "words": "A format of (name, subject) that describes a wait.",
    }

    def __init__(
        self,
        name: str,
        undo: Callable[[Any, Waiter], object],
        words: str = "{0} of {1!r}",
        due: bool = False,
        by_thread: bool = False,
    ) -> None:
        self.name = name
        self.undo = undo
        self.words = words
        self.due = due
        self.by_thread = by_thread

    def describe(self, subject: Any) -> str:
        """A wait for this subject, as text."""
        return self.words.format(self.name, subject)


class Waiter(Resumable):
    """What can be parked: a task, or top-level code. Base class of `Task`."""

    __slots__ = {
        "cancelled": "Its own cancellation, by `Task.cancel` or its group; or None.",
        "context": "The context (contextvars) that it runs in.",
        "deadline_timer": "A timer that fires at the earliest deadline of its scopes, or before; or None.",
        "done": "Whether it has ended.",
        "loop": "The loop that it runs on.",
        "scope": "Its innermost open scope, or None.",
        "subject": "What it is parked for: the object; or the error that it is to raise, after `resume_with`.",
        "to_hub": "Switches from it to the hub; returns true if it is to raise the error in `subject`.",
        "wait": "What it is parked for: the kind of wait. None while it runs, and once it was woken.",
        "worker": "The greenlet that runs it; None before it starts and after it has ended.",
    }

    group: Any = None  # the TaskGroup that it belongs to
    origin: tuple[CodeType, int] | None = None  # (code, instruction) of the call that has made it
    context: Context | None
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
        self.worker: Any = None
        self.done = False

    @property
    def name(self) -> str:
        return "top-level code"

    def in_words(self) -> str:
        """What has run, in reports of slow code."""
        return f"task {self.name!r}"

    def _wake(self, error: BaseException | None = None, undone: bool = False) -> bool:
        """Have the loop resume it, if it is parked, with an error to raise if one is given. The first wake counts.

        `undone`: the caller has taken back what was arranged to wake it. Returns False, and does nothing, if it is not
        parked any more, or only yields.
        """
        wait = self.wait
        if wait is None or wait.due:
            return False
        if not undone:
            wait.undo(self.subject, self)
        self.wait = None
        if error is None:
            self.loop.runnable.append(self.resume)
        else:
            call = Throw(self.resume_with, error)
            call.task = self
            self.loop.runnable.append(call)
        return True

    @property
    def waits_for(self) -> str | None:
        """What it is parked for, as text; None if it is not parked."""
        if self.wait is None:
            return None
        return self.wait.describe(self.subject)

    def start(self, ended: Any = None) -> None:
        """Run it in a worker until it first parks. Called on the hub; or by a worker, `ended`, that runs it next."""
        raise NotImplementedError

    def start_next(self, worker: Any) -> bool:
        """Have the worker, in which it has ended, run the next task, if that is to be started. Returns whether."""
        raise NotImplementedError

    def set_hub(self, to_hub: Callable[[], object]) -> None:
        """Have `to_hub` switch from it to the hub from now on."""
        self.to_hub = to_hub

    def resume_with(self, error: BaseException) -> None:
        """Resume it with an error to raise. One that has not started is ended: it is cancelled."""
        if self.worker is None:
            self.start()
        else:  # it raises the error itself, after the switch: so `__context__` is what it was handling
            self.subject = error
            self.worker.resume(True)

    @property
    def cancel_seen(self) -> Cancelled | None:
        """The cancellation that interrupts a wait that it makes now, or None."""
        seen: Cancelled | None = self.cancelled if self.scope is None else self.scope._cancel_seen
        return seen

    def update_interrupt(self) -> None:
        """Set `interrupt` by its scopes and its own cancellation. A KeyboardInterrupt stays until it was raised."""
        if self.interrupt is None or isinstance(self.interrupt, Cancelled):
            self.interrupt = self.cancel_seen

    def _on_task_end(self, task: Waiter) -> None:
        """Called by a task that it joins or watches, at its end."""
        if self.subject is task and self.wait is not None:  # `wake`, with nothing to undo: 3 percent of a spawn
            self.wait = None
            self.loop.runnable.append(self.resume)
        else:
            wake(self)

    def ended_by(self) -> BaseException | None:
        """The exception that has ended it, if one has."""
        return None

    def function(self) -> object:
        """The function that it runs, for its place in the sources; None if that is not known any more."""

    def run(self) -> bool | None:
        """Run it to its end. Called in its worker. Returns whether `start_next` is worth a try."""
        raise NotImplementedError

    def end(self, error: BaseException | None) -> object:
        """Note that it has returned, or raised `error`."""
        raise NotImplementedError

    def _leave_to_parent(self) -> None:
        """In a forked child: it goes on in the parent, and there alone. None of its code runs here."""

    def end_unstarted(self, error: BaseException) -> None:
        """Note that it was cancelled before it started."""
        self.end(error)


class Roster:
    """What a loop knows of its tasks: base class of `Scheduler`."""

    __slots__ = {
        "ended": "The name of the task, or of whatever else a worker ran, that has ended last.",
        "ended_from": "The `origin` of that task.",
        "from_tasks": "`to_hub` with the guard of `guard_parking` before it, if there is one: the `to_hub` of tasks.",
        "idle": "Workers without a task, kept for the next ones.",
        "no_parking": "The innermost no_parking() block that is open, or None.",
        "tasks": "The tasks that have not ended, in the order of their making.",
    }

    ended: str
    ended_from: tuple[CodeType, int] | None
    from_tasks: Callable[[], Any]
    tasks: dict[Waiter, None]

    def __init__(self) -> None:
        self.idle: list[Any] = []
        self.no_parking: Any = None

    def note_end(self, waiter: Waiter) -> None:
        """Note, for reports of slow code, that this one has ended last."""
        self.ended, self.ended_from = waiter.name, waiter.origin

    def forget_no_parking(self, task: Waiter) -> None:
        """Close the `no_parking()` blocks of a task that has ended: a generator may have left one open."""
        while self.no_parking is not None and self.no_parking.task is task:
            self.no_parking = self.no_parking.outer


class Throw(partial[None]):
    """A queued call that resumes a task with an error: the task's `resume_with`, and the error."""

    __slots__ = {"task": "The task."}

    task: Waiter


wake = Waiter._wake


_notes: list[Callable[[Waiter, Cancelled], object]] = []


def watch_cancellations(note: Callable[[Waiter, Cancelled], object]) -> None:
    """Call `note` with each task that is cancelled from now on, and with the cancellation, in the code that does so."""
    _notes.append(note)


def deliver_cancel(task: Waiter, pending: Cancelled | None) -> None:
    """Have each wait of the task, from the one that it is in on, raise Cancelled with the reason of `pending`, if any.

    A KeyboardInterrupt that is still to be raised, once, goes first.
    """
    if task.interrupt is None or isinstance(task.interrupt, Cancelled):
        task.interrupt = pending
    if pending is not None:
        for note in _notes:
            note(task, pending)
    if pending is not None and task.wait is not None:
        error = Cancelled(pending.reason)
        error.waited = task.wait.name, id(task.subject)
        wake(task, error)


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
        self.to_hub = self.run_loop

    def _resume(self) -> None:
        self._woken = True
        self.wait = None  # a second wake before the end of the turn does nothing

    def resume_with(self, error: BaseException) -> None:
        self.subject, self._thrown = error, True
        self._resume()

    def run_loop(self) -> bool:
        """Run the loop until it is woken. Returns whether it is to raise the error in `subject`."""
        self._woken = self._thrown = False
        try:
            while not self._woken:
                self.loop.run(lambda: self._woken)
                if not self._woken:
                    end_forevers(self.loop)
        except BaseException:  # Ctrl-C: a resumption may be queued already, and is dropped
            ready = self.loop.runnable
            kept = [call for call in ready if call != self.resume and not (type(call) is Throw and call.task is self)]
            if len(kept) < len(ready):
                ready.clear()
                ready.extend(kept)
            raise
        return self._thrown


def end_forevers(loop: Loop) -> bool:
    """The loop was stopped: have each serve_forever drain, as at SIGTERM. False if there is none."""
    sched: Any = loop.green
    for forever in sched.forevers:
        forever.end()
    return bool(sched.forevers)


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

    def resume_with(self, error: BaseException) -> None:
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
