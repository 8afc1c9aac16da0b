"""Back-pressure: water marks, the hard limit, whether anything may be written, and the wait queue of writers.

Rules: the hook of each water mark is called once for each crossing; waiting writers go on first come, first served, as
many as there is room for; no task waits for what can never be sent. What does not belong here: the write queue, parking
(streams).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any, ClassVar

from dangagreen.errors import ClosedError, LimitError
from dangagreen.sockets.delivery import Delivery
from dangagreen.sockets.settings import Setting, size, size_or_none
from dangagreen.sockets.states import MUTE, OBSERVED, OWES
from dangagreen.tracebacks import is_like, without_traceback

# A wait queue: task to (bytes that may be queued at most when it goes on, bytes that it then queues itself)
Waiters = OrderedDict[Any, tuple[int, int]]


class BackPressure(Delivery):
    """The layer of a socket that bounds what is queued.

    Settings, of the class or of one object, in bytes: `high_water` and `low_water` (hooks `on_high_water`,
    `on_low_water`, and where `write_all` parks and goes on), `max_unsent` (more than that queued closes the socket;
    None is no limit).
    """

    __slots__ = {
        "_drain_waiters": "Two wait queues: tasks that wait for room, and tasks that wait for a flush; or None.",
        "_high_water": "`high_water`: a slot is read four times as fast as a setting.",
        "_over_high_water": "Whether the high-water mark was crossed, and the low-water mark not reached again.",
        "_write_closed": "Whether what is written is discarded, MUTE, or is observed by a drain: OBSERVED, OWES.",
        "_write_error": "The error by which nothing can be sent any more; or None.",
        "unsent": "How many bytes are in the write queue.",
    }

    _drain_waiters: tuple[Waiters, Waiters] | None
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

    def _begin_writing(self) -> None:
        """The first values of the writing half."""
        self.unsent = self._write_closed = 0
        self._high_water = self._usual_high_water
        self._over_high_water = False
        self._drain_waiters = self._write_error = None

    # -- water marks

    @classmethod
    def _check_order(cls, low_water: int, high_water: int, max_unsent: int | None) -> None:
        if not 0 <= low_water <= high_water <= (max_unsent if max_unsent is not None else math.inf):
            raise ValueError(
                f"{cls.__name__} needs low_water <= high_water <= max_unsent, and has low_water = {low_water},"
                f" high_water = {high_water}, max_unsent = {max_unsent}"
            )

    def _check_water(self, **one: Any) -> None:
        """Raise ValueError unless low_water <= high_water <= max_unsent holds with this one assigned."""
        self._check_order(
            **{name: one.get(name, getattr(self, name)) for name in ("low_water", "high_water", "max_unsent")}
        )

    def _was_set(self, name: str) -> None:
        super()._was_set(name)
        if name == "high_water":
            self._high_water = self.high_water

    def _cross_high_water(self) -> None:
        """Call `on_high_water`, once for each crossing: more than `high_water` is queued, or will be."""
        if not self._over_high_water:
            self._over_high_water = True
            self.on_high_water()

    def _look_at_low_water(self) -> None:
        """Call `on_low_water` if the low-water mark is reached again."""
        if self._over_high_water and self.unsent <= self.low_water:
            self._over_high_water = False
            self.on_low_water()

    def on_high_water(self) -> object:
        """Called when more than `high_water` bytes are queued, once for each crossing. Does nothing: override it."""

    def on_low_water(self) -> object:
        """Called when, after `on_high_water`, no more than `low_water` bytes are queued. Does nothing: override it."""

    # -- whether anything may be written

    def _is_mute(self) -> bool:
        """Whether what is written is discarded. Otherwise a drain observes, and notes this write as an answer."""
        if self._write_closed & MUTE:
            return True
        self._answers()
        return False

    def _is_muted(self) -> bool:
        """`_is_mute`, or False where neither an end nor a drain is noted."""
        return self._write_closed != 0 and self._is_mute()

    def _is_shut(self) -> bool:
        """Whether what is written is discarded."""
        return self._write_closed & MUTE != 0

    def _is_end_by(self, error: BaseException) -> bool:
        """Whether an error is what has broken this connection, in either direction."""
        return is_like(error, self._read_error) or is_like(error, self._write_error)

    def _answers(self) -> None:
        """Note a write while a drain observes: it answers what was read, except for what is in the buffer."""
        self._write_closed = OBSERVED | (OWES if self.buffered else 0)  # unread input is still to be answered
        self._task_has_written()

    def _observe(self) -> None:
        """Have writes noted, for a drain."""
        if not self._write_closed:
            self._write_closed = OBSERVED

    def _is_asked(self) -> None:
        """Note that a task has received input, which is to be answered, if a drain observes."""
        if self._write_closed & OBSERVED:
            self._write_closed |= OWES

    def _owes_an_answer(self) -> bool:
        """Whether a task that writes has received input while a drain observes, and not answered it yet."""
        return bool(self._write_closed & OWES) and self._sequential == 2

    def _close_writing(self) -> None:
        """Discard what is written from now on."""
        self._write_closed = MUTE

    def _note_write_error(self, error: OSError) -> None:
        """Keep the error by which nothing can be sent any more."""
        self._write_error = without_traceback(error)

    def _check_writable(self) -> None:
        """Raise the error of a write, if it would be discarded."""
        if self._is_mute():
            raise self._cannot_write()

    def _is_broken(self) -> bool:
        return self._write_error is not None

    def _cannot_write(self) -> OSError:
        """The error of a write that would be discarded: the OS's, or ClosedError."""
        if self._write_error is not None:
            return without_traceback(self._write_error)
        return ClosedError(self, self.close_reason if self.closed else "finish() or write_eof() was called")

    # -- room for those who write, and who waits for it

    def _ask_for_room(self, size: int) -> int | None:
        """Returns None if so many bytes may be queued now; otherwise to how many `unsent` has to shrink before.

        Raises LimitError if they are more than `max_unsent` by themselves, and the error of a write that is discarded.
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
        """Called before so many bytes are queued. Raises the error of a write that is discarded."""
        if self.unsent + size > self._high_water and not self._over_high_water:
            self._over_high_water = True
            try:
                self.on_high_water()
            except BaseException:
                self._wake_writers()  # the room that this one does not use is for the next one
                raise
        if self._write_closed & MUTE:
            raise self._cannot_write()

    def _join_wait_queue(self, task: Any, to_write: bool, most: int, size: int, first: bool) -> bool:
        """Enter a wait queue until at most `most` bytes are queued (0: no callables either), as its `first` if so.

        `to_write`: to queue `size` bytes then; otherwise for a flush. Returns False, and does not enter, if no wait is
        needed. Raises the error by which nothing will be sent any more.
        """
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

    def _leave_wait_queue(self, task: Any) -> None:
        """Leave the wait queue."""
        if self._drain_waiters is not None:
            for_room, for_the_end = self._drain_waiters
            for_room.pop(task, None)
            for_the_end.pop(task, None)
            if not for_room and not for_the_end:
                self._drain_waiters = None

    def _wake_writers(self) -> None:
        """Wake the writers that have room now, first come, first served, and at the end of the queue all in `drain`."""
        if self._drain_waiters is None:
            return
        line, for_the_end = self._drain_waiters
        unsent, empty = self.unsent, self._queue is None
        all_of_them = self.closed or self._write_error is not None or (self._write_closed & MUTE and empty)
        if all_of_them or empty:
            for task in list(for_the_end):
                task._wake()
        while line:
            task, (most, size) = next(iter(line.items()))
            if not all_of_them and (unsent > most or not (most or empty)):
                break
            task._wake()
            unsent += size
