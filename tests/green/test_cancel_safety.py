"""Nothing is lost by an interruption: of each call alone, in each way, and of a whole workload at each of its parks."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Callable
from functools import partial

import greenlet
import pytest

import dangagreen as d
from dangagreen.testing import no_leaks, wire
from tests.connections import LOCAL, READS, Small, any_read, take
from tests.helpers import joined
from tests.inside import incoming

INTERRUPTED = "interrupted"


# -- the ways to be interrupted: each calls `call`, and interrupts it after `seconds`


def by_task_cancel(call, seconds):
    task = d.spawn(call)
    timer = d.current_loop().add_timer(seconds, task.cancel)
    task.join()
    timer.cancel()
    try:
        return task.result()
    except d.TaskCancelledError:
        return INTERRUPTED


def by_timeout(call, seconds):
    try:
        with d.timeout(seconds):
            return call()
    except TimeoutError:
        return INTERRUPTED


def by_move_on_after(call, seconds):
    with d.move_on_after(seconds):
        return call()
    return INTERRUPTED


def by_an_outer_timeout(call, seconds):
    try:
        with d.timeout(seconds), d.timeout(seconds), d.move_on_after(seconds + 1):
            return call()
    except TimeoutError:
        return INTERRUPTED


def by_scope_cancel(call, seconds):
    with d.move_on_after(None) as scope:
        timer = d.current_loop().add_timer(seconds, scope.cancel)
        try:
            return call()
        finally:
            timer.cancel()
    return INTERRUPTED


def by_group_cancel(call, seconds):
    with d.TaskGroup() as group:
        task = group.spawn(call)
        timer = d.current_loop().add_timer(seconds, group.cancel)
        task.join()
        timer.cancel()
    try:
        return task.result()
    except d.TaskCancelledError:
        return INTERRUPTED


WAYS = {
    "Task.cancel": by_task_cancel,
    "timeout": by_timeout,
    "move_on_after": by_move_on_after,
    "an outer timeout": by_an_outer_timeout,
    "scope.cancel": by_scope_cancel,
    "group.cancel": by_group_cancel,
}


@pytest.fixture(params=WAYS.values(), ids=WAYS)
def interrupting(request, loop):
    """`interrupting(call, seconds=1)` spawns a task that calls it and interrupts the call after so many seconds.

    The task's result is what the call returned, or INTERRUPTED.
    """

    def interrupting(call, seconds=1):
        return d.spawn(request.param, call, seconds)

    return interrupting


# -- reading

LINE = b"line 1\r\n"


@any_read
def test_an_interrupted_read_leaves_every_byte_in_the_buffer(loop, pair, interrupting, read):
    for split in range(len(LINE)):
        sock, far = pair()
        task = interrupting(partial(read, sock))
        for piece in (LINE[: split // 2], LINE[split // 2 : split]):
            if piece:
                far.send(piece)
            d.sleep(0.25)
        got = joined(task)
        if got == INTERRUPTED:
            assert sock.buffered == split
            got = b""
        else:
            assert read is READS["read_some"]
        far.send(LINE[split:])
        far.shutdown(1)
        if not got:
            got = read(sock)
        assert got + sock.read_to_end() == LINE
        sock.close()


@any_read
@pytest.mark.parametrize("bytes_first", [True, False])
@pytest.mark.parametrize("ended", [True, False])
def test_bytes_and_the_interruption_at_the_same_moment(loop, pair, interrupting, read, bytes_first, ended):
    sock, far = pair()

    def arrive():
        far.send(LINE)
        if ended:
            far.shutdown(1)

    if bytes_first:
        loop.add_timer(1, arrive)
    task = interrupting(partial(read, sock))
    d.sleep(0)
    if not bytes_first:
        loop.add_timer(1, arrive)
    got = joined(task)
    assert loop.clock() == 1001
    if not ended:
        far.shutdown(1)
    assert (b"" if got == INTERRUPTED else got) + sock.read_to_end() == LINE


@any_read
def test_bytes_that_were_pushed_back_at_the_moment_of_the_interruption(loop, pair, interrupting, read):
    sock, far = pair()
    loop.add_timer(1, lambda: sock.push_back_read(LINE))
    task = interrupting(partial(read, sock))
    got = joined(task)
    far.shutdown(1)
    assert (b"" if got == INTERRUPTED else got) + sock.read_to_end() == LINE


@any_read
def test_an_interrupted_read_consumes_nothing_that_is_there_already(loop, pair, interrupting, read):
    sock, far = pair()
    sock.push_back_read(LINE)
    far.shutdown(1)

    def read_at_once():
        with contextlib.suppress(d.Cancelled):
            d.sleep(100)
        return read(sock)

    assert joined(interrupting(read_at_once)) == INTERRUPTED
    assert sock.buffered == len(LINE)
    assert read(sock) == LINE


@any_read
def test_after_an_interrupted_read_another_task_may_read_at_once(loop, pair, interrupting, read):
    sock, far = pair()
    far.send(b"half")
    if read is READS["read_some"]:
        assert sock.read_some() == b"half"

    def first():
        try:
            return read(sock)
        finally:
            others.append(d.spawn(read, sock))

    others = []
    assert joined(interrupting(first)) == INTERRUPTED
    far.send(b"five\r\n" if read is not READS["read_exactly"] else b"five")
    far.shutdown(1)
    got = joined(others[0])
    assert got == {"read_some": b"five\r\n", "read_exactly": b"halffive"}.get(
        next(name for name, function in READS.items() if function is read), b"halffive\r\n"
    )


def test_an_interrupted_iteration_goes_on_with_the_next_one(loop, pair, interrupting):
    sock, far = pair()
    far.send(b"one\ntwo\nthr")
    seen = []

    def lines():
        for line in sock:
            seen.append(line)

    assert joined(interrupting(lines)) == INTERRUPTED
    assert seen == [b"one\n", b"two\n"]
    far.send(b"ee\nfour\n")
    far.shutdown(1)
    lines()
    assert seen == [b"one\n", b"two\n", b"three\n", b"four\n"]


def test_a_large_read_that_is_interrupted_again_and_again(loop, pair, interrupting):
    data = bytes(range(256)) * 1024
    sock, far = pair(capacity=1 << 20)
    for start in range(0, len(data), 50_000):
        far.send(data[start : start + 50_000])
        last = start + 50_000 >= len(data)
        got = joined(interrupting(lambda: sock.read_exactly(len(data))))
        assert (got == data) == last
    assert sock.buffered == 0


def test_a_read_of_the_end_that_is_interrupted_finds_it_again(loop, pair, interrupting):
    for read in READS.values():
        sock, far = pair()
        loop.add_timer(1, partial(far.shutdown, 1))
        task = interrupting(partial(read, sock))
        task.join()
        for _ in range(2):
            try:
                end = read(sock)
            except (EOFError, StopIteration):
                end = b""
            assert end == b""
        sock.close()


def test_the_partial_bytes_of_an_incomplete_read_are_handed_over_once(loop, pair, interrupting):
    for seconds in (1, 1.5):
        sock, far = pair()
        far.send(b"half")

        def end(far=far):
            far.shutdown(1)

        loop.add_timer(1, end)

        def read(sock=sock):
            try:
                return sock.read_line()
            except d.IncompleteReadError as error:
                return error.partial

        got = joined(interrupting(read, seconds))
        if got == INTERRUPTED:
            got = read()
        assert got == b"half"
        assert sock.read_to_end() == b""
        sock.close()


# -- writing


@pytest.fixture
def blocked(pair):
    """A function that makes a socket whose peer reads nothing, with more queued than the high-water mark."""

    def blocked():
        sock, far = pair(Small, capacity=0)
        sock.write_all(b"x" * 101)
        return sock, far

    return blocked


@pytest.mark.parametrize("size", [1, 50, 1000])
def test_an_interrupted_write_all_has_queued_nothing(loop, blocked, interrupting, size):
    sock, far = blocked()
    assert joined(interrupting(lambda: sock.write_all(b"y" * size))) == INTERRUPTED
    assert sock.unsent == 101
    sock.write(b"z")
    far.capacity = 65536
    sock.drain()
    assert take(far) == b"x" * 101 + b"z"


@pytest.mark.parametrize("room_first", [True, False])
@pytest.mark.parametrize("capacity", [10, 90, 65536])
def test_room_and_the_interruption_at_the_same_moment(loop, blocked, interrupting, room_first, capacity):
    sock, far = blocked()

    def room():
        far.capacity = capacity

    if room_first:
        loop.add_timer(1, room)
    task = interrupting(lambda: sock.write_all(b"y" * 1000))
    d.sleep(0)
    if not room_first:
        loop.add_timer(1, room)
    wrote = joined(task) != INTERRUPTED
    far.capacity = 65536
    sock.write(b"z")
    sock.drain()
    assert take(far) == b"x" * 101 + b"y" * 1000 * wrote + b"z"


def test_several_writers_of_which_some_are_interrupted(loop, blocked, interrupting):
    sock, far = blocked()
    tasks = [interrupting(lambda n=n: sock.write_all(b"%d" % n * 300), 1 + n % 3) for n in range(9)]
    for _ in range(40):
        far.capacity += 37
        d.sleep(0.1)
    far.capacity = 65536
    written = {n for n, task in enumerate(tasks) if joined(task) != INTERRUPTED}
    sock.drain()
    got = take(far).removeprefix(b"x" * 101)
    assert {n: got.count(b"%d" % n) for n in range(9)} == {n: 300 * (n in written) for n in range(9)}
    for n in written:
        assert b"%d" % n * 300 in got
    assert 0 < len(written) < 9


def test_what_was_queued_before_the_interruption_is_sent(loop, pair, interrupting):
    sock, far = pair()

    def write_and_wait():
        sock.write_all(b"one")
        sock.write_all(b"two")
        d.sleep(100)

    assert joined(interrupting(write_and_wait)) == INTERRUPTED
    d.sleep(0)
    assert take(far) == b"onetwo"


def test_an_interrupted_drain_drops_nothing(loop, blocked, interrupting):
    sock, far = blocked()
    assert joined(interrupting(sock.drain)) == INTERRUPTED
    assert sock.unsent == 101
    later = d.spawn(sock.drain)
    d.sleep(1)
    assert not later.done
    far.capacity = 65536
    later.join(1)
    assert take(far) == b"x" * 101


@pytest.mark.parametrize("way", ["Task.cancel", "scope.cancel"])
def test_an_interruption_between_the_entry_and_the_park_is_seen(loop, pair, way):
    """What drain sends first runs code that may cancel."""
    sock, far = pair(capacity=0)

    def writer(data):
        task.cancel() if way == "Task.cancel" else scopes[0].cancel()
        raise BlockingIOError

    def work():
        with d.move_on_after(100) as scope:
            scopes.append(scope)
            sock.write_all(b"x")
            sock.drain()
        return loop.clock()

    scopes = []
    sock.set_writer_func(writer)
    task = d.spawn(work)
    task.join(1)
    assert loop.clock() == 1000
    sock.set_writer_func(None)
    far.capacity = 10
    sock.drain()
    assert take(far) == b"x"


# -- connect


def test_an_interrupted_connect_leaks_no_descriptor(deaf_address, interrupting, loop):
    with no_leaks(loop):
        assert joined(interrupting(lambda: d.connect(deaf_address))) == INTERRUPTED
    assert loop.clock() == 1001
    with no_leaks(loop):
        assert joined(interrupting(lambda: d.connect(deaf_address, 50))) == INTERRUPTED


def test_an_interrupted_connect_to_a_full_unix_socket_leaks_no_descriptor(interrupting, loop, tmp_path):
    with socket.socket(socket.AF_UNIX) as full, socket.socket(socket.AF_UNIX) as filler:
        full.bind(str(tmp_path / "full"))
        full.listen(0)
        filler.connect(str(tmp_path / "full"))
        with no_leaks(loop):
            assert joined(interrupting(lambda: d.connect(tmp_path / "full"))) == INTERRUPTED


def test_an_interrupted_look_up_leaks_no_descriptor(interrupting, loop, monkeypatch, pool):
    gate, real = threading.Event(), socket.getaddrinfo

    def getaddrinfo(host, port, *args, **kwargs):
        if kwargs.get("flags", 0) & socket.AI_NUMERICHOST:
            return real(host, port, *args, **kwargs)
        gate.wait(10)
        return real("127.0.0.1", 1, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with no_leaks(loop):
        assert joined(interrupting(lambda: d.connect(("some.host", 1)))) == INTERRUPTED
        gate.set()
        pool.end()
        d.sleep(1)


@pytest.mark.parametrize("seconds", [0, 0.001])
def test_a_connect_interrupted_at_the_moment_it_succeeds_leaks_no_descriptor(interrupting, loop, seconds):
    with socket.create_server(LOCAL) as server, no_leaks(loop):
        task = interrupting(lambda: d.connect(server.getsockname()[:2]), seconds)
        sock = joined(task)
        if sock != INTERRUPTED:
            sock.close()


# -- join and sleep


def test_an_interrupted_join_leaves_the_task_alone(loop, interrupting):
    task = d.spawn(lambda: (d.sleep(5), "done")[1])
    assert joined(interrupting(task.join)) == INTERRUPTED
    assert not task.done
    assert joined(task) == "done"
    assert loop.clock() == 1005


def test_the_failure_of_a_task_whose_only_join_was_interrupted_is_reported_once(loop, interrupting, take_errors):
    error = KeyError("mine")

    def fail():
        d.sleep(5)
        raise error

    task = d.spawn(fail)
    assert joined(interrupting(task.join)) == INTERRUPTED
    d.sleep(10)
    assert [context.exception for context in take_errors()] == [error]


def test_an_interrupted_join_wakes_no_later_wait(loop, interrupting):
    short = d.spawn(d.sleep, 1)

    def join_and_sleep():
        try:
            short.join()
        finally:
            naps.append(d.spawn(nap))

    def nap():
        begun = loop.clock()
        d.sleep(5)
        return loop.clock() - begun

    naps = []
    joined(interrupting(join_and_sleep))
    assert joined(naps[0]) == 5


@pytest.mark.parametrize("seconds", [0, 0.5, 1, 50])
def test_an_interrupted_sleep_leaves_no_timer_and_wakes_no_later_wait(loop, interrupting, seconds):
    def nap():
        d.sleep(seconds)
        d.sleep(0)
        d.sleep(100)

    before = len(loop.timers)
    assert joined(interrupting(nap)) == INTERRUPTED
    assert loop.clock() == 1001
    assert len(loop.timers) == before
    d.sleep(3)
    assert loop.clock() == 1004


def test_a_sleep_of_no_seconds_that_is_interrupted_by_a_call_before_it(loop):
    """Both wait in one queue, and what is interrupted leaves it."""

    def work():
        loop.call_soon(d.current_task().cancel)
        d.sleep(0)

    task = d.spawn(work)
    task.join()
    with pytest.raises(d.TaskCancelledError):
        task.result()


@pytest.mark.parametrize("others", [0, 1, 5])
def test_sleeps_of_no_seconds_that_are_interrupted_by_a_call_before_them(loop, others):
    called = []

    def work():
        loop.call_soon(lambda: [task.cancel() for task in tasks])
        for _ in range(others):
            loop.call_soon(called.append, loop.poller.waits)
        loop.call_soon(lambda: called.append(loop.poller.waits))
        d.sleep(0)

    tasks = [d.spawn(work), d.spawn(d.sleep, 0), d.spawn(d.sleep, 0)]
    for task in tasks:
        task.join()
        with pytest.raises(d.TaskCancelledError):
            task.result()
    assert len(called) == others + 1
    d.sleep(1)
    assert loop.clock() == 1001


# -- what serve accepts


@pytest.fixture
def served(loop, wait_for):
    """A function that starts a server; it ends when its clients have."""
    listeners = []

    def served(handler, **options):
        listeners.append(d.serve(LOCAL, handler, **options))
        return listeners[-1]

    yield served
    for listener in listeners:
        wait_for(lambda listener=listener: not listener.connections)
        listener.close()


def test_a_connection_whose_handler_was_cancelled_is_closed_and_makes_room(loop, served):
    handlers = []

    def handler(sock):
        handlers.append(d.current_task())
        sock.write_all(b"hello\n")
        for line in sock:
            sock.write_all(line)

    listener = served(handler, max_connections=1)
    with d.connect(listener.address) as first, d.connect(listener.address) as second:
        assert first.read_line() == b"hello\n"
        handlers[0].cancel()
        assert first.read_to_end() == b""
        assert second.read_line() == b"hello\n"
        second.write_all(b"echo\n")
        assert second.read_line() == b"echo\n"


def test_a_handler_that_interrupts_itself_costs_its_own_connection(loop, served):
    def handler(sock):
        if sock.read_line() == b"cancel\n":
            d.current_task().cancel()
        sock.write_all(b"fine\n")

    listener = served(handler)
    answers = []
    for request in (b"cancel\n", b"go on\n"):
        with d.connect(listener.address) as sock:
            sock.write_all(request)
            answers.append(sock.read_to_end())
    assert answers == [b"", b"fine\n"]


def test_a_handler_whose_scope_ends_quietly_has_finished(loop, served):
    def handler(sock):
        with d.move_on_after(1):
            sock.write_all(b"hello\n")
            sock.read_line()

    listener = served(handler)
    with d.connect(listener.address) as sock:
        assert sock.read_to_end() == b"hello\n"
    assert loop.clock() == 1001


def test_a_handler_that_times_out_is_reported_and_its_connection_closed(loop, served, take_errors):
    def handler(sock):
        with d.timeout(1):
            sock.read_line()

    listener = served(handler)
    with d.connect(listener.address) as sock:
        assert sock.read_to_end() == b""
    assert [type(context.exception) for context in take_errors()] == [TimeoutError]


def test_connections_that_were_accepted_when_main_ends_are_closed(loop):
    """Their handlers may not even have started."""
    clients, served = [], []

    def handler(sock):
        served.append(sock)
        sock.read_line()

    for turns in range(6):
        served.clear()

        def main(turns=turns):
            listener = d.serve(LOCAL, handler)
            for _ in range(3):
                clients.append(socket.create_connection(listener.address, 5))
            for _ in range(turns):
                d.sleep(0)

        with no_leaks(loop):
            d.run(main)
            for client in clients:
                try:
                    assert client.recv(1) == b""
                except ConnectionResetError:
                    pass
                client.close()
            clients.clear()


# -- a workload that is interrupted at every park


class Interruption:
    """Interrupts one task of a run at the k-th park of all, in one way and at one moment; otherwise it counts.

    Greenlets tell where they switch: from a task to the hub is a park, and anything that is not from or to the hub
    is a mistake.
    """

    def __init__(self, loop, way, moment, number):
        self.loop = loop
        self.way = way
        self.moment = moment
        self.number = number
        self.parks = 0
        self.struck = None
        self.marked = None
        self.timer = None
        self.mistakes = []
        self.hub = greenlet.getcurrent()
        self.tasks = {}  # greenlet -> task
        self.scopes = {}  # task -> its scope

    def __enter__(self):
        greenlet.settrace(self.switched)
        return self

    def __exit__(self, *error):
        greenlet.settrace(None)
        if self.timer is not None:
            self.timer.cancel()

    def enclosed(self, job):
        """Do the job in this task, which may be interrupted meanwhile. True if it was, by its scope."""
        task = d.current_task()
        self.tasks[greenlet.getcurrent()] = task
        try:
            if self.way == "Task.cancel":
                job()
                return False
            return self.in_scope(task, job)
        finally:
            del self.tasks[greenlet.getcurrent()]

    def in_scope(self, task, job):
        scope = d.timeout(None) if self.way == "timeout" else d.move_on_after(None)
        self.scopes[task] = scope
        try:
            with scope:
                job()
        except TimeoutError:
            if not scope.cancelled_caught:
                raise
        return scope.cancelled_caught

    def switched(self, event, greenlets):
        origin, target = greenlets
        if self.hub not in greenlets:
            self.mistakes.append(f"{event} from {origin!r} to {target!r}")
        marked = self.marked
        if marked is not None and (marked.done or marked.waits_for is None):
            if self.tasks.get(target) is not marked:  # it was woken, and has not run yet
                self.marked = None
                self.strike(marked)
        task = self.tasks.get(origin)
        if task is None or target is not self.hub or (self.number is None and self.count()):
            return
        if self.number is not None and self.count() == self.number:
            self.deliver(task)

    def count(self):
        self.parks += 1
        return self.parks

    def deliver(self, task):
        if self.moment == "at once":
            self.strike(task)
        elif self.moment == "in the same turn":
            self.loop.call_soon(self.strike, task)
        elif self.moment == "later":
            self.timer = self.loop.add_timer(0.125, partial(self.strike, task))
        else:
            self.marked = task

    def strike(self, task):
        self.struck = task
        if self.way == "Task.cancel":
            task.cancel("struck")
        elif self.way == "scope.cancel":
            self.scopes[task].cancel("struck")
        else:
            self.scopes[task].deadline = self.loop.clock()


class Link:
    """Two sockets, one of which sends to the other. Both jobs may be interrupted, and be begun again."""

    def __init__(self, dice):
        near, far = wire(dice.choice((5, 40, 300)))
        self.near, self.far = Small(near), Small(far)
        self.dice = random.Random(dice.random())
        self.pieces = [bytes(dice.choices(b"ab\n", k=dice.choice((1, 3, 20, 130)))) for _ in range(dice.randint(3, 9))]
        self.data = b"".join(self.pieces)
        self.sent = 0
        self.got = b""
        self.ended = False

    def write(self):
        while self.pieces:
            self.near.write_all(self.pieces[0])
            self.sent += len(self.pieces.pop(0))
            self.pause(self.near.drain)
        self.near.write_eof()

    def read(self):
        while not self.ended:
            try:
                data = self.read_once()
            except d.IncompleteReadError as error:
                data = error.partial
            except d.LimitError:
                continue
            self.ended = not data
            self.got += data
            self.pause(lambda: None)

    def read_once(self):
        sock = self.far
        kind = self.dice.randrange(6)
        if kind == 0:
            return sock.read_exactly(self.dice.randint(1, 30))
        if kind == 1:
            return sock.read_line()
        if kind == 2:
            return sock.read_until(b"ab", self.dice.choice((10, 1000)))
        if kind == 3:
            return sock.read_some(self.dice.choice((1, 7, 1000)))
        if kind == 4:
            return sock.read_to_end(self.dice.choice((5, 50)))
        return next(iter(sock), b"")

    def pause(self, other):
        kind = self.dice.randrange(5)
        if kind == 0:
            d.sleep(self.dice.choice((0, 0.125, 0.3)))
        elif kind == 1:
            other()

    def check(self, descriptors):
        """Every byte is in exactly one place: in the queue, in the kernel, in the buffer or in the reader's hands."""
        near, far = self.near, self.far
        assert self.sent == near.unsent + len(incoming(far.sock)) + len(far.sock.received)
        assert len(far.sock.received) == len(self.got) + far.buffered
        for sock in (near, far):
            assert sock.closed or descriptors.get(sock.fd) is sock

    def check_end(self):
        assert self.got == self.data

    def close(self):
        self.near.close()
        self.far.close()


class Doomed:
    """A connection that is closed on this side while one task reads it and another writes to it."""

    def __init__(self, loop, seconds):
        near, self.peer = wire(10)
        self.sock = Small(near)
        self.timer = loop.add_timer(seconds, partial(self.sock.close, "doomed"))
        self.ends = []

    def read(self):
        self.until_closed(self.sock.read_line)

    def write(self):
        self.until_closed(lambda: self.sock.write_all(b"x" * 60))

    def until_closed(self, call):
        try:
            while True:
                call()
        except d.ClosedError as error:
            self.ends.append(error.reason)

    def check(self, descriptors):
        assert self.sock.closed or descriptors.get(self.sock.fd) is self.sock

    def check_end(self):
        assert self.ends == ["doomed", "doomed"]

    def close(self):
        self.peer.close()


class Workload:
    """Readers, writers, sleepers, joiners and groups with timeouts: one run, interrupted at most once."""

    def __init__(self, loop, seed, strike):
        self.loop = loop
        self.strike = strike
        self.dice = dice = random.Random(seed)
        self.links = [Link(dice) for _ in range(3)]
        self.doomed = Doomed(loop, dice.choice((0.125, 0.7)))
        self.connections = [*self.links, self.doomed]
        self.tasks = []
        self.naps = [dice.choice((0, 0.125, 0.25, 1)) for _ in range(4)]
        self.joined = [dice.choice((0, 0.125, 0.5)) for _ in range(3)]
        self.helper = None
        self.rounds = 0

    def jobs(self):
        first, second, grouped = self.links
        yield from (first.write, first.read, second.write, second.read)
        yield from (self.doomed.read, self.doomed.write, self.sleep, self.join)
        yield partial(self.group, grouped)

    def run(self):
        self.loop.post_loop_callback = self.check
        for job in self.jobs():
            self.begin(job)
        for task in self.tasks:  # more may come meanwhile
            task.join(1000)
            try:
                task.result()
            except d.TaskCancelledError:
                assert task is self.strike.struck
        self.loop.post_loop_callback = None
        for connection in self.connections:
            connection.check_end()
        assert not self.strike.mistakes

    def begin(self, job):
        self.tasks.append(d.spawn(self.actor, job))

    def actor(self, job):
        try:
            while self.strike.enclosed(job):
                self.rest()
        except d.Cancelled:
            self.begin(lambda: (self.rest(), job()))
            raise

    def rest(self):
        """Nothing of what it waited for before comes now."""
        begun = self.loop.clock()
        d.sleep(0.0625)
        assert self.loop.clock() == begun + 0.0625

    def sleep(self):
        while self.naps:
            begun = self.loop.clock()
            d.sleep(self.naps[-1])
            assert self.loop.clock() == begun + self.naps.pop()

    def join(self):
        while self.joined:
            if self.helper is None:
                self.helper = d.spawn(lambda: (d.sleep(self.joined[-1]), "helped")[1])
            try:
                self.helper.join(0.25)
            except TimeoutError:
                assert not self.helper.done
                continue
            assert self.helper.result() == "helped"
            self.helper = None
            self.joined.pop()

    def group(self, link):
        while not link.ended:
            self.rounds += 1
            assert self.rounds < 1000
            children, group = [], d.TaskGroup(limit=2)
            try:
                with d.move_on_after(0.4), group:
                    for job in (link.write, link.read, partial(d.sleep, 0.3)):
                        children.append(group.spawn(self.strike.enclosed, job))
                    d.sleep(0.1)
            finally:
                assert all(child.done for child in children)
                assert not group.tasks

    def check(self, descriptors, others):
        for connection in self.connections:
            connection.check(descriptors)
        return True

    def close(self):
        self.loop.post_loop_callback = None
        self.doomed.timer.cancel()
        for connection in self.connections:
            connection.close()


def run_workload(workload: Callable, loop, seed, way, moment, number):
    """One run. Answers the number of parks."""
    try:
        with no_leaks(loop), Interruption(loop, way, moment, number) as strike:
            work = workload(loop, seed, strike)
            try:
                work.run()
            finally:
                work.close()
        return strike.parks
    except BaseException as error:
        error.add_note(f"workload {workload.__name__}, seed {seed}, {way!r} {moment!r} at park {number}")
        raise


MOMENTS = ["at once", "after its wake", "in the same turn", "later"]
WAYS_AND_SEEDS = {"Task.cancel": 1, "scope.cancel": 2, "timeout": 3}


@pytest.mark.slow
@pytest.mark.in_order
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(("way", "seed"), WAYS_AND_SEEDS.items())
def test_a_workload_interrupted_at_every_park(loop, way, seed, moment):
    parks = run_workload(Workload, loop, seed, way, moment, None)
    assert 30 < parks < 1000
    for number in range(1, parks + 1, 1 if moment == "at once" else 2):
        run_workload(Workload, loop, seed, way, moment, number)


class Conversation:
    """Clients that connect to a server, and handlers that answer: either may be interrupted."""

    def __init__(self, loop, seed, strike):
        self.loop = loop
        self.strike = strike
        self.dice = random.Random(seed)
        self.listener = d.serve(LOCAL, self.handler, max_connections=2)
        self.tasks = []
        self.answered = []

    def run(self):
        for number in range(3):
            self.begin(number)
        for task in self.tasks:
            task.join(1000)
            try:
                task.result()
            except d.TaskCancelledError:
                assert task is self.strike.struck
        assert sorted(self.answered) == [0, 1, 2]
        for _ in range(100):
            if not self.listener.connections:
                break
            d.sleep(0.01)
        assert not self.listener.connections
        assert not self.strike.mistakes

    def begin(self, number):
        self.tasks.append(d.spawn(self.client, number))

    def client(self, number):
        try:
            while self.strike.enclosed(partial(self.ask, number)):
                d.sleep(0.01)
        except d.Cancelled:
            if number not in self.answered:
                self.begin(number)
            raise

    def ask(self, number):
        while number not in self.answered:
            line = b"%d\n" % number
            try:
                with d.connect(self.listener.address, 20) as sock:
                    sock.write_all(line)
                    answer = sock.read_line()
                    if answer == line:
                        sock.write_all(b"thanks\n")
                        self.answered.append(number)
            except (ConnectionError, EOFError):
                pass  # its handler was interrupted

    def handler(self, sock):
        self.strike.enclosed(partial(self.serve, sock))

    def serve(self, sock):
        line = sock.read_line()
        d.sleep(0)
        sock.write_all(line)
        sock.drain()
        sock.read_line()

    def close(self):
        self.listener.close()


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("way", WAYS_AND_SEEDS)
def test_a_server_and_its_clients_interrupted_at_every_park(loop, way, moment):
    parks = run_workload(Conversation, loop, 1, way, moment, None)
    assert 10 < parks < 200
    for number in range(1, parks + 1):
        run_workload(Conversation, loop, 1, way, moment, number)
