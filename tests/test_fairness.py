"""Nobody starves: beside each flood, a ticker keeps its time and another connection is served.

The ticker has a deadline every 10 ms; a tick is kept if it comes before the next one is due. Time is counted in two
ways, neither of which depends on what else the machine does. "exact", over each poller: the clock stands still but for
the work that the flood says it does, 50 microseconds a time. "processor", over the best one: the clock is this thread's
processor time, twice as fast, as if on a slow machine.
"""

from __future__ import annotations

import gc
import itertools
import socket
import time
from contextlib import ExitStack

import pytest

import dangagreen as d
from dangagreen.loop.pollers import available_pollers
from dangagreen.testing import virtual_loop

TICK = 0.01
TICKS = 100
WORK = 50e-6  # seconds of each piece of work, on the exact clock
SLOWER = 2
MANY = pytest.mark.descriptors(800)  # two for each of 300 connections, and some


class World:
    """A loop over one poller, and `keep`, which closes things in the end."""

    def __init__(self, loop, keep, tmp_path, piece):
        self.loop, self.keep, self.tmp_path = loop, keep, tmp_path
        self.piece, self.worked = piece, 0
        self.attempts = 1 if piece else 5  # the kernel charges a thread with interrupts that are for others

    def work(self, pieces=1):
        """Pieces of work, each of which takes its time where the clock does not see to that."""
        self.worked += pieces
        if self.piece:
            self.loop.clock.jump(pieces * self.piece)

    def pair(self):
        """Two connected sockets that are closed in the end, whoever has them then."""
        ends = socket.socketpair()
        for end in ends:
            end.setblocking(False)
            self.keep.callback(end.close)
        return ends


WORLDS = [*(("exact", poller) for poller in available_pollers()), ("processor", available_pollers()[0])]


@pytest.fixture(params=WORLDS, ids=lambda world: f"{world[0]}-{world[1].__name__}")
def world(request, tmp_path):
    kind, poller_class = request.param
    if kind == "exact":
        loop, piece = virtual_loop(poller_class()), WORK
    else:
        loop, piece = d.Loop(clock=lambda: SLOWER * time.thread_time(), poller=poller_class()), 0.0
    gc.collect()
    gc.disable()  # its pauses, of which a test suite has long ones, are not the loop's
    try:
        with ExitStack() as keep, loop:
            yield World(loop, keep, tmp_path, piece)
    finally:
        gc.enable()


# -- the floods


class Feeder(d.Socket):
    """Sends as much as goes."""

    __slots__ = ()
    data = b""

    def event_write(self):
        try:
            self.sock.send(self.data)
        except BlockingIOError:
            pass

    def event_read(self):
        self.read(1 << 20)


def feed(sock, data):
    feeder = Feeder(sock)
    Feeder.data = data
    feeder.watch_read(True)
    feeder.watch_write(True)


def input_that_is_always_ready(world):
    near, far = world.pair()
    sock = d.Socket(near)

    def read():
        while sock.read_line():
            world.work()

    d.spawn(read)
    feed(far, (b"x" * 399 + b"\n") * 500)


def input_in_large_pieces(world):
    near, far = world.pair()
    sock = d.Socket(near)

    def read():
        while sock.read_some():
            world.work(10)

    d.spawn(read)
    feed(far, b"x" * 200_000)


def requests_that_come_together(world):
    def handler(sock):
        sock.write_all(sock.read_line())
        world.work()

    listener = d.serve_requests(str(world.tmp_path / "s"), handler)
    client = socket.socket(socket.AF_UNIX)
    client.connect(listener.address)
    feed(client, b"get\n" * 20_000)


class Pushing(d.Socket):
    """Leaves all of its input where it is, and wants to hear of it all the same."""

    __slots__ = ("work",)

    def event_read(self):
        self.push_back_read(self.read(100))
        self.watch_read(True)
        self.work()


def pushed_back_input(world, connections=1):
    for _ in range(connections):
        near, far = world.pair()
        sock = Pushing(near)
        sock.work = world.work
        sock.watch_read(True)
        far.send(b"x")


def pushed_back_input_of_many(world):
    pushed_back_input(world, 300)


class Slow(d.Socket):
    """Leaves most of its input where it is."""

    __slots__ = ("work",)

    def event_read(self):
        self.read(1)
        self.work()


def many_ready_connections(world):
    for _ in range(300):
        near, far = world.pair()
        sock = Slow(near)
        sock.work = world.work
        sock.watch_read(True)
        far.send(b"x" * 2000)


def calls(world):
    def call():
        world.work()
        world.loop.call_soon(call)

    for _ in range(5000):
        world.loop.call_soon(call)


def timers_that_are_due(world):
    def fire():
        world.work()
        world.loop.add_timer(0, fire)

    for _ in range(100):
        world.loop.add_timer(0, fire)


def spawned_and_joined(world):
    def parent():
        while True:
            for task in [d.spawn(world.work) for _ in range(20)]:
                task.join()

    for _ in range(10):
        d.spawn(parent)


def tasks_that_spawn_tasks(world):
    def task():
        world.work()
        d.spawn(task)

    for _ in range(2000):
        d.spawn(task)


def tasks_that_wake_each_other(world):
    def partner(there):
        while True:
            world.work(2)
            d.sleep(0)
            other = there()
            other.cancel()
            other.join()

    d.spawn(partner, lambda: d.spawn(d.sleep, 1e9))


def spinners(world):
    def spin():
        while True:
            world.work()
            d.sleep(0)

    for _ in range(2000):
        d.spawn(spin)


def queued_callables(world):
    near, _ = world.pair()
    sock = d.Socket(near)

    def again():
        world.work()
        sock.write(again)

    again()


def accepted_connections(world):
    class Accepted(d.Socket):
        __slots__ = ()

        def __init__(self, sock):
            super().__init__(sock)
            world.work(4)

        def event_read(self):
            self.close()

    listener = d.serve(str(world.tmp_path / "s"), Accepted)

    def storm():
        while True:
            clients = []
            for _ in range(40):
                client = socket.socket(socket.AF_UNIX)
                client.setblocking(False)
                clients.append(client)
                client.connect_ex(listener.address)
            try:
                d.sleep(0)
            finally:
                for client in clients:
                    client.close()

    for _ in range(2):
        d.spawn(storm)


FLOODS = [
    input_that_is_always_ready,
    input_in_large_pieces,
    requests_that_come_together,
    pushed_back_input,
    pytest.param(pushed_back_input_of_many, marks=MANY),
    pytest.param(many_ready_connections, marks=MANY),
    calls,
    timers_that_are_due,
    spawned_and_joined,
    tasks_that_spawn_tasks,
    tasks_that_wake_each_other,
    spinners,
    queued_callables,
    accepted_connections,
]


# -- beside them


def tick(loop):
    """How many of the ticks were kept."""
    start, kept = loop.clock(), 0
    for n in range(1, TICKS + 1):
        due = start + n * TICK
        d.sleep_until(due)
        kept += loop.clock() < due + TICK
    return kept


def be_served(near, served):
    """Ask and be answered, once in a tick at most."""
    sock = d.Socket(near)
    while True:
        sock.write_all(b"hello\n")
        assert sock.read_line() == b"HELLO\n"
        served.append(sock)
        d.sleep(TICK)


class Shout(d.Socket):
    __slots__ = ()

    def event_read(self):
        self.write((self.read(100) or b"").upper())


def ticks_beside(world):
    ticker = d.spawn(tick, world.loop)
    world.loop.run(lambda: ticker.done)
    return ticker.result()


@pytest.mark.slow
@pytest.mark.parametrize("flood", FLOODS, ids=lambda flood: flood.__name__)
def test_a_ticker_and_another_connection_live_beside(world, flood):
    near, far = world.pair()
    Shout(far).watch_read(True)
    served = []
    flood(world)
    d.spawn(be_served, near, served)
    assert any(ticks_beside(world) >= 95 for _ in range(world.attempts))
    assert len(served) >= 10
    assert world.worked >= (0.9 * TICKS * TICK / WORK if world.piece else 1000)  # it was a flood all the time


# -- and yet in order


def test_calls_that_are_too_many_for_a_turn_keep_their_order(loop, run_turns):
    called = []
    for n in range(1000):
        loop.call_soon(called.append, n)
    run_turns(1)
    assert 0 < len(called) < 1000
    run_turns(1000)
    assert called == list(range(1000))


@pytest.mark.in_order
def test_tasks_that_are_too_many_for_a_turn_keep_their_order(loop, run_turns):
    started = []
    for n in range(1000):
        d.spawn(started.append, n)
    run_turns(1)
    assert 0 < len(started) < 1000
    run_turns(1000)
    assert started == list(range(1000))


def test_sleep_0_lets_everybody_else_run_however_many_they_are(loop):
    def parent():
        for _ in range(1000):
            d.spawn(started.append, "a child")
        d.sleep(0)
        return len(started)

    started = []
    task = d.spawn(parent)
    task.join()
    assert task.result() == 1000


def test_sleep_0_of_many_that_is_cancelled_leaves_nothing_behind(loop, run_turns):
    def parent():
        for _ in range(1000):
            d.spawn(int)
        d.sleep(0)

    task = d.spawn(parent)
    run_turns(1)
    assert task.waits_for == "sleep(0)"
    assert loop.runnable
    task.cancel()
    run_turns(40)
    assert task.done
    assert not loop.runnable
    assert not loop.ready


def test_timers_that_are_too_many_for_a_turn_fire_in_order(loop, run_until):
    fired = []
    for n in range(1000):
        loop.add_timer(1, lambda n=n: fired.append((n, loop.clock())))
    run_until(lambda: len(fired) == 1000)
    assert fired == [(n, 1001.0) for n in range(1000)]


def test_a_reset_in_the_middle_of_a_round_leaves_nothing_to_wait_for(loop, run_turns):
    ran = []
    for _ in range(1000):
        d.spawn(ran.append, 1)
    run_turns(1)
    loop.reset()
    ran.clear()
    loop.call_soon(ran.append, 2)
    run_turns(2)
    assert ran == [2]


def test_a_timer_that_closes_sockets_of_the_same_large_batch_does_no_harm(world):
    """Timers fire between the events of a batch: whoever is closed there gets no event any more."""
    got = []

    class Reader(d.Socket):
        __slots__ = ()

        def event_read(self):
            assert not self.closed
            got.append(self.read(10))
            world.work()

    socks = []
    for _ in range(100):
        near, far = world.pair()
        socks.append(Reader(near))
        socks[-1].watch_read(True)
        far.send(b"x")
    world.loop.add_timer(0, lambda: [sock.close() for sock in socks])
    world.loop.run(lambda: True)
    assert all(sock.closed for sock in socks)
    assert set(got) == {b"x"}


# -- bounded in time


def timers(loop, call):
    for _ in range(64):
        loop.add_timer(0, call)


def calls(loop, call):
    for _ in range(64):
        loop.call_soon(call)


def tasks(loop, call):
    for _ in range(64):
        d.spawn(call)


@pytest.mark.parametrize("begin", [timers, calls, tasks])
def test_what_takes_long_is_left_to_the_next_turn(loop, run_turns, begin):
    done = []

    def call():
        loop.clock.jump(0.0005)
        done.append(loop.clock())

    begin(loop, call)
    run_turns(1)
    assert 1 <= len(done) <= 16
    run_turns(64)
    assert len(done) == 64


def test_callables_in_a_write_queue_that_take_long_are_left_to_the_next_turn(loop, wires, run_turns):
    sock, done = d.Socket(wires(100)[0]), []

    def call():
        loop.clock.jump(0.002)
        done.append(1)

    def first():
        for _ in range(10):
            sock.write(call)

    sock.write_soon(b"x")
    sock.write(first)
    run_turns(1)
    assert 1 <= len(done) <= 3
    run_turns(20)
    assert len(done) == 10


def test_pushed_back_input_whose_handlers_take_long(loop, wires, run_turns):
    done = []

    class Slow(d.Socket):
        def event_read(self):
            self.read(10)
            loop.clock.jump(0.0005)
            done.append(self)

    socks = [Slow(wires()[0]) for _ in range(64)]
    for sock in socks:
        sock.watch_read(True)
        sock.push_back_read(b"x")
    run_turns(1)
    assert 1 <= len(done) <= 16
    run_turns(64)
    assert done == socks


@pytest.mark.parametrize(("clients", "most"), [(2, 5), (20, 13)])
def test_requests_of_one_connection_leave_a_share_of_the_time_to_the_others(loop, run_until, clients, most):
    """Of 10 us each."""
    served = []

    def handler(sock):
        served.append((sock, sock.read_line()))
        loop.clock.jump(1e-5)

    listener = d.serve_requests(("127.0.0.1", 0), handler)
    with ExitStack() as keep:
        socks = [keep.enter_context(socket.create_connection(listener.address)) for _ in range(clients)]
        run_until(lambda: listener.connections == clients)
        for sock in socks:
            sock.sendall(b"".join(b"%d\n" % n for n in range(200)))
        run_until(lambda: len(served) == 200 * clients)
    run_until(lambda: not listener.connections)
    listener.close()
    runs = [len(list(run)) for _, run in itertools.groupby(sock for sock, _ in served[: len(served) // 2])]
    assert max(runs) <= most
    for conn in {sock for sock, _ in served}:
        assert [line for sock, line in served if sock is conn] == [b"%d\n" % n for n in range(200)]


def test_who_is_closed_between_two_requests_is_served_no_more(loop, run_until):
    """While its handler has given way to others."""
    served = []

    def handler(sock):
        served.append(sock)
        sock.read_line()
        loop.clock.jump(1e-4)
        if len(served) == 2:
            loop.call_soon(sock.close)

    listener = d.serve_requests(("127.0.0.1", 0), handler)
    with socket.create_connection(listener.address) as one:
        one.sendall(b"x\n" * 10)
        run_until(lambda: served and not listener.connections)
    assert 2 <= len(served) <= 3
    listener.close()
