"""Tasks: greenlets that wait for things, and the one door through which they all do.

Rules: whatever a task waits for, somebody is first arranged to wake it (the caller's part), then it parks here, then
it is woken: the first wake counts and undoes the arrangement. Only the greenlet that runs the loop, the hub, resumes
tasks; tasks never switch to each other. This module alone imports greenlet. What does not belong here: sockets.
"""

from __future__ import annotations

import sys
from _thread import get_ident
from collections.abc import Callable
from contextvars import Context, copy_context
from types import CodeType, FrameType
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

from dangagreen.core.errors import Cancelled, CannotParkError, ErrorContext, TaskCancelledError
from dangagreen.core.loop import Loop, current_loop

_NO_KWARGS: dict[str, Any] = {}
_IDLE_WORKERS = 256  # greenlets kept for the next tasks: a cold one costs about ten times a recycled one


class Wait:
    """One kind of waiting: its name, how its arrangement is undone, as a function of (subject, task), and its words."""

    __slots__ = ("name", "undo", "words")

    def __init__(self, name: str, undo: Callable[[Any, Task], object], words: str = "{0} of {1!r}") -> None:
        self.name = name
        self.undo = undo
        self.words = words


class Task:
    """A function that runs in a greenlet of its own and may wait. Made by `spawn`.

    `done` is True once it has ended; `name` may be assigned. `result()` and `cancel()` never wait, `join()` does.
    """

    __slots__ = (
        "__weakref__", "_args", "_context", "_error", "_function", "_joiners", "_kwargs", "_name", "_named_after",
        "_origin", "_result", "_worker", "done", "interrupt", "loop", "owned", "resume", "subject", "throw", "to_hub",
        "wait",
    )  # fmt: skip

    def __init__(
        self,
        loop: Loop,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: Context,
        named_after: Callable[..., Any] | None = None,
    ) -> None:
        self.loop = loop
        self._function: Callable[..., Any] | None = function
        self._named_after: Callable[..., Any] | None = named_after or function
        self._args = args
        self._kwargs = kwargs
        self._context: Context | None = context
        self._name: str | None = None
        self._origin: tuple[CodeType, int] | None = None
        self._worker: Worker | None = None
        self.wait: Wait | None = None  # what it is parked for; None while it runs, and once it was woken
        self.subject: Any = None
        self.interrupt: BaseException | None = None  # what every parking call raises, on entry
        self.done = False
        self.owned = False  # somebody else takes care of its failure
        self._result: Any = None
        self._error: BaseException | None = None
        self._joiners: list[Task] | None = None
        (loop.green or Scheduler(loop)).tasks[self] = None  # type: ignore[attr-defined]

    @property
    def name(self) -> str:
        if self._name is None:
            self._name = getattr(self._named_after, "__qualname__", None) or repr(self._named_after)
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        self._name = name

    @property
    def waits_for(self) -> str | None:
        """What the task is parked for, in words; None if it is not parked."""
        if self.wait is None:
            return None
        return self.wait.words.format(self.wait.name, self.subject)

    @property
    def spawned_at(self) -> str | None:
        """ "file:line" of the spawn."""
        if self._origin is None:
            return None
        code, instruction = self._origin
        line = next((line for start, end, line in code.co_lines() if start <= instruction < end), None)
        return f"{code.co_filename}:{line}"

    def join(self, timeout: float | None = None) -> None:
        """Parks until the task has ended, however it ended. Raises TimeoutError after `timeout` seconds."""
        me = entering(self.loop, "join")
        if self.done:
            return
        if self is me:
            raise RuntimeError(f"{self!r} cannot join itself")
        if self._joiners is None:
            self._joiners = []
        self._joiners.append(me)
        park_for(me, _JOIN, self, timeout)

    def result(self) -> Any:
        """What the function returned, or raise what it raised; TaskCancelledError if it was cancelled.

        Raises RuntimeError while the task is still running: `join()` it first.
        """
        if not self.done:
            raise RuntimeError(f"{self!r} has no result yet: join() it first")
        if isinstance(self._error, Cancelled):
            message = f"task {self.name!r} was cancelled"
            reason = self._error.reason
            raise TaskCancelledError(message if reason is None else f"{message}: {reason}", reason)
        if self._error is not None:
            raise self._error
        return self._result

    def cancel(self, reason: object = None) -> bool:
        """Raise Cancelled at the task's wait and at each later one. Before it has started, it never runs.

        True unless the task had ended already.
        """
        self.loop.check_thread("cancel")
        if self.done:
            return False
        if not isinstance(self.interrupt, Cancelled):
            self.interrupt = Cancelled(reason)
            wake(self, Cancelled(reason))
        return True

    def __repr__(self) -> str:
        if self.done:
            state = "ended"
        elif self.wait is not None:
            state = f"parked in {self.waits_for}"
        else:
            state = "not started" if self._worker is None else "running"
        return f"<Task {self.name}, {state}>"

    # -- its life, on the hub and in its worker

    def start(self) -> None:
        """Run until it first parks. Only on the hub."""
        if self.interrupt is not None:
            self._end(None, self.interrupt)
            return
        sched: Scheduler = self.loop.green  # type: ignore[assignment]
        worker = sched.idle.pop() if sched.idle else Worker(sched)
        worker.task = self
        worker.gr_context = self._context
        self._worker = worker
        self.resume = worker.switch
        self.throw = worker.throw
        self.to_hub = sched.to_hub
        worker.switch()

    def run(self) -> None:
        """Call the function. Only in a worker."""
        self.loop.current = self
        result = error = None
        try:
            result = self._function(*self._args, **self._kwargs)  # type: ignore[misc]
        except BaseException as raised:
            error = raised
        self.loop.current = None
        self._end(result, error)
        if error is not None and not isinstance(error, (Exception, Cancelled)):
            raise error  # KeyboardInterrupt, SystemExit, GreenletExit: out of the worker, to the hub

    def _end(self, result: Any, error: BaseException | None) -> None:
        self.done = True
        self._result = result
        self._error = error
        if self._named_after is self._function:
            self.name  # noqa: B018  a function that a closure made goes, its name stays
            self._named_after = None
        self._function = self._worker = self._context = None
        self._args, self._kwargs = (), _NO_KWARGS
        del self.loop.green.tasks[self]  # type: ignore[union-attr]
        joiners, self._joiners = self._joiners, None
        for joiner in joiners or ():
            wake(joiner)
        if isinstance(error, Exception) and not joiners and not self.owned:
            where = f", spawned at {self.spawned_at}," if self._origin else ""
            self.loop.report(ErrorContext(f"task {self.name!r}{where} failed", error, self))


class Worker(greenlet):
    """A greenlet that runs one task after another."""

    __slots__ = ("sched", "task")

    task: Task | None

    def __init__(self, sched: Scheduler) -> None:
        super().__init__(parent=sched.hub)
        self.sched = sched
        sched.workers[self] = None

    def run(self) -> None:
        sched = self.sched
        try:
            while True:
                self.task.run()  # type: ignore[union-attr]
                self.task = None
                self.gr_context = None
                if len(sched.idle) >= _IDLE_WORKERS:
                    return
                sched.idle.append(self)
                sched.to_hub()
        finally:
            del sched.workers[self]


class TopLevel(Task):
    """Plain code outside any task that makes a call which waits: the loop runs underneath it for so long."""

    __slots__ = ("_raise", "_woken")

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop, self.start, (), {}, copy_context())
        del scheduler(loop).tasks[self]
        self._name = "top-level code"
        self.resume = self._resume
        self.throw = self._throw  # type: ignore[assignment]
        self.to_hub = self._run_loop

    @property
    def task(self) -> Task:
        return self

    def _resume(self) -> None:
        self._woken = True

    def _throw(self, error: BaseException) -> None:
        self._raise: BaseException | None = error
        self._resume()

    def _run_loop(self) -> None:
        self._woken, self._raise = False, None
        try:
            while not self._woken:
                self.loop.run(lambda: self._woken)
        except BaseException:
            if self.wait is not None:
                self.wait.undo(self.subject, self)
            ready = self.loop._ready
            kept = [entry for entry in ready if entry[0] is not self.resume and entry[0] is not self.throw]
            ready.clear()
            ready.extend(kept)
            raise
        if self._raise is not None:
            raise self._raise


class Scheduler:
    """The greenlet side of one loop: the hub, the workers, the tasks. It attaches itself as `loop.green`."""

    __slots__ = ("hub", "idle", "loop", "tasks", "to_hub", "top_level", "workers")

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.tasks: dict[Task, None] = {}
        self.idle: list[Worker] = []
        self.workers: dict[Worker, None] = {}
        self.top_level: TopLevel | None = None
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
        for task in list(self.tasks):
            if task._worker is None:
                task._end(None, Cancelled("the loop was reset"))
            else:
                if task.wait is not None:
                    task.wait.undo(task.subject, task)
                    task.wait = None
                task.interrupt = Cancelled("the loop was reset")
                while not task.done:
                    task._worker.throw(GreenletExit)
        for worker in list(self.workers):
            worker.throw(GreenletExit)
        self.idle.clear()


def scheduler(loop: Loop) -> Scheduler:
    """The loop's greenlet side, made at first use."""
    return loop.green or Scheduler(loop)  # type: ignore[return-value]


# -- the door


def entering(loop: Loop, call: str) -> Task:
    """The task that makes this call, which may park. Every such call begins here, also when it need not wait.

    Raises what cancels the task; CannotParkError in a callback; ForeignThreadError in another thread.
    """
    if get_ident() != loop.thread:
        loop.check_thread(call)
    task: Task | None = loop.current
    if task is None:
        if loop.running:
            raise CannotParkError(_cannot_park(call))
        sched = scheduler(loop)
        task = sched.top_level = sched.top_level or TopLevel(loop)
    if task.interrupt is not None:
        raise interrupted(task)
    return task


def interrupted(task: Task) -> BaseException:
    """What to raise at a wait of a task that has been interrupted: Cancelled anew each time, anything else once."""
    error = task.interrupt
    assert error is not None
    if isinstance(error, Cancelled):
        return Cancelled(error.reason)
    task.interrupt = None
    return error


def park(task: Task, wait: Wait, subject: Any) -> None:
    """Parks until somebody wakes the task. The caller has arranged for that, and `wait` tells how to undo it."""
    task.wait = wait
    task.subject = subject
    loop = task.loop
    loop.current = None
    try:
        task.to_hub()
    finally:
        task.wait = task.subject = None
        if task.__class__ is not TopLevel:
            loop.current = task


def park_for(task: Task, wait: Wait, subject: Any, timeout: float | None) -> None:
    """The same, and raises TimeoutError after `timeout` seconds (None is no limit)."""
    if timeout is None:
        return park(task, wait, subject)

    def time_is_up() -> None:
        wake(task, TimeoutError(f"{wait.name} of {subject!r} took longer than {timeout} s"))

    timer = task.loop.timers.add(task.loop.clock() + timeout, time_is_up)
    try:
        park(task, wait, subject)
    finally:
        timer.cancel()
    return None


def wake(task: Task, error: BaseException | None = None) -> bool:
    """Have the loop resume a parked task, with an error if one is given. False if it is not parked any more."""
    wait = task.wait
    if wait is None:
        return False
    wait.undo(task.subject, task)
    task.wait = None
    if error is None:
        task.loop._ready.append((task.resume, ()))
    else:
        task.loop._ready.append((task.throw, (error,)))
    return True


def parked_task(resume: Any) -> Task:
    """The task that a `resume` callable belongs to."""
    task: Task = resume.__self__.task
    return task


def _cannot_park(call: str) -> str:
    """Say which callback made the call, from the frames between the loop and here."""
    frame: FrameType | None = sys._getframe(2)
    callback = None
    while frame is not None and (module := frame.f_globals.get("__name__", "")) != "dangagreen.core.loop":
        if not module.startswith("dangagreen."):
            callback = frame.f_code.co_qualname
        frame = frame.f_back
    return (
        f"{call} may have to wait, and was called in the callback {callback or '?'}, which runs on the loop itself, so"
        f" that nothing else could run meanwhile. Do it in a task: spawn(...)"
    )


# -- what users call


def spawn(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Task:
    """Run `function(*args, **kwargs)` in a task of its own, soon, in a copy of this context."""
    if not callable(function):
        raise TypeError(f"spawn needs a function, not {function!r}: write spawn(f, x) for f(x)")
    loop = current_loop()
    task = Task(loop, function, args, kwargs, copy_context())
    frame = sys._getframe(1)
    task._origin = (frame.f_code, frame.f_lasti)
    loop._ready.append((task.start, ()))
    return task


def sleep(seconds: float) -> None:
    """Parks until `seconds` have passed; 0, or less, lets everybody else run once."""
    loop = current_loop()
    task: Task | None = loop.current
    if task is None or task.interrupt is not None:
        task = entering(loop, "sleep")
    if seconds > 0:
        park(task, _SLEEP, loop.timers.add(loop.clock() + seconds, task.resume))
    else:
        loop._ready.append((task.resume, ()))
        park(task, _YIELD, None)


def current_task() -> Task | None:
    """The task that runs now; None in a callback and in top-level code."""
    task: Task | None = current_loop().current
    return task


def _undo_yield(_subject: Any, task: Task) -> None:
    task.loop._ready.remove((task.resume, ()))


_JOIN = Wait("join", lambda joined, task: joined._joiners is not None and joined._joiners.remove(task))
_SLEEP = Wait("sleep", lambda timer, task: timer.cancel(), "{0} until {1.deadline:.3f}")
_YIELD = Wait("sleep(0)", _undo_yield, "{0}")
