"""The task of a connection's handler: making the connection, running the handler, and what follows its end.

Rules: a connection's callbacks and tasks share one context, copied where its server was started; no two connections
share one. A handler that ends because its own peer did has ended normally. Three frames of this package lie beneath a
handler: a parked one keeps them, and each switch copies them. What does not belong here: when the handler of a request
starts (sock), and bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, ContextVar, Token, copy_context
from functools import partial
from typing import Any, TypeVar

from dangagreen import checks
from dangagreen.errors import Cancelled, ClosedError, ErrorContext, IncompleteReadError, connection
from dangagreen.green.parking import GIVING_WAY, give_way
from dangagreen.green.tasks import Task
from dangagreen.loop.error_log import InOneLine
from dangagreen.loop.loop import Loop
from dangagreen.sockets.sock import CallbackSocket
from dangagreen.sockets.subclassing import check_initialised
from dangagreen.streams.writing import StreamSocket
from dangagreen.tracebacks import forget_locals

HandlerFunction = Callable[[Any], object]
AnyCallback = TypeVar("AnyCallback", bound=CallbackSocket)
_Changes = list[tuple[ContextVar[Any], Any, Token[Any]]]

_UNSET = object()
_REQUESTS = 64  # requests of one connection (pipelined) that are served in one go, before others have their turn
_SHARE = 0.000005  # seconds for requests after the first one, if others have something to do
_SHARE_OF_MANY = 0.0001  # if many have, so that a turn is long anyway: the replies then leave in one system call
_MANY = 8  # others


class HandlerTask(Task[None]):
    """The task of a handler of `serve`: calls it, and ends the connection after it."""

    __slots__ = {
        "_begun": "The context of the overridden `event_read` that has started it, at that time; or None.",
        "_handler": "The handler, a function of the connection.",
        "sock": "The connection.",
    }

    def __init__(self, sock: StreamSocket, handler: HandlerFunction, begun: Context | None = None) -> None:
        self.sock = sock
        self._handler = handler
        self._begun = begun
        Task.__init__(self, sock.loop, None, sock._context, handler)

    def function(self) -> object:
        return self._handler

    def _handle(self) -> None:
        sock, handler = self.sock, self._handler
        if sock.closed or sock._finishing:  # meanwhile: there is nobody to be served
            return
        try:
            if (result := handler(sock)) is not None:
                checks.outcome(f"the handler {_name(handler)}", result)
        except BaseException as error:
            if not self._has_ended_with_its_peer(error):
                raise
        else:
            if not sock._goes_on_with_callbacks():
                sock.finish()

    def _has_ended_with_its_peer(self, error: BaseException) -> bool:
        """The handler has raised: close the connection. Returns False if the error is a failure, to be reported."""
        sock = self.sock
        sock._close_unless_finishing(error)  # the tail of its reply may still be to be sent
        if is_own_end(sock, error):
            sock.debugmsg("%s ended with its peer: %r", _name(self._handler), error)
            return True
        error.add_note(f"in the handler of {connection(sock)}")
        return False

    def end_unstarted(self, error: BaseException) -> None:
        sock = self.sock
        if sock._is_over():  # before it was cancelled
            self.end(None)
            return
        self.end(error)
        self.loop.call(sock, partial(sock.close, error))  # nothing else will
        return None

    def _failure(self, error: Exception) -> ErrorContext:
        if (found := _gave_up(self.sock, error)) is None:
            return super()._failure(error)
        call, why = found
        return InOneLine(f"{self.name!r} gave up on {connection(self.sock)}, in {call}: {why}", error, self)

    def _forget_locals(self, error: BaseException) -> None:
        forget_locals(error, all_frames=True)  # the handler's locals as well: the connection is over


class RequestTask(HandlerTask):
    """The task of a handler of `serve_requests`: calls it for the requests that are in the buffer, one after the other.

    After that the connection waits as a callback object again.
    """

    __slots__ = ()

    def _handle(self) -> None:
        sock, handler, loop, began = self.sock, self._handler, self.loop, 0.0
        if sock.closed or sock._finishing:  # meanwhile: there is nobody to be served
            return
        changes = None if self._begun is None else _enter(self._begun)
        try:
            for _ in range(_REQUESTS):  # one turn for each of several pipelined requests would cost ten times as much
                before = sock.buffered
                if (result := handler(sock)) is not None:
                    checks.outcome(f"the handler {_name(handler)}", result)
                if not 0 < sock.buffered < before or changes is not None or not sock._has_next_request():
                    break
                now = loop.clock()
                if not began:
                    began = now
                elif now - began > _SHARE and _is_share(loop, now - began):
                    give_way(self, GIVING_WAY)
                    if not sock._has_next_request():
                        break
                    began = loop.clock()
        except BaseException as error:
            if not self._has_ended_with_its_peer(error):
                raise
        else:
            if not sock._end_request():
                sock.finish()
            else:
                try:
                    sock.watch_read(True)
                except BaseException:  # unwatched, the connection would never be served again
                    sock.finish()
                    raise
        finally:
            if changes is not None:
                _leave(changes)


def _name(handler: HandlerFunction) -> object:
    return getattr(handler, "__qualname__", handler)


# -- what a listener does with a connection


def begin_callbacks(socket_class: Callable[[Any], CallbackSocket], sock: Any, _listener: object) -> CallbackSocket:
    """Make the object of an accepted connection, in callback style."""
    connection = _made(socket_class, sock)
    connection.watch_read(True)
    return connection


def begin_handler(
    socket_class: Callable[[Any], StreamSocket], handler: HandlerFunction, sock: Any, _listener: object
) -> Any:
    """Make the object of an accepted connection, in sequential style, and start the task of its handler."""
    connection = _made(socket_class, sock)
    connection._sequential = 1
    connection.loop.runnable.append(HandlerTask(connection, handler).start)
    return connection


def _made(socket_class: Callable[[Any], AnyCallback], sock: Any) -> AnyCallback:
    """Make the object within its own context: context variables that its `__init__` sets are its own alone."""
    context = copy_context()
    connection = context.run(socket_class, sock)
    if getattr(connection, "loop", None) is None:
        check_initialised(connection, type(connection))
    connection._set_context(context)
    return connection


# -- shares of a turn, and context variables


def _is_share(loop: Loop, seconds: float) -> bool:
    """Whether so many seconds are a connection's whole share of this turn."""
    events, others = len(loop.batch), len(loop.ready) + len(loop.runnable) + len(loop.pending_reads)
    if events > _MANY or others > _MANY:
        return seconds > _SHARE_OF_MANY
    return events > 1 or others > 0


def _enter(begun: Context) -> _Changes:
    """Set the context variables as they were in the overridden `event_read` that has started the handler."""
    now = copy_context()
    values = [(variable, value) for variable, value in begun.items() if now.get(variable, _UNSET) is not value]
    return [(variable, value, variable.set(value)) for variable, value in values]


def _leave(changes: _Changes) -> None:
    """Undo `_enter`, except for variables that the handler has changed."""
    for variable, value, token in changes:
        if variable.get() is value:
            variable.reset(token)


# -- whose end it was


def is_own_end(sock: StreamSocket, error: BaseException) -> bool:
    """Whether the error is the end of this very connection. That of another one is a failure of the handler."""
    if isinstance(error, BaseExceptionGroup):  # of a TaskGroup whose tasks use the connection
        return all(is_own_end(sock, one) for one in error.exceptions)
    if isinstance(error, (IncompleteReadError, ClosedError)):
        return error.sock is sock
    return sock._is_end_by(error)


def _gave_up(sock: CallbackSocket, error: BaseException) -> tuple[str, BaseException] | None:
    """The call on the socket, and the error, if that is the timeout of a wait for its peer, and nothing else failed."""
    if isinstance(error, BaseExceptionGroup):  # of a TaskGroup whose tasks use the connection
        found = [_gave_up(sock, one) for one in error.exceptions]
        return found[0] if all(found) else None
    if not isinstance(error, TimeoutError):
        return None
    cause = error.__cause__
    waited = cause.waited if isinstance(cause, Cancelled) else None
    return (waited[0], error) if waited is not None and waited[1] == id(sock) else None
