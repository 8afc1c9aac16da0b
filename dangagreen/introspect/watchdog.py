"""A thread that sees, while a loop is blocked, in which line of the program that is.

Rules: it sleeps between its looks, and knows by a few numbers whether the loop is still at the same callback, or the
same run of a task; a loop that waits for events is not blocked; one log line with the stack for each of those that
block, not for each look. It wakes nobody, and is no
reason to hope in a deadlock. What cannot be seen is a call in C that holds the interpreter's lock: nothing else runs
then, this thread included; nor, where turns are compiled, a function in C that the loop itself calls, for it looks like
the poller's wait. What does not belong here: what is said after the fact (slowness).
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import FrameType

from dangagreen import checks
from dangagreen.frames import LOOPS, is_ours, program_frames
from dangagreen.introspect.records import table_of
from dangagreen.introspect.stacks import with_function
from dangagreen.loop.deadlock import WATCHING_THREADS
from dangagreen.loop.error_log import log
from dangagreen.loop.loop import Loop, all_loops

_WAITS = {"wait", "_turn", "_stalled"}  # functions of ours that wait for events, or call what does
_LOOKS = 4  # looks within the time that it allows

_Work = tuple[int, float, float]


class Watchdog:
    """A `watchdog` that is on, until its `cancel()`."""

    def __init__(self, seconds: float, tell: Callable[[str], object]) -> None:
        self.seconds = seconds
        self.tell = tell
        self._over = threading.Event()
        self._seen: dict[int, tuple[_Work | None, int]] = {}  # by the id of a loop: its work, and for how many looks
        self._watcher = threading.Thread(target=self._run, name="dangagreen, watchdog", daemon=True)
        WATCHING_THREADS.append(self._watcher)
        self._watcher.start()

    def cancel(self) -> None:
        """End it; returns when its thread has ended."""
        self._over.set()
        self._watcher.join()
        if self._watcher in WATCHING_THREADS:
            WATCHING_THREADS.remove(self._watcher)

    def _run(self) -> None:
        while not self._over.wait(min(self.seconds / _LOOKS, threading.TIMEOUT_MAX)):
            for loop in all_loops():
                self.look(loop)

    def look(self, loop: Loop) -> int:
        """One look at one loop: for how many looks it has been at the same work, 0 also if it waits or does not run."""
        frame = sys._current_frames().get(loop.thread)
        if not loop.running or frame is None or _waits(frame):
            self._seen.pop(id(loop), None)
            return 0
        work = _work(loop)
        former, looks = self._seen.get(id(loop), (None, 0))
        looks = looks + 1 if work == former else 0
        self._seen[id(loop)] = work, looks
        if looks == _LOOKS:
            self.tell(f"a loop is blocked for more than {self.seconds} s, in\n{_stack(frame)}")
        return looks


def watchdog(seconds: float = 1.0, tell: Callable[[str], object] | None = None) -> Watchdog:
    """Start a thread that logs the stack of a callback or task that blocks a loop for so long, while it does.

    `tell` gets the text instead, in that thread. Returns an object whose `cancel()` ends it.
    """
    seconds = checks.seconds("introspect.watchdog", seconds)
    if not seconds > 0:
        raise ValueError(f"introspect.watchdog needs a time above zero, not {seconds}")
    if tell is not None:
        checks.function("introspect.watchdog", tell)
    return Watchdog(seconds, _log if tell is None else tell)


def _log(text: str) -> None:
    log().warning("%s", text)


def _work(loop: Loop) -> _Work:
    """What differs from one callback that blocks, or one run of a task, to the next one, also in the same turn.

    After what was slow the loop sets anew from when on it suspects something; callbacks of one turn that are quicker
    than its `slow_seconds` are one.
    """
    table = table_of(loop)
    return loop.turns, loop.suspect_after, 0.0 if table is None else table.ran_at


def _waits(frame: FrameType | None) -> bool:
    """Whether the thread is inside a poller's wait; that of epoll is in C, and has no frame of its own.

    Nor has the turn, where it is compiled: then the innermost frame is that of the loop.
    """
    return frame is not None and (frame in LOOPS or (is_ours(frame) and frame.f_code.co_name in _WAITS))


def _stack(frame: FrameType | None) -> str:
    """The program's frames, innermost first; where there are none, all of them."""
    every = []
    while frame is not None:
        every.append(frame)
        frame = frame.f_back
    shown = list(program_frames(every)) or every
    return "\n".join(f"  {with_function(one)}" for one in shown)
