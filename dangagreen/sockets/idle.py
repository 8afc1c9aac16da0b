"""The clock of a connection: since when it waits for its peer, how long it has lived, and the one timer that looks.

Rules: one timer for a connection, however many reads it sees: a read notes the time, and the timer looks at the note;
the connection's own work does not count. What does not belong here: what is done when a limit has passed (limits).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

from dangagreen.loop.timers import Timer
from dangagreen.sockets.busy import HELD, Busy
from dangagreen.sockets.endpoint import Endpoint
from dangagreen.sockets.settings import Setting, seconds_or_none


class IdleClock(Endpoint):
    """A socket that knows since when it waits.

    Settings, of the class or of one object: `idle_timeout` (seconds that it may wait for its peer, a handler's own work
    not counted; None is no limit), `lifetime` (seconds in all; set for an object, since it was first given a limit).
    """

    __slots__ = {
        "_at_work": "1 while a handler of serve_requests runs, and HELD more for each busy() that is held.",
        "_created_at": "When it was made, or first given a limit, in seconds of the loop's clock; 0 without one.",
        "_last_activity": "When the peer last sent, or took what it had let wait; below 0: how long it was waited for.",
    }

    _at_work: int
    _created_at: float
    _last_activity: float
    _timer: Timer | None  # fires when a limit may have passed, or its lingering may be over
    _limited: ClassVar[bool | None] = None  # has the class a limit in time? None: look
    idle_timeout: Setting[float | None] = Setting(None, seconds_or_none)
    lifetime: Setting[float | None] = Setting(None, seconds_or_none)

    # -- limits in time

    def _begin_life(self) -> None:
        """It has limits from the beginning on."""
        self._created_at = self._last_activity = self.loop.clock()

    def _restart_clock(self, now: float) -> None:
        """Its limits have changed: the time that it had before it was given any does not count."""
        if not self._created_at:
            self._created_at = now
        if self._timer is None and self._last_activity > 0:
            self._last_activity = now

    def _end_of_life(self) -> float:
        """When its lifetime is over."""
        lifetime = self.lifetime
        return math.inf if lifetime is None or not self._created_at else self._created_at + lifetime

    def _idle_deadline(self, now: float) -> float:
        """When it will have been idle for too long, if it hears nothing more."""
        idle_timeout = self.idle_timeout
        if idle_timeout is None:
            return math.inf
        return (self._last_activity if self._is_waiting() else now) + idle_timeout

    def _set_timer(self, deadline: float, callback: Callable[[], object]) -> None:
        """Have its timer call this, and nothing else."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._call_at(deadline, callback)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- what it waits for

    def _heard(self) -> None:
        """The peer has sent something, or taken what it had let wait. Others may have worked since the turn began."""
        self._last_activity = self.loop.now if self._timer is None else self.loop.clock()

    def _begin_wait(self) -> None:
        """From now on it waits for its peer, if it did not before; after a wait that was given up from so much earlier.

        To be called before what makes it wait.
        """
        if self._is_waiting():
            return
        waited, self._last_activity = min(0.0, self._last_activity), self.loop.clock()
        if waited and self._timer is not None and self.idle_timeout is not None:
            self._last_activity += waited
            deadline = self._last_activity + self.idle_timeout
            if deadline < self._timer.deadline and (look := self._timer.callback) is not None:
                self._set_timer(deadline, look)

    def _give_up_wait(self) -> None:
        """It has heard nothing. If it waits no more, the time that it has waited is kept, as a negative one."""
        if not self._waits_for_peer():
            self._last_activity = min(0.0, self._last_activity - self.loop.clock())

    def _mark(self) -> float:
        """An object that is in the place of `_last_activity` until something is received."""
        mark = self._last_activity = self._last_activity + 0.0
        return mark

    def _was_at_work(self) -> None:
        """It has heard something, and what it did then was its own work. From now on it waits."""
        self._last_activity = self.loop.clock()

    def _is_waiting(self) -> bool:
        """Does it wait for its peer, since `_last_activity`?"""
        return self._last_activity > 0 and self._waits_for_peer()

    def _waits_for_peer(self) -> bool:
        return self._waits() and self._at_work < HELD

    # -- its own work

    def busy(self) -> Busy:
        """Work is going on for this connection that it does not show: an answer that is to come from a task or a timer.

        Until the end of a `with` block, or until `release()` of what this returns, a drain takes the connection for one
        at work, and `idle_timeout` does not count. Several may be held at once.
        """
        return Busy(self)

    def _is_at_rest(self) -> bool:
        """Does it wait for input, and is nothing else going on?"""
        return not self._at_work and self._waits_for_input_alone()

    def _hold(self) -> None:
        self._at_work += HELD

    def _release_hold(self) -> None:
        self._at_work -= HELD
        if self._timer is not None:
            self._was_at_work()
        if not self._at_work:
            self._was_released()
