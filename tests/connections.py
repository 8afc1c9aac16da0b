"""What several test files need of connections: socket classes, what a peer does, calls that read and write, servers."""

from __future__ import annotations

import socket
import struct

import pytest

import dangagreen as d

# -- sockets in callback style


class Plain(d.Socket):
    """Notes the calls of its hooks."""

    __slots__ = ("calls",)

    def __init__(self, sock, loop=None):
        super().__init__(sock, loop)
        self.calls = []

    def event_write(self):
        self.calls.append("write")
        super().event_write()


class Patient(d.Socket):
    """Keeps what it gets, and waits for it for a second."""

    __slots__ = ("got",)
    idle_timeout = 1.0

    def __init__(self, sock):
        super().__init__(sock)
        self.got = b""

    def event_read(self):
        self.got += self.read(100) or b""


class Server(d.Socket):
    """Reads what it gets and keeps it."""

    __slots__ = ("data", "ends")

    def __init__(self, sock, loop=None):
        super().__init__(sock, loop)
        self.data = b""
        self.ends = 0

    def event_read(self):
        data = self.read(65536)
        if data is None:
            self.ends += 1
        else:
            self.data += data


class Reader(d.Socket):
    """Reads `size` bytes at each event_read; notes the calls of its hooks, and each None."""

    __slots__ = ("calls", "data", "size")

    def __init__(self, sock, loop=None):
        super().__init__(sock, loop)
        self.calls = []
        self.data = b""
        self.size = 4096

    def event_read(self):
        self.calls.append("read")
        data = self.read(self.size)
        if data is None:
            self.calls.append(None)
        else:
            self.data += data

    def event_hup(self):
        self.calls.append("hup")
        super().event_hup()

    def event_err(self):
        self.calls.append("err")
        super().event_err()


class Collector(d.Socket):
    """Reads what there is, and ends when its peer does; `others` is the test's own."""

    __slots__ = ("calls", "data", "others")

    def __init__(self, sock, loop=None):
        super().__init__(sock, loop)
        self.calls = []
        self.data = b""
        self.others = []

    def event_read(self):
        self.calls.append("read")
        data = self.read(65536)
        if data is None:
            self.close("the end")
        else:
            self.data += data


class Recording:
    """In front of a poller: counts the turns in which `fd` had events."""

    def __init__(self, poller, fd):
        self.poller = poller
        self.fd = fd
        self.busy = 0

    def __getattr__(self, name):
        return getattr(self.poller, name)

    def wait(self, timeout):
        events = self.poller.wait(timeout)
        self.busy += any(fd == self.fd for fd, _ in events)
        return events


# -- the other end


def tcp_ends(family=socket.AF_INET, seconds=None, buffers=None):
    """Two plain sockets that are connected over loopback; `buffers`: bytes, of which Linux gives twice as many.

    These are set before it connects: a peer that has announced more room than it then has drops what comes, and the
    kernel sends it again after 200 ms at the earliest.
    """
    with socket.socket(family) as server, socket.socket(family) as client:
        for sock in (server, client) if buffers is not None else ():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
        server.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        server.listen(1)
        for sock in (server, client):
            sock.settimeout(seconds)
        client.connect(server.getsockname())
        return server.accept()[0], client.dup()


def take(far, most=1 << 20):
    """What the peer finds now."""
    try:
        return far.recv(most)
    except BlockingIOError:
        return b""


def taken(far, go_on, times, most=100):
    """What the peer takes in so many steps, each of which ends with `go_on()`."""
    received = b""
    for _ in range(times):
        received += far.recv(most) if far.events(1) else b""
        go_on()
    return received


class Small(d.Socket):
    """A socket whose queue is soon full."""

    __slots__ = ()
    high_water = 100
    low_water = 20


def blocked(pair, socket_class=Small):
    """A socket whose peer reads nothing, with more queued than the high-water mark; and the peer's end."""
    sock, far = pair(socket_class, capacity=0)
    sock.sock.capacity = 65536
    sock.write_all(b"x" * 101)
    return sock, far


READS = {
    "read_exactly": lambda sock: sock.read_exactly(8),
    "read_line": lambda sock: sock.read_line(),
    "read_until": lambda sock: sock.read_until(b"\r\n"),
    "read_some": lambda sock: sock.read_some(),
    "read_to_end": lambda sock: sock.read_to_end(),
    "iteration": lambda sock: next(iter(sock)),
}
WRITES = {
    "write_all": lambda sock: sock.write_all(b"more"),
    "drain": lambda sock: sock.drain(),
}
any_read = pytest.mark.parametrize("read", READS.values(), ids=READS)
any_write = pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)


# -- servers

LOCAL = ("127.0.0.1", 0)


class Echo(d.Socket):
    """Sends back what it reads, and ends when its peer does."""

    __slots__ = ()

    def event_read(self):
        data = self.read(4096)
        if data is None:
            self.finish()
        else:
            self.write(data)


def echo_lines(sock):
    for line in sock:
        sock.write_all(line)


def echo_one_line(sock):
    sock.write_all(sock.read_line())


def for_ever(sock):
    """A handler that is at work on its first line for ever."""
    sock.read_line()
    d.sleep(1e9)


STYLES = {
    "callbacks": (d.serve, Echo),
    "sequential": (d.serve, echo_lines),
    "requests": (d.serve_requests, echo_one_line),
}
styles = pytest.mark.parametrize(("server", "handler"), STYLES.values(), ids=STYLES)


def ends(*clients):
    """Tasks in which each client reads to the end, and closes then."""

    def end(sock):
        with sock:
            return sock.read_to_end()

    return [d.spawn(end, sock) for sock in clients]


def reset(peer):
    """Close a TCP socket so that its peer gets a RST."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def ask(sock, request):
    """Send a line and read the answer."""
    sock.write_all(request)
    return sock.read_line()


class KeepingEcho(d.Socket):
    """Sends back what it reads, keeps it as well, and closes when its peer does."""

    __slots__ = ("data",)

    def __init__(self, sock, loop=None):
        super().__init__(sock, loop)
        self.data = b""

    def event_read(self):
        data = self.read(65536)
        if data is None:
            self.close()
        else:
            self.data += data
            self.write(data)


def keeping():
    """The connections that are open of a server of KeepingEcho."""
    return [handler for handler in d.Socket.descriptor_map().values() if isinstance(handler, KeepingEcho)]
