"""The leak check: file descriptors, tasks, timers, registered sockets and unhandled errors that a test leaves behind.

Rules: each leak is named, so that the message alone says what to look for; what belongs to the loop of another thread
is none of this one's. What does not belong here: memory.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dangagreen.errors import ErrorContext
from dangagreen.green.sched import scheduler
from dangagreen.loop.loop import Loop, all_loops, current_loop
from dangagreen.loop.timers import Timer
from dangagreen.loop.wakeup import WakeupPair
from dangagreen.places import named, place_of
from dangagreen.testing.idle import is_idle

_SETTLE_TURNS = range(3, 100)  # turns that it is given to close what is to close: at least, at most
_OTHERS_SECONDS = 1.0  # that loops of other threads are given to close what their peers have closed


class LeakCheck:
    """What a loop and the process had when it was made, to be compared with what they have later.

    `errors`: the `ErrorContext` of each error that has reached `loop.on_error`; a test takes out those it expects.
    """

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.errors: list[ErrorContext] = []
        self._old_on_error = loop.on_error
        if loop.wakeup_pair is None:
            loop.wakeup_pair = WakeupPair(loop)
        self._timers = set(loop.timers.by_number.values())
        self._handlers = dict(loop.handlers)
        self._tasks = dict(scheduler(loop).tasks)
        self._fds = _open_fds()
        loop.on_error = self.errors.append

    def leaks(self) -> list[str]:
        """What was left behind, one str for each leak. The loop turns a few times first, to close what is to close."""
        loop = self.loop
        if not loop.running:
            self._settle()
        found = [f"unhandled error: {context.message}: {context.exception!r}" for context in self.errors]
        found += [f"task: {task!r}{_spawned(task)}" for task in scheduler(loop).tasks if task not in self._tasks]
        found += [f"socket: {sock!r}" for fd, sock in loop.handlers.items() if self._handlers.get(fd) is not sock]
        found += [f"timer: {_of_timer(timer, loop.clock())}" for timer in self._new_timers()]
        found += [f"fd {fd}: {what}" for fd, what in self._new_fds().items()]
        return found

    def take_fds_for_granted(self) -> None:
        """Whatever descriptors are open now are no leaks."""
        self._fds = _open_fds()

    def _new_timers(self) -> list[Timer]:
        """As many timers as there are more than before: the latest, without those on which tasks sleep."""
        timers = self.loop.timers.by_number.values()
        slept_on = {task.subject for task in scheduler(self.loop).tasks if task.wait is not None and _is_timer(task)}
        new = [timer for timer in timers if timer not in self._timers and timer not in slept_on]
        return new[max(0, len(new) - max(0, len(timers) - len(self._timers))) :]

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

    def finish(self) -> None:
        """Give the loop its former `on_error` back."""
        self.loop.on_error = self._old_on_error

    def _settle(self) -> None:
        turns = 0

        def settled() -> bool:
            nonlocal turns
            turns += 1
            return turns >= _SETTLE_TURNS.stop or (turns > _SETTLE_TURNS.start and is_idle(self.loop))

        limit = self.loop.loop_timeout
        self.loop.loop_timeout = 0
        try:
            self.loop.run(settled)
        finally:
            self.loop.loop_timeout = limit


@contextmanager
def no_leaks(loop: Loop | None = None) -> Iterator[LeakCheck]:
    """A block that leaves nothing behind: raises AssertionError, naming each leak, if it does. Yields the LeakCheck.

    For a whole test, outside the running loop. `loop`: by default this thread's.
    """
    check = LeakCheck(loop if loop is not None else current_loop())
    try:
        yield check
        leaks = check.leaks()
    finally:
        check.finish()
    if leaks:
        raise AssertionError("left behind:\n" + "\n".join(leaks))


def _is_timer(task: Any) -> bool:
    return isinstance(task.subject, Timer)


def _spawned(task: Any) -> str:
    where = getattr(task, "spawned_at", None)
    return "" if where is None else f", spawned at {where}"


def _of_timer(timer: Timer, now: float) -> str:
    return f"{named(timer.callback)} ({place_of(timer.callback)}), due in {timer.deadline - now:g} s"


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
