"""What a connection goes through before anything else, such as a TLS handshake: steps, in order, with one deadline.

Rules: a connection that is silent or slow holds up nobody; its object is made, and its handler starts, when the last
step is over; one that is refused costs one debug line, and a lingering close, so that the peer hears why; a step that
calls code of the program's runs in a task. What does not belong here: what a step says (sockets/tls), a connection that
is in use already (starttls).
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any, Protocol

from dangagreen.errors import OUT_OF_BUFFERS, ErrorContext, TlsError
from dangagreen.green.tasks import Task
from dangagreen.loop.error_log import log
from dangagreen.loop.loop import Loop
from dangagreen.loop.pollers import READ, WRITE
from dangagreen.places import origin_of
from dangagreen.sockets.acceptor import maker_of
from dangagreen.sockets.descriptor import Descriptor
from dangagreen.sockets.endpoint import in_words, peer_of

_LINGER_SECONDS = 2.0  # for a peer that was refused to end its side
_LATE = 65536  # bytes that are discarded meanwhile


class Step(Protocol):
    """One step: made of the OS socket, or of what the step before has made of it."""

    @property
    def may_park(self) -> bool: ...  # whether it calls code of the program's, which may park
    @property
    def sni_callback(self) -> object: ...  # that code
    @property
    def wants_write(self) -> bool: ...  # whether it waits for room in the kernel, and not only for input
    def go_on(
        self,
    ) -> Any: ...  # returns what the connection is made of; BlockingIOError: it waits; OSError: it refuses


class Opening(Descriptor):
    """A connection that is not open yet: calls `then(sock, None)` when the last step is over, or `then(None, error)`.

    `sock` belongs to the caller then, and this object is out of the loop; after an error it closes by itself.
    """

    __slots__ = {
        "_deadline": "The timer of the time limit, or of the lingering close; None without one.",
        "_late": "How many bytes were discarded since it was refused; None before.",
        "_step": "The step that it is in.",
        "_steps": "Makes the steps that follow, in reverse order.",
        "_task": "The task that runs a step now; None where none does.",
        "_then": "What is called at the end; None once it was.",
    }

    def __init__(
        self,
        sock: Any,
        steps: list[Callable[[Any], Step]],
        then: Callable[[Any, BaseException | None], object],
        timeout: float | None = None,
        loop: Loop | None = None,
    ) -> None:
        self._steps = steps[::-1]
        self._step = self._steps.pop()(sock)
        self._then: Callable[[Any, BaseException | None], object] | None = then
        self._late: int | None = None
        self._task: Task[None] | None = None
        self._deadline = None
        super().__init__(sock, loop)
        self._watch_from_the_start()
        if timeout is not None:
            self._deadline = self._call_at(self.loop.clock() + timeout, partial(self._time_is_up, timeout))

    # -- events

    def event_read(self) -> None:
        if self._task is None and self._late is None and not self._step.may_park:
            self._take_step()
        else:
            self._events(READ)

    def _events(self, mask: int) -> None:
        if self._task is None:
            self.go_on()
            if mask & WRITE and not self.closed:  # it may be wanted no more
                self._update_registration()
        else:  # it has what it needs; what else comes would be reported again and again
            self._watch_input(False)
            self._watch_output(False)
            self._ignore(mask)

    def go_on(self) -> None:
        """Do what can be done now."""
        if self.closed or self._task is not None:
            return
        if self._late is not None:
            self._discard()
        elif self._step.may_park:
            origin = origin_of(self._step.sni_callback)
            self._task = Task(self.loop, self._run_step, copy_context(), "the opening of a connection", origin)
            self.loop.runnable.append(self._task.start)
        else:
            self._take_step()

    def _run_step(self) -> None:
        """`_take_step`, in a task."""
        try:
            self._take_step()
        finally:
            self._task = None
            if not self.closed:
                self._watch_input(True)

    def _take_step(self) -> None:
        try:
            sock = self._step.go_on()
            while self._steps:
                self._step = self._steps.pop()(sock)
                sock = self._step.go_on()
        except BlockingIOError:
            if not self.closed:
                self._watch_output(self._step.wants_write)
        except Exception as error:
            if not self.closed:
                self._refuse(error)
        else:
            if not self.closed:
                self._succeed(sock)

    # -- the end

    def _succeed(self, sock: Any) -> None:
        """The last step is over: leave the loop, and hand the socket over."""
        self._release()
        self._stop_timer()
        if self._task is not None and (origin := origin_of(self._code_behind("event_read"))) is not None:
            self._task.origin = origin  # what makes the connection's object runs in it now
        self._tell(sock, None)

    def _tell(self, sock: Any, error: BaseException | None) -> None:
        then, self._then = self._then, None
        if then is not None:
            then(sock, error)

    def _refuse(self, error: BaseException) -> None:
        """Report the error, and close: after a FIN, and after the peer's, if the peer was told why."""
        self._tell(None, error)
        if not isinstance(error, TlsError) or error.refused_by is None:
            return self.close(error)
        self._late = 0
        self._stop_timer()
        self._deadline = self._call_at(self.loop.clock() + _LINGER_SECONDS, self.close)
        self._watch_output(False)
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            return self.close(error)
        return self._discard()

    def _discard(self) -> None:
        """Receive and discard what a refused peer still sends, so that close(2) sends no RST."""
        assert self._late is not None
        try:
            while late := len(self.sock.recv(_LATE)):
                self._late += late
                if self._late > _LATE:
                    break
        except OSError as error:
            if isinstance(error, BlockingIOError) or error.errno in OUT_OF_BUFFERS:
                return
        self.close()

    def _time_is_up(self, timeout: float) -> None:
        error = TimeoutError(f"{_named(peer_of(self.sock))} was silent, or slow: it was not open after {timeout} s")
        self._tell(None, error)
        self.close(error)

    def _stop_timer(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _on_close(self) -> None:
        self._stop_timer()
        reason = self.close_reason
        ours = ConnectionAbortedError(f"the connection was closed on this side before it was open: {reason}")
        self._tell(None, reason if isinstance(reason, BaseException) else ours)


def _named(peer: Any) -> str:
    """A peer, of this address, in a message."""
    return in_words(peer) or "the peer"


class _Accepted(Opening):
    """The opening of a connection that a listener has accepted."""

    __slots__ = {"_openings": "Those of the listener.", "_server": "The listener."}

    def __init__(self, openings: Openings, sock: Any, peer: Any, listener: Any) -> None:
        self._openings, self._server = openings, listener
        then = partial(openings.ended, listener, peer)
        super().__init__(sock, openings.steps, then, openings.timeout, listener.loop)

    def _code_behind(self, _hook: str) -> object:
        return self._openings.maker()

    def _succeed(self, sock: Any) -> None:
        self._openings.remove(self, self._server)
        super()._succeed(sock)

    def _on_close(self) -> None:
        self._openings.remove(self, self._server)
        super()._on_close()


class Openings:
    """The openings of a listener's connections: their steps, their time limit, how many may be under way at once."""

    __slots__ = {
        "_admit": "Answers what the steps are given in place of the OS socket, or refuses it by an OSError; or None.",
        "_connected": "Makes the connection's object of what the last step has made of the socket.",
        "failed": "How many were refused, or have failed.",
        "most": "How many may be under way at once; None is no limit.",
        "steps": "What makes each step, in order.",
        "timeout": "The time limit of each, in seconds; None is no limit.",
        "under_way": "Those under way, the lingering close of those refused included.",
    }

    def __init__(
        self,
        connected: Callable[[Any, Any], object],
        steps: list[Callable[[Any], Step]],
        timeout: float | None,
        most: int | None,
        admit: Callable[[Any], Any] | None = None,
    ) -> None:
        self._admit = admit
        self._connected = connected
        self.steps = steps
        self.timeout = timeout
        self.most = most
        self.under_way: dict[Opening, None] = {}
        self.failed = 0

    def maker(self) -> object:
        """What makes the object of a connection."""
        return maker_of(self._connected)

    @property
    def full(self) -> bool:
        """Whether no more may begin: connections then wait in the kernel's accept queue."""
        return self.most is not None and len(self.under_way) >= self.most

    def begin(self, sock: Any, listener: Any) -> Opening | None:
        """Begin one: what a listener calls with an OS socket that it has accepted. Returns None if it was refused."""
        peer = peer_of(sock)  # now: after a reset, or another end, the kernel has forgotten it
        if self._admit is not None:
            try:
                sock = self._admit(sock)
            except OSError as error:
                self.ended(listener, peer, None, error)
                listener.loop.discard(sock)
                return None
        try:
            opening = _Accepted(self, sock, peer, listener)
        except BaseException as error:
            listener.loop.abandon(sock, error)
            raise
        self.under_way[opening] = None
        if self.full:
            listener.pause_accepting()
        return opening

    def ended(self, listener: Any, peer: Any, sock: Any, error: BaseException | None) -> None:
        """One is over: the listener goes on with the socket; or the peer, of this address, was refused."""
        if error is None:
            listener.set_up(sock, self._made)
            listener._connection_closed()  # it was counted when it was accepted
        else:
            self.failed += 1
            log().debug("%r: the connection with %s has not opened: %s", listener, _named(peer), error)
            if not isinstance(error, OSError):
                listener.loop.report(
                    ErrorContext(f"the opening of a connection accepted by {listener!r} failed", error)
                )

    def _made(self, sock: Any, listener: Any) -> object:
        connection = self._connected(sock, listener)
        attach = getattr(sock, "attach", None)  # TLS tells of input that no poller announces
        if attach is not None:
            attach(connection)
        return connection

    def remove(self, opening: Opening, listener: Any) -> None:
        """One is not under way any more: another may begin."""
        was_full = self.full
        self.under_way.pop(opening, None)
        if was_full:
            listener.go_on_accepting()

    def close_all(self, reason: object) -> None:
        """Close those under way."""
        for opening in list(self.under_way):
            opening.close(reason)
