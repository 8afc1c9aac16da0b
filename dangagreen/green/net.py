"""Servers and clients: serve, serve_requests, connect, run.

Rules: a connection's callbacks and tasks share one context, copied where its server was started; a handler that ends
because its own peer did has ended normally. What does not belong here: bytes.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

from dangagreen.core.descriptor import Descriptor
from dangagreen.core.errors import ClosedError, IncompleteReadError
from dangagreen.core.listener import Address, Listener, listen
from dangagreen.core.loop import Loop, current_loop
from dangagreen.core.outgoing import IDLE
from dangagreen.core.sock import Socket as CallbackSocket
from dangagreen.green.sched import Task, Wait, entering, park_for, scheduler, sleep, wake
from dangagreen.green.streams import Socket as StreamSocket

log = logging.getLogger("dangagreen")
Result = TypeVar("Result")
Handler = Callable[[Any], object]


class Socket(StreamSocket):
    """The one socket class: callback style, sequential style, and the passage between them. Subclass it."""

    __slots__ = ()

    def event_read(self) -> object:
        """Called when there is input, while reading is watched. On a server made by `serve_requests` it starts the
        handler; elsewhere a subclass that watches reading must override it."""
        handler = getattr(self._owner, "handler", None)
        if handler is None:
            return super().event_read()
        self._watch_read = False
        if not self._buffer and not self._eof:
            try:
                self._receive()
            except OSError as error:
                self.debugmsg("%r, which the handler finds by reading", error)
        _task_of(self, _serve_request, handler).start()
        return None


def serve(
    address: Address,
    handler: type[CallbackSocket] | Handler,
    *,
    backlog: int = 1024,
    reuse_port: bool = False,
    max_connections: int | None = None,
    socket_class: type[StreamSocket] = Socket,
    nodelay: bool = True,
    loop: Loop | None = None,
) -> Listener:
    """Listen, and serve each connection. It does not block: run the loop, or wait for something, for it to happen.

    `handler` is a Socket subclass (callback style: an instance for each connection, watched for reading) or a
    function (sequential style: called with a `socket_class` in a task of its own; when it returns, the connection is
    finished, unless it has called `watch_read(True)`). `address` is (host, port), a path, or a listening socket;
    port 0 picks one, see `listener.address`. Raises OSError if the address cannot be had.
    """
    connected: Callable[[Any, Listener], object]
    if isinstance(handler, type):
        if not issubclass(handler, CallbackSocket):
            raise TypeError(f"a handler class must be a subclass of Socket, and {handler.__name__} is not")
        connected = partial(_connected_callbacks, handler)
    elif callable(handler):
        connected = partial(_connected_task, socket_class, handler)
    else:
        raise TypeError(f"a handler is a subclass of Socket or a function, not {handler!r}")
    return listen(
        address,
        connected,
        backlog=backlog,
        reuse_port=reuse_port,
        max_connections=max_connections,
        nodelay=nodelay,
        loop=loop,
    )


def serve_requests(
    address: Address,
    handler: Handler,
    *,
    backlog: int = 1024,
    reuse_port: bool = False,
    max_connections: int | None = None,
    socket_class: type[Socket] = Socket,
    nodelay: bool = True,
    loop: Loop | None = None,
) -> Listener:
    """The same for connections that are idle most of the time: an idle one is a bare callback object.

    `handler(sock)` runs in a borrowed greenlet each time an idle connection has input, serves one or more requests
    and returns. State between requests lives in slots of `socket_class`, which may override `event_read` to act in
    callback style for a while and call `super().event_read()` to start the handler.
    """
    if not callable(handler) or isinstance(handler, type):
        raise TypeError(f"the handler of serve_requests is a function, not {handler!r}")
    return listen(
        address,
        partial(_connected_callbacks, socket_class),
        backlog=backlog,
        reuse_port=reuse_port,
        max_connections=max_connections,
        nodelay=nodelay,
        loop=loop,
        handler=handler,
    )


def _connected_callbacks(socket_class: type[CallbackSocket], sock: Any, listener: Listener) -> None:
    connection = socket_class(sock)
    listener.adopt(connection)
    connection.watch_read(True)


def _connected_task(socket_class: type[StreamSocket], handler: Handler, sock: Any, listener: Listener) -> None:
    connection = socket_class(sock)
    listener.adopt(connection)
    connection._sequential = True
    task = _task_of(connection, _serve_connection, handler)
    connection.loop._ready.append((task.start, ()))


def _task_of(sock: StreamSocket, serve: Callable[[Any, Handler], None], handler: Handler) -> Task:
    """A task for a connection, in the connection's own context."""
    return Task(sock.loop, serve, (sock, handler), {}, sock._context, handler)


def _serve_connection(sock: StreamSocket, handler: Handler) -> None:
    if _run_handler(sock, handler) and not sock._watch_read:
        sock.finish()


def _serve_request(sock: StreamSocket, handler: Handler) -> None:
    """Serve what has come, and what is in the buffer when the handler returns, then wait as a callback again."""
    while _run_handler(sock, handler):
        if sock._eof and not sock._buffer:
            sock.finish()
        elif sock._buffer and type(sock).event_read is Socket.event_read and not sock._watch_read:
            continue
        else:
            if sock._queue is not None and sock._sending == IDLE:
                sock._flush()
            sock.watch_read(True)
        return


def _run_handler(sock: StreamSocket, handler: Handler) -> bool:
    """Call it. True if it returned; if its peer ended, or it failed, the connection is closed."""
    try:
        handler(sock)
    except BaseException as error:
        sock.close(error)
        if not _is_own_end(sock, error):
            error.add_note(f"in the handler of {sock!r}")
            raise
        sock.debugmsg("%s ended with its peer: %r", getattr(handler, "__qualname__", handler), error)
        return False
    return True


def _is_own_end(sock: StreamSocket, error: BaseException) -> bool:
    """Did this very connection come to its end? That of another one is the handler's failure."""
    if isinstance(error, (IncompleteReadError, ClosedError)):
        return error.sock is sock
    return error is sock._read_error or error is sock._write_error


# -- clients


class _Connecting(Descriptor):
    """A socket on its way to a peer: wakes its task at the first event of any kind."""

    __slots__ = ("task",)

    def __init__(self, sock: socket.socket, loop: Loop, task: Task) -> None:
        self.task = task
        super().__init__(sock, loop)
        self._watch_write = True

    def _events(self, mask: int) -> None:
        wake(self.task)

    def release(self) -> None:
        """Take the OS socket out of the loop, and leave it open."""
        self._detach()
        self.loop.forget(self.fd)
        self.closed = True


_QUEUE_FULL_SECONDS = 0.01
_CONNECT = Wait("connect", lambda connecting, task: None)
_LOOKUP = Wait("looking up", lambda host, task: None)


def connect(
    address: tuple[str, int] | str | os.PathLike[str],
    timeout: float | None = None,
    *,
    socket_class: type[Socket] = Socket,
    nodelay: bool = True,
) -> Socket:
    """Parks until the connection to (host, port), or to the Unix socket of that path, is made.

    Tries the addresses of the host one after the other. Raises TimeoutError after `timeout` seconds in all,
    ConnectionError or another OSError, naming the address, if the last one fails too.
    """
    loop = current_loop()
    task = entering(loop, "connect")
    deadline = None if timeout is None else loop.clock() + timeout
    failure: OSError | None = None
    for family, sockaddr in _addresses(task, address, timeout):
        left = None if deadline is None else max(0.0, deadline - loop.clock())
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            _connect_one(task, sock, sockaddr, left)
            if nodelay and family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = socket_class(sock, loop)
            connection._sequential = True
            return connection
        except OSError as error:
            sock.close()
            if isinstance(error, TimeoutError) and error.errno is None:  # ours, not the kernel's ETIMEDOUT
                raise TimeoutError(f"connecting to {address!r} took longer than {timeout} s") from None
            failure = type(error)(error.errno, f"cannot connect to {sockaddr!r}: {error.strerror}")
        except BaseException:
            sock.close()
            raise
    raise failure if failure is not None else OSError(f"{address!r} has no address to connect to")


def _connect_one(task: Task, sock: socket.socket, sockaddr: Any, timeout: float | None) -> None:
    while (number := sock.connect_ex(sockaddr)) == errno.EAGAIN:  # a Unix listener's queue is full
        timeout = _rest(timeout)
    if number != errno.EINPROGRESS:
        if number:
            raise OSError(number, os.strerror(number))
        return
    connecting = _Connecting(sock, task.loop, task)
    try:
        park_for(task, _CONNECT, connecting, timeout)
    finally:
        connecting.release()
    number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number:
        raise OSError(number, os.strerror(number))


def _rest(timeout: float | None) -> float | None:
    """Parks for a moment; returns what is left of the timeout, or raises TimeoutError."""
    if timeout is not None and timeout <= 0:
        raise TimeoutError
    sleep(_QUEUE_FULL_SECONDS)
    return None if timeout is None else timeout - _QUEUE_FULL_SECONDS


def _addresses(task: Task, address: Any, timeout: float | None) -> list[tuple[int, Any]]:
    if isinstance(address, (str, os.PathLike)):
        return [(socket.AF_UNIX, os.fspath(address))]
    try:
        host, port = address
    except (TypeError, ValueError):
        raise TypeError(f"an address is (host, port) or the path of a Unix socket, not {address!r}") from None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        try:
            found = _look_up(task, host, port, timeout)
        except socket.gaierror as error:
            raise socket.gaierror(error.errno, f"cannot look up {address!r}: {error.strerror}") from None
    return [(family, sockaddr) for family, _, _, _, sockaddr in found]


def _look_up(task: Task, host: str, port: int, timeout: float | None) -> list[Any]:
    """getaddrinfo in a thread, since it may take seconds. A look-up that nobody waits for any more just ends."""
    answer: list[Any] = []
    waiting = [task]

    def look_up() -> None:
        try:
            answer.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            answer.append(error)
        task.loop.call_soon_threadsafe(lambda: [wake(waiter) for waiter in waiting])

    threading.Thread(target=look_up, name=f"look up {host}", daemon=True).start()
    try:
        park_for(task, _LOOKUP, host, timeout)
    finally:
        waiting.clear()
    if isinstance(answer[0], OSError):
        raise answer[0]
    return answer[0]  # type: ignore[no-any-return]


# -- the whole program


def run(main: Callable[..., Result], /, *args: Any) -> Result:
    """Run `main(*args)` in a task, with a loop; return its result or raise its exception.

    When it has ended, listeners are closed, the remaining tasks cancelled and waited for, and sockets closed. In the
    main thread Ctrl-C raises KeyboardInterrupt in `main`, at its wait; a second one, meanwhile, raises it at once.
    """
    loop = current_loop()
    if loop.running:
        raise RuntimeError(
            "run() was called while this thread's loop is running: call the function itself, or spawn it"
        )
    task = Task(loop, main, args, {}, copy_context())
    task.owned = True
    loop._ready.append((task.start, ()))
    restore = _interrupt_by_signal(task)
    try:
        while not task.done:
            loop.run(lambda: task.done)
    finally:
        try:
            _wind_up(loop)
        finally:
            restore()
    if task._error is not None:
        task.result()
    return task._result  # type: ignore[no-any-return]


def _wind_up(loop: Loop) -> None:
    """What is left when main has ended: close listeners, end tasks, close sockets."""
    for handler in list(loop.handlers.values()):
        if isinstance(handler, Listener):
            handler.close("run() ended")
    while rest := list(scheduler(loop).tasks):
        for task in rest:
            task.cancel("run() ended")
        loop.run(lambda: all(task.done for task in rest))
    for handler in list(loop.handlers.values()):
        if isinstance(handler, Descriptor):
            handler.close("run() ended")


def _interrupt_by_signal(task: Task) -> Callable[[], object]:
    """Have SIGINT raise KeyboardInterrupt in the task. Answers what puts the old handler back."""
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return lambda: None
    pending = False

    def interrupt() -> None:
        nonlocal pending
        pending = False
        if not task.done and not wake(task, KeyboardInterrupt()):
            task.interrupt = KeyboardInterrupt()

    def on_sigint(_number: int, _frame: object) -> None:
        nonlocal pending
        if pending or task.done:
            raise KeyboardInterrupt
        pending = True
        task.loop.call_soon_threadsafe(interrupt)

    signal.signal(signal.SIGINT, on_sigint)
    return lambda: signal.signal(signal.SIGINT, signal.default_int_handler)
