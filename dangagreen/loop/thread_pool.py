"""Threads that call functions for loops, which get the outcome: one pool for the process, kept while it is of use.

Rules: the outcome goes to the loop as a queued call, and nowhere else; the pool has no limit of its own, for how many
calls are under way is the affair of who makes them; a thread without a call ends after a while, and wakes no loop; none
keeps the program from ending; a forked child has none of its parent's. What does not belong here: limits, cancellation,
and the wait for an outcome.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from dangagreen.loop.schedule import Schedule

Function = Callable[[], object]
Then = Callable[[Any, BaseException | None], object]  # a function of the value, or of None and what was raised

IDLE_SECONDS = 10.0  # how long a thread waits for its next call
_IDLE_NAME = "dangagreen, idle"


class _PoolThread(threading.Thread):
    """A thread of the pool."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.calls: SimpleQueue[tuple[Schedule, Function, Then]] = SimpleQueue()

    def run(self) -> None:
        while True:
            try:
                loop, function, then = self.calls.get(timeout=IDLE_SECONDS)
            except Empty:
                try:
                    idle.remove(self)
                except ValueError:  # taken just now: its call is about to come
                    continue
                return
            value, error = _outcome(function)
            self.name = _IDLE_NAME
            idle.append(self)  # before the loop is told, which may have the next call, or look for a deadlock
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(then, value, error)
            del loop, function, then, value, error  # or they would be kept until the next call


def _outcome(function: Function) -> tuple[object, BaseException | None]:
    """Call the function: what it has returned, and what it has raised."""
    try:
        return function(), None
    except BaseException as error:
        ours: Any = error.__traceback__
        try:
            return None, error.with_traceback(ours.tb_next)  # without this frame
        finally:
            del ours  # it refers to this frame: a cycle


idle: list[_PoolThread] = []  # the one used last at the end; its `pop`, `append` and `remove` are atomic


def call_in_thread(loop: Schedule, name: str, function: Function, then: Then) -> None:
    """Have a thread, called `name` meanwhile, call a function, and the loop then call `then(value, error)`.

    Returns at once. `error` is what the function has raised, a SystemExit or KeyboardInterrupt as well, or None. Raises
    RuntimeError if no thread can be started.
    """
    try:
        thread = idle.pop()
        thread.name = name
    except IndexError:
        thread = _PoolThread(name)
        thread.start()
    thread.calls.put((loop, function, then))


def idle_threads() -> list[threading.Thread]:
    """The threads of the pool that have no call: they wake no loop."""
    return list(idle)


def _after_fork_in_child() -> None:
    idle.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
