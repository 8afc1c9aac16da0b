"""Clients: connect, name resolution in a thread.

Rules: no file descriptor is left behind by an error or a cancellation; an error names the address. What does not belong
here: what is said on the connection.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from collections.abc import Callable
from typing import Any, TypeVar, overload

from dangagreen import checks
from dangagreen.green.parking import checkpoint, park_for
from dangagreen.green.sleep import sleep
from dangagreen.green.waiters import Waiter, WaitKind, wake
from dangagreen.loop.loop import Loop, current_loop
from dangagreen.net.sock import Socket, check_socket_class
from dangagreen.parks import parks
from dangagreen.sockets.addresses import HostAndPort, PeerAddress, host_and_port, is_path, unix_path
from dangagreen.sockets.descriptor import Descriptor
from dangagreen.sockets.subclassing import check_initialised
from dangagreen.streams.writing import StreamSocket


class _Connecting(Descriptor):
    """A socket that is connecting (EINPROGRESS): wakes its task at the first event of any kind."""

    __slots__ = {"task": "The task that is parked in `connect`."}

    def __init__(self, sock: socket.socket, loop: Loop, task: Waiter) -> None:
        self.task = task
        super().__init__(sock, loop)
        try:
            self._watch_output(True)
        except BaseException:
            self._release()
            raise

    def _events(self, mask: int) -> None:
        wake(self.task)

    def _on_close(self) -> None:
        reason = self.close_reason
        ours = ConnectionAbortedError(errno.ECONNABORTED, f"it was closed on this side: {reason}")
        wake(self.task, reason if isinstance(reason, OSError) else ours)


_QUEUE_FULL_SECONDS = 0.01
AnySocket = TypeVar("AnySocket", bound=Socket)
_CONNECT = WaitKind("connect", lambda connecting, task: None)
_LOOKUP = WaitKind("looking up", lambda host, task: None)


@overload
def connect(address: PeerAddress, timeout: float | None = None, *, nodelay: bool = True) -> Socket: ...


@overload
def connect(
    address: PeerAddress,
    timeout: float | None = None,
    *,
    socket_class: Callable[[socket.socket], AnySocket],
    nodelay: bool = True,
) -> AnySocket: ...


@parks
def connect(
    address: PeerAddress,
    timeout: float | None = None,
    *,
    socket_class: Callable[[socket.socket], Any] = Socket,
    nodelay: bool = True,
) -> Any:
    """Parks until the connection to (host, port), or to a Unix socket's path or abstract name, is made; returns it.

    A host name is looked up in a thread; its addresses are tried one after the other. `socket_class` is a subclass of
    Socket, or a partial of one. Raises TimeoutError after `timeout` seconds in all (None is no limit), ConnectionError
    or another OSError, naming the address, if the last address fails too.
    """
    if timeout is not None:
        timeout = checks.seconds("the timeout of connect", timeout)
    check_socket_class("connect", socket_class, StreamSocket)
    loop = current_loop()
    task = checkpoint(loop, "connect")
    deadline = None if timeout is None else loop.clock() + timeout
    failure: OSError | None = None
    for family, sockaddr in _addresses(task, address, timeout):
        left = None if deadline is None else max(0.0, deadline - loop.clock())
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:  # EAFNOSUPPORT: the kernel may lack this family, and have the next one
            failure = _about(sockaddr, error)
            continue
        try:
            sock.setblocking(False)
            _connect_one(task, sock, sockaddr, left)
            if nodelay and family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = socket_class(sock)
            check_initialised(connection, type(connection))
            connection._set_style(sequential=True)
            return connection
        except OSError as error:
            loop.abandon(sock, error)
            if isinstance(error, TimeoutError) and error.errno is None:  # of `timeout`, not the kernel's ETIMEDOUT
                raise TimeoutError(f"connecting to {address!r} took longer than {timeout} s") from None
            failure = _about(sockaddr, error)
        except BaseException as error:
            loop.abandon(sock, error)
            raise
    try:
        raise failure if failure is not None else OSError(f"{address!r} has no address to connect to")
    finally:
        del failure  # its traceback refers to this frame: a cycle


def _about(sockaddr: Any, error: OSError) -> OSError:
    return type(error)(error.errno, f"cannot connect to {sockaddr!r}: {error.strerror or error}")


def _connect_one(task: Waiter, sock: socket.socket, sockaddr: Any, timeout: float | None) -> None:
    while (number := sock.connect_ex(sockaddr)) == errno.EAGAIN:  # a Unix listener's queue is full
        timeout = _rest(timeout)
    if number == errno.EINPROGRESS:
        number = _finish_connecting(task, sock, timeout)
    if number or _is_connected_to_itself(sock, sockaddr):
        number = number or errno.ECONNREFUSED
        raise OSError(number, os.strerror(number))


def _is_connected_to_itself(sock: socket.socket, sockaddr: Any) -> bool:
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


def _finish_connecting(task: Waiter, sock: socket.socket, timeout: float | None) -> int:
    """Parks until connect(2) has completed; returns its errno (SO_ERROR), 0 if connected."""
    connecting = _Connecting(sock, task.loop, task)
    try:
        park_for(task, _CONNECT, connecting, timeout)
    finally:
        connecting._release()
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def _rest(timeout: float | None) -> float | None:
    """Parks while the accept queue is full, for 10 ms; returns the rest of the timeout, or raises TimeoutError."""
    if timeout is not None and timeout <= 0:
        raise TimeoutError
    sleep(_QUEUE_FULL_SECONDS)
    return None if timeout is None else timeout - _QUEUE_FULL_SECONDS


def _addresses(task: Waiter, address: Any, timeout: float | None) -> list[tuple[int, Any]]:
    if is_path(address):
        return [(socket.AF_UNIX, unix_path(address))]
    name = host_and_port(address, "or the path of a Unix socket")
    try:
        return name.look_up(address, socket.AI_NUMERICHOST)
    except socket.gaierror as error:
        if isinstance(error.__context__, UnicodeError):
            raise
        return _look_up(task, name, address, timeout)


def _look_up(task: Waiter, name: HostAndPort, address: object, timeout: float | None) -> list[tuple[int, Any]]:
    """Parks until a thread has looked the name up, which may take seconds; returns families and addresses.

    After a timeout or a cancellation the thread goes on, and its answer is dropped.
    """
    answer: list[Any] = []
    waiting = [task]

    def look_up() -> None:
        try:
            answer.append(name.look_up(address))
        except OSError as error:
            answer.append(error)
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            task.loop.call_soon_threadsafe(lambda: [wake(waiter) for waiter in waiting])

    threading.Thread(target=look_up, name=f"look up {name.host}", daemon=True).start()
    try:
        park_for(task, _LOOKUP, name.host, timeout)
    finally:
        waiting.clear()
    if isinstance(answer[0], OSError):
        raise answer.pop()  # its traceback refers to this frame: a cycle
    return answer[0]  # type: ignore[no-any-return]
