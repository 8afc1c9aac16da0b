"""What the kernel does not take now: each refusal is met once, and one for want of memory ends no connection."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import socket

import pytest

import dangagreen as d
from dangagreen.loop.loop import Loop
from dangagreen.loop.pollers import WRITE
from dangagreen.sockets.descriptor import PAUSE_SECONDS

SHORT_OF_MEMORY = pytest.mark.parametrize("number", [errno.ENOBUFS, errno.ENOMEM], ids=errno.errorcode.get)


PIECES = 100


class Recorder:
    """In front of a poller and of an OS socket: notes what the kernel refuses, and when it says that it takes more."""

    def __init__(self, poller, sock):
        self.poller = poller
        self.sock = sock
        self.log = []

    def wait(self, timeout):
        events = self.poller.wait(timeout)
        if any(fd == self.sock.fileno() and mask & WRITE for fd, mask in events):
            self.log.append("writable")
        return events

    def send(self, data):
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            self.log.append("refused")
            raise
        if sent < len(data):
            self.log.append("refused")
        return sent

    def __getattr__(self, name):
        return getattr(self.poller if name in ("add", "modify", "remove", "close") else self.sock, name)


class Hooked(d.Socket):
    __slots__ = ("refusals",)

    def __init__(self, sock, loop=None):
        super().__init__(sock, loop)
        self.refusals = 0

    def on_incomplete_write(self):
        self.refusals += 1


class OverSocket:
    """The recorder as a socket: closing it closes the socket, not the poller."""

    def __init__(self, recorder):
        self.recorder = recorder

    def close(self):
        self.recorder.sock.close()

    def __getattr__(self, name):
        return getattr(self.recorder, name)


def write_all(sock, piece):
    sock.write_all(piece)


def write_all_and_drain(sock, piece):
    sock.write_all(piece)
    sock.drain()


def write_all_and_look(sock, piece):
    sock.write_all(piece)
    d.sleep(0)  # which flushes first


def write_and_drain(sock, piece):
    sock.write(piece)
    sock.drain()


def write_soon_and_look(sock, piece):
    sock.write_soon(piece)
    d.sleep(0)


def a_callable_between(sock, piece):
    sock.write_all(piece)
    sock.write(lambda: None)
    sock.drain()


@pytest.mark.parametrize(
    "call",
    [write_all, write_all_and_drain, write_all_and_look, write_and_drain, write_soon_and_look, a_callable_between],
    ids=lambda call: call.__name__,
)
def test_each_refusal_of_the_kernel_is_met_once(call, real_loop, real_pair):
    ours, theirs = real_pair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
    theirs.setblocking(False)
    recorder = Recorder(real_loop.poller, ours)
    real_loop.poller = recorder
    sock = Hooked(OverSocket(recorder))
    received = []

    def peer():
        while sum(map(len, received)) < PIECES * 4000:
            with contextlib.suppress(BlockingIOError):
                received.append(theirs.recv(3000))
            d.sleep(0)

    def main():
        reader = d.spawn(peer)
        for number in range(PIECES):
            call(sock, bytes([number % 251]) * 4000)
        sock.drain()
        reader.join()

    task = d.spawn(main)
    task.join(30)
    task.result()
    real_loop.poller = recorder.poller
    assert b"".join(received) == b"".join(bytes([number % 251]) * 4000 for number in range(PIECES))
    log = recorder.log
    assert [pair for pair in itertools.pairwise(log) if pair == ("refused", "refused")] == []
    assert sock.refusals == log.count("refused") > 0
    sock.close()


def test_a_hook_that_raises_costs_no_second_try(loop, wires, run_turns):
    ours, theirs = wires(10)
    tries = []

    class Raising(d.Socket):
        __slots__ = ()

        def on_incomplete_write(self):
            raise ValueError("the hook's own")

    sock = Raising(ours)
    sock.set_writer_func(lambda data: tries.append(len(data)) or ours.send(data))
    with pytest.raises(ValueError, match="the hook's own"):
        sock.write(b"x" * 15)
    assert tries == [15]
    run_turns(3)
    assert tries == [15]
    assert theirs.recv(100) == b"x" * 10
    run_turns(1)
    assert theirs.recv(100) == b"x" * 5
    sock.close()


def test_write_of_none_tries_again_whatever_the_kernel_has_said(loop, wires):
    ours, theirs = wires(10)
    sock = d.Socket(ours)
    assert sock.write(b"x" * 15) is False
    assert theirs.recv(100) == b"x" * 10
    assert sock.write(None) is True
    assert theirs.recv(100) == b"x" * 5
    sock.close()


# -- no memory


def refuse(steps, number, times):
    """The next calls fail with this error."""
    steps.extend([OSError(number, os.strerror(number))] * times)


def by_write(sock):
    sock.write(b"hello")


def by_write_soon(sock):
    sock.write_soon(b"hello")


def by_write_all(sock):
    d.spawn(sock.write_all, b"hello")


def by_a_queue(sock):
    sock.write_soon(b"hel")
    sock.write(lambda: None)
    sock.write(b"lo")


def by_finish(sock):
    sock.write(b"hello")
    sock.finish()


def by_a_writer(sock):
    ours = sock.sock
    sock.set_writer_func(lambda data: ours.send(data))
    sock.write(b"hello")


@SHORT_OF_MEMORY
@pytest.mark.parametrize(
    "call",
    [by_write, by_write_soon, by_write_all, by_a_queue, by_finish, by_a_writer],
    ids=lambda call: call.__name__,
)
def test_a_send_for_which_the_kernel_has_no_memory_is_tried_again(call, number, loop, pair, run_turns, advance):
    sock, peer = pair()
    refuse(sock.sock.writes, number, 3)
    call(sock)
    run_turns(3)
    assert len(sock.sock.writes) == 2
    assert sock.unsent == 5
    turns = loop.poller.waits
    advance(PAUSE_SECONDS * 4)
    assert loop.poller.waits - turns <= 16  # the wire is writable all the time
    assert peer.recv(100) == b"hello"
    assert not sock.closed
    sock.close()


@SHORT_OF_MEMORY
def test_each_such_refusal_is_told_to_the_hook(number, loop, pair, advance):
    sock, peer = pair(Hooked)
    refuse(sock.sock.writes, number, 2)
    assert sock.write(b"hello") is False
    advance(PAUSE_SECONDS * 3)
    assert sock.refusals == 2
    assert peer.recv(100) == b"hello"
    sock.close()


@SHORT_OF_MEMORY
def test_forty_clients_whose_sends_fail_all_get_their_reply(number, loop, pair, advance):
    clients = []

    def reply(sock, size):
        sock.read_line()
        sock.write_all(b"x" * size + b"\n")

    for index in range(40):
        sock, peer = pair()
        if index % 4 == 0:
            refuse(sock.sock.writes, number, 1)
        d.spawn(reply, sock, index)
        peer.send(b"get\n")
        clients.append((sock, peer))
    advance(PAUSE_SECONDS * 2)
    assert [peer.recv(100) for _, peer in clients] == [b"x" * index + b"\n" for index in range(40)]
    for sock, _ in clients:
        sock.close()


class Noting(d.Socket):
    __slots__ = ("heard",)

    def __init__(self, sock, loop=None):
        super().__init__(sock, loop)
        self.heard = []

    def event_read(self):
        self.heard.append(self.read(100))


class NotingInto(Noting):
    __slots__ = ()

    def event_read(self):
        buffer = bytearray(100)
        size = self.read_into(buffer)
        self.heard.append(None if size is None else bytes(buffer[:size]))


@SHORT_OF_MEMORY
@pytest.mark.parametrize("kind", [Noting, NotingInto])
def test_a_read_for_which_the_kernel_has_no_memory_finds_nothing_and_comes_again(kind, number, loop, pair, advance):
    sock, peer = pair(kind)
    sock.watch_read(True)
    refuse(sock.sock.reads, number, 3)
    peer.send(b"hello")
    turns = loop.poller.waits
    advance(PAUSE_SECONDS * 4)
    assert sock.heard == [b"", b"", b"", b"hello"]
    assert loop.poller.waits - turns <= 12
    sock.close()


@SHORT_OF_MEMORY
@pytest.mark.parametrize(
    ("read", "answer"),
    [
        (lambda sock: sock.read_some(), b"hello\n"),
        (lambda sock: sock.read_line(), b"hello\n"),
        (lambda sock: sock.read_exactly(5), b"hello"),
        (lambda sock: sock.read_until(b"\n"), b"hello\n"),
        (lambda sock: sock.read_some_into(bytearray(100)), 6),
        (lambda sock: d.select(sock) and sock.read_some(), b"hello\n"),
        (lambda sock: sock.read_to_end(), b"hello\n"),
        (lambda sock: next(iter(sock)), b"hello\n"),
    ],
    ids=["some", "line", "exactly", "until", "into", "select", "to_end", "iteration"],
)
def test_a_parked_reader_waits_on_where_the_kernel_has_no_memory(read, answer, number, loop, pair, advance):
    sock, peer = pair()
    task = d.spawn(read, sock)
    d.sleep(0)
    refuse(sock.sock.reads, number, 3)
    peer.send(b"hello\n")
    peer.shutdown(socket.SHUT_WR)
    turns = loop.poller.waits
    advance(PAUSE_SECONDS * 6)
    assert task.result() == answer
    assert loop.poller.waits - turns <= 30
    sock.close()


class Unwilling:
    """A socket whose shutdown, and whose peek, have no memory for a while."""

    def __init__(self, sock, number, times):
        self.sock = sock
        self.number = number
        self.times = times

    def _refuse(self):
        if self.times:
            self.times -= 1
            raise OSError(self.number, os.strerror(self.number))

    def shutdown(self, how):
        self._refuse()
        self.sock.shutdown(how)

    def recv(self, n, flags=0):
        if flags:
            self._refuse()
        return self.sock.recv(n, flags)

    def __getattr__(self, name):
        return getattr(self.sock, name)


@SHORT_OF_MEMORY
@pytest.mark.parametrize("call", ["write_eof", "finish"])
def test_an_end_for_which_the_kernel_has_no_memory_reaches_the_peer_in_the_end(call, number, loop, wires, advance):
    ours, theirs = wires()
    sock = d.Socket(Unwilling(ours, number, 3))
    sock.write(b"bye")
    getattr(sock, call)()
    assert not sock.closed
    advance(PAUSE_SECONDS * 4)
    assert (theirs.recv(100), theirs.recv(100)) == (b"bye", b"")
    theirs.shutdown(socket.SHUT_WR)
    if call == "write_eof":
        assert sock.read_to_end() == b""
        sock.close()
    advance(PAUSE_SECONDS)
    assert sock.closed
    assert sock.close_reason is None


@SHORT_OF_MEMORY
@pytest.mark.parametrize("refused", [errno.ENETUNREACH, errno.EPIPE], ids=errno.errorcode.get)
def test_a_peer_that_still_lives_when_a_send_has_failed_is_told_the_end(refused, number, loop, wires, advance):
    ours, theirs = wires()
    sock = d.Socket(Unwilling(ours, number, 2))
    task = d.spawn(sock.read_some)
    d.sleep(0)
    refuse(ours.writes, refused, 1)
    sock.write(b"reply")
    advance(PAUSE_SECONDS * 3)
    assert theirs.recv(100) == b""
    theirs.send(b"late")  # what the peer sends is read all the same
    advance(PAUSE_SECONDS)
    assert task.result() == b"late"
    sock.close()


@pytest.mark.parametrize("refused", [errno.ENETUNREACH, errno.EPIPE], ids=errno.errorcode.get)
def test_a_peer_that_cannot_be_told_the_end_when_a_send_has_failed_is_left(refused, loop, wires, run_turns):
    ours, theirs = wires()
    sock = d.Socket(Unwilling(ours, errno.EINVAL, 9))
    sock.watch_read(True)
    refuse(ours.writes, refused, 1)
    sock.write(b"reply")
    run_turns(1)
    assert sock.closed
    assert sock.close_reason.errno == refused
    assert theirs.recv(100) == b""


@SHORT_OF_MEMORY
def test_a_look_for_which_the_kernel_has_no_memory_says_that_nothing_is_ready(number, loop, wires, advance):
    ours, theirs = wires()
    sock = d.Socket(Unwilling(ours, number, 2))
    theirs.send(b"hello")
    assert not sock.ready
    assert d.select(sock) is sock
    assert sock.read_some() == b"hello"
    sock.close()


@SHORT_OF_MEMORY
def test_a_socket_that_closes_while_it_is_paused_is_gone(number, loop, pair, run_turns, advance):
    sock, _peer = pair()
    refuse(sock.sock.writes, number, 1)
    sock.write(b"hello")
    sock.close("enough")
    run_turns(1)
    advance(PAUSE_SECONDS * 2)
    assert sock.closed
    assert len(loop.timers) == 0


def test_a_child_forked_meanwhile_tries_again_as_well(poller_class, unix_pair):
    with Loop(poller=poller_class()) as loop:
        ours, theirs = unix_pair()
        sock = d.Socket(ours)
        errors = [OSError(errno.ENOBUFS, "No buffer space available")]

        def send(data):
            if errors:
                raise errors.pop()
            return ours.send(data)

        sock.set_writer_func(send)
        assert sock.write(b"hello") is False
        loop._after_fork()  # what a child does first
        loop.run(lambda: not sock.unsent)
        assert theirs.recv(100) == b"hello"
