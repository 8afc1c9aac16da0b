"""The in-memory wire: it behaves as a TCP socket on loopback does, and does what its scripts say."""

from __future__ import annotations

import errno
import socket
import struct

import pytest

from dangagreen.loop.pollers import ERR, HUP, READ, WRITE, PollPoller
from dangagreen.testing import VirtualPoller, wire


@pytest.fixture(params=["wire", "tcp"])
def ends(request):
    """Two connected ends, of the wire and, for comparison, of TCP."""
    if request.param == "wire":
        near, far = wire()
        poller = VirtualPoller()
    else:
        with socket.create_server(("127.0.0.1", 0)) as server:
            near = socket.create_connection(server.getsockname())
            far = server.accept()[0]
        near.setblocking(False)
        far.setblocking(False)
        poller = PollPoller()
    yield near, far, poller
    poller.close()
    near.close()
    far.close()


def events(poller, end, mask=READ | WRITE):
    """What a poller says about it now."""
    fd = end.fileno()
    poller.add(fd, mask)
    try:
        return dict(poller.wait(0)).get(fd, 0)
    finally:
        poller.remove(fd)


def fill(end):
    """Send until it takes no more; answer how much it took."""
    sent = 0
    for _ in range(100000):
        try:
            sent += end.send(b"x" * 65536)
        except BlockingIOError:
            return sent
    raise AssertionError("it takes everything")


def reset(end):
    if isinstance(end, socket.socket):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.close()
    else:
        end.reset()
        end.close()


def test_bytes_arrive_in_order_and_as_a_stream(ends):
    near, far, _ = ends
    assert near.send(b"one") == 3
    assert near.send(bytearray(b"two")) == 3
    assert near.send(memoryview(b"three")) == 5
    assert far.recv(4) == b"onet"
    assert far.recv(100) == b"wothree"
    far.send(b"back")
    assert near.recv(100) == b"back"


def test_reading_when_nothing_is_there_would_block(ends):
    near, _, poller = ends
    with pytest.raises(BlockingIOError):
        near.recv(1)
    assert events(poller, near) == WRITE


def test_a_wire_end_counts_its_bytes():
    one, other = wire(capacity=5)
    one.send(b"abcdefgh")
    assert other.recv(2) == b"ab"
    assert (one.transferred(), other.transferred()) == ((0, 5), (5, 0))


def test_peeking_leaves_the_bytes(ends):
    near, far, _ = ends
    far.send(b"abc")
    assert near.recv(2, socket.MSG_PEEK) == b"ab"
    assert near.recv(10) == b"abc"


def test_input_makes_it_readable(ends):
    near, far, poller = ends
    far.send(b"x")
    assert events(poller, near) == READ | WRITE
    assert events(poller, near, READ) == READ
    assert events(poller, near, 0) == 0


def test_after_the_peer_has_shut_down_the_end_is_read_time_and_again(ends):
    near, far, poller = ends
    far.send(b"last")
    far.shutdown(socket.SHUT_WR)
    assert events(poller, near) == READ | WRITE
    assert [near.recv(10) for _ in range(3)] == [b"last", b"", b""]
    assert near.send(b"still open") == 10
    assert far.recv(100) == b"still open"
    assert events(poller, near, 0) == 0
    with pytest.raises(BrokenPipeError):
        far.send(b"no more")


def test_when_both_sides_have_shut_down_it_hangs_up_even_at_interest_0(ends):
    near, far, poller = ends
    far.shutdown(socket.SHUT_WR)
    near.shutdown(socket.SHUT_WR)
    assert events(poller, near, 0) == HUP
    assert events(poller, near, READ) == READ | HUP


def test_a_reset_is_an_error_a_hang_up_and_raises(ends):
    near, far, poller = ends
    reset(far)
    assert events(poller, near, 0) == ERR | HUP
    assert events(poller, near) == READ | WRITE | ERR | HUP
    with pytest.raises(ConnectionResetError):
        near.recv(10)
    assert near.recv(10) == b""


def test_the_error_of_a_reset_can_be_asked_for_once(ends):
    near, far, _ = ends
    reset(far)
    assert near.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET
    assert near.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def test_closing_with_input_unread_resets_the_peer(ends):
    near, far, poller = ends
    near.send(b"never read")
    far.close()
    assert events(poller, near, 0) == ERR | HUP
    with pytest.raises(ConnectionResetError):
        near.recv(10)


def test_closing_with_everything_read_ends_the_stream(ends):
    near, far, _ = ends
    far.send(b"bye")
    far.close()
    assert near.recv(10) == b"bye"
    assert near.recv(10) == b""


def test_a_closed_end_is_of_no_use(ends):
    near, _, _ = ends
    near.close()
    near.close()
    assert near.fileno() == -1
    for call in (
        lambda: near.recv(1),
        lambda: near.send(b"x"),
        lambda: near.shutdown(socket.SHUT_WR),
        lambda: near.getpeername(),
        lambda: near.getsockname(),
    ):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == errno.EBADF


def test_the_ends_know_each_others_names(ends):
    near, far, _ = ends
    assert near.getpeername() == far.getsockname()
    assert far.getpeername() == near.getsockname()
    assert near.getsockname() != far.getsockname()


def test_a_full_wire_takes_no_more_until_the_peer_reads(ends):
    near, far, poller = ends
    sent = fill(near)
    assert sent > 0
    assert events(poller, near) == 0
    while True:
        try:
            sent -= len(far.recv(65536))
        except BlockingIOError:
            break
    assert sent == 0
    assert events(poller, near) == WRITE


def test_sending_after_the_peer_closed_ends_in_a_broken_pipe_or_a_reset(ends):
    near, far, _ = ends
    far.close()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        fill(near)


def test_options_are_remembered(ends):
    near, _, _ = ends
    near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    assert near.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# -- what only the wire can do


def test_a_hang_up_ends_both_directions_after_what_was_sent():
    near, far = wire()
    far.send(b"last words")
    far.hang_up()
    assert near.events(0) == HUP
    assert near.events(READ | WRITE) == READ | WRITE | HUP
    assert near.recv(100) == b"last words"
    assert near.recv(100) == b""
    with pytest.raises(BrokenPipeError):
        near.send(b"x")


def test_resetting_or_hanging_up_a_unix_wire_is_what_closing_it_does_with_and_without_unread_input():
    near, far = wire(family=socket.AF_UNIX)
    far.send(b"kept")
    far.reset()
    assert far.closed
    assert near.events(0) == ERR | HUP
    assert near.recv(10) == b"kept"
    with pytest.raises(ConnectionResetError):
        near.recv(10)
    near, far = wire(family=socket.AF_UNIX)
    far.hang_up()
    assert near.events(0) == HUP
    assert near.recv(10) == b""
    with pytest.raises(BrokenPipeError):
        near.send(b"x")


def test_a_wire_of_another_family_is_refused():
    with pytest.raises(ValueError, match="AF_UNIX"):
        wire(family=socket.AF_INET6)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX], ids=["tcp", "unix"])
def test_a_full_wire_is_writable_when_as_much_is_free_as_its_kernel_demands(family):
    near, far = wire(12, family=family)
    near.send(b"x" * 20)
    free = 0
    while not near.events(WRITE):
        far.recv(1)
        free += 1
    assert free == (4 if family == socket.AF_INET else 9)
