"""Listening and accepting: a bounded number of connections a turn, and the errors of accept(2).

Rules: a connection that is gone before it was accepted (ECONNABORTED) is skipped; after EMFILE, ENFILE, ENOBUFS or
ENOMEM accepting pauses, with one log line; when accept fails for good, that is reported, and the listener closes; to
stop accepting takes first the connections in the kernel's accept queue, whose peers have seen them established. What
does not belong here: what a connection does, and graceful shutdown.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import socket
from collections.abc import Callable
from typing import Any, ClassVar, Self, TypedDict, TypeVar, Unpack

from dangagreen import checks
from dangagreen.errors import ACCEPT_GONE, ACCEPT_PASSING, NO_ROOM, OUT_OF_RESOURCES, ErrorContext
from dangagreen.loop.loop import Loop
from dangagreen.loop.pollers import ERR, HUP, READ
from dangagreen.loop.timers import Timer
from dangagreen.sockets.addresses import Address, SocketAddress, of_listener, open_listener, remove_path
from dangagreen.sockets.descriptor import Descriptor

log = logging.getLogger("dangagreen")

_LONGEST_QUEUE = 4096  # connections in the kernel's accept queue at most; Linux's somaxconn


class AcceptorOptions(TypedDict, total=False):
    """The keyword arguments of Acceptor, which has the defaults."""

    max_connections: int | None
    nodelay: bool
    loop: Loop | None


class ListenOptions(AcceptorOptions, total=False):
    """The keyword arguments of `listen`, `serve` and `serve_requests`."""

    backlog: int
    reuse_port: bool


class Acceptor(Descriptor):
    """Accepts connections and hands each OS socket to `connected`, which returns the object made of it.

    `address` is (host, port), a path, or bytes for an abstract Unix name, and can be given to `connect`; `connections`
    is how many are open. At `max_connections` no more are accepted until one closes; they wait in the kernel's accept
    queue. Class attributes: `accepts_per_turn` (how many are accepted in a turn at most), `accept_backoff` (seconds of
    pause in accepting after EMFILE, ENFILE, ENOBUFS or ENOMEM).
    """

    __slots__ = {
        "_accept_budget": "How many it accepts at most before it closes, once it is to stop accepting; None before.",
        "_accept_one": "Accepts one: answers its fd if there is a `_kind`, otherwise a socket, and its peer's address.",
        "_backoff_timer": "Ends the pause in accepting; None while there is none.",
        "_connected": "What is called with each OS socket, and the acceptor.",
        "_inherits_nodelay": "Whether connections inherit TCP_NODELAY; None before the first one.",
        "_kind": "Family, type and protocol of its OS sockets; None where `sock` only looks like one.",
        "_max_connections": "The limit of open connections, or None.",
        "_nodelay": "Whether its connections are to have TCP_NODELAY.",
        "_on_connection": "What else is called with the object of each connection: by a drain. Or None.",
        "_path": "The file of a Unix socket that goes with it, and which one it was; None where there is none.",
        "_refusals": "How often accept has failed in this turn through no fault of the listener.",
        "address": "Where it listens: (host, port), for IPv6 with flow information and scope; a path; bytes, abstract.",
        "connections": "How many of its connections are open.",
    }

    accepts_per_turn: ClassVar[int] = 32
    accept_backoff: ClassVar[float] = 0.5

    def __init__(
        self,
        sock: Any,
        connected: Callable[[Any, Any], object],
        *,
        max_connections: int | None = None,
        nodelay: bool = True,
        loop: Loop | None = None,
    ) -> None:
        if max_connections is not None:
            max_connections = checks.count("max_connections", max_connections, 1)
        if not callable(getattr(sock, "accept", None)):
            raise TypeError(f"a Listener is made of a listening socket, not of {checks.shown(sock)}")
        checks.function("Listener", connected)
        checks.count("Listener.accepts_per_turn", self.accepts_per_turn, 1)
        checks.seconds("Listener.accept_backoff", self.accept_backoff)
        self._connected = connected
        # An OS socket's `accept` makes two enumeration members for each connection, which are the same each time:
        # without them a connection's whole life takes 15 percent fewer instructions.
        usual = type(sock) is socket.socket
        self._kind: tuple[int, int, int] | None = (int(sock.family), int(sock.type), sock.proto) if usual else None
        self._accept_one: Callable[[], tuple[Any, Any]] = sock._accept if usual else sock.accept
        self._backoff_timer: Timer | None = None
        self._path: tuple[str, tuple[int, int, int]] | None = None
        self._accept_budget: int | None = None
        self._on_connection: Callable[[Any], object] | None = None
        self._refusals = 0
        self.address: SocketAddress = of_listener(sock.getsockname())
        self._max_connections = max_connections
        self.connections = 0
        self._nodelay = nodelay and getattr(sock, "family", None) in (socket.AF_INET, socket.AF_INET6)
        self._inherits_nodelay: bool | None = None
        if self._nodelay:  # connections inherit it on every platform that we know of; the first accept checks
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().__init__(sock, loop)
        try:
            self._watch_input(True)
        except BaseException:
            self._release()
            raise

    def event_read(self) -> None:
        self._refusals = 0
        for number in range(self.accepts_per_turn):
            if self.closed or not self._watch_read:
                return
            if self._max_connections is not None and self.connections >= self._max_connections:
                self._watch_input(False)
                return
            if self._accept_budget is not None:
                if not self._accept_budget:
                    self._queue_is_empty(number)
                    return
                self._accept_budget -= 1
            try:
                accepted = self._accept_one()[0]
            except BlockingIOError:
                if self._accept_budget is not None or not number:
                    self._queue_is_empty(number)
                return
            except OSError as error:
                if not self._survives(error):
                    return
            else:
                self._set_up(accepted if self._kind is None else socket.socket(*self._kind, accepted))
        if self._accept_budget is not None:
            self.loop.ready.append(self._accept_the_rest)  # no event tells that the queue is empty

    def _queue_is_empty(self, accepted: int) -> None:
        """The kernel's accept queue is empty, after so many were accepted in this turn."""
        if self._accept_budget is not None:
            self.close("it has accepted the rest")
        elif not accepted and self._was_shut_down():  # there was an event, and nothing to accept
            self._fail(OSError(errno.EINVAL, "it was shut down by other means than close()"))

    def _events(self, mask: int) -> None:
        if self._is_watched():
            self.event_read()
        else:
            self._update_registration()
            if mask & (ERR | HUP):
                self._unregister()

    def _set_up(self, sock: Any) -> None:
        """Have an object made of an accepted OS socket, and count it until it closes."""
        try:
            if self._nodelay:
                if self._inherits_nodelay is None:
                    self._inherits_nodelay = bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
                if not self._inherits_nodelay:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = self._connected(sock, self)
            if isinstance(connection, Descriptor):
                connection._listener = self
                if not connection.closed:  # as its constructor may have done
                    self.connections += 1
                if self._on_connection is not None:
                    self._on_connection(connection)
        except BaseException as error:
            self.loop.abandon(sock, error)
            if not isinstance(error, Exception):
                raise
            self.loop.report(ErrorContext(f"a connection accepted by {self!r} could not be set up", error, self))

    def _survives(self, error: OSError) -> bool:
        """Judge an error of accept(2). Returns whether to try again in this turn."""
        if error.errno in ACCEPT_PASSING:
            self._refusals += 1
            if self._refusals < self.accepts_per_turn or error.errno in ACCEPT_GONE:
                return True
        elif error.errno not in OUT_OF_RESOURCES:
            self._fail(error)
            return False
        self._back_off(error)
        return False

    def _was_shut_down(self) -> bool:
        """Whether shutdown(2) was called on the OS socket: of a Unix listener only a hang-up shows that."""
        if not hasattr(select, "poll"):
            return False
        poll = select.poll()
        poll.register(self.fd, 0)
        return any(events & select.POLLHUP for _, events in poll.poll(0))

    def _fail(self, error: OSError) -> None:
        """Close and report: accept(2) fails for good."""
        words = f"{self!r} can accept no more connections"
        self.close(error)
        self.loop.report(ErrorContext(f"{words}: {error}", error, self))

    @property
    def max_connections(self) -> int | None:
        """The connection limit: how many may be open at once; None is no limit. Assignable."""
        return self._max_connections

    @max_connections.setter
    def max_connections(self, most: int | None) -> None:
        self._max_connections = None if most is None else checks.count("max_connections", most, 1)
        if not self.closed and not self._is_watched() and self._backoff_timer is None:
            self._go_on()

    def tell_of_connections(self, observer: Callable[[Any], object]) -> None:
        """Have `observer` called with the object of each connection that is accepted from now on."""
        self._on_connection = observer

    def _connection_closed(self) -> None:
        """A connection has closed: accept again, if the connection limit has stopped that."""
        self.connections -= 1
        if not self.closed and not self._is_watched() and self._backoff_timer is None:
            self._go_on()

    def _go_on(self) -> None:
        """Accept again."""
        try:
            self._watch_input(True)
        except OSError as error:  # of epoll_ctl: not the fault of the connection that has closed
            return self._back_off(error) if error.errno in NO_ROOM else self.loop.handler_failed(self, error)
        if self._accept_budget is not None:
            self.loop.ready.append(self._accept_the_rest)
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        """Stop accepting: `close()`."""
        self.close()

    def _back_off(self, error: OSError) -> None:
        """Pause accepting for `accept_backoff` seconds, with one log line."""
        log.warning("%r pauses accepting for %s s: %s", self, self.accept_backoff, error)
        self._backoff_timer = self._call_at(self.loop.clock() + self.accept_backoff, self._resume)
        self._watch_input(False)
        self._look_at_interest(READ)

    def _resume(self) -> None:
        self._backoff_timer = None
        self._go_on()

    # -- the end

    def _stop_accepting(self) -> None:
        """Accept the connections in the kernel's accept queue, a portion each turn, then close."""
        if not self.closed and self._accept_budget is None:
            self._accept_budget = _LONGEST_QUEUE
            self._remove_path()  # new clients are for a successor
            self._accept_the_rest()

    def _accept_the_rest(self) -> None:
        if not self.closed:
            try:
                self._run(self.event_read)
            except Exception as error:
                self.loop.handler_failed(self, error)

    def close(self, reason: object = None) -> None:
        """Stop accepting, and close the OS socket now: the address is free for the next `serve`.

        Open connections stay open. The file of a Unix socket is removed. `reason` is kept as `close_reason`.
        """
        if not self.closed:
            Descriptor.close(self, reason)
            self.loop.unregister(self.fd)
            self._close_fd()

    _abandon = close

    def _on_close(self) -> None:
        if self._backoff_timer is not None:
            self._backoff_timer.cancel()

    def _close_fd(self) -> None:
        super()._close_fd()
        self._remove_path()

    def _remove_path(self) -> None:
        """Unlink the file of a Unix socket, unless another process has taken the name."""
        if self._path is not None:
            (path, identity), self._path = self._path, None
            with contextlib.suppress(OSError):
                if _identity(path) == identity:
                    os.unlink(path)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'closed' if self.closed else 'on'} {self.address}>"


AnyAcceptor = TypeVar("AnyAcceptor", bound=Acceptor)


def _identity(path: str) -> tuple[int, int, int]:
    """(device, inode, process id): after a fork the child must not unlink the file."""
    status = os.stat(path)
    return status.st_dev, status.st_ino, os.getpid()


def listen(
    address: Address,
    connected: Callable[[Any, Any], object],
    *,
    backlog: int = 1024,
    reuse_port: bool = False,
    acceptor: Callable[..., AnyAcceptor] = Acceptor,  # type: ignore[assignment]
    **options: Unpack[AcceptorOptions],
) -> AnyAcceptor:
    """Listen on `address`. Returns the acceptor, which calls `connected(sock, acceptor)` for each connection.

    Raises OSError, naming the address, if bind(2) or listen(2) fails.
    """
    sock, made_path = open_listener(address, backlog=backlog, reuse_port=reuse_port)
    try:
        listener = acceptor(sock, connected, **options)
    except BaseException:
        if sock is not address:
            if made_path:
                remove_path(sock.getsockname())
            sock.close()
        raise
    if made_path:
        try:
            path = os.path.abspath(listener.address)  # the program may go to another folder, as daemons do
            listener._path = (path, _identity(path))
        except OSError as error:  # the file was removed already
            listener.close(error)
            raise
    return listener
