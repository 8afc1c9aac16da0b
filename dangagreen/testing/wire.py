"""A connection in memory: two socket-like ends that behave as stream sockets do on Linux, and do what scripts say.

Rules: each call returns, raises and changes what the kernel's does on a non-blocking TCP socket over loopback, or on a
Unix one (`family=socket.AF_UNIX`), and so do the events; a differential test compares them with both. What is sent
arrives at once. Linux 6.18: a TCP connection that was reset keeps what had arrived, tells its error once (EPIPE
after the peer's FIN, otherwise ECONNRESET) and has no peer's name any more; the first send after the peer's close
succeeds and is answered by a reset.

Not modelled: buffers in the kernel's units (`capacity` is one number of bytes for what the two kernels of a connection
hold together), delays (Nagle, delayed acknowledgements, retransmission, keep-alive), what a reset or the loss of a
connection does to bytes that are still in the sender's kernel, a linger time above 0, urgent data, ancillary data and
file descriptors, options that would change what the connection does (they are remembered, SO_LINGER alone acts), and
calls that nothing in this package makes: connect, accept, bind, sendmsg, recvmsg, MSG_TRUNC, MSG_WAITALL.
"""

from __future__ import annotations

import errno
import socket
import sys

from dangagreen import checks
from dangagreen.testing.wire_end import Name, WireEnd, os_error


class _TcpEnd(WireEnd):
    """A TCP end, after Linux's tcp.c and tcp_input.c. The connection is over after both FINs, or after an RST."""

    family = socket.AF_INET
    peer: _TcpEnd

    def __init__(self, name: Name, capacity: int) -> None:
        super().__init__(name, capacity)
        self._fin_sent = self._fin_received = False
        self._over = False  # in state TCP_CLOSE

    def getpeername(self) -> Name:
        self._check_open()
        if self._over:
            raise os_error(errno.ENOTCONN)
        return super().getpeername()

    def _nothing_to_read(self) -> bytes:
        if self._fin_received:  # after a FIN recv returns b"", whatever has happened since
            return b""
        return super()._nothing_to_read()

    def _why_not_write(self) -> int:
        number, self._error = self._error, 0
        return number or errno.EPIPE

    def _is_writable(self) -> bool:
        """sk_stream_is_writeable: a third of the buffer is free."""
        space = self._send_space()
        return self._shut_write or (space > 0 and 3 * space >= self.peer.capacity)

    def _send_space(self) -> int:
        return sys.maxsize if self.peer._refuses() else super()._send_space()

    def _refuses(self) -> bool:
        """Whether input is answered by an RST: this end is closed, or both directions are shut down."""
        return self.closed or (self._fin_sent and self._shut_read)

    def _transmit(self, data: bytes) -> None:
        if self.peer._refuses():
            self.peer._receive_reset()
            self._receive_reset()
        else:
            self.peer._incoming += data

    def _shut_down(self, read: bool, write: bool) -> None:
        if self._over:
            raise os_error(errno.ENOTCONN)
        self._shut_read |= read
        if write:
            self._send_fin()

    def _send_fin(self) -> None:
        if not self._fin_sent:
            self._fin_sent = self._shut_write = True
            self._over = self._fin_received
            self.peer._receive_fin()

    def _receive_fin(self) -> None:
        if not self._over:
            self._fin_received = self._shut_read = True
            self._over = self._fin_sent

    def _receive_reset(self) -> None:
        if not self._over:
            self._error = errno.EPIPE if self._fin_received else errno.ECONNRESET
            self._over = self._shut_read = self._shut_write = True

    def _end(self, reset: bool) -> None:
        if not self._over:
            if reset or self._incoming:
                self._abort()
            else:
                self._send_fin()

    def _abort(self) -> None:
        self.peer._receive_reset()

    def _hang_up(self) -> None:
        super()._hang_up()
        self._over = self._fin_sent = self._fin_received = True


class _UnixEnd(WireEnd):
    """A Unix end, after Linux's af_unix.c: a shutdown of one end acts on the other one at once, without an error."""

    family = socket.AF_UNIX
    peer: _UnixEnd

    def _why_not_write(self) -> int:
        return errno.EPIPE

    def _is_writable(self) -> bool:
        """unix_writable: a quarter of the buffer is in use at most, whatever was shut down."""
        return self._send_space() > 0 and 4 * len(self.peer._incoming) <= self.peer.capacity

    def _transmit(self, data: bytes) -> None:
        self.peer._incoming += data

    def _shut_down(self, read: bool, write: bool) -> None:
        self._shut_read |= read
        self._shut_write |= write
        self.peer._shut_read |= write
        self.peer._shut_write |= read

    def _end(self, reset: bool) -> None:
        self._shut_down(True, True)
        if self._incoming:
            self.peer._error = errno.ECONNRESET

    def _abort(self) -> None:
        self._shut_down(True, True)
        self.peer._error = errno.ECONNRESET

    def _check_level(self, level: int) -> None:
        if level != socket.SOL_SOCKET:
            raise os_error(errno.EOPNOTSUPP)


def wire(capacity: int = 65536, *, family: int = socket.AF_INET) -> tuple[WireEnd, WireEnd]:
    """Two connected ends: of TCP, or with `family=socket.AF_UNIX` of a Unix stream, without addresses.

    `capacity`: how many bytes each end buffers unread. Raises ValueError for another family.
    """
    capacity = checks.count("the capacity of a wire", capacity)
    one: WireEnd
    other: WireEnd
    if family == socket.AF_INET:
        one, other = _TcpEnd(("10.0.0.1", 1), capacity), _TcpEnd(("10.0.0.2", 2), capacity)
    elif family == socket.AF_UNIX:
        one, other = _UnixEnd("", capacity), _UnixEnd("", capacity)
    else:
        raise ValueError(f"wire() has AF_INET and AF_UNIX, not the family {family!r}")
    one.peer, other.peer = other, one
    return one, other
