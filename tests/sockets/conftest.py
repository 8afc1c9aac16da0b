"""Servers of callback style, and plain clients; both ends of a TLS connection in memory."""

from __future__ import annotations

import socket

import pytest

from dangagreen import Socket, serve
from tests.certificates import secured
from tests.connections import KeepingEcho


@pytest.fixture
def server(active_loop):
    """`server(address, handler=KeepingEcho, **kwargs)` listens until the test is over."""
    listeners = []

    def server(address=("127.0.0.1", 0), handler=KeepingEcho, **kwargs):
        listeners.append(serve(address, handler, **kwargs))
        return listeners[-1]

    yield server
    for listener in listeners:
        listener.close()
    for handler in list(active_loop.handlers.values()):
        if isinstance(handler, Socket):
            handler.close()


@pytest.fixture
def client(peers):
    """`client(address)` connects a plain socket."""

    def client(address):
        if isinstance(address, str):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(address)
        else:
            sock = socket.create_connection(address, 30)
        sock.settimeout(30)
        peers.append(sock)
        return sock

    return client


@pytest.fixture
def ends(wires, peers):
    """`ends(version=None, capacity=65536)` makes two TLS ends, after their handshake: the client, the server."""

    def ends(version=None, **options):
        made = secured(wires(**options), version)
        peers.extend(made)
        return made

    return ends


@pytest.fixture
def sockets(ends):
    """`sockets(classes=(Socket, Socket), capacity=65536)` makes a Socket of each of two `ends`."""

    def sockets(classes=(Socket, Socket), **options):
        made = []
        for end, cls in zip(ends(**options), classes, strict=True):
            made.append(cls(end))
            end.attach(made[-1])
        return made

    return sockets
