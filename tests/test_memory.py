"""A closed connection is freed by its last reference, with all it held, whatever ended it: without the collector."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import sys
import weakref
from contextvars import ContextVar
from traceback import extract_tb

import pytest

import dangagreen as d
from dangagreen.errors import ErrorContext
from dangagreen.loop.error_log import ErrorLog
from dangagreen.testing import BLOCK
from tests.connections import reset

pytestmark = pytest.mark.usefixtures("uncollected")

LOCAL = ("127.0.0.1", 0)


@pytest.fixture
def held(active_loop, run_turns):
    """`held(sock)` notes a connection; `held.data` is what it may be given to send. At the end of the test neither the
    connections nor the data may be alive."""

    class Held:
        def __init__(self):
            self.data = bytes(1_000_000)
            self.references = []
            self.before = sys.getrefcount(self.data)

        def __call__(self, sock):
            self.references.append(weakref.ref(sock))
            return sock

        def check(self):
            run_turns(3)
            assert self.references
            alive = [reference() for reference in self.references if reference() is not None]
            assert alive == []
            after = sys.getrefcount(self.data)  # not within the assertion, which would count as well
            assert after == self.before

    held = Held()
    yield held
    held.check()


class Callback(d.Socket):
    """What a program in callback style might be."""

    __slots__ = ("heard",)

    def __init__(self, sock):
        super().__init__(sock)
        self.heard = []

    def event_read(self):
        data = self.read(65536)
        if data is None:
            self.close()
        elif data == b"fail":
            raise KeyError(self, data)
        else:
            self.heard.append(data)


class Limited(Callback):
    __slots__ = ()
    max_unsent = 500_000


class Idle(Callback):
    __slots__ = ()
    idle_timeout = 1.0


class Short(Callback):
    __slots__ = ()
    lifetime = 1.0


def reset_error():
    return ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")


def connection(held, end, cls=Callback, watch=True):
    one = held(cls(end))
    if watch:
        one.watch_read(True)
    return one


# -- callback style, in memory: each is given the socket, the peer's end and what there is to send


def peer_ends(one, peer, data):
    peer.close()


def peer_ends_while_bytes_are_queued(one, peer, data):
    one.write(data)
    peer.close()


def a_read_meets_a_reset(one, peer, data):
    one.sock.reads.append(reset_error())
    one.read(1)
    one.close()


def a_read_into_meets_a_reset(one, peer, data):
    one.sock.reads.append(reset_error())
    one.read_into(bytearray(1))
    one.close()


def a_write_meets_a_reset(one, peer, data):
    one.sock.writes.append(reset_error())
    one.write(data)
    one.close()


def a_write_meets_a_reset_where_nobody_reads(one, peer, data):
    one.watch_read(False)
    one.sock.writes.append(reset_error())
    one.write(data)
    assert one.closed


def a_flush_meets_a_reset(one, peer, data):
    one.sock.writes.extend((BLOCK, reset_error()))
    one.write(data)
    one.write(data)
    peer.close()


def a_flush_of_little_meets_a_reset(one, peer, data):
    one.sock.writes.append(reset_error())
    one.write_soon(b"little")
    peer.close()


def a_peek_meets_a_reset(one, peer, data):
    one.watch_read(False)
    peer.reset()
    assert one.ready
    one.close()


def an_error_event(one, peer, data):
    one.watch_read(False)
    one.write(data)
    peer.reset()


def a_hang_up(one, peer, data):
    one.write(data)
    peer.hang_up()


def finished(one, peer, data):
    one.write(b"bye")
    one.finish()
    peer.recv(9)
    peer.close()


def finished_and_reset(one, peer, data):
    one.write(data)
    one.finish()
    peer.reset()


def finished_while_the_peer_sends(one, peer, data):
    one.linger_bytes = 1
    one.finish()
    peer.send(b"late")


def closed(one, peer, data):
    one.write(data)
    one.write(one.close)
    one.close()


def closed_with_words(one, peer, data):
    one.write(data)
    one.close("enough")


def closed_with_an_exception(one, peer, data):
    one.write(data)
    one.close(ValueError("mine", one))


def closed_with_one_that_was_raised(one, peer, data):
    one.write(data)
    try:
        raise ValueError(one)
    except ValueError as error:
        one.close(error)


def closed_with_one_that_has_a_cause(one, peer, data):
    try:
        try:
            one.sock.writes.append(reset_error())
            one.sock.send(data)
        except OSError as error:
            raise RuntimeError("no") from error
    except RuntimeError as error:
        one.close(error)


def closed_with_a_writer_of_its_own(one, peer, data):
    one.set_writer_func(lambda piece: one.sock.send(piece))
    one.write(data)
    one.close()


def left_by_an_exception(one, peer, data):
    try:
        with one:
            one.write_soon(data)
            raise KeyError(data)
    except KeyError:
        pass


def stolen(one, peer, data):
    one.push_back_read(data)
    os_socket, rest = one.steal_socket()
    assert rest == data
    os_socket.close()


MEMORY = [
    peer_ends, peer_ends_while_bytes_are_queued, a_read_meets_a_reset, a_read_into_meets_a_reset, a_write_meets_a_reset,
    a_write_meets_a_reset_where_nobody_reads, a_flush_meets_a_reset, a_flush_of_little_meets_a_reset,
    a_peek_meets_a_reset, an_error_event, a_hang_up, finished, finished_and_reset, finished_while_the_peer_sends,
    closed, closed_with_words, closed_with_an_exception, closed_with_one_that_was_raised,
    closed_with_one_that_has_a_cause, closed_with_a_writer_of_its_own, left_by_an_exception, stolen,
]  # fmt: skip


@pytest.mark.parametrize("how", MEMORY, ids=lambda how: how.__name__)
def test_in_callback_style(loop, wires, run_turns, held, how):
    end, peer = wires(1000)
    one = connection(held, end)
    run_turns(1)
    how(one, peer, held.data)
    run_turns(4)
    assert one.closed


@pytest.mark.parametrize("how", [False, True], ids=["peer takes nothing", "peer does not end"])
def test_finish_that_lingers_in_vain(loop, wires, advance, held, how):
    end, peer = wires(1000)
    one = connection(held, end)
    if not how:
        one.write(held.data)
    one.finish()
    advance(one.linger_seconds + 1)
    assert one.closed
    peer.recv(1000)


@pytest.mark.parametrize("cls", [Limited, Idle, Short])
def test_by_a_limit(loop, wires, advance, held, cls):
    end, _peer = wires(1000)
    one = connection(held, end, cls)
    one.write(held.data if cls is Limited else b"x")
    advance(3)
    assert one.closed


def test_by_a_callback_that_raises(loop, wires, run_turns, held, take_errors):
    end, peer = wires(1000)
    one = connection(held, end)
    one.write(held.data)
    peer.send(b"fail")
    run_turns(2)
    assert one.closed
    assert [names[-1] for names in map(frames, take_errors())] == ["event_read"]


def frames(context):
    """The names of the functions in the traceback."""
    assert isinstance(context, ErrorContext)
    return [step.name for step in extract_tb(context.exception.__traceback__)]


@pytest.mark.parametrize("running", [False, True], ids=["reset", "close"])
def test_by_the_end_of_the_loop(loop, wires, held, running):
    end, _peer = wires(1000)
    one = connection(held, end)
    one.write(held.data)
    loop.reset()
    assert one.closed


# -- callback style, in the kernel


def real_fin(peer):
    peer.close()


@pytest.mark.parametrize("how", [real_fin, reset], ids=["fin", "reset"])
@pytest.mark.parametrize("watch", [True, False], ids=["read", "not read"])
@pytest.mark.parametrize("queued", [True, False], ids=["queued", "nothing queued"])
def test_over_a_real_connection(real_loop, tcp_pair, wait_for, held, how, watch, queued):
    end, peer = tcp_pair()
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one = connection(held, end, watch=watch)
    if queued:
        one.write(held.data)
        one.write(held.data)
    how(peer)
    if not watch and not queued:
        one.write(b"x")
        d.sleep(0.01)
        one.write(b"x")
        one.read(1)
        one.close()
    if not watch and queued and type(real_loop.poller).__name__ == "SelectPoller":  # reports no hang-ups
        one.write_soon(b"x")
    wait_for(lambda: one.closed or not one.unsent)
    one.close()


# -- sequential style


def reads(sock, data):
    sock.read_exactly(10)


def reads_lines(sock, data):
    for _ in sock:
        pass


def writes(sock, data):
    for _ in range(9):
        sock.write_all(data)
    sock.drain()


def selects(sock, data):
    d.select(sock)
    sock.read_exactly(100)


def fails(sock, data):
    sock.write_all(data)
    raise KeyError(sock, data)


def fails_with_a_context(sock, data):
    try:
        sock.read_line()
        raise KeyError(data)
    except KeyError:
        sock.write_all(data)
        raise ValueError(sock) from None


def times_out(sock, data):
    with d.timeout(0.01):
        while True:
            sock.read_some() or d.sleep(0.001)


def moves_on(sock, data):
    with d.move_on_after(0.01):
        while True:
            sock.read_some() or d.sleep(0.001)


def cancelled_by_hand(sock, data):
    d.current_task().cancel("enough")
    sock.read_line()
    sock.read_line()


def too_long(sock, data):
    sock.write_all(data)
    sock.read_line(1)


def returns(sock, data):
    sock.write_all(data)


def raises_at_the_result(sock, data):
    task = d.spawn(fails, sock, data)
    task.join()
    task.result()


def catches_at_the_result(sock, data):
    task = d.spawn(fails, sock, data)
    task.join()
    for _ in range(2):
        try:
            task.result()
        except KeyError:
            pass


def group_fails(sock, data):
    with d.TaskGroup() as group:
        kept = group.spawn(fails, sock, data)
        group.spawn(reads, sock, data)
        d.sleep(5)
    return kept


def group_reads(sock, data):
    with d.TaskGroup() as group:
        group.spawn(reads, sock, data)
        group.spawn(writes, sock, data)


def closed_by_another(sock, data):
    d.spawn(lambda: sock.close(ValueError(sock)))
    sock.read_line()
    sock.read_line()


def closed_under_a_writer(sock, data):
    d.spawn(writes, sock, data)
    d.spawn(writes, sock, data)
    d.sleep(0.01)
    sock.close("enough")


def block_left_by_an_exception(sock, data):
    with sock:
        sock.write_all(data)
        raise KeyError(data)


HANDLERS = [
    reads, reads_lines, writes, selects, fails, fails_with_a_context, times_out, moves_on, cancelled_by_hand, too_long,
    returns, raises_at_the_result, catches_at_the_result, group_fails, group_reads, closed_by_another,
    closed_under_a_writer, block_left_by_an_exception,
]  # fmt: skip


@pytest.mark.parametrize("how", [socket.socket.close, reset], ids=["fin", "reset"])
@pytest.mark.parametrize("server", [d.serve, d.serve_requests], ids=["serve", "requests"])
@pytest.mark.parametrize("handler", HANDLERS, ids=lambda handler: handler.__name__)
def test_in_sequential_style(loop, handler, server, how, held, take_errors, wait_for):
    seen = []

    def handle(sock):
        if not seen:
            held(sock)
            seen.append(1)
        handler(sock, held.data)

    listener = server(LOCAL, handle)
    peer = socket.create_connection(listener.address)
    peer.sendall(b"one\ntwo")
    wait_for(lambda: seen)
    d.sleep(0.02)
    how(peer)
    wait_for(lambda: not listener.connections and not loop.green.tasks)
    listener.close()
    assert all(map(frames, take_errors()))


# -- ends of servers, programs and tasks


def drained(listener, held):
    """Its handlers are cut off."""
    assert len(listener.drain(0)) == 2


def closed_by_hand(listener, held):
    listener.close()
    d.current_loop().reset()


@pytest.mark.parametrize("end", [drained, closed_by_hand], ids=lambda end: end.__name__)
@pytest.mark.parametrize("server", [d.serve, d.serve_requests], ids=["serve", "requests"])
def test_by_the_end_of_a_server(loop, server, end, held, take_errors, wait_for):
    seen = []

    def handle(sock):
        seen.append(held(sock) and 1)
        sock.write_all(held.data)
        try:
            sock.read_exactly(100)
        finally:
            with d.shield():
                d.sleep(0.01)

    listener = server(LOCAL, handle)
    held(listener)
    peers = [socket.create_connection(listener.address) for _ in range(2)]
    for peer in peers:
        peer.send(b"x")
    wait_for(lambda: len(seen) == 2)
    end(listener, held)
    wait_for(lambda: not loop.green.tasks)
    for peer in peers:
        peer.close()
    take_errors()


def test_by_the_end_of_run(loop, held):
    def main():
        listener = d.serve(LOCAL, lambda sock: held(sock).write_all(held.data * 9) or sock.drain())
        sock = held(d.connect(listener.address))
        d.sleep(0.01)
        d.spawn(lambda: sock.read_to_end(100_000_000))
        d.sleep(0.01)
        raise KeyError(sock)

    try:
        d.run(main)
    except KeyError:
        pass


@pytest.mark.parametrize("how", ["refused", "times out", "is cancelled", "fails later"])
def test_by_a_connect_that_fails(loop, held, wait_for, how):
    made = []

    class Failing(d.Socket):
        __slots__ = ()

        def __init__(self, sock):
            super().__init__(sock)
            made.append(held(self) and 1)
            raise KeyError(self)

    with socket.socket() as listening:
        listening.bind(LOCAL)
        address = listening.getsockname()
        if how == "fails later":
            listening.listen()

        def connect():
            failures = []
            for timeout in (None, 5):
                try:
                    d.connect(address, timeout, socket_class=Failing)
                except (OSError, KeyError) as error:
                    failures.append(repr(error))
            return failures

        tasks = [d.spawn(connect) for _ in range(3)]
        if how == "is cancelled":
            tasks[0].cancel()
        held(tasks[1])
        wait_for(lambda: all(task.done for task in tasks))
        assert made or how != "fails later"
        tasks.clear()


@pytest.mark.parametrize("owned", [True, False])
@pytest.mark.parametrize("handler", HANDLERS, ids=lambda handler: handler.__name__)
def test_in_a_task_of_ones_own(loop, wires, run_turns, held, take_errors, handler, owned):
    """By a task that is freed with it, and by one whose worker is used by the next."""
    for _ in range(2):
        sock, peer = wires(100)
        one = held(d.Socket(sock))
        task = held(d.spawn(handler, one, held.data))
        peer.send(b"one\ntwo")
        run_turns(3)
        loop.clock.jump(1)
        run_turns(3)
        if owned:
            d.spawn(task.join)
            run_turns(1)
        peer.close()
        run_turns(20)
        assert task.done or one.closed or handler.__name__ in ("group_fails", "closed_by_another")
        task.cancel()
        loop.clock.jump(10)
        run_turns(5)
        one.close()
        run_turns(5)
        assert task.done
        del one, task
    take_errors()


def test_by_workers_that_are_dropped(loop, wires, run_turns, held, monkeypatch):
    from dangagreen.green import sched

    monkeypatch.setattr(sched, "_IDLE_WORKERS", 1)
    for _ in range(5):
        sock, peer = wires(100)
        held(d.spawn(reads, held(d.Socket(sock)), held.data))
        peer.send(b"0123456789" * 2)
    run_turns(3)
    assert len(loop.green.workers) <= 1
    loop.reset()


def test_in_top_level_code(loop, wires, held):
    sock, peer = wires(100)
    one = held(d.Socket(sock))
    loop.call_soon(peer.reset)
    with contextlib.suppress(ConnectionError):
        one.read_line()
    try:
        with d.timeout(1):
            d.Event().wait()
    except TimeoutError:
        pass
    one.close()


def test_what_a_variable_of_its_own_context_names(loop, wires, run_turns, held):
    variable = ContextVar("variable")

    class Named(Callback):
        __slots__ = ()

        def event_read(self):
            variable.set(self)
            super().event_read()

    sock, peer = wires(100)
    connection(held, sock, Named)
    peer.send(b"x")
    run_turns(2)
    peer.close()
    run_turns(3)


def test_a_socket_that_is_closed_while_no_loop_runs(loop, wires, held):
    sock, peer = wires(100)
    one = held(d.Socket(sock))
    peer.send(b"x")
    peer.close()
    assert one.read_to_end() == b"x"
    one.write_soon(held.data)
    one.close()
    del one
    assert held.references[0]() is None


def test_by_an_error_that_is_logged(loop, wires, run_turns, held, monkeypatch):
    logger = logging.getLogger("dangagreen")
    monkeypatch.setattr(logger, "propagate", False)  # the test runner keeps records
    told = Told()
    logger.addHandler(told)
    loop.on_error = ErrorLog(loop.clock)
    try:
        for _ in range(20):  # more than are told in full
            sock, peer = wires(1000)
            one = connection(held, sock)
            one.write(held.data)
            peer.send(b"fail")
            d.spawn(fails, held(d.Socket(wires(1000)[0])), held.data)
            run_turns(2)
            assert one.closed
            del one
    finally:
        logger.removeHandler(told)
    assert "in event_read" in told.text
    assert "in fails" in told.text
    loop._abandon_all()


class Told(logging.Handler):
    """Keeps what a log file would have."""

    def __init__(self):
        super().__init__()
        self.text = ""

    def emit(self, record):
        self.text += self.format(record)
        record.exc_info = None
