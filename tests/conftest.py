"""Loops that a test owns, connections that end with it, and runs that cannot hang.

`loop` is a fresh loop on the virtual clock, `real_loop` one on the real clock and a real poller, once for each poller
of the platform. Both are the thread's current loop during the test, and fail it if anything is left behind. All other
fixtures act on whichever of the two the test has asked for (`loop`, if on neither).
"""

from __future__ import annotations

import gc
import math
import os
import random
import resource
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import dangagreen as d
from dangagreen.errors import ErrorContext
from dangagreen.loop import slowness, thread_pool
from dangagreen.loop.loop import Loop, here
from dangagreen.loop.pollers import available_pollers
from dangagreen.testing import VirtualPoller, WireEnd, random_order, virtual_loop, wire
from dangagreen.testing.trial import Trial
from tests.connections import tcp_ends
from tests.helpers import collect

PEER_SECONDS = 30.0  # how long a plain socket at the other end waits before its test fails
REAL_SECONDS = 30.0  # the same of a loop on the real clock
ENOUGH_DESCRIPTORS = 16384  # for any test: a higher limit makes programs slow that close all there might be
EXAMPLES = str(Path(__file__).parent / "examples") + os.sep

pytest_plugins = ["dangagreen.testing.plugin", "pytester"]  # the first one also where it is not installed

_trials: dict[int, Trial] = {}


class TimeLimit(SystemExit):
    """A test has taken too long. asyncio and uvloop log all other errors of a callback and go on, and so might hang."""


@contextmanager
def _owned(make_loop: Callable[[], Loop]) -> Iterator[Loop]:
    with Trial(make_loop) as trial:
        _trials[id(trial.loop)] = trial
        yield trial.loop
    del _trials[id(trial.loop)]


def _seed(request: pytest.FixtureRequest) -> int | None:
    """The seed of `--task-order`, for a test that is not about the order."""
    return None if request.node.get_closest_marker("in_order") else request.config.option.task_order


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--matrix", choices=["sample", "all"], default="sample", help="what tests/conformance runs")
    parser.addoption("--matrix-seed", type=int, metavar="SEED", help="repeat a sample, and its random numbers")


def pytest_configure(config: pytest.Config) -> None:
    """Choose the seed of the conformance suite, which goes on to each process of `-n`.

    And raise the limit of open files, of which shells give few, as far as it goes without being root; have no slow
    code reported, for what holds up a loop here may be another process; and have Ctrl-C strike, here and in what is
    started from here, also where a shell has begun the run in its background, which ignores it. Processes of `-n` take
    tests over from each other at the end, or one would wait for long while another has some left.
    """
    if getattr(config.option, "dist", "no") == "load":
        config.option.dist = "worksteal"
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    slowness.SLOW_SECONDS = math.inf
    if config.option.matrix_seed is None:
        config.option.matrix_seed = getattr(config, "workerinput", {}).get("matrix_seed", random.randrange(1_000_000))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = ENOUGH_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, ENOUGH_DESCRIPTORS)
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Of pytest-xdist: what a process is told beside the command line."""
    node.workerinput["matrix_seed"] = node.config.option.matrix_seed


@pytest.hookimpl(optionalhook=True, wrapper=True)
def pytest_timeout_set_timer() -> Iterator[Any]:
    """Of pytest-timeout: have what it raises into a test pass through all kinds of loops."""
    result = yield
    fail = signal.getsignal(signal.SIGALRM)
    if callable(fail):

        def end(number: int, frame: Any) -> None:
            try:
                fail(number, frame)
            except BaseException as error:
                raise TimeLimit(str(error)) from None

        signal.signal(signal.SIGALRM, end)
    return result


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if any(
        "conformance/" in report.nodeid for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)
    ):
        terminalreporter.write_line(
            f"conformance: --matrix={config.option.matrix} --matrix-seed={config.option.matrix_seed}"
        )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Of examples nothing is quick, as `pytest_collection_modifyitems` has it: then their tests are not even read."""
    is_example = (str(collection_path) + os.sep).startswith(EXAMPLES)
    return True if is_example and config.option.markexpr == "not slow" else None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Without garbage collection, which looks at all that was found so far, again and again: half of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What `-m "not slow"` leaves out beside what says so itself.

    Each example is a program that is started, often with a database beside it.
    """
    begun = set()
    for item in items:
        path = str(item.path)
        if path.startswith(EXAMPLES) or (path in begun and item.get_closest_marker("slow_but_first")):
            item.add_marker(pytest.mark.slow)
        begun.add(path)


@pytest.fixture(scope="module", autouse=True)
def garbage() -> Iterator[None]:
    """What a module's tests leave to the collector, an open socket for one, fails here, and not in a later module.

    Nor does a later one find the loop that a test has made by asking for this thread's.
    """
    collect()
    yield
    if here.loop is not None:
        here.loop.close()
        here.loop = None
    gc.collect()


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("descriptors"):
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < marker.args[0]:
            pytest.skip(f"needs {marker.args[0]} open files at once, and the limit (ulimit -n) is {soft}")


@pytest.fixture(autouse=True)
def handlers_of_signals() -> Iterator[None]:
    """Fails a test that leaves another handler of a signal than it has found."""
    watched = signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP
    before = [signal.getsignal(number) for number in watched]
    yield
    left = [signal.getsignal(number) for number in watched]
    for number, former in zip(watched, before, strict=True):
        if signal.getsignal(number) is not former:
            signal.signal(number, former)
    assert left == before, "the test leaves handlers of signals"


@pytest.fixture
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    """A loop on the virtual clock; `loop.clock.jump(s)` and `loop.poller.waits` are the test's."""
    with _owned(lambda: virtual_loop(seed=_seed(request))) as loop:
        yield loop


@pytest.fixture(params=available_pollers(), ids=lambda poller: poller.__name__)
def poller_class(request: pytest.FixtureRequest) -> Any:
    """Each class of poller in turn."""
    return request.param


@pytest.fixture
def real_loop(poller_class: Any, request: pytest.FixtureRequest) -> Iterator[Loop]:
    """A loop on the real clock, over each poller in turn."""

    def make_loop() -> Loop:
        loop = Loop(poller=poller_class())
        if (seed := _seed(request)) is not None:
            random_order(loop, seed)
        return loop

    with _owned(make_loop) as loop:
        yield loop


@pytest.fixture
def active_loop(request: pytest.FixtureRequest) -> Loop:
    """`real_loop` if the test uses it, otherwise `loop`."""
    loop: Loop = request.getfixturevalue("real_loop" if "real_loop" in request.fixturenames else "loop")
    return loop


@pytest.fixture
def run_until(active_loop: Loop) -> Callable[..., int]:
    """`run_until(condition, turns=20000)` runs the loop until it is true and answers the number of turns.

    AssertionError after so many turns, or after thirty real seconds.
    """

    def run_until(condition: Callable[[], object], turns: int = 20000) -> int:
        done, give_up = 0, time.monotonic() + REAL_SECONDS

        def until() -> bool:
            nonlocal done
            done += 1
            if condition():
                return True
            if done >= turns:
                raise AssertionError(f"not there after {turns} turns")
            if time.monotonic() > give_up:
                raise AssertionError(f"not there after {REAL_SECONDS} s and {done} turns")
            return False

        with _bounded_wait(active_loop):
            active_loop.run(until)
        return done

    return run_until


@contextmanager
def _bounded_wait(loop: Loop) -> Iterator[None]:
    """On the real clock no turn waits for more than a second. A virtual loop notices by itself that it stalls."""
    limit = loop.loop_timeout
    if limit is None and not isinstance(loop.poller, VirtualPoller):
        loop.loop_timeout = 1.0
    try:
        yield
    finally:
        if loop.loop_timeout == 1.0:
            loop.loop_timeout = limit


@pytest.fixture
def run_turns(active_loop: Loop) -> Callable[[int], None]:
    """`run_turns(n)` runs n turns, none of which waits: no time passes on the virtual clock."""

    def run_turns(n: int) -> None:
        turns = iter(range(n))
        limit, active_loop.loop_timeout = active_loop.loop_timeout, 0
        try:
            next(turns, None)
            active_loop.run(lambda: next(turns, None) is None)
        finally:
            active_loop.loop_timeout = limit

    return run_turns


@pytest.fixture
def advance(loop: Loop) -> Callable[[float], None]:
    """`advance(seconds)` runs the virtual loop for that long. AssertionError if that takes more than 20000 turns."""

    def advance(seconds: float) -> None:
        end = loop.add_timer(seconds, lambda: None)
        turns = 0

        def until() -> bool:
            nonlocal turns
            turns += 1
            if turns > 20000:
                end.cancel()
                raise AssertionError(f"{seconds} s took more than 20000 turns: the loop spins")
            return not end.active

        loop.run(until)

    return advance


@pytest.fixture
def take_errors(active_loop: Loop) -> Callable[[], list[ErrorContext]]:
    """`take_errors()` answers what `on_error` was called with since the last time; what is not taken fails the test."""
    unhandled = _trials[id(active_loop)].unhandled

    def take_errors() -> list[ErrorContext]:
        errors, unhandled[:] = list(unhandled), []
        return errors

    return take_errors


@pytest.fixture
def peers(active_loop: Loop) -> Iterator[list[Any]]:
    """Socket-like objects that are closed at the end of the test, with the `Socket` objects that were made of them."""
    ends: list[Any] = []
    yield ends
    for handler in list(active_loop.handlers.values()):
        if any(getattr(handler, "sock", None) is end for end in ends):
            handler._abandon("the test is over")
    for end in ends:
        end.close()


@pytest.fixture
def wires(peers: list[Any]) -> Callable[..., tuple[WireEnd, WireEnd]]:
    """`wires(capacity=65536)` makes two connected in-memory ends."""

    def wires(*args: Any, **kwargs: Any) -> tuple[WireEnd, WireEnd]:
        ends = wire(*args, **kwargs)
        peers.extend(ends)
        return ends

    return wires


@pytest.fixture
def tcp_pair(peers: list[Any]) -> Callable[..., tuple[socket.socket, socket.socket]]:
    """`tcp_pair(family=AF_INET)` makes two connected TCP sockets; the second one blocks, for seconds at most."""

    def tcp_pair(family: int = socket.AF_INET) -> tuple[socket.socket, socket.socket]:
        ends = tcp_ends(family, PEER_SECONDS)
        peers.extend(ends)
        return ends

    return tcp_pair


@pytest.fixture
def unix_pair(peers: list[Any]) -> Callable[[], tuple[socket.socket, socket.socket]]:
    """`unix_pair()` makes two connected Unix sockets; the second one blocks, for seconds at most."""

    def unix_pair() -> tuple[socket.socket, socket.socket]:
        ends = socket.socketpair()
        ends[1].settimeout(PEER_SECONDS)
        peers.extend(ends)
        return ends

    return unix_pair


@pytest.fixture(params=["tcp", "unix"])
def real_pair(request: pytest.FixtureRequest) -> Any:
    """`tcp_pair` and `unix_pair` in turn."""
    return request.getfixturevalue(f"{request.param}_pair")


@pytest.fixture
def pair(wires):
    """A function that makes a connection in memory: (socket, the peer's end). Both are closed after the test."""

    def make(socket_class=d.Socket, capacity=65536):
        near, far = wires(capacity)
        return socket_class(near), far

    return make


@pytest.fixture
def wait_for(run_until):
    """`run_until`, that runs no turn if the condition is true already."""

    def wait_for(condition):
        if not condition():
            run_until(condition)

    return wait_for


@pytest.fixture
def uncollected():
    """The garbage collector is off: what is freed is freed by its last reference, or by the test's own `gc.collect`."""
    collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def in_thread():
    """A function that runs another in a thread called "the other one": its result, or what it raised."""

    def in_thread(function, *args):
        answer = {}

        def body():
            try:
                answer["result"] = function(*args)
            except BaseException as error:
                answer["error"] = error

        thread = threading.Thread(target=body, name="the other one", daemon=True)
        thread.start()
        thread.join(30)
        assert not thread.is_alive()
        if "error" in answer:
            raise answer["error"]
        return answer["result"]

    return in_thread


class PoolThreads:
    """The pool's threads that a test starts; `idle`: those without a call."""

    def __init__(self, monkeypatch):
        self.monkeypatch = monkeypatch
        self.before = set(threading.enumerate())
        self.idle = []
        monkeypatch.setattr(thread_pool, "idle", self.idle)
        self.closed_loop = Loop()
        self.closed_loop.close()

    def end(self):
        """Have each end, after the call that it makes.

        The time is 0, for a thread that is held up for longer than that of SimpleQueue.get may wait for ever in it
        (CPython 3.11).
        """
        self.monkeypatch.setattr(thread_pool, "IDLE_SECONDS", 0)
        for thread in set(threading.enumerate()) - self.before:
            if hasattr(thread, "calls"):  # a test may have threads of its own too
                with suppress(ValueError):
                    self.idle.remove(thread)
                thread.calls.put((self.closed_loop, int, print))
            thread.join(REAL_SECONDS)
            assert not thread.is_alive()


@pytest.fixture
def pool(monkeypatch):
    """The threads of the pool that the test starts, its own ones, which end with it; `pool.end()` waits for that."""
    threads = PoolThreads(monkeypatch)
    yield threads
    threads.end()


@pytest.fixture
def free_address():
    """An address on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()


@pytest.fixture(scope="session")
def database_url():
    """The address of a PostgreSQL server that all tests share."""
    from tests.databases import postgresql_in  # with a driver, which few tests need

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, postgresql_in(Path(folder)) as (url, _):
        yield url


@pytest.fixture
def deaf_address():
    """An address whose listener's queue is full, so that a connection to it is never made."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        fillers = []
        for _ in range(4):
            fillers.append(socket.socket())
            fillers[-1].setblocking(False)
            fillers[-1].connect_ex(deaf.getsockname())
        yield deaf.getsockname()
        for filler in fillers:
            filler.close()
