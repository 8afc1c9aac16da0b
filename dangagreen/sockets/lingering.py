"""Half-close and lingering close.

Rules: a peer never loses the tail of a reply to an RST; every wait for a peer is bounded. What does not belong here:
what an event means.
"""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Callable
from functools import partial

from dangagreen.loop.pollers import READ, WRITE
from dangagreen.sockets.limits import TimeLimits
from dangagreen.sockets.settings import Setting, seconds, size
from dangagreen.system_calls import OS_SOCKETS


class Lingering(TimeLimits):
    """The layer of a socket that ends it.

    Settings, of the class or of one object: `linger_seconds` (the lingering-close timeout: how long without progress
    after `finish()`) and `linger_bytes` (how much late input is discarded then).
    """

    __slots__ = ()

    linger_seconds: Setting[float] = Setting(5.0, seconds)
    linger_bytes: Setting[int] = Setting(16 * 1024 * 1024, size)

    # -- half-close

    def write_eof(self) -> None:
        """Half-close: shut writing down (FIN) when everything queued was sent; reading goes on. Never parks.

        What is written after this is discarded, and `write_all` raises ClosedError.
        """
        if not self._is_shut():
            self.loop.check_thread("write_eof")
            self._close_after_queue(self._send_fin)

    def _close_after_queue(self, then: Callable[[], object]) -> None:
        """Discard what is written from now on, and call `then` when the queue was sent."""
        self._close_writing()  # before sending: what a queued callable writes comes after the end
        self._enqueue(then)
        self._flush()

    def _send_fin(self) -> None:
        """The write queue was sent: send the FIN. A lingering close is over if the peer has ended before."""
        over = self._finishing and self._is_at_eof()
        if over and (type(self.sock) in OS_SOCKETS or self._has_said_end()):
            return self.close()
        try:
            over = self._shut_writing(self._send_fin) and over
        except OSError as error:
            self._write_failed(self._cause(error))
        else:
            if over:
                self.close()
        return None

    def _has_said_end(self) -> bool:
        """Whether no transport with an end of its own, as TLS has, still has to send that. (An OS socket has none: who
        asks looks at the type first, so that its connections call nothing.)"""
        notify = getattr(self.sock, "notify", None)
        return notify is None or self._is_broken() or notify()

    # -- lingering close

    def finish(self) -> None:
        """Lingering close: send what is queued, then a FIN, discard late input until the peer's FIN, and close.

        It closes also after `linger_seconds` without progress, and after `linger_bytes` of late input. Never parks, in
        either style. (A close with input unread would send an RST, which may overtake the reply.) What is written after
        this is discarded, and reading is over.
        """
        if self._is_over():
            return None
        if get_ident() != self.loop.thread:
            self.loop.check_thread("finish")
        if self._is_broken():
            return self.close(self._cannot_write())
        if self._is_at_eof() and self._is_sent() and (type(self.sock) in OS_SOCKETS or self._has_said_end()):
            return self.close()  # there is nobody to wait for
        self._discard_input()
        self._watch_output(False)
        self._cancel_timer()
        try:
            if not self._is_shut():  # else write_eof() has sent the FIN, or queued it
                self._close_after_queue(self._send_fin)
        finally:  # what was queued may raise
            if not self.closed:
                self._linger()
                self._hear_the_end()
        return None

    def _hear_the_end(self) -> None:
        """Watch for the peer's FIN; close if the poller refuses."""
        try:
            self._add_interest(READ)
        except BaseException as error:
            self.close(error)
            raise

    def _linger(self) -> None:
        """Set the timer of the lingering-close timeout."""
        deadline = min(self.loop.clock() + self.linger_seconds, self._end_of_life())
        self._set_timer(deadline, partial(self._lingered, self.unsent, self._mark()))

    def _lingered(self, unsent: int, mark: float) -> None:
        """The lingering-close timeout is over. An exception of a hook closes this connection, as elsewhere."""
        try:
            self._linger_on(unsent, mark)
        except Exception as error:
            self.loop.handler_failed(self, error)

    def _linger_on(self, unsent: int, mark: float) -> None:
        """Close, unless the peer has read since the timer was set: fewer than `unsent` bytes are queued, or `mark` is
        no more: a file has gone on."""
        if self.loop.clock() >= self._end_of_life():
            return self.close(f"its lifetime of {self.lifetime} s is over")
        self._hear_late()
        if self.closed:
            return None
        if self.unsent < unsent or self._has_heard_since(mark):  # the peer reads, slowly
            self._linger()
        else:
            did = "took no more" if self.unsent else "did not end its side"
            self.close(f"the peer {did} for {self.linger_seconds} s after finish()")
        return None

    def _hear_late(self) -> None:
        """Receive and discard what is in the kernel, which may have come before the timeout."""
        before, late = None, self._late_events(READ | WRITE)
        while late != before and not self.closed:
            before, late = late, self._late_events(READ | WRITE)

    def _late_events(self, mask: int) -> int | None:
        """Handle events of a lingering close: send the rest of the reply, receive and discard late input.

        Returns how many bytes have come late in all; None at EOF.
        """
        if mask & ~READ:  # after a hang-up as well, which may come without WRITE
            self._try_again()
        if self.closed or self._is_at_eof() or not mask & ~WRITE:
            return None
        late = self._discard()
        if late is None:
            if self._has_failed() or (self._is_sent() and self._has_said_end()):
                self.close(self._reason())
        elif late > self.linger_bytes:
            self.close(f"the peer sent more than {self.linger_bytes} bytes after finish()")
        return late

    def _is_fin_sent(self) -> bool:
        """Whether a lingering close only waits for the peer's FIN."""
        return self._is_over() and self._is_sent()

    # -- close

    def _close_unless_finishing(self, reason: object) -> None:
        """Close at once, unless a lingering close is in progress."""
        if not self._is_over():
            self.close(reason)

    def _on_close(self) -> None:
        self._drop_queue()
        if self._timer is not None:
            self._cancel_timer()
        self._end_reading()
