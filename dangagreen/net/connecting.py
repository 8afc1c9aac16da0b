"""Clients in sequential style: connect.

Rules: no file descriptor is left behind by an error or a cancellation. What does not belong here: how a connection is
made (connector), and what is said on it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, overload

from dangagreen import checks
from dangagreen.green.parking import checkpoint, park
from dangagreen.green.waiters import WaitKind, wake
from dangagreen.loop.loop import current_loop
from dangagreen.net.connector import Connector
from dangagreen.net.sock import Socket, check_socket_class
from dangagreen.net.starttls import client_tls
from dangagreen.parks import parks
from dangagreen.sockets.addresses import PeerAddress
from dangagreen.sockets.subclassing import check_initialised
from dangagreen.streams.writing import StreamSocket

if TYPE_CHECKING:
    import ssl

AnySocket = TypeVar("AnySocket", bound=Socket)
_CONNECT = WaitKind("connect", lambda connector, task: None, "{0} to {1!r}")


@overload
def connect(
    address: PeerAddress,
    timeout: float | None = None,
    *,
    nodelay: bool = True,
    local_address: tuple[str, int] | None = None,
    tls: bool | ssl.SSLContext | None = None,
    server_hostname: str | None = None,
    session: ssl.SSLSession | None = None,
) -> Socket: ...


@overload
def connect(
    address: PeerAddress,
    timeout: float | None = None,
    *,
    socket_class: Callable[[socket.socket], AnySocket],
    nodelay: bool = True,
    local_address: tuple[str, int] | None = None,
    tls: bool | ssl.SSLContext | None = None,
    server_hostname: str | None = None,
    session: ssl.SSLSession | None = None,
) -> AnySocket: ...


@parks
def connect(
    address: PeerAddress,
    timeout: float | None = None,
    *,
    socket_class: Callable[[socket.socket], Any] = Socket,
    nodelay: bool = True,
    local_address: tuple[str, int] | None = None,
    tls: Any = None,
    server_hostname: str | None = None,
    session: Any = None,
) -> Any:
    """Parks until the connection to (host, port), or to a Unix socket's path or abstract name, is made; returns it.

    A host name is looked up by `loop.resolver`; its addresses are tried 0.25 s after each other, the families in turn,
    and the first to be connected is taken. `socket_class` is a subclass of Socket, or a partial of one. `tls` is a
    context, or True for the usual one, which checks the server's certificate against `server_hostname`, by default the
    host; `session` is that of an earlier connection, `sock.tls.session`, to be resumed. Raises TimeoutError after
    `timeout` seconds in all (None is no limit); TlsError if either side refuses TLS; ConnectionRefusedError, or another
    OSError that all failures have in common, naming each address; ValueError for what is no address.
    """
    if timeout is not None:
        timeout = checks.seconds("the timeout of connect", timeout)
    check_socket_class("connect", socket_class, StreamSocket)
    options = client_tls("connect", address, tls, server_hostname, session)
    loop = current_loop()
    task = checkpoint(loop, "connect")
    connector = Connector(
        loop,
        address,
        partial(wake, task),
        timeout=timeout,
        local_address=local_address,
        nodelay=nodelay,
        options=options,
    )
    try:
        connector.begin()
        if not connector.over:
            park(task, _CONNECT, connector)
        sock = connector.take()
    finally:
        connector.close()
    try:
        connection = socket_class(sock)
        check_initialised(connection, type(connection))
        connection._set_style(sequential=True)
    except BaseException as error:
        loop.abandon(sock, error)
        raise
    if options is not None:
        sock.attach(connection)
    return connection
