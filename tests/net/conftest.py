"""Servers and their clients, which end with the test."""

from __future__ import annotations

import signal

import pytest

import dangagreen as d
from tests.connections import LOCAL
from tests.programs import start_python


@pytest.fixture
def settled(wait_for):
    """Called when a test is over, for each of its listeners: waits until the connections have ended."""
    return lambda listener: wait_for(lambda: not listener.connections)


@pytest.fixture
def served(active_loop, settled):
    """A function that starts a server, by default `serve` on a free port; it ends when its clients have."""
    listeners = []

    def served(handler, server=d.serve, address=LOCAL, **options):
        listeners.append(server(address, handler, **options))
        return listeners[-1]

    yield served
    for listener in listeners:
        settled(listener)
        listener.close()


@pytest.fixture
def client(served):
    """A function that connects to a listener; what it made is closed at the end of the test."""
    made = []

    def client(listener):
        made.append(d.connect(listener.address, 30))
        return made[-1]

    yield client
    for sock in made:
        sock.close()


@pytest.fixture
def attach(loop, wires):
    """`attach(listener, settle=1)` gives it a connection in memory, so many seconds old: (its socket, the client's)."""

    def attach(listener, settle=1.0, **options):
        near, far = wires(**options)
        listener.set_up(near)
        if settle:
            d.sleep(settle)
        return loop.handlers[near.fileno()], d.Socket(far)

    return attach


@pytest.fixture
def brief(monkeypatch):
    """A drain waits so many seconds, hundredths, for the request of a new connection."""
    monkeypatch.setattr(d.Listener, "new_connection_grace", 0.02)
    return d.Listener.new_connection_grace


@pytest.fixture
def signals():
    """SIGINT and SIGTERM have the interpreter's own handlers, before the test and after it."""
    usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    after = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    for number, handler in usual.items():
        signal.signal(number, handler)
    assert after == (signal.default_int_handler, signal.SIG_DFL)


@pytest.fixture
def started():
    """`started(program, *arguments)` starts a process, and answers it when it has said that it is ready."""
    processes = []

    def started(program, *arguments):
        processes.append(start_python("-c", program, *arguments))
        assert processes[-1].stdout.readline() == "ready\n"
        return processes[-1]

    yield started
    for process in processes:
        process.kill()
        process.communicate()
