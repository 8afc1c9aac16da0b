"""A server: what its addresses share, its count of connections and its end.

Rules: the connection limit is one for all addresses; where one of them can accept no more, the server closes and that
is reported; a server that stops accepting has closed when each address has. What does not belong here: accept(2)
(acceptor), bind(2) (binding), and graceful shutdown.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, Self, TypedDict, TypeVar, Unpack

from dangagreen import checks
from dangagreen.errors import ErrorContext
from dangagreen.loop.loop import Loop
from dangagreen.sockets.acceptor import Acceptor, Admitting
from dangagreen.sockets.addresses import Addresses, SocketAddress, of_listener
from dangagreen.sockets.binding import Binding, Owner, bind
from dangagreen.tracebacks import without_traceback


class ServerOptions(TypedDict, total=False):
    """The keyword arguments of Server, which has the defaults."""

    max_connections: int | None
    nodelay: bool
    loop: Loop | None


class ListenOptions(ServerOptions, total=False):
    """The keyword arguments of `listen`, `serve` and `serve_requests`."""

    backlog: int
    reuse_port: bool
    ipv6_only: bool
    mode: int | None
    owner: Owner | None


class Server(Admitting):
    """Hands the OS socket of each connection to `connected`, which returns the object made of it.

    `sock` is a listening OS socket, or a list of them. `addresses` are (host, port), a path, or bytes for an abstract
    Unix name, and can be given to `connect`, the list to the next `serve`; `address`, `sock` and `fd` are the first
    one's. `connections` is how many are open. Class attributes: `accepts_per_turn` (how many are accepted in a turn at
    each address at most), `accept_backoff` (seconds of pause in accepting after EMFILE, ENFILE, ENOBUFS or ENOMEM).
    """

    __slots__ = {
        "__weakref__": "Weak references to it work.",
        "_acceptors": "Those that have not closed, in the order of the addresses.",
        "_stopping": "Whether it accepts the connections in the kernel's accept queues, and no more.",
        "addresses": "Where it listens: (host, port), for IPv6 with its scope; a path; bytes for an abstract name.",
        "close_reason": "What `close` was called with; of an exception an equal copy. None while it is open.",
        "closed": "Whether `close` was called, here or by the library.",
        "fd": "The number of the file descriptor of `sock`.",
        "sock": "The OS socket of the first address.",
    }

    def __init__(
        self,
        sock: Any,
        connected: Callable[[Any, Any], object],
        *,
        max_connections: int | None = None,
        nodelay: bool = True,
        loop: Loop | None = None,
    ) -> None:
        Admitting.__init__(self, connected, max_connections, loop)
        if sock == []:
            raise ValueError("a Listener is made of a listening socket, or of several: the list is empty")
        self._stopping = self.closed = False
        self.close_reason: object = None
        self._acceptors: list[Acceptor] = []
        with ExitStack() as undo:
            undo.callback(self._acceptors.clear)
            for one in sock if isinstance(sock, list) else [sock]:
                self._acceptors.append(Acceptor(one, self, nodelay=nodelay, loop=loop))
                undo.callback(self._acceptors[-1]._release)
            self.addresses: list[SocketAddress] = [of_listener(one.sock.getsockname()) for one in self._acceptors]
            undo.pop_all()
        self.sock, self.fd = self._acceptors[0].sock, self._acceptors[0].fd

    @property
    def address(self) -> SocketAddress:
        """The first of `addresses`."""
        return self.addresses[0]

    @property
    def max_connections(self) -> int | None:
        """The connection limit: how many may be open at once; None is no limit. Assignable."""
        return self.limit

    @max_connections.setter
    def max_connections(self, most: int | None) -> None:
        self.limit = None if most is None else checks.count("max_connections", most, 1)
        self.go_on_accepting()

    @property
    def spare_descriptors(self) -> int:
        """How many descriptors it leaves free for others, such as connections to backends. Assignable.

        These are the highest numbers below the process's limit: the kernel gives out the lowest that is free.
        """
        return self.spare

    @spare_descriptors.setter
    def spare_descriptors(self, number: int) -> None:
        self.spare = checks.count("spare_descriptors", number, 0)

    # -- connections

    def _connection_closed(self) -> None:
        """A connection has closed: accept again, if the connection limit has stopped that."""
        self.connections -= 1
        if self.limit is not None and self.connections == self.limit - 1:
            self.go_on_accepting()

    # -- the acceptors

    def pause_accepting(self) -> None:
        """Accept no more, until `go_on_accepting`."""
        for acceptor in self._acceptors:
            acceptor._watch_input(False)

    def go_on_accepting(self) -> None:
        """Accept again, if there is room."""
        for acceptor in list(self._acceptors):
            acceptor.go_on()

    def is_shared(self) -> bool:
        """Whether more than one address is still accepting."""
        return len(self._acceptors) > 1

    def acceptor_failed(self, error: OSError) -> None:
        """accept(2) fails for good: close, and report."""
        words = f"{self!r} can accept no more connections"
        self.close(error)
        self.loop.report(ErrorContext(f"{words}: {error}", error, self))

    def acceptor_closed(self, acceptor: Acceptor) -> None:
        """An acceptor has closed: by `close` here, or since it has accepted the rest, or by an error."""
        if not self.closed:
            self._acceptors.remove(acceptor)
            reason = acceptor.close_reason
            if not self._stopping or isinstance(reason, BaseException) or not self._acceptors:
                self.close(reason)

    def stop_accepting(self) -> None:
        """Accept the connections in the kernel's accept queues, a portion each turn, then close."""
        self._stopping = True
        for acceptor in list(self._acceptors):
            acceptor.stop_accepting()

    def _watch_again(self) -> None:
        """Watch each address, where the poller does not: in a forked child that goes on with this server."""
        for acceptor in self._acceptors:
            acceptor._watch_again()

    # -- the end

    def close(self, reason: object = None) -> None:
        """Stop accepting, and close the OS sockets now: the addresses are free for the next `serve`.

        Open connections stay open. The files of Unix sockets are removed. `reason` is kept as `close_reason`.
        """
        if self.closed:
            return
        self.loop.check_thread("close")
        self.closed = True
        if reason is not None:
            self.close_reason = without_traceback(reason, self) if isinstance(reason, BaseException) else reason
        acceptors, self._acceptors = self._acceptors, []
        with ExitStack() as each:  # all of them, also if close(2) of one fails
            for acceptor in acceptors:
                each.callback(partial(acceptor.close, reason))
            self._on_close()

    def _on_close(self) -> None:
        """Called once when it closes."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        """Stop accepting: `close()`."""
        self.close()

    def __repr__(self) -> str:
        where = ", ".join(map(str, self.addresses))
        return f"<{type(self).__name__} {'closed' if self.closed else 'on'} {where}>"


AnyServer = TypeVar("AnyServer", bound=Server)


def listen(
    address: Addresses,
    connected: Callable[[Any, Any], object],
    binding: Binding,
    server: Callable[..., AnyServer] = Server,  # type: ignore[assignment]
    **options: Unpack[ServerOptions],
) -> AnyServer:
    """Listen on an address, or each of a list. Returns the server, which calls `connected(sock, server)` for each
    connection. Raises like `bind`.
    """
    bound = bind(address, binding)
    try:
        listener = server([one.sock for one in bound], connected, **options)
    except BaseException:
        for one in bound:
            one.undo()
        raise
    for acceptor, one in zip(listener._acceptors, bound, strict=True):
        acceptor.file = one.file
    return listener
