"""Socket in both styles: the callback class of the core, with the calls that look blocking.

Rules: a cancelled `write_all` has queued all of its data or none; what is unbounded has a limit; every call that may
park looks for cancellation first, also when it need not wait. What does not belong here: who starts handlers (that is
net).
"""

from __future__ import annotations

from _thread import get_ident
from types import TracebackType
from typing import Self

from dangagreen.checks import Buffer, as_bytes
from dangagreen.green.parking import checkpoint, park
from dangagreen.green.waiters import Waiter, WaitKind
from dangagreen.parks import parks
from dangagreen.streams.reading import ReadingSocket


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
            self._wait_for_room(task, len(data))
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
        self._wait_for_room(task, len(data))
        if data:
            self._task_writes()
            self._enqueue(data)
        self._flush()

    def _wait_for_room(self, task: Waiter, size: int) -> None:
        """Park until so many bytes may be queued, or raise what forbids it."""
        most = self._ask_for_room(size)
        if most is not None:
            self._wait_unsent(task, _WRITE_ALL, most, size)
        self._take_room(size)

    @parks
    def drain(self) -> None:
        """Parks until everything queued was taken by the kernel: a flush. Raises like `write_all`."""
        task = checkpoint(self.loop, "drain")
        self._wait_unsent(task, _DRAIN, 0)

    def _wait_unsent(self, task: Waiter, wait: WaitKind, most: int, size: int = 0) -> None:
        """Parks until no more than `most` bytes are queued. `size` is what the task is going to queue then."""
        self._flush()
        woken = False
        while self._join_line(task, wait is _WRITE_ALL, most, size, first=woken):  # if woken, somebody came in between
            try:
                park(task, wait, self)
            except BaseException:
                self._wake_writers()  # it may have been woken already: then that is for the next one
                raise
            woken = True

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
                if not self._is_over():
                    self._wait_unsent(task, _DRAIN, 0)
        finally:
            self._close_unless_finishing(error)


_WRITE_ALL = WaitKind("write_all", StreamSocket._leave_line)
_DRAIN = WaitKind("drain", StreamSocket._leave_line)
