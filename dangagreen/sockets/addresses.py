"""Addresses to listen on or to connect to, and the opening of listening OS sockets.

Rules: an address that makes no sense is refused before the kernel, or the resolver, makes another one of it; an error
names the address and the cause, and leaves nothing behind. What does not belong here: accepting and connecting.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import sys
from typing import Any, NamedTuple, TypeAlias

from dangagreen.checks import count

Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]
PeerAddress = tuple[str, int] | tuple[str, int, int, int] | Path
Address = PeerAddress | socket.socket
# Of a socket: (host, port), for IPv6 (host, port, flowinfo, scope id), a path, or bytes for an abstract Unix name.
# Any, as in the standard library's types, so that `host, port = listener.address` passes a type checker.
SocketAddress: TypeAlias = Any

_LONGEST_PATH = 107 if sys.platform == "linux" else 103  # bytes; one more for the NUL after it: unix(7), unix(4)
_OF_ANOTHER_ADDRESS = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}  # this host lacks it, and may have the next one


class HostAndPort(NamedTuple):
    """(host, port), and for IPv6 (host, port, flowinfo, scope id)."""

    host: str
    port: int
    flowinfo: int = 0
    scope_id: int = 0
    family: int = socket.AF_UNSPEC

    def look_up(self, address: object, flags: int = 0) -> list[tuple[int, Any]]:
        """getaddrinfo(3): pairs of family and OS address. Raises gaierror, an OSError, for a name that is not found."""
        try:
            if "\0" in self.host:
                raise UnicodeError("it holds a NUL")  # the resolver would take what is before it
            found = socket.getaddrinfo(self.host, self.port, self.family, type=socket.SOCK_STREAM, flags=flags)
        except socket.gaierror as error:
            raise socket.gaierror(error.errno, f"cannot look up {address!r}: {error.strerror}") from None
        except UnicodeError as error:  # a label is empty or too long
            raise socket.gaierror(socket.EAI_NONAME, f"cannot look up {address!r}: {error}") from None
        return [(family, self._scoped(sockaddr)) for family, _, _, _, sockaddr in found]

    def _scoped(self, sockaddr: Any) -> Any:
        if len(sockaddr) == 4:
            return *sockaddr[:2], self.flowinfo or sockaddr[2], self.scope_id or sockaddr[3]
        return sockaddr


def host_and_port(address: Any, others: str) -> HostAndPort:
    """The address of a tuple (host, port), or of IPv6's four parts.

    Raises TypeError for anything else, with `others` for what it might be; ValueError for a number out of range.
    """
    try:
        host, port, *rest = address
        flowinfo, scope_id = rest or (0, 0)
    except (TypeError, ValueError):
        raise TypeError(f"an address is (host, port), {others}, not {address!r}") from None
    if isinstance(host, bytes):
        host = os.fsdecode(host)
    if not (host is None or isinstance(host, str)):
        raise TypeError(f"an address is (host, port), {others}: the host of {address!r} is no str")
    port = _part("port", port, address, 65535)
    flowinfo = _part("flowinfo", flowinfo, address, 0xFFFFF)
    scope_id = _part("scope id", scope_id, address, 0xFFFFFFFF)
    return HostAndPort(host or "", port, flowinfo, scope_id, socket.AF_INET6 if rest else socket.AF_UNSPEC)


def _part(what: str, value: Any, address: object, most: int) -> int:
    try:
        number = count(f"the {what} of {address!r}", value, None)
    except OverflowError:
        number = -1
    if not 0 <= number <= most:  # the resolver, or the kernel, would take it modulo the next power of two
        raise ValueError(f"the {what} of {address!r} is not between 0 and {most}")
    return number


def is_path(address: object) -> bool:
    """Whether an address is the path or name of a Unix socket."""
    return isinstance(address, (str, bytes, os.PathLike))


def unix_path(address: Any) -> str | bytes:
    """The path of a Unix socket, or an abstract name, which begins with a NUL.

    Raises ValueError for a str that looks like host:port; OSError, with the errno of bind(2), for an empty path, one
    with a NUL, and one that is too long.
    """
    if _looks_like_host_and_port(address):
        host, _, port = address.rpartition(":")
        whole = ":" in host and not host.endswith("]")  # an IPv6 address, and no port
        meant = f"({address!r}, port)" if whole else f"({host.removeprefix('[').removesuffix(']')!r}, {port})"
        raise ValueError(f"{address!r} would be the path of a Unix socket: write {meant}, or './{address}' for a path")
    path: str | bytes = os.fspath(address)
    try:
        name = os.fsencode(path)
    except UnicodeEncodeError as error:
        raise OSError(errno.EINVAL, f"{address!r}: {os.strerror(errno.EINVAL)}: {error}") from None
    abstract = name.startswith(b"\0")
    if len(name) > _LONGEST_PATH + abstract:
        why = f"of {_LONGEST_PATH} bytes for the name of a Unix socket"
        raise OSError(errno.ENAMETOOLONG, f"{address!r}: {os.strerror(errno.ENAMETOOLONG)}: more than the limit {why}")
    if not name or (b"\0" in name and not abstract):
        what = "holds a NUL" if name else "is empty"
        raise OSError(errno.EINVAL, f"{address!r} {what}: {os.strerror(errno.EINVAL)} as the path of a Unix socket")
    return path


def _looks_like_host_and_port(address: object) -> bool:
    if not isinstance(address, str) or address.startswith("\0") or "/" in address:
        return False
    _, colon, port = address.rpartition(":")
    return bool(colon) and port.isascii() and port.isdigit()


def of_listener(sockaddr: Any) -> Any:
    """An OS address in the form that `connect` takes."""
    return f"./{sockaddr}" if _looks_like_host_and_port(sockaddr) else public(sockaddr)


def public(sockaddr: Any) -> Any:
    """An OS address in its public form: of IP (host, port), a link-local host with its scope, "fe80::1%lo"."""
    if not isinstance(sockaddr, tuple):
        return sockaddr
    host, port, *rest = sockaddr
    if len(rest) == 2 and rest[1] and "%" not in host:
        try:
            scope = socket.if_indextoname(rest[1])
        except OSError:  # the interface has gone
            scope = str(rest[1])
        host = f"{host}%{scope}"
    return host, port


def open_listener(address: Any, *, backlog: int, reuse_port: bool) -> tuple[socket.socket, bool]:
    """Open a listening OS socket for (host, port), a path, or a socket that listens already.

    Returns it, and whether the file of a Unix socket was made; that of a dead server is replaced. Raises OSError,
    naming the address, if bind(2) or listen(2) fails.
    """
    if isinstance(address, socket.socket):
        if not address.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise ValueError(f"{address!r} is not listening: call its listen(), or pass an address")
        return address, False
    backlog = min(count("the backlog", backlog), 0x7FFFFFFF)  # the kernel has a limit far below it
    if is_path(address):
        path = unix_path(address)
        return _bind(socket.AF_UNIX, path, backlog, reuse_port=False), os.fsencode(path)[:1] != b"\0"
    name = host_and_port(address, "a path or a listening socket")
    if not name.host:
        name = name._replace(host="::" if name.family else "0.0.0.0")
    *first, last = name.look_up(address, socket.AI_PASSIVE)
    for family, sockaddr in first:
        try:
            return _bind(family, sockaddr, backlog, reuse_port), False
        except OSError as error:
            if error.errno not in _OF_ANOTHER_ADDRESS:
                raise
    return _bind(*last, backlog, reuse_port), False


def _bind(family: int, address: Any, backlog: int, reuse_port: bool) -> socket.socket:
    makes_path = family == socket.AF_UNIX and os.fsencode(address)[:1] != b"\0"
    try:
        if makes_path:
            _remove_stale(address)
        with contextlib.ExitStack() as undo:
            sock = undo.enter_context(socket.socket(family, socket.SOCK_STREAM))
            if family != socket.AF_UNIX:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(address)
            if makes_path:
                undo.callback(remove_path, address)
            sock.listen(backlog)
            undo.pop_all()
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {address!r}: {error.strerror or error}") from None
    return sock


def remove_path(path: str | bytes) -> None:
    """Unlink the file of a Unix socket; errors are ignored."""
    with contextlib.suppress(OSError, ValueError):
        os.unlink(path)


def _remove_stale(path: str | bytes) -> None:
    """Unlink the file of a Unix socket on which no process listens (ECONNREFUSED); nothing else."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode):
            with socket.socket(socket.AF_UNIX) as probe:
                probe.setblocking(False)  # its owner may be busy, with a full queue
                if probe.connect_ex(path) == errno.ECONNREFUSED:
                    os.unlink(path)
