"""What users ask of a listener: who may drain it, how often, and what becomes of the drain.

How a drain goes is in test_draining; `stop` in test_serve_forever.
"""

from __future__ import annotations

import pytest

import dangagreen as d
from tests.connections import Echo, ends, for_ever
from tests.helpers import results


@pytest.fixture
def settled():
    """When a test is over nothing may be left of it."""

    def settled(listener):
        assert listener.connections == 0

    return settled


def test_handlers_may_ask_whether_a_drain_is_on(loop, served, attach):
    def handler(sock):
        sock.read_line()
        d.sleep(5)
        sock.write_all(str(listener.draining).encode())

    listener = served(handler)
    assert not listener.draining
    _, client = attach(listener)
    client.write_all(b"x\n")
    (task,) = ends(client)
    listener.drain()
    assert results([task]) == [b"True"]


def test_from_a_task_and_from_a_callback(loop, served, attach, take_errors):
    listener = served(Echo)
    loop.call_soon(listener.drain)
    d.sleep(0)
    (context,) = take_errors()
    assert isinstance(context.exception, d.CannotParkError)
    assert not listener.draining
    task = d.spawn(listener.drain)
    task.join()
    assert task.result() == []
    assert d.run(listener.drain) == []


def test_a_handler_cannot_drain_what_waits_for_it(loop, served, attach, take_errors):
    def handler(sock):
        sock.read_line()
        listener.drain()

    listener = served(handler)
    _, client = attach(listener)
    client.write_all(b"x\n")
    assert client.read_to_end() == b""
    (context,) = take_errors()
    assert "spawn(listener.drain)" in str(context.exception)
    assert not listener.draining
    client.close()
    d.sleep(0)


def test_a_handler_may_spawn_a_drain(loop, served, attach):
    def handler(sock):
        if sock.read_line():
            drains.append(d.spawn(listener.drain))
            sock.write_all(b"bye\n")

    drains = []
    listener = served(handler, d.serve_requests)
    _, client = attach(listener)
    client.write_all(b"x\n")
    assert client.read_to_end() == b"bye\n"
    client.close()
    drains[0].join()


@pytest.mark.parametrize("graces", [(10, 2), (2, 10), (None, 2), (2, None)])
def test_two_drains_at_once_have_the_earlier_deadline_and_one_result(loop, served, attach, graces):
    listener = served(for_ever)
    sock, client = attach(listener)
    client.write_all(b"x\n")
    d.sleep(1)
    start = loop.clock()
    drains = [d.spawn(listener.drain, grace) for grace in graces]
    for drain in drains:
        drain.join()
        assert drain.result() == [sock]
    assert loop.clock() == start + 2
    assert listener.drain() == [sock]
    client.close()


def test_a_cancelled_drain_goes_on(loop, served, attach):
    listener = served(for_ever)
    sock, client = attach(listener)
    client.write_all(b"x\n")
    d.sleep(1)
    first = d.spawn(listener.drain, 10)
    d.sleep(1)
    assert "drain" in first.waits_for
    first.cancel()
    first.join()
    assert listener.closed
    assert not sock.closed
    start = loop.clock()
    assert listener.drain(None) == [sock]
    assert loop.clock() == start + 9
    client.close()


def test_a_drain_that_nobody_waits_for_ends(loop, served, attach):
    listener = served(for_ever)
    sock, client = attach(listener)
    client.write_all(b"x\n")
    drain = d.spawn(listener.drain, 10)
    d.sleep(1)
    drain.cancel()
    d.sleep(20)
    assert sock.closed
    assert loop.object_callbacks == {}
    client.close()
