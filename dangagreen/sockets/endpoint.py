"""The endpoint of a connection: its addresses, its state as text, log lines, an option of the OS socket.

Rules: an address is asked for once, while it is known; nothing here raises because the connection is broken. What does
not belong here: reading and writing.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from dangagreen.loop.error_log import DEBUG, log
from dangagreen.loop.pollers import WRITE
from dangagreen.sockets.addresses import public
from dangagreen.sockets.descriptor import Descriptor

# TCP_CORK is Linux's name, TCP_NOPUSH that of the BSDs and macOS.
_CORK: int | None = getattr(socket, "TCP_CORK", getattr(socket, "TCP_NOPUSH", None))


class Endpoint(Descriptor):
    """The layer of a socket that describes it."""

    __slots__ = {
        "_local": "The local address, once it was asked for and known; not set before.",
        "_peer": "The peer's address, once it was asked for and known; not set before.",
    }

    def peer_ip_string(self) -> str | None:
        """The peer's IP address, a str; None for a Unix socket, or if it is not known."""
        address = self._address("getpeername", "_peer")
        return address[0] if isinstance(address, tuple) else None

    def peer_addr_string(self) -> str | None:
        """The peer's address: "127.0.0.1:80", "[::1]:80", or the path of a Unix socket ("" if it has none).

        An "@" stands in front of an abstract name; what cannot be printed is escaped. None if it is not known.
        """
        return in_words(self._address("getpeername", "_peer"))

    def local_ip_string(self) -> str | None:
        """The local IP address, a str; None for a Unix socket, or if it is not known."""
        address = self._address("getsockname", "_local")
        return address[0] if isinstance(address, tuple) else None

    def local_addr_string(self) -> str | None:
        """The local address, in the form of `peer_addr_string`; None if it is not known."""
        return in_words(self._address("getsockname", "_local"))

    def _address(self, call: str, slot: str) -> Any:
        address = getattr(self, slot, None)
        if address is None:
            try:  # as in `peer_of`, and a call less: to close wakes who is parked with an error that names the peer
                address = getattr(self.sock, call)()
            except (OSError, AttributeError):
                return None
            if len(address) == 4:  # IPv6
                address = public(address)
            setattr(self, slot, address)
        return address

    def as_string(self) -> str:
        """ "Class(RW): open to 127.0.0.1:80"; R and W: reading, or writing, is watched. "connecting to" it before."""
        watched = ("R" if self._is_watched() else "") + ("W" if self._interest() & WRITE else "")
        peer = self.peer_addr_string()
        state = "closed" if self.closed else f"connecting to {self.sock!r}" if self.fd < 0 else "open"
        return f"{type(self).__name__}({watched}): {state}" + (f" to {peer}" if peer else "")

    def __repr__(self) -> str:
        return Endpoint.as_string(self)

    def debugmsg(self, message: str, *args: object) -> None:
        """Log a line with this socket as text to the logger "dangagreen" at DEBUG. A newline at its end is cut."""
        if log().isEnabledFor(DEBUG):
            log().debug(message.removesuffix("\n") + " [%s]", *args, self.as_string())

    def tcp_cork(self, on: bool) -> None:
        """Have the kernel hold back partial TCP segments (TCP_CORK, TCP_NOPUSH), or send them.

        Ignored for other address families, and after the end.
        """
        if _CORK is not None and not self.closed and self.sock.family in (socket.AF_INET, socket.AF_INET6):
            try:
                self.sock.setsockopt(socket.IPPROTO_TCP, _CORK, int(bool(on)))
            except OSError as error:
                self.debugmsg("tcp_cork: %s", error)

    def dump_error(self, message: str) -> None:
        """Log the message, this socket as text, and the stack, to the logger "dangagreen" at ERROR."""
        log().error("%s [%s]", message, self.as_string(), stack_info=True)

    def _was_released(self) -> None:
        """Called when the last `busy()` was released: a server may end the connection then."""


def peer_of(sock: Any) -> Any:
    """The address of an OS socket's peer, as getpeername(2) says it; None where the peer has gone."""
    try:
        return sock.getpeername()
    except (OSError, AttributeError):  # AttributeError: it only looks like a socket
        return None


def in_words(address: Any) -> str | None:
    """An address of the kernel's: "127.0.0.1:80", "[::1]:80", or the path of a Unix socket; None for None."""
    if isinstance(address, tuple):
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if address is None:
        return None
    name = os.fsdecode(address)
    if name.startswith("\0"):
        name = "@" + name[1:]
    return name if name.isprintable() else repr(name)[1:-1]  # the peer has chosen it: it must not forge log lines
