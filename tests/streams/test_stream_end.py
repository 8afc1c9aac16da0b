"""What a reader finds at the end: a reset that somebody else has met first, and the end of an idle connection.

The kernel tells a reset to one call only. Whichever that is, the reader is to have every byte that came before it, and
then ConnectionResetError.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import socket

import pytest

import dangagreen as d
from dangagreen.green.sched import scheduler
from dangagreen.loop.loop import Loop
from tests.connections import reset

LOCAL = ("127.0.0.1", 0)
SENT = b"one\ntwo\nhal"  # what the peer has sent before it resets the connection


# -- who may meet it first; each leaves the socket as one whose kernel says b"" when what was sent has been read


def by_write(sock):
    sock.write(b"x")


def by_write_soon(sock):
    sock.write_soon(b"x")
    d.sleep(0)
    d.sleep(0)


def by_write_all(sock):
    with contextlib.suppress(ConnectionError):  # it has been met already
        sock.write_all(b"x")
    d.sleep(0)


def by_drain(sock):
    with contextlib.suppress(ConnectionError):
        sock.write_all(b"x")
        sock.drain()


def by_write_eof(sock):
    sock.write_eof()


def by_a_writer(sock):
    sock.set_writer_func(sock.sock.send)
    sock.write(b"x")


def by_a_queue(sock):
    sock.write_soon(b"x")
    sock.write(lambda: None)
    d.sleep(0)


def by_another_task(sock):
    d.spawn(sock.write_all, b"x").join()
    d.sleep(0)


def by_a_hook(sock):
    """What the default event_err asks for."""
    sock.event_err()


def by_idle(sock):
    assert sock.idle in (True, False)


def by_select(sock):
    assert d.select(sock) is sock


def by_nobody(sock):
    """The reader meets it itself."""


FIRST = pytest.mark.parametrize(
    "first",
    [
        by_write, by_write_soon, by_write_all, by_drain, by_write_eof, by_a_writer, by_a_queue, by_another_task,
        by_a_hook, by_idle, by_select, by_nobody,
    ],
    ids=lambda first: first.__name__,
)  # fmt: skip


def to_end(sock):
    return sock.read_to_end()


def some(sock):
    return b"".join(iter(sock.read_some, b""))


def lines(sock):
    return b"".join(iter(sock.read_line, b""))


def until(sock):
    return b"".join(iter(lambda: sock.read_until(b"\n"), b""))


def iteration(sock):
    return b"".join(list(sock))


def exactly(sock):
    return b"".join(iter(lambda: sock.read_exactly(2), b""))


def into(sock):
    while sock.read_some_into(bytearray(4)):
        pass


READS = pytest.mark.parametrize(
    "read", [to_end, some, lines, until, iteration, exactly, into], ids=lambda read: read.__name__
)


@pytest.fixture
def broken(tcp_pair):
    """`broken(socket_class)`: a connection whose peer has sent and reset it, which nobody has met."""

    def broken(socket_class=d.Socket, sent=SENT):
        ours, theirs = tcp_pair()
        sock = socket_class(ours)
        theirs.sendall(sent)
        reset(theirs)
        return sock

    return broken


@FIRST
@READS
def test_a_reset_reaches_the_reader_whoever_met_it_first(read, first, real_loop, broken):
    sock = broken()
    first(sock)
    with pytest.raises(ConnectionResetError):
        read(sock)
    with pytest.raises(ConnectionResetError):  # and again
        read(sock)
    sock.close()
    assert isinstance(sock.close_reason, ConnectionResetError)


@FIRST
def test_what_came_before_it_is_read_first(first, real_loop, broken):
    sock = broken()
    first(sock)
    assert sock.read_line() == b"one\n"
    first(sock)
    assert sock.read_line() == b"two\n"
    with pytest.raises(ConnectionResetError):
        sock.read_line()
    assert sock.buffered == 3
    assert sock.read_some() == b"hal"
    with pytest.raises(ConnectionResetError):
        sock.read_some()
    sock.close()


@FIRST
def test_nothing_came_before_it(first, real_loop, broken):
    sock = broken(sent=b"")
    first(sock)
    with pytest.raises(ConnectionResetError):
        sock.read_some()
    with pytest.raises(ConnectionResetError):
        sock.read_to_end()
    sock.close()
    assert isinstance(sock.close_reason, ConnectionResetError)


@pytest.mark.parametrize("call", ["write", "write_soon", "write_all"])
def test_a_parked_reader_hears_of_a_reset_that_a_write_has_met(call, real_loop, tcp_pair):
    ours, theirs = tcp_pair()
    sock = d.Socket(ours)
    reader = d.spawn(sock.read_to_end)
    d.sleep(0)
    theirs.sendall(SENT)
    reset(theirs)
    getattr(sock, call)(b"x")
    reader.join(30)
    with pytest.raises(ConnectionResetError):
        reader.result()
    assert sock.buffered == len(SENT)
    sock.close()


@pytest.mark.parametrize("end", ["eof", "reset"])
def test_a_parked_reader_hears_of_an_end_that_a_callback_has_met_behind_what_was_pushed_back(end, loop, pair):
    sock, peer = pair()
    task = d.spawn(sock.read_exactly, 10)
    d.sleep(0)
    sock.push_back_read(b"ab")
    d.sleep(0)

    def read_on():
        if end == "reset":
            peer.reset()
        else:
            peer.shutdown(socket.SHUT_WR)
        assert sock.read(100) == b"ab"  # and the end after it, which no event tells any more

    d.spawn(read_on)
    task.join()
    with pytest.raises(ConnectionResetError if end == "reset" else d.IncompleteReadError):
        task.result()
    sock.close()


@pytest.mark.parametrize("end", ["eof", "reset"])
def test_a_parked_reader_hears_of_an_end_that_a_hook_has_met_in_the_flush_that_ends_a_turn(
    end, loop, pair, run_turns, take_errors
):
    met = []

    class Hooked(d.Socket):
        __slots__ = ()

        def on_incomplete_write(self):
            if not met:
                peer.shutdown(socket.SHUT_WR) if end == "eof" else peer.reset()
                met.append(self.read(100))

    sock, peer = pair(Hooked, 10)
    task = d.spawn(sock.read_exactly, 10)
    d.sleep(0)
    sock.write_soon(b"more than there is room for")
    run_turns(2)
    assert met == [None]
    assert task.done
    (failure,) = take_errors()
    assert isinstance(failure.exception, ConnectionResetError if end == "reset" else d.IncompleteReadError)
    sock.close()


def test_a_broken_pipe_after_the_peers_end_is_no_reset_of_what_it_has_sent(real_loop, real_pair):
    ours, theirs = real_pair()
    sock = d.Socket(ours)
    theirs.sendall(SENT)
    assert sock.read_line() == b"one\n"
    theirs.close()
    for _ in range(20):  # TCP's first is answered by a reset, and then the kernel says EPIPE
        sock.write(b"x")
        d.sleep(0.001)
    assert sock.read_to_end() == SENT[4:]
    assert sock.read_to_end() == b""
    sock.close()
    assert sock.close_reason is None


def test_a_unix_peer_that_left_something_unread_has_reset_the_connection(real_loop, unix_pair):
    ours, theirs = unix_pair()
    sock = d.Socket(ours)
    theirs.sendall(SENT)
    sock.write(b"unread")
    theirs.close()
    sock.write(b"x")  # EPIPE, and the kernel keeps the reset for the reader
    with pytest.raises(ConnectionResetError):
        sock.read_to_end()
    assert sock.read_some() == SENT
    sock.close()


@pytest.mark.parametrize("number", [errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ECONNREFUSED, errno.ENETDOWN])
def test_whatever_else_has_broken_the_connection_is_told_as_well(number, loop, pair):
    sock, peer = pair()
    peer.send(SENT)
    sock.sock.writes.append(OSError(number, os.strerror(number)))
    sock.write(b"x")
    peer.close()
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        sock.read_to_end()
    assert caught.value.errno == number
    assert sock.read_some() == SENT
    sock.close()


def test_an_error_of_a_writers_own_is_none_of_the_stream(loop, pair):
    sock, peer = pair()

    def full(data):
        raise OSError(errno.ENOSPC, "the writer's own")

    sock.set_writer_func(full)
    peer.send(SENT)
    assert sock.read_line() == b"one\n"
    sock.write(b"x")
    with pytest.raises(d.ClosedError, match="the writer's own"):  # it is not the peer that has ended
        sock.read_to_end()


def test_stealing_the_os_socket_of_a_broken_connection_tells_what_it_would_not(real_loop, broken):
    sock = broken()
    sock.write(b"x")
    with pytest.raises(ConnectionResetError):
        sock.steal_socket()
    assert sock.read_line() == b"one\n"
    sock.close()


# -- callback style


class Noting(d.Socket):
    """Notes what it is told. It reads little at a time, and does not close at the end."""

    __slots__ = ("log",)

    def __init__(self, sock, loop=None):
        super().__init__(sock, loop)
        self.log = []

    def event_read(self):
        self.log.append(self.read(4))

    def event_err(self):
        self.log.append("err")
        super().event_err()

    def event_hup(self):
        self.log.append("hup")
        super().event_hup()

    def close(self, reason=None):
        self.log.append("close")
        super().close(reason)


class NotingInto(Noting):
    __slots__ = ()

    def event_read(self):
        buffer = bytearray(4)
        size = self.read_into(buffer)
        self.log.append(None if size is None else bytes(buffer[:size]))


class Closing(Noting):
    """As a program ported from Danga::Socket: it closes when read() says that there is no more."""

    __slots__ = ()

    def event_read(self):
        super().event_read()
        if self.log[-1] is None:
            self.close()


CALLBACK_FIRST = pytest.mark.parametrize(
    "first", [by_write, by_write_eof, by_a_writer, by_idle, by_nobody], ids=lambda first: first.__name__
)


@CALLBACK_FIRST
@pytest.mark.parametrize("kind", [Noting, NotingInto])
def test_event_err_is_called_after_the_last_read(kind, first, real_loop, broken, run_turns):
    sock = broken(kind)
    sock.watch_read(True)
    first(sock)
    run_turns(8)
    assert sock.log == [b"one\n", b"two\n", b"hal", None, "err", "close"]
    assert isinstance(sock.close_reason, ConnectionResetError)


@CALLBACK_FIRST
def test_who_closes_at_the_end_has_the_reset_as_the_reason(first, real_loop, broken, run_turns):
    sock = broken(Closing)
    sock.watch_read(True)
    first(sock)
    run_turns(8)
    assert sock.log == [b"one\n", b"two\n", b"hal", None, "close"]
    assert isinstance(sock.close_reason, ConnectionResetError)


@pytest.mark.parametrize("kind", [Noting, Closing])
def test_a_reset_that_is_met_outside_an_event_is_told_all_the_same(kind, real_loop, broken, run_turns):
    sock = broken(kind, b"")
    sock.watch_read(True)
    real_loop.call_soon(sock.read, 4)
    real_loop.call_soon(sock.write, b"x")
    run_turns(4)
    assert sock.closed
    assert isinstance(sock.close_reason, ConnectionResetError)


class Patient(Noting):
    """Its hook leaves it open."""

    __slots__ = ()

    def event_err(self):
        self.log.append("err")


@CALLBACK_FIRST
def test_an_event_err_that_does_not_close_is_called_once_and_nothing_spins(first, real_loop, broken, run_turns):
    sock = broken(Patient)
    sock.watch_read(True)
    first(sock)
    run_turns(12)
    assert sock.log.count("err") == 1
    assert sock.log.count(None) == 1
    if not sock.closed:  # select reports no hang-up
        assert sock.read(4) is None
        sock.close()
    assert isinstance(sock.close_reason, (ConnectionResetError, str))


def test_a_reset_costs_a_paused_connection_none_of_its_input(real_loop, broken, run_turns):
    sock = broken(Noting)
    sock.watch_read(False)
    run_turns(3)
    assert not sock.closed
    sock.watch_read(True)
    run_turns(8)
    assert [entry for entry in sock.log if isinstance(entry, bytes)] == [b"one\n", b"two\n", b"hal"]
    assert sock.closed
    assert isinstance(sock.close_reason, ConnectionResetError)


def test_a_task_that_reads_a_connection_of_callback_style_later_finds_all_of_it(real_loop, broken, run_turns):
    sock = broken(Noting)
    run_turns(3)
    sock.write(b"x")
    run_turns(3)
    assert sock.read_line() == b"one\n"
    with pytest.raises(ConnectionResetError):
        sock.read_to_end()
    assert sock.read_some() == b"two\nhal"
    sock.close()


def test_a_task_that_reads_after_a_write_has_closed_finds_the_reset(real_loop, broken, run_turns):
    sock = broken(Noting, b"")
    sock.write(b"x")  # nobody reads, and there is nothing to be read
    assert sock.closed
    with pytest.raises(ConnectionResetError):
        sock.read_some()


# -- the end of an idle connection of serve_requests


class Recorded(d.Socket):
    """What its hooks and its handler are told, by connection."""

    __slots__ = ()
    log: list = []  # noqa: RUF012

    def event_err(self):
        self.log.append("err")
        super().event_err()

    def event_hup(self):
        self.log.append("hup")
        super().event_hup()

    def close(self, reason=None):
        self.log.append(("close", reason))
        super().close(reason)


class Overriding(Recorded):
    __slots__ = ()

    def event_read(self):
        return super().event_read()


class Reading(Recorded):
    """Reads first, as for a greeting in callback style, and gives the rest to the handler."""

    __slots__ = ()

    def event_read(self):
        data = self.read(2)
        if data:
            self.push_back_read(data)
        return super().event_read()


KINDS = pytest.mark.parametrize("kind", [Recorded, Overriding, Reading])


@pytest.fixture
def requests(real_loop, wait_for):
    """`requests(kind)`: a server that answers a line by itself, and the plain client of it; what it did is in `log`."""
    Recorded.log.clear()
    made = []

    def requests(kind=Recorded, handler=None, address=LOCAL):
        def answer(sock):
            line = sock.read_line()
            Recorded.log.append(line)
            sock.write_all(b"<" + line + b">")

        listener = d.serve_requests(address, handler or answer, socket_class=kind)
        if isinstance(listener.address, str):
            client = socket.socket(socket.AF_UNIX)
            client.connect(listener.address)
        else:
            client = socket.create_connection(listener.address, 30)
        client.settimeout(30)
        made.extend([listener, client])
        wait_for(lambda: listener.connections)
        return listener, client

    yield requests
    for one in made:
        one.close()
    wait_for(lambda: not any(isinstance(handler, Recorded) for handler in real_loop.handlers.values()))


@KINDS
def test_two_requests_and_a_half_close_are_answered_twice(kind, requests, wait_for):
    listener, client = requests(kind)
    client.sendall(b"one\ntwo\n")
    client.shutdown(socket.SHUT_WR)
    wait_for(lambda: not listener.connections)
    assert Recorded.log == [b"one\n", b"two\n", ("close", None)]
    assert client.recv(100) == b"<one\n><two\n>"
    assert client.recv(100) == b""


@KINDS
@pytest.mark.parametrize("before", [b"", b"one\n"], ids=["no request", "one request"])
def test_the_end_of_an_idle_connection_starts_no_handler_and_no_task(
    kind, before, requests, wait_for, run_turns, real_loop, monkeypatch
):
    listener, client = requests(kind)
    client.sendall(before)
    run_turns(4)
    if before:
        assert client.recv(100) == b"<one\n>"
    Recorded.log.clear()
    monkeypatch.setattr(scheduler(real_loop), "tasks", Refusing(scheduler(real_loop).tasks))
    client.shutdown(socket.SHUT_WR)
    wait_for(lambda: not listener.connections)
    monkeypatch.undo()
    assert Recorded.log == [("close", None)]
    assert client.recv(100) == b""


class Refusing(dict):
    def __setitem__(self, task, value):
        raise AssertionError(f"{task!r} was made")


@pytest.mark.in_order
@KINDS
def test_a_reset_closes_an_idle_connection_and_its_hook_hears_of_it(kind, requests, wait_for):
    listener, client = requests(kind)
    reset(client)
    wait_for(lambda: not listener.connections)
    hook, (call, reason) = Recorded.log
    assert (hook, call) == ("err", "close")
    assert isinstance(reason, ConnectionResetError)


@KINDS
def test_a_unix_client_that_goes_is_heard_of_as_in_callback_style(kind, requests, wait_for, tmp_path, real_loop):
    listener, client = requests(kind, address=str(tmp_path / "s"))
    client.close()
    wait_for(lambda: not listener.connections)
    if type(real_loop.poller).__name__ == "SelectPoller":  # which reports no hang-up
        assert Recorded.log == [("close", None)]
    else:
        assert Recorded.log == ["hup", ("close", "the peer hung up")]


class Stubborn(Recorded):
    """Its hooks do not close."""

    __slots__ = ()

    def event_err(self):
        self.log.append("err")

    def event_hup(self):
        self.log.append("hup")


@pytest.mark.parametrize("how", ["reset", "close"])
def test_a_hook_that_does_not_close_keeps_no_connection_open(how, requests, wait_for, tmp_path):
    listener, client = requests(Stubborn, address=LOCAL if how == "reset" else str(tmp_path / "s"))
    reset(client) if how == "reset" else client.close()
    wait_for(lambda: not listener.connections)
    assert Recorded.log[-1][0] == "close"


def test_half_a_request_at_the_end_is_the_handlers(requests, wait_for):
    heard = []

    def handler(sock):
        try:
            sock.read_line()
        except d.IncompleteReadError as error:
            heard.append(error.partial)
            raise

    listener, client = requests(handler=handler)
    client.sendall(b"hal")
    client.shutdown(socket.SHUT_WR)
    wait_for(lambda: not listener.connections)
    assert heard == [b"hal"]


def test_what_is_pushed_back_is_a_request_though_the_peer_has_ended(requests, wait_for):
    served = []

    class Holding(Recorded):
        __slots__ = ("held",)

        def event_read(self):
            data = self.read(100)
            if data:
                self.held = data
            else:
                self.push_back_read(self.held)
                super().event_read()

    def handler(sock):
        served.append(sock.read_to_end())

    listener, client = requests(Holding, handler)
    client.sendall(b"all of it")
    client.shutdown(socket.SHUT_WR)
    wait_for(lambda: not listener.connections)
    assert served == [b"all of it"]


@pytest.mark.parametrize("call", ["close", "finish"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_no_handler_is_started_for_a_connection_that_its_event_read_ends(call, after, requests, wait_for):
    class Refusing(Recorded):
        __slots__ = ()

        def event_read(self):
            if not after:
                getattr(self, call)()
            super().event_read()
            if after:
                getattr(self, call)()

    started = []
    listener, client = requests(Refusing, started.append)
    client.sendall(b"one\n")
    client.shutdown(socket.SHUT_WR)
    wait_for(lambda: not listener.connections)
    assert started == []


def test_no_handler_of_serve_is_started_for_a_connection_that_its_class_refuses(real_loop, wait_for):
    class Refusing(d.Socket):
        __slots__ = ()

        def __init__(self, sock, loop=None):
            super().__init__(sock, loop)
            self.close("refused")

    started = []
    listener = d.serve(LOCAL, started.append, socket_class=Refusing)
    client = socket.create_connection(listener.address, 30)
    client.settimeout(30)
    wait_for(lambda: not listener.connections)
    d.sleep(0)
    assert client.recv(10) == b""
    client.close()
    listener.close()
    assert started == []
    assert scheduler(real_loop).tasks == {}


def test_an_answer_that_is_to_come_from_elsewhere_reaches_a_peer_that_has_ended(requests, wait_for, real_loop):
    """The handler has returned, and holds its connection busy."""

    def handler(sock):
        line = sock.read_line()
        busy = sock.busy()

        def answer():
            sock.write(b"<" + line + b">")
            busy.release()

        real_loop.add_timer(0.05, answer)

    listener, client = requests(handler=handler)
    client.sendall(b"one\n")
    client.shutdown(socket.SHUT_WR)
    wait_for(lambda: not listener.connections)
    assert client.recv(100) == b"<one\n>"
    assert client.recv(100) == b""


def test_a_reset_that_the_answer_has_met_ends_the_connection_with_it(requests, wait_for):
    reasons = []

    class Closing(Recorded):
        __slots__ = ()

        def close(self, reason=None):
            super().close(reason)
            reasons.append(self.close_reason)

    def handler(sock):
        sock.read_line()
        d.sleep(0.05)
        sock.write_all(b"too late")

    listener, client = requests(Closing, handler)
    client.sendall(b"one\n")
    d.sleep(0.01)
    reset(client)
    wait_for(lambda: not listener.connections)
    assert isinstance(reasons[-1], ConnectionResetError)


# -- any order of calls


class Collecting(d.Socket):
    """Collects what it reads in callback style, and what ends it."""

    __slots__ = ("data", "ended")

    def __init__(self, sock, loop=None):
        super().__init__(sock, loop)
        self.data = b""
        self.ended = None

    def event_read(self):
        data = self.read(5)
        if data is None:
            self.close()
        else:
            self.data += data

    def close(self, reason=None):
        super().close(reason)
        self.ended = self.close_reason


def read_some_of(sock, choose):
    call = choose.choice([lambda: sock.read_some(5), lambda: sock.read_exactly(3), sock.read_line, sock.read_to_end])
    sock.data += call()


STEPS = [
    lambda sock, choose: sock.write(b"x"),
    lambda sock, choose: sock.write_soon(b"x"),
    lambda sock, choose: sock.write_all(b"x"),
    lambda sock, choose: sock.drain(),
    lambda sock, choose: sock.write_eof(),
    lambda sock, choose: sock.idle,
    lambda sock, choose: sock.ready,
    lambda sock, choose: d.sleep(0),
    lambda sock, choose: sock.watch_read(True),
    lambda sock, choose: sock.watch_read(False),
    lambda sock, choose: sock.event_err(),
    lambda sock, choose: d.select(sock),
    read_some_of,
    read_some_of,
]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_was_called_before_the_reader_has_every_byte_and_then_the_reset(seed, poller_class, broken):
    choose = random.Random(seed)
    with Loop(poller=poller_class()):
        for _ in range(5):
            sent = bytes(choose.choices(b"abc\n", k=choose.choice([0, 1, 7, 40])))
            sock = broken(Collecting, sent)
            for _ in range(choose.randrange(12)):
                with contextlib.suppress(ConnectionResetError, BrokenPipeError, d.ClosedError):
                    choose.choice(STEPS)(sock, choose)
            sock.watch_read(False)
            told = d.ClosedError if sock.closed else ConnectionResetError  # its event_read has closed it, at the end
            with contextlib.suppress(ConnectionResetError, told):
                while data := sock.read_some(choose.choice([1, 100])):
                    sock.data += data
                raise AssertionError("a clean end")
            with pytest.raises(ConnectionError):
                sock.read_some()
            assert sock.data == sent
            sock.close()
            assert isinstance(sock.ended, ConnectionResetError)
