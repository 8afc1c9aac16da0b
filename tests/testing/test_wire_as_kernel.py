"""The wire and the kernel side by side: the same calls on both ends, the same answers, errors and events.

Random sequences, over TCP on the loopback interface and over Unix sockets. What the kernel has still to do when a call
returns may come late on a busy machine: a sequence whose answers differ is run again with pauses, and only counts when
they differ each time.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import sys
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dangagreen.testing import wire
from tests.connections import tcp_ends

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the wire is a model of Linux's sockets")

EVERYTHING = select.POLLIN | select.POLLOUT | 0x2000  # POLLRDHUP
ATTEMPTS = 4  # what is on its way in the kernel may be late, and a call answer otherwise for it
PATIENCE = 0.2  # seconds for what was sent to be there
LINGER = {"on": struct.pack("ii", 1, 0), "off": struct.pack("ii", 0, 0)}


def real_ends(family):
    if family == socket.AF_UNIX:
        ends = socket.socketpair()
    else:
        ends = tcp_ends()
        for end in ends:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for end in ends:
        end.setblocking(False)
    return ends


def events(end, mask):
    """What poll(2) reports now."""
    if not isinstance(end, socket.socket):
        return end.events(mask)
    if end.fileno() < 0:
        return 0
    poll = select.poll()
    poll.register(end, mask)
    found = poll.poll(0)
    return found[0][1] if found else 0


def recv_into(end, size, flags):
    buffer = bytearray(size)
    return end.recv_into(buffer, 0, flags), bytes(buffer)


def reset(end):
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER["on"])
    end.close()


CALLS = {
    "send": lambda end, data: end.send(data),
    "recv": lambda end, size: end.recv(size),
    "recv_into": lambda end, size: recv_into(end, size, 0),
    "peek": lambda end, size: end.recv(size, socket.MSG_PEEK),
    "peek_into": lambda end, size: recv_into(end, size, socket.MSG_PEEK),
    "shutdown": lambda end, how: end.shutdown(how),
    "close": lambda end: end.close(),
    "reset": reset,
    "linger": lambda end, onoff: end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER[onoff]),
    "lingers": lambda end: end.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8),
    "error": lambda end: end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR),
    "set_nodelay": lambda end: end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    "nodelay": lambda end: bool(end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)),
    "getpeername": lambda end: end.getpeername(),
    "getsockname": lambda end: end.getsockname(),
    "events": events,
}


def settled(ends, wanted):
    """What poll(2) reports of both ends, as soon as it is what is wanted."""
    give_up = time.monotonic() + PATIENCE
    while True:
        found = tuple(events(end, EVERYTHING) for end in ends)
        if wanted in (None, found) or time.monotonic() > give_up:
            return found
        poll = select.poll()
        for end, there, missing in zip(ends, found, wanted, strict=True):
            if end.fileno() >= 0 and missing & ~there:
                poll.register(end, missing & ~there)
        poll.poll(1)


def play(ends, calls, model=None):
    """What each call answered or raised, and the events of both ends after it. Names are told as whose they are.

    With a model, which is what this answered of other ends, each call is given time to come to the same events.
    """
    names = {end.getsockname(): number for number, end in reversed(list(enumerate(ends)))}
    found = []
    for number, call, *args in calls:
        try:
            answer = CALLS[call](ends[number], *args)
        except OSError as error:
            answer = (type(error), errno.errorcode[error.errno], error.strerror)
        answer = ("the name of", names[answer]) if call.endswith("name") and answer in names else answer
        wanted = None if model is None else model[len(found)][-2:]
        found.append((number, call, *args, answer, *settled(ends, wanted)))
    return found


def compare(family, calls):
    ends = wire(family=family)
    for end in ends:
        if family != socket.AF_UNIX:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    ours = play(ends, calls)
    for _ in range(ATTEMPTS):
        ends = real_ends(family)
        try:
            kernels = play(ends, calls, ours)
        finally:
            for end in ends:
                end.close()
        if kernels == ours:
            return
    assert ours == kernels


sizes = st.integers(0, 300)
calls = st.one_of(
    st.tuples(st.just("send"), st.binary(max_size=300)),
    st.tuples(st.sampled_from(["recv", "recv", "recv_into", "peek", "peek_into"]), sizes),
    st.tuples(st.just("shutdown"), st.sampled_from([0, 1, 2, 0, 1, 2, 3, -1])),
    st.tuples(st.sampled_from(["close", "reset", "error", "error", "getpeername", "getsockname"])),
    st.tuples(st.sampled_from(["set_nodelay", "nodelay", "lingers"])),
    st.tuples(st.just("linger"), st.sampled_from(["on", "off"])),
    st.tuples(st.just("events"), st.sampled_from([0, 1, 4, 5, 0x2000])),
)
sequences = st.lists(st.tuples(st.integers(0, 1), calls).map(lambda pair: (pair[0], *pair[1])), max_size=20)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX], ids=["tcp", "unix"])
@given(sequence=sequences)
@settings(max_examples=100, deadline=None, database=None)
@example([(0, "send", b"abc"), (0, "reset"), (1, "recv", 2), (1, "recv", 9), (1, "recv", 9), (1, "recv", 9)])
@example([(0, "send", b"abc"), (0, "reset"), (1, "send", b"x"), (1, "send", b"x"), (1, "recv", 9), (1, "recv", 9)])
@example([(0, "close"), (1, "send", b"x"), (1, "error"), (1, "send", b"x"), (1, "recv", 9), (1, "getpeername")])
@example([(0, "send", b"abc"), (1, "close"), (0, "recv", 9), (0, "recv", 9), (0, "send", b"x")])
@example([(0, "shutdown", 0), (1, "send", b"abc"), (0, "recv", 9), (0, "recv", 9), (0, "shutdown", 2)])
@example([(0, "shutdown", 2), (1, "send", b"abc"), (0, "recv", 9), (1, "recv", 9), (1, "send", b"abc")])
@example([(0, "shutdown", 1), (1, "shutdown", 1), (0, "getpeername"), (1, "getpeername"), (0, "shutdown", 1)])
@example([(0, "linger", "on"), (0, "shutdown", 1), (0, "close"), (1, "send", b"x"), (1, "getsockname")])
def test_every_call_answers_and_changes_what_the_kernels_does(family, sequence):
    compare(family, sequence)


@pytest.mark.slow
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX], ids=["tcp", "unix"])
@given(sequence=sequences)
@settings(max_examples=400, deadline=None, database=None)
def test_whatever_is_called_in_whatever_order_both_answer_alike(family, sequence):
    compare(family, sequence)


def fill(end):
    while True:
        try:
            end.send(b"x" * 1000)
        except BlockingIOError:
            return


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX], ids=["tcp", "unix"])
@pytest.mark.parametrize("kind", ["wire", "kernel"])
def test_a_full_connection_is_writable_when_a_good_part_of_it_is_free_not_at_the_first_byte(family, kind):
    near, far = ends = wire(family=family) if kind == "wire" else real_ends(family)
    try:
        fill(near)
        assert not events(near, select.POLLOUT)
        assert far.recv(1) == b"x"
        assert not events(near, select.POLLOUT)
        give_up = time.monotonic() + 5
        while not events(near, select.POLLOUT) and time.monotonic() < give_up:
            try:
                far.recv(65536)
            except BlockingIOError:
                pass
        assert events(near, select.POLLOUT)
        assert near.send(b"y" * 1000) == 1000
    finally:
        for end in ends:
            end.close()
