"""Servers: the socket class of both styles, serve, serve_requests.

Rules: a connection's callbacks and tasks share one context, copied where its server was started, and no two connections
share any; a handler that ends because its own peer did has ended normally. What does not belong here: bytes.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import partial
from typing import Any, TypeVar, overload

from dangagreen import checks
from dangagreen.errors import ClosedError, IncompleteReadError, connection
from dangagreen.green.parking import GIVING_WAY, give_way
from dangagreen.green.tasks import check_function
from dangagreen.loop.loop import Loop
from dangagreen.net.draining import HandlerTask, Listener
from dangagreen.sockets.addresses import Address
from dangagreen.sockets.busy import HELD
from dangagreen.sockets.listener import Listener as CoreListener
from dangagreen.sockets.listener import listen
from dangagreen.sockets.settings import adopt_settings
from dangagreen.sockets.sock import CallbackSocket
from dangagreen.sockets.subclassing import check_identity, check_initialised, check_subclass
from dangagreen.streams.writing import StreamSocket
from dangagreen.tracebacks import is_like

log = logging.getLogger("dangagreen")
Result = TypeVar("Result")
AnyCallback = TypeVar("AnyCallback", bound=CallbackSocket)
AnyStream = TypeVar("AnyStream", bound=StreamSocket)
AnySocket = TypeVar("AnySocket", bound="Socket")
Handler = Callable[[Any], object]

_UNSET = object()
_REQUESTS = 64  # of one connection that are served in one go, before others get their turn,
_SHARE = 0.000005  # and seconds that are for them, beyond the first one, where there are others,
_SHARE_OF_MANY = (
    0.0001  # and where these are many, so that a turn is long anyway: replies of one portion leave together
)
_MANY = 8
_FIRST = 16384  # bytes that are received before the handler is started


class Socket(StreamSocket):
    """The one socket class: callback style, sequential style, and the passage between them. Subclass it."""

    __slots__ = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_subclass(cls, Socket)

    def event_read(self) -> object:
        """Called when there is input, while reading is watched. On a server made by `serve_requests` it starts the
        handler; elsewhere a subclass that watches reading must override it."""
        handler = getattr(self._listener, "handler", None)
        if handler is None:
            return super().event_read()
        if self._at_work and self._at_work & 1:  # its end watches again
            self._watch_read = False
            return None
        if not self._buffer:
            if not self._eof and not (self._write_closed and (self.closed or self._finishing)):
                try:
                    self._receive(_FIRST)
                except OSError as error:
                    self.debugmsg("%r between two requests", error)
            if not self._buffer:
                self._has_no_request()
                return None
        self._watch_read, self._sequential = False, 1
        self._at_work += 1
        if type(self).event_read is Socket.event_read:
            HandlerTask(self, _serve_request, handler).start()
        else:  # not within it: what it undoes at its end, a current span perhaps, would be undone amid the request
            serve = partial(_serve_request_of_override, copy_context())
            self.loop.runnable.append(HandlerTask(self, serve, handler).start)
        return None

    def _has_no_request(self) -> None:
        """At the end of the stream the connection ends, and nobody is started for that.

        A reset, or a hang-up, is told to its hook first, as in callback style.
        """
        if self._eof and not self.closed and not self._finishing:  # or the event_read of a subclass has ended it
            self._on_eof()
            self._end_idle()

    def _end_idle(self) -> None:
        """Finish in this turn still, when the hooks have been called."""
        self.loop.ready.append(partial(self.loop.call, self, self._finish_idle))

    def _finish_idle(self) -> None:
        if self._eof and not self._at_work and not self._buffer and self._reader is None:
            self.finish()

    def _was_released(self) -> None:
        if self._eof and getattr(self._listener, "handler", None) is not None:
            self._end_idle()


@overload
def serve(
    address: Address,
    handler: Callable[[Socket], None],
    *,
    backlog: int = 1024,
    reuse_port: bool = False,
    max_connections: int | None = None,
    nodelay: bool = True,
    loop: Loop | None = None,
) -> Listener: ...


@overload
def serve(
    address: Address,
    handler: Callable[[socket.socket], CallbackSocket],
    *,
    backlog: int = 1024,
    reuse_port: bool = False,
    max_connections: int | None = None,
    nodelay: bool = True,
    loop: Loop | None = None,
) -> Listener: ...


@overload
def serve(
    address: Address,
    handler: Callable[[AnyStream], None],
    *,
    backlog: int = 1024,
    reuse_port: bool = False,
    max_connections: int | None = None,
    socket_class: Callable[[socket.socket], AnyStream],
    nodelay: bool = True,
    loop: Loop | None = None,
) -> Listener: ...


def serve(
    address: Address,
    handler: Any,
    *,
    backlog: int = 1024,
    reuse_port: bool = False,
    max_connections: int | None = None,
    socket_class: Callable[[socket.socket], StreamSocket] = Socket,
    nodelay: bool = True,
    loop: Loop | None = None,
) -> Listener:
    """Listen, and serve each connection. It does not block: run the loop, or wait for something, for it to happen.

    `handler` is a Socket subclass, or a `functools.partial` of one with further arguments for it (callback style: an
    instance for each connection, watched for reading), or a function (sequential style: called with a `socket_class`,
    which may be a partial too, in a task of its own; when it returns, the connection is finished, unless it has called
    `watch_read(True)`). `address` is (host, port), a path, or a listening socket;
    port 0 picks one, see `listener.address`. Raises OSError if the address cannot be had.
    """
    check_socket_class("serve", socket_class, StreamSocket)
    connected: Callable[[Any, CoreListener], object]
    if isinstance(_innermost(handler), type):
        check_socket_class("serve", handler, CallbackSocket)
        if socket_class is not Socket:
            raise TypeError(
                f"serve makes its connections of {handler!r}: socket_class={socket_class!r} is for functions"
            )
        connected = partial(_connected_callbacks, handler)
    elif callable(handler):
        check_function("serve", handler)
        connected = partial(_connected_task, socket_class, handler)
    else:
        raise TypeError(f"a handler is a subclass of Socket or a function, not {checks.shown(handler)}")
    return listen(
        address,
        connected,
        backlog=backlog,
        reuse_port=reuse_port,
        max_connections=max_connections,
        nodelay=nodelay,
        loop=loop,
        listener_class=Listener,
    )


@overload
def serve_requests(
    address: Address,
    handler: Callable[[Socket], None],
    *,
    backlog: int = 1024,
    reuse_port: bool = False,
    max_connections: int | None = None,
    nodelay: bool = True,
    loop: Loop | None = None,
) -> Listener: ...


@overload
def serve_requests(
    address: Address,
    handler: Callable[[AnySocket], None],
    *,
    backlog: int = 1024,
    reuse_port: bool = False,
    max_connections: int | None = None,
    socket_class: Callable[[socket.socket], AnySocket],
    nodelay: bool = True,
    loop: Loop | None = None,
) -> Listener: ...


def serve_requests(
    address: Address,
    handler: Any,
    *,
    backlog: int = 1024,
    reuse_port: bool = False,
    max_connections: int | None = None,
    socket_class: Callable[[socket.socket], Any] = Socket,
    nodelay: bool = True,
    loop: Loop | None = None,
) -> Listener:
    """The same for connections that are idle most of the time: an idle one is a bare callback object.

    `handler(sock)` runs in a borrowed greenlet each time an idle connection has input, serves one or more requests
    and returns. State between requests lives in slots of `socket_class`, which may override `event_read` to act in
    callback style for a while and call `super().event_read()` to start the handler.
    """
    check_socket_class("serve_requests", socket_class, Socket)
    if not callable(handler) or isinstance(_innermost(handler), type):
        raise TypeError(f"the handler of serve_requests is a function, not {checks.shown(handler)}")
    check_function("serve_requests", handler)
    return listen(
        address,
        partial(_connected_callbacks, socket_class),
        backlog=backlog,
        reuse_port=reuse_port,
        max_connections=max_connections,
        nodelay=nodelay,
        loop=loop,
        handler=handler,
        listener_class=Listener,
    )


def check_socket_class(call: str, maker: Any, base: type) -> None:
    """Raise TypeError for what makes no connections: neither a subclass of `base` nor a `functools.partial` of one."""
    made = _innermost(maker)
    if isinstance(made, type) and issubclass(made, base):
        if abstract := getattr(made, "__abstractmethods__", None):
            raise TypeError(
                f"{call} cannot make objects of the abstract {made!r}: it lacks {', '.join(sorted(abstract))}"
            )
        check_identity(made)  # a decorator may have given it an __eq__ since it was made
        adopt_settings(made, fixed=True)  # and anybody settings
    else:
        raise TypeError(
            f"{call} needs a subclass of {base.__name__}, or a functools.partial of one, not {checks.shown(maker)}"
        )


def _innermost(function: Any) -> Any:
    while isinstance(function, partial):
        function = function.func
    return function


def _connected_callbacks(socket_class: Callable[[Any], CallbackSocket], sock: Any, listener: CoreListener) -> None:
    _connection(socket_class, sock, listener).watch_read(True)


def _connected_task(
    socket_class: Callable[[Any], StreamSocket], handler: Handler, sock: Any, listener: CoreListener
) -> None:
    connection = _connection(socket_class, sock, listener)
    connection._sequential = 1
    connection.loop.runnable.append(HandlerTask(connection, _serve_connection, handler).start)


def _connection(socket_class: Callable[[Any], AnyCallback], sock: Any, listener: CoreListener) -> AnyCallback:
    """Make the object, in the context that it is to have: what its class sets meanwhile is for itself alone."""
    context = copy_context()
    connection = context.run(socket_class, sock)
    try:
        timer = connection._timer
    except AttributeError:
        check_initialised(connection, type(connection))
        raise
    connection._context = context
    if timer is not None:
        timer.context = context
    listener.adopt(connection)
    return connection


def _serve_connection(sock: StreamSocket, handler: Handler) -> None:
    if _run_handler(sock, handler):
        if sock._watch_read:
            sock._sequential = 0
        else:
            sock.finish()


def _serve_request(sock: StreamSocket, handler: Handler) -> None:
    """Serve what has come, and what is in the buffer when the handler returns, then wait as a callback again."""
    loop, began = sock.loop, 0.0
    for _ in range(_REQUESTS):  # a turn for each of several requests that came together would be ten times as dear
        before = sock.buffered
        if not _run_handler(sock, handler):
            return
        if not 0 < sock.buffered < before or type(sock).event_read is not Socket.event_read or sock._watch_read:
            break
        now = loop.clock()
        if not began:
            began = now
        elif now - began > _SHARE and _is_share(loop, now - began):
            if not _run_handler(sock, _others_first):
                return
            if sock.closed or not sock._buffer or sock._watch_read or sock._reader is not None:
                break
            began = loop.clock()
    if sock._eof and not sock._buffer and sock._at_work < HELD:
        sock.finish()
    else:
        sock._at_work -= 1
        try:
            sock.watch_read(True)
        except BaseException:  # a connection that nobody watches would never be served again
            sock.finish()
            raise


def _is_share(loop: Loop, seconds: float) -> bool:
    """Has a connection had its share of this turn?"""
    events, others = len(loop.batch), len(loop.ready) + len(loop.runnable) + len(loop.pending_reads)
    if events > _MANY or others > _MANY:
        return seconds > _SHARE_OF_MANY
    return events > 1 or others > 0


def _others_first(sock: StreamSocket) -> None:
    """Parks until everybody else has had a turn."""
    give_way(sock.loop.current, GIVING_WAY)


def _serve_request_of_override(begun: Context, sock: StreamSocket, handler: Handler) -> None:
    """The same where a subclass's `event_read` has started it: with the context variables as they were `begun` there.

    Those which that `event_read` has put back since are put back again in the end, unless the handler has changed them.
    """
    now = copy_context()
    values = [(variable, value) for variable, value in begun.items() if now.get(variable, _UNSET) is not value]
    tokens = [(variable, value, variable.set(value)) for variable, value in values]
    try:
        _serve_request(sock, handler)
    finally:
        for variable, value, token in tokens:
            if variable.get() is value:
                variable.reset(token)


def _run_handler(sock: StreamSocket, handler: Handler) -> bool:
    """Call it. True if it returned; if its peer ended, or it failed, the connection is closed."""
    try:
        if (result := handler(sock)) is not None:
            checks.outcome(f"the handler {getattr(handler, '__qualname__', handler)}", result)
    except BaseException as error:
        if not sock._finishing:  # then it is to send its tail
            sock.close(error)
        if not _is_own_end(sock, error):
            error.add_note(f"in the handler of {connection(sock)}")
            raise
        sock.debugmsg("%s ended with its peer: %r", getattr(handler, "__qualname__", handler), error)
        return False
    return True


def _is_own_end(sock: StreamSocket, error: BaseException) -> bool:
    """Did this very connection come to its end? That of another one is the handler's failure."""
    if isinstance(error, BaseExceptionGroup):  # of a group whose tasks use the connection
        return all(_is_own_end(sock, one) for one in error.exceptions)
    if isinstance(error, (IncompleteReadError, ClosedError)):
        return error.sock is sock
    return is_like(error, sock._read_error) or is_like(error, sock._write_error)
