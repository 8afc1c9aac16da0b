"""One end of a connection: its addresses, its state in words, lines to the log, an option of the OS socket.

Rules: an address is asked for once, while it can be known; nothing here fails because the connection has. What does not
belong here: reading and writing.
"""

from __future__ import annotations

import logging
import os
import socket
from typing import Any

from dangagreen.loop.pollers import WRITE
from dangagreen.sockets.addresses import public
from dangagreen.sockets.descriptor import Descriptor

log = logging.getLogger("dangagreen")

# TCP_CORK is Linux's name, TCP_NOPUSH that of the BSDs and macOS.
_CORK: int | None = getattr(socket, "TCP_CORK", getattr(socket, "TCP_NOPUSH", None))


class Endpoint(Descriptor):
    """What a socket says of itself."""

    __slots__ = {
        "_local": "This side's address, once it was asked for and known; not set before.",
        "_peer": "The peer's address, likewise.",
    }

    def peer_ip_string(self) -> str | None:
        """The peer's IP address; None for a Unix socket, or if it was never asked for while it could be known."""
        address = self._address("getpeername", "_peer")
        return address[0] if isinstance(address, tuple) else None

    def peer_addr_string(self) -> str | None:
        """ "127.0.0.1:80", "[::1]:80", or the path of a Unix socket ("" if it has none), with an "@" in front of an
        abstract name, and escapes for what cannot be printed; None if not known."""
        return _in_words(self._address("getpeername", "_peer"))

    def local_ip_string(self) -> str | None:
        """The same of this side."""
        address = self._address("getsockname", "_local")
        return address[0] if isinstance(address, tuple) else None

    def local_addr_string(self) -> str | None:
        """The same of this side."""
        return _in_words(self._address("getsockname", "_local"))

    def _address(self, call: str, slot: str) -> Any:
        address = getattr(self, slot, None)
        if address is None:
            try:
                address = getattr(self.sock, call)()
            except (OSError, AttributeError):
                return None
            if len(address) == 4:  # IPv6
                address = public(address)
            setattr(self, slot, address)
        return address

    def as_string(self) -> str:
        """ "Class(RW): open to 127.0.0.1:80", the letters telling what is watched."""
        watched = ("R" if self._watch_read else "") + ("W" if self._interest() & WRITE else "")
        peer = self.peer_addr_string()
        state = "closed" if self.closed else "open"
        return f"{type(self).__name__}({watched}): {state}" + (f" to {peer}" if peer else "")

    __repr__ = as_string

    def debugmsg(self, message: str, *args: object) -> None:
        """A line, with this socket in words, to the logger "dangagreen" at level DEBUG. A newline at its end is cut."""
        if log.isEnabledFor(logging.DEBUG):
            log.debug(message.removesuffix("\n") + " [%s]", *args, self.as_string())

    def tcp_cork(self, on: bool) -> None:
        """Hold back partial TCP segments, or let them go. Ignored where it means nothing, and after the end."""
        if _CORK is not None and not self.closed and self.sock.family in (socket.AF_INET, socket.AF_INET6):
            try:
                self.sock.setsockopt(socket.IPPROTO_TCP, _CORK, int(bool(on)))
            except OSError as error:
                self.debugmsg("tcp_cork: %s", error)

    def dump_error(self, message: str) -> None:
        """The message, this socket in words and the stack, to the logger "dangagreen"."""
        log.error("%s [%s]", message, self.as_string(), stack_info=True)

    def _was_released(self) -> None:
        """The servers of net look whether it is to end: nobody holds `busy()` any more."""


def _in_words(address: Any) -> str | None:
    if isinstance(address, tuple):
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if address is None:
        return None
    name = os.fsdecode(address)
    if name.startswith("\0"):
        name = "@" + name[1:]
    return name if name.isprintable() else repr(name)[1:-1]  # the peer has chosen it, and a log is to keep its lines
