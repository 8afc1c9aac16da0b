"""Every error of our own, and the errno lists that other modules use by name.

Rules: a builtin exception where one fits; each message says whose fault it is. What does not belong here:
code that decides what to do about an error.
"""

from __future__ import annotations

import errno
import sys
from typing import Any, NamedTuple, Self


class _Copied(BaseException):
    """An error that is pickled and copied as it is, whatever its constructor takes, but for its `sock`.

    A copy by `copy.copy` keeps the socket; a pickle, for which there is none elsewhere, and a deep copy have None.
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
    """An error with these arguments and attributes, made without its constructor."""
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


def connection(sock: Any) -> str:
    """A socket in a sentence: "the connection with 127.0.0.1:80"; its `repr` is for whoever looks at objects."""
    if not hasattr(sock, "peer_addr_string"):
        return repr(sock)
    peer = peer_of(sock)
    return "the connection" if peer == _NOBODY else f"the connection with {peer}"


def peer_of(sock: Any) -> str:
    """ "127.0.0.1:80"; "the peer" where its address is not known, or, as with most Unix sockets, none."""
    try:
        return sock.peer_addr_string() or _NOBODY
    except Exception:  # no socket of ours, or one that is half made
        return _NOBODY


_NOBODY = "the peer"


def in_words(reason: object) -> str:
    """Why: an exception with its type, since many say little without it ("'name'" of a KeyError)."""
    return f"{type(reason).__name__}: {reason}" if isinstance(reason, BaseException) else str(reason)


class ClosedError(_Copied, ConnectionError):
    """The socket was closed, on this side, while or before it was used.

    Attributes: `sock` (the object), `reason` (what `close` was given: None, a str or an exception).
    """

    def __init__(self, sock: Any, reason: object = None) -> None:
        why = "by this program" if reason is None else f"on this side: {in_words(reason)}"
        super().__init__(f"{connection(sock)} was closed {why}")
        self.sock = sock
        self.reason = reason


class IncompleteReadError(_Copied, EOFError):
    """The peer ended its stream in the middle of what was asked for.

    Attributes: `sock`, `partial` (bytes: what came before the end; it has left the buffer), `wanted` (str).
    """

    def __init__(self, sock: Any, partial: bytes, wanted: str) -> None:
        super().__init__(f"{peer_of(sock)} ended its stream after {len(partial)} bytes of {wanted}")
        self.sock = sock
        self.partial = partial
        self.wanted = wanted


class LimitError(_Copied, ValueError):
    """What the peer sent, or what the program wants to queue, is larger than the limit it gave.

    Nothing was consumed and nothing queued. Attribute: `limit` (int, bytes).
    """

    def __init__(self, message: str, limit: int) -> None:
        super().__init__(message)
        self.limit = limit


class BusyError(RuntimeError):
    """Somebody else is using this: a second reader of one socket, or a socket stolen under a reader."""


class CannotParkError(RuntimeError):
    """A call that may wait was made where nothing may wait: in a callback, which runs on the loop itself."""


class Deadlock(_Copied, RuntimeError):
    """Nobody can run, and nothing can wake the loop. Attribute: `table` (str: every task, and what it waits for)."""

    def __init__(self, message: str, table: str = "") -> None:
        super().__init__(f"{message}\n{table}" if table else message)
        self.table = table


class ForeignThreadError(RuntimeError):
    """An object of one thread's loop was used from another thread."""


class Cancelled(_Copied):
    """Raised inside a task that was cancelled, at its wait and at every later one. Attribute: `reason`."""

    def __init__(self, reason: object = None) -> None:
        super().__init__(*() if reason is None else (reason,))
        self.reason = reason


class TaskCancelledError(_Copied, Exception):
    """`Task.result()` of a task that was cancelled. Attribute: `reason`."""

    def __init__(self, message: str, reason: object = None) -> None:
        super().__init__(message)
        self.reason = reason


if sys.version_info >= (3, 13):
    from queue import ShutDown
else:

    class ShutDown(Exception):
        """The queue was shut down: nothing can be put in, or nothing is left to get."""


class ClosedChannelError(RuntimeError):
    """Something was to be sent through a channel that is, or while it was waiting was, closed."""


class ChannelEnd(EOFError):
    """The channel was closed, and everything that was sent has been received."""


class ErrorContext(NamedTuple):
    """What `loop.on_error` is called with.

    Attributes: `message` (what failed, in words), `exception`, `subject` (the socket, listener or task that it
    happened to, or None).
    """

    message: str
    exception: BaseException
    subject: object = None


def _known(names: str) -> frozenset[int]:
    """The numbers of those errors that this platform has."""
    return frozenset(getattr(errno, name) for name in names.split() if hasattr(errno, name))


# accept(2): the connection that was about to be accepted is gone, and no longer in the queue. (ECONNABORTED is POSIX's
# word; EPROTO says the same on System V; ECONNRESET and ETIMEDOUT are what it had met.)
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
