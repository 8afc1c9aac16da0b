"""Socket in both styles: the callback class of the core, with the calls that look blocking.

Rules: a cancelled `write_all` has queued all of its data or none; what is unbounded has a limit; every call that may
park looks for cancellation first, also when it need not wait. What does not belong here: who starts handlers (that is
net).
"""

from __future__ import annotations

from _thread import get_ident
from collections import OrderedDict
from types import TracebackType
from typing import Self

from dangagreen.errors import ClosedError, LimitError
from dangagreen.green.parking import checkpoint, park
from dangagreen.green.waiters import Waiter, WaitKind, wake
from dangagreen.parks import parks
from dangagreen.sockets.states import MUTE
from dangagreen.sockets.write_queue import Buffer, as_bytes
from dangagreen.streams.reading import ReadingSocket
from dangagreen.tracebacks import without_traceback


class StreamSocket(ReadingSocket):
    """A connection in both styles: `event_*` hooks, and calls that look blocking and suspend only their task."""

    __slots__ = ()

    # -- writing

    @parks
    def write_all(self, data: Buffer) -> None:
        """Parks while more than `high_water` bytes are queued, then queues all of `data`; cancelled, none of it.

        What several calls queue leaves in one system call, at the latest at the end of the turn. Raises LimitError if
        `data` alone is larger than `max_unsent`; ClosedError or the OS's error when the peer can take no more.
        """
        loop = self.loop
        task: Waiter | None = loop.current
        if task is None or task.interrupt is not None or get_ident() != loop.thread:
            task = checkpoint(loop, "write_all")
            if loop.current is None:
                return self._write_at_once(task, as_bytes(data))
        for _ in loop.budget:
            break
        else:
            checkpoint(loop, "write_all")
        if type(data) is not bytes:
            data = as_bytes(data)
        unsent = self.unsent + len(data)
        if unsent > self._high_water or self._write_closed:
            self._wait_for_room(task, data)
            unsent = self.unsent + len(data)
        self.unsent = unsent
        if self._queue is not None:
            self._queue.append(data)
        elif data:
            if not self._watch_read:
                self._sequential = 2
            self._queue = [data]
            other, task.unflushed_socket = task.unflushed_socket, self
            if other is not None and other is not self:
                loop.to_flush.append(other)
        return None

    def _write_at_once(self, task: Waiter, data: bytes) -> None:
        """Write all for top-level code, which may not park for long."""
        if self.unsent + len(data) > self._high_water or self._write_closed:
            self._wait_for_room(task, data)
        if data:
            if not self._watch_read:
                self._sequential = 2
            self._enqueue(data)
        self._flush()

    def _wait_for_room(self, task: Waiter, data: bytes) -> None:
        """Park until `data` may be queued, or raise what forbids it."""
        if self._write_closed and self._is_mute():
            raise self._cannot_write()
        most, hard = self._high_water, self.max_unsent
        if hard is not None:
            if len(data) > hard:
                raise LimitError(f"{len(data)} bytes to write at once are more than max_unsent, {hard}", hard)
            most = min(most, hard - len(data))
        if self.unsent > most:
            self._wait_unsent(task, _WRITE_ALL, min(most, self.low_water), len(data))
            if self._write_closed & MUTE:
                raise self._cannot_write()
        if self.unsent + len(data) > self._high_water and not self._over_high_water:
            self._over_high_water = True
            try:
                self.on_high_water()
            except BaseException:
                self._wake_writers()  # it was perhaps woken to use it
                raise
            if self._write_closed & MUTE:
                raise self._cannot_write()

    @parks
    def drain(self) -> None:
        """Parks until everything queued was taken by the kernel: a flush. Raises like `write_all`."""
        task = checkpoint(self.loop, "drain")
        self._wait_unsent(task, _DRAIN, 0)

    def _wait_unsent(self, task: Waiter, wait: WaitKind, most: int, size: int = 0) -> None:
        """Parks until no more than `most` bytes are queued. `size` is what the task is going to queue then."""
        self._flush()
        woken = False
        while not self._has_room(most):
            if self._drain_waiters is None:
                self._drain_waiters = _Writers()
            line = self._drain_waiters.for_room if wait is _WRITE_ALL else self._drain_waiters.for_the_end
            line[task] = most, size
            if woken:  # somebody else has come in between
                line.move_to_end(task, last=False)
            try:
                park(task, wait, self)
            except BaseException:
                self._wake_writers()  # it may have been woken already: then that is for the next one
                raise
            woken = True
        if self.closed or self._write_error is not None:
            raise self._cannot_write()

    def _has_room(self, most: int) -> bool:
        """Or nothing is to be waited for any more. Where nothing may be left, that goes for callables as well."""
        if self.closed or self._write_error is not None:
            return True
        return self.unsent <= most and (most > 0 or self._queue is None)

    def _wake_writers(self) -> None:
        """Wake those who may go on: of those who write as many as there is room for, first come, first served."""
        writers: _Writers | None = self._drain_waiters
        if writers is None:
            return
        everybody = self.closed or self._write_error is not None or (self._write_closed & MUTE and self._queue is None)
        if everybody or self._has_room(0):
            for task in list(writers.for_the_end):
                wake(task)
        unsent, line = self.unsent, writers.for_room
        while line:
            task, (most, size) = next(iter(line.items()))
            if not everybody and (unsent > most or not (most or self._queue is None)):
                break
            wake(task)
            unsent += size

    def _cannot_write(self) -> OSError:
        if self._write_error is not None:
            return without_traceback(self._write_error)
        return ClosedError(self, self.close_reason if self.closed else "finish() or write_eof() was called")

    # -- the end

    def __enter__(self) -> Self:
        return self

    @parks
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Parks until everything queued was sent, and closes; after an exception it closes at once."""
        try:
            if error is None:
                task = checkpoint(self.loop, "leaving a Socket's block")
                if not self.closed and not self._finishing:
                    self._wait_unsent(task, _DRAIN, 0)
        finally:
            if not self._finishing:
                self.close(error)


class _Writers:
    """The tasks that wait for the queue of a socket to shrink, or to come to its end, each with how many bytes may be
    queued when it goes on, and how many it then queues itself."""

    __slots__ = ("for_room", "for_the_end")

    def __init__(self) -> None:
        self.for_room: OrderedDict[Waiter, tuple[int, int]] = OrderedDict()
        self.for_the_end: OrderedDict[Waiter, tuple[int, int]] = OrderedDict()


def _stop_writing(sock: StreamSocket, task: Waiter) -> None:
    writers: _Writers | None = sock._drain_waiters
    if writers is not None:
        writers.for_room.pop(task, None)
        writers.for_the_end.pop(task, None)
        if not writers.for_room and not writers.for_the_end:
            sock._drain_waiters = None


_WRITE_ALL = WaitKind("write_all", _stop_writing)
_DRAIN = WaitKind("drain", _stop_writing)
