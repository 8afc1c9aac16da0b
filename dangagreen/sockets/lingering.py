"""How a connection ends well: half-close, lingering close, and what close(2) does.

Rules: a peer never loses the tail of a reply to a reset; every wait for a peer that does not behave is bounded. What
does not belong here: what an event means.
"""

from __future__ import annotations

import socket
import struct
from _thread import get_ident
from functools import partial
from typing import Any

from dangagreen.loop.pollers import READ, WRITE
from dangagreen.sockets.limits import TimeLimits
from dangagreen.sockets.settings import Setting, seconds, size
from dangagreen.sockets.states import MUTE

_SOCKET, _LINGER = int(socket.SOL_SOCKET), int(socket.SO_LINGER)
_LINGER_TIME = struct.Struct("ii")  # socket(7): is it on, and for how many seconds


class Lingering(TimeLimits):
    """A socket with an end.

    Settings, of the class or of one object: `linger_seconds` (the lingering-close timeout: how long without progress
    after `finish()`) and `linger_bytes` (how much late input is discarded then).
    """

    __slots__ = {"_linger_budget": "How many bytes were received and discarded since `finish()`; not set before."}

    linger_seconds: Setting[float] = Setting(5.0, seconds)
    linger_bytes: Setting[int] = Setting(16 * 1024 * 1024, size)

    # -- half-close

    def write_eof(self) -> None:
        """Shut writing down when everything queued was sent, and go on reading. It never waits.

        What is written after this goes nowhere.
        """
        if not self._write_closed & MUTE:
            self.loop.check_thread("write_eof")
            self._close_after_queue(self._send_fin)

    def _send_fin(self) -> None:
        """The queue has left: send the FIN. A lingering close is over if the peer has ended before."""
        if self._finishing and self._eof:
            return self.close()
        try:
            self._shut_writing(self._send_fin)
        except OSError as error:
            self._write_failed(self._cause(error))
        return None

    # -- lingering close

    def finish(self) -> None:
        """Send what is queued, shut writing down, discard late input until the peer ends or a bound is met, and close.

        It never waits, in either style. Closing with input unread would make the kernel send a reset, which may
        overtake the reply. What is written after this goes nowhere.
        """
        if self.closed or self._finishing:
            return None
        if get_ident() != self.loop.thread:
            self.loop.check_thread("finish")
        if self._write_error is not None:
            return self.close(self._write_error)
        if self._eof and self._queue is None:  # there is nobody to wait for
            return self.close()
        self._linger_budget = 0
        self._discard_input()
        self._watch_output(False)
        self._cancel_timer()
        try:
            if not self._write_closed & MUTE:  # else write_eof() has sent the FIN, or queued it
                self._close_after_queue(self._send_fin)
        finally:  # what was queued may raise
            if not self.closed:
                self._linger()
                self._hear_the_end()
        return None

    def _hear_the_end(self) -> None:
        try:
            self._add_interest(READ)
        except BaseException as error:
            self.close(error)
            raise

    def _linger(self) -> None:
        deadline = min(self.loop.clock() + self.linger_seconds, self._end_of_life())
        self._set_timer(deadline, partial(self._lingered, self.unsent))

    def _lingered(self, unsent: int) -> None:
        """A timer has fired. What a hook raises costs this connection, as in all its life."""
        try:
            self._linger_on(unsent)
        except Exception as error:
            self.loop.handler_failed(self, error)

    def _linger_on(self, unsent: int) -> None:
        """Close, unless the peer has taken some of what was unsent at the last look."""
        if self.loop.clock() >= self._end_of_life():
            return self.close(f"its lifetime of {self.lifetime} s is over")
        self._hear_late()
        if self.closed:
            return None
        if self.unsent < unsent:  # slow, but reading
            self._linger()
        else:
            did = "took no more" if self.unsent else "did not end its side"
            self.close(f"the peer {did} for {self.linger_seconds} s after finish()")
        return None

    def _hear_late(self) -> None:
        """While it lingers: take in what lies in the kernel, which may have come in time."""
        before = -1
        while not self.closed and self._linger_budget != before:
            before = self._linger_budget
            self._late_events(READ | WRITE)

    def _late_events(self, mask: int) -> None:
        """What the loop reports while finishing: room for the rest of the reply, and input that nobody wants."""
        if mask & ~READ:  # after a hang-up as well, of which no WRITE need tell
            self._try_again()
        if self.closed or self._eof or not mask & ~WRITE:
            return
        late = self._discard()
        if late is not None:
            self._linger_budget += late
            if self._linger_budget > self.linger_bytes:
                self.close(f"the peer sent more than {self.linger_bytes} bytes after finish()")
        elif self._queue is None or self._read_error is not None:
            self.close(self._read_error)

    def _is_fin_sent(self) -> bool:
        """Has it only to hear the peer's end?"""
        return self._finishing and self._queue is None

    # -- close

    def _close_unless_finishing(self, reason: object) -> None:
        """Close at once, unless it is to send its tail."""
        if not self._finishing:
            self.close(reason)

    def _on_close(self) -> None:
        self._drop_queue()
        if self._drain_waiters:
            self._wake_writers()
        if self._timer is not None:
            self._cancel_timer()
        self._end_reading()

    def _close_fd(self) -> None:
        sock = self.sock
        try:
            if sock.getsockopt(_SOCKET, _LINGER):  # is it on? One more argument, for the whole of it, would be dearer
                _linger_in_background(sock)
        except (OSError, AttributeError):  # it only looks like a socket
            pass
        sock.close()


def _linger_in_background(sock: Any) -> None:
    """Have the kernel send what is left after close(2), as it does where no linger time is set.

    With one, close(2) waits for that, also on a non-blocking socket, and with it the loop. A time of 0, which asks for
    a reset, is left as it is.
    """
    on, seconds = _LINGER_TIME.unpack(sock.getsockopt(_SOCKET, _LINGER, _LINGER_TIME.size))
    if on and seconds:
        sock.setsockopt(_SOCKET, _LINGER, _LINGER_TIME.pack(0, 0))
