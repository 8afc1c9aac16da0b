"""The fault injector: a poller and an OS socket of which one call fails, with an errno that its manual page names.

Rules: what fails is said before (which call, the how-manieth of its kind, with which errno), and it fails once, or some
times in a row, and perhaps another call as well; whatever else is called is the real thing. A call that fails has had
no effect, but for close(2), which closes. Not injected: EINTR, after which Python itself calls again, and ENOMEM of
EPOLL_CTL_DEL, which allocates nothing.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import Counter
from typing import Any

from dangagreen.loop.pollers import Events, Poller
from tests.soak import Clock


def _numbers(names: str) -> list[int]:
    return [getattr(errno, name) for name in names.split()]


# Linux: epoll_ctl(2), epoll_wait(2), send(2), recv(2), accept(2), shutdown(2), getsockopt(2), getpeername(2), close(2),
# connect(2), tcp(7), ip(7).
ERRORS = {
    "add": _numbers("ENOSPC ENOMEM EBADF EPERM EEXIST EINVAL"),
    "modify": _numbers("ENOMEM EBADF ENOENT EINVAL"),
    "remove": _numbers("EBADF ENOENT EINVAL EPERM"),
    "wait": _numbers("EBADF EFAULT EINVAL"),
    "send": _numbers(
        "EAGAIN ENOBUFS ENOMEM EPIPE ECONNRESET EBADF EACCES EINVAL EMSGSIZE ENOTCONN ENOTSOCK EOPNOTSUPP EFAULT"
        " EDESTADDRREQ EISCONN EALREADY ETIMEDOUT EHOSTUNREACH ENETUNREACH ENETDOWN"
    ),
    "recv": _numbers(
        "EAGAIN ENOMEM ECONNRESET ECONNREFUSED EBADF EFAULT EINVAL ENOTCONN ENOTSOCK ETIMEDOUT EHOSTUNREACH ENETUNREACH"
    ),
    "accept": _numbers(
        "EAGAIN ECONNABORTED EMFILE ENFILE ENOBUFS ENOMEM EPERM EPROTO EBADF EFAULT EINVAL ENOTSOCK EOPNOTSUPP"
        " ENETDOWN ENOPROTOOPT EHOSTDOWN ENONET EHOSTUNREACH ENETUNREACH ETIMEDOUT"
    ),
    "shutdown": _numbers("ENOTCONN EBADF EINVAL ENOTSOCK ENOBUFS ENOMEM"),
    "setsockopt": _numbers("EBADF EFAULT EINVAL ENOPROTOOPT ENOTSOCK ENOMEM ENOBUFS"),
    "getsockopt": _numbers("EBADF EFAULT EINVAL ENOPROTOOPT ENOTSOCK"),
    "getpeername": _numbers("ENOTCONN EBADF EFAULT EINVAL ENOBUFS ENOTSOCK"),
    "getsockname": _numbers("EBADF EFAULT EINVAL ENOBUFS ENOTSOCK"),
    "close": _numbers("EIO EBADF ENOSPC EDQUOT"),
    "connect": _numbers(
        "ECONNREFUSED EACCES EPERM EADDRINUSE EADDRNOTAVAIL EAFNOSUPPORT EAGAIN EALREADY EBADF EFAULT EISCONN"
        " ENETUNREACH ENOTSOCK EPROTOTYPE ETIMEDOUT"
    ),
    "socket": _numbers("EMFILE ENFILE ENOBUFS ENOMEM EACCES EAFNOSUPPORT EINVAL EPROTONOSUPPORT"),
}
LASTING = 3  # calls that fail one after the other, where one alone is not enough


class Faults:
    """What is to fail: the `position`-th call of a kind, counted from 0, and `times - 1` more, and what `other` says.

    `calls` counts them.
    """

    def __init__(
        self, call: str | None = None, position: int = 0, number: int = 0, times: int = 1, other: Faults | None = None
    ) -> None:
        self.call, self.position, self.number, self.times, self.other = call, position, number, times, other
        self.calls: Counter[str] = Counter()
        self.active = False
        self.struck = 0

    def __repr__(self) -> str:
        name = errno.errorcode.get(self.number, self.number)
        also = "" if self.other is None else f"; and {self.other!r}"
        return f"{self.call} number {self.position}: {name}, {self.times} times{also}"

    def due(self, call: str) -> int:
        """The errno with which this call fails, or 0."""
        if not self.active:
            return 0
        count = self.calls[call]
        self.calls[call] += 1
        for fault in (self, self.other):
            if fault is not None and call == fault.call and fault.position <= count < fault.position + fault.times:
                self.struck += 1
                return fault.number
        return 0

    def strike(self, call: str) -> None:
        """Raise, if this call is to fail."""
        if number := self.due(call):
            raise OSError(number, os.strerror(number))


class FaultyPoller:
    """In front of a poller."""

    def __init__(self, poller: Poller, faults: Faults) -> None:
        self.poller, self.faults = poller, faults
        self.close = poller.close

    def add(self, fd: int, mask: int) -> object:
        self.faults.strike("add")
        return self.poller.add(fd, mask)

    def modify(self, fd: int, mask: int) -> object:
        self.faults.strike("modify")
        return self.poller.modify(fd, mask)

    def remove(self, fd: int) -> object:
        number = self.faults.due("remove")
        answer = self.poller.remove(fd)  # in either case: it says that the fd is not there
        if number:
            raise OSError(number, os.strerror(number))
        return answer

    def wait(self, timeout: float | None) -> Events:
        self.faults.strike("wait")
        return self.poller.wait(Clock.LONGEST_WAIT if timeout is None else min(timeout, Clock.LONGEST_WAIT))


class FaultySocket(socket.socket):
    """An OS socket; what it accepts is one too. `faults` is whichever is in force."""

    __slots__ = ()
    faults = Faults()

    @classmethod
    def create(cls, *args: Any, **kwargs: Any) -> FaultySocket:
        """In the place of `socket.socket`, where the library makes one."""
        cls.faults.strike("socket")
        return cls(*args, **kwargs)

    def send(self, *args: Any) -> int:
        self.faults.strike("send")
        return super().send(*args)

    def recv(self, *args: Any) -> bytes:
        self.faults.strike("recv")
        return super().recv(*args)

    def recv_into(self, *args: Any) -> int:
        self.faults.strike("recv")
        return super().recv_into(*args)

    def accept(self) -> tuple[FaultySocket, Any]:
        self.faults.strike("accept")
        fd, address = self._accept()  # type: ignore[attr-defined]
        return FaultySocket(self.family, self.type, self.proto, fileno=fd), address

    def shutdown(self, how: int) -> None:
        self.faults.strike("shutdown")
        super().shutdown(how)

    def setsockopt(self, *args: Any) -> None:
        self.faults.strike("setsockopt")
        super().setsockopt(*args)

    def getsockopt(self, *args: Any) -> Any:
        self.faults.strike("getsockopt")
        return super().getsockopt(*args)

    def getpeername(self) -> Any:
        self.faults.strike("getpeername")
        return super().getpeername()

    def getsockname(self) -> Any:
        self.faults.strike("getsockname")
        return super().getsockname()

    def connect(self, address: Any) -> None:
        self.faults.strike("connect")
        super().connect(address)

    def connect_ex(self, address: Any) -> int:
        return self.faults.due("connect") or super().connect_ex(address)

    def close(self) -> None:
        number = self.faults.due("close") if self.fileno() >= 0 else 0
        super().close()
        if number:
            raise OSError(number, os.strerror(number))


class FaultySockets:
    """In the place of the module `socket`, for a module of the library that makes OS sockets."""

    socket = staticmethod(FaultySocket.create)

    def __getattr__(self, name: str) -> Any:
        return getattr(socket, name)
