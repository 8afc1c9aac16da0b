"""Back-pressure: its settings, and whether anything may be written.

Rules: nobody waits for what can never be sent, and who writes it is told why. What does not belong here: the write
queue, and who waits for it to shrink (write_queue).
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

from dangagreen.errors import BROKEN, ClosedError
from dangagreen.sockets.delivery import Delivery
from dangagreen.sockets.settings import Setting, size, size_or_none
from dangagreen.sockets.states import MUTE, OBSERVED, OWES
from dangagreen.tracebacks import is_like, without_traceback

Water = tuple[int, int, int | None]  # high_water, low_water, max_unsent


class BackPressure(Delivery):
    """The layer of a socket that bounds what is queued.

    Settings, of the class or of one object, in bytes: `high_water` and `low_water` (hooks `on_high_water`,
    `on_low_water`, and where `write_all` parks and goes on), `max_unsent` (more than that queued closes the socket;
    None is no limit).
    """

    __slots__ = {
        "_high_water": "`high_water`: a slot is read four times as fast as a setting.",
        "_write_error": "The error by which nothing can be sent any more; or None.",
    }

    _high_water: int
    _write_closed: int  # MUTE: what is written is discarded; OBSERVED, OWES: a drain observes it. See receiving
    _write_error: OSError | None
    _usual_water: ClassVar[Water] = (65536, 16384, None)  # what the class has: see `settings.adopt_settings`
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
        """Raise ValueError unless low_water <= high_water <= max_unsent holds with this one assigned."""
        self._check_order(
            **{name: one.get(name, getattr(self, name)) for name in ("low_water", "high_water", "max_unsent")}
        )

    def _water(self) -> Water:
        """`high_water`, `low_water` and `max_unsent`; `_usual_water` says the same while no object has its own."""
        return self.high_water, self.low_water, self.max_unsent

    def _was_set(self, name: str) -> None:
        super()._was_set(name)
        if name == "high_water":
            self._high_water = self.high_water

    def on_incomplete_write(self) -> object:
        """Called after a short write: send(2) took less than it was given, or nothing. Does nothing: override it."""

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
        return self._is_broken_by(error) or is_like(error, self._write_error)

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
        return bool(self._write_closed & OWES) and self._is_written_by_a_task()

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

    def _send_fin_after_all(self) -> None:
        """Send a FIN though sending has failed: the connection may live (EPIPE of a Unix peer that only writes)."""
        try:
            self._shut_writing(self._send_fin_after_all)
        except OSError as error:
            if error.errno not in BROKEN:  # the peer can be told by a close only
                self.close(self._write_error)
