"""Work that is to grow with its amount and no faster: each row is measured at two or more sizes.

A row is a function that takes a number, prepares so much, and answers the seconds of processor time of what is then
measured. Its exponent is 1 where twice as much takes twice as long, 0 where it takes the same. All of it happens in
one process, in memory, so that neither descriptors nor a network bound the sizes.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty
from typing import Any

import dangagreen as d
from dangagreen.loop.handlers import FdHandler
from dangagreen.loop.loop import Loop, here
from dangagreen.loop.pollers import READ
from dangagreen.testing import virtual_loop, wire

SIZES = (1_000, 10_000, 100_000)
BOUND, BOUND_OF_FLAT = 1.2, 0.2  # the largest exponents
ROWS: dict[str, Callable[[int], float]] = {}
TURNS = 200


FLAT: set[str] = set()  # rows that take the same for any number


def row(function: Callable[[int], float]) -> Callable[[int], float]:
    """One of ROWS, by its name."""
    ROWS[function.__name__] = function
    return function


def flat(function: Callable[[int], float]) -> Callable[[int], float]:
    """The same, of a row whose exponent is to be 0."""
    FLAT.add(function.__name__)
    return row(function)


class Silent:
    """A poller for sockets that are none, and report nothing but what `events` has, time and again."""

    def __init__(self) -> None:
        self.events: list[tuple[int, int]] = []

    def add(self, *_arguments: object) -> None:
        pass

    modify = remove = close = add

    def wait(self, _seconds: float | None) -> list[tuple[int, int]]:
        return list(self.events)


class NoSocket:
    """In the place of an OS socket, with nothing to read."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def fileno(self) -> int:
        return self.fd

    def setblocking(self, flag: bool) -> None:
        pass

    def recv(self, n: int, flags: int = 0) -> bytes:
        raise BlockingIOError

    def send(self, data: bytes) -> int:
        raise BlockingIOError

    def close(self) -> None:
        pass


@contextmanager
def current(loop: Loop) -> Iterator[Loop]:
    """This thread's loop, closed at the end."""
    before, here.loop = here.loop, loop
    try:
        yield loop
    finally:
        loop.close()
        here.loop = before


def seconds(work: Callable[[], object]) -> float:
    """Of processor time, the garbage collector's, which looks at all that there is, not included."""
    gc.collect()
    gc.disable()
    before = time.process_time()
    try:
        work()
        return time.process_time() - before
    finally:
        gc.enable()


def until_done(loop: Loop) -> Callable[[], None]:
    """Until all tasks have ended."""
    return lambda: loop.run(lambda: loop.green is None or not loop.green.has_waiters())


def spawned(number: int, function: Callable[..., object], *arguments: Any) -> list[d.Task[object]]:
    """So many tasks, each of which has come to its wait."""
    tasks = [d.spawn(function, *arguments) for _ in range(number)]
    d.current_loop().run(lambda: tasks[-1].wait is not None)
    return tasks


def turns(loop: Loop, number: int) -> Callable[[], None]:
    left = iter(range(number))
    return lambda: loop.run(lambda: next(left, None) is None)


# -- the loop


@flat
def turns_with_idle_connections(number: int) -> float:
    """A client's pool: nobody reads them, and one connection is busy."""
    poller = Silent()
    with current(Loop(poller=poller)) as loop:
        for fd in range(number):
            d.Socket(NoSocket(1_000_000 + fd))
        busy = d.Socket(NoSocket(999_999))
        poller.events = [(busy.fd, READ)]  # there is nothing, each time, and the task waits again
        d.spawn(busy.read_some)
        turns(loop, 3)()
        return seconds(turns(loop, TURNS))


@row
def forget_many_in_one_batch(number: int) -> float:
    """Descriptors that leave the loop in the turn in which they have events, as clients do when they are connected."""
    poller = Silent()
    with current(Loop(poller=poller)) as loop:
        for fd in range(number):
            FdHandler(loop, 1_000_000 + fd, lambda _mask, fd=fd: loop.unregister(1_000_000 + fd))  # type: ignore[misc]
        poller.events = [(1_000_000 + fd, READ) for fd in range(number)]
        return seconds(lambda: loop.run(lambda: True))


@flat
def add_other_fds_one_by_one(number: int) -> float:
    with current(Loop(poller=Silent())) as loop:
        for fd in range(number):
            d.Socket(NoSocket(1_000_000 + fd))

        def add() -> None:
            for fd in range(1000):
                loop.add_other_fds({fd + 500: print})
                if fd % 100 == 0:
                    loop.other_fds()

        return seconds(add)


@flat
def deadlock_table(number: int) -> float:
    with current(virtual_loop()) as loop:
        spawned(number, d.Event().wait)
        return seconds(lambda: [loop.green.table(50) for _ in range(100)])  # type: ignore[union-attr]


# -- sockets


class Wide(d.Socket):
    """What is queued is not what is measured."""

    __slots__ = ()
    high_water = low_water = 1 << 40


class Sink(d.Socket):
    """The other end."""

    __slots__ = ()

    def event_read(self) -> None:
        self.read(65536)


@row
def queued_callables_leave(number: int) -> float:
    with current(virtual_loop()) as loop:
        end, peer = wire(10)
        sock = Wide(end)
        sock.write(bytes(11))
        done = []
        for _ in range(number):
            sock.write(lambda: done.append(1))
        peer.recv(10)
        return seconds(lambda: loop.run(lambda: len(done) == number))


@row
def queued_pieces_leave(number: int) -> float:
    """To a peer that takes 4 KB at a time."""
    with current(virtual_loop()) as loop:
        end, peer = wire(4096)
        sock = Wide(end)
        sock.write(bytes(4097))
        for _ in range(number):
            sock.write(b"x")

        def leave() -> None:
            while sock.unsent:
                peer.recv(4096)
                loop.run(lambda: True)

        return seconds(leave)


@row
def push_back_small_pieces(number: int) -> float:
    """In front of a large buffer."""
    with current(virtual_loop()):
        sock = d.Socket(wire()[0])
        sock.push_back_read(bytes(20 * number))

        def push() -> None:
            for _ in range(number):
                sock.push_back_read(b"0123456789")

        return seconds(push)


@row
def read_and_push_back(number: int) -> float:
    """A header that is read and put back, in front of a large buffer."""
    with current(virtual_loop()):
        sock = d.Socket(wire()[0])
        sock.push_back_read(bytes(20 * number))

        def again() -> None:
            for _ in range(number):
                sock.push_back_read((sock.read(8) or b"")[:4])

        return seconds(again)


@row
def close_under_writers(number: int) -> float:
    """A socket for which tasks wait to write is closed."""
    with current(virtual_loop()) as loop:
        end, _peer = wire(10)
        sock = d.Socket(end)
        sock.write(bytes(200_000))
        spawned(number, _write, sock, 1000)
        return seconds(lambda: (sock.close(), until_done(loop)()))


def _write(sock: d.Socket, size: int) -> None:
    try:
        sock.write_all(bytes(size))
    except d.ClosedError:
        pass


@row
def drain_writers(number: int) -> float:
    """A socket for which tasks wait to write is read by its peer."""
    with current(virtual_loop()) as loop:
        end, peer = wire(65536)
        sock = d.Socket(end)
        sock.write(bytes(200_000))
        spawned(number, _write, sock, 1000)
        Sink(peer).watch_read(True)
        return seconds(until_done(loop))


# -- tasks


@row
def select_on_one_queue(number: int) -> float:
    with current(virtual_loop()) as loop:
        queue: d.Queue[int] = d.Queue()

        def take() -> None:
            while True:
                d.select(queue)
                try:
                    queue.get_nowait()
                except Empty:
                    continue
                return

        spawned(number, take)
        for item in range(number):
            loop.call_soon(queue.put_nowait, item)
        return seconds(until_done(loop))


@row
def cancel_tasks_that_give_way(number: int) -> float:
    with current(virtual_loop()) as loop:
        tasks = [d.spawn(d.sleep, 0) for _ in range(number)]
        while any(task.worker is None for task in tasks[-64:]):
            loop._run_tasks()

        def cancel() -> None:
            for task in reversed(tasks):
                task.cancel()
            until_done(loop)()

        return seconds(cancel)


def line(wait: Callable[[], object], release: Callable[[int], object]) -> Callable[[int], float]:
    """Tasks that wait for one thing, and get it."""

    def measure(number: int) -> float:
        spawned(number, wait)
        return seconds(lambda: (release(number), until_done(d.current_loop())()))

    return measure


@row
def event(number: int) -> float:
    with current(virtual_loop()):
        event = d.Event()
        return line(event.wait, lambda _: event.set())(number)


@row
def semaphore(number: int) -> float:
    with current(virtual_loop()):
        semaphore = d.Semaphore(0)
        return line(semaphore.acquire, semaphore.release)(number)


@row
def condition(number: int) -> float:
    with current(virtual_loop()):
        condition = d.Condition()

        def wait() -> None:
            with condition:
                condition.wait()

        def notify(_number: int) -> None:
            def tell() -> None:
                with condition:
                    condition.notify_all()

            d.spawn(tell)

        return line(wait, notify)(number)


@row
def barrier(number: int) -> float:
    with current(virtual_loop()):
        barrier = d.Barrier(number + 1)
        return line(barrier.wait, lambda _: d.spawn(barrier.wait))(number)


@row
def lock(number: int) -> float:
    with current(virtual_loop()):
        lock = d.Lock()
        lock.acquire(False)

        def hold() -> None:
            with lock:
                pass

        return line(hold, lambda _: lock.release())(number)


@row
def queue_getters(number: int) -> float:
    with current(virtual_loop()):
        queue: d.Queue[int] = d.Queue()
        return line(queue.get, lambda number: [queue.put_nowait(item) for item in range(number)])(number)


@row
def join_one_task(number: int) -> float:
    with current(virtual_loop()):
        result: d.Future[int] = d.Future()
        task = d.spawn(result.wait)
        return line(task.join, lambda _: result.set_result(1))(number)


@row
def as_completed(number: int) -> float:
    with current(virtual_loop()):
        gate = d.Event()
        tasks = [d.spawn(gate.wait) for _ in range(number)]

        def collect() -> None:
            for _ in d.as_completed(tasks):
                pass

        return line(collect, lambda _: gate.set())(1)


@row
def task_group(number: int) -> float:
    """With a limit, cancelled half way."""
    with current(virtual_loop()) as loop:

        def main() -> None:
            with d.TaskGroup(limit=10) as group:
                for _ in range(number):
                    group.spawn(d.sleep, 0)
                d.sleep(0)
                group.cancel()

        d.spawn(main)
        return seconds(until_done(loop))


@row
def timers(number: int) -> float:
    """Added, and cancelled from the last to the first."""
    with current(virtual_loop()) as loop:

        def work() -> None:
            made = [loop.add_timer(100 + n % 7, print) for n in range(number)]
            for timer in reversed(made):
                timer.cancel()

        return seconds(work)


@row
def timeouts(number: int) -> float:
    """Tasks whose waits are timed, and whose time is up at once."""
    with current(virtual_loop()) as loop:
        spawned(number, d.Event().wait, 5.0)
        return seconds(until_done(loop))


def exponent(times: dict[int, float]) -> float:
    """By which power of its amount the work grows, from the smallest size to the largest."""
    small, large = min(times), max(times)
    return math.log(max(times[large], 1e-6) / max(times[small], 1e-6)) / math.log(large / small)


def measured(name: str, sizes: tuple[int, ...] = SIZES, tries: int = 1) -> dict[int, float]:
    """Seconds by size, the least of so many tries."""
    return {size: min(ROWS[name](size) for _ in range(tries)) for size in sizes}


def table(sizes: tuple[int, ...] = SIZES) -> str:
    """All rows as text: nanoseconds for each unit by size, and the exponent."""
    lines = [f"{'growth':<32}" + "".join(f"{size:>12,}" for size in sizes) + "    exponent"]
    for name in ROWS:
        times = measured(name, sizes)
        each = "".join(f"{taken / size * 1e9:>12,.0f}" for size, taken in times.items())
        grows = exponent(times)
        bound = BOUND_OF_FLAT if name in FLAT else BOUND
        lines.append(f"{name:<32}{each}{grows:>12.2f}{'' if grows <= bound else f'  more than {bound}'}")
    return "\n".join(lines)
