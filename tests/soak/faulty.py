"""A small program of everything that the library does with sockets, run again and again, with a fault or two each time.

What must hold whatever fails: nobody hangs, no task is resumed that nothing was to resume, what comes is what was sent,
no descriptor, task or timer is left, nothing but the fault is reported, and the loop goes on to serve others.
"""

from __future__ import annotations

import errno
import os
import socket
import tempfile
import threading
from collections.abc import Callable
from random import Random
from typing import Any
from unittest import mock

import dangagreen as d
from dangagreen.green.sched import scheduler
from dangagreen.loop.pollers import available_pollers
from dangagreen.net import connector
from dangagreen.sockets.listener import Server
from tests.soak import MOST_FOUND, Budget, Clock
from tests.soak.faults import ERRORS, LASTING, Faults, FaultyPoller, FaultySocket, FaultySockets

PATIENCE = 10.0  # seconds that a client waits before it is said to hang
BULK = 400_000
LIE = "shutdown", errno.ENOTCONN  # which says that there is nobody to be told


class Small(d.Socket):
    """So that a few hundred kilobytes are more than what the kernel and the queue hold."""

    __slots__ = ()
    high_water, low_water = 20_000, 5_000
    linger_seconds = 0.2


class Lines(Small):
    """A server in callback style: it answers lines, now and then later than it could."""

    __slots__ = ("rest",)

    def __init__(self, sock: Any) -> None:
        super().__init__(sock)
        self.rest = b""

    def event_read(self) -> None:
        data = self.read(1000)
        if data is None:
            return self.finish()
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            self.write(line + b"\n")
        return None


def echo(sock: d.Socket) -> None:
    while data := sock.read_some(30_000):
        sock.write_all(data)


def answer(sock: d.Socket) -> None:
    line = sock.read_line()
    with d.timeout(PATIENCE):
        sock.write_all(line)
        sock.drain()


def some_lines(address: Any, prefix: bytes) -> None:
    with d.connect(address, socket_class=Small) as sock:
        for number in range(3):
            line = prefix + b" %d\n" % number
            sock.write_all(line)
            assert sock.read_line() in (line, b""), "another line came"
        sock.write_eof()
        rest = sock.read_to_end()
        assert rest == b"", f"more came than was sent: {rest!r}"


def in_callbacks(address: Any) -> None:
    """A client that passes into callback style and back."""

    class Client(Small):
        __slots__ = ("heard", "seen")

        def event_read(self) -> None:
            data = self.read(3)
            self.heard += data or b""
            if data is None or self.heard.endswith(b"\n"):
                self.watch_read(False)
                self.seen.set()

    with d.connect(address, socket_class=Client) as sock:
        sock.heard, sock.seen = b"", d.Event()
        sock.watch_write(True)
        sock.watch_read(True)
        sock.write(b"in pieces\n")
        sock.watch_write(False)
        while not sock.seen.wait(0.05) and not sock.closed:
            pass
        assert b"in pieces\n".startswith(sock.heard)
        sock.finish()


def bulk(address: Any) -> None:
    data = bytes(range(256)) * (BULK // 256)
    with d.connect(address, socket_class=Small) as sock, d.TaskGroup() as group:

        def send() -> None:
            for start in range(0, len(data), 50_000):
                sock.write_all(data[start : start + 50_000])
            sock.drain()
            sock.write_eof()

        group.spawn(send)
        received = bytearray()
        buffer = bytearray(50_000)
        while len(received) < len(data):
            size = sock.read_some_into(buffer)
            if not size:
                break
            received += buffer[:size]
        assert data.startswith(received), "the bytes are others than those that were sent"


def by_select(address: Any) -> None:
    with d.connect(address, socket_class=Small) as sock:
        sock.write_all(b"selected\n")
        never = d.Event()
        assert d.select(never, sock) is sock
        assert b"selected\n".startswith(sock.read_some())


def connected_later(address: Any) -> None:
    """A client whose object is there before its connection."""

    class Client(Small):
        __slots__ = ("told",)

        def event_connect(self) -> None:
            self.told.append("connect")

        def event_connect_failed(self, error: Exception) -> None:
            self.told.append("failed")

    sock = Client.connect_to(address, timeout=PATIENCE / 2)
    sock.told = []
    try:
        sock.write(b"later\n")
        assert sock.read_line() in (b"later\n", b""), "another line came"
    finally:
        sock.finish()
        assert len(sock.told) <= 1, "both outcomes were told"


def from_a_thread(loop: d.Loop) -> None:
    event = d.Event()
    thread = threading.Thread(target=loop.call_soon_threadsafe, args=(event.set,))
    thread.start()
    try:
        event.wait()
    finally:
        thread.join()


def without_an_object(loop: d.Loop) -> None:
    read_end, write_end = os.pipe()
    event = d.Event()
    try:
        loop.add_other_fds({read_end: lambda _bits: os.read(read_end, 10) and event.set()})
        os.write(write_end, b"x")
        event.wait()
    finally:
        loop.other_fds({})
        os.close(read_end)
        os.close(write_end)


class Program:
    """One run of it, and what was found wrong."""

    def __init__(self, poller: Callable[[], Any], faults: Faults, directory: str) -> None:
        self.faults = FaultySocket.faults = faults
        self.loop = d.Loop(clock=Clock(), poller=FaultyPoller(poller(), faults))
        self.loop.on_error = self._reported
        self.directory = directory
        self.wrong: list[str] = []

    def _reported(self, context: Any) -> None:
        if not _is_fault(context.exception):
            self.wrong.append(f"reported: {context.message}: {context.exception!r}")

    def _listening(self) -> list[socket.socket]:
        """The servers' OS sockets, over TCP and over Unix sockets."""
        found = []
        for number in range(4):
            sock = FaultySocket(socket.AF_INET if number % 2 else socket.AF_UNIX)
            sock.bind(("127.0.0.1", 0) if number % 2 else os.path.join(self.directory, str(number)))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
            sock.listen()
            found.append(sock)
        return found

    def _serve(self, listening: list[socket.socket]) -> list[d.Listener]:
        """Two of them are one server."""
        first, second, third, fourth = listening
        listeners = []
        for serve, socks in ((self._echo, [first, fourth]), (self._requests, [second]), (self._lines, [third])):
            try:
                listeners.append(serve(socks))
            except OSError as error:
                self._check_fault("serve", error)
                for sock in socks:
                    sock.close()
        return listeners

    @staticmethod
    def _echo(socks: list[socket.socket]) -> d.Listener:
        return d.serve(socks, echo, socket_class=Small)

    @staticmethod
    def _requests(socks: list[socket.socket]) -> d.Listener:
        return d.serve_requests(socks, answer, socket_class=Small)

    @staticmethod
    def _lines(socks: list[socket.socket]) -> d.Listener:
        return d.serve(socks, Lines)

    def _check_fault(self, who: str, error: BaseException) -> None:
        if not _is_fault(error):
            self.wrong.append(f"{who} raised {error!r}")

    def _client(self, function: Callable[..., object], *args: Any) -> None:
        try:
            with d.timeout(PATIENCE):
                function(*args)
        except TimeoutError as error:
            if error.errno is None:
                self.wrong.append(f"{function.__name__}{args} hangs: {d.task_table()}")
        except Exception as error:
            self._check_fault(function.__name__, error)

    def main(self) -> None:
        sleepers = [d.spawn(d.sleep, 3600), d.spawn(d.Event().wait), d.spawn(d.Queue().get)]
        listening = self._listening()
        addresses = [sock.getsockname() for sock in listening]
        self.faults.active = True
        listeners = self._serve(listening)
        clients = [d.spawn(self._client, some_lines, address, b"%d" % n) for n, address in enumerate(addresses)]
        clients += [d.spawn(self._client, in_callbacks, address) for address in addresses[:3]]
        clients += [d.spawn(self._client, bulk, addresses[0]), d.spawn(self._client, bulk, addresses[3])]
        clients += [d.spawn(self._client, by_select, addresses[1])]
        clients += [d.spawn(self._client, connected_later, address) for address in addresses[1:3]]
        clients += [d.spawn(self._client, f, self.loop) for f in (from_a_thread, without_an_object)]
        d.wait(clients, 2 * PATIENCE)
        if listeners:
            drained = d.spawn(listeners[0].drain, 1)
            d.wait([drained], 2 * PATIENCE)
            if not drained.done:
                self.wrong.append("a drain hangs")
        self.wrong += [f"{sleeper!r} was resumed" for sleeper in sleepers if sleeper.done]

    def _go_on(self) -> None:
        """Afterwards, without a fault, it serves as ever."""
        with d.serve(("127.0.0.1", 0), echo) as listener, d.timeout(PATIENCE), d.connect(listener.address) as sock:
            sock.write_all(b"still here\n")
            assert sock.read_line() == b"still here\n"

    def run(self) -> list[str]:
        before = set(os.listdir("/dev/fd"))
        with self.loop, mock.patch.object(connector, "socket", FaultySockets()):
            try:
                d.run(self.main)
            except Exception as error:  # of `wait`, or of what wakes the loop
                self._check_fault("run", error)
            self.faults.active = False
            try:
                d.run(self._go_on)
            except Exception as error:
                self.wrong.append(f"the loop does not go on: {error!r}")
            left = [*scheduler(self.loop).tasks, *self.loop.descriptor_map().values()]
            self.wrong += [f"left: {one!r}" for one in left]
            if len(self.loop.timers):  # a pause, for want of memory, may outlive its connection by its 20 ms
                d.run(d.sleep, 0.05)
            if len(self.loop.timers):
                self.wrong.append(f"{len(self.loop.timers)} timers are left")
        for name in set(os.listdir("/dev/fd")) - before:
            try:
                self.wrong.append(f"fd {name} is left: {os.readlink(f'/dev/fd/{name}')}")
            except OSError:  # the one that listdir itself had open
                pass
        return self.wrong


def _is_fault(error: BaseException) -> bool:
    """Is it what a fault, at this side or the peer's, may come out as?"""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_fault, error.exceptions))
    return isinstance(error, (OSError, EOFError)) and not (isinstance(error, TimeoutError) and error.errno is None)


def once(poller: Callable[[], Any], faults: Faults) -> list[str]:
    with (
        tempfile.TemporaryDirectory() as directory,
        mock.patch.object(Server, "accept_backoff", 0.02),
        mock.patch.object(d.Listener, "linger_seconds", 0.1),
    ):
        return Program(poller, faults, directory).run()


def soak(random: Random, seconds: float) -> tuple[int, list[str]]:
    """Run it with one fault after the other until the time is up: how many, and what was found wrong.

    All kinds of calls have the same share. Each call meets each errno once, in random order; when all have, it ends.
    Now and then another call fails as well.
    """
    runs, over = 0, Budget(seconds)
    found: list[str] = []
    left: dict[str, list[tuple[Any, int, int]]] = {call: [] for call in ERRORS}
    for poller in available_pollers():
        clean = Faults()
        found += [f"without a fault, {poller.__name__}: {line}" for line in once(poller, clean)]  # type: ignore[attr-defined]
        for call, numbers in ERRORS.items():
            left[call] += [(poller, at, number) for at in range(clean.calls[call]) for number in numbers]
    for entries in left.values():
        random.shuffle(entries)
    every = [(call, at, number) for call, entries in left.items() for _, at, number in entries if (call, number) != LIE]
    while not over() and len(found) < MOST_FOUND and (calls := [call for call in left if left[call]]):
        runs += 1
        call = random.choice(calls)
        poller, position, number = left[call].pop()
        lies = (call, number) == LIE  # again and again, or beside another fault, it is no lie
        other = None if lies or random.random() < 0.7 else Faults(*random.choice(every), _times(random))
        faults = Faults(call, position, number, 1 if lies else _times(random), other)
        found += [f"{faults!r}, {poller.__name__}: {line}" for line in once(poller, faults)]
    return runs, found


def _times(random: Random) -> int:
    return random.choice([1, 1, LASTING])
