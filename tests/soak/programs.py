"""Random programs of both styles on both ends of a connection, against a byte-exact model.

Each direction of a connection carries a stream of known random bytes. Whoever reads, by whatever call and in whatever
style, must get these bytes, each once and in order; who reads a clean end must have got all that was written. A program
runs over an in-memory connection with random scripts, on a virtual clock and with tasks in random order, or over real
sockets and one of the pollers.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from random import Random
from typing import Any

import dangagreen as d
from dangagreen.loop.pollers import available_pollers
from dangagreen.testing import BLOCK, WireEnd, no_leaks, virtual_loop, wire
from tests.connections import tcp_ends
from tests.soak import describe

LONGEST = 300_000  # bytes of one stream
PATIENCE = 30.0  # seconds for one program
SEPARATOR = b"\x07\n"


class Wrong(AssertionError):
    """What came is not what was sent."""


class Stream:
    """The bytes of one direction: how many were sent, how many have been read, and how it has ended."""

    def __init__(self, random: Random, longest: int) -> None:
        self.length = random.randrange(min(longest, random.choice([1, 10, 1000, 30_000, 200_000, LONGEST])))
        self.data = random.randbytes(self.length)
        self.sent = self.read = 0
        self.ended = False  # the writer has sent its end, after everything

    def next(self, size: int) -> bytes:
        return self.data[self.sent : self.sent + size]

    def got(self, data: bytes | bytearray | memoryview) -> None:
        expected = self.data[self.read : self.read + len(data)]
        if bytes(data) != expected:
            raise Wrong(f"at {self.read} of {self.length} bytes {bytes(data)[:20]!r} came for {expected[:20]!r}")
        self.read += len(data)

    def pushed_back(self, size: int) -> None:
        self.read -= size

    def ends(self) -> None:
        """The reader has met a clean end."""
        if not self.ended or self.read != self.sent:
            raise Wrong(f"the stream of {self.sent} bytes seems to end after {self.read}")


class Both(d.Socket):
    """One end. In callback style it reads until its share of calls is used up, then lets its reader go on."""

    __slots__ = ("calls", "incoming", "over", "random", "told")
    line_limit = LONGEST
    max_unsent = None

    def prepare(self, random: Random, incoming: Stream) -> None:
        self.random, self.incoming = random, incoming
        self.calls = 0
        self.told = False  # read() has answered None
        self.over = d.Event()

    def event_read(self) -> None:
        random = self.random
        self.calls -= 1
        if random.random() < 0.3:
            buffer = bytearray(random.choice([1, 10, 5000]))
            size = self.read_into(buffer)
            data = None if size is None else bytes(buffer[:size])
        else:
            data = self.read(random.choice([1, 7, 1000, 100_000]))
        if data is None:
            self.calls, self.told = 0, True
        else:
            self.incoming.got(data)
            if len(data) > 1 and random.random() < 0.2:  # not everything: who leaves that waits for what is new
                back = data[-random.randrange(1, len(data)) :]
                self.incoming.pushed_back(len(back))
                self.push_back_read(back)
        if self.calls <= 0:
            self.watch_read(False)
            self.over.set()

    def close(self, reason: object = None) -> None:
        super().close(reason)
        self.over.set()


class End:
    """What the two tasks of one end do."""

    def __init__(self, random: Random, sock: Both, outgoing: Stream, incoming: Stream, resets: bool) -> None:
        self.random, self.sock, self.outgoing, self.incoming = random, sock, outgoing, incoming
        self.reset_at = random.randrange(outgoing.length + 1) if resets else None
        self.is_reset = False
        self.may_steal = False
        self.calls = 0
        self.called: list[int] = []  # numbers of queued callables, in the order in which they ran
        sock.prepare(random, incoming)

    # -- writing

    def size(self) -> int:
        return self.random.choice([1, 2, 50, 1000, 20_000, 70_000, 300_000])

    def on_socket(self, call: Callable[..., None], *args: Any) -> None:
        """Call it, and again where the socket was stolen before the call had done anything."""
        sock = self.sock
        try:
            call(sock, *args)
        except d.ClosedError:
            if sock is self.sock:
                raise
            self.on_socket(call, *args)

    def write(self) -> None:
        """One write of a random kind."""
        random, stream, sock = self.random, self.outgoing, self.sock
        if random.random() < 0.1:
            self.call()
        piece = stream.next(self.size())
        data: Any = random.choice([bytes, bytearray, memoryview])(piece)
        kind = random.randrange(6)
        if kind == 0:
            sock.write(data)
        elif kind == 1:
            sock.write_soon(data)
        elif kind == 2:
            with d.move_on_after(random.choice([0, 0.0001, 0.01])):
                self.on_socket(d.Socket.write_all, data)
                kind = -1
            if kind == 2:
                return  # it was given up, and has queued nothing
        else:
            self.on_socket(d.Socket.write_all, data)
        stream.sent += len(piece)

    def call(self) -> None:
        """Queue a callable: it runs once, in its turn, when all that was sent before it has left."""
        number, self.calls = self.calls, self.calls + 1
        self.sock.write(lambda: self.called.append(number))

    def writer(self) -> None:
        random, stream = self.random, self.outgoing
        while stream.sent < stream.length:
            if self.reset_at is not None and stream.sent >= self.reset_at:
                return self.reset()
            self.write()
            if random.random() < 0.1:
                self.on_socket(d.Socket.drain)
            if random.random() < 0.2:
                d.sleep(random.choice([0, 0, 0.0005]))
        self.on_socket(d.Socket.drain)
        if self.called != list(range(self.calls)):
            raise Wrong(f"of {self.calls} callables these were called: {self.called}")
        stream.ended = True
        self.sock.write_eof()
        return None

    def reset(self) -> None:
        self.is_reset = True
        if isinstance(self.sock.sock, WireEnd):
            self.sock.sock.reset()
        else:
            self.sock.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close("reset by the program")

    # -- reading

    def read(self) -> bool:
        """One read of a random kind. False at the end of the stream."""
        random, sock = self.random, self.sock
        kind = random.randrange(9)
        if kind == 0:
            return self.take(lambda: sock.read_exactly(random.choice([1, 3, 100, 5000, 100_000])))
        if kind == 1:
            return self.take(lambda: sock.read_line(random.choice([None, 100, 5000])))
        if kind == 2:
            return self.take(lambda: sock.read_until(SEPARATOR, random.choice([500, LONGEST])))
        if kind in (3, 4):
            return self.take(lambda: sock.read_some(random.choice([1, 10, 4096, 200_000])))
        if kind == 5:
            buffer = bytearray(random.choice([1, 100, 70_000]))
            return self.take(lambda: bytes(buffer[: sock.read_some_into(buffer)]))
        if kind == 6:
            with d.move_on_after(random.choice([0, 0.0001, 0.003])):
                d.select(sock, d.Event())
            return True
        if kind == 7:
            self.lines(random.randrange(1, 20))
            return True
        self.in_callbacks()
        return True

    def take(self, read: Callable[[], bytes]) -> bool:
        """Read, now and then with a limit of time, and put some of it back."""
        random, stream, sock = self.random, self.incoming, self.sock
        data = None
        try:
            with d.move_on_after(random.choice([None, None, 0, 0.0001, 0.002])):
                data = read()
        except d.LimitError:  # it is all there still
            data = sock.read_some(1)
        except d.IncompleteReadError as error:
            stream.got(error.partial)
            data = b""
        if data is None:
            return True
        stream.got(data)
        if data and random.random() < 0.1:
            back = data[-random.randrange(1, len(data) + 1) :]
            stream.pushed_back(len(back))
            sock.push_back_read(random.choice([bytes, bytearray])(back))
        return bool(data)

    def lines(self, most: int) -> None:
        """Iterate over some lines."""
        try:
            for _, line in zip(range(most), self.sock, strict=False):
                self.incoming.got(line)
        except d.IncompleteReadError as error:
            self.incoming.got(error.partial)

    def in_callbacks(self) -> None:
        """Hand the socket over to callback style for some calls of `event_read`."""
        sock = self.sock
        if sock.closed or sock.told:  # no event_read comes: the end is found by reading
            return
        sock.calls = self.random.randrange(1, 6)
        sock.over.clear()
        sock.watch_read(True)
        try:
            sock.over.wait(self.random.choice([None, 0.001]))
        finally:
            sock.watch_read(False)

    def steal(self) -> None:
        """Take the OS socket out of the object, and make a new object of it."""
        try:
            os_socket, rest = self.sock.steal_socket()
        except (d.BusyError, d.ClosedError):  # something is queued, or event_hup has closed it
            return
        self.sock = Both(os_socket)
        self.sock.prepare(self.random, self.incoming)
        self.sock.push_back_read(rest)

    def read_all(self) -> None:
        if self.random.random() < 0.1:
            data = self.sock.read_to_end(LONGEST)
            self.incoming.got(data)
            return
        while self.read():
            if self.random.random() < 0.1:
                d.sleep(self.random.choice([0, 0.0005]))
            if self.may_steal and self.random.random() < 0.02:
                self.steal()

    def reader(self) -> None:
        """Read to the end, in a task that is now and then cancelled and followed by another."""
        while True:
            task = d.spawn(self.read_all)
            if self.random.random() < 0.5:
                d.wait([task], self.random.choice([0, 0.0002, 0.003]))
                task.cancel()
            task.join()
            try:
                task.result()
            except d.TaskCancelledError:
                continue
            return self.incoming.ends()


class Program:
    """One connection, its two ends, their four tasks."""

    def __init__(self, random: Random, ends: tuple[Any, Any], resets: bool) -> None:
        self.lies = resets and _is_unix(ends[0])  # there a reset without unread input is a clean end
        longest = 100 * ends[0].capacity if isinstance(ends[0], WireEnd) else LONGEST
        there, back = Stream(random, longest), Stream(random, longest)
        one, other = (Both(end) for end in ends)
        who = random.randrange(2) if resets else None
        seeds = [Random(random.random()) for _ in range(2)]
        self.ends = [End(seeds[0], one, there, back, who == 0), End(seeds[1], other, back, there, who == 1)]
        for end in self.ends:  # an error that one object was told, another would not hear of
            end.may_steal = not resets and random.random() < 0.3

    def task(self, end: End, what: Callable[[], None]) -> None:
        try:
            what()
        except Wrong:
            if not (self.lies and any(one.is_reset for one in self.ends)):
                raise
        except OSError:
            if not any(one.is_reset for one in self.ends):
                raise

    def main(self) -> None:
        with d.timeout(PATIENCE), d.TaskGroup() as group:
            for end in self.ends:
                for what in (end.writer, end.reader):
                    group.spawn(self.task, end, what)
        for end in self.ends:
            end.random.choice([end.sock.close, end.sock.finish])()


def _is_unix(end: Any) -> bool:
    return bool(end.family == socket.AF_UNIX)


def _in_memory(random: Random) -> tuple[Any, Any]:
    """Two ends of a wire, each with a random script."""
    ends = wire(random.choice([1, 100, 5000, 65536, 300_000]), family=random.choice([socket.AF_INET, socket.AF_UNIX]))
    for end in ends:
        for script in (end.reads, end.writes):
            steps = random.choice([0, 0, 10, 100])
            script.extend(random.choice([BLOCK, 1, 2, 100, 10_000]) for _ in range(steps))
    return ends


def _real(random: Random) -> tuple[Any, Any]:
    """TCP over loopback or a pair of Unix sockets, often with small buffers."""
    small = random.random() < 0.7
    ends = socket.socketpair() if random.random() < 0.5 else tcp_ends(buffers=5000 if small else None)
    for end in ends if small else ():
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 5000)
    return ends


def once(seed: int) -> list[str]:
    """One program, which follows from the seed but for what the kernel's timing makes of it."""
    random = Random(seed)
    virtual = random.random() < 0.6
    poller = random.choice(available_pollers())
    loop = virtual_loop(seed=random.randrange(1 << 30)) if virtual else d.Loop(poller=poller())
    ends = _in_memory(random) if virtual else _real(random)
    where = f"program {seed}, {'in memory' if virtual else poller.__name__}"  # type: ignore[attr-defined]
    where += ", Unix" if _is_unix(ends[0]) else ", TCP"
    try:
        with loop, no_leaks(loop) as check:
            d.run(Program(random, ends, random.random() < 0.15).main)
            wrong = [f"{where}: reported: {context}" for context in check.errors]
            check.errors.clear()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return [f"{where}: {describe(error)}"]
    finally:
        for end in ends:
            end.close()
    return wrong
