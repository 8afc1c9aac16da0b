"""Idle timeout and lifetime: a connection that exceeds one is closed.

Rules: input in the kernel counts as activity, since it may have come in time, while the process was stopped or busy.
What does not belong here: since when a connection is idle (idle), what a protocol does on a timeout.
"""

from __future__ import annotations

import math

from dangagreen.sockets.write_queue import WriteQueue


class TimeLimits(WriteQueue):
    """The layer of a socket that closes it by `idle_timeout` and `lifetime`."""

    __slots__ = ()

    def _was_set(self, name: str) -> None:
        super()._was_set(name)
        if name in ("idle_timeout", "lifetime"):
            now = self.loop.clock()
            self._restart_clock(now)
            if not self._is_over():  # then its timer is that of the lingering
                deadline = min(self._end_of_life(), self._idle_deadline(now))
                self._look_again(max(now, deadline))

    def _look_again(self, deadline: float) -> None:
        if deadline < math.inf:
            self._set_timer(deadline, self._check_limits)
        else:  # None may have been assigned to its class
            self._cancel_timer()

    def _check_limits(self) -> None:
        """The timer has fired. An exception of a hook closes the connection: no timer would look again."""
        try:
            self._apply_limits()
        except Exception as error:
            self.loop.handler_failed(self, error)

    def _apply_limits(self) -> None:
        """Close the socket if a limit is exceeded; otherwise set the timer for when the next one may be."""
        now, end = self.loop.clock(), self._end_of_life()
        if now >= end:
            return self.close(f"its lifetime of {self.lifetime} s is over")
        if now >= (deadline := self._idle_deadline(now)):
            timer, has_acted = self._current_timer(), self._peer_has_acted()
            if self.closed or self._current_timer() is not timer:  # by a hook: its limits are others, or it finishes
                return None
            if not has_acted:
                return self.close(f"the peer was idle for {self.idle_timeout} s")
            self._was_at_work()
            deadline = self._idle_deadline(now)
        return self._look_again(min(end, deadline))

    def _peer_has_acted(self) -> bool:
        """Whether the peer has read or sent meanwhile, as the kernel shows, though the loop has not processed it."""
        if self._is_blocked():
            before, mark = self.unsent, self._mark()
            self._try_again()
            if self.closed or self.unsent < before or self._has_heard_since(mark):
                return True
        return not self._waits_in_vain()
