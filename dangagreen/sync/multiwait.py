"""Waiting for several things at once: wait, as_completed, select.

Rules: level-triggered: the task is woken by a change and then looks at the state itself, since what woke it may be gone
already. All that was arranged for one wait is undone as a whole. The exception of a failed task is reported to
`on_error` unless the task is returned to a caller. What does not belong here: when a source is ready (it says so).
"""

from __future__ import annotations

from _thread import get_ident
from collections import deque
from collections.abc import Generator, Iterable
from functools import partial
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypeVar, overload

from dangagreen import checks
from dangagreen.green.parking import checkpoint, park
from dangagreen.green.task_table import called
from dangagreen.green.tasks import Result, Task
from dangagreen.green.waiters import Waiter, WaitKind, wake
from dangagreen.loop.loop import Loop, current_loop
from dangagreen.loop.timers import Timer
from dangagreen.parks import parks


class Source(Protocol):
    """What `select` can wait for: `ready` is its state; it wakes tasks that watch it when it becomes ready."""

    @property
    def ready(self) -> bool: ...
    def _watch(self, task: Waiter, /) -> object: ...
    def _unwatch(self, task: Waiter, /) -> object: ...  # harmless if the task does not watch


Selectable: TypeAlias = Source | Timer
OneSource = TypeVar("OneSource", bound=Selectable)
Another = TypeVar("Another", bound=Selectable)
Third = TypeVar("Third", bound=Selectable)


# -- several tasks


@parks
def wait(
    tasks: Iterable[Task[Result]], timeout: float | None = None, until: Literal["all", "first"] = "all"
) -> tuple[set[Task[Result]], set[Task[Result]]]:
    """Parks until all of the tasks have ended, or with `until="first"` one of them. Returns two sets: (done, pending).

    After `timeout` seconds (None is no limit) it returns as well, without an exception. `tasks` is any iterable; each
    task counts once; with none it returns at once. The exception of a task in `done` is not reported to `on_error`.
    Raises TypeError for what is no task, ValueError for another `until`, RuntimeError for a task of another loop.
    """
    loop = current_loop()
    me = checkpoint(loop, "wait")
    if until not in ("all", "first"):
        raise ValueError(f'wait: until is "all" or "first", not {until!r}')
    if timeout is not None:
        timeout = checks.seconds("the timeout of wait", timeout)
    distinct = _distinct("wait", loop, tasks)
    gathering = _Gathering(loop, distinct)
    try:
        wanted = len(distinct) if until == "all" else min(1, len(distinct))
        if len(gathering.ended) < wanted:
            gathering.park_for(me, _WAIT, wanted, timeout)
        done = {gathering.take() for _ in range(len(gathering.ended))}
        return done, set(gathering.pending)
    finally:
        gathering.let_go()


@parks
def as_completed(tasks: Iterable[Task[Result]]) -> Generator[Task[Result], None, None]:
    """Parks until the next of the tasks has ended, in each step of the iteration, and yields it; each task once.

    Tasks that have ended already come first. The exception of a task that was yielded is not reported to `on_error`.
    The iteration may be abandoned at any point, and leaves nothing behind. Raises like `wait`.
    """
    loop = current_loop()
    return _as_completed(loop, _distinct("as_completed", loop, tasks))


def _as_completed(loop: Loop, tasks: dict[Task[Result], None]) -> Generator[Task[Result], None, None]:
    loop.check_thread("as_completed")
    gathering = _Gathering(loop, tasks)
    try:
        for _ in tasks:
            me = checkpoint(loop, "as_completed")
            if not gathering.ended:
                gathering.park_for(me, _AS_COMPLETED, 1, None)
            yield gathering.take()
    finally:
        if get_ident() == loop.thread or loop.closed:
            gathering.let_go()
        else:  # the last reference to the iterator went in another thread
            loop.call_soon_threadsafe(gathering.let_go)


class _Gathering(Generic[Result]):
    """The tasks of one `wait` or `as_completed`: which are pending, and which have ended and were not returned yet."""

    __slots__ = {
        "ended": "The tasks that have ended and were not returned yet, in order.",
        "loop": "The loop of all of them.",
        "pending": "The tasks that have not ended, each of which it watches.",
        "waiter": "The task that is parked here, or None.",
        "wanted": "How many have to be in `ended` for the waiter to be woken.",
    }

    def __init__(self, loop: Loop, tasks: dict[Task[Result], None]) -> None:
        self.loop = loop
        self.waiter: Waiter | None = None
        self.wanted = 0
        self.ended = deque(task for task in tasks if task.done)
        self.pending = dict.fromkeys(task for task in tasks if not task.done)
        for task in self.pending:
            task._watch(self)

    @parks
    def park_for(self, me: Waiter, call: WaitKind, wanted: int, timeout: float | None) -> None:
        """Parks until `wanted` tasks have ended, or for `timeout` seconds; raises no TimeoutError."""
        if me in self.pending:
            raise RuntimeError(f"{me!r} cannot wait for itself")
        self.waiter, self.wanted = me, wanted
        if timeout is None:
            return park(me, call, self)
        timer = self.loop.timers.add(self.loop.clock() + max(0.0, timeout), partial(wake, me))
        try:
            park(me, call, self)
        finally:
            timer.cancel()
        return None

    def _on_task_end(self, task: Task[Result]) -> None:
        """Called by a task that it watches, when that ends."""
        del self.pending[task]
        self.ended.append(task)
        if self.waiter is not None and len(self.ended) >= self.wanted:
            wake(self.waiter)

    def take(self) -> Task[Result]:
        """The next task that has ended, to be returned to the caller, who then owns its exception."""
        task = self.ended.popleft()
        if task._joiners is not None:  # it has failed, and others watch it as well
            task._unwatch(self)
        task._mark_retrieved()
        return task

    def let_go(self) -> None:
        """Watch no more. Called when the waiter runs, not when it is woken: what ends in between still counts."""
        for task in (*self.pending, *self.ended):
            task._unwatch(self)
        _report_unretrieved(self.loop, self.ended)

    def __repr__(self) -> str:
        return f"{len(self.pending)} task{'s' if len(self.pending) != 1 else ''}"


def _distinct(call: str, loop: Loop, tasks: Iterable[Task[Result]]) -> dict[Task[Result], None]:
    """The tasks, each once, in order. Raises TypeError for what is no task, RuntimeError for one of another loop."""
    if isinstance(tasks, Task):
        raise TypeError(f"{call} needs an iterable of tasks, not one: {call}([{tasks!r}])")
    distinct = dict.fromkeys(tasks)
    for task in distinct:
        if not isinstance(task, Task):
            raise TypeError(f"{call} needs tasks, as spawn returns them, not {task!r}")
        _check_loop(call, loop, task.loop, task)
    return distinct


def _check_loop(call: str, loop: Loop, owner: object, thing: object) -> None:
    """Raise RuntimeError, or ForeignThreadError, if the thing's `owner` is another loop."""
    if isinstance(owner, Loop) and owner is not loop:
        owner.check_thread(call)
        raise RuntimeError(f"{call}: {thing!r} belongs to another loop")


def _report_unretrieved(loop: Loop, tasks: Iterable[Task[Any]]) -> None:
    """Report the exceptions of the failed tasks among these that were returned to no caller."""
    current, loop.current = loop.current, None  # `on_error` must not park
    try:
        for task in tasks:
            task._report_if_unretrieved()
    finally:
        loop.current = current


def _forget_waiter(gathering: _Gathering[Any], _task: Waiter) -> None:
    """Undo what a parked `wait` or `as_completed` has arranged."""
    gathering.waiter = None


# -- several sources


@overload
def select(one: OneSource, another: Another, /) -> OneSource | Another: ...


@overload
def select(one: OneSource, another: Another, third: Third, /) -> OneSource | Another | Third: ...


@overload
def select(*sources: OneSource) -> OneSource: ...


@parks
def select(*sources: Any) -> Any:
    """Parks until one of the sources is ready, and returns it; of several the first in the order of the arguments.

    Level-triggered, and takes nothing from the source: do that before anything else may wait. A source is a task (ready
    when it has ended), a timer (when it has fired), a socket (a read would not wait), a queue or channel (`get` or
    `receive` would not wait), an event or a future (it is set). Raises ValueError if there is nothing to wait for: no
    source, or only cancelled timers; BusyError if another task is parked in a read of one of the sockets; TypeError
    for what is no source; RuntimeError for one of another loop.
    """
    loop = current_loop()
    me = checkpoint(loop, "select")
    selection = Selection(loop, sources)
    chosen = None
    try:
        while (chosen := selection.first_ready()) is None:
            selection.park(me)
    finally:
        selection.give_back(me, chosen)
    return chosen


class Selection:
    """The sources of one `select`, and which of them are being watched."""

    __slots__ = {
        "given": "The arguments, each once, in order.",
        "loop": "The loop of all of them.",
        "sources": "What is watched for each argument: itself, or a `_TimerSource` for a timer.",
        "watched": "The sources that watch was asked of, to be undone.",
    }

    def __init__(self, loop: Loop, given: tuple[Source | Timer, ...]) -> None:
        self.loop = loop
        self.given = list({id(source): source for source in given}.values())
        self.sources: list[Source] = [self._source(source) for source in self.given]
        self.watched: list[Source] = []

    def _source(self, given: Source | Timer) -> Source:
        """What to watch for an argument. Raises TypeError for what is no source, RuntimeError for another loop's."""
        if isinstance(given, Timer):
            _check_loop("select", self.loop, given._timers.owner, given)
            return _TimerSource(given)
        if not hasattr(given, "_watch"):
            one_of = "tasks, timers, sockets, queues, channels, events and futures"
            hint = (
                "its sources are its arguments, as in select(a, b)" if isinstance(given, Iterable) else f"only {one_of}"
            )
            raise TypeError(f"select cannot wait for {given!r}: {hint}")
        _check_loop("select", self.loop, getattr(given, "loop", self.loop), given)
        return given

    def first_ready(self) -> Source | Timer | None:
        """The first argument that is ready, or None."""
        for given, source in zip(self.given, self.sources, strict=True):
            if source.ready:
                return given
        return None

    @parks
    def park(self, me: Waiter) -> None:
        """Parks until one of them may have become ready. Raises ValueError if none of them ever can."""
        if all(isinstance(source, _TimerSource) and not source.timer.active for source in self.sources):
            why = "all its timers were cancelled" if self.sources else "it was given no source"
            raise ValueError(f"select has nothing to wait for: {why}")
        try:
            for source in self.sources:
                self.watched.append(source)
                source._watch(me)
            ready = self.first_ready()  # one may have become ready while the others were arranged
        except BaseException:
            self.undo(me)
            raise
        if ready is None:
            park(me, _SELECT, self)
        else:
            self.undo(me)

    def undo(self, me: Waiter) -> None:
        """Watch none of them any more."""
        watched, self.watched = self.watched, []
        for source in watched:
            source._unwatch(me)

    def give_back(self, me: Waiter, chosen: object) -> None:
        """At the end: the chosen task's exception is the caller's, those of other failed tasks are reported."""
        if isinstance(chosen, Task):
            chosen._mark_retrieved()
        tasks = [task for task in self.given if isinstance(task, Task)]
        for task in tasks:
            task._unwatch(me)
        _report_unretrieved(self.loop, tasks)

    def __repr__(self) -> str:
        some = ", ".join(f"task {called(one)!r}" if isinstance(one, Task) else repr(one) for one in self.given[:3])
        return some if len(self.given) <= 3 else f"{some} and {len(self.given) - 3} more"


class _TimerSource:
    """A timer as a source: to watch it is to set another timer, which is due right after it."""

    __slots__ = {"_behind": "The timer that wakes the task, while it watches.", "timer": "The timer to wait for."}

    def __init__(self, timer: Timer) -> None:
        self.timer = timer
        self._behind: Timer | None = None

    @property
    def ready(self) -> bool:
        return self.timer.fired

    def _watch(self, task: Waiter) -> None:
        if self.timer.active:
            self._behind = task.loop.timers.add(self.timer.deadline, partial(wake, task))

    def _unwatch(self, _task: Waiter) -> None:
        if self._behind is not None:
            self._behind.cancel()
            self._behind = None


_WAIT = WaitKind("wait", _forget_waiter, "{0} for {1!r}")
_AS_COMPLETED = WaitKind("as_completed", _forget_waiter, "{0} of {1!r}")
_SELECT = WaitKind("select", Selection.undo, "{0} of {1!r}")
