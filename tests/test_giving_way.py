"""A call that may park and need not gives way when its task has gone on long enough: each of them, in a loop, beside a
ticker, and in a block whose time comes to its end."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import ssl

import pytest

import dangagreen as d
from dangagreen.parks import PARKING
from dangagreen.testing import virtual_loop, wire

TICK = 0.01
TICKS = 10
WORK = 10e-6  # seconds that each round of a loop takes, where the clock tells


class Ready:
    """Things of which nobody has to wait for anything."""

    def __init__(self, keep):
        self.keep = keep
        self.near, self.far = self.pair()
        self.at_end, end = self.pair()
        end.close()
        self.lines = self.pair()[0]
        self.ended = d.spawn(int)
        self.ended.join()
        self.event = d.Event()
        self.event.set()
        self.queue = d.Queue()
        self.channel = d.Channel(1)
        self.result = d.Future()
        self.result.set_result(1)
        self.lock, self.semaphore, self.condition = d.Lock(), d.Semaphore(), d.Condition()
        self.listener = self.signals = None
        self.file = os.open(os.devnull, os.O_RDWR)  # always ready
        keep.callback(os.close, self.file)

    def pair(self):
        near, far = wire()
        self.keep.callback(near.close)
        self.keep.callback(far.close)
        return d.Socket(near), far

    def ended_listener(self):
        if self.listener is None:
            self.listener = d.serve(("127.0.0.1", 0), print)
            self.listener.drain()
        return self.listener


def write(ready, data=b"x"):
    ready.near.write_all(data)
    with contextlib.suppress(BlockingIOError):
        ready.far.recv(1 << 20)


def lines(ready):
    ready.lines.push_back_read(b"one\ntwo\n")
    assert len([line for line, _ in zip(ready.lines, range(2), strict=False)]) == 2


def of_one_line(ready):
    ready.lines.push_back_read(b"one\n")
    ready.lines.read_line()


def too_long(ready):
    ready.lines.push_back_read(b"x" if ready.lines.buffered else b"a line")
    with pytest.raises(d.LimitError):
        ready.lines.read_line(5)
    ready.lines.read_exactly(1)


def take(gate):
    gate.acquire()
    gate.release()


def enter(gate):
    with gate:
        pass


def end_forever(ready):
    ready.ended_listener().stop()
    d.serve_forever(ready.listener)


def wait_of_condition(condition):
    with condition:
        condition.wait(0)


def wait_for_of_condition(condition):
    with condition:
        condition.wait_for(lambda: True)


def put_and_get(queue):
    queue.put(1)
    queue.get()


def iterate(queue):
    queue.put_nowait(1)
    next(iter(queue))


def send(channel):
    channel.send(1)
    channel.receive_nowait()


def receive(channel):
    channel.send_nowait(1)
    channel.receive()


def receive_by_iteration(channel):
    channel.send_nowait(1)
    next(iter(channel))


def leave_socket(ready):
    with ready.pair()[0]:
        pass


SERVER = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


def start_tls(ready):
    if not ready.lines.closed:
        ready.lines.push_back_read(b"plain text")  # which closes it
    with pytest.raises((d.TlsError, d.ClosedError)):
        ready.lines.start_tls(SERVER)


def connect(ready):
    with pytest.raises(OSError):
        d.connect("/nowhere/there/is/no/socket")


def next_signal(ready):
    if ready.signals is None:
        ready.signals = d.signals(signal.SIGUSR1)
        ready.keep.callback(ready.signals.close)
    signal.raise_signal(signal.SIGUSR1)
    next(ready.signals)


SCENARIOS = {
    "connecting.connect": connect,
    "sock.Socket.start_tls": start_tls,
    "groups.TaskGroup.__exit__": lambda ready: enter(d.TaskGroup()),
    "listener.Listener.drain": lambda ready: ready.ended_listener().drain(),
    "serve_forever.serve_forever": end_forever,
    "locks.Mutex.__enter__": lambda ready: enter(ready.lock),
    "locks.Mutex.acquire": lambda ready: take(ready.lock),
    "locks.Semaphore.__enter__": lambda ready: enter(ready.semaphore),
    "locks.Semaphore.acquire": lambda ready: take(ready.semaphore),
    "channels.Channel.send": lambda ready: send(ready.channel),
    "channels.Channel.receive": lambda ready: receive(ready.channel),
    "channels.Channel.__iter__": lambda ready: receive_by_iteration(ready.channel),
    "channels.Future.wait": lambda ready: ready.result.wait(),
    "queues.Queue.__iter__": lambda ready: iterate(ready.queue),
    "queues.Queue.get": lambda ready: put_and_get(ready.queue),
    "queues.Queue.put": lambda ready: put_and_get(ready.queue),
    "queues.Queue.join": lambda ready: d.Queue().join(),
    "multiwait.as_completed": lambda ready: next(d.as_completed([ready.ended])),
    "multiwait.select": lambda ready: d.select(ready.event),
    "multiwait.wait": lambda ready: d.wait([ready.ended]),
    "writing.StreamSocket.__exit__": leave_socket,
    "writing.StreamSocket.drain": lambda ready: ready.near.drain(),
    "files.FileSocket.send_file": lambda ready: ready.near.send_file(io.BytesIO(), 0, 0),
    "writing.StreamSocket.write_all": write,
    "reading.ReadingSocket.__iter__": lines,
    "reading.ReadingSocket.read_exactly": lambda ready: ready.near.read_exactly(0),
    "reading.ReadingSocket.read_line": lambda ready: ready.at_end.read_line(),
    "reading.ReadingSocket.read_some": lambda ready: ready.at_end.read_some(),
    "reading.ReadingSocket.read_some_into": lambda ready: ready.at_end.read_some_into(bytearray(9)),
    "reading.ReadingSocket.read_to_end": lambda ready: ready.at_end.read_to_end(),
    "reading.ReadingSocket.read_until": lambda ready: ready.at_end.read_until(b"\n"),
    "events.Barrier.wait": lambda ready: d.Barrier(1).wait(),
    "events.Condition.__enter__": lambda ready: enter(ready.condition),
    "events.Condition.acquire": lambda ready: take(ready.condition),
    "events.Condition.wait": lambda ready: wait_of_condition(ready.condition),
    "events.Condition.wait_for": lambda ready: wait_for_of_condition(ready.condition),
    "events.Event.wait": lambda ready: ready.event.wait(),
    "life.Life.join": lambda ready: ready.ended.join(),
    "sleep.sleep": lambda ready: d.sleep(0),
    "sleep.sleep_until": lambda ready: d.sleep_until(0),
    "signals.signals.__next__": next_signal,
    "threads.in_thread": lambda ready: d.in_thread(int),
    "fds.wait_readable": lambda ready: d.wait_readable(ready.file),
    "fds.wait_writable": lambda ready: d.wait_writable(ready.file),
    # the same calls otherwise
    "read_line, of what is pushed back": of_one_line,
    "read_line, beyond its limit": too_long,
    "write_all, of nothing": lambda ready: ready.near.write_all(b""),
    "write_all, of much": lambda ready: write(ready, b"x" * 50_000),
}


INNER = {
    "lender.Lender.rest",
    "parking.park",
    "parking.park_for",
    "parking.give_way",
    "starttls.start_tls",
    "multiwait.Selection.park",
}  # of others


def is_counted(module, name):
    """Whether it is public, and not of the bridge or of testing, whose own tests have tasks that never rest."""
    return not name.startswith("_") and not module.startswith(("dangagreen.bridge.", "dangagreen.testing."))


def parking_functions():
    """The names of all public functions and methods that are listed as such that park, from their module's name on."""
    names = {f"{module.rpartition('.')[2]}.{name}" for module, name in PARKING if is_counted(module, name)}
    return names | {"locks.Semaphore.__enter__"}  # another name of acquire


def test_every_function_that_parks_has_a_scenario():
    assert {name for name in SCENARIOS if "," not in name} == parking_functions() - INNER


@pytest.fixture
def ready_loop():
    with contextlib.ExitStack() as keep, virtual_loop() as loop:
        yield loop, keep
        loop.reset()


DEAR = {"writing.StreamSocket.__exit__", "serve_forever.serve_forever", "connecting.connect"}  # each makes sockets


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in DEAR)) for name in SCENARIOS])
def test_a_ticker_lives_beside(ready_loop, name):
    scenario = SCENARIOS[name]
    loop, keep = ready_loop

    def spin():
        ready = Ready(keep)
        while True:
            scenario(ready)
            loop.clock.jump(WORK)

    def tick():
        start, kept = loop.clock(), 0
        for n in range(1, TICKS + 1):
            d.sleep_until(start + n * TICK)
            kept += loop.clock() < start + (n + 1) * TICK
        return kept

    spinner = d.spawn(spin)
    ticker = d.spawn(tick)
    loop.run(lambda: ticker.done or spinner.done)
    assert ticker.result() >= TICKS - 1


STILL = ["events.Event.wait", "queues.Queue.get", "reading.ReadingSocket.read_some", "writing.StreamSocket.write_all"]
BLOCKS = [*((name, WORK) for name in SCENARIOS), *((name, 0.0) for name in STILL)]


@pytest.mark.parametrize(("name", "work"), BLOCKS, ids=lambda value: {WORK: "passes", 0.0: "still"}.get(value, value))
def test_a_block_around_it_ends_in_time(ready_loop, name, work):
    """Also on a clock that stands still, as one in tests does while somebody runs."""
    scenario = SCENARIOS[name]
    loop, keep = ready_loop

    def spin():
        ready = Ready(keep)
        start = loop.clock()
        with d.move_on_after(0.03) as scope:
            while True:
                scenario(ready)
                loop.clock.jump(work)
        return scope.cancelled_caught, loop.clock() - start

    task = d.spawn(spin)
    loop.run(lambda: task.done)
    caught, took = task.result()
    assert caught
    assert 0.03 <= took + 1e-9 <= 0.06


@pytest.mark.parametrize(
    "name", ["events.Event.wait", "queues.Queue.put", "locks.Mutex.__enter__", "writing.StreamSocket.drain"]
)
def test_in_top_level_code_the_loop_runs_meanwhile(ready_loop, name):
    loop, keep = ready_loop
    ready, ticks = Ready(keep), []
    timer = loop.add_timer(0.05, lambda: ticks.append(loop.clock()))
    start = loop.clock()
    for _ in range(100_000):
        SCENARIOS[name](ready)
        loop.clock.jump(WORK)
        if ticks:
            break
    assert timer.fired
    assert ticks[0] - start < 0.06


def test_who_makes_few_calls_in_a_turn_is_left_in_peace(ready_loop):
    loop, _ = ready_loop
    queue, order = d.Queue(), []

    def worker(name):
        for _ in range(16):
            queue.put(name)
            order.append(queue.get())
            loop.clock.jump(WORK)

    tasks = [d.spawn(worker, n) for n in range(20)]
    loop.run(lambda: all(task.done for task in tasks))
    assert order == [n for n in range(20) for _ in range(16)]


def test_a_call_that_is_cancelled_while_it_gives_way_has_taken_nothing(ready_loop):
    loop, _ = ready_loop
    queue = d.Queue()
    for n in range(1_000_000):
        queue.put_nowait(n)
    taken = []

    def take():
        with d.move_on_after(0.02):
            while True:
                taken.append(queue.get())
                loop.clock.jump(WORK)

    task = d.spawn(take)
    loop.run(lambda: task.done)
    assert len(taken) > 100
    assert queue.get_nowait() == len(taken)


def test_no_parking_stays_shut(ready_loop):
    loop, _ = ready_loop
    event = d.Event()
    event.set()

    def spin():
        for _ in range(5000):
            event.wait()
            loop.clock.jump(WORK)
            with d.no_parking(), pytest.raises(d.CannotParkError):
                event.wait()

    task = d.spawn(spin)
    loop.run(lambda: task.done)
    task.result()


def test_very_many_such_tasks_do_not_add_up(ready_loop):
    loop, _ = ready_loop
    event = d.Event()
    event.set()

    def spin():
        while True:
            event.wait()
            loop.clock.jump(1e-6)

    for _ in range(20):
        d.spawn(spin)
    late = []

    def tick():
        for n in range(1, 51):
            due = start + n * TICK
            d.sleep_until(due)
            late.append(loop.clock() - due)

    start = loop.clock()
    ticker = d.spawn(tick)
    loop.run(lambda: ticker.done)
    assert sum(seconds < TICK for seconds in late) >= 47
