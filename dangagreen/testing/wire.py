"""A connection in memory: two socket-like ends whose short reads, short writes, refusals and ends are scripted.

Rules: an end behaves as a non-blocking TCP socket does on loopback: what is sent is there at once, a close with input
unread resets the peer. What does not belong here: anything a test does not need.
"""

from __future__ import annotations

import itertools
import socket
import weakref
from collections import deque
from typing import Final

from dangagreen.core.pollers import ERR, HUP, READ, WRITE


class _Block:
    def __repr__(self) -> str:
        return "BLOCK"


BLOCK: Final = _Block()
Step = int | _Block | OSError

_numbers = itertools.count(1 << 24)  # far above any real fd
_ends: weakref.WeakValueDictionary[int, WireEnd] = weakref.WeakValueDictionary()


def end_of(fd: int) -> WireEnd | None:
    """The end that has this fd number, if it is one of ours."""
    return _ends.get(fd)


class WireEnd:
    """One end. `reads` and `writes` are scripts: each call of recv or send takes the next step, if there is one.

    A step is a number (no more than so many bytes this time), BLOCK (BlockingIOError this time) or an OSError to
    raise. `capacity` is how many bytes that this end has not read yet its peer may have sent. `received` is everything
    that recv has returned, `options` the socket options that were set.
    """

    family = socket.AF_INET
    type = socket.SOCK_STREAM
    proto = 0

    def __init__(self, name: tuple[str, int], capacity: int) -> None:
        self.reads: deque[Step] = deque()
        self.writes: deque[Step] = deque()
        self.capacity = capacity
        self.received = bytearray()
        self.options: dict[tuple[int, int], int] = {}
        self.closed = False
        self.hup = False
        self._name = name
        self._incoming = bytearray()
        self._fd = next(_numbers)
        self._error: OSError | None = None
        self._ended = False  # the peer sends no more
        self._shut = False  # this side sends no more
        self.peer: WireEnd
        _ends[self._fd] = self

    # -- what a socket has

    def fileno(self) -> int:
        return -1 if self.closed else self._fd

    def setblocking(self, flag: bool) -> None:
        if flag:
            raise ValueError("a wire end does not block")

    def recv(self, n: int, flags: int = 0) -> bytes:
        if flags & socket.MSG_PEEK:
            return self._receive(n, peek=True)
        return self._receive(self._step(self.reads, n))

    def recv_into(self, buffer: bytearray | memoryview) -> int:
        with memoryview(buffer).cast("B") as view:
            if view.readonly:
                raise TypeError("recv_into needs a writable buffer")
            data = self.recv(len(view))
            view[: len(data)] = data
        return len(data)

    def send(self, data: bytes | bytearray | memoryview, flags: int = 0) -> int:
        size = self._step(self.writes, len(data))
        self._check_open()
        self._raise_error()
        if self._shut or self.peer.closed:
            raise BrokenPipeError("the wire takes no more")
        room = self.peer.capacity - len(self.peer._incoming)
        if data and room <= 0:
            raise BlockingIOError
        size = min(size, room)
        self.peer._incoming += bytes(data[:size])
        return size

    def shutdown(self, how: int) -> None:
        self._check_open()
        if how in (socket.SHUT_WR, socket.SHUT_RDWR):
            self._shut = self.peer._ended = True

    def close(self) -> None:
        if self.closed:
            return
        self._shut = self.peer._ended = True
        if self._incoming:
            self.reset()
        self.closed = True

    def getpeername(self) -> tuple[str, int]:
        self._check_open()
        return self.peer._name

    def getsockname(self) -> tuple[str, int]:
        self._check_open()
        return self._name

    def getsockopt(self, level: int, option: int) -> int:
        if (level, option) == (socket.SOL_SOCKET, socket.SO_ERROR):
            error, self._error = self._error, None
            return (error.errno or 0) if error is not None else 0
        return self.options.get((level, option), 0)

    def setsockopt(self, level: int, option: int, value: int) -> None:
        self._check_open()
        self.options[level, option] = value

    # -- what a test does to it

    def reset(self) -> None:
        """Break the connection: the peer's next call raises ConnectionResetError, what is in flight to it is lost."""
        peer = self.peer
        if not peer.closed:
            peer._incoming.clear()
            peer._error = ConnectionResetError(104, "Connection reset by peer")
            peer._ended = peer._shut = peer.hup = True

    def hang_up(self) -> None:
        """End both directions, as closing a Unix socket does: the peer may read what is there, then finds the end."""
        self._shut = self.peer._ended = self.peer._shut = self.peer.hup = True

    def events(self, mask: int) -> int:
        """Which of the bits in `mask`, or of the ends, a poller would report now."""
        if self.closed:
            return 0
        ready = 0
        if self._incoming or self._ended or self._error is not None:
            ready |= READ
        if self._shut or self.peer.closed or len(self.peer._incoming) < self.peer.capacity:
            ready |= WRITE
        ready &= mask
        if self._error is not None:
            ready |= ERR
        if self.hup or (self._ended and self._shut):
            ready |= HUP
        return ready

    def _receive(self, n: int, peek: bool = False) -> bytes:
        self._check_open()
        if self._incoming and n > 0:
            data = bytes(self._incoming[:n])
            if not peek:
                del self._incoming[:n]
                self.received += data
            return data
        self._raise_error()
        if self._ended or n <= 0:
            return b""
        raise BlockingIOError

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _check_open(self) -> None:
        if self.closed:
            raise OSError(9, "Bad file descriptor")

    @staticmethod
    def _step(script: deque[Step], n: int) -> int:
        if not script:
            return n
        step = script.popleft()
        if isinstance(step, OSError):
            raise step
        if isinstance(step, _Block):
            raise BlockingIOError
        return min(n, step)

    def __repr__(self) -> str:
        return f"<WireEnd {self._name}{' closed' if self.closed else ''}>"


def wire(capacity: int = 65536) -> tuple[WireEnd, WireEnd]:
    """Two connected ends."""
    one, other = WireEnd(("10.0.0.1", 1), capacity), WireEnd(("10.0.0.2", 2), capacity)
    one.peer, other.peer = other, one
    return one, other
