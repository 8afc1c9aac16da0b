"""The leak check: file descriptors, tasks, timers, registered sockets and unhandled errors that a test leaves behind.

Rules: each leak is named, so that the message alone says what to look for. What does not belong here: memory.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from dangagreen.errors import ErrorContext
from dangagreen.green.sched import scheduler
from dangagreen.loop.loop import Loop, current_loop
from dangagreen.loop.wakeup import WakeupPair

_SETTLE_TURNS = 3


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
        self._timers = len(loop.timers)
        self._handlers = dict(loop.handlers)
        self._tasks = dict(scheduler(loop).tasks)
        self._fds = _open_fds()
        loop.on_error = self.errors.append

    def leaks(self) -> list[str]:
        """What was left behind, one str for each leak. The loop turns a few times first, to close what is to close."""
        loop = self.loop
        if not loop.running:
            self._turn_a_few_times()
        found = [f"unhandled error: {context.message}: {context.exception!r}" for context in self.errors]
        found += [f"task: {task!r}" for task in scheduler(loop).tasks if task not in self._tasks]
        found += [f"socket: {sock!r}" for fd, sock in loop.handlers.items() if self._handlers.get(fd) is not sock]
        if len(loop.timers) > self._timers:
            found.append(f"timers: {len(loop.timers) - self._timers}, the next {loop.timers.next_deadline()}")
        found += [f"fd {fd}: {what}" for fd, what in _open_fds().items() if fd not in self._fds]
        return found

    def finish(self) -> None:
        """Give the loop its former `on_error` back."""
        self.loop.on_error = self._old_on_error

    def _turn_a_few_times(self) -> None:
        turns = iter(range(_SETTLE_TURNS))
        limit = self.loop.loop_timeout
        self.loop.loop_timeout = 0
        try:
            self.loop.run(lambda: next(turns, None) is None)
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
