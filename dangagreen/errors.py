"""The exceptions of this package, and the lists of errnos that other modules use by name.

Rules: a builtin exception where one fits; each message says whose fault it is. What does not belong here: decisions
about what to do after an error.
"""

from __future__ import annotations

import errno
import sys
from typing import Any, NamedTuple, Self


class _Copied(BaseException):
    """Base class of exceptions that can be pickled and copied, whatever arguments their constructors take.

    `copy.copy` keeps a `sock` attribute; in a pickle and in a deep copy it is None.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        state = dict(self.__dict__)
        if "sock" in state:
            state["sock"] = None
        return _again, (type(self), self.args, state)

    def __copy__(self) -> Self:
        again = _again(type(self), self.args, self.__dict__)
        assert isinstance(again, type(self))
        return again


def _again(kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    """Make an exception with these arguments and attributes, without calling its constructor."""
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


def connection(sock: Any) -> str:
    """A socket in an error message: "the connection with 127.0.0.1:80"; its `repr` if it is no connection."""
    if not hasattr(sock, "peer_addr_string"):
        return repr(sock)
    try:
        peer = sock.peer_addr_string()
    except Exception:  # its __init__ has not ended
        peer = None
    return f"the connection with {peer}" if peer else "the connection"


def peer_of(sock: Any) -> str:
    """The peer in an error message: "127.0.0.1:80"; "the peer" if the address is not known, or empty (Unix sockets)."""
    try:
        return sock.peer_addr_string() or _NOBODY
    except Exception:  # another kind of object, or a socket whose __init__ has not ended
        return _NOBODY


_NOBODY = "the peer"


def in_words(reason: object) -> str:
    """A reason in an error message: of an exception type and text, since many texts are too short ("'name'")."""
    return f"{type(reason).__name__}: {reason}" if isinstance(reason, BaseException) else str(reason)


class ClosedError(_Copied, ConnectionError):
    """The socket was closed or finished on this side, while or before it was used.

    Attributes: `sock` (the object), `reason` (what `close` was given: None, a str or an exception).
    """

    def __init__(self, sock: Any, reason: object = None) -> None:
        why = "by this program" if reason is None else f"on this side: {in_words(reason)}"
        super().__init__(f"{connection(sock)} was closed {why}")
        self.sock = sock
        self.reason = reason


class IncompleteReadError(_Copied, EOFError):
    """EOF in the middle of what was asked for: the peer has ended its stream.

    Attributes: `sock`, `partial` (bytes: what came before the end; it has left the buffer), `wanted` (str).
    """

    def __init__(self, sock: Any, partial: bytes, wanted: str) -> None:
        super().__init__(f"{peer_of(sock)} ended its stream after {len(partial)} bytes of {wanted}")
        self.sock = sock
        self.partial = partial
        self.wanted = wanted


class TlsError(_Copied, ConnectionError):
    """TLS was refused, or has failed; the message says by whom. The connection is over.

    Attributes: `reason` (OpenSSL's name of it, such as "CERTIFICATE_VERIFY_FAILED"; None if it has none), `refused_by`
    ("client" or "server"; None where neither side refused the other).
    """

    errno = errno.ECONNABORTED  # what the connection is after it

    def __init__(self, message: str, reason: str | None = None, refused_by: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.refused_by = refused_by


class TruncatedError(_Copied, ConnectionError):
    """EOF without close_notify: the TLS stream may have been cut short on the way. What came before it is genuine."""

    errno = errno.ECONNRESET


class ShortFileError(_Copied, EOFError):
    """A file that `send_file` sends has fewer bytes than were asked for, or has become shorter meanwhile.

    What was announced to the peer cannot be sent any more: close the connection. Attribute: `sent` (int, bytes).
    """

    def __init__(self, name: str, sent: int, missing: int, there: int | None = None) -> None:
        """`there`: how many bytes there are, known before one was sent."""
        if there is None:
            words = f"has ended after {sent} bytes, and {missing} more were to be sent"
        else:
            words = f"has {there} bytes from the offset on, and {missing} were to be sent: none was"
        super().__init__(f"the file {name} {words}")
        self.sent = sent


class LimitError(_Copied, ValueError):
    """A message of the peer, or data to be queued, is larger than a limit that the program has set.

    Nothing was consumed, nothing queued. Attribute: `limit` (int, bytes).
    """

    def __init__(self, message: str, limit: int) -> None:
        super().__init__(message)
        self.limit = limit


class BusyError(RuntimeError):
    """Another task is reading from the socket; or it cannot be handed over while it is read, or bytes are queued."""


class CannotParkError(RuntimeError):
    """A call that may park was made where nothing may: in a callback, which runs on the loop itself, and the like."""


class Deadlock(_Copied, RuntimeError):
    """All tasks wait, and nothing can wake the loop. Attribute: `table` (str: the tasks, and what each waits for)."""

    def __init__(self, message: str, table: str = "") -> None:
        super().__init__(f"{message}\n{table}" if table else message)
        self.table = table


class ForeignThreadError(RuntimeError):
    """An object of one thread's loop was used from another thread."""


class Cancelled(_Copied):
    """Raised in a task that is cancelled, at its wait and at every later one. Let it pass. Attribute: `reason`."""

    waited: tuple[str, int] | None = None  # the name of the wait that it has ended, and the id of what that was for
    refused: dict[int, int] | None = None  # of one that is pending: how many calls it has refused, by id of the task

    def __init__(self, reason: object = None) -> None:
        super().__init__(*() if reason is None else (reason,))
        self.reason = reason


class TaskCancelledError(_Copied, Exception):
    """Raised by `Task.result()` of a task that was cancelled. Attribute: `reason`."""

    def __init__(self, message: str, reason: object = None) -> None:
        super().__init__(message)
        self.reason = reason


if sys.version_info >= (3, 13):
    from queue import ShutDown
else:

    class ShutDown(Exception):
        """The queue was shut down: nothing can be put in, and nothing is left to get."""


class ClosedChannelError(RuntimeError):
    """`send` on a channel that is closed, or was closed while the call waited."""


class ChannelEnd(EOFError):
    """`receive` on a channel that was closed, when everything that was sent has been received."""


class ErrorContext(NamedTuple):
    """The argument of `loop.on_error`: an exception that reached no caller.

    Attributes: `message` (what failed, in words), `exception`, `subject` (the socket, listener or task that it
    happened to, or None).
    """

    message: str
    exception: BaseException
    subject: object = None


def _known(names: str) -> frozenset[int]:
    """The errnos of these names, of those that this platform has."""
    return frozenset(getattr(errno, name) for name in names.split() if hasattr(errno, name))


# accept(2): the connection that was about to be accepted is gone, and no longer in the queue: ECONNABORTED in POSIX,
# EPROTO on System V, ECONNRESET and ETIMEDOUT where the connection's own error is passed on.
ACCEPT_GONE = _known("ECONNABORTED EPROTO ECONNRESET ETIMEDOUT")

# accept(2), "Error handling": network errors of the new connection, which Linux passes on; EPERM is a firewall rule.
# The listener is not at fault, and the next accept may well succeed.
ACCEPT_PASSING = ACCEPT_GONE | _known(
    "EPERM ENETDOWN ENOPROTOOPT EHOSTDOWN ENONET EHOSTUNREACH EOPNOTSUPP ENETUNREACH ESOCKTNOSUPPORT EPROTONOSUPPORT"
)

# accept(2), socket(2): nothing is wrong with the listener, but the process or the system has run out of something.
# Trying again at once would spin, since the connection stays in the queue.
OUT_OF_RESOURCES = _known("EMFILE ENFILE ENOBUFS ENOMEM ENOSR")

# send(2), recv(2), shutdown(2): the kernel has no memory for it at the moment. Nothing was sent or taken, and the
# connection lives. The poller may well go on to report readiness, so that trying again at once would spin.
OUT_OF_BUFFERS = _known("ENOBUFS ENOMEM")

# epoll_ctl(2), kqueue(2): the poller cannot watch for more now.
NO_ROOM = _known("ENOSPC ENOMEM")

# send(2), recv(2), tcp(7), ip(7): the connection is broken, or its peer cannot be reached any more. What the peer has
# sent before can be read, and then the end. Whatever else send and shutdown say, the connection may well live.
BROKEN = _known(
    "EPIPE ECONNRESET ECONNABORTED ECONNREFUSED ETIMEDOUT ENOTCONN ESHUTDOWN"
    " EHOSTUNREACH EHOSTDOWN ENETUNREACH ENETDOWN ENETRESET ENONET EPROTO"
)

# Of these, what has ended the peer's stream too, and is no clean end of it. The OS tells it once, to whichever call is
# the first. (EPIPE and the like say that nothing can be sent, and nothing of what was received.)
CUT_OFF = BROKEN - _known("EPIPE ESHUTDOWN ENOTCONN")
