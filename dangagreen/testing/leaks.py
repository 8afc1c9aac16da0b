"""The leak check: file descriptors, tasks, timers, registered sockets and unhandled errors that a test leaves behind.

Rules: each leak is named, so that the message alone says what to look for; what belongs to the loop of another thread
is none of this one's. What does not belong here: memory.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, starmap
from typing import Any

from dangagreen.errors import ErrorContext
from dangagreen.green.sched import scheduler
from dangagreen.green.sleep import sleep
from dangagreen.green.waiters import Waiter
from dangagreen.loop.births import BirthTable
from dangagreen.loop.handlers import Handler
from dangagreen.loop.loop import Loop, all_loops, certain_loop, current_loop
from dangagreen.loop.timers import Timer
from dangagreen.loop.wakeup import WakeupPair
from dangagreen.places import with_place
from dangagreen.sockets.descriptor import Descriptor
from dangagreen.testing.ends import End, end_of_fd, end_of_handler, in_pairs
from dangagreen.testing.idle import is_idle

_SETTLE_TURNS = range(3, 100)  # turns that it is given to close what is to close: at least, at most
_OTHERS_SECONDS = 1.0  # that loops of other threads are given to close what their peers have closed


class LeakCheck:
    """What a loop and the process had when it was made, to be compared with what they have later.

    `errors`: the `ErrorContext` of each error that has reached `loop.on_error`; a test takes out those it expects.
    """

    def __init__(self, loop: Loop) -> None:
        self.loop = certain_loop(loop)
        self.errors: list[ErrorContext] = []
        self._old_on_error = loop.on_error
        if loop.wakeup_pair is None:
            loop.wakeup_pair = WakeupPair(loop)
        if type(loop.handlers) is dict:  # nobody else notes where they are opened
            loop.handlers = BirthTable(loop)
        self._timers = self._timers_now()
        self._handlers = dict(loop.handlers)
        self._tasks = dict(scheduler(loop).tasks)
        self._closers = list(scheduler(loop).closers)
        self._asyncio = set(self._asyncio_tasks())
        self._ended: list[str] = []  # what ended with the loops of the closers
        self._fds = _open_fds()
        loop.on_error = self.errors.append

    def leaks(self) -> list[str]:
        """What was left behind, one str for each leak, but the task that asks.

        The loop turns a few times first, to close what is to close; not if this is called in a callback. While there is
        an asyncio loop that a first `await_` has made since, only tasks, sockets and other such objects are looked at.
        """
        if not self.loop.running:
            self._settle()
        elif self.loop.current is not None:
            self._let_settle()
        fds = {} if self._new_closers() else self._new_fds()  # which are theirs nobody can tell
        return self._named(end_of_fd(fd, what) for fd, what in fds.items())

    def leaks_of_loop(self) -> list[str]:
        """What was left behind on the loop, as it is now; not the descriptors that are the process's."""
        return self._named(())

    def _named(self, others: Iterable[End]) -> list[str]:
        """What was left behind on the loop, and these descriptors beside it."""
        loop = self.loop
        found = [f"unhandled error: {context.message}: {context.exception!r}" for context in self.errors]
        tasks = [task for task in scheduler(loop).tasks if task not in self._tasks and task is not loop.current]
        names = scheduler(loop).names() if tasks else {}
        found += [f"task: {_shown(task, names[task])}{spawned(task)}" for task in tasks]
        found += self._ended or self._new_asyncio()
        births: Any = loop.handlers
        sockets = [(handler, births.birth(handler)) for handler in self._new_handlers()]
        sockets.sort(key=lambda pair: pair[1] is None or pair[1].place is None)  # who has connected stands first
        found += in_pairs(chain(starmap(end_of_handler, sockets), others))
        found += [f"timer: {_of_timer(timer, loop.clock())}" for timer in self._new_timers()]
        return found

    @contextmanager
    def exempt(self) -> Iterator[None]:
        """What is opened in this block, sockets and other descriptors, is no leak."""
        fds, handlers, tasks = _open_fds(), self.loop.handlers.copy(), set(self._asyncio_tasks())
        yield
        self._asyncio |= set(self._asyncio_tasks()) - tasks
        self._fds.update((fd, what) for fd, what in _open_fds().items() if fd not in fds)
        self._handlers.update((fd, it) for fd, it in self.loop.handlers.items() if handlers.get(fd) is not it)

    def _new_handlers(self) -> list[Handler]:
        new = [handler for fd, handler in self.loop.handlers.items() if self._handlers.get(fd) is not handler]
        return [handler for handler in new if isinstance(handler, Descriptor)] if self._new_closers() else new

    def _new_closers(self) -> list[Callable[[], object]]:
        return [close for close in scheduler(self.loop).closers if close not in self._closers]

    def _new_timers(self) -> list[Timer]:
        """As many timers as there are more than before: the latest, without those of tasks: sleeps and deadlines."""
        timers = self._timers_now()
        owned = {id(timer) for task in scheduler(self.loop).tasks for timer in (task.deadline_timer, _subject(task))}
        new = [timer for timer in timers if timer not in self._timers and id(timer) not in owned]
        return new[max(0, len(new) - max(0, len(timers) - len(self._timers))) :]

    def _timers_now(self) -> dict[Timer, None]:
        """The timers of the loop, without those that only look on."""
        loop = self.loop
        return dict.fromkeys(timer for timer in loop.timers.pending() if timer not in loop.onlookers)

    def _new_fds(self) -> dict[int, str]:
        """The descriptors that are open and were not, without those of handlers, which are named already."""
        give_up = time.monotonic() + _OTHERS_SECONDS
        while True:
            fds = {fd: what for fd, what in _open_fds().items() if fd not in self._fds and fd not in self.loop.handlers}
            others = [loop for loop in all_loops() if loop is not self.loop and loop.running]
            taken = {fd for loop in others for fd in loop.handlers.copy()}
            new = {fd: what for fd, what in fds.items() if fd not in taken}
            if not new or not others or time.monotonic() > give_up:
                return new
            time.sleep(0.01)  # a peer in another thread may be about to close its end

    def end_closers(self) -> None:
        """End what tasks use behind the scenes, as the asyncio loop of the first `await_`. The loop must not run."""
        if closers := self._new_closers():
            self._settle()
            self._ended += self._new_asyncio()  # the end cancels them, quietly
            for close in closers:
                close()

    def _new_asyncio(self) -> list[str]:
        return [f"task: {task!r}" for task in self._asyncio_tasks() if task not in self._asyncio]

    def _asyncio_tasks(self) -> list[Any]:
        """The tasks of the asyncio loop that the first `await_` has made."""
        bridge = scheduler(self.loop).bridge
        seen = [] if bridge is None or bridge.home is None else bridge.seen_tasks(())
        return [one.task for one in seen if one.task.get_loop() is bridge.home and not one.running]

    def finish(self) -> None:
        """Give the loop its former `on_error` back."""
        self.loop.on_error = self._old_on_error

    def _let_settle(self) -> None:
        for turn in range(_SETTLE_TURNS.stop):
            sleep(0)
            if turn >= _SETTLE_TURNS.start and is_idle(self.loop):
                break

    def _settle(self) -> None:
        turns = iter(range(_SETTLE_TURNS.stop))

        def settled() -> bool:
            turn = next(turns, None)
            return turn is None or (turn >= _SETTLE_TURNS.start and is_idle(self.loop))

        limit = self.loop.loop_timeout
        self.loop.loop_timeout = 0
        try:
            self.loop.run(settled)
        finally:
            self.loop.loop_timeout = limit


@contextmanager
def no_leaks(loop: Loop | None = None) -> Iterator[LeakCheck]:
    """A block that leaves nothing behind: raises AssertionError, naming each leak, if it does. Yields the LeakCheck.

    For a whole test, outside the running loop or in a task. `loop`: by default this thread's.
    """
    check = LeakCheck(loop if loop is not None else current_loop())
    try:
        yield check
        leaks = check.leaks()
    finally:
        check.finish()
    if leaks:
        raise AssertionError("left behind:\n" + "\n".join(leaks))


def _subject(task: Waiter) -> object:
    return task.subject if task.wait is not None else None


def _shown(task: Waiter, name: str) -> str:
    """A task's `repr`, with this name in the place of its own."""
    return repr(task).replace(f"<Task {task.name},", f"<Task {name},", 1)


def spawned(task: Any) -> str:
    """Where a task was spawned, in words that follow its repr."""
    where = getattr(task, "spawned_at", None)
    return "" if where is None else f", spawned at {where}"


def _of_timer(timer: Timer, now: float) -> str:
    return f"{with_place(timer.callback)}, due in {timer.deadline - now:g} s"


def _open_fds() -> dict[int, str]:
    """fd -> what it is, of all that are open in this process."""
    found = {}
    for name in os.listdir("/dev/fd"):
        try:
            status = os.fstat(int(name))
        except OSError:
            continue  # the fd that listdir itself had open
        try:
            found[int(name)] = os.readlink(f"/dev/fd/{name}")
        except OSError:  # not every platform has names there
            found[int(name)] = stat.filemode(status.st_mode)
    return found
