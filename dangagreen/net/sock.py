"""Socket, the one class of both styles: a request on a connection of `serve_requests` starts its handler.

Rules: an idle connection is in callback style; input starts the handler in a borrowed greenlet; EOF of an idle
connection starts none. What does not belong here: the handler's task (handler_task), and bytes.
"""

from __future__ import annotations

from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from dangagreen import checks
from dangagreen.loop.loop import current_loop
from dangagreen.net.handler_task import RequestTask
from dangagreen.parks import parks
from dangagreen.sockets.addresses import PeerAddress
from dangagreen.sockets.danga import DangaAliases
from dangagreen.sockets.settings import adopt_settings
from dangagreen.sockets.subclassing import CheckedSubclasses, check_identity, check_initialised
from dangagreen.streams.files import FileSocket

if TYPE_CHECKING:
    import ssl

_FIRST = 16384  # bytes to receive, at most, before the handler is started


class Socket(FileSocket, DangaAliases, CheckedSubclasses):
    """A connection, in callback style (`event_read`, `read`, `write`) and sequential style (`read_line`, `write_all`).

    Subclass it for callback style, with `__slots__` for attributes of your own. Both styles share one object and one
    buffer: a connection may change between them at any time, and no byte is lost.
    """

    __slots__ = ()

    # -- clients in callback style

    @classmethod
    def connect_to(
        cls,
        address: PeerAddress,
        *arguments: Any,
        timeout: float | None = None,
        nodelay: bool = True,
        local_address: tuple[str, int] | None = None,
        tls: bool | ssl.SSLContext | None = None,
        server_hostname: str | None = None,
        session: ssl.SSLSession | None = None,
    ) -> Self:
        """Returns a new object at once, whose connection is made meanwhile, as `connect` makes it. Never parks.

        `arguments` are the class's, after the socket. The loop calls `event_connect` once the connection is made, or
        `event_connect_failed(error)`, which are the errors of `connect`; neither after `close()`. What is written
        before that is queued; a task that reads or writes raises that error too. Raises TypeError and
        ValueError for arguments that make no sense.
        """
        from dangagreen.net.connector import Connector
        from dangagreen.net.starttls import client_tls
        from dangagreen.net.unconnected import Unconnected

        if timeout is not None:
            timeout = checks.seconds("the timeout of connect_to", timeout)
        check_socket_class("connect_to", cls, Socket)
        options = client_tls("connect_to", address, tls, server_hostname, session)
        loop, stand_in = current_loop(), Unconnected(address)
        connector = Connector(
            loop,
            address,
            stand_in.told,
            timeout=timeout,
            local_address=local_address,
            nodelay=nodelay,
            options=options,
        )
        try:
            connection = cls(stand_in, *arguments)
            check_initialised(connection, cls)
        except BaseException as error:
            loop.abandon(stand_in, error)
            raise
        connection._hold()  # so that its idle timeout does not count yet
        stand_in.begin(connection, connector)
        return connection

    def event_connect(self) -> object:
        """Called once the connection of `connect_to` is made, and secured if it was to be. Reading is not watched yet.

        Does nothing: override it.
        """

    def event_connect_failed(self, error: Exception) -> object:
        """Called if the connection of `connect_to` cannot be made; then the object is closed, with that as the reason.

        Logs one line at DEBUG. Override it.
        """
        self.debugmsg("%s", error)
        return None

    def _was_connected(self, sock: Any, half_closed: bool) -> None:
        """The OS socket is connected: tell, then send what was written meanwhile, and a FIN if it was asked for."""
        try:
            self._set_socket(sock)
            if self.tls is not None:
                sock.attach(self)
        except Exception as error:
            self.loop.discard(sock)
            return self.loop.handler_failed(self, error)
        self._release_hold()
        self.loop.call(self, partial(self._hook, "connect", self.event_connect))
        if not self.closed:
            self.loop.call(self, self._send_fin if half_closed else self._try_again)
        return None

    def _was_not_connected(self, error: Exception) -> None:
        self.loop.call(self, partial(self._hook, "connect_failed", partial(self.event_connect_failed, error)))
        self.loop.call(self, partial(self._close_unconnected, error))

    # -- requests

    def event_read(self) -> object:
        """Called when there is input or EOF, while reading is watched and no task is parked in a read.

        On a connection of `serve_requests` it starts the handler; elsewhere it raises NotImplementedError: override it.
        """
        handler = getattr(self._listener, "handler", None)
        if handler is None:
            return super().event_read()
        if not (has_request := self._begin_request(_FIRST)):
            if has_request is None:
                self._end_idle()
            return None
        if type(self).event_read is Socket.event_read:
            RequestTask(self, handler).start()
        else:  # after the override has returned: a context variable that it resets, such as a span, is the request's
            self.loop.runnable.append(RequestTask(self, handler, copy_context()).start)
        return None

    # -- TLS

    @parks
    def start_tls(
        self,
        context: ssl.SSLContext,
        server_hostname: str | None = None,
        *,
        session: ssl.SSLSession | None = None,
        timeout: float | None = 10.0,
    ) -> None:
        """Parks until a TLS handshake is over, in the middle of a conversation (STARTTLS); in a callback it returns at
        once, and the outcome is told by `event_secured`, or by the close.

        The side is the context's. What was written before leaves in plain text, what is written from now on as TLS. If
        it fails, or takes longer than `timeout` seconds, the socket closes with the reason, which is raised: a TlsError
        also where plain text was received and not read. Raises RuntimeError, and does nothing, where there is TLS.
        """
        from dangagreen.net.starttls import start_tls
        from dangagreen.sockets.tls_options import start_options

        if timeout is not None:
            timeout = checks.seconds("the timeout of start_tls", timeout)
        accepted = not self._is_of(None)
        start_tls(self, start_options(context, server_hostname, session, accepted), timeout)

    def event_secured(self) -> object:
        """Called when the handshake is over that `start_tls` has begun in a callback. Does nothing: override it."""

    # -- the end of idle connections

    def _end_idle(self) -> None:
        """EOF without a request: finish later in this turn, and start no handler.

        After a reset or a hang-up, `event_err` or `event_hup` is called first, as in callback style.
        """
        self.loop.ready.append(partial(self.loop.call, self, self._finish_idle))

    def _finish_idle(self) -> None:
        if self._has_ended() and not self._is_at_work():
            self.finish()

    def _was_released(self) -> None:
        if self._has_ended() and getattr(self._accepted_by(), "handler", None) is not None:
            self._end_idle()

    def _code_behind(self, hook: str) -> object:
        if hook == "event_read" and type(self).event_read is Socket.event_read:
            return getattr(self._accepted_by(), "handler", None) or self
        return super()._code_behind(hook)


def check_socket_class(call: str, maker: Any, base: type) -> None:
    """Raise TypeError unless `maker` is a subclass of `base`, or a `functools.partial` of one."""
    made = innermost(maker)
    if isinstance(made, type) and issubclass(made, base):
        if abstract := getattr(made, "__abstractmethods__", None):
            raise TypeError(
                f"{call} cannot make objects of the abstract {made!r}: it lacks {', '.join(sorted(abstract))}"
            )
        check_identity(made)  # a decorator may have given it an __eq__ since it was made
        adopt_settings(made, fixed=True)  # settings may have been assigned to the class
    else:
        raise TypeError(
            f"{call} needs a subclass of {base.__name__}, or a functools.partial of one, not {checks.shown(maker)}"
        )


def innermost(function: Any) -> Any:
    """The function of a `functools.partial`, also of a nested one; anything else itself."""
    while isinstance(function, partial):
        function = function.func
    return function
