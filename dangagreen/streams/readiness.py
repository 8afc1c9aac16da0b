"""Readiness: a socket as a source of `select`.

Rules: nothing is read: bytes stay where they are; a task that waits in `select` takes the place of a parked reader, of
which there is one at most. What does not belong here: reading.
"""

from __future__ import annotations

from dangagreen.errors import BusyError, connection
from dangagreen.green.waiters import Waiter, wake
from dangagreen.loop.handlers import Resumable
from dangagreen.sockets.sock import CallbackSocket


class ReadyWaiter(Resumable):
    """Stands for a parked reader: to resume it is to wake its task, in `select`, which then looks at all sources."""

    __slots__ = {"_task": "The task that waits in `select`."}

    def __init__(self, task: Waiter) -> None:
        self._task = task
        self.resume = task._wake

    @property
    def task(self) -> Waiter:
        return self._task

    def _wake(self, error: BaseException, undone: bool) -> None:
        """Called when the socket is closed: the task finds that by reading, so `error` is not raised."""
        wake(self._task)


class SelectableSocket(CallbackSocket):
    """The layer of a socket that `select` can wait for."""

    __slots__ = ()

    def _watch(self, task: Waiter) -> None:
        self._check_reader(task)
        self._await_input(ReadyWaiter(task))

    def _unwatch(self, task: Waiter) -> None:
        """Undo `_watch`; harmless if the task does not watch."""
        reader = self._parked_reader()
        if isinstance(reader, ReadyWaiter) and reader.task is task:
            self._stop_awaiting(reader)

    def _check_reader(self, task: Waiter) -> None:
        """Raise BusyError if a task is parked in a read."""
        parked = self._parked_reader()
        if parked is not None:
            reader = parked.task.name
            raise BusyError(f"{task.name!r} cannot read from {connection(self)}: {reader!r} is reading from it")
