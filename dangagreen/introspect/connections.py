"""The part of a snapshot that is sockets and servers.

Rules: those of `collect`; what is asked of a socket takes as long with ten thousand others. What does not belong here:
what the kernel counts (kernel).
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from typing import Any

from dangagreen.green.waiters import Waiter
from dangagreen.introspect.data import ListenerInfo, SocketInfo
from dangagreen.introspect.records import HandlerTable
from dangagreen.loop.handlers import Handler
from dangagreen.loop.pollers import READ, WRITE
from dangagreen.net.opening import Opening
from dangagreen.sockets.acceptor import Acceptor
from dangagreen.sockets.endpoint import in_words, peer_of
from dangagreen.sockets.kernel import accept_queue, peer_has_ended, traffic
from dangagreen.sockets.sock import CallbackSocket

_OPEN = "/proc/self/fd"


def socket_info(
    handler: Handler, handlers: dict[int, Handler], now: float, name: Callable[[Waiter], str], served_by: Waiter | None
) -> SocketInfo:
    """A connection, or another handler: `name` is a task's unique name, `handlers` the descriptors of its loop.

    `served_by` is the task of its server's handler.
    """
    sock: Any = handler
    connection = isinstance(handler, CallbackSocket)
    interest = handler._interest()
    reader = sock._parked_reader() if connection else None
    writers, drainers = sock._parked_writers() if connection else ((), ())
    passed = traffic(handler)
    birth = handlers.birth(handler) if isinstance(handlers, HandlerTable) else None
    idle = passed.idle if passed is not None else None
    if idle is None and connection:
        idle = sock._silent_for(now)
    return SocketInfo(
        fd=handler.fd,
        kind=type(handler).__name__,
        style="" if not connection else "callbacks" if sock._is_callback_style() else "tasks",
        state=_state(handler),
        peer_ended=connection and not sock.closed and peer_has_ended(sock),
        peer=sock.peer_addr_string() if connection else in_words(peer_of(getattr(sock, "sock", None))),
        local=sock.local_addr_string() if connection else None,
        interest=("R" if interest & READ else "") + ("W" if interest & WRITE else ""),
        buffered=sock.buffered if connection else 0,
        queued=sock.unsent if connection else 0,
        bytes_in=None if passed is None else passed.received,
        bytes_out=None if passed is None else passed.sent,
        handler=None if served_by is None else name(served_by),
        reader=None if reader is None else name(reader.task),
        writers=tuple(map(name, writers)),
        drainers=tuple(map(name, drainers)),
        opened_at=None if birth is None else birth.place,
        opened_by=None if birth is None else birth.task,
        age=None if birth is None else now - birth.time,
        idle=idle,
        tls=_tls(sock.tls) if connection else None,
    )


def _state(handler: Handler) -> str:
    if handler.closed:
        return "closed"
    if isinstance(handler, Opening):
        return "opening"
    return "finishing" if isinstance(handler, CallbackSocket) and handler._is_over() else "open"


def _tls(info: Any) -> str | None:
    """What a TlsInfo has agreed upon; None for a plain connection."""
    if info is None:
        return None
    cipher = info.cipher
    return f"{info.version} {cipher[0]}" if cipher else str(info.version)


def open_files() -> tuple[int | None, int | None]:
    """How many file descriptors the process has open, and how many it may have; None where that is not known."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    most = None if limit == resource.RLIM_INFINITY else limit
    try:
        count = os.stat(_OPEN).st_size or len(os.listdir(_OPEN)) - 1  # Linux since 6.2 has their number as the size
    except OSError as error:  # to list them takes a descriptor
        return (most if error.errno == errno.EMFILE else None), most
    return count, most


def listener_info(server: Any, acceptors: list[Acceptor]) -> ListenerInfo:
    """A server, with what accepts for it."""
    if getattr(server, "draining", False):
        state = "draining"
    elif server.limit is not None and server.connections >= server.limit:
        state = "full"
    else:
        state = "accepting" if any(acceptor._is_watched() for acceptor in acceptors) else "pausing"
    openings = getattr(server, "openings", None)
    queues = [queue for acceptor in acceptors if (queue := accept_queue(acceptor.sock)) is not None]
    return ListenerInfo(
        addresses=tuple(map(str, server.addresses)),
        state=state,
        accepted=server.accepted,
        refused=0 if openings is None else openings.failed,
        opening=0 if openings is None else len(openings.under_way),
        current=server.connections,
        limit=server.limit,
        waiting=sum(queues) if queues else None,
    )
