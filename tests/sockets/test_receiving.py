"""read, read_into, watch_read."""

import platform
import socket

import pytest

from dangagreen.testing import BLOCK
from tests.connections import Reader
from tests.programs import run_python

# -- read


def test_read_answers_at_most_n_bytes_then_nothing_now_then_none(loop, wires):
    sock, peer = wires()
    one = Reader(sock)
    peer.send(b"abcdef")
    assert one.read(4) == b"abcd"
    assert one.read(4) == b"ef"
    assert one.read(4) == b""
    peer.shutdown(socket.SHUT_WR)
    assert one.read(4) is None
    assert one.read(4) is None
    assert not one.closed


def test_read_of_a_closed_socket_is_none(loop, wires):
    sock, peer = wires()
    one = Reader(sock)
    peer.send(b"x")
    one.push_back_read(b"y")
    one.close()
    assert one.read(1) is None


def test_read_after_a_reset_is_none(loop, wires):
    sock, peer = wires()
    one = Reader(sock)
    peer.reset()
    assert one.read(10) is None


@pytest.mark.parametrize("n", [0, -1])
def test_read_of_nothing_raises_and_loses_nothing(n, loop, wires):
    sock, peer = wires()
    one = Reader(sock)
    peer.send(b"abc")
    with pytest.raises(ValueError):
        one.read(n)
    one.push_back_read(b"x")
    with pytest.raises(ValueError):
        one.read(n)
    assert one.read(1) + one.read(10) == b"xabc"


def test_read_into_fills_a_buffer_from_what_was_pushed_back_and_from_the_kernel(loop, wires):
    sock, peer = wires()
    one, buffer = Reader(sock), bytearray(4)
    assert one.read_into(buffer) == 0
    peer.send(b"defghi")
    one.push_back_read(b"abc")
    got = b""
    for size in (3, 4, 2):
        assert one.read_into(memoryview(buffer)) == size
        got += buffer[:size]
    assert got == b"abcdefghi"
    one.push_back_read(b"abcdef")
    assert one.read_into(buffer) == 4
    assert one.read(10) == b"ef"
    assert one.read_into(buffer) == 0
    peer.shutdown(socket.SHUT_WR)
    assert one.read_into(buffer) is None
    assert one.read(4) is None
    one.close()
    assert one.read_into(buffer) is None


def test_read_into_what_has_no_room_or_cannot_be_written_loses_nothing(loop, wires):
    sock, peer = wires()
    one = Reader(sock)
    peer.send(b"abc")
    for buffer, error in ((bytearray(), ValueError), (b"constant", (TypeError, BufferError))):
        with pytest.raises(error):
            one.read_into(buffer)
    one.push_back_read(b"x")
    for buffer, error in ((bytearray(), ValueError), (b"constant", (TypeError, BufferError))):
        with pytest.raises(error):
            one.read_into(buffer)
    assert one.read(10) + one.read(10) == b"xabc"


def test_read_into_after_a_reset_is_none(loop, wires):
    sock, peer = wires()
    one = Reader(sock)
    peer.reset()
    assert one.read_into(bytearray(10)) is None


def test_read_into_over_real_sockets(real_loop, real_pair, run_until):
    near, peer = real_pair()
    one = Reader(near)
    buffer, total = bytearray(1000), []
    peer.sendall(bytes(range(256)) * 100)
    peer.shutdown(socket.SHUT_WR)

    def ended():
        while size := one.read_into(buffer):
            total.append(bytes(buffer[:size]))
        return size is None

    run_until(ended)
    assert b"".join(total) == bytes(range(256)) * 100


# -- watch_read


def test_watch_read_turns_events_on_and_off(real_loop, real_pair, run_turns):
    sock, peer = real_pair()
    one = Reader(sock)
    peer.send(b"1")
    run_turns(2)
    assert one.data == b""
    one.watch_read(True)
    run_turns(1)
    assert one.data == b"1"
    one.watch_read(False)
    peer.send(b"2")
    run_turns(3)
    assert one.data == b"1"
    one.watch_read(True)
    run_turns(1)
    assert one.data == b"12"


def test_an_event_read_that_leaves_input_is_called_again(real_loop, real_pair, run_turns):
    sock, peer = real_pair()
    one = Reader(sock)
    one.size = 1
    one.watch_read(True)
    peer.send(b"abc")
    run_turns(3)
    assert one.data == b"abc"


# -- reads that come up empty


def test_a_would_block_in_event_read_is_no_end(loop, wires, run_turns):
    sock, peer = wires()
    one = Reader(sock)
    one.watch_read(True)
    sock.reads.extend([BLOCK, 2, BLOCK, 1])
    peer.send(b"abcdef")
    run_turns(6)
    assert one.data == b"abcdef"
    assert None not in one.calls


FAULTS = """
import resource, socket
from dangagreen import Socket
near, far = socket.socketpair()
sock = Socket(near)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(1000):
    far.sendall(b"small")
    assert sock.read(1 << 18) == b"small"
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_receiving_with_a_large_n_does_not_ask_the_kernel_for_memory_each_time():
    """Where glibc allocates. Each time it would cost a page fault at the least, and a mapping."""
    code, out, _ = run_python("-c", FAULTS)
    assert code == 0
    assert int(out) < (300 if platform.libc_ver()[0] == "glibc" else 100_000)
