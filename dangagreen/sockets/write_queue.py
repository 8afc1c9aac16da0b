"""The write queue: send(2) first; what the kernel does not take is queued, and sent when the socket is writable.

Rules: bytes are sent in the order of the calls, and a callable runs when everything before it was sent; `unsent` is the
sum of what is queued; after a short write nothing is tried before the poller reports writability; the hook of a water
mark is called once for each crossing; writers go first come, first served. What does not belong here: parking.
"""

from __future__ import annotations

from _thread import get_ident
from collections import OrderedDict, deque
from collections.abc import Callable
from itertools import islice
from typing import Any

from dangagreen import checks
from dangagreen.checks import Buffer, as_bytes
from dangagreen.errors import BROKEN, LimitError
from dangagreen.loop.pollers import WRITE
from dangagreen.sockets.backpressure import BackPressure
from dangagreen.sockets.states import BLOCKED, FLUSHING, IDLE, MUTE

Writer = Callable[[Buffer], int]
Waiters = OrderedDict[Any, tuple[int, int]]
_JOIN = 131072  # bytes joined for one send(2), at most; so much glibc allocates without a system call
_MANY = 64  # pieces: a longer queue is a deque, which takes more memory, but constant time at its head
_WOKEN = -1
_CALLS_AT_ONCE = 16  # queued callables that run in one go, before others have their turn


class WriteQueue(BackPressure):
    """The layer of a socket that writes."""

    __slots__ = {
        "_drain_waiters": "Two wait queues, for room and for a flush: task to (most `unsent`, its bytes). Or None.",
        "_hangup_state": "A slot of sock, which stands here as in C it takes no room beside other small ones.",
        "_over_high_water": "Whether the high-water mark was crossed, and the low-water mark not reached again.",
        "_queued_callables": "How many callables are in the queue.",
        "_sending": "The state of the queue: IDLE, BLOCKED, FLUSHING or HELD.",
        "_writer": "The function of `set_writer_func`, called in place of send(2); or None.",
        "unsent": "How many bytes are in the write queue.",
    }

    _drain_waiters: tuple[Waiters, Waiters] | None
    _writer: Writer | None

    def _begin_writing(self) -> None:
        self.unsent = self._write_closed = self._queued_callables = self._sending = 0
        self._high_water = self._usual_water[0]
        self._over_high_water = False
        self._drain_waiters = self._write_error = self._writer = None

    def write(self, data: Buffer | Callable[[], object] | None) -> bool:
        """Send bytes; or call a function when everything before it was sent; or, with None, try to send the queue.

        Returns True if all of it went to the kernel, False if anything is queued; True on a closed or finished socket,
        which discards it. A function is called at once if nothing is queued, and then what it raises reaches the
        caller. Never parks. Raises TypeError for a str and other types.
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
        """Queue bytes, to be sent at the end of the turn: one system call for many small replies. Never parks."""
        if get_ident() != self.loop.thread:
            self.loop.check_thread("write_soon")
        data = data if type(data) is bytes else as_bytes(data)
        if data and not (self._write_closed and self._is_mute()):
            if self._queue is None:
                self.loop.to_flush.append(self)
            self._enqueue(data)

    def _write_later(self, data: Buffer | Callable[[], object] | None) -> bool:
        """`write` if anything is queued, or for an argument that is no bytes object."""
        if data is not None:
            if callable(data):
                checks.function("write", data)
            else:
                data = as_bytes(data)
                if self._queue is None and (self._writer is None or not data):
                    return self.write(data) if data else True
        if self._is_muted():
            return True
        self.loop.check_thread("write")
        if data is not None:
            try:
                self._enqueue(data)
            except BaseException:  # raised by `on_high_water`: the data is queued all the same
                self.loop.to_flush.append(self)
                raise
            self._flush()
        else:
            self._try_again()
        return self._queue is None

    def _enqueue(self, data: Buffer | Callable[[], object]) -> None:
        """Append to the queue, which may cross the high-water mark, or close the socket by `max_unsent`."""
        if self._queue is None:
            self._queue = [data]
        else:
            self._queue.append(data)
        if callable(data):
            self._queued_callables += 1
            return
        self.unsent += len(data)
        if self.unsent <= self._high_water:
            return
        if not self._over_high_water:
            self._over_high_water = True
            self.on_high_water()
        if (most := self.max_unsent) is not None and self.unsent > most:
            self.close(f"{self.unsent} bytes are queued, max_unsent is {most}: the peer reads too slowly")

    def _is_blocked(self) -> bool:
        return self._sending == BLOCKED

    def _has_writer(self) -> bool:
        return self._writer is not None

    def _has_queued(self) -> bool:
        return bool(self._queue)  # an empty one is being flushed: its last callable runs

    def _is_sent(self) -> bool:
        """Whether everything queued was sent, callables included."""
        return self._queue is None

    # -- the queue leaves

    def _flush(self) -> None:
        """Send the queue as far as the kernel takes it; not while it waits for writability. Here is the usual case."""
        queue = self._queue
        if queue is None or self._sending != IDLE:
            return None
        if self._queued_callables or self._writer is not None or (self.unsent > _JOIN and len(queue) > 1):
            return self._flush_in_order(queue)
        data = queue[0] if len(queue) == 1 else b"".join(queue)
        try:
            sent: int = self.sock.send(data)
        except OSError as error:
            if (sent := self._not_sent(error)) < 0:
                return None
        if sent != self.unsent:
            self._was_sent(queue, len(queue), data, sent)
            return self._flush_in_order(queue, refused=bool(queue))
        self._queue = None
        self.unsent = 0
        if self._over_high_water or self._drain_waiters or self._registered_mask & WRITE:
            self._heard()
            self._was_flushed(IDLE)
        return None

    def _flush_in_order(self, queue: Any, refused: bool = False) -> None:
        """Send the queue in several steps. `refused`: a first send has been a short write already."""
        self._sending = FLUSHING
        if len(queue) > _MANY and type(queue) is list:
            queue = self._queue = deque(queue)
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
                    if self._sending != FLUSHING:  # it keeps its place, or holds the queue, or has closed the socket
                        break
                else:
                    break
        finally:
            if (state := self._sending) == FLUSHING:
                self._sending = IDLE
                state = BLOCKED if blocked else IDLE
            if self._queue is queue:
                self._was_flushed(state)
            else:
                self._look_at_interest(WRITE)

    def _send_some(self, queue: Any) -> bool:
        """Send the bytes at the head of the queue by one send(2). Returns whether the kernel took them all."""
        count, data = 1, queue[0]
        if len(queue) > 1:
            size = count = 0
            for piece in queue:
                if count and ((self._queued_callables and callable(piece)) or size + len(piece) > _JOIN):
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
        """Remove `sent` bytes from the queue, whose first `count` pieces, joined, are `data`."""
        self.unsent -= sent
        if sent:
            self._heard()
        if type(queue) is list:
            del queue[:count]
        else:
            for _ in range(count):
                queue.popleft()
        if sent != len(data):
            queue.insert(0, memoryview(data)[sent:])

    def _not_sent(self, error: OSError) -> int:
        """Judge an error of send(2): returns 0 for EAGAIN and no memory; -1 if nothing can be sent any more."""
        if isinstance(error, BlockingIOError) or self._is_short_of_memory(error):
            return 0
        self._write_failed(error)
        return -1

    def _wait_for_kernel(self) -> None:
        self._sending = BLOCKED
        if not self._is_told_of(WRITE):
            if not self._is_over():  # in a lingering close what the peer takes is progress, and nothing else
                self._was_at_work()
            try:
                self._add_interest(WRITE)
            except BaseException as error:
                self.close(error)
                raise

    def _was_flushed(self, state: int) -> None:
        """The end of a flush: set the state, wake writers that have room now, call `on_low_water` where it is due."""
        if state == BLOCKED:
            self._wait_for_kernel()
        elif not self._queue:
            self._queue = None
        elif state == IDLE:  # a callable raised or has more to do, or very many were queued
            self.loop.to_flush.append(self)
        self._wake_writers()
        if self._over_high_water and self.unsent <= (self._water() if self.loop.own_settings else self._usual_water)[1]:
            self._over_high_water = False
            self.on_low_water()
        if state != BLOCKED and self._registered_mask & WRITE:
            self.loop.interest_changed.append(self)  # not at once: who was woken may well fill the kernel again

    def _write_failed(self, error: OSError) -> None:
        """send(2) has failed: close, unless the connection is broken, and reading may still find input, and the end."""
        self._note_write_error(error)
        self._drop_queue()
        if error.errno not in BROKEN or not self._may_be_read():
            self.close(self._cause(error))
        else:
            self._send_fin_after_all()

    def _drop_queue(self) -> None:
        """Discard the queue, and what is written from now on; nobody waits for it any more."""
        self._write_closed = MUTE
        self._queue = self._writer = None
        self.unsent = self._queued_callables = self._sending = 0
        if self._drain_waiters is not None:
            self._wake_writers()
            self._drain_waiters = None

    def _leave_to_parent(self) -> None:
        BackPressure._leave_to_parent(self)
        self._queue, self.unsent, self._queued_callables, self._sending = None, 0, 0, 0

    def _interest(self) -> int:
        return BackPressure._interest(self) | (WRITE if self._watch_write or self._sending == BLOCKED else 0)

    # -- who waits for the queue to shrink

    def _ask_for_room(self, task: Any, size: int, woken: bool) -> bool:
        """Whether a task may queue so many bytes now; else it is in the wait queue. Raises what rules it out."""
        high, low, hard = self._water() if self.loop.own_settings else self._usual_water
        most = high if hard is None else min(high, hard - size)
        if woken or self.unsent > most:
            if not woken:
                self._flush()
            most = min(most, low)
        if self._write_closed:
            self._check_writable()
        if most < 0:
            raise LimitError(f"{size} bytes to write at once are more than max_unsent, {hard}", hard or 0)
        if self.unsent > most or (not woken and self._drain_waiters and self._drain_waiters[0]):
            self._wait_queues()[0][task] = min(most, low), size  # behind those who wait, though there may be room
            return False
        if woken and self._drain_waiters:
            self._drain_waiters[0].pop(task, None)
        if self.unsent + size > high and not self._over_high_water:
            self._over_high_water = True
            try:
                self.on_high_water()
            except BaseException:
                self._wake_writers()  # the room is for the next one
                raise
            if self._write_closed:
                self._check_writable()
        return True

    def _ask_for_flush(self, task: Any) -> bool:
        """Whether all was sent, callables too; otherwise the task is in the wait queue. Raises what prevents it."""
        if self._queue is not None:
            self._wait_queues()[1][task] = 0, 0
        elif self.closed or self._is_broken():
            raise self._cannot_write()
        return self._queue is None

    def _wait_queues(self) -> tuple[Waiters, Waiters]:
        if self._drain_waiters is None:
            self._drain_waiters = OrderedDict(), OrderedDict()
        return self._drain_waiters

    def _parked_writers(self) -> list[list[Any]]:  # for room, and for a flush
        return [list(line) for line in self._drain_waiters or ((), ())]

    def _leave_wait_queue(self, task: Any) -> None:
        """Leave the wait queue. The next flush drops it, if it is empty."""
        for line in self._drain_waiters or ():
            line.pop(task, None)

    def _wake_writers(self) -> None:
        """Wake writers that have room, who keep their place until they run; at the end of the queue all in `drain`."""
        if self._drain_waiters is None:
            return
        for_room, for_the_end = self._drain_waiters
        while for_the_end and self._queue is None:
            for_the_end.popitem(last=False)[0]._wake(undone=True)
        unsent = self.unsent
        for task, (most, size) in for_room.items():
            if most != _WOKEN:
                if unsent > most and not self._is_shut():
                    return
                for_room[task] = _WOKEN, size
                task._wake(undone=True)
            unsent += size
        if not for_room and not for_the_end:
            self._drain_waiters = None

    # -- callables of the library's own that keep their place: a file that is sent, a TLS handshake that is under way

    def _keep_place(self, call: Callable[[], object], state: int) -> None:
        """Have a callable called first: when writable (`state` BLOCKED), next turn (IDLE), after `_go_on` (HELD)."""
        if self._queue is None:
            self._queue = []
        self._queue.insert(0, call)
        self._queued_callables += 1
        self._sending = state  # until then what is written is queued behind it

    def _go_on(self, call: Callable[[], object], first: Buffer = b"") -> None:
        """Have the callable that keeps its place at the head called at the end of the turn, when `first` was sent."""
        if self._queue and self._queue[0] is call and self._sending != FLUSHING:
            if first:
                self._queue.insert(0, first)
                self.unsent += len(first)
            self._sending = IDLE
            self.loop.to_flush.append(self)

    # -- hooks and settings

    def event_write(self) -> object:
        """Called when the socket is writable, while bytes are queued or writing is watched. Sends the queue."""
        if self._sending == BLOCKED:
            self._sending = IDLE
        self._flush()
        return None

    _try_again = event_write  # also where the kernel has refused, and nothing has told that it takes more

    def on_high_water(self) -> object:
        """Called when more than `high_water` bytes are queued, once for each crossing. Does nothing: override it."""

    def on_low_water(self) -> object:
        """Called when, after `on_high_water`, no more than `low_water` bytes are queued. Does nothing: override it."""

    def set_writer_func(self, writer: Writer | None) -> None:
        """Replace send(2) by a function that returns how many bytes it took or raises BlockingIOError. None undoes."""
        self._writer = None if writer is None else checks.writer(writer)
