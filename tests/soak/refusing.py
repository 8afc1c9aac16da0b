"""An OS socket and a poller of which the next call of a kind may be refused, and which tell an observer of it.

Rules: what an errno does to a connection it does from then on; whatever is not refused is the real thing. What does not
belong here: which call is refused.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from random import Random
from typing import Any

from dangagreen.errors import CUT_OFF, OUT_OF_BUFFERS
from tests.soak.observing import Observer

PEEK = int(socket.MSG_PEEK)
REFUSALS = {
    "recv": "EAGAIN ENOBUFS ECONNRESET ETIMEDOUT EIO",
    "peek": "ENOBUFS ECONNRESET EHOSTUNREACH",
    "send": "EAGAIN EAGAIN ENOBUFS EPIPE ECONNRESET EPERM ENOTCONN",
    "shutdown": "ENOBUFS ENOBUFS ENOTCONN EINVAL",
    "add": "ENOSPC",
    "modify": "ENOMEM",
}


NO_ROOM = {"send": "send: no room", "shutdown": "shutdown: no memory"}


class OsSocket:
    """In front of an OS socket or a wire end: a system call of which the next one may be refused.

    Whatever is refused by an error that breaks connections is broken from then on, as the kernel would have it.
    """

    def __init__(self, end: Any, observer: Observer, again: Random) -> None:
        self.end, self.observer, self.again = end, observer, again
        self.refusals: dict[str, int] = {}
        self.broken = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.end, name)

    def recv(self, size: int, flags: int = 0) -> bytes:
        call = "peek" if flags & PEEK else "recv"
        return self._call(call, lambda: self._received(self.end.recv(size, flags)))  # type: ignore[no-any-return]

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        answer = self._call("recv", lambda: self._received(self.end.recv_into(buffer, nbytes)))
        return answer if answer else 0

    def send(self, data: Any, flags: int = 0) -> int:
        sent: int = self._call("send", lambda: self.end.send(data))
        if sent < len(data):
            self.observer.causes.append("send: no room")
        return sent

    def shutdown(self, how: int) -> None:
        self._call("shutdown", lambda: self.end.shutdown(how))
        self.observer.causes.append("shutdown: done")

    def getsockopt(self, *args: Any) -> Any:
        answer = self.end.getsockopt(*args)
        if args[1] == socket.SO_ERROR and answer:
            self.observer.causes.append("SO_ERROR")
        return answer

    def _received(self, answer: Any) -> Any:
        if not answer:
            self.observer.causes.append("recv: the end")
        return answer

    def _call(self, name: str, call: Callable[[], Any]) -> Any:
        if name == "send":
            self.observer.causes.append("a send")
        if name != "peek":
            self.observer.look(f"before {name}")
        try:
            if number := self.refusals.pop(name, 0):
                self.broken = self.broken or number in CUT_OFF
                if name == "shutdown" and self.again.random() < 0.5:  # there are always several attempts
                    self.refusals[name] = getattr(errno, self.again.choice(REFUSALS[name].split()))
                raise OSError(number, os.strerror(number))
            if self.broken and name == "send":
                raise BrokenPipeError(errno.EPIPE, "broken")
            return call()
        except OSError as error:
            if self.broken and name in ("recv", "peek") and isinstance(error, BlockingIOError):
                self.observer.causes.append("recv: the end")
                return b""
            passing = isinstance(error, BlockingIOError) or error.errno in OUT_OF_BUFFERS
            if passing and name in NO_ROOM:
                self.observer.causes.append(NO_ROOM[name])
            elif not passing:
                self.observer.causes.append(f"{name}: an error")
            raise


class Poller:
    """In front of a poller: `add` and `modify` may be refused."""

    def __init__(self, poller: Any, observer: Observer) -> None:
        self.poller, self.observer = poller, observer
        self.refusals: dict[str, int] = {}
        self.wait, self.remove, self.close = poller.wait, poller.remove, poller.close

    def add(self, fd: int, mask: int) -> None:
        self._refuse("add")
        self.poller.add(fd, mask)

    def modify(self, fd: int, mask: int) -> None:
        self._refuse("modify")
        self.poller.modify(fd, mask)

    def _refuse(self, call: str) -> None:
        if number := self.refusals.pop(call, 0):
            self.observer.causes.append("the poller refuses")
            raise OSError(number, os.strerror(number))
