"""The making of one connection: a look-up, then attempts to connect, of which one wins (Happy Eyeballs, RFC 8305), then
a TLS handshake, if one is asked for.

Rules: nothing parks here; one timeout covers all of it; each attempt has an OS socket of its own, since one that has
failed says ECONNABORTED before it starts anew; once it is closed, nothing that it has opened is open but the OS socket
that was taken, and one whose peer is to hear why TLS was refused. What does not belong here: the object of the
connection, who waits for it.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from dangagreen.loop.handlers import FdHandler
from dangagreen.loop.loop import Loop
from dangagreen.loop.pollers import WRITE
from dangagreen.loop.timers import Timer
from dangagreen.net.opening import Opening
from dangagreen.net.resolver import LookUp, look_ups
from dangagreen.sockets.addresses import (
    Found,
    HostAndPort,
    host_and_port,
    interleaved,
    is_path,
    local_addresses,
    not_found,
    public,
    unix_path,
)
from dangagreen.system_calls import take_over

if TYPE_CHECKING:
    from dangagreen.sockets.tls_options import TlsOptions

ATTEMPT_DELAY = 0.25  # seconds until the next attempt begins beside those under way: RFC 8305, section 8
_NONBLOCK = int(getattr(socket, "SOCK_NONBLOCK", 0))
_STREAM = socket.SOCK_STREAM | _NONBLOCK  # without a system call of its own where the platform has it
_QUEUE_FULL_SECONDS = 0.01  # until a Unix listener is asked again whose queue is full


class _Attempt(FdHandler):
    """An OS socket that is connecting (EINPROGRESS): an event of any kind tells that it is over."""

    __slots__ = {"connector": "Whose attempt it is.", "sock": "The OS socket.", "sockaddr": "The OS address."}

    def __init__(self, sock: socket.socket, connector: Connector, sockaddr: Any) -> None:
        self.connector = connector
        self.sock = sock
        self.sockaddr = sockaddr
        FdHandler.__init__(self, connector.loop, sock.fileno(), _nothing, WRITE)

    def _events(self, mask: int) -> None:
        self.close()
        self.connector.attempt_over(self)

    def drop(self) -> None:
        """Leave the loop, and close the OS socket."""
        self.close()
        self.connector.loop.discard(self.sock)


class Connector:
    """Makes one connection. `then()` is called when it is over."""

    __slots__ = {
        "_address": "The address, as the program has given it.",
        "_delay": "The timer of the next attempt, or None.",
        "_failures": "OS addresses that were tried in vain, with their errors.",
        "_found": "All addresses.",
        "_left": "Those that were not tried yet, the next one last.",
        "_limit": "The timer of the timeout, or None.",
        "_local": "The local addresses to bind to, by family; or None.",
        "_look_up": "The look-up under way, or None.",
        "_name": "The host and port to look up; None for a Unix socket.",
        "_nodelay": "Whether to set TCP_NODELAY.",
        "_open": "The attempts under way.",
        "_opening": "The TLS handshake under way, or None.",
        "_options": "What is asked of TLS; None: nothing.",
        "_then": "What to call.",
        "_timeout": "How many seconds it may take; None is no limit.",
        "_waiting": "An OS socket whose Unix listener has a full queue; or None.",
        "error": "The error by which it has failed, or None.",
        "loop": "The loop.",
        "over": "Whether it has succeeded, has failed or was closed.",
        "sock": "The OS socket that is connected, or what TLS has made of it, until it is taken; or None.",
    }

    def __init__(
        self,
        loop: Loop,
        address: Any,
        then: Callable[[], object],
        *,
        timeout: float | None,
        local_address: Any = None,
        nodelay: bool = True,
        options: TlsOptions | None = None,
    ) -> None:
        self.loop = loop
        self._address = address
        self._then = then
        self._timeout = timeout
        self._nodelay = nodelay
        self._options = options
        self._name: HostAndPort | None = None
        if not is_path(address):
            self._name = host_and_port(address, "or the path of a Unix socket")
        else:
            with suppress(OSError):  # which is for `begin`
                unix_path(address)
        self._local = None if local_address is None else local_addresses(local_address, self._name)
        self._found: Found = []
        self._left: Found = []
        self._open: list[_Attempt] = []
        self._failures: list[tuple[Any, OSError]] = []
        self._delay: Timer | None = None
        self._limit: Timer | None = None
        self._look_up: LookUp | None = None
        self._opening: Opening | None = None
        self._waiting: Any = None
        self.error: Exception | None = None
        self.over = False
        self.sock: Any = None

    def begin(self) -> None:
        """Begin. It may be over when this returns."""
        if self.over:  # closed meanwhile
            return None
        try:
            if self._timeout is not None:
                self._limit = self.loop.add_timer(self._timeout, self._time_is_up)
            if self._name is None:
                return self._try([(socket.AF_UNIX, unix_path(self._address))])
            self._name = name = self._name.in_ascii(self._address)
            if (found := name.numeric(self._address)) is not None:
                return self._try(found)
            self._look_up = look_ups(self.loop).ask(name, self._answered)
        except Exception as error:
            self._fail(error)
        return None

    def take(self) -> Any:
        """Return the OS socket, which belongs to the caller now. Raises the error by which it has failed."""
        error, self.error = self.error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback refers to this frame: a cycle
        sock, self.sock = self.sock, None
        return sock

    def close(self) -> None:
        """Give up whatever is under way, and close what was not taken."""
        self._end()
        if self.sock is not None:
            self.loop.discard(self.sock)

    def _end(self) -> None:
        """Note that it is over, and give up what is under way."""
        self.over = True
        self._end_attempts()
        if self._limit is not None:
            self._limit.cancel()
        if self._look_up is not None:
            look_ups(self.loop).give_up(self._look_up, self._answered)
        if self._opening is not None:
            self._opening.close()
        self._limit = self._look_up = self._opening = None

    def _end_attempts(self) -> None:
        """Give up all attempts but the one that has won."""
        if self._delay is not None:
            self._delay.cancel()
        for attempt in self._open:
            attempt.drop()
        self._open.clear()
        self._left.clear()
        if self._waiting is not None:
            self.loop.discard(self._waiting)
        self._delay = self._waiting = None

    def _succeed(self, sock: Any) -> None:
        self.sock = sock
        self._end()
        self._then()

    def _fail(self, error: Exception) -> None:
        self._end()
        self.error = error
        self._then()

    def _time_is_up(self) -> None:
        """The timeout is over: the error says how far it has come by then."""
        words = f"connecting to {self._address!r} took longer than {self._timeout} s"
        if self._look_up is not None:
            words += ", to look the name up alone"
        elif self._opening is not None:
            words += ", with the TLS handshake"
        elif len(self._found) > 1:
            silent = [(attempt.sockaddr, OSError("no answer")) for attempt in self._open]
            words += f": {_each([*self._failures, *silent])}"
        self._fail(TimeoutError(words))

    # -- the look-up

    def _answered(self, answer: list[Any] | None, error: BaseException | None) -> None:
        self._look_up = None
        if isinstance(error, (OSError, UnicodeError)):
            return self._fail(not_found(self._address, error))
        if error is not None:
            return self._fail(error if isinstance(error, Exception) else RuntimeError(f"the look-up raised {error!r}"))
        assert self._name is not None
        try:
            self._try(self._name.found(answer or []))
        except (TypeError, ValueError):
            words = f"loop.resolver has answered {answer!r}, which is not what getaddrinfo answers"
            self._fail(TypeError(words))
        return None

    # -- the attempts

    def _try(self, found: Found) -> None:
        """Begin with the attempts at these addresses."""
        if self._local is not None:
            found = [one for one in found if one[0] in self._local]
        self._found = interleaved(found) if len(found) > 1 else found
        self._left = self._found[::-1]
        self._next()

    def _next(self) -> None:
        """Begin the next attempt that does not fail at once; the one after it follows in a while."""
        self._delay = None
        while self._left and not self.over:
            family, sockaddr = self._left.pop()
            try:
                self._attempt(family, sockaddr)
            except OSError as error:
                self._failures.append((sockaddr, error.with_traceback(None)))
                continue
            except Exception as error:  # what a resolver has answered is no address
                return self._fail(error.with_traceback(None))
            if self._left and not self.over:
                self._delay = self.loop.add_timer(ATTEMPT_DELAY, self._next)
            return None
        if not self._open and not self.over:
            self._fail(self._all_failures())
        return None

    def _attempt(self, family: int, sockaddr: Any) -> None:
        """Begin an attempt, which may be over when this returns. Raises OSError if it fails at once."""
        sock = socket.socket(family, _STREAM)  # EAFNOSUPPORT: the kernel may have the next one's family
        try:
            if not _NONBLOCK:
                sock.setblocking(False)
            if self._local is not None:
                sock.bind(self._local[family])
            self._connect(sock, sockaddr)
        except BaseException as error:
            self.loop.abandon(sock, error)
            raise

    def _connect(self, sock: Any, sockaddr: Any) -> None:
        number = sock.connect_ex(sockaddr)
        if number == errno.EINPROGRESS:
            self._open.append(_Attempt(sock, self, sockaddr))
        elif number == errno.EAGAIN:  # a Unix listener's queue is full, and no event will tell when it has room
            self._waiting = sock
            self._delay = self.loop.add_timer(_QUEUE_FULL_SECONDS, partial(self._connect_again, sock, sockaddr))
        else:
            self._has_connected(sock, sockaddr, number)

    def _connect_again(self, sock: Any, sockaddr: Any) -> None:
        self._waiting = self._delay = None
        try:
            self._connect(sock, sockaddr)
        except OSError as error:
            self._has_failed(sock, sockaddr, error)

    def attempt_over(self, attempt: _Attempt) -> None:
        """An attempt, which has left the loop, has succeeded or failed."""
        self._open.remove(attempt)
        sock = attempt.sock
        try:
            self._has_connected(sock, attempt.sockaddr, sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        except OSError as error:
            self._has_failed(sock, attempt.sockaddr, error)

    def _has_connected(self, sock: Any, sockaddr: Any, number: int) -> None:
        """An attempt is over: with this errno, or 0. Raises OSError if it has failed."""
        if number or _is_connected_to_itself(sock, sockaddr):
            number = number or errno.ECONNREFUSED
            raise OSError(number, os.strerror(number))
        take_over(sock)
        if self._nodelay and self._name is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._options is None:
            self._succeed(sock)
        else:
            self._secure(sock, self._options)

    def _has_failed(self, sock: Any, sockaddr: Any, error: OSError) -> None:
        """An attempt has failed: the next one begins at once."""
        self.loop.abandon(sock, error)
        self._failures.append((sockaddr, error.with_traceback(None)))
        if self._delay is not None:
            self._delay.cancel()
        self._next()

    def _all_failures(self) -> OSError:
        """The failures in one error, of the class that all of them have."""
        if not self._failures:
            family = "" if self._local is None else " of the family of the local address"
            return OSError(f"{self._address!r} has no address{family} to connect to")
        errors = [error for _, error in self._failures]
        kind: type[OSError] = next(
            kind for kind in type(errors[0]).__mro__ if all(isinstance(error, kind) for error in errors)
        )
        named = len(errors) > 1 or (self._name is not None and self._name.host != self._failures[0][0][0])
        words = f"cannot connect to {self._address!r}: {_each(self._failures) if named else _words(errors[0])}"
        numbers = {error.errno for error in errors}
        if isinstance(self._address, str) and "/" not in self._address and numbers == {errno.ENOENT}:
            words += f": that is the path of a Unix socket; a host has a port, ({self._address!r}, 80)"
        return kind(words) if len(numbers) > 1 or None in numbers else kind(numbers.pop(), words)

    # -- TLS

    def _secure(self, sock: Any, options: TlsOptions) -> None:
        """Begin the handshake over the OS socket that is connected. It may be over when this returns."""
        self._end_attempts()
        try:
            self._opening = Opening(sock, [options.wrap], self._secured, loop=self.loop)
        except BaseException as error:
            self.loop.abandon(sock, error)
            if not isinstance(error, Exception):
                raise
            self._fail(error)
        else:
            self._opening.go_on()

    def _secured(self, sock: Any, error: BaseException | None) -> None:
        """The handshake is over: `sock` is what TLS has made of the OS socket."""
        self._opening = None  # one that was refused closes by itself, when the peer has heard why
        if self.over:
            return
        if error is None:
            self._succeed(sock)
        elif isinstance(error, Exception):
            self._fail(error)
        else:
            self._fail(ConnectionAbortedError(errno.ECONNABORTED, f"it was closed on this side: {error}"))

    def __repr__(self) -> str:
        return repr(self._address) + ("" if self._opening is None else ", in the TLS handshake")


def _nothing(_mask: int) -> None:
    """The callback of an attempt, whose `_events` does not call it."""


def _each(failures: list[tuple[Any, OSError]]) -> str:
    """What has become of each address, in words."""
    return "; ".join(f"{public(sockaddr)[0]}: {_words(error)}" for sockaddr, error in failures)


def _words(error: OSError) -> object:
    return error.strerror or error


def _is_connected_to_itself(sock: Any, sockaddr: Any) -> bool:
    """Whether the kernel has chosen as the local port the very one to connect to, on which no socket listens.

    It happens when a port of the ephemeral range is tried repeatedly: the connection is then one of the socket with
    itself (RFC 9293, simultaneous open).
    """
    if sock.family == socket.AF_UNIX or sock.getsockname()[1] != sockaddr[1]:
        return False
    try:
        return sock.getsockname() == sock.getpeername()  # type: ignore[no-any-return]
    except OSError:  # a peer has reset the connection already: so there was one
        return False
