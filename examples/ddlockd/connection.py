"""A connection of ddlockd: what it holds, what it is called, and how it begins and ends.

What all connections share is in the class: the locks, the counters, and the limits, which the command line sets before
the first connection comes. What is done with the bytes that it sends is in `client`.
"""

from __future__ import annotations

import socket
from typing import Any

from dangagreen import Socket
from ddlockd.counters import Counters
from ddlockd.locks import Locks
from ddlockd.protocol import err
from output import complain, tell

KEEP_ALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", 0)), 30),  # seconds
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 30),
)


class Connection(Socket):
    """One connection: what it holds, and what it has sent that was not answered yet."""

    __slots__ = ("admitted", "held", "number", "rest", "waits")
    locks = Locks()
    counters = Counters()
    line_limit = 65536
    max_unsent = 1024 * 1024
    max_connections = 20_000
    keep_alive = True
    debug = 0
    open = count = 0

    def __init__(self, sock: Any) -> None:
        super().__init__(sock)
        if self.keep_alive and sock.family != socket.AF_UNIX:
            for option in KEEP_ALIVE:
                sock.setsockopt(*option)
        self.held: dict[bytes, None] = {}
        self.rest = b""
        self.waits = False  # for a lock
        Connection.count += 1
        self.number = Connection.count
        if self.debug:
            tell(f"connection {self.number} from {self.peer()}")
        self.admitted = Connection.open < self.max_connections
        if self.admitted:
            Connection.open += 1
        else:
            self.refuse(b"too_many_connections", b"This server has enough connections")

    def peer(self) -> str:
        """Not the path of a Unix socket, which may be anything."""
        return str(self.peer_addr_string()) if self.peer_ip_string() else "a Unix socket"

    def described(self) -> str:
        return f"DDLockd::Client::{self.locks.kind}(R): open to {self.peer()}"

    def has_unread(self) -> bool:
        """Has it sent anything that was not read, or not answered, yet?"""
        if self.buffered or b"\n" in self.rest:
            return True
        try:
            return bool(self.sock.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def refuse(self, code: bytes, text: bytes) -> None:
        """Say why, and end it."""
        self.write(err(code, text))
        self.finish()

    @property
    def idle(self) -> bool:
        """When the server is to end, it need not wait for those who wait for a lock, but finishes them, too."""
        return self.waits or super().idle

    def finish(self) -> None:
        if self.waits:
            self.write(err(b"shutting_down"))
        self.locks.release_all(self)
        super().finish()

    def close(self, reason: object = None) -> None:
        if not self.closed:
            Connection.open -= self.admitted
            self.locks.release_all(self)
            if self.unsent > self.max_unsent:  # it cannot be told: it does not read
                complain(f"ddlockd: connection {self.number} from {self.peer()}: {reason}")
        super().close(reason)
