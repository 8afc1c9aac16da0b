"""Writing in sequential style: write_all, drain, the end of a `with` block.

Rules: a cancelled `write_all` has queued all of its data or none; every call that may park checks for cancellation
first, also when it need not wait. What does not belong here: handlers and servers (net).
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
    """A connection in both styles: `event_*` hooks, and calls that look blocking and park only their task."""

    __slots__ = ()

    # -- writing

    @parks
    def write_all(self, data: Buffer) -> None:
        """Parks while more than `high_water` bytes are queued (back-pressure), then queues all of `data`.

        If cancelled, it has queued nothing. What several calls queue is sent in one system call, at the latest at the
        end of the turn. Raises LimitError if `data` alone is larger than `max_unsent`, ClosedError, or the OSError of
        send(2) when nothing can be sent any more.
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
        if unsent > self._high_water or self._write_closed or self._drain_waiters is not None:
            self._wait_for_room(task, len(data))
            unsent = self.unsent + len(data)
        self.unsent = unsent
        if (queue := self._queue) is not None:
            queue.append(data)
        elif data:
            if not self._watch_read:
                self._sequential = 2
            self._queue = [data]
            other, task.unflushed_socket = task.unflushed_socket, self
            if other is not None and other is not self:
                loop.to_flush.append(other)
        return None

    def _write_at_once(self, task: Waiter, data: bytes) -> None:
        """`write_all` of top-level code, which may not park soon: queue and send at once."""
        self._wait_for_room(task, len(data))
        if data:
            self._task_writes()
            self._enqueue(data)
        self._flush()

    def _wait_for_room(self, task: Waiter, size: int) -> None:
        """Parks until so many bytes may be queued. Raises like `write_all`."""
        woken = False
        try:
            while not self._ask_for_room(task, size, woken):  # woken, and others came first
                park(task, _WRITE_ALL, self)
                woken = True
        except BaseException:
            self._leave_wait_queue(task)
            self._wake_writers()  # if it was woken already, the room is for the next one
            raise

    @parks
    def drain(self) -> None:
        """Parks until the kernel has taken everything queued: a flush. Raises like `write_all`."""
        self._wait_for_flush(checkpoint(self.loop, "drain"))

    def _wait_for_flush(self, task: Waiter) -> None:
        """Parks until everything queued was sent."""
        self._flush()
        while not self._ask_for_flush(task):  # woken, and others wrote first
            park(task, _DRAIN, self)

    # -- the end

    def __enter__(self) -> Self:
        return self

    @parks
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Parks until everything queued was sent, then closes; after an exception it closes at once."""
        try:
            if error is None:
                task = checkpoint(self.loop, "leaving a Socket's block")
                if not self._is_over():
                    self._wait_for_flush(task)
        finally:
            self._close_unless_finishing(error)


_WRITE_ALL = WaitKind("write_all", StreamSocket._leave_wait_queue)
_DRAIN = WaitKind("drain", StreamSocket._leave_wait_queue)
