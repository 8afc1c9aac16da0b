"""Thousands of connections at once, half of them in callback style and half in sequential style, on one server."""

from __future__ import annotations

import random

import pytest

import dangagreen as d
from dangagreen.green.sched import scheduler
from dangagreen.loop.loop import Loop, here
from dangagreen.loop.pollers import SelectPoller, available_pollers
from dangagreen.testing import no_leaks

CONNECTIONS = 5000
AT_ONCE = 500  # how many are being connected at a time, so that the kernel's queue does not overflow


class Echo(d.Socket):
    __slots__ = ()

    def event_read(self):
        data = self.read(16384)
        if data is None:
            self.write(self.close)
        elif data:
            self.write(data)


class Server:
    """Every other connection is handed to callback style."""

    def __init__(self):
        self.seen = {"callbacks": 0, "sequential": 0}

    def __call__(self, sock):
        if sum(self.seen.values()) % 2:
            self.seen["callbacks"] += 1
            sock.watch_read(True)
            return
        self.seen["sequential"] += 1
        while data := sock.read_some():
            sock.write_all(data)


@pytest.fixture(
    params=[poller for poller in available_pollers() if poller is not SelectPoller], ids=lambda poller: poller.__name__
)
def large_loop(request):
    loop = Loop(poller=request.param())
    here.loop = loop
    try:
        with no_leaks(loop):
            yield loop
    finally:
        loop.close()
        here.loop = None


def sizes(number):
    """What this client sends: many small messages, now and then a large one."""
    dice = random.Random(number)
    return [dice.choice((1, 10, 100, 1000, 70_000 if number % 50 == 0 else 5000)) for _ in range(dice.randint(1, 4))]


def client(address, number, connected, gate):
    """Connect, wait until all the others have, then see everything come back."""
    with d.connect(address, 30) as sock:
        connected.append(number)
        gate.join()
        dice = random.Random(-number)
        for size in sizes(number):
            message = dice.randbytes(size)
            sock.write_all(message)
            assert sock.read_exactly(size) == message
        return sum(sizes(number))


def wait_until(loop, condition):
    """Sleep until it is true; fail when that takes a minute."""
    give_up = loop.clock() + 60
    while not condition():
        assert loop.clock() < give_up
        d.sleep(0.001)


@pytest.mark.slow
@pytest.mark.descriptors(2 * CONNECTIONS + 100)
def test_five_thousand_connections_at_once_lose_nothing(large_loop):
    server = Server()
    listener = d.serve(("127.0.0.1", 0), server, socket_class=Echo)
    connected = []
    gate = d.spawn(d.sleep, 60)
    clients = []
    while len(clients) < CONNECTIONS:
        for _ in range(AT_ONCE):
            clients.append(d.spawn(client, listener.address, len(clients), connected, gate))
        wait_until(large_loop, lambda: len(connected) == len(clients))
    wait_until(large_loop, lambda: listener.connections == CONNECTIONS)
    gate.cancel()
    for task in clients:
        task.join(30)
    assert [task.result() for task in clients] == [sum(sizes(number)) for number in range(CONNECTIONS)]
    assert server.seen == {"callbacks": CONNECTIONS // 2, "sequential": CONNECTIONS // 2}
    wait_until(large_loop, lambda: not listener.connections)
    listener.close()
    assert not scheduler(large_loop).tasks
