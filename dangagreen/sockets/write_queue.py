"""Writing: the kernel first, what it does not take is queued, and interest in writability follows from the queue.

Rules: bytes leave in the order of the calls, a callable runs when everything before it has left; `unsent` is the sum
of what is queued; once the kernel has refused, nothing is tried before the poller says that it takes more; a peer that
no longer takes bytes does not cost those that it has sent. What does not belong here: reading, waiting for the queue to
empty (that is the greenlet layer's).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any

from dangagreen import checks
from dangagreen.checks import Buffer, as_bytes
from dangagreen.errors import BROKEN
from dangagreen.loop.pollers import READ, WRITE
from dangagreen.sockets.backpressure import BackPressure
from dangagreen.sockets.states import BLOCKED, FLUSHING, IDLE, MUTE

Writer = Callable[[Buffer], int]

_JOIN = 131072  # bytes put together for one send; what glibc still allocates without a system call
_MANY = 64  # pieces in a queue: beyond it a deque, which costs more memory, and nothing to take from its head
_CALLS_AT_ONCE = 16  # queued callables run in one go, before others get their turn


class WriteQueue(BackPressure):
    """The writing half of a socket."""

    __slots__ = {
        "_queued_callables": "How many of what is queued are callables.",
        "_sending": "Who sends the queue: IDLE, BLOCKED or FLUSHING.",
        "_writer": "What `set_writer_func` was given, in the place of the system call.",
    }

    _queued_callables: int
    _sending: int
    _writer: Writer | None

    def write(self, data: Buffer | Callable[[], object] | None) -> bool:
        """Send bytes; or run a callable when everything before it was sent; or, with None, kick-start the queue.

        True if all of it went to the kernel, False if anything is queued. A closed socket answers True. A callable
        runs at once if nothing is queued, and then what it raises reaches the caller. A str raises TypeError.
        """
        if self._queue is not None or type(data) is not bytes or self._writer is not None:
            return self._write_later(data)
        if self._write_closed and self._is_mute():
            return True
        try:
            sent: int = self.sock.send(data)
        except OSError as error:
            sent = self._not_sent(error)
        if sent == len(data) or sent < 0:
            return True
        self.loop.check_thread("write")
        self._wait_for_kernel()
        self._enqueue(memoryview(data)[sent:])
        if self.closed:
            return True
        self.on_incomplete_write()
        return False

    def write_soon(self, data: Buffer) -> None:
        """Queue bytes, and send all that is queued once at the end of the turn: one system call for many replies."""
        self.loop.check_thread("write_soon")
        data = as_bytes(data)
        if data and not (self._write_closed and self._is_mute()):
            if self._queue is None:
                self.loop.to_flush.append(self)
            self._enqueue(data)

    def _write_later(self, data: Buffer | Callable[[], object] | None) -> bool:
        """`write`, when there is a queue, or when what is to be written is not bytes."""
        if data is not None:
            if callable(data):
                checks.function("write", data)
            else:
                data = as_bytes(data)
                if self._queue is None and (self._writer is None or not data):
                    return self.write(data) if data else True
        if self._write_closed and self._is_mute():
            return True
        self.loop.check_thread("write")
        if data is not None:
            try:
                self._enqueue(data)
            except BaseException:  # of `on_high_water`: it is queued all the same
                if self._queue is not None and self._sending == IDLE:
                    self.loop.to_flush.append(self)
                raise
            self._flush()
        else:
            self._try_again()
        return self._queue is None

    def _enqueue(self, data: Buffer | Callable[[], object]) -> None:
        if self._queue is None:
            self._queue = [data]
        else:
            self._queue.append(data)
        if callable(data):
            self._queued_callables += 1
            return
        self.unsent += len(data)
        if self.unsent > self._high_water:
            self._is_over_high_water()

    def _is_over_high_water(self) -> None:
        self._cross_high_water()
        most = self.max_unsent
        if most is not None and self.unsent > most:
            self.close(f"{self.unsent} bytes are queued, max_unsent is {most}: the peer reads too slowly")

    def _is_blocked(self) -> bool:
        """Does it wait until the kernel takes more?"""
        return self._sending == BLOCKED

    # -- the queue leaves

    def _flush(self) -> None:
        """Send what is queued, as far as the kernel takes it, and run the callables whose turn has come.

        Not after the kernel has refused: `event_write` will tell when it takes more.
        """
        queue = self._queue
        if queue is None or self._sending != IDLE:
            return
        refused = False
        if not self._queued_callables and self._writer is None and (self.unsent <= _JOIN or len(queue) == 1):
            # The usual case, small replies and a willing kernel, without the machinery below.
            data = queue[0] if len(queue) == 1 else b"".join(queue)
            try:
                sent: int = self.sock.send(data)
            except OSError as error:
                sent = self._not_sent(error)
                if sent < 0:
                    return
            if sent == self.unsent:
                self._queue = None
                self.unsent = 0
                if self._over_high_water or self._drain_waiters or self._registered_mask & WRITE:
                    self._heard()
                    self._was_flushed(blocked=False)
                return
            self._was_sent(queue, len(queue), data, sent)
            refused = bool(queue)
        self._flush_in_order(queue, refused)

    def _flush_in_order(self, queue: Any, refused: bool = False) -> None:
        """Flush in as many steps as it takes. `refused`: the first one was made, and the kernel took less than it was
        given."""
        self._sending = FLUSHING
        if len(queue) > _MANY and type(queue) is list:
            self._queue = deque(queue)
            queue = self._queue
        calls, blocked, began = 0, refused, 0.0
        try:
            if refused:
                self.on_incomplete_write()
            while queue and not blocked and self._queue is queue:
                if not (self._queued_callables and callable(queue[0])):
                    blocked = not self._send_some(queue)
                    if blocked and self._queue is queue:
                        self.on_incomplete_write()
                elif calls < _CALLS_AT_ONCE and not (calls and self.loop._is_long_since(began)):
                    began = began or self.loop.clock()
                    calls += 1
                    self._queued_callables -= 1
                    call = queue[0]
                    del queue[0]
                    if (result := call()) is not None:
                        checks.outcome("a callable given to write", result)
                else:
                    break
        finally:
            self._sending = IDLE
            if self._queue is queue:
                self._was_flushed(blocked)
            else:
                self._look_at_interest(WRITE)

    def _send_some(self, queue: Any) -> bool:
        """Send the bytes at the head of the queue with one call. Did the kernel take them all?"""
        count, data = 1, queue[0]
        if len(queue) > 1:
            size = count = 0
            for piece in queue:
                if count and (size >= _JOIN or (self._queued_callables and callable(piece))):
                    break
                size += len(piece)
                count += 1
            if count > 1:
                data = b"".join(islice(queue, count))
        try:
            sent = self.sock.send(data) if self._writer is None else self._writer(data)
        except OSError as error:
            sent = self._not_sent(error)
        if sent >= 0:
            self._was_sent(queue, count, data, sent)
        return sent == len(data)

    def _was_sent(self, queue: Any, count: int, data: Buffer, sent: int) -> None:
        """Of `data`, which is the first `count` pieces of the queue put together, so many bytes were sent."""
        self.unsent -= sent
        if sent:
            self._heard()
        whole = sent == len(data)
        if whole or sent or count > 1:
            if type(queue) is list:
                del queue[:count]
            else:
                for _ in range(count):
                    queue.popleft()
            if not whole:
                queue.insert(0, memoryview(data)[sent:])

    def _not_sent(self, error: OSError) -> int:
        """Nothing was sent: 0 if the kernel only has no room, or no memory, now, -1 if it will take no more at all."""
        if isinstance(error, BlockingIOError) or self._is_short_of_memory(error):
            return 0
        self._write_failed(error)
        return -1

    def _wait_for_kernel(self) -> None:
        """It takes no more now: have it tell when it does.

        Where it cannot (ENOSPC, ENOMEM of epoll_ctl), the rest would never leave: the connection is closed with that.
        """
        self._sending = BLOCKED
        if not self._registered_mask & WRITE or self._is_paused():
            self._was_at_work()
            try:
                self._add_interest(WRITE)
            except BaseException as error:
                self.close(error)
                raise

    def _was_flushed(self, blocked: bool) -> None:
        """An empty queue is None, interest follows, and who waited for room hears of it."""
        if blocked:
            self._wait_for_kernel()
        else:
            if self._queue:  # a callable raised, or there were very many
                self.loop.to_flush.append(self)
            else:
                self._queue = None
        if self._drain_waiters:
            self._wake_writers()
        if self._over_high_water:
            self._look_at_low_water()
        if not blocked and self._registered_mask & WRITE:
            self._update_registration()

    def _write_failed(self, error: OSError) -> None:
        """The peer takes no more. Close, unless what the peer has sent may still be read: that end is found there.

        An error that does not say that the connection is broken leaves a peer who waits for more: close in any case.
        """
        self._note_write_error(error)
        self._drop_queue()
        if error.errno not in BROKEN or not self._may_be_read():
            self.close(self._cause(error))
            return
        self._send_fin_after_all()
        if self._drain_waiters:
            self._wake_writers()

    def _drop_queue(self) -> None:
        """What is queued, and what is written from now on, goes nowhere."""
        self._close_writing()
        self._queue = self._writer = None
        self.unsent = self._queued_callables = self._sending = 0

    def _interest(self) -> int:
        reads = (self._watch_read or self._reader is not None or self._finishing) and not self._eof
        return (READ if reads else 0) | (WRITE if self._watch_write or self._sending == BLOCKED else 0)

    def _close_after_queue(self, then: Callable[[], object]) -> None:
        """What is written from now on goes nowhere; and do this when what is queued was sent."""
        self._close_writing()  # before the queue leaves: what is written from within that comes after the end
        self._enqueue(then)
        if self._sending == IDLE:
            self._flush()

    def _send_fin_after_all(self) -> None:
        """Nothing can be sent, but the connection may live: EPIPE of a Unix peer that has shut down reading."""
        try:
            self._shut_writing(self._send_fin_after_all)
        except OSError as error:
            if error.errno not in BROKEN:  # there is no other way to tell it
                self.close(self._write_error)

    # -- hooks and settings

    def event_write(self) -> object:
        """Called when the kernel takes bytes again, while something is queued or writing is watched. It flushes."""
        if self._sending == BLOCKED:
            self._sending = IDLE
        self._flush()
        return None

    _try_again = event_write  # also where the kernel has refused, and nothing has told that it takes more

    def on_incomplete_write(self) -> object:
        """Called when the kernel took less than it was given."""

    def watch_write(self, on: bool) -> None:
        """Have `event_write` called whenever the kernel takes bytes; `write` needs no such help for its queue."""
        self.loop.check_thread("watch_write")
        wanted = bool(on) and not self._write_closed & MUTE
        self._watch_output(wanted)
        if not wanted:
            self._look_at_interest(WRITE)

    def set_writer_func(self, writer: Writer | None) -> None:
        """Replace the system call: `writer(data)` answers how many bytes it took, or raises BlockingIOError."""

        if writer is not None:
            checks.function("set_writer_func", writer)

        def checked(data: Buffer) -> int:
            sent = writer(data)  # type: ignore[misc]
            checks.outcome(f"the writer {writer!r}", sent)
            if not 0 <= sent <= len(data):
                raise ValueError(f"the writer {writer!r} was given {len(data)} bytes and says that it took {sent}")
            return sent

        self._writer = checked if writer is not None else None
