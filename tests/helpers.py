"""What several test files need: work for tasks to do, and how it ended. Fixtures are in conftest."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import sys
from collections import deque

import pytest

import dangagreen as d
from dangagreen.green.waiters import wake

# -- code


def of_ours(source, **names):
    """The function that this source is, as if it stood in a module of the package."""
    return eval(compile(source, os.path.join(os.path.dirname(d.__file__), "a_test.py"), "eval"), names)


# -- work


def nap(seconds, value=None):
    """Sleep, then return it."""
    d.sleep(seconds)
    return value


def fail(error, seconds=0.0):
    """Sleep, then raise it."""
    d.sleep(seconds)
    raise error


def protected(seconds, error=None):
    """Sleep where nothing can cancel it, then raise it."""
    with d.shield():
        d.sleep(seconds)
        if error is not None:
            raise error


def stays(seconds, log):
    """Wait for ever; when cancelled, take so long to clean up, and say when that was done."""
    try:
        d.sleep(1_000_000)
    finally:
        with d.shield():
            d.sleep(seconds)
        log.append(d.current_loop().clock())


def spawn_all(function, arguments):
    """A task that attempts it for each of the arguments, all parked."""
    tasks = [d.spawn(attempt, function, argument) for argument in arguments]
    d.sleep(0)
    assert all(task.waits_for for task in tasks)
    return tasks


# -- how it ended


def attempt(function, *args):
    """What it returns, or the exception that it raises."""
    try:
        return function(*args)
    except Exception as error:
        return error


def in_callback(loop, function, *args):
    """Call it on the loop itself, and hand back what it returns; what it raises is reported."""
    answer = []
    loop.call_soon(lambda: answer.append(function(*args)))
    d.sleep(0)
    return answer[0] if answer else None


def joined(task):
    """Wait for the task's end, and hand back its result or raise what it raised."""
    task.join()
    return task.result()


def result_of(function, *args):
    """Call the function in a task of its own, and hand back what it returns or raises."""
    return joined(d.spawn(function, *args))


def results(tasks):
    """What each of them returned, once they have all ended."""
    return [joined(task) for task in tasks]


def outcome(task):
    """How a task that has ended did: its result, or the class of what it raised."""
    assert task.done
    try:
        return task.result()
    except Exception as error:
        return type(error)


def end_of(task):
    """Wait for the task's end, and answer its outcome."""
    task.join()
    return outcome(task)


def in_group(raised):
    """The exceptions in the group that pytest has caught."""
    assert isinstance(raised.value, BaseExceptionGroup)
    return set(raised.value.exceptions)


@contextlib.contextmanager
def fails(*kinds):
    """The block raises an ExceptionGroup of just these kinds, in this order."""
    with pytest.raises(ExceptionGroup) as caught:
        yield caught
    assert [type(error) for error in caught.value.exceptions] == list(kinds)


# -- locks


def is_free(lock):
    """Whether nobody holds it; of a condition, its lock."""
    if not lock.acquire(False):
        return False
    lock.release()
    return True


# -- scopes that may expire

SCOPES = {
    "timeout": lambda seconds: d.timeout(seconds),
    "timeout_at": lambda seconds: d.timeout_at(d.current_loop().clock() + seconds),
    "move_on_after": lambda seconds: d.move_on_after(seconds),
}
any_scope = pytest.mark.parametrize("scope_of", SCOPES.values(), ids=SCOPES)


# -- sockets in callback style


class Reader(d.Socket):
    """Reads `size` bytes at each event_read; notes the calls of its hooks, and each None."""

    __slots__ = ("calls", "data", "size")

    def __init__(self, sock, loop=None):
        super().__init__(sock, loop)
        self.calls = []
        self.data = b""
        self.size = 4096

    def event_read(self):
        self.calls.append("read")
        data = self.read(self.size)
        if data is None:
            self.calls.append(None)
        else:
            self.data += data

    def event_hup(self):
        self.calls.append("hup")
        super().event_hup()

    def event_err(self):
        self.calls.append("err")
        super().event_err()


class Collector(d.Socket):
    """Reads what there is, and ends when its peer does; `others` is the test's own."""

    __slots__ = ("calls", "data", "others")

    def __init__(self, sock, loop=None):
        super().__init__(sock, loop)
        self.calls = []
        self.data = b""
        self.others = []

    def event_read(self):
        self.calls.append("read")
        data = self.read(65536)
        if data is None:
            self.close("the end")
        else:
            self.data += data


class Recording:
    """In front of a poller: counts the turns in which `fd` had events."""

    def __init__(self, poller, fd):
        self.poller = poller
        self.fd = fd
        self.busy = 0

    def __getattr__(self, name):
        return getattr(self.poller, name)

    def wait(self, timeout):
        events = self.poller.wait(timeout)
        self.busy += any(fd == self.fd for fd, _ in events)
        return events


# -- the other end


def take(far, most=1 << 20):
    """What the peer finds now."""
    try:
        return far.recv(most)
    except BlockingIOError:
        return b""


class Small(d.Socket):
    """A socket whose queue is soon full."""

    __slots__ = ()
    high_water = 100
    low_water = 20


def blocked(pair, socket_class=Small):
    """A socket whose peer reads nothing, with more queued than the high-water mark; and the peer's end."""
    sock, far = pair(socket_class, capacity=0)
    sock.sock.capacity = 65536
    sock.write_all(b"x" * 101)
    return sock, far


READS = {
    "read_exactly": lambda sock: sock.read_exactly(8),
    "read_line": lambda sock: sock.read_line(),
    "read_until": lambda sock: sock.read_until(b"\r\n"),
    "read_some": lambda sock: sock.read_some(),
    "read_to_end": lambda sock: sock.read_to_end(),
    "iteration": lambda sock: next(iter(sock)),
}
WRITES = {
    "write_all": lambda sock: sock.write_all(b"more"),
    "drain": lambda sock: sock.drain(),
}
any_read = pytest.mark.parametrize("read", READS.values(), ids=READS)
any_write = pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)


# -- what may be selected


class Box:
    """A source: items go in and are taken out. It counts how often it was watched and unwatched."""

    def __init__(self, *items):
        self.items = deque(items)
        self.watchers = []
        self.watched = self.unwatched = 0

    @property
    def ready(self):
        return bool(self.items)

    def _watch(self, task):
        self.watched += 1
        self.watchers.append(task)

    def _unwatch(self, task):
        self.unwatched += 1
        if task in self.watchers:
            self.watchers.remove(task)

    def put(self, item):
        self.items.append(item)
        for task in list(self.watchers):
            wake(task)

    def undone(self):
        """Is nobody left, and was each arrangement undone once?"""
        return not self.watchers and self.watched == self.unwatched


# -- servers

LOCAL = ("127.0.0.1", 0)


class Echo(d.Socket):
    """Sends back what it reads, and ends when its peer does."""

    __slots__ = ()

    def event_read(self):
        data = self.read(4096)
        if data is None:
            self.finish()
        else:
            self.write(data)


def echo_lines(sock):
    for line in sock:
        sock.write_all(line)


def echo_one_line(sock):
    sock.write_all(sock.read_line())


def for_ever(sock):
    """A handler that is at work on its first line for ever."""
    sock.read_line()
    d.sleep(1e9)


STYLES = {
    "callbacks": (d.serve, Echo),
    "sequential": (d.serve, echo_lines),
    "requests": (d.serve_requests, echo_one_line),
}
styles = pytest.mark.parametrize(("server", "handler"), STYLES.values(), ids=STYLES)


def ends(*clients):
    """Tasks in which each client reads to the end, and closes then."""

    def end(sock):
        with sock:
            return sock.read_to_end()

    return [d.spawn(end, sock) for sock in clients]


def reset(peer):
    """Close a TCP socket so that its peer gets a RST."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def ask(sock, request):
    """Send a line and read the answer."""
    sock.write_all(request)
    return sock.read_line()


# -- functions whose call runs nothing


async def coroutine_function(*_args):
    raise AssertionError("this never runs")


def generator_function(*_args):
    yield


async def async_generator(*_args):
    yield


# -- programs of their own

PROGRAM_SECONDS = 60  # what one may take: a test that is slower has failed
PYTHONPATH = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def run_python(*arguments, text_in=None):
    """Run an interpreter that imports from where this one does: (its exit code, what it wrote, what it complained)."""
    done = subprocess.run(
        [sys.executable, *arguments],
        input=text_in,
        capture_output=True,
        text=True,
        timeout=PROGRAM_SECONDS,
        env=os.environ | PYTHONPATH,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def start_python(*arguments):
    """Start one, with pipes to read from what it writes and what it complains of."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, *arguments], text=True, env=os.environ | PYTHONPATH, **pipes)


def ended(process):
    """Wait for its end: (the lines that it wrote, what it complained, its exit code)."""
    out, err = process.communicate(timeout=PROGRAM_SECONDS)
    return out.splitlines(), err, process.returncode


# -- garbage


class Thing:
    """Something that a weak reference may point to."""


class Dying:
    """In a cycle: the collector calls its `__del__`, which calls `last_words`."""

    def __init__(self, last_words):
        self.last_words = last_words
        self.itself = self

    def __del__(self):
        self.last_words()
