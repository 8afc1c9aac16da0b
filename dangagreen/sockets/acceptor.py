"""Accepting on one listening OS socket: a bounded number of connections a turn, and the errors of accept(2).

Rules: a connection that is gone before it was accepted (ECONNABORTED) is skipped; after EMFILE, ENFILE, ENOBUFS or
ENOMEM, and while no more descriptors are free than are to be spared, accepting pauses, with one log line; when accept
fails for good, the server is told; to stop accepting takes first the connections in the kernel's accept queue, whose
peers have seen them established. What does not belong here: what the addresses of a server share (listener), what a
connection does, and graceful shutdown.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from dangagreen import checks
from dangagreen.errors import ACCEPT_GONE, ACCEPT_PASSING, NO_ROOM, OUT_OF_RESOURCES, ErrorContext
from dangagreen.loop.error_log import MOST, log
from dangagreen.loop.loop import Loop, loop_or_current
from dangagreen.loop.pollers import READ
from dangagreen.loop.timers import Timer
from dangagreen.places import innermost, owner_of
from dangagreen.sockets.descriptor import Descriptor
from dangagreen.system_calls import accepting

if TYPE_CHECKING:
    from dangagreen.sockets.binding import SocketFile

_LONGEST_QUEUE = 4096  # connections in the kernel's accept queue at most; Linux's somaxconn


def maker_of(connected: Callable[..., object]) -> object:
    """What makes the object of a connection: its class, as `serve` has it, or a function of the OS socket."""
    maker = getattr(owner_of(connected), "maker", None)  # of what a connection goes through before
    if maker is not None:
        return maker()
    first = connected.args[0] if isinstance(connected, partial) and connected.args else None
    return first if isinstance(innermost(first), type) else connected


class Admitting:
    """Whom acceptors accept for, base class of `Server`: its connections are made and counted here."""

    __slots__ = {
        "_connected": "What is called with each OS socket, and the server.",
        "_on_connection": "What else is called with the object of each connection: by a drain. Or None.",
        "accepted": "How many connections it has accepted so far.",
        "connections": "How many of its connections are open.",
        "limit": "The connection limit, which `max_connections` is; None if there is none.",
        "loop": "The loop that it belongs to.",
        "spare": "How many descriptors it leaves free for others, which `spare_descriptors` is.",
    }

    accepts_per_turn: ClassVar[int] = 32
    accept_backoff: ClassVar[float] = 0.5

    def __init__(self, connected: Callable[[Any, Any], object], limit: int | None, loop: Loop | None) -> None:
        self.limit = None if limit is None else checks.count("max_connections", limit, 1)
        checks.function("Listener", connected)
        checks.count("Listener.accepts_per_turn", self.accepts_per_turn, 1)
        checks.seconds("Listener.accept_backoff", self.accept_backoff)
        self._connected = connected
        self._on_connection: Callable[[Any], object] | None = None
        self.accepted = self.connections = self.spare = 0
        self.loop = loop_or_current(loop)

    def tell_of_connections(self, observer: Callable[[Any], object]) -> None:
        """Have `observer` called with the object of each connection that is accepted from now on."""
        self._on_connection = observer

    def maker(self) -> object:
        """What makes the object of a connection: see `maker_of`."""
        return maker_of(self._connected)

    def set_up(self, sock: Any, connected: Callable[[Any, Any], object] | None = None) -> None:
        """Have an object made of an accepted OS socket, by `connected` if given, and count it until it closes."""
        loop = self.loop
        loop.accepting = True
        try:
            connection = self._connected(sock, self) if connected is None else connected(sock, self)
            if isinstance(connection, Descriptor):
                connection._listener = self
                if not connection.closed:  # as its constructor may have done
                    self.connections += 1
                if self._on_connection is not None:
                    self._on_connection(connection)
                instruments = loop.instruments
                if instruments is not None and hasattr(connection, "peer_addr_string"):  # its opening has not
                    instruments.tell("connection", "connection_accepted", connection, self)
        except BaseException as error:
            loop.abandon(sock, error)
            if not isinstance(error, Exception):
                raise
            loop.report(ErrorContext(f"a connection accepted by {self!r} could not be set up", error, self))
        finally:
            loop.accepting = False

    def acceptor_failed(self, error: OSError) -> None:
        """accept(2) fails for good."""
        raise NotImplementedError

    def acceptor_closed(self, acceptor: Acceptor) -> None:
        """An acceptor has closed."""
        raise NotImplementedError

    def may_accept(self) -> bool:
        """Whether it may accept, but for the connection limit."""
        return True

    def is_shared(self) -> bool:
        """Whether it has other acceptors as well."""
        raise NotImplementedError


class Acceptor(Descriptor):
    """Accepts connections on one address of a server, and hands each OS socket to `server.set_up`.

    At the server's connection limit no more are accepted until one closes; they wait in the kernel's accept queue.
    """

    __slots__ = {
        "_accept_budget": "How many it accepts at most before it closes, once it is to stop accepting; None before.",
        "_accept_one": "Accepts one: answers its OS socket, or None if the kernel's accept queue is empty.",
        "_backoff_timer": "Ends the pause in accepting; None while there is none.",
        "_refusals": "How often accept has failed in this turn through no fault of the listener.",
        "_sets_nodelay": "Whether each connection is given TCP_NODELAY; None until the first shows if they inherit it.",
        "_sits_out": "Whether it leaves its next event to the server's other addresses: it has filled the server.",
        "file": "The file of a Unix socket that goes with it; None where there is none.",
        "server": "The server that it accepts for.",
    }

    def __init__(self, sock: Any, server: Admitting, *, nodelay: bool, loop: Loop | None) -> None:
        if not callable(getattr(sock, "accept", None)):
            raise TypeError(f"a Listener is made of a listening socket, not of {checks.shown(sock)}")
        self.server = server
        self._accept_one = accepting(sock)
        self._backoff_timer: Timer | None = None
        self._accept_budget: int | None = None
        self._refusals = 0
        self._sits_out = False
        self.file: SocketFile | None = None
        self._sets_nodelay: bool | None = False
        if nodelay and getattr(sock, "family", None) in (socket.AF_INET, socket.AF_INET6):
            self._sets_nodelay = None  # connections inherit it on every platform that we know of; the first one shows
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().__init__(sock, loop)
        self._watch_from_the_start()

    def _code_behind(self, _hook: str) -> object:
        return self.server.maker()

    def event_read(self) -> None:
        server = self.server
        self._refusals = 0
        if self._sits_out:
            self._sits_out = False  # once: it comes again in the next turn
            if self._accept_budget is None:
                return
        for number in range(server.accepts_per_turn):
            if self.closed or not self._watch_read:
                return
            if server.limit is not None and server.connections >= server.limit:
                self._sits_out = number > 0 and server.is_shared()
                self._watch_input(False)
                return
            if self._accept_budget is not None:
                if not self._accept_budget:
                    self._queue_is_empty(number)
                    return
                self._accept_budget -= 1
            try:
                sock = self._accept_one()
            except OSError as error:
                if not self._survives(error):
                    return
            else:
                if sock is None:
                    if self._accept_budget is not None or not number:
                        self._queue_is_empty(number)
                    return
                server.accepted += 1
                last = server.spare and not self._is_free(sock.fileno() + 1)
                if self._sets_nodelay is not False:
                    self._set_nodelay(sock)
                server.set_up(sock)
                if last:
                    self._back_off(OSError(errno.EMFILE, f"{server.spare} descriptors are to be left for others"))
                    return
        if self._accept_budget is not None:
            self.loop.ready.append(self._accept_the_rest)  # no event tells that the queue is empty

    def _queue_is_empty(self, accepted: int) -> None:
        """The kernel's accept queue is empty, after so many were accepted in this turn."""
        if self._accept_budget is not None:
            self.close("it has accepted the rest")
        elif not accepted and self._was_shut_down():  # there was an event, and nothing to accept
            self.server.acceptor_failed(OSError(errno.EINVAL, "it was shut down by other means than close()"))

    def _events(self, mask: int) -> None:
        if self._is_watched():
            instruments = self.loop.instruments
            if instruments is None:
                self.event_read()
            else:
                instruments.callback(self.server, "accept", self.event_read)
        else:
            self._ignore(mask)

    def _set_nodelay(self, sock: Any) -> None:
        """Set TCP_NODELAY, unless connections inherit it."""
        with contextlib.suppress(OSError):  # the connection has broken, as will be seen
            if self._sets_nodelay is None:
                self._sets_nodelay = not sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            if self._sets_nodelay:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _survives(self, error: OSError) -> bool:
        """Judge an error of accept(2). Returns whether to try again in this turn."""
        if error.errno in ACCEPT_PASSING:
            self._refusals += 1
            if self._refusals < self.server.accepts_per_turn or error.errno in ACCEPT_GONE:
                return True
        elif error.errno not in OUT_OF_RESOURCES:
            self.server.acceptor_failed(error)
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

    # -- pauses

    def go_on(self) -> None:
        """There is room: accept again, if the connection limit has stopped that."""
        if not self.closed and not self._is_watched() and self._backoff_timer is None:
            self._go_on()

    def _go_on(self) -> None:
        if not self.server.may_accept():
            return None
        try:
            self._watch_input(True)
        except OSError as error:  # of epoll_ctl: not the fault of the connection that has closed
            return self._back_off(error) if error.errno in NO_ROOM else self.loop.handler_failed(self, error)
        if self._accept_budget is not None:
            self.loop.ready.append(self._accept_the_rest)
        return None

    def _back_off(self, error: OSError) -> None:
        """Pause accepting for `accept_backoff` seconds, with one log line; of many in a minute with a count."""
        seconds = self.server.accept_backoff
        if self.loop.error_log.count(("a pause in accepting", repr(self.server))) <= MOST:
            log().warning("%r pauses accepting for %s s: %s", self.server, seconds, error)
        self._backoff_timer = self._call_at(self.loop.clock() + seconds, self._resume)
        self._watch_input(False)
        self._look_at_interest(READ)

    def _resume(self) -> None:
        self._backoff_timer = None
        if self._has_room():
            self._go_on()
        else:
            self._backoff_timer = self._call_at(self.loop.clock() + self.server.accept_backoff, self._resume)

    def _has_room(self) -> bool:
        """Whether another connection would not have one of the descriptors that are to be spared."""
        if not self.server.spare:
            return True
        try:
            lowest = os.dup(self.fd)
        except OSError:
            return False
        os.close(lowest)
        return self._is_free(lowest)

    def _is_free(self, fd: int) -> bool:
        """Whether a descriptor, below which all are in use, is below those that are to be spared."""
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return limit == resource.RLIM_INFINITY or fd < limit - self.server.spare

    def _forget_registration(self) -> None:
        Descriptor._forget_registration(self)
        self._backoff_timer = None

    def _watch_again(self) -> None:
        """Watch it, where the poller does not: in a forked child that goes on with its server."""
        self.go_on()
        self._update_registration()

    # -- the end

    def stop_accepting(self) -> None:
        """Accept the connections in the kernel's accept queue, a portion each turn, then close."""
        if not self.closed and self._accept_budget is None:
            self._accept_budget = _LONGEST_QUEUE
            self._remove_file()  # new clients are for a successor
            self._accept_the_rest()

    def _accept_the_rest(self) -> None:
        if not self.closed:
            try:
                self._run(self.event_read)
            except Exception as error:
                self.loop.handler_failed(self, error)

    def close(self, reason: object = None) -> None:
        """Stop accepting, and close the OS socket now: the address is free for the next `serve`."""
        if not self.closed:
            Descriptor.close(self, reason)
            self.loop.unregister(self.fd)
            try:
                self._close_fd()
            finally:
                self.server.acceptor_closed(self)

    _abandon = close

    def _on_close(self) -> None:
        if self._backoff_timer is not None:
            self._backoff_timer.cancel()

    def _close_fd(self) -> None:
        try:
            super()._close_fd()
        finally:
            self._remove_file()

    def _remove_file(self) -> None:
        if self.file is not None:
            file, self.file = self.file, None
            file.remove()

    def __repr__(self) -> str:
        return repr(self.server)
