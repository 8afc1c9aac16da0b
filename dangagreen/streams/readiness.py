"""A socket that `select` may wait for, and who is parked on one: in a read, or in `select`.

Rules: nothing is read: bytes stay where they are; waiting for input takes the place of a parked reader, in both
styles, and there is one of them at most. What does not belong here: reading (that is streams).
"""

from __future__ import annotations

from dangagreen.errors import BusyError, connection
from dangagreen.green.waiters import Waiter, wake
from dangagreen.sockets.sock import CallbackSocket


class ReadyWaiter:
    """In the place of a parked reader: to resume it wakes its `task`, which then looks for itself."""

    __slots__ = ("task",)

    def __init__(self, task: Waiter) -> None:
        self.task = task

    def resume(self) -> None:
        wake(self.task)

    def _wake(self, error: BaseException) -> None:
        """It was closed: the task finds that by reading."""
        wake(self.task)


class SelectableSocket(CallbackSocket):
    """The part of a socket that `select` knows; `ready` is the core's."""

    __slots__ = ()

    def _watch(self, task: Waiter) -> None:
        if self._reader is not None:
            raise self._busy(task)
        self._await_input(ReadyWaiter(task))

    def _unwatch(self, task: Waiter) -> None:
        reader = self._reader
        if isinstance(reader, ReadyWaiter) and reader.task is task:
            self._stop_awaiting(reader)

    def _busy(self, task: Waiter) -> BusyError:
        assert self._reader is not None
        reader = self._reader.task.name
        return BusyError(f"{task.name!r} cannot read from {connection(self)}: {reader!r} is reading from it")
