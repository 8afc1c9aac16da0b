"""The idle clock of a connection: since when it waits for its peer, since when it lives, and its one timer.

Rules: one timer for a connection, however many reads it makes: a read notes the time, and the timer looks at the note;
the connection's own work does not count. What does not belong here: what happens when a limit is exceeded (limits).
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
    """The layer of a socket that notes since when it waits.

    Settings, of the class or of one object: `idle_timeout` (seconds that it may wait for its peer, a handler's own work
    not counted; None is no limit), `lifetime` (seconds in all; set for an object, since it was first given a limit).
    """

    __slots__ = {
        "_at_work": "1 while a handler of serve_requests runs, and HELD more for each busy() that is held.",
        "_created_at": "When it was made, or first given a limit, in seconds of the loop's clock; 0 without one.",
        "_last_activity": "When the peer last sent, or read; below 0: the seconds of waits that were given up.",
    }

    _at_work: int
    _created_at: float
    _last_activity: float
    _timer: Timer | None  # of idle timeout and lifetime, or of lingering
    _limited: ClassVar[bool | None] = None  # whether the class has a limit; None: not noted
    idle_timeout: Setting[float | None] = Setting(None, seconds_or_none)
    lifetime: Setting[float | None] = Setting(None, seconds_or_none)

    # -- limits in time

    def _begin_life(self) -> None:
        """Start the clock of a new socket whose class has limits."""
        self._created_at = self._last_activity = self.loop.clock()

    def _restart_clock(self, now: float) -> None:
        """Limits were assigned: time before the first of them does not count."""
        if not self._created_at:
            self._created_at = now
        if self._timer is None and self._last_activity > 0:
            self._last_activity = now

    def _end_of_life(self) -> float:
        """The end of its lifetime, on the loop's clock; infinity without a limit."""
        lifetime = self.lifetime
        return math.inf if lifetime is None or not self._created_at else self._created_at + lifetime

    def _idle_deadline(self, now: float) -> float:
        """When its idle timeout is exceeded if nothing comes, on the loop's clock; infinity without a limit."""
        idle_timeout = self.idle_timeout
        if idle_timeout is None:
            return math.inf
        return (self._last_activity if self._is_waiting() else now) + idle_timeout

    def _set_timer(self, deadline: float, callback: Callable[[], object]) -> None:
        """Set its timer, in place of the former one."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._call_at(deadline, callback)

    def _current_timer(self) -> Timer | None:
        """The timer: another one whenever limits were assigned, or a lingering close has begun."""
        return self._timer

    def _cancel_timer(self) -> None:
        """Cancel its timer, if it has one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- what it waits for

    def _heard(self) -> None:
        """Note activity of the peer: it has sent, or read."""
        self._last_activity = self.loop.now if self._timer is None else self.loop.clock()

    def _begin_wait(self) -> None:
        """Start the idle clock, unless it runs; the time of waits that were given up counts.

        Called before what makes it wait.
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
        """A wait was given up without activity: keep its time, as a negative number, if the socket waits no more."""
        if not self._waits_for_peer():
            self._last_activity = min(0.0, self._last_activity - self.loop.clock())

    def _mark(self) -> float:
        """Move `_last_activity` by the least step and return it: it stays until something is received."""
        mark = self._last_activity = math.nextafter(self._last_activity, math.inf)
        return mark

    def _has_heard_since(self, mark: float) -> bool:
        return self._last_activity != mark

    def _was_active(self, seconds: float) -> float:
        """When the last activity will be so many seconds ago."""
        return self._last_activity + seconds

    def _silent_for(self, now: float) -> float | None:
        """For how many seconds nothing was noted of the peer; None if that is not known."""
        return now - self._last_activity if self._last_activity > 0 else None

    def _has_worked(self) -> None:
        """Note that `event_read` has returned: its own work is no idle time."""
        if self._timer is not None:
            self._last_activity = self.loop.clock()

    def _was_at_work(self) -> None:
        """Start the idle clock anew after the connection's own work, which does not count."""
        self._last_activity = self.loop.clock()

    def _is_waiting(self) -> bool:
        """Whether it waits for its peer since `_last_activity`."""
        return self._last_activity > 0 and self._waits_for_peer()

    def _waits_for_peer(self) -> bool:
        """Whether it waits for its peer, and no `busy()` is held."""
        return self._waits() and self._at_work < HELD

    # -- its own work

    def busy(self) -> Busy:
        """Announce work for this connection that it does not show, such as a reply that a task or a timer will write.

        Returns a Busy. Until the end of its `with` block, or its `release()`, a graceful shutdown waits for the
        connection, and `idle_timeout` does not count. Several may be held at once.
        """
        return Busy(self)

    def _is_at_rest(self) -> bool:
        """Whether it waits for input, and has no work in progress."""
        return not self._at_work and self._waits_for_input_alone()

    def _is_at_work(self) -> bool:
        return self._at_work != 0

    def _hold(self) -> None:
        """Note one more `busy()`."""
        self._at_work += HELD

    def _release_hold(self) -> None:
        """Note that a `busy()` was released."""
        self._at_work -= HELD
        if self._timer is not None:
            self._was_at_work()
        if not self._at_work:
            self._was_released()
