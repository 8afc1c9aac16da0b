"""A connection in memory: two socket-like ends that behave as stream sockets do on Linux, and do what scripts say.

Rules: each call answers, raises and changes what the kernel's does on a non-blocking TCP socket over loopback, or on a
Unix one (`family=socket.AF_UNIX`), and so do the events; a differential test against both holds it to that. What is
sent is there at once. Linux 6.18: a TCP connection that was reset keeps what had arrived, tells its error once (EPIPE
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
import itertools
import os
import socket
import struct
import sys
import weakref
from collections import deque
from typing import ClassVar, Final

from dangagreen.loop.pollers import ERR, HUP, READ, WRITE

_PEEK = int(socket.MSG_PEEK)
_RDHUP = 0x2000  # POLLRDHUP, EPOLLRDHUP: reported to who asks for it, as READ and WRITE are


class _Block:
    def __repr__(self) -> str:
        return "BLOCK"


BLOCK: Final = _Block()
Step = int | _Block | OSError
Name = tuple[str, int] | str

_numbers = itertools.count(1 << 24)  # far above any real fd
_ends: weakref.WeakValueDictionary[int, WireEnd] = weakref.WeakValueDictionary()


def end_of(fd: int) -> WireEnd | None:
    """The end that has this fd number, if it is one of ours."""
    return _ends.get(fd)


class WireEnd:
    """One end. `reads` and `writes` are scripts: each call of recv or send takes the next step, if there is one.

    A step is a number (no more than so many bytes this time), BLOCK (BlockingIOError this time) or an OSError to
    raise; peeking takes none. `capacity` is how many bytes that this end has not read yet its peer may have sent.
    `received` is everything that recv has returned, `options` the socket options that were set.
    """

    family: ClassVar[socket.AddressFamily]
    type = socket.SOCK_STREAM
    proto = 0

    def __init__(self, name: Name, capacity: int) -> None:
        self.reads: deque[Step] = deque()
        self.writes: deque[Step] = deque()
        self.capacity = capacity
        self.received = bytearray()
        self.options: dict[tuple[int, int], int | bytes] = {}
        self.closed = False
        self._name = name
        self._incoming = bytearray()
        self._fd = next(_numbers)
        self._error = 0  # the errno that is told once
        self._shut_read = self._shut_write = False  # of either side's doing
        self.peer: WireEnd
        _ends[self._fd] = self

    # -- what a socket has

    def fileno(self) -> int:
        return -1 if self.closed else self._fd

    def setblocking(self, flag: bool) -> None:
        if flag:
            raise ValueError("a wire end does not block")

    def recv(self, n: int, flags: int = 0) -> bytes:
        if n < 0:
            raise ValueError("negative buffersize in recv")
        if not flags & _PEEK:
            n = self._step(self.reads, n)
        if n == 0:  # a real one does not ask the kernel then
            return b""
        self._check_open()
        if self._incoming:
            data = bytes(self._incoming[:n])
            if not flags & _PEEK:
                del self._incoming[:n]
                self.received += data
            return data
        return self._nothing_to_read()

    def recv_into(self, buffer: bytearray | memoryview, nbytes: int = 0, flags: int = 0) -> int:
        with memoryview(buffer).cast("B") as view:
            if view.readonly:
                raise TypeError("recv_into needs a writable buffer")
            data = self.recv(nbytes or len(view), flags)
            view[: len(data)] = data
        return len(data)

    def send(self, data: bytes | bytearray | memoryview, flags: int = 0) -> int:
        with memoryview(data).cast("B") as view:
            size = self._step(self.writes, len(view))
            self._check_open()
            if self._shut_write:
                raise _os_error(self._why_not_write())
            if not size:
                return 0
            if (room := self._room()) <= 0:
                raise _os_error(errno.EAGAIN)
            size = min(size, room)
            self._transmit(bytes(view[:size]))
        return size

    def shutdown(self, how: int) -> None:
        self._check_open()
        if how not in (socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR):
            raise _os_error(errno.EINVAL)
        self._shut_down(how != socket.SHUT_WR, how != socket.SHUT_RD)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            linger = self.options.get((socket.SOL_SOCKET, socket.SO_LINGER))
            self._end(reset=linger == struct.pack("ii", 1, 0))
            self._incoming.clear()

    def getpeername(self) -> Name:
        self._check_open()
        return self.peer._name

    def getsockname(self) -> Name:
        self._check_open()
        return self._name

    def getsockopt(self, level: int, option: int, buflen: int = 0) -> int | bytes:
        self._check_open()
        self._check_level(level)
        value = self.options.get((level, option), 0)
        if (level, option) == (socket.SOL_SOCKET, socket.SO_ERROR):
            value, self._error = self._error, 0
        if buflen:
            return (value if isinstance(value, bytes) else value.to_bytes(4, sys.byteorder)).ljust(buflen, b"\0")
        return int.from_bytes(value[:4], sys.byteorder) if isinstance(value, bytes) else value

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        self._check_open()
        self._check_level(level)
        self.options[level, option] = value

    # -- what a test does to it

    def reset(self) -> None:
        """Abort the connection and close this end, as a close with a linger time of 0 does over TCP.

        A Unix connection has no such thing: it is as if this end were closed with input unread.
        """
        if not self.closed:
            self.closed = True
            self._abort()
            self._incoming.clear()

    def hang_up(self) -> None:
        """End both directions: the peer may read what is there, then finds the end, and can send no more.

        So ends a Unix connection that is closed, and a TCP one when both sides have shut writing down.
        """
        self._hang_up()
        self.peer._hang_up()

    def events(self, mask: int) -> int:
        """Which of the bits in `mask`, or of the ends, a poller would report now."""
        if self.closed:
            return 0
        ready = _RDHUP | READ if self._shut_read else READ if self._incoming else 0
        if self._is_writable():
            ready |= WRITE
        ready &= mask
        if self._error:
            ready |= ERR
        if self._shut_read and self._shut_write:
            ready |= HUP
        return ready

    # -- where TCP and Unix sockets differ

    def _nothing_to_read(self) -> bytes:
        """What recv answers or raises when nothing is there."""
        raise NotImplementedError

    def _why_not_write(self) -> int:
        """The errno of send, once writing was shut down."""
        raise NotImplementedError

    def _is_writable(self) -> bool:
        raise NotImplementedError

    def _transmit(self, data: bytes) -> None:
        raise NotImplementedError

    def _shut_down(self, read: bool, write: bool) -> None:
        raise NotImplementedError

    def _end(self, reset: bool) -> None:
        """This end is being closed. `reset`: with a linger time of 0."""
        raise NotImplementedError

    def _abort(self) -> None:
        raise NotImplementedError

    def _check_level(self, level: int) -> None:
        """Raise OSError if there are no options of this level."""

    # -- common steps

    def _hang_up(self) -> None:
        self._shut_read = self._shut_write = True

    def _room(self) -> int:
        return self.peer.capacity - len(self.peer._incoming)

    def _tell_error(self) -> None:
        number, self._error = self._error, 0
        if number:
            raise _os_error(number)

    def _check_open(self) -> None:
        if self.closed:
            raise _os_error(errno.EBADF)

    @staticmethod
    def _step(script: deque[Step], n: int) -> int:
        if not script:
            return n
        step = script.popleft()
        if isinstance(step, OSError):
            try:
                raise step
            finally:
                del step  # or its traceback would hold it by this frame
        if isinstance(step, _Block):
            raise _os_error(errno.EAGAIN)
        return min(n, step)

    def __repr__(self) -> str:
        return f"<WireEnd {self._name}{' closed' if self.closed else ''}>"


class _TcpEnd(WireEnd):
    """Linux's tcp.c and tcp_input.c. The connection is over when both FINs were exchanged, or at a reset."""

    family = socket.AF_INET
    peer: _TcpEnd

    def __init__(self, name: Name, capacity: int) -> None:
        super().__init__(name, capacity)
        self._fin_sent = self._fin_received = False
        self._over = False  # in state TCP_CLOSE

    def getpeername(self) -> Name:
        self._check_open()
        if self._over:
            raise _os_error(errno.ENOTCONN)
        return super().getpeername()

    def _nothing_to_read(self) -> bytes:
        if not self._fin_received:  # after a FIN there is but the end, whatever has happened since
            self._tell_error()
            if not self._shut_read:
                raise _os_error(errno.EAGAIN)
        return b""

    def _why_not_write(self) -> int:
        number, self._error = self._error, 0
        return number or errno.EPIPE

    def _is_writable(self) -> bool:
        """sk_stream_is_writeable: a third of the buffer is free."""
        room = self._room()
        return self._shut_write or (room > 0 and 3 * room >= self.peer.capacity)

    def _room(self) -> int:
        return sys.maxsize if self.peer._refuses() else super()._room()

    def _refuses(self) -> bool:
        """Is input answered by a reset? Nobody can read it: the socket is closed, or both directions are shut down."""
        return self.closed or (self._fin_sent and self._shut_read)

    def _transmit(self, data: bytes) -> None:
        if self.peer._refuses():
            self.peer._receive_reset()
            self._receive_reset()
        else:
            self.peer._incoming += data

    def _shut_down(self, read: bool, write: bool) -> None:
        if self._over:
            raise _os_error(errno.ENOTCONN)
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
    """Linux's af_unix.c: each end sees at once what the other one shuts down, and outlives it without an error."""

    family = socket.AF_UNIX
    peer: _UnixEnd

    def _nothing_to_read(self) -> bytes:
        self._tell_error()
        if not self._shut_read:
            raise _os_error(errno.EAGAIN)
        return b""

    def _why_not_write(self) -> int:
        return errno.EPIPE

    def _is_writable(self) -> bool:
        """unix_writable: a quarter of the buffer is in use at most, whatever was shut down."""
        return self._room() > 0 and 4 * len(self.peer._incoming) <= self.peer.capacity

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
            raise _os_error(errno.EOPNOTSUPP)


def _os_error(number: int) -> OSError:
    """The subclass of OSError that goes with the number, with number and text, as the socket module raises it."""
    return OSError(number, os.strerror(number))


def wire(capacity: int = 65536, *, family: int = socket.AF_INET) -> tuple[WireEnd, WireEnd]:
    """Two connected ends, of TCP, or with `family=socket.AF_UNIX` of a Unix stream, which have no names."""
    one: WireEnd
    other: WireEnd
    if family == socket.AF_INET:
        one, other = _TcpEnd(("10.0.0.1", 1), capacity), _TcpEnd(("10.0.0.2", 2), capacity)
    elif family == socket.AF_UNIX:
        one, other = _UnixEnd("", capacity), _UnixEnd("", capacity)
    else:
        raise ValueError(f"the wire knows AF_INET and AF_UNIX, not the family {family!r}")
    one.peer, other.peer = other, one
    return one, other
