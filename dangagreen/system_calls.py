"""What is called for each event: epoll_wait, accept, recv and send of OS sockets, a call in a context. The plain twin.

`system_calls.pyx` has these names too, in C, and is what a compiled build imports; the tests run both. Rules: these are
for real sockets alone; whatever else looks like a socket is called as it is; nobody can tell the two apart, but by the
time they take. What does not belong here: what follows from an outcome.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextvars import Context
from typing import Any

OS_SOCKETS: tuple[type, ...] = (socket.socket,)  # what is an OS socket and nothing else; in C a subclass as well

run_in = Context.run  # run_in(context, function): call the function in this context (contextvars)


def waiting(epoll: Any) -> Callable[[float | None], list[tuple[int, int]]]:
    """Return what waits for events of an epoll object, for so many seconds at most: (fd, events) of each. In C it takes
    128 in one go, so that what is made for all of them is little at any time; the others come with the next wait."""
    return epoll.poll  # type: ignore[no-any-return]


def accepting(listener: Any) -> Callable[[], Any]:
    """Return a function that accepts one connection of this listening socket: its OS socket; None on EAGAIN.

    It does not block if the listener does not, and raises the OSError of accept(2). Connections are close-on-exec.
    """
    if type(listener) not in OS_SOCKETS:
        return lambda: _accepted(listener)
    # `accept` of an OS socket makes two enumeration members for each connection, which are the same each time: without
    # them a connection's whole life takes 15 percent fewer instructions.
    family, kind, proto = int(listener.family), int(listener.type), listener.proto
    accept = listener._accept

    def accept_one() -> Any:
        try:
            fd, _ = accept()
        except BlockingIOError:
            return None
        return socket.socket(family, kind, proto, fd)

    return accept_one


def _accepted(listener: Any) -> Any:
    """Accept a connection of what looks like a socket: the same of its end; None on EAGAIN."""
    try:
        return listener.accept()[0]
    except BlockingIOError:
        return None


def take_over(_sock: Any) -> None:
    """Have an OS socket that the library has made take the shorter way, where there is one."""


def hand_over(_sock: Any) -> None:
    """Have an OS socket that is the program's from now on be a plain `socket.socket` again."""
