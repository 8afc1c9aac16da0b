"""Socket in callback style: events and their order, hang-ups, hand-over of the OS socket.

Rules: buffered data stays readable after the peer resets or closes; hooks are called by the loop alone. What does not
belong here: anything that parks.
"""

from __future__ import annotations

import _socket
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from dangagreen import checks
from dangagreen.errors import BROKEN, CUT_OFF, BusyError, ClosedError, connection, peer_of
from dangagreen.loop.loop import Loop
from dangagreen.loop.pollers import ERR, HUP, READ, WRITE
from dangagreen.sockets.descriptor import Descriptor, SocketLike
from dangagreen.sockets.lingering import Lingering
from dangagreen.sockets.settings import adopt_settings
from dangagreen.sockets.states import BY_PEER, EOF_TOLD, ERR_TOLD, HUP_TOLD, HUP_TOLD_AT_END
from dangagreen.system_calls import hand_over

_kind = _socket.socket.type.__get__  # the property of socket.socket would make an enumeration member
_STREAM = int(socket.SOCK_STREAM)


class CallbackSocket(Lingering):
    """A connection, or a listening socket of your own, in callback style: subclass it, override the `event_*` hooks.

    `sock` is an OS socket, or anything that looks like one and can be made non-blocking. Declare attributes in
    `__slots__`: then a misspelt one raises AttributeError.
    """

    __slots__ = ()

    _hangup_state: int  # which hooks were called at the end: ERR_TOLD, HUP_TOLD, HUP_TOLD_AT_END, BY_PEER

    def __init__(self, sock: SocketLike, loop: Loop | None = None) -> None:
        """Register `sock` with the loop, by default this thread's; reading is not watched yet.

        Raises TypeError for what is no stream socket, ValueError if it is closed or its fd is registered already.
        """
        try:
            if _kind(sock) != _STREAM:
                check_connection(sock)
        except TypeError:  # no OS socket
            check_connection(sock)
        if self._limited is None:  # the class was given to no server: settings may have been assigned to it
            adopt_settings(type(self), fixed=False)
        Descriptor.__init__(self, sock, loop)
        # The first values of the reading half stand here: a constructor for each of its layers, in a chain, would take
        # 1 percent more of the life of a connection.
        self._buffer, self._line_limit = b"", self._usual_line_limit
        self._at_work = self._pos = self._scan_from = self._bulk_credit = self._eof = self._sequential = 0
        self._finishing = False
        self._read_error = self._lines = None
        self._created_at, self._last_activity = 0.0, self.loop.now
        self._begin_writing()
        self._hangup_state = 0
        if (limited := self._limited) is None:
            limited = self.idle_timeout is not None or self.lifetime is not None
        if limited:
            self._begin_life()
            self._check_limits()

    @property
    def idle(self) -> bool:
        """Whether it waits for the next request (keep-alive), so that a graceful shutdown of its listener may end it.

        Override it if there may be requests in progress that this object does not show:
        `return super().idle and not self.jobs`. Or hold `busy()` during each.
        """
        return self._is_at_rest() and not self._has_input()

    @property
    def tls(self) -> Any:
        """What TLS has agreed upon: a TlsInfo; None for a plain connection, and before the handshake is over."""
        return getattr(self.sock, "tls", None)

    def _speaks_tls(self) -> bool:
        """Whether TLS has begun."""
        return hasattr(self.sock, "tls")

    # -- events

    def event_err(self) -> object:
        """Called once when an error, such as an RST, has broken the connection; if reading is watched, after all input.

        Closes the socket, with that error as the reason, unless there is unread input. Override it to do otherwise.
        """
        if not self._is_over():  # by what a subclass does before it calls this
            self._ask_for_error()
            self._end_if_read("an error on the socket")
        return None

    def event_hup(self) -> object:
        """Called when the peer hung up (RST, or both directions shut down); if reading is watched, after all input.

        A FIN alone is no hang-up. Closes the socket, unless there is unread input. Override it to do otherwise.
        """
        if not self._is_over():
            self._end_if_read("the peer hung up")
        return None

    def _end_if_read(self, words: str) -> None:
        """Close, unless there is input that nobody has read."""
        if not self._has_input():
            self._hangup_state |= BY_PEER
            self.close(self._reason(words))

    def _hook(self, event: str, call: Callable[[], object]) -> None:
        """Call `event_` + this name, or what is called in its place, and tell the instruments if there are any."""
        instruments = self.loop.instruments
        result = call() if instruments is None else instruments.callback(self, event, call)
        if result is not None:
            checks.outcome(f"event_{event}", result)

    def _readable(self) -> None:
        """There is input or EOF: resume the parked reader, or call `event_read`."""
        if (reader := self._reader) is not None:
            reader.resume()
        elif self._event_read_is_due():
            self._hook("read", self.event_read)
            self._has_worked()

    def _deliver_read_ahead(self, just_now: bool) -> bool | None:
        """Call `event_read` for input that was pushed back or read ahead.

        Returns True if there is more for the next turn; None if `event_read` has left it until something new comes.
        A parked task knows what is in the buffer, unless it was pushed back `just_now`.
        """
        if self._has_reader():
            if just_now:
                self._readable()
            return False
        if not (self._is_watched() and self._has_news()):
            return False
        before, ended, mark = self.buffered, self._eof, self._mark()
        self._hook("read", self.event_read)
        new = self._has_heard_since(mark) or self._eof != ended
        self._has_worked()
        left, reads = self.buffered, self._is_watched() and not self._has_reader()
        if new or left < before or not reads or not left:  # without a buffer the end is to be told
            return reads and self._has_news()
        return None

    def _events(self, mask: int) -> None:
        if self.closed:
            return None
        if self._finishing:
            self._late_events(mask)
            return None
        ended = mask & (ERR | HUP)
        if mask & READ or ended:
            self._readable()
        if (mask & WRITE or (ended and self._is_blocked())) and not self.closed:
            if self._watch_write or self._queue is not None:
                self._hook("write", self.event_write)
        if ended and not self.closed:
            self._hang_up(ended)
        if mask & self._registered_mask and not self.closed:
            self.loop.interest_changed.append(self)
        return None

    def _hang_up(self, ended: int) -> None:
        """Handle an error or a hang-up, after READ and WRITE: call the hooks, unless there is input to read first."""
        if self._awaits_end():
            return
        if self._is_callback_style():
            if self._event_read_is_due() and (ended & HUP or self._has_input()):
                return
            if ended & ERR or self._has_failed():
                self._tell_error()
            stage = HUP_TOLD_AT_END if self._is_eof_told() else HUP_TOLD
            if ended & HUP and not self._hangup_state & stage and not self.closed:
                self._hangup_state |= stage
                self._hook("hup", self.event_hup)
        if not (self._has_reader() or self._is_blocked() or self.closed):
            self._unregister()

    def _tell_eof(self) -> None:
        if self._meet_eof(EOF_TOLD):  # no event need tell of the error any more
            self.debugmsg("broken: %r", self._reason())
            self.loop.ready.append(partial(self.loop.call, self, self._tell_error))

    def _tell_error(self) -> None:
        """Call `event_err`, once; not in sequential style, where a task finds the error by reading."""
        silent = self.closed or self._hangup_state & ERR_TOLD or self._awaits_end()
        if not silent and self._is_callback_style():
            self._hangup_state |= ERR_TOLD
            self._hook("err", self.event_err)

    def _write_failed(self, error: OSError) -> None:
        """A reset that a send has met is told to nobody else: the reader finds it here, after all that is readable."""
        if error.errno in CUT_OFF and not self._is_at_eof():
            self._note_error(error)
        was_closed = self.closed
        super()._write_failed(error)
        if error.errno in BROKEN and self.closed and not was_closed:  # a later read finds the peer's end
            self._hangup_state |= BY_PEER

    def _pushed_back(self, just_now: bool) -> bool:
        more = self._deliver_read_ahead(just_now)
        if more is None:
            self.loop.pending_reads.pop(self, None)  # from now on only what is new counts
            if self._is_at_eof() and not self._is_blocked() and not self.closed:  # nor will a hang-up bring anything
                self._unregister()
        return bool(more)

    def _check_input(self) -> bool:
        """Raise ClosedError if the socket was closed on this side, or the error that broke it. Returns False at EOF."""
        if self._is_over() and not self._hangup_state & BY_PEER:
            raise ClosedError(self, self.close_reason if self.closed else "finish() was called")
        self._raise_error()
        return False

    def _close_unconnected(self, error: Exception) -> None:
        """Close it with the reason that there is no connection, which is what tasks find that read or write."""
        if isinstance(error, OSError) and not self.closed:
            self._note_error(error)
            self._note_write_error(error)
            self._hangup_state |= BY_PEER
            self._wake_reader(error)
        self.close(error)

    def watch_write(self, on: bool) -> None:
        """Set whether `event_write` is called whenever the socket is writable. `write` does not need it."""
        self.loop.check_thread("watch_write")
        wanted = bool(on) and not self._is_shut()
        self._watch_output(wanted)
        if not wanted:
            self._look_at_interest(WRITE)

    # -- the end

    def steal_socket(self) -> tuple[Any, bytes]:
        """Close this object and return (OS socket, unread bytes): the caller owns the socket now.

        Raises BusyError while a task is parked in a read, or while bytes are queued that the kernel does not take;
        ClosedError if it is closed; the error that has broken the connection; RuntimeError under TLS.
        """
        self.loop.check_thread("steal_socket")
        if self._speaks_tls():
            raise RuntimeError(f"steal_socket: {connection(self)} is secured by TLS, whose state cannot be handed over")
        if self._has_reader():
            raise BusyError(f"steal_socket: a task is reading from {connection(self)}")
        if self.fd < 0:
            raise BusyError("steal_socket: the connection is not made yet")
        self._try_again()
        if self.closed:
            raise ClosedError(self, self.close_reason)
        if self._has_queued():
            raise BusyError(f"steal_socket: {self.unsent} bytes to {peer_of(self)} are not sent: drain() first")
        self._raise_error()  # of which the OS socket would not tell its next owner
        sock, rest = self.sock, self._consume_all()
        self._unregister()
        self.loop.unregister(self.fd)
        self.sock = _Stolen()
        self.close("its OS socket was handed over")
        hand_over(sock)
        return sock, rest


def check_connection(sock: Any) -> None:
    """Raise TypeError unless a Socket can be made of it: a stream socket, or an object with its methods."""
    for name in ("fileno", "recv", "send", "setblocking"):
        if not callable(getattr(sock, name, None)):
            raise TypeError(f"a Socket is made of a socket, or of what has its methods, not of {checks.shown(sock)}")
    if getattr(sock, "type", None) == socket.SOCK_DGRAM:
        raise TypeError(f"a Socket needs a stream, and {checks.shown(sock)} is for datagrams")


class _Stolen:
    """Stands for an OS socket that was handed over."""

    def close(self) -> None:
        """Nothing to close: the OS socket has another owner."""
