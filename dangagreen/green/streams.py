"""Socket in both styles: the callback class of the core, with the calls that look blocking.

Rules: a cancelled `write_all` has queued all of its data or none; what is unbounded has a limit; every call that may
park looks for cancellation first, also when it need not wait. What does not belong here: who starts handlers (that is
net).
"""

from __future__ import annotations

from _thread import get_ident
from types import TracebackType
from typing import Self

from dangagreen.core.errors import ClosedError, LimitError
from dangagreen.core.outgoing import MUTE, Buffer, as_bytes
from dangagreen.core.tracebacks import without_traceback
from dangagreen.green.parking import entering, park, parks
from dangagreen.green.reading import ReadingSocket
from dangagreen.green.sched import Wait, Waiter, wake


class Socket(ReadingSocket):
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
        if task is None or task.interrupt is not None:
            task = entering(loop, "write_all")
        if get_ident() != loop.thread:
            loop.check_thread("write_all")
        if type(data) is not bytes:
            data = as_bytes(data)
        unsent = self.unsent + len(data)
        if unsent > self._high_water or self._mute:
            self._wait_for_room(task, data)
            unsent = self.unsent + len(data)
        self.unsent = unsent
        if self._queue is not None:
            self._queue.append(data)
        elif data:
            if not self._watch_read:
                self._sequential = 2
            self._queue = [data]
            other, task.dirty = task.dirty, self
            if other is not None and other is not self:
                loop.unflushed.append(other)
        if loop.current is None:  # top-level code, which may not park for long
            task.dirty = None
            self._flush()

    def _wait_for_room(self, task: Waiter, data: bytes) -> None:
        """Park until `data` may be queued, or raise what forbids it."""
        if self._mute and self._is_mute():
            raise self._cannot_write()
        most = self._high_water
        if self.max_unsent is not None:
            if len(data) > self.max_unsent:
                what = f"{len(data)} bytes to write at once are more than max_unsent, {self.max_unsent}"
                raise LimitError(what, self.max_unsent)
            most = min(most, self.max_unsent - len(data))
        if self.unsent > most:
            self._wait_unsent(task, _WRITE_ALL, min(most, self.low_water))
            if self._mute & MUTE:
                raise self._cannot_write()
        if self.unsent + len(data) > self._high_water and not self._above:
            self._above = True
            self.on_high_water()
            if self._mute & MUTE:
                raise self._cannot_write()

    @parks
    def drain(self) -> None:
        """Parks until everything queued was taken by the kernel. Raises like `write_all`."""
        task = entering(self.loop, "drain")
        self._wait_unsent(task, _DRAIN, 0)

    def _wait_unsent(self, task: Waiter, wait: Wait, most: int) -> None:
        """Parks until no more than `most` bytes are queued."""
        self._flush()
        while not self._has_room(most):
            if self._writers is None:
                self._writers = []
            self._writers.append((task, most))
            park(task, wait, self)
        if self.closed or self._write_error is not None:
            raise self._cannot_write()

    def _has_room(self, most: int) -> bool:
        """Or nothing is to be waited for any more. Where nothing may be left, that goes for callables as well."""
        if self.closed or self._write_error is not None:
            return True
        return self.unsent <= most and (most > 0 or self._queue is None)

    def _room(self) -> None:
        for task, most in list(self._writers or ()):
            if self._has_room(most):
                wake(task)

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
                task = entering(self.loop, "leaving a Socket's block")
                if not self.closed and not self._finishing:
                    self._wait_unsent(task, _DRAIN, 0)
        finally:
            if not self._finishing:
                self.close(error)


def _stop_writing(sock: Socket, task: Waiter) -> None:
    sock._writers = [entry for entry in sock._writers or () if entry[0] is not task] or None


_WRITE_ALL = Wait("write_all", _stop_writing)
_DRAIN = Wait("drain", _stop_writing)
