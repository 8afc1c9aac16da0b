"""TLS on a connection in use (STARTTLS): the handshake of a Socket; and the arguments of `connect` that are for TLS.

Rules: plain text that was received before the handshake is never taken for what came by TLS (STARTTLS injection); while
the handshake is under way its owner stands for the parked reader, and the write queue is held; however it ends without
success, the socket is closed with the reason; what the peer can bring about costs one debug line, in both styles. What
does not belong here: servers (opening), clients (connector), records (sockets/tls).
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from dangagreen.errors import BusyError, ClosedError, TlsError, connection
from dangagreen.green.parking import checkpoint, park
from dangagreen.green.sched import scheduler
from dangagreen.green.tasks import Task
from dangagreen.green.waiters import WaitKind, wake
from dangagreen.loop.handlers import Resumable
from dangagreen.loop.loop import Loop
from dangagreen.parks import parks
from dangagreen.places import origin_of
from dangagreen.sockets.states import HELD

if TYPE_CHECKING:
    from dangagreen.sockets.tls_options import TlsOptions

_AGAIN_SECONDS = 0.02  # until what the kernel had no room for is sent again

Then = Callable[[BaseException | None], object]


def client_tls(call: str, address: Any, tls: Any, server_hostname: Any, session: Any) -> TlsOptions | None:
    """What is asked of TLS; None: nothing. Raises TypeError or ValueError for what makes no sense."""
    if (tls is None or tls is False) and server_hostname is None and session is None:
        return None  # without importing ssl
    from dangagreen.sockets.tls_options import client_options

    return client_options(call, tls, server_hostname, address=address, session=session)


@parks
def start_tls(sock: Any, options: TlsOptions, timeout: float | None) -> None:
    """Parks until the handshake of a Socket is over; in a callback it returns, and `event_secured` is called then."""
    loop: Loop = sock.loop
    if loop.current is None and loop.running and scheduler(loop).no_parking is None:
        loop.check_thread("start_tls")
        StartTls(sock, options, partial(_tell, sock), timeout)
        return
    task = checkpoint(loop, "start_tls")
    _check(sock)
    try:
        sock.drain()
    except BaseException as error:
        sock.close(error)
        raise
    outcome: list[BaseException | None] = []

    def then(error: BaseException | None) -> None:
        outcome.append(error)
        wake(task)

    start = StartTls(sock, options, then, timeout)
    try:
        if not outcome:
            park(task, _START_TLS, sock)
    except BaseException as error:
        start.abandon(error)
        raise
    if (failure := outcome.pop()) is not None:
        raise failure


def _tell(sock: Any, error: BaseException | None) -> None:
    if error is None:
        sock._hook("secured", sock.event_secured)
    elif not isinstance(error, ClosedError):  # the program knows that it has closed it
        sock.debugmsg("%s", error)


class StartTls(Resumable):
    """The handshake of a Socket: calls `then(None)` once it is over, or `then(error)` when the socket has closed.

    Raises RuntimeError where there is TLS already, BusyError, ClosedError.
    """

    __slots__ = {
        "_begun": "Whether all that was written in plain text has left.",
        "_callbacks": "Whether the connection was in callback style.",
        "_over": "Whether it is over, one way or another.",
        "_sock": "The Socket.",
        "_task": "The task that goes on now, where code of the program's may park; or None.",
        "_then": "What is called at the end; None once it was.",
        "_timer": "The timer of the time limit; None without one.",
        "_tls": "The TLS connection.",
        "_watched": "Whether reading was watched, and is again at the end.",
    }

    name = "the TLS handshake"

    def __init__(self, sock: Any, options: TlsOptions, then: Then, timeout: float | None) -> None:
        _check(sock)
        self.resume = self._resume
        self._sock = sock
        self._tls = options.wrap(sock.sock)
        self._then: Then | None = then
        self._begun = self._over = False
        self._task: Task[None] | None = None
        self._callbacks = sock._is_callback_style()
        self._watched = sock._is_watched()
        sock._watch_input(False)
        self._timer = None
        if sock.buffered:
            return self._fail(self._injected())
        loop = sock.loop
        if timeout is not None:
            self._timer = loop.timers.add(loop.clock() + timeout, self._time_is_up, None)
        sock.write(self._begin)  # when all before it was sent
        return None

    def _begin(self) -> None:
        """What was written in plain text has left."""
        sock = self._sock
        if self._over:
            return None
        self._begun = True
        sock._keep_place(bool, HELD)  # which does nothing: what is written is queued behind it
        sock.sock = self._tls
        if not sock._await_input(self):
            return self._fail(ConnectionAbortedError("the peer had ended the connection before the TLS handshake"))
        sock.loop.ready.append(self.resume)  # not now: what it calls may write, in the middle of a flush
        return None

    # -- a parked reader

    def _resume(self) -> None:
        """Called by the loop when there is input: go on."""
        if self._over or not self._begun:
            return
        if self._task is not None:  # it has what it needs; what else comes would be reported again and again
            self._sock._unregister()
        elif self._tls.may_park:
            origin = origin_of(self._tls.sni_callback)
            self._task = Task(self._sock.loop, self._run_step, copy_context(), "a TLS handshake", origin)
            self._sock.loop.runnable.append(self._task.start)
        else:
            self._take_step()

    def _run_step(self) -> None:
        """`_take_step`, in a task."""
        try:
            self._take_step()
        finally:
            self._task = None
            self._sock.loop.interest_changed.append(self._sock)

    def _take_step(self) -> None:
        try:
            self._tls.go_on()
        except BlockingIOError:
            if self._tls.wants_write:
                loop = self._sock.loop
                loop.timers.add(loop.clock() + _AGAIN_SECONDS, self.resume, None)
        except OSError as error:
            self._fail(error)
        except Exception as error:
            self.abandon(error)
        else:
            if not self._over:
                self._succeed()

    def _wake(self, error: BaseException, undone: bool) -> None:
        """Called when the socket is closed; or finished: then the handshake goes on, for what is queued."""
        if self._sock.closed:
            self._end()
        else:
            self._tls.shake_in_recv(self.resume)
        self._tell(error)

    # -- the end

    def _succeed(self) -> None:
        sock = self._sock
        if sock.buffered:  # a callback has pushed back, after start_tls, what it had read before
            return self._fail(self._injected())
        self._end()
        if self._callbacks:
            sock._set_style(sequential=False)
        self._tls.attach(sock)
        if self._watched:
            sock.watch_read(True)
        self._tell(None)
        sock._go_on(bool)
        return None

    def abandon(self, error: BaseException) -> None:
        """Give up, and close the socket with the reason."""
        if not self._over:
            self._end()
            self._sock.close(error)
            self._tell(error)

    def _fail(self, error: OSError) -> None:
        """The peer has spoilt it: a handler that ends by this error has ended normally, as by a reset."""
        if not self._over:
            self._sock._note_error(error)
            self.abandon(error)

    def _injected(self) -> TlsError:
        """Of plain text that was received and not read: it would be taken for what came by TLS."""
        sock, side = self._sock, "server" if self._tls.ssl_object.server_side else "client"
        return TlsError(
            f"start_tls: {sock.buffered} bytes of plain text from {connection(sock)} were received and not read, and"
            f" would be taken for what came by TLS",
            refused_by=side,
        )

    def _time_is_up(self) -> None:
        self._fail(TimeoutError(f"the TLS handshake of {connection(self._sock)} was not over in time"))

    def _end(self) -> None:
        """Stand for the parked reader no more."""
        self._over = True
        self._sock._stop_awaiting(self)
        if self._timer is not None:
            self._timer.cancel()

    def _tell(self, error: BaseException | None) -> None:
        then, self._then = self._then, None
        if then is not None:
            then(error)


def _check(sock: Any) -> None:
    """Raise unless TLS may begin: the socket is open, nobody reads, and it is plain."""
    if sock._is_over():
        raise ClosedError(sock, sock.close_reason)
    if sock._has_reader():
        raise BusyError(f"start_tls: a task is reading from {connection(sock)}")
    if sock._speaks_tls():
        raise RuntimeError(f"start_tls: {connection(sock)} is secured already")


_START_TLS = WaitKind("start_tls", lambda sock, task: None)
