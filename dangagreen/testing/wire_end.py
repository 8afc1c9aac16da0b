"""What the two ends of a connection in memory have in common: the calls of a non-blocking socket, and scripts.

Rules: each call takes the next step of its script before anything else. What does not belong here: what TCP and Unix
sockets do differently (wire).
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
    """The wire end that has this fd number, or None."""
    return _ends.get(fd)


class WireEnd:
    """One end of a connection in memory, with the methods of a non-blocking socket.

    `reads` and `writes` are scripts: each call of recv, or send, takes the next step, if there is one. A step is a
    number (at most so many bytes this time), BLOCK (raise BlockingIOError) or an OSError to raise; MSG_PEEK takes none.
    `capacity`: how many bytes of its peer it buffers unread; `received`: everything that recv has returned; `options`:
    the socket options that were set; `peer`: the other end; `closed`.
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
        self._sent = 0
        self._incoming = bytearray()
        self._fd = next(_numbers)
        self._error = 0  # SO_ERROR: the errno that one call will raise
        self._shut_read = self._shut_write = False  # RCV_SHUTDOWN and SEND_SHUTDOWN, by either side
        self.peer: WireEnd
        _ends[self._fd] = self

    # -- what a socket has

    def fileno(self) -> int:
        """A number that no real fd has; -1 once closed."""
        return -1 if self.closed else self._fd

    def setblocking(self, flag: bool) -> None:
        """Nothing to do: an end never blocks. Raises ValueError for True."""
        if flag:
            raise ValueError("a wire end does not block")

    def recv(self, n: int, flags: int = 0) -> bytes:
        """recv(2): at most n bytes; b"" at the end of the stream. Raises BlockingIOError if nothing is there."""
        if n < 0:
            raise ValueError("negative buffersize in recv")
        if not flags & _PEEK:
            n = self._step(self.reads, n)
        if n == 0:  # a real socket object makes no system call then
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
        """recv(2) into a writable buffer: how many bytes; 0 at the end of the stream. Raises like `recv`."""
        with memoryview(buffer).cast("B") as view:
            if view.readonly:
                raise TypeError("recv_into needs a writable buffer")
            data = self.recv(nbytes or len(view), flags)
            view[: len(data)] = data
        return len(data)

    def send(self, data: bytes | bytearray | memoryview, flags: int = 0) -> int:
        """send(2): how many bytes were taken. Raises BlockingIOError if there is no room, EPIPE after a shutdown."""
        with memoryview(data).cast("B") as view:
            size = self._step(self.writes, len(view))
            self._check_open()
            if self._shut_write:
                raise os_error(self._why_not_write())
            if not size:
                return 0
            if (space := self._send_space()) <= 0:
                raise os_error(errno.EAGAIN)
            size = min(size, space)
            self._sent += size
            self._transmit(bytes(view[:size]))
        return size

    def shutdown(self, how: int) -> None:
        """shutdown(2). Raises ENOTCONN when the connection is over."""
        self._check_open()
        if how not in (socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR):
            raise os_error(errno.EINVAL)
        self._shut_down(how != socket.SHUT_WR, how != socket.SHUT_RD)

    def close(self) -> None:
        """close(2): a FIN, or a reset if input is unread or the linger time is 0."""
        if not self.closed:
            self.closed = True
            linger = self.options.get((socket.SOL_SOCKET, socket.SO_LINGER))
            self._end(reset=linger == struct.pack("ii", 1, 0))
            self._incoming.clear()

    def getpeername(self) -> Name:
        """The peer's address. Raises ENOTCONN over TCP when the connection is over."""
        self._check_open()
        return self.peer._name

    def getsockname(self) -> Name:
        """The address of this end."""
        self._check_open()
        return self._name

    def getsockopt(self, level: int, option: int, buflen: int = 0) -> int | bytes:
        """What was set, 0 otherwise; SO_ERROR: the pending errno, which is then cleared."""
        self._check_open()
        self._check_level(level)
        value = self.options.get((level, option), 0)
        if (level, option) == (socket.SOL_SOCKET, socket.SO_ERROR):
            value, self._error = self._error, 0
        if buflen:
            return (value if isinstance(value, bytes) else value.to_bytes(4, sys.byteorder)).ljust(buflen, b"\0")
        return int.from_bytes(value[:4], sys.byteorder) if isinstance(value, bytes) else value

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        """Remember the value; SO_LINGER alone has an effect."""
        self._check_open()
        self._check_level(level)
        self.options[level, option] = value

    def transferred(self) -> tuple[int, int]:
        """How many bytes have come, unread ones included, and how many were sent; the kernel counts those of TCP."""
        return len(self.received) + len(self._incoming), self._sent

    # -- what a test does to it

    def reset(self) -> None:
        """Abort the connection and close this end: over TCP an RST, as by a close with a linger time of 0.

        Over a Unix socket, which has no RST: a close with input unread. The peer may read what has come before.
        """
        if not self.closed:
            self.closed = True
            self._abort()
            self._incoming.clear()

    def hang_up(self) -> None:
        """End both directions (POLLHUP): the peer may read what is there, then the end of the stream; its sends fail.

        So ends a Unix connection at a close, and a TCP one when both sides have sent their FIN.
        """
        self._hang_up()
        self.peer._hang_up()

    def events(self, mask: int) -> int:
        """The events that a poller would report now: of `mask`, and ERR and HUP whatever the mask."""
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
        """What recv returns or raises when no byte is there."""
        self._raise_pending()
        if not self._shut_read:
            raise os_error(errno.EAGAIN)
        return b""

    def _why_not_write(self) -> int:
        """The errno of send after writing was shut down."""
        raise NotImplementedError

    def _is_writable(self) -> bool:
        """Whether a poller reports WRITE."""
        raise NotImplementedError

    def _transmit(self, data: bytes) -> None:
        """Put bytes, for which there is room, into the peer's buffer."""
        raise NotImplementedError

    def _shut_down(self, read: bool, write: bool) -> None:
        """shutdown(2) of one or both directions."""
        raise NotImplementedError

    def _end(self, reset: bool) -> None:
        """This end is being closed. `reset`: its linger time is 0."""
        raise NotImplementedError

    def _abort(self) -> None:
        """Break the connection for the peer."""
        raise NotImplementedError

    def _check_level(self, level: int) -> None:
        """Raise OSError if the family has no options of this level."""

    # -- common steps

    def _hang_up(self) -> None:
        self._shut_read = self._shut_write = True

    def _send_space(self) -> int:
        """How many bytes a send would take now."""
        return self.peer.capacity - len(self.peer._incoming)

    def _raise_pending(self) -> None:
        """Raise the pending error, if there is one, and clear it."""
        number, self._error = self._error, 0
        if number:
            raise os_error(number)

    def _check_open(self) -> None:
        if self.closed:
            raise os_error(errno.EBADF)

    @staticmethod
    def _step(script: deque[Step], n: int) -> int:
        if not script:
            return n
        step = script.popleft()
        if isinstance(step, OSError):
            try:
                raise step
            finally:
                del step  # its traceback holds this frame
        if isinstance(step, _Block):
            raise os_error(errno.EAGAIN)
        return min(n, step)

    def __repr__(self) -> str:
        return f"<WireEnd {self._name}{' closed' if self.closed else ''}>"


def os_error(number: int) -> OSError:
    """An OSError of this errno, of the subclass and with the text of the socket module."""
    return OSError(number, os.strerror(number))
