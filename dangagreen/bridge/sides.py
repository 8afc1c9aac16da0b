"""Which side of the border code is on: asyncio's or ours, and which asyncio loops a loop of ours lives with.

Rules: while coroutines and callbacks of asyncio run, that loop is the running one, and nothing may park; while tasks
and callbacks of ours run, asyncio has no running loop at all, so that none of them sees a loop that it is not in. Each
switch between the two goes through `Border`. What does not belong here: who waits for what.
"""

from __future__ import annotations

import sys
import threading
from asyncio import (
    AbstractEventLoop,
    Future,
    Task,
    _get_running_loop,
    _set_running_loop,
    all_tasks,
    current_task,
)
from asyncio.tasks import _unregister_task
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import Any, NamedTuple
from weakref import WeakSet

from dangagreen.errors import CannotParkError, ForeignThreadError
from dangagreen.frames import is_library, is_ours, line_of
from dangagreen.green.parking import NoParking
from dangagreen.green.sched import guard_parking, scheduler
from dangagreen.green.waiters import Waiter, WaitKind, wake
from dangagreen.loop.error_log import log
from dangagreen.loop.loop import Loop


class _Await(WaitKind):
    """Of a task that waits for a future of asyncio's."""

    __slots__ = ()

    def describe(self, subject: Any) -> str:
        """With where its coroutine is, from the innermost out."""
        if not isinstance(subject, Task):
            return super().describe(subject)
        coroutine = getattr(subject.get_coro(), "__qualname__", "?")
        return f"{self.name} of {coroutine} at {' < '.join(places_of(subject)) or '?'}"


AWAIT = _Await("await_", lambda _future, _task: None)
HOSTING = WaitKind("run", lambda _host, _task: None, "{0} of {1.aio!r}")
home_of_context: ContextVar[AbstractEventLoop | None] = ContextVar("dangagreen.bridge", default=None)


class Coroutines(NoParking):
    """The block that is open while asyncio's coroutines and callbacks run: nothing may park in it."""

    __slots__ = ()

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop)
        self.task = self.outer = None
        self.caller = "asyncio"

    def refuse(self, call: str) -> CannotParkError:
        cure = "await it" if call == "await_" else "await to_task(f, ...)"
        return CannotParkError(
            f"{call} may have to wait, and was called in a coroutine, or a callback, of asyncio, all of which would"
            f" wait with it. In a coroutine {cure}"
        )


def check_no_loop_runs(call: str) -> None:
    """Raise CannotParkError inside an asyncio loop that knows nothing of ours, whose thread it would stop."""
    if (aio := _get_running_loop()) is not None:
        raise CannotParkError(
            f"{call} may have to wait, and was called inside {aio!r}, which would stop: it neither runs on a loop of"
            f" dangagreen nor hosts one. In a task use asyncio.run(main(), loop_factory=bridge.EventLoop) or"
            f" bridge.run(main()); elsewhere `async with bridge.guest()` and await to_task(f, ...)"
        )


def foreign_loop(what: str, loop: Any, words: str) -> RuntimeError:
    """The error for something of this loop, asyncio's or ours, that was awaited where it cannot be."""
    threads = {thread.ident: repr(thread.name) for thread in threading.enumerate()}
    owner = getattr(loop, "thread", None) or getattr(loop, "_thread_id", None)  # of asyncio's only while they run
    if owner == threading.get_ident() or owner is None:
        return RuntimeError(f"{what}, {words}")
    here = threads.get(threading.get_ident())
    return ForeignThreadError(
        f"{what}, of thread {threads.get(owner, owner)}, {words}, and was awaited in thread {here}"
    )


def _guard(switch: Callable[[], Any]) -> Callable[[], Any]:
    def park() -> Any:
        if _get_running_loop() is not None:
            check_no_loop_runs("what parks")
        return switch()

    return park


guard_parking(_guard)


class Border:
    """The way from our side to that of one asyncio loop, and back. One greenlet at a time is beyond it."""

    __slots__ = {
        "_aio": "The asyncio loop.",
        "_block": "What refuses to park beyond the border.",
        "_ours": "Our side's hooks for asynchronous generators.",
        "_outer": "The no_parking() block that was open on our side.",
        "_sched": "The scheduler of our loop.",
        "_task": "The task that has crossed the border; None for a callback.",
        "_theirs": "asyncio's hooks for asynchronous generators, from when they are known.",
    }

    def __init__(self, loop: Loop, aio: AbstractEventLoop, ours: tuple[Any, Any]) -> None:
        self._aio = aio
        self._sched = scheduler(loop)
        self._block = Coroutines(loop)
        self._ours = ours
        self._theirs: tuple[Any, Any] | None = None
        self._outer: Any = None
        self._task: Any = None

    def to_asyncio(self) -> None:
        """From here on coroutines and callbacks of asyncio run."""
        sched = self._sched
        loop = sched.loop
        self._task, loop.current = loop.current, None
        self._outer, sched.no_parking = sched.no_parking, self._block
        _set_running_loop(self._aio)
        if self._theirs is not None:
            sys.set_asyncgen_hooks(*self._theirs)

    def to_ours(self) -> None:
        """From here on it is the task again, or the callback, that has crossed the border."""
        sched = self._sched
        _set_running_loop(None)
        if self._theirs is None:
            self._theirs = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(*self._ours)
        sched.no_parking, sched.loop.current = self._outer, self._task

    def begin_beyond(self) -> None:
        """asyncio's code runs already."""
        self._outer, self._sched.no_parking = self._sched.no_parking, self._block

    def end_beyond(self) -> None:
        self._sched.no_parking = self._outer


class Neighbours:
    """The asyncio loops that a loop of ours lives with: `Scheduler.bridge`, made at first use."""

    __slots__ = {
        "guest_of": "The asyncio loop whose guest ours is.",
        "kick": "Asks that loop for a turn of ours.",
        "home": "The hosted loop that the first `await_` has made.",
        "given_up": "Our loop ends, and coroutines have had their time to.",
        "over": "Our loop is being reset: nothing of asyncio can wait any more.",
        "told": "What was cancelled since the task that waits for it was: it is not cancelled again.",
        "borders": "Those that run, hosted ones and that one, each with its border.",
    }

    def __init__(self) -> None:
        self.borders: dict[AbstractEventLoop, Border] = {}
        self.home: Any = None
        self.guest_of: AbstractEventLoop | None = None
        self.kick: Callable[[], object] = bool
        self.over = False
        self.told: WeakSet[Future[Any]] = WeakSet()
        self.given_up = False

    def seen_tasks(self, waiters: Iterable[Waiter]) -> list[SeenTask]:
        """The tasks of these loops, the older ones first, each with who of these waiters of ours awaits it."""
        awaited_by: dict[Any, list[Waiter]] = {}
        for waiter in waiters:
            if waiter.wait is AWAIT:
                awaited_by.setdefault(waiter.subject, []).append(waiter)
        seen = [
            SeenTask(task, task.get_name(), task is current_task(aio), awaited_by.get(task, []))
            for aio in list(self.borders)
            for task in all_tasks(aio)
        ]
        return sorted(seen, key=lambda one: (len(one.name), one.name))  # "Task-9" comes before "Task-10"

    def stopping(self) -> None:
        if self.guest_of is not None:
            self.kick()

    @contextmanager
    def limit_clean_up(self, loop: Loop) -> Iterator[None]:
        """At the end of our loop: what a task waits for beyond the border may take so long to end."""
        seconds = max((clean_up_seconds(aio) for aio in self.borders), default=0.0)
        timer = loop.timers.add(loop.clock() + seconds, lambda: self._give_up(loop))
        try:
            yield
        finally:
            timer.cancel()
            self.given_up = False

    def _give_up(self, loop: Loop) -> None:
        self.given_up = True
        for task in scheduler(loop).tasks:
            if task.wait is AWAIT or task.wait is HOSTING:
                wake(task)


def neighbours(loop: Loop) -> Neighbours:
    """The asyncio loops that this loop lives with."""
    sched = scheduler(loop)
    if sched.bridge is None:
        sched.bridge = Neighbours()
    found: Neighbours = sched.bridge
    return found


def refuses_to_end(future: Future[Any]) -> None:
    """Report what is left where it is at the end of a loop, which is not to be waited for any more."""
    seconds, where = clean_up_seconds(future.get_loop()), "\n  ".join(places_of(future))
    log().error("%r did not end within %s s of its cancellation, at\n  %s", future, seconds, where)
    if isinstance(future, Task):
        future._log_destroy_pending = False  # type: ignore[attr-defined]
        _unregister_task(future)


def clean_up_seconds(aio: AbstractEventLoop) -> float:
    """How long what runs on this loop may take to end, at the end of our loop."""
    seconds: float = getattr(aio, "clean_up_seconds", 5.0)
    return seconds


def places_of(future: Future[Any]) -> list[str]:
    """Where the coroutine of a task of asyncio's is: "file:line" for it and what it awaits, from the innermost out."""
    return list(map(line_of, _frames_of(future)))


def _frames_of(future: Future[Any]) -> list[FrameType]:
    frames: list[FrameType] = []
    awaited: Any = future.get_coro() if isinstance(future, Task) else None
    while awaited is not None:
        kind = next((kind for kind in ("cr", "gi", "ag") if hasattr(awaited, f"{kind}_frame")), None)
        if kind is None:
            break
        frame: FrameType | None = getattr(awaited, f"{kind}_frame")
        if frame is not None and not is_ours(frame):
            frames.insert(0, frame)
        awaited = getattr(awaited, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
    return frames


class SeenTask(NamedTuple):
    """A task of asyncio's, for who looks on."""

    task: Task[Any]
    name: str
    running: bool
    awaited_by: list[Waiter]  # tasks of ours

    @property
    def coroutine(self) -> str:
        return str(getattr(self.task.get_coro(), "__qualname__", "?"))

    @property
    def awaits(self) -> Any:
        """A task of ours, or a future of asyncio's; None if it can go on."""
        future: Any = getattr(self.task, "_fut_waiter", None)
        return getattr(future, "of_task", future)

    @property
    def frames(self) -> list[FrameType]:
        """Of its coroutine and what that awaits, from the innermost out."""
        return _frames_of(self.task)

    @property
    def waits_for(self) -> str:
        """The function of asyncio's in which it is suspended, or else the future."""
        innermost = next(iter(self.frames), None)
        if innermost is not None and is_library(innermost):
            return innermost.f_code.co_qualname
        return repr(self.awaits)
