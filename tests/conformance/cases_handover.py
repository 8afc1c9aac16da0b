"""Cases of the object itself: it changes hands, it rests, both styles want it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import dangagreen as d
from tests.conformance.cases import case
from tests.connections import Recording


@case
def steal_socket_takes_what_is_unread_along(c):
    """Or is refused, in words, and the connection goes on."""
    data = c.bytes(900)
    c.far.send(data)
    assert c.reads(500) == data[:500]
    c.near.push_back(data[400:500])
    c.turns(3)
    if c.transport.refuses_to_steal is not None:
        with pytest.raises(c.transport.refuses_to_steal, match="steal_socket"):
            c.sock.steal_socket()
        assert c.reads(500) == data[400:]
        return
    c.until(lambda: not c.far.unsent)
    sock, rest = c.sock.steal_socket()
    assert c.sock.closed
    c.turns(3)
    while len(rest) < 500:
        rest += sock.recv(5000)
    assert rest == data[400:]
    assert sock.send(b"from its new owner") == 18
    assert c.far_gets(18) == b"from its new owner"
    sock.close()


@case
def steal_socket_under_a_parked_reader(c):
    op = c.near.read(4)
    c.turns(3)
    if c.near.parks:  # callbacks hold nobody up: it would be handed over
        with pytest.raises((c.transport.refuses_to_steal or d.BusyError, d.BusyError)):
            c.sock.steal_socket()
    c.far.send(b"1234")
    assert c.wait(op).data == b"1234"


@case
def steal_socket_with_bytes_queued(c):
    data = c.bytes(c.transport.capacity)
    c.far.reading = False
    c.near.write(data)
    c.rest()
    with pytest.raises(c.transport.refuses_to_steal or d.BusyError):
        c.sock.steal_socket()
    c.far.reading = True
    assert c.far_gets(len(data)) == data


STATES = {}


def state(function):
    STATES[function.__name__] = function
    return function


@state
def waits_for_input(c):
    c.near.read(100)
    c.far.send(b"not enough")


@state
def has_input_that_nobody_wants(c):
    c.far.send(c.bytes(c.transport.capacity))
    c.reads(10)


@state
def has_a_peer_that_stalls(c):
    c.far.reading = False
    c.near.write(c.bytes(c.transport.capacity))


@state
def has_a_peer_that_stalls_and_waits_for_input(c):
    c.far.reading = False
    c.near.write(c.bytes(c.transport.capacity))
    c.near.read(10)


@state
def has_a_peer_that_has_ended(c):
    c.far.send(b"1")
    c.far.half_close()
    c.reads_to_end()


@state
def has_an_unread_end(c):
    c.far.send(b"1")
    c.far.half_close()


@state
def has_ended_its_side(c):
    c.near.half_close()
    c.near.read(1)


@state
def has_ended_its_side_and_the_peer_stalls(c):
    c.far.reading = False
    c.near.write(c.bytes(c.transport.capacity))
    c.near.half_close()


@state
def finishes(c):
    c.sock.linger_seconds = 1000.0
    c.near.finish()


@state
def finishes_and_the_peer_stalls(c):
    c.sock.linger_seconds = 1000.0
    c.far.reading = False
    c.near.write(c.bytes(c.transport.capacity))
    c.near.finish()


class InVain(Recording):
    """Counts the turns in which the socket had events and nothing has moved.

    A kernel that takes more bytes when a delayed ACK has come, 40 ms later, makes no spin.
    """

    def __init__(self, c):
        super().__init__(c.loop.poller, c.sock.fd)
        self.conversation = c
        self.before = None

    def wait(self, timeout):
        now = self.conversation.progress()
        events = self.poller.wait(timeout)
        self.busy += now == self.before
        self.before = now if any(fd == self.fd for fd, _ in events) else None
        return events


def rests(enter):
    """A case: in this state the loop waits, and nothing wakes it: it does not spin."""

    def it_rests(c):
        enter(c)
        c.rest()
        poller = InVain(c)
        c.loop.poller = poller
        try:
            c.turns(20)
        finally:
            c.loop.poller = poller.poller
        assert poller.busy <= 1  # what is no longer wanted is told lazily

    return case(it_rests)


globals().update({f"it_rests_while_it_{name}": rests(enter) for name, enter in STATES.items()})


@case
def a_parked_task_goes_before_event_read(c):
    """What the task leaves is event_read's, if reading is watched."""
    got = []
    c.sock.style = SimpleNamespace(
        readable=lambda: got.append(c.sock.read(65536)), has_room=lambda: None, was_closed=lambda: None
    )
    c.near.on_the_loop(c.sock.watch_read, True)
    task = d.spawn(c.sock.read_exactly, 5)
    c.turns(3)
    c.far.send(b"12345and more")
    c.until(lambda: task.done and b"".join(filter(None, got)) == b"and more")
    assert task.result() == b"12345"
