"""Back-pressure: how much may be queued to be sent, whether anything may, and who waits for the queue to shrink.

Rules: the hook of each water mark is called once for each crossing; those who write go on first come, first served, as
many as there is room for; what can never be sent is not waited for. What does not belong here: the queue, and waiting
itself (that is the greenlet layer's).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any, ClassVar

from dangagreen.errors import ClosedError, LimitError
from dangagreen.sockets.receiving import Receiving
from dangagreen.sockets.settings import Setting, size, size_or_none
from dangagreen.sockets.states import MUTE, OBSERVED, OWES
from dangagreen.tracebacks import without_traceback

# Of each task how many bytes may be queued when it goes on, and how many it then queues itself
Line = OrderedDict[Any, tuple[int, int]]


class BackPressure(Receiving):
    """A socket that may have too much to send.

    Settings, of the class or of one object, in bytes: `high_water` and `low_water` (hooks `on_high_water`,
    `on_low_water`, and where `write_all` parks and goes on), `max_unsent` (more than that queued closes the socket;
    None is no limit).
    """

    __slots__ = {
        "_drain_waiters": "The tasks that wait for room in the queue, and those that wait for its end; or None.",
        "_high_water": "`high_water`: a slot is read four times as fast as a setting.",
        "_over_high_water": "Whether more than that was queued, and not yet as little as `low_water` again.",
        "_write_closed": "Whether what is written goes nowhere, MUTE, or is observed by a drain: OBSERVED, OWES.",
        "_write_error": "Why the peer takes no more.",
        "unsent": "How many bytes are queued that the kernel has not taken.",
    }

    _drain_waiters: tuple[Line, Line] | None
    _high_water: int
    _over_high_water: bool
    _write_closed: int
    _write_error: OSError | None
    unsent: int
    _usual_high_water: ClassVar[int] = 65536  # what the class has: see `settings.adopt_settings`
    _noted: ClassVar[tuple[Any, ...]] = ()
    high_water: Setting[int] = Setting(65536, size)
    low_water: Setting[int] = Setting(16384, size)
    max_unsent: Setting[int | None] = Setting(None, size_or_none)

    # -- water marks

    @classmethod
    def _check_order(cls, low_water: int, high_water: int, max_unsent: int | None) -> None:
        if not 0 <= low_water <= high_water <= (max_unsent if max_unsent is not None else math.inf):
            raise ValueError(
                f"{cls.__name__} needs low_water <= high_water <= max_unsent, and has low_water = {low_water},"
                f" high_water = {high_water}, max_unsent = {max_unsent}"
            )

    def _check_water(self, **one: Any) -> None:
        """Raise ValueError if the marks would be in disorder with this one of them."""
        self._check_order(
            **{name: one.get(name, getattr(self, name)) for name in ("low_water", "high_water", "max_unsent")}
        )

    def _was_set(self, name: str) -> None:
        super()._was_set(name)
        if name == "high_water":
            self._high_water = self.high_water

    def _cross_high_water(self) -> None:
        """More than `high_water` is queued, or will be."""
        if not self._over_high_water:
            self._over_high_water = True
            self.on_high_water()

    def _look_at_low_water(self) -> None:
        """Some of it was sent."""
        if self._over_high_water and self.unsent <= self.low_water:
            self._over_high_water = False
            self.on_low_water()

    def on_high_water(self) -> object:
        """Called when more than `high_water` bytes have come to be queued."""

    def on_low_water(self) -> object:
        """Called when, after that, no more than `low_water` are queued."""

    # -- whether anything may be written

    def _is_mute(self) -> bool:
        """Does what is written go nowhere? Otherwise a drain observes this connection, and this is its answer."""
        if self._write_closed & MUTE:
            return True
        self._answers()
        return False

    def _answers(self) -> None:
        """Something is about to be written while a drain observes."""
        self._write_closed = OBSERVED | (OWES if self.buffered else 0)  # there is more to answer
        self._task_has_written()

    def _observe(self) -> None:
        """A drain wants to know from now on who has answered."""
        if not self._write_closed:
            self._write_closed = OBSERVED

    def _is_asked(self) -> None:
        """A task has got input: where a drain observes, there is something to answer."""
        if self._write_closed & OBSERVED:
            self._write_closed |= OWES

    def _owes_an_answer(self) -> bool:
        """Has a task got something while a drain observes, and not answered yet, though it has written before?"""
        return bool(self._write_closed & OWES) and self._sequential == 2

    def _close_writing(self) -> None:
        """What is written from now on goes nowhere."""
        self._write_closed = MUTE

    def _note_write_error(self, error: OSError) -> None:
        """The peer takes no more."""
        self._write_error = without_traceback(error)

    def _check_writable(self) -> None:
        """Something is about to be written: raise why that would go nowhere."""
        if self._is_mute():
            raise self._cannot_write()

    def _cannot_write(self) -> OSError:
        if self._write_error is not None:
            return without_traceback(self._write_error)
        return ClosedError(self, self.close_reason if self.closed else "finish() or write_eof() was called")

    # -- room for those who write, and who waits for it

    def _ask_for_room(self, size: int) -> int | None:
        """None: so many bytes may be queued now. Otherwise the queue has to shrink before, to no more than this.

        Raises what forbids it. LimitError: they are too many by themselves.
        """
        if self._write_closed:
            self._check_writable()
        most, hard = self._high_water, self.max_unsent
        if hard is not None:
            if size > hard:
                raise LimitError(f"{size} bytes to write at once are more than max_unsent, {hard}", hard)
            most = min(most, hard - size)
        return min(most, self.low_water) if self.unsent > most else None

    def _take_room(self, size: int) -> None:
        """So many bytes are about to be queued."""
        if self.unsent + size > self._high_water and not self._over_high_water:
            self._over_high_water = True
            try:
                self.on_high_water()
            except BaseException:
                self._wake_writers()  # whoever was woken to use the room, and does not
                raise
        if self._write_closed & MUTE:
            raise self._cannot_write()

    def _join_line(self, task: Any, to_write: bool, most: int, size: int, first: bool) -> bool:
        """Wait until no more than `most` bytes are queued, for 0 no callables either: to queue `size` then, as the
        `first` of those who do, or just until that is so. False: it is so. Raises why nothing will be sent any more."""
        if self.closed or self._write_error is not None:
            raise self._cannot_write()
        if self.unsent <= most and (most > 0 or self._queue is None):
            return False
        if self._drain_waiters is None:
            self._drain_waiters = OrderedDict(), OrderedDict()
        line = self._drain_waiters[not to_write]
        line[task] = most, size
        if first:
            line.move_to_end(task, last=False)
        return True

    def _leave_line(self, task: Any) -> None:
        if self._drain_waiters is not None:
            for_room, for_the_end = self._drain_waiters
            for_room.pop(task, None)
            for_the_end.pop(task, None)
            if not for_room and not for_the_end:
                self._drain_waiters = None

    def _wake_writers(self) -> None:
        """Wake those who may go on: of those who write as many as there is room for, first come, first served."""
        if self._drain_waiters is None:
            return
        line, for_the_end = self._drain_waiters
        unsent, empty = self.unsent, self._queue is None
        everybody = self.closed or self._write_error is not None or (self._write_closed & MUTE and empty)
        if everybody or empty:
            for task in list(for_the_end):
                task._wake()
        while line:
            task, (most, size) = next(iter(line.items()))
            if not everybody and (unsent > most or not (most or empty)):
                break
            task._wake()
            unsent += size
