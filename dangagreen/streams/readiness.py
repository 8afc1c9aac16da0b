"""A socket that `select` may wait for: is there input, and the arrangement to hear of it.

Rules: nothing is read: bytes stay where they are; waiting for input takes the place of a parked reader, in both
styles, and there is one of them at most. What does not belong here: reading (that is streams).
"""

from __future__ import annotations

import socket

from dangagreen.errors import BusyError, connection
from dangagreen.green.waiters import Waiter, wake
from dangagreen.loop.pollers import READ
from dangagreen.sockets.sock import CallbackSocket
from dangagreen.sockets.states import EOF_MET
from dangagreen.tracebacks import without_traceback


class ReadyWaiter:
    """In the place of a parked reader: to resume it wakes its `task`, which then looks for itself."""

    __slots__ = ("task",)

    def __init__(self, task: Waiter) -> None:
        self.task = task

    def resume(self) -> None:
        wake(self.task)


class SelectableSocket(CallbackSocket):
    """The part of a socket that `select` knows."""

    __slots__ = ()

    @property
    def ready(self) -> bool:
        """For `select`: a read would not wait, since there is input, or the end, or the socket was closed.

        False while a task is parked in a read: the input is that task's.
        """
        if self._buffer or self._eof or self.closed or self._finishing:
            return True
        if self._reader is not None:
            return False
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError as error:
            if self._is_short_of_memory(error):
                return False
            self._eof = EOF_MET
            self._read_error = without_traceback(error)  # which the OS tells but once: the next read finds it here
            if self._watch_read:  # event_read has to find the end, and no event need announce it any more
                self.loop.pending_reads.setdefault(self, False)
        return True

    def _watch(self, task: Waiter) -> None:
        if self._reader is not None:
            raise self._busy(task)
        self._begin_wait()
        self._reader = ReadyWaiter(task)
        self._need_input()
        if not self._sequential and not self._watch_read:
            self._sequential = 1

    def _need_input(self) -> None:
        """Have the poller tell the reader, which was set just now; if it refuses, there is none."""
        try:
            self._add_interest(READ)
        except BaseException:
            self._reader = None
            if self._timer is not None:
                self._give_up_wait()
            raise

    def _unwatch(self, task: Waiter) -> None:
        if isinstance(self._reader, ReadyWaiter) and self._reader.task is task:
            self._reader = None
            self._give_up_wait()

    def _busy(self, task: Waiter) -> BusyError:
        assert self._reader is not None
        reader = self._reader.task.name
        return BusyError(f"{task.name!r} cannot read from {connection(self)}: {reader!r} is reading from it")

    def _release_reader(self) -> None:
        if isinstance(self._reader, ReadyWaiter):  # it finds the end by reading
            self._reader.resume()
