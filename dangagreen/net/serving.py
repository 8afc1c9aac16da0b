"""Servers: serve, serve_requests.

Rules: what they are given is checked before anything listens. What does not belong here: what becomes of a connection
(that is handler_task and sock).
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, Unpack, overload

from dangagreen import checks
from dangagreen.green.tasks import check_function
from dangagreen.loop.loop import Loop
from dangagreen.net.draining import Listener
from dangagreen.net.handler_task import begin_callbacks, begin_handler
from dangagreen.net.sock import Socket, check_socket_class, innermost
from dangagreen.sockets.addresses import Address
from dangagreen.sockets.listener import ListenOptions, listen
from dangagreen.sockets.sock import CallbackSocket
from dangagreen.streams.writing import StreamSocket

AnyStream = TypeVar("AnyStream", bound=StreamSocket)
AnySocket = TypeVar("AnySocket", bound=Socket)

# Which handlers go with which classes, for type checkers. The calls themselves name their options, so that `help` and
# error messages do.


@overload
def serve(address: Address, handler: Callable[[Socket], None], **options: Unpack[ListenOptions]) -> Listener: ...


@overload
def serve(
    address: Address, handler: Callable[[socket.socket], CallbackSocket], **options: Unpack[ListenOptions]
) -> Listener: ...


@overload
def serve(
    address: Address,
    handler: Callable[[AnyStream], None],
    *,
    socket_class: Callable[[socket.socket], AnyStream],
    **options: Unpack[ListenOptions],
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
    connected: Callable[[Any, Any], object]
    if isinstance(innermost(handler), type):
        check_socket_class("serve", handler, CallbackSocket)
        if socket_class is not Socket:
            raise TypeError(
                f"serve makes its connections of {handler!r}: socket_class={socket_class!r} is for functions"
            )
        connected = partial(begin_callbacks, handler)
    elif callable(handler):
        check_function("serve", handler)
        connected = partial(begin_handler, socket_class, handler)
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
        acceptor=Listener,
    )


@overload
def serve_requests(
    address: Address, handler: Callable[[Socket], None], **options: Unpack[ListenOptions]
) -> Listener: ...


@overload
def serve_requests(
    address: Address,
    handler: Callable[[AnySocket], None],
    *,
    socket_class: Callable[[socket.socket], AnySocket],
    **options: Unpack[ListenOptions],
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
    """Listen, and serve each request, on connections that are idle most of the time: each is then a callback object.

    It does not block. `handler(sock)` runs in a borrowed greenlet each time an idle connection has input, serves one or
    more requests and returns. State between requests lives in slots of `socket_class`, which may override `event_read`
    to act in callback style for a while and call `super().event_read()` to start the handler.
    """
    check_socket_class("serve_requests", socket_class, Socket)
    if not callable(handler) or isinstance(innermost(handler), type):
        raise TypeError(f"the handler of serve_requests is a function, not {checks.shown(handler)}")
    check_function("serve_requests", handler)
    return listen(
        address,
        partial(begin_callbacks, socket_class),
        backlog=backlog,
        reuse_port=reuse_port,
        max_connections=max_connections,
        nodelay=nodelay,
        loop=loop,
        acceptor=partial(Listener, handler=handler),
    )
