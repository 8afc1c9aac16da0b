"""What stands for the OS socket of an object of `Socket.connect_to`, until there is one.

Rules: to its object it is a connection whose peer sends nothing and whose kernel takes nothing, so that what is written
is queued; a half-close is kept for later; the outcome comes from the loop, once, and none after `close()`. What does
not belong here: how the connection is made (connector).
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
from typing import Any, Protocol

from dangagreen import checks
from dangagreen.net.connector import Connector

_numbers = itertools.count(-2, -1)  # no OS socket has a negative one, and a closed one has -1


class Owner(Protocol):
    """The object: a Socket."""

    closed: bool
    loop: Any

    def _was_connected(self, sock: Any, half_closed: bool) -> None: ...
    def _was_not_connected(self, error: Exception) -> None: ...


class Unconnected:
    """A connection that is being made, with the methods of an OS socket that its object needs."""

    __slots__ = {
        "_address": "The address to connect to, as the program has given it.",
        "_connector": "What makes the connection; None before it begins, and after the end.",
        "_half_closed": "Whether a FIN is to be sent once it is connected.",
        "_number": "What `fileno` returns.",
        "_owner": "The object that it stands in for; None like the connector.",
    }

    family = socket.AF_UNSPEC
    type = socket.SOCK_STREAM

    def __init__(self, address: Any) -> None:
        self._address = address
        self._number = next(_numbers)
        self._half_closed = False
        self._owner: Owner | None = None
        self._connector: Connector | None = None

    def begin(self, owner: Owner, connector: Connector) -> None:
        """Have this connector make the connection of this object, beginning in this turn of the loop or the next."""
        if not owner.closed:  # by its constructor
            self._owner = owner
            self._connector = connector
            connector.loop.call_soon(connector.begin)

    def told(self) -> None:
        """The `then` of the connector: the object has its socket; or has failed to get one."""
        owner, connector = self._owner, self._connector
        self._owner = self._connector = None
        if owner is None or connector is None:
            return
        try:
            sock = connector.take()
        except Exception as error:
            if not owner.closed:
                owner._was_not_connected(error.with_traceback(None))
        else:
            if owner.closed:
                owner.loop.discard(sock)
            else:
                owner._was_connected(sock, self._half_closed)

    # -- as a socket

    def fileno(self) -> int:
        """A number that no descriptor has, below -1."""
        return self._number

    def setblocking(self, flag: bool) -> None:
        """Nothing to do: it never blocks."""

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Raise BlockingIOError: there is no input yet."""
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def recv_into(self, buffer: bytearray | memoryview, nbytes: int = 0, flags: int = 0) -> int:
        """Raise BlockingIOError: there is no input yet."""
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def send(self, data: bytes | memoryview, flags: int = 0) -> int:
        """Raise BlockingIOError: there is no room yet."""
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def shutdown(self, how: int) -> None:
        """Have the FIN sent once it is connected."""
        self._half_closed = True

    def __repr__(self) -> str:
        return checks.shown(self._address)

    def close(self) -> None:
        """Give the connection up."""
        connector = self._connector
        self._owner = self._connector = None
        if connector is not None:
            connector.close()
