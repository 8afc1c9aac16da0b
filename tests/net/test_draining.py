"""How servers end: drain in the three styles, who is idle, who is cut off. serve_forever is in test_serve_forever.

Real clients and real processes are in test_shutdown_for_real.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket

import pytest

import dangagreen as d
from dangagreen.errors import OUT_OF_RESOURCES
from dangagreen.green.sched import scheduler
from dangagreen.system_calls import accepting
from tests.connections import Echo, echo_one_line, ends, for_ever, styles
from tests.helpers import protected, results

LINGER = d.Listener.linger_seconds
NEWCOMER = d.Listener.new_connection_grace
CLEAN_UP = d.Listener.clean_up_seconds


sequential = pytest.mark.parametrize("server", [d.serve, d.serve_requests])


@pytest.fixture
def settled():
    """When a test is over nothing may be left of it."""

    def settled(listener):
        assert listener.connections == 0

    return settled


# -- who is idle


@styles
def test_idle_connections_are_ended_now(loop, served, attach, server, handler):
    listener = served(handler, server)
    clients = [attach(listener)[1] for _ in range(3)]
    start = loop.clock()
    tasks = ends(*clients)
    assert listener.drain() == []
    assert (loop.clock(), listener.closed, listener.connections) == (start, True, 0)
    assert results(tasks) == [b""] * 3
    assert not scheduler(loop).tasks


@styles
def test_connections_that_were_served_are_idle_again(loop, served, attach, server, handler):
    listener = served(handler, server)
    _, client = attach(listener)
    client.write_all(b"one\n")
    assert client.read_line() == b"one\n"
    d.sleep(1)
    start = loop.clock()
    tasks = ends(client)
    assert listener.drain() == []
    assert loop.clock() == start
    assert results(tasks) == [b""]


@styles
def test_over_every_poller(real_loop, served, client, server, handler, brief):
    listener = served(handler, server)
    idle, busy = client(listener), client(listener)
    busy.write_all(b"one\n")
    assert busy.read_line() == b"one\n"
    d.sleep(brief)
    busy.write(b"two\n")
    tasks = ends(idle, busy)
    assert listener.drain() == []
    assert results(tasks) == [b"", b"two\n"]


@styles
@pytest.mark.parametrize("turns", [0, 1, 2])
def test_a_request_that_has_come_is_served_first(loop, served, attach, run_turns, server, handler, turns):
    listener = served(handler, server)
    _, client = attach(listener)
    client.write(b"here\n")
    if turns:
        run_turns(turns)
    tasks = ends(client)
    assert listener.drain() == []
    assert results(tasks) == [b"here\n"]


@styles
def test_a_request_that_comes_in_the_turn_of_the_drain_is_served_first(loop, served, attach, server, handler):
    listener = served(handler, server)
    _, client = attach(listener)
    loop.call_soon(client.write, b"just now\n")  # when this turn's events are dispatched
    tasks = ends(client)
    assert listener.drain() == []
    assert results(tasks) == [b"just now\n"]


@styles
def test_a_peer_that_does_not_react_is_let_go_after_a_while(loop, served, attach, server, handler):
    listener = served(handler, server)
    sock, client = attach(listener)
    start = loop.clock()
    assert listener.drain() == []
    assert loop.clock() == pytest.approx(start + LINGER)
    assert sock.closed
    assert client.read_to_end() == b""
    client.close()


@styles
def test_a_request_that_comes_after_the_end_is_not_served_and_the_peer_finds_a_clean_end(
    loop, served, attach, server, handler
):
    listener = served(handler, server)
    _, client = attach(listener)
    drain = d.spawn(listener.drain)
    d.sleep(0.1)
    assert client.ready  # it was sent a FIN
    client.write_all(b"late\n")
    assert client.read_to_end() == b""
    client.close()
    drain.join()
    assert drain.result() == []


@styles
def test_a_newcomer_has_a_moment_for_its_request(loop, served, attach, server, handler):
    listener = served(handler, server)
    start = loop.clock()
    clients = [attach(listener, settle=0)[1] for _ in range(2)]
    drain = d.spawn(listener.drain)
    d.sleep(NEWCOMER / 2)
    clients[0].write_all(b"on its way\n")
    tasks = ends(*clients)
    drain.join()
    assert drain.result() == []
    assert results(tasks) == [b"on its way\n", b""]
    assert loop.clock() == pytest.approx(start + NEWCOMER)


@sequential
def test_who_is_at_work_finishes_its_request(loop, served, attach, server):
    def slow(sock):
        line = sock.read_line()
        d.sleep(10)
        sock.write_all(line)
        if server is d.serve:
            sock.read_line()

    listener = served(slow, server)
    _, client = attach(listener)
    client.write_all(b"work\n")
    d.sleep(1)
    start = loop.clock()
    tasks = ends(client)
    assert listener.drain() == []
    assert loop.clock() == start + 9
    assert results(tasks) == [b"work\n"]


@sequential
def test_several_requests_in_the_buffer_are_all_served(loop, served, attach, server):
    def slow(sock):
        while line := sock.read_line():
            d.sleep(1)
            sock.write_all(line)
            if server is d.serve_requests:
                return

    listener = served(slow, server)
    _, client = attach(listener)
    client.write_all(b"1\n2\n3\n")
    d.sleep(0.5)
    tasks = ends(client)
    assert listener.drain() == []
    assert results(tasks) == [b"1\n2\n3\n"]


def test_half_a_request_is_waited_for(loop, served, attach):
    for server in (d.serve, d.serve_requests):
        listener = served(echo_one_line, server)
        sock, client = attach(listener)
        client.write_all(b"half a ")
        drain = d.spawn(listener.drain)
        d.sleep(20)
        assert not sock.closed
        client.write_all(b"line\n")
        (task,) = ends(client)
        drain.join()
        assert drain.result() == []
        assert results([task]) == [b"half a line\n"]


def test_a_handler_of_serve_requests_that_waits_for_the_rest_with_an_empty_buffer_is_at_work(loop, served, attach):
    def two_lines(sock):
        sock.write_all(sock.read_line() + sock.read_line())

    listener = served(two_lines, d.serve_requests)
    _, client = attach(listener)
    client.write_all(b"one\n")
    drain = d.spawn(listener.drain)
    d.sleep(20)
    client.write_all(b"two\n")
    (task,) = ends(client)
    drain.join()
    assert results([task]) == [b"one\ntwo\n"]


def test_what_is_queued_is_sent_before_the_end(loop, served, attach):
    class Much(Echo):
        __slots__ = ()

        def event_read(self):
            if self.read(100):
                self.write(b"x" * 50000)

    listener = served(Much)
    sock, client = attach(listener, capacity=1000)
    client.write_all(b"please\n")
    drain = d.spawn(listener.drain)
    d.sleep(20)
    assert sock.unsent > 40000
    (task,) = ends(client)
    drain.join()
    assert drain.result() == []
    assert results([task]) == [b"x" * 50000]


def test_a_callback_connection_that_has_paused_reading_is_at_work(loop, served, attach):
    class Job(d.Socket):
        __slots__ = ()

        def event_read(self):
            self.read(100)
            self.watch_read(False)
            self.loop.add_timer(10, self.done)

        def done(self):
            self.write(b"done")
            self.watch_read(True)

    listener = served(Job)
    _, client = attach(listener)
    client.write_all(b"job")
    d.sleep(1)
    (task,) = ends(client)
    assert listener.drain() == []
    assert results([task]) == [b"done"]


def test_a_callback_connection_that_watches_writing_is_at_work(loop, served, attach, run_turns):
    class Producer(d.Socket):
        __slots__ = ("left",)

        def event_read(self):
            self.read(100)
            self.left = 30
            self.watch_write(True)

        def event_write(self):
            self.write(b"piece ")
            self.left -= 1
            self.watch_write(self.left > 0)

    listener = served(Producer)
    _, client = attach(listener)
    client.write(b"all of it")
    run_turns(5)
    loop.clock.jump(1)  # it is no newcomer
    (task,) = ends(client)
    assert listener.drain() == []
    assert results([task]) == [b"piece " * 30]


def test_a_class_that_knows_more_says_when_it_is_idle(loop, served, attach):
    class Job(d.Socket):
        __slots__ = ("jobs",)

        def __init__(self, sock):
            super().__init__(sock)
            self.jobs = 0

        @property
        def idle(self):
            return super().idle and not self.jobs

        def event_read(self):
            self.read(100)
            self.jobs += 1
            self.loop.add_timer(10, self.done)

        def done(self):
            self.jobs -= 1
            self.write(b"done")

    listener = served(Job)
    _, client = attach(listener)
    client.write_all(b"job")
    d.sleep(1)
    (task,) = ends(client)
    start = loop.clock()
    assert listener.drain() == []
    assert loop.clock() == start + 9
    assert results([task]) == [b"done"]


def test_an_idle_that_raises_is_reported_once_and_costs_its_own_connection(loop, served, attach, take_errors):
    class Bad(Echo):
        __slots__ = ()

        @property
        def idle(self):
            raise KeyError("mine")

    listener = served(Bad)
    sock, client = attach(listener)
    (task,) = ends(client)
    assert listener.drain() == []
    assert [type(context.exception) for context in take_errors()] == [KeyError]
    assert isinstance(sock.close_reason, KeyError)
    results([task])


def test_a_task_of_the_programs_own_on_a_callback_connection(loop, served, attach):
    class Chat(d.Socket):
        __slots__ = ()

        def event_read(self):
            self.watch_read(False)
            d.spawn(dialogue, self)

    def dialogue(sock):
        sock.read_line()
        d.sleep(10)
        sock.write_all(b"answer\n")
        with contextlib.suppress(d.ClosedError):
            sock.read_line()

    listener = served(Chat)
    _, client = attach(listener)
    client.write_all(b"x\n")
    d.sleep(1)
    (task,) = ends(client)
    assert listener.drain() == []
    assert results([task]) == [b"answer\n"]


def test_a_handler_whose_peer_has_gone_may_finish_its_work(loop, served, attach):
    done = []

    def handler(sock):
        sock.read_line()
        sock.close()
        d.sleep(10)
        done.append(loop.clock())

    listener = served(handler)
    _, client = attach(listener)
    client.write_all(b"x\n")
    d.sleep(1)
    assert listener.connections == 0
    assert listener.drain() == []
    assert done == [loop.clock()]
    client.close()


# -- work that a connection does not show


class Asks(d.Socket):
    """Answers each line from elsewhere, after a while, and says meanwhile that it is busy, in one of three ways."""

    __slots__ = ("held",)
    how = "block"

    def event_read(self):
        data = self.read(4096)
        if data is None:
            self.finish()
        elif self.how == "block":
            d.spawn(self.answer, data)
        else:
            self.held = self.busy()
            self.loop.add_timer(5, lambda: self.answer_now(data))

    def answer(self, data):
        with self.busy():
            d.sleep(5)
            self.write(data)

    def answer_now(self, data):
        self.write(data)
        self.held.release()
        self.held.release()  # harmless


class AsksByTimer(Asks):
    __slots__ = ()
    how = "timer"


@pytest.mark.parametrize("kind", [Asks, AsksByTimer])
def test_who_says_that_it_is_busy_is_waited_for(loop, served, attach, kind):
    listener = served(kind)
    _, client = attach(listener)
    client.write_all(b"question\n")
    d.sleep(1)
    start = loop.clock()
    (task,) = ends(client)
    assert listener.drain() == []
    assert loop.clock() == start + 4
    assert results([task]) == [b"question\n"]


def test_who_is_busy_at_the_deadline_is_cut_off(loop, served, attach):
    listener = served(Asks)
    sock, client = attach(listener)
    client.write_all(b"question\n")
    d.sleep(1)
    assert listener.drain(2) == [sock]
    client.close()
    d.sleep(10)


def test_several_may_hold_a_connection_busy(loop, served, attach):
    listener = served(Echo)
    sock, client = attach(listener)
    first, second = sock.busy(), sock.busy()
    assert not sock.idle
    loop.add_timer(1, first.release)
    loop.add_timer(2, first.release)
    loop.add_timer(3, second.release)
    start = loop.clock()
    (task,) = ends(client)
    assert listener.drain() == []
    assert loop.clock() == start + 3
    results([task])


def test_busy_in_a_server_of_requests(loop, served, attach):
    class Later(d.Socket):
        __slots__ = ()

        def event_read(self):
            line = self.read(4096)
            if line != b"later\n":
                self.push_back_read(line)
                return super().event_read()
            hold = self.busy()
            self.loop.add_timer(5, lambda: (self.write(b"now\n"), hold.release()))
            return None

    listener = served(echo_one_line, d.serve_requests, socket_class=Later)
    _, client = attach(listener)
    client.write_all(b"later\n")
    d.sleep(1)
    client.write_all(b"meanwhile\n")  # the default of event_read may start the handler
    d.sleep(1)
    (task,) = ends(client)
    assert listener.drain() == []
    assert results([task]) == [b"meanwhile\nnow\n"]


def test_a_busy_connection_does_not_wait_for_its_peer(loop, served, attach):
    class Timed(Asks):
        __slots__ = ()
        idle_timeout = 3.0

    listener = served(Timed)
    sock, client = attach(listener, settle=0)
    client.write_all(b"question\n")
    assert client.read_exactly(9) == b"question\n"
    answered = loop.clock()
    client.read_to_end()
    assert "idle" in str(sock.close_reason)
    assert loop.clock() == pytest.approx(answered + 3)
    client.close()
    listener.close()


def two_steps(sock):
    """Requests of a head and a body, each a line; the first of a connection takes ten seconds."""
    seconds = 10
    while head := sock.read_line():
        body = sock.read_line()
        d.sleep(seconds)
        seconds = 0
        sock.write_all(head + body)


@pytest.mark.parametrize("with_the_first", [True, False])
def test_a_handler_that_has_read_and_not_answered_is_at_work(loop, served, attach, with_the_first):
    listener = served(two_steps)
    _, client = attach(listener)
    client.write_all(b"head\nbody\n" + (b"head 2\n" if with_the_first else b""))
    d.sleep(1)
    drain = d.spawn(listener.drain)
    d.sleep(8.9)
    if not with_the_first:
        client.write_all(b"head 2\n")
    assert client.read_exactly(10) == b"head\nbody\n"
    d.sleep(0.2)
    client.write_all(b"body 2\n")
    assert client.read_to_end() == b"head 2\nbody 2\n"
    client.close()
    drain.join()
    assert drain.result() == []


def test_a_rest_that_does_not_come_in_a_moment_is_waited_for_no_longer(loop, served, attach):
    listener = served(two_steps)
    _, client = attach(listener)
    client.write_all(b"head\nbody\nhead 2\n")
    d.sleep(1)
    start = loop.clock()
    (task,) = ends(client)
    assert listener.drain() == []
    assert loop.clock() == pytest.approx(start + 9 + NEWCOMER)
    assert results([task]) == [b"head\nbody\n"]


def test_who_answers_all_it_reads_is_idle_at_once(loop, served, attach):
    def echo_slowly(sock):
        while data := sock.read_some():
            d.sleep(3)
            sock.write(data)

    listener = served(echo_slowly)
    _, client = attach(listener)
    client.write_all(b"x")
    d.sleep(1)
    start = loop.clock()
    (task,) = ends(client)
    assert listener.drain() == []
    assert loop.clock() == start + 2
    assert results([task]) == [b"x"]


def test_a_handler_that_never_writes_holds_no_drain_up(loop, served, attach):
    def log_sink(sock):
        while sock.read_some():
            pass

    listener = served(log_sink)
    _, client = attach(listener)

    def talk():
        for _ in range(1000):
            client.write(b"a line\n")
            d.sleep(0.05)

    talker = d.spawn(talk)
    d.sleep(1)
    start = loop.clock()
    (task,) = ends(client)
    listener.drain()
    assert loop.clock() <= start + 2 * NEWCOMER
    talker.cancel()
    results([task])


@pytest.mark.parametrize("number", [3, 400])
def test_a_turn_of_a_drain_costs_little_however_many_there_are(loop, served, attach, run_turns, number):
    looks = 0

    class Counts(Echo):
        __slots__ = ()
        working = True

        @property
        def idle(self):
            nonlocal looks
            looks += 1
            return not self.working and super().idle

    listener = served(Counts)
    clients = [attach(listener, settle=0)[1] for _ in range(number)]
    d.sleep(1)
    drain = d.spawn(listener.drain)
    d.sleep(1)
    looks = 0
    run_turns(100)  # in which no time passes
    assert looks <= 100 * 10
    tasks = ends(*clients)
    Counts.working = False
    start = loop.clock()
    drain.join()
    assert loop.clock() <= start + 0.05
    results(tasks)


# -- who waits to be accepted


def connected(path):
    """A plain socket. What it sends is in the other's queue at once: on TCP a busy kernel may deliver it later, and
    the virtual clock would not wait."""
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(30)
    peer.connect(path)
    return peer


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "listener")


@styles
def test_connections_in_the_kernels_queue_are_accepted_and_served(loop, served, path, server, handler):
    listener = served(handler, server, path)
    peers = [connected(path) for _ in range(100)]
    for peer in peers:
        peer.sendall(b"hello\n")
    done = d.spawn(listener.drain)
    d.sleep(0.1)
    assert listener.closed
    for peer in peers:
        assert peer.recv(100) == b"hello\n"
    d.sleep(0.2)
    for peer in peers:
        assert peer.recv(100) == b""
        peer.close()
    done.join(30)
    assert done.result() == []


@styles
def test_connections_from_the_queue_may_send_their_requests_a_little_later(loop, served, path, server, handler):
    listener = served(handler, server, path)
    peers = [connected(path) for _ in range(100)]  # more than are accepted in a turn
    done = d.spawn(listener.drain)
    d.sleep(NEWCOMER / 2)
    assert listener.connections == 100
    for peer in peers:
        peer.sendall(b"hello\n")
    d.sleep(0)
    d.sleep(0)
    for peer in peers:
        assert peer.recv(100) == b"hello\n"
        peer.close()
    done.join(30)
    assert done.result() == []


@pytest.mark.descriptors(400)
@pytest.mark.parametrize("number", [1, 63, 64, 65, 128])
def test_the_listening_socket_closes_as_soon_as_the_queue_is_empty(loop, served, run_turns, path, number):
    listener = served(Echo, address=path)
    peers = [connected(path) for _ in range(number)]
    done = d.spawn(listener.drain)
    run_turns(number // 64 + 3)
    assert listener.closed
    assert listener.connections == number
    for peer in peers:
        peer.close()
    done.join()


def test_a_drained_server_refuses_new_connections(real_loop, served, client, wait_for):
    reads, goes_on = d.Event(), d.Event()

    def handler(sock):
        sock.read_line()
        reads.set()
        goes_on.wait()

    listener = served(handler)
    sock = client(listener)
    sock.write_all(b"x\n")
    reads.wait(30)
    done = d.spawn(listener.drain)
    wait_for(lambda: listener.closed)
    with pytest.raises(ConnectionRefusedError):
        d.connect(listener.address, 30)
    goes_on.set()
    sock.read_to_end()
    sock.close()
    done.join(30)


def test_the_fd_of_the_listening_socket_may_be_taken_at_once(loop, served):
    listener = served(Echo)
    fd = listener.fd
    peer = socket.create_connection(listener.address, 30)
    done = d.spawn(listener.drain)
    while not listener.closed:
        d.sleep(0)
    again = served(Echo)
    assert loop.handlers.get(fd) is not listener
    with d.connect(again.address, 30) as sock:
        sock.write_all(b"x\n")
        assert sock.read_line() == b"x\n"
    peer.close()
    done.join()
    assert not again.closed
    again.drain()


def test_at_max_connections_those_in_the_queue_have_their_turn(loop, served):
    listener = served(echo_one_line, max_connections=2)
    peers = [socket.create_connection(listener.address, 30) for _ in range(7)]
    for peer in peers:
        peer.sendall(b"hello\n")
        peer.shutdown(socket.SHUT_WR)
    assert listener.drain() == []
    for peer in peers:
        assert peer.recv(100) == b"hello\n"
        peer.close()


def test_at_max_connections_with_nobody_in_the_queue_it_ends_all_the_same(loop, served, client):
    def handler(sock):
        sock.read_line()
        d.sleep(5)

    listener = served(handler, max_connections=1)
    sock = client(listener)
    sock.write_all(b"x\n")
    d.sleep(1)
    assert not loop.handlers[listener.fd]._watch_read
    (task,) = ends(sock)
    start = loop.clock()
    assert listener.drain(None) == []
    assert loop.clock() == start + 4
    results([task])


def test_each_that_does_not_react_has_its_while(loop, served):
    listener = served(Echo, max_connections=1)
    peers = [socket.create_connection(listener.address, 30) for _ in range(2)]
    d.sleep(1)
    start = loop.clock()
    assert listener.drain() == []
    assert loop.clock() == pytest.approx(start + LINGER + NEWCOMER + LINGER)
    for peer in peers:
        peer.close()


def test_whom_nobody_could_accept_in_time_is_reset(loop, served, attach):
    listener = served(for_ever, max_connections=1)
    sock, client = attach(listener)
    client.write_all(b"x\n")
    d.sleep(1)
    waiting = socket.create_connection(listener.address, 30)
    assert listener.drain(3) == [sock]
    with pytest.raises(ConnectionResetError):
        waiting.recv(1)
    waiting.close()
    client.close()


class Scarce:
    """A listening socket that is out of descriptors at a certain call of accept."""

    def __init__(self, sock, calls):
        self.sock, self.calls = sock, calls

    def accept(self):
        self.calls -= 1
        if self.calls == 0:
            raise OSError(next(iter(OUT_OF_RESOURCES)), "out of them")
        return self.sock.accept()

    def __getattr__(self, name):
        return getattr(self.sock, name)


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_a_listener_that_rests_accepts_the_queue_when_it_can(loop, served, caplog, calls):
    listener = served(Echo)
    scarce, acceptor = Scarce(listener.sock, calls), loop.handlers[listener.fd]
    acceptor._accept_one = accepting(scarce)
    with socket.create_connection(listener.address, 30) as peer:
        peer.sendall(b"x\n")
        done = d.spawn(listener.drain)
        d.sleep(0.1)
        assert "pauses accepting" in caplog.text
        assert not listener.closed
        with socket.create_connection(listener.address, 30) as other:
            other.sendall(b"y\n")
            d.sleep(listener.accept_backoff)
            assert listener.closed
            assert (peer.recv(10), other.recv(10)) == (b"x\n", b"y\n")
    done.join()


def test_a_listener_that_rests_for_nothing_ends_all_the_same(loop, served):
    listener = served(Echo)
    loop.handlers[listener.fd]._back_off(OSError("for nothing"))
    start = loop.clock()
    assert listener.drain(None) == []
    assert loop.clock() == start + listener.accept_backoff


@styles
def test_the_path_of_a_unix_socket_is_free_at_once(loop, served, client, tmp_path, server, handler):
    path = tmp_path / "socket"
    listener = served(handler, server, address=path)
    queued = socket.socket(socket.AF_UNIX)
    queued.connect(str(path))
    queued.sendall(b"queued\n")
    done = d.spawn(listener.drain)
    d.sleep(0)
    d.sleep(0)
    assert not path.exists()
    successor = served(handler, server, address=path)
    other = client(successor)
    other.write_all(b"new\n")
    assert other.read_line() == b"new\n"
    assert queued.recv(100) == b"queued\n"
    queued.close()
    done.join()
    assert path.exists()
    other.close()
    successor.drain()
    assert not path.exists()


def test_the_path_is_gone_also_while_some_are_still_to_be_accepted(loop, served, tmp_path):
    path = tmp_path / "socket"
    listener = served(echo_one_line, address=path, max_connections=1)
    peers = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    for peer in peers:
        peer.connect(str(path))
    done = d.spawn(listener.drain)
    d.sleep(0)
    d.sleep(0)
    assert not path.exists()
    assert not listener.closed
    for peer in peers:
        peer.close()
    done.join()


def test_the_listening_socket_closes_at_once_and_forgets_its_path(loop, served, tmp_path):
    path, again = tmp_path / "socket", tmp_path / "again"
    listener = served(Echo, address=path)
    os.link(path, again)  # the same file: so may a successor's be
    open_after_close = []

    def after_each_turn(*_maps):
        if listener.closed and again.exists():
            open_after_close.append(listener.sock.fileno() >= 0)
            again.rename(path)
        return True

    loop.post_loop_callback = after_each_turn
    assert listener.drain() == []
    d.sleep(1)
    loop.post_loop_callback = None
    assert open_after_close == [False]
    assert path.exists()


# -- the deadline


@sequential
def test_at_the_deadline_handlers_are_cancelled(loop, served, attach, server):
    ended = []

    def handler(sock):
        try:
            for_ever(sock)
        finally:
            ended.append(loop.clock())

    listener = served(handler, server)
    busy, client = attach(listener)
    _, idle = attach(listener)
    client.write_all(b"x\n")
    d.sleep(1)
    start = loop.clock()
    tasks = ends(idle)
    assert listener.drain(grace=7) == [busy]
    assert ended[-1] == start + 7
    assert busy.closed
    assert "drain" in str(busy.close_reason)
    assert client.read_to_end() == b""
    client.close()
    assert results(tasks) == [b""]


def test_at_the_deadline_callback_connections_are_closed_with_a_reason(loop, served, attach):
    class Deaf(d.Socket):
        __slots__ = ()

        def event_read(self):
            self.watch_read(False)

    listener = served(Deaf)
    sock, client = attach(listener)
    client.write_all(b"unread")
    start = loop.clock()
    assert listener.drain(grace=3) == [sock]
    assert loop.clock() == start + 3
    assert sock.closed
    assert "drain" in sock.close_reason
    client.close()


def test_a_peer_that_does_not_take_its_reply_is_cut_off(loop, served, attach):
    listener = served(Echo)
    sock, client = attach(listener, capacity=10)
    client.write_all(b"x" * 100)
    assert listener.drain(grace=3) == [sock]
    client.close()


def test_no_grace(loop, served, attach):
    for grace in (0, -1):
        listener = served(for_ever, d.serve_requests)
        busy, client = attach(listener)
        client.write_all(b"x\n")
        _, idle = attach(listener)
        d.sleep(1)
        start = loop.clock()
        assert listener.drain(grace) == [busy]
        assert loop.clock() == start
        assert (client.read_to_end(), idle.read_to_end()) == (b"", b"")
        client.close()
        idle.close()


def test_no_limit(loop, served, attach):
    def slow(sock):
        sock.read_line()
        d.sleep(100000)

    listener = served(slow)
    _, client = attach(listener)
    client.write_all(b"x\n")
    start = loop.clock()
    assert listener.drain(None) == []
    assert loop.clock() >= start + 100000
    client.close()


@sequential
def test_clean_up_is_waited_for(loop, served, attach, server):
    cleaned = []

    def handler(sock):
        try:
            for_ever(sock)
        finally:
            protected(CLEAN_UP - 1)
            cleaned.append(sock)

    listener = served(handler, server)
    sock, client = attach(listener)
    client.write_all(b"x\n")
    start = loop.clock()
    assert listener.drain(2) == [sock]
    assert cleaned == [sock]
    assert loop.clock() == start + 2 + CLEAN_UP - 1
    client.close()


def test_clean_up_is_waited_for_where_the_connection_is_closed_already(loop, served, attach):
    cleaned = []

    def handler(sock):
        try:
            with sock:
                for_ever(sock)
        finally:
            protected(2)
            cleaned.append(sock)

    listener = served(handler)
    sock, client = attach(listener)
    client.write_all(b"x\n")
    assert listener.drain(2) == [sock]
    assert cleaned == [sock]
    client.close()


def test_clean_up_is_bounded(loop, served, attach, caplog):
    def handler(sock):
        try:
            for_ever(sock)
        finally:
            protected(1000)

    listener = served(handler)
    sock, client = attach(listener)
    client.write_all(b"x\n")
    start = loop.clock()
    with caplog.at_level(logging.WARNING, "dangagreen"):
        assert listener.drain(2) == [sock]
    assert loop.clock() == start + 2 + CLEAN_UP
    assert "handler" in caplog.text
    assert sock.closed
    assert listener.drain() == [sock]
    d.sleep(1000)
    client.close()


@pytest.mark.parametrize("capacity", [65536, 10])
def test_a_cancelled_handler_may_say_farewell(loop, served, attach, capacity):
    def handler(sock):
        try:
            for_ever(sock)
        except d.Cancelled:
            sock.write(b"503 we are closing\n" * 100)
            sock.finish()
            raise

    listener = served(handler)
    sock, client = attach(listener, capacity=capacity)
    client.write_all(b"x\n")
    (task,) = ends(client)
    assert listener.drain(2) == [sock]
    assert results([task]) == [b"503 we are closing\n" * 100]


def test_a_handler_that_goes_on_without_its_connection_is_cut_off_too(loop, served, attach):
    def handler(sock):
        sock.read_line()
        sock.close("not needed any more")
        d.sleep(1e9)

    listener = served(handler)
    sock, client = attach(listener)
    client.write_all(b"x\n")
    d.sleep(1)
    assert listener.drain(2) == [sock]
    assert sock.close_reason == "not needed any more"
    assert not scheduler(loop).tasks
    client.close()


def test_handlers_that_were_not_started_at_the_deadline_never_run(loop, served):
    ran = []
    listener = served(ran.append)
    peers = [socket.create_connection(listener.address, 30) for _ in range(38)]  # some are accepted in the last moment
    assert len(listener.drain(0)) == 6
    assert len(ran) == 32
    for peer in peers:
        assert peer.recv(1) == b""
        peer.close()


def test_a_handler_that_swallows_its_cancellation_serves_no_more(loop, served, attach):
    served_lines = []

    def stubborn(sock):
        served_lines.append(sock.read_line())
        try:
            d.sleep(1e9)
        except d.Cancelled:
            pass

    listener = served(stubborn, d.serve_requests)
    sock, client = attach(listener)
    client.write_all(b"one\n")
    d.sleep(1)
    client.write_all(b"two\n")
    assert listener.drain(2) == [sock]
    assert served_lines == [b"one\n"]
    client.close()


@styles
def test_a_listener_that_was_closed(loop, served, attach, server, handler):
    listener = served(handler, server)
    _, client = attach(listener)
    listener.close()
    client.write_all(b"still here\n")
    assert client.read_line() == b"still here\n"
    d.sleep(1)
    (task,) = ends(client)
    assert listener.drain() == []
    assert results([task]) == [b""]


def test_nothing_to_do(loop, served):
    listener = served(Echo)
    start = loop.clock()
    assert listener.drain() == []
    assert listener.drain() == []
    assert loop.clock() == start


def test_other_listeners_are_left_alone(loop, served, attach):
    one, other = served(Echo), served(Echo)
    (_, client), (_, stranger) = attach(one), attach(other)
    (task,) = ends(client)
    assert one.drain() == []
    results([task])
    stranger.write_all(b"x\n")
    assert stranger.read_line() == b"x\n"
    stranger.close()
    d.sleep(0)
    d.sleep(0)


def test_a_reset_of_the_loop_forgets_the_drain(loop, served, attach):
    listener = served(for_ever)
    _, client = attach(listener)
    client.write_all(b"x\n")
    drain = d.spawn(listener.drain, None)
    d.sleep(1)
    loop.reset()
    assert drain.done
    assert listener.drain(1) == []


def test_interrupted_at_the_top_level_it_goes_on(loop, served, attach):
    listener = served(for_ever)
    sock, client = attach(listener)
    client.write_all(b"x\n")
    d.sleep(1)

    def interrupt():
        raise KeyboardInterrupt

    loop.add_timer(1, interrupt)
    with pytest.raises(KeyboardInterrupt):
        listener.drain(3)
    start = loop.clock()
    assert listener.drain() == [sock]
    assert loop.clock() == start + 2
    client.close()


# -- after a stall of the process


def test_who_ended_before_a_stall_of_the_process_is_not_late(loop, run_until):
    """The drain's own time for it may be over before the event of that end is dispatched."""
    socks = []

    class Quiet(d.Socket):
        def __init__(self, sock):
            super().__init__(sock)
            socks.append(self)

        def event_read(self):
            if self.read(10) is None:
                self.finish()

    listener = d.serve(("127.0.0.1", 0), Quiet)
    peers = [socket.create_connection(listener.address) for _ in range(3)]
    run_until(lambda: listener.connections == 3)
    task = d.spawn(listener.drain, 30)
    run_until(lambda: listener.draining and listener._drain._linger_until is not None)
    for peer in peers[:2]:
        peer.close()
    loop.clock.jump(60)
    listener._drain._linger_together(loop.clock())
    assert [sock.close_reason for sock in socks] == [None, None, "the peer did not end its side"]
    peers[2].close()
    run_until(lambda: task.done)
    assert task.result() == []


# -- several addresses


@styles
def test_a_server_of_several_addresses_has_one_drain(loop, served, tmp_path, server, handler):
    path = tmp_path / "socket"
    listener = served(handler, server, address=[("127.0.0.1", 0), ("::1", 0), path], max_connections=4)
    peers = []
    for address in listener.addresses * 3:
        peers.append(socket.socket(socket.AF_UNIX) if address == str(path) else socket.socket(family_of(address)))
        peers[-1].connect(address)
        peers[-1].sendall(b"hello\n")
        peers[-1].shutdown(socket.SHUT_WR)
    assert listener.drain() == []
    assert listener.closed
    assert not path.exists()
    for peer in peers:
        assert peer.recv(100) == b"hello\n"
        peer.close()


def family_of(address):
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


def test_a_drain_ends_connections_of_each_address_and_cuts_off_the_rest_together(loop, served):
    listener = served(for_ever, address=[("127.0.0.1", 0), ("::1", 0)])
    socks = [d.connect(address) for address in listener.addresses]
    for sock in socks:
        sock.write_all(b"work\n")
    d.sleep(1)
    start = loop.clock()
    assert len(listener.drain(3)) == 2
    assert loop.clock() == start + 3
    for sock in socks:
        sock.close()
