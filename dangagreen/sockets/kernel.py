"""What the kernel knows of a TCP connection: bytes in and out, for how long none has moved; and of a listener's queue.

Rules: the kernel counts anyway, from the first byte on, so that a connection pays nothing, and a snapshot a system
call for each. Where it does not count, as for Unix sockets and outside Linux, the answer is None. What does not belong
here: what this library notes itself (records).
"""

from __future__ import annotations

import fcntl
import socket
import struct
import sys
import termios
from typing import Any, NamedTuple

from dangagreen.loop.handlers import Handler
from dangagreen.sockets.sock import CallbackSocket
from dangagreen.system_calls import OS_SOCKETS

# struct tcp_info, of linux/tcp.h: tcpi_state; tcpi_unacked, of a listener the length of its accept queue; milliseconds
# since data was sent (tcpi_last_data_sent), and received; tcpi_bytes_received; tcpi_notsent_bytes; tcpi_bytes_sent, and
# of these tcpi_bytes_retrans, in Linux from 4.19 on.
_INFO = struct.Struct("=B23xI16xI4xI72xQ8xI52xQQ")
_INT = struct.Struct("i")
_TCP = int(socket.IPPROTO_TCP)
_TCP_INFO: int | None = socket.TCP_INFO if sys.platform == "linux" else None
_CLOSED, _LISTENING = 7, 10
_AFTER_FIN = {8, 9, 11}  # CLOSE_WAIT, LAST_ACK, CLOSING: the peer's FIN has come, and is counted as a byte
_OWN_FIN = {4, 9, 11}  # FIN_WAIT1, LAST_ACK, CLOSING: ours is queued behind what is not sent yet, and counted there


class Traffic(NamedTuple):
    """What has passed through a connection."""

    received: int  # bytes, those included that nobody has read
    sent: int  # bytes that the kernel has taken
    idle: float | None  # seconds since the last of them; None if that is not known


def traffic(handler: Handler) -> Traffic | None:
    """What has passed through the connection of a handler; None where nobody counts."""
    passed = counted(handler)
    return None if passed is None else Traffic(*passed)


def counted(handler: Handler) -> tuple[int, int, float | None] | None:
    """The fields of `traffic`: the same for less, for who asks about each connection."""
    sock: Any = getattr(handler, "sock", None)
    if type(sock) not in OS_SOCKETS:
        sock = getattr(sock, "beneath", sock)  # of TLS
        if callable(transferred := getattr(sock, "transferred", None)):  # one in memory, which counts itself
            try:
                received, sent = transferred()
                return received, sent, None
            except Exception:  # another one's method of this name
                return None
    if (info := _tcp_info(sock)) is None or info[0] == _LISTENING:
        return None
    state, _, since_sent, since_received, received, not_sent, sent, sent_again = info
    if state in _AFTER_FIN or (state == _CLOSED and _ended_in_order(handler)):
        received -= 1
    if not_sent and state in _OWN_FIN:
        not_sent -= 1
    return received, sent - sent_again + not_sent, min(since_sent, since_received) / 1000


def passed_through(handler: Any) -> tuple[int, int] | None:
    """How many bytes of a TCP connection were read, and sent, so far; None of anything else."""
    passed = traffic(handler)
    if passed is None or passed.idle is None:  # one in memory, of which it is not known what was read
        return None
    return passed.received - unread(handler.fd), passed.sent


def peer_has_ended(sock: CallbackSocket) -> bool:
    """Whether the peer of a connection has sent its FIN or RST: of TCP on Linux also if that was not read so far."""
    if sock._is_at_eof() or sock._has_failed():
        return True
    beneath: Any = sock.sock
    if type(beneath) not in OS_SOCKETS:
        beneath = getattr(beneath, "beneath", beneath)  # of TLS
    info = _tcp_info(beneath)
    return info is not None and (info[0] in _AFTER_FIN or info[0] == _CLOSED)


def accept_queue(sock: Any) -> int | None:
    """How many connections wait to be accepted by a listening socket; None where the kernel does not tell."""
    info = _tcp_info(sock)
    return info[1] if info is not None and info[0] == _LISTENING else None


def unread(fd: int) -> int:
    """How many bytes of input the kernel holds for an fd; 0 where it does not tell."""
    try:
        (size,) = _INT.unpack(fcntl.ioctl(fd, termios.FIONREAD, _INT.pack(0)))
    except OSError:
        return 0
    return int(size)


def bytes_read(fd: int) -> int | None:
    """How many bytes of a TCP connection, of this library or another one, the program has read; None of anything else.

    A FIN that has come counts as one.
    """
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        return None
    info = _tcp_info(sock)
    sock.detach()
    return None if info is None or info[0] == _LISTENING else info[4] - unread(fd)


def _ended_in_order(handler: Handler) -> bool:
    """Whether the peer's FIN was met, and no reset: then both directions have ended, and the kernel forgets by what."""
    return isinstance(handler, CallbackSocket) and handler._is_at_eof() and not handler._has_failed()


def _tcp_info(sock: Any) -> tuple[int, ...] | None:
    if not isinstance(sock, socket.socket) or _TCP_INFO is None:
        return None
    try:
        return _INFO.unpack(sock.getsockopt(_TCP, _TCP_INFO, _INFO.size))
    except (OSError, struct.error):  # no TCP, or closed; an older kernel knows less
        return None
