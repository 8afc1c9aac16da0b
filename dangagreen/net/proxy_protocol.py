"""The PROXY protocol, versions 1 and 2: a proxy in front tells whose connection it relays, by a header before all data.

The specification is HAProxy's, "The PROXY protocol". Rules: exactly the header is received, and no byte behind it; it
is believed of trusted peers alone, and a connection from elsewhere is refused; what can be no header closes the
connection as soon as that shows. Addresses are what matters: extensions (TLVs), checksums among them, are skipped. What
does not belong here: the time limit, and what follows the header (opening).
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterable
from typing import Any, NamedTuple

from dangagreen import checks
from dangagreen.sockets.addresses import is_path

_TEXT = b"PROXY "
_LONGEST_LINE = 107  # bytes of version 1, with its CRLF
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED = 16  # bytes of version 2 before the addresses: signature, version and command, family and protocol, length
_LOCAL, _PROXY = 0x20, 0x21  # version and command
_INET, _INET6, _UNIX = 1, 2, 3  # families
_ADDRESSES = {_INET: 12, _INET6: 36, _UNIX: 216}  # bytes of both addresses, and of the ports
_LAST_PROTOCOL = 2  # 1: a stream, 2: datagrams
_PEEK = 2048  # bytes to look at: nearly each header, and some of what follows
UNIX = "unix"  # among the networks: the peers of Unix sockets


class Header(NamedTuple):
    """A whole header: its length in bytes, and the client's address as getpeername(2) has it; None: it says nothing."""

    length: int
    client: Any


def parse(data: bytes) -> Header | None:
    """The header at the beginning of `data`; None if it is not whole yet, and then all of `data` belongs to it.

    Raises ValueError if it is none, whatever follows.
    """
    if data.startswith(_SIGNATURE[: len(data)]):
        return _parse_binary(data)
    if data.startswith(_TEXT[: len(data)]):
        return _parse_line(data)
    raise ValueError("this is no header of the PROXY protocol")


# -- version 1: a line


def _parse_line(data: bytes) -> Header | None:
    line, end, _ = data[:_LONGEST_LINE].partition(b"\r\n")
    if not end:
        if len(data) >= _LONGEST_LINE:
            raise ValueError(f"a PROXY line is longer than {_LONGEST_LINE} bytes")
        return None
    _, protocol, *rest = line.split(b" ")
    client = None
    if protocol != b"UNKNOWN":  # of which the rest is to be ignored
        family = {b"TCP4": socket.AF_INET, b"TCP6": socket.AF_INET6}.get(protocol)
        if family is None or len(rest) != 4:
            raise ValueError(f"a PROXY line is malformed: {line!r}")
        try:
            client = _as_peer(family, _host(family, rest[0]), _port(rest[2]))
            _host(family, rest[1]), _port(rest[3])
        except (OSError, ValueError):
            raise ValueError(f"an address or a port of a PROXY line is malformed: {line!r}") from None
    return Header(len(line) + len(end), client)


def _host(family: int, text: bytes) -> bytes:
    return socket.inet_pton(family, text.decode("ascii"))


def _port(text: bytes) -> int:
    """0 to 65535, without leading zeros."""
    if not text.isdigit() or str(port := int(text[:6])).encode() != text or port > 65535:
        raise ValueError
    return port


# -- version 2: binary


def _parse_binary(data: bytes) -> Header | None:
    command = data[12] if len(data) > 12 else _LOCAL
    kind = data[13] if len(data) > 13 else 0
    if command not in (_LOCAL, _PROXY):
        raise ValueError(f"version and command of a PROXY header are unknown: {command:#04x}")
    family, protocol = divmod(kind, 16)
    if command == _PROXY and (family > _UNIX or protocol > _LAST_PROTOCOL):
        raise ValueError(f"family and protocol of a PROXY header are unknown: {kind:#04x}")
    if len(data) < _FIXED:
        return None
    length = _FIXED + int.from_bytes(data[14:_FIXED], "big")
    tells = command == _PROXY and family and protocol  # LOCAL, a proxy's own connection, and UNSPEC say nothing
    if tells and length < _FIXED + _ADDRESSES[family]:
        raise ValueError(f"a PROXY header of {length} bytes is too short for its addresses")
    if len(data) < length:
        return None
    return Header(length, _client(family, data[_FIXED:length]) if tells else None)


def _client(family: int, block: bytes) -> Any:
    """The first address of a block of addresses."""
    if family == _INET:
        return _as_peer(socket.AF_INET, block[:4], int.from_bytes(block[8:10], "big"))
    if family == _INET6:
        return _as_peer(socket.AF_INET6, block[:16], int.from_bytes(block[32:34], "big"))
    name = block[:108].rstrip(b"\0")
    return name if name.startswith(b"\0") else os.fsdecode(name.partition(b"\0")[0])


def _as_peer(family: int, host: bytes, port: int) -> Any:
    address = socket.inet_ntop(family, host), port
    return address if family == socket.AF_INET else (*address, 0, 0)


# -- sockets


class ProxiedSocket(socket.socket):
    """The OS socket of a connection that a proxy relays: its peer is the client, where the proxy has named one."""

    __slots__ = {"client": "The client's address; None until the header has named one."}

    def __init__(self, accepted: socket.socket) -> None:
        self.client: Any = None
        family, kind, proto = accepted.family, accepted.type, accepted.proto
        super().__init__(int(family), int(kind), proto, fileno=accepted.detach())

    def getpeername(self) -> Any:
        """The client's address."""
        return super().getpeername() if self.client is None else self.client


class ProxyHeader:
    """The first step of the opening of a connection: receives the header, and nothing behind it."""

    __slots__ = {"_received": "What has come of the header.", "_sock": "The OS socket."}

    may_park = wants_write = False
    sni_callback = None

    def __init__(self, sock: ProxiedSocket) -> None:
        self._sock = sock
        self._received = b""

    def go_on(self) -> ProxiedSocket:
        """Go on until the header is whole; then returns the socket. Raises BlockingIOError until then.

        Raises ConnectionError if there is no header.
        """
        while True:
            ahead = self._sock.recv(_PEEK, socket.MSG_PEEK)
            if not ahead:
                raise ConnectionAbortedError("the connection ended within its PROXY header")
            try:
                header = parse(self._received + ahead)
            except ValueError as error:
                raise ConnectionAbortedError(str(error)) from None
            ours = len(ahead) if header is None else header.length - len(self._received)
            self._received += self._sock.recv(ours)
            if header is not None:
                self._sock.client = header.client
                return self._sock


class TrustedProxies:
    """The networks whose connections have a PROXY header."""

    __slots__ = {"_networks": "The networks.", "_unix": "Whether the peers of Unix sockets are trusted."}

    def __init__(self, call: str, networks: Iterable[Any]) -> None:
        if isinstance(networks, (str, bytes)) or not isinstance(networks, Iterable):
            raise TypeError(f"{call}: proxy_protocol is a list of networks, not {checks.shown(networks)}")
        given = list(networks)
        if not given:
            raise ValueError(f"{call}: proxy_protocol names no network, so nobody could connect")
        self._unix = UNIX in given
        try:
            self._networks = [ipaddress.ip_network(one) for one in given if one != UNIX]
        except ValueError as error:
            raise ValueError(f"{call}: proxy_protocol: {error}") from None

    def check_addresses(self, call: str, address: Any) -> None:
        """Raise ValueError if nobody could connect, as no address to listen on is of a kind whose peers are trusted."""
        for one in address if isinstance(address, list) else [address]:
            if self._unix if is_path(one) or getattr(one, "family", None) == socket.AF_UNIX else self._networks:
                return
        raise ValueError(f"{call}: proxy_protocol trusts no peer of {checks.shown(address)}, so nobody could connect")

    def trusts(self, sock: Any) -> bool:
        """Whether the peer of an OS socket is in one of the networks. Raises OSError (ENOTCONN) if it has gone."""
        if sock.family == socket.AF_UNIX:
            return self._unix
        address: Any = ipaddress.ip_address(sock.getpeername()[0])
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self._networks)

    def admit(self, sock: Any) -> ProxiedSocket:
        """The OS socket of a connection that has a PROXY header. Raises OSError if its peer is not trusted, or gone."""
        if not self.trusts(sock):
            raise ConnectionAbortedError("it is refused: its peer is no trusted proxy")
        return ProxiedSocket(sock)
