"""Addresses: what may be listened on or connected to, and the opening of listening OS sockets.

Rules: an address that cannot be meant is refused before the kernel, or the resolver, makes another one of it. What does
not belong here: accepting, and the waiting of clients.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from typing import Any

Address = tuple[str, int] | str | os.PathLike[str] | socket.socket


def host_and_port(address: Any, others: str) -> tuple[str, int]:
    """The two parts of (host, port). Raises TypeError, naming the `others` that it might have been, and ValueError."""
    try:
        host, port = address
    except (TypeError, ValueError):
        raise TypeError(f"an address is (host, port), {others}, not {address!r}") from None
    if not isinstance(port, int):
        raise TypeError(f"the port of {address!r} is no int")
    if not 0 <= port <= 65535:  # the resolver would take it modulo 65536
        raise ValueError(f"the port of {address!r} is not between 0 and 65535")
    return host, port


def open_listener(address: Address, *, backlog: int, reuse_port: bool) -> tuple[socket.socket, bool]:
    """A listening OS socket for (host, port), a path, or a socket that listens already, and whether a path was made.

    Raises OSError, naming the address, if it cannot be had; a stale Unix socket that nobody listens on is replaced.
    """
    if isinstance(address, socket.socket):
        if not address.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise ValueError(f"{address!r} is not listening: call its listen(), or pass an address")
        return address, False
    if isinstance(address, (str, os.PathLike)):
        path = os.fspath(address)
        _remove_stale(path)
        return _bind(socket.AF_UNIX, path, backlog, reuse_port), True
    host, port = host_and_port(address, "a path or a listening socket")
    try:
        found = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise socket.gaierror(error.errno, f"cannot look up {address!r}: {error.strerror}") from None
    family, _, _, _, sockaddr = found[0]
    return _bind(family, sockaddr, backlog, reuse_port), False


def _bind(family: int, address: Any, backlog: int, reuse_port: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"cannot listen on {address!r}: {error.strerror}") from None
    return sock


def _remove_stale(path: str) -> None:
    """Unlink a Unix socket that is left over from a server that died; anything else is left where it is."""
    if path.startswith("\0"):
        return
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode):
            with socket.socket(socket.AF_UNIX) as probe:
                probe.setblocking(False)  # its owner may be busy, with a full queue
                if probe.connect_ex(path) == errno.ECONNREFUSED:
                    os.unlink(path)
