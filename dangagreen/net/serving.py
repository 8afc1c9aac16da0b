"""Servers: serve, serve_requests.

Rules: arguments are checked before anything listens. What does not belong here: connections (handler_task, sock).
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from dangagreen import checks
from dangagreen.green.tasks import check_function
from dangagreen.loop.loop import Loop
from dangagreen.net.handler_task import begin_callbacks, begin_handler
from dangagreen.net.listener import Listener
from dangagreen.net.opening import Openings, Step
from dangagreen.net.sock import Socket, check_socket_class, innermost
from dangagreen.sockets.addresses import Addresses
from dangagreen.sockets.binding import Binding, Owner
from dangagreen.sockets.listener import ListenOptions, listen
from dangagreen.sockets.sock import CallbackSocket
from dangagreen.streams.writing import StreamSocket

if TYPE_CHECKING:  # importing it takes as long as all of this package: only who uses TLS pays
    import ssl

AnyStream = TypeVar("AnyStream", bound=StreamSocket)
AnySocket = TypeVar("AnySocket", bound=Socket)


class ServeOptions(ListenOptions, total=False):
    """The keyword arguments of `serve` and `serve_requests`."""

    proxy_protocol: list[Any] | None
    tls: ssl.SSLContext | None
    handshake_timeout: float | None
    max_handshakes: int | None


# Which handlers go with which classes, for type checkers. The calls themselves name their options, so that `help` and
# error messages do.


@overload
def serve(address: Addresses, handler: Callable[[Socket], None], **options: Unpack[ServeOptions]) -> Listener: ...


@overload
def serve(
    address: Addresses,
    handler: Callable[[socket.socket], CallbackSocket],
    **options: Unpack[ServeOptions],
) -> Listener: ...


@overload
def serve(
    address: Addresses,
    handler: Callable[[AnyStream], None],
    *,
    socket_class: Callable[[socket.socket], AnyStream],
    **options: Unpack[ServeOptions],
) -> Listener: ...


def serve(
    address: Addresses,
    handler: Any,
    *,
    backlog: int = 1024,
    reuse_port: bool = False,
    ipv6_only: bool = True,
    mode: int | None = None,
    owner: Owner | None = None,
    max_connections: int | None = None,
    socket_class: Callable[[socket.socket], StreamSocket] = Socket,
    nodelay: bool = True,
    proxy_protocol: list[Any] | None = None,
    tls: Any = None,
    handshake_timeout: float | None = 10.0,
    max_handshakes: int | None = None,
    loop: Loop | None = None,
) -> Listener:
    """Listen, and serve each connection. Returns a Listener at once; connections are served while the loop runs.

    `handler` is a subclass of Socket, or a `functools.partial` of one with further arguments (callback style: an
    instance for each connection, with reading watched), or a function (sequential style: called with a `socket_class`,
    which may be a partial too, in a task of its own; when it returns, the connection is ended by `finish()`, unless it
    has called `watch_read(True)`). `address` is (host, port), a path, a listening socket, or a list of these; port 0
    picks a free one, the same for all, see `listener.addresses`. `backlog` is the length of the kernel's accept queue,
    `max_connections` the connection limit, `reuse_port` SO_REUSEPORT, `nodelay` TCP_NODELAY; `ipv6_only=False` is dual
    stack; `mode` and `owner`, a pair (user, group), are for the file of a path. `proxy_protocol` lists the networks
    whose connections begin with a PROXY header, which names the client; others are refused. `tls` is an
    `ssl.SSLContext` for servers. An object is made, and a handler starts, when header and handshake are over, which
    have `handshake_timeout` seconds; beyond `max_handshakes` under way connections wait in the accept queue. Raises
    OSError, naming the address, if bind(2) or listen(2) fails; TypeError or ValueError for arguments of no sense.
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
    openings = _openings("serve", address, connected, proxy_protocol, tls, handshake_timeout, max_handshakes)
    return listen(
        address,
        connected if openings is None else openings.begin,
        Binding(backlog, reuse_port, ipv6_only, mode, owner),
        partial(Listener, openings=openings),
        max_connections=max_connections,
        nodelay=nodelay,
        loop=loop,
    )


@overload
def serve_requests(
    address: Addresses, handler: Callable[[Socket], None], **options: Unpack[ServeOptions]
) -> Listener: ...


@overload
def serve_requests(
    address: Addresses,
    handler: Callable[[AnySocket], None],
    *,
    socket_class: Callable[[socket.socket], AnySocket],
    **options: Unpack[ServeOptions],
) -> Listener: ...


def serve_requests(
    address: Addresses,
    handler: Any,
    *,
    backlog: int = 1024,
    reuse_port: bool = False,
    ipv6_only: bool = True,
    mode: int | None = None,
    owner: Owner | None = None,
    max_connections: int | None = None,
    socket_class: Callable[[socket.socket], Any] = Socket,
    nodelay: bool = True,
    proxy_protocol: list[Any] | None = None,
    tls: Any = None,
    handshake_timeout: float | None = 10.0,
    max_handshakes: int | None = None,
    loop: Loop | None = None,
) -> Listener:
    """Listen, and serve requests on connections that are idle most of the time (keep-alive). Returns a Listener.

    An idle connection is a callback object. `handler(sock)` runs in a borrowed greenlet when an idle connection has
    input, serves one or more requests and returns. State between requests lives in slots of `socket_class`, which may
    override `event_read` to act in callback style for a while, and call `super().event_read()` to start the handler.
    Other arguments, and what it raises, as for `serve`.
    """
    check_socket_class("serve_requests", socket_class, Socket)
    if not callable(handler) or isinstance(innermost(handler), type):
        raise TypeError(f"the handler of serve_requests is a function, not {checks.shown(handler)}")
    check_function("serve_requests", handler)
    connected = partial(begin_callbacks, socket_class)
    openings = _openings("serve_requests", address, connected, proxy_protocol, tls, handshake_timeout, max_handshakes)
    return listen(
        address,
        connected if openings is None else openings.begin,
        Binding(backlog, reuse_port, ipv6_only, mode, owner),
        partial(Listener, handler=handler, openings=openings),
        max_connections=max_connections,
        nodelay=nodelay,
        loop=loop,
    )


def _openings(
    call: str,
    address: Any,
    connected: Callable[[Any, Any], object],
    proxies: list[Any] | None,
    tls: Any,
    timeout: float | None,
    most: int | None,
) -> Openings | None:
    """What connections go through before their objects are made; None: nothing. Raises like `serve`."""
    if timeout is not None and (timeout := checks.seconds("handshake_timeout", timeout)) <= 0:
        raise ValueError(f"handshake_timeout is a time above 0, or None, not {timeout}")
    if most is not None:
        most = checks.count("max_handshakes", most, 1)
    steps: list[Callable[[Any], Step]] = []
    admit = None
    if proxies is not None:
        from dangagreen.net.proxy_protocol import ProxyHeader, TrustedProxies

        trusted = TrustedProxies(call, proxies)
        trusted.check_addresses(call, address)
        admit = trusted.admit
        steps.append(ProxyHeader)
    if tls is not None:
        from dangagreen.sockets.tls_options import server_options

        steps.append(server_options(call, tls).wrap)
    if most is not None and not steps:
        raise ValueError(f"{call}: max_handshakes is for TLS, and tls is not given")
    return Openings(connected, steps, timeout, most, admit) if steps else None
