"""Addresses to listen on or to connect to.

Rules: an address that makes no sense is refused before the kernel, or the resolver, makes another one of it; an error
names the address and the cause. What does not belong here: listening (binding) and connecting.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import Any, NamedTuple, TypeAlias

from dangagreen.checks import count

Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]
PeerAddress = tuple[str, int] | tuple[str, int, int, int] | Path
Address = PeerAddress | socket.socket
Addresses = Address | Sequence[Address]  # a list, at run time: a tuple is one address
# Of a socket: (host, port), for IPv6 (host, port, flowinfo, scope id), a path, or bytes for an abstract Unix name.
# Any, as in the standard library's types, so that `host, port = listener.address` passes a type checker.
SocketAddress: TypeAlias = Any
Found = list[tuple[int, Any]]  # family and OS address, of an answer of getaddrinfo(3)

_LONGEST_PATH = 107 if sys.platform == "linux" else 103  # bytes; one more for the NUL after it: unix(7), unix(4)


class HostAndPort(NamedTuple):
    """(host, port), and for IPv6 (host, port, flowinfo, scope id)."""

    host: str
    port: int
    flowinfo: int = 0
    scope_id: int = 0
    family: int = socket.AF_UNSPEC

    def look_up(self, address: object, flags: int = 0) -> Found:
        """getaddrinfo(3): pairs of family and OS address. Raises gaierror, an OSError, for a name that is not found."""
        try:
            if "\0" in self.host:
                raise UnicodeError("it holds a NUL")  # the resolver would take what is before it
            host = self.host if self.host.isascii() else in_ascii(self.host)
            return self.found(socket.getaddrinfo(host, self.port, self.family, socket.SOCK_STREAM, flags=flags))
        except (OSError, UnicodeError) as error:
            raise not_found(address, error) from None

    def numeric(self, address: object) -> Found | None:
        """What `look_up` answers for a numeric host, without asking a server; None for a name.

        Raises gaierror for what is neither.
        """
        try:
            return self.look_up(address, socket.AI_NUMERICHOST)
        except socket.gaierror as error:
            if isinstance(error.__context__, UnicodeError):
                raise
            return None

    def in_ascii(self, address: object) -> HostAndPort:
        """The name with its host in ASCII. Raises gaierror for what is no such name."""
        if self.host.isascii():
            return self
        try:
            return self._replace(host=in_ascii(self.host))
        except UnicodeError as error:
            raise not_found(address, error) from None

    def found(self, answer: list[Any]) -> Found:
        """Pairs of family and OS address, of an answer of getaddrinfo(3)."""
        return [(family, self._scoped(sockaddr)) for family, _, _, _, sockaddr in answer]

    def _scoped(self, sockaddr: Any) -> Any:
        if len(sockaddr) == 4:
            return *sockaddr[:2], self.flowinfo or sockaddr[2], self.scope_id or sockaddr[3]
        return sockaddr


def in_ascii(host: str) -> str:
    """A host name in ASCII: an internationalized one (IDNA 2008, UTS 46) is encoded by the package idna.

    Raises UnicodeError, with words for the cure, if that is not installed, and for what is no such name.
    """
    if host.isascii():
        return host
    try:
        import idna
    except ImportError:
        raise UnicodeError("it is not in ASCII: install dangagreen[idna], or encode it, as xn--...") from None
    return idna.encode(host, uts46=True).decode()


def interleaved(found: Found) -> Found:
    """The addresses with their families in turn, beginning with the first one's: RFC 8305, section 4."""
    families: dict[int, Found] = {}
    for one in dict.fromkeys(found):  # getaddrinfo may name one twice
        families.setdefault(one[0], []).append(one)
    return [one for one in chain.from_iterable(zip_longest(*families.values())) if one is not None]


def local_addresses(address: Any, peer: HostAndPort | None) -> dict[int, Any]:
    """The OS addresses to bind to, by family. Raises ValueError for a name, and where the peer is a Unix socket."""
    if peer is None or is_path(address):
        raise ValueError("local_address is for TCP: (host, port), where the host is numeric, or empty for any address")
    local = host_and_port(address, "of this host")
    if not local.host:
        return {socket.AF_INET: ("0.0.0.0", local.port), socket.AF_INET6: ("::", local.port)}
    found = local.numeric(address)
    if found is None:
        raise ValueError(f"local_address: the host of {address!r} is not numeric")
    return dict(found)


def not_found(address: object, error: OSError | UnicodeError) -> OSError:
    """The error of a look-up, with the address that was asked for. A name that is none (UnicodeError) is not found."""
    words = f"cannot look up {address!r}: {getattr(error, 'strerror', None) or error}"
    if isinstance(error, UnicodeError):
        if "'idna' codec" in words:  # what getaddrinfo(3) is given, a name in ASCII, goes through it
            words = f"cannot look up {address!r}: a part of the name is empty, or has more than 63 characters"
        return socket.gaierror(socket.EAI_NONAME, words)
    return type(error)(words) if error.errno is None else type(error)(error.errno, words)


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
