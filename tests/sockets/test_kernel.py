"""What the kernel counts: to the byte, in each state of a connection, and None where it does not count."""

from __future__ import annotations

import sys

import pytest

from tests.introspect.seeing import answers

pytestmark = [
    pytest.mark.slow_but_first,  # each starts a program
    pytest.mark.skipif(sys.platform != "linux", reason="Linux alone counts"),
]

PAIR = """
import socket, struct
from dangagreen.sockets.kernel import accept_queue, traffic
loop = d.current_loop()
loop.set_loop_timeout(1)
class Stays(d.Socket):
    __slots__ = ()
    def event_hup(self): pass
listener = socket.create_server(("127.0.0.1", 0))
peer = socket.create_connection(listener.getsockname())
sock = Stays(listener.accept()[0])
def counted():
    passed = traffic(sock)
    return passed.received, passed.sent
def state():
    return sock.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
assert counted() == (0, 0)
"""
END = """
peer.close(); listener.close(); sock.close()
"""


def test_what_was_received_and_sent():
    answers(
        PAIR
        + """
peer.sendall(b"x" * 1000)
sock.write(b"y" * 70)
loop.run(lambda: counted() == (1000, 70))
assert len(sock.read(400)) == 400
assert counted() == (1000, 70)
assert 0 <= traffic(sock).idle < 60
"""
        + END
    )


def test_what_the_kernel_has_taken_counts_also_if_it_has_not_sent_it_and_what_is_queued_here_does_not():
    answers(
        PAIR
        + """
sock.write(b"z" * 20_000_000)
assert sock.unsent > 0
assert counted() == (0, 20_000_000 - sock.unsent)
"""
        + END
    )


def test_neither_side_s_fin_counts():
    answers(
        PAIR
        + """
peer.sendall(b"abc")
peer.shutdown(socket.SHUT_WR)
loop.run(lambda: state() != 1)
assert counted() == (3, 0)
assert sock.read(10) == b"abc" and sock.read(10) is None
assert counted() == (3, 0)
sock.write(b"last")
sock.write_eof()
assert counted() == (3, 4)
while peer.recv(10): pass
loop.run(lambda: state() == 7)  # both directions have ended
assert counted() == (3, 4)
total = introspect.snapshot().loop
assert (total.bytes_in, total.bytes_out) == (3, 4), total
sock.close()
total = introspect.snapshot().loop
assert (total.bytes_in, total.bytes_out) == (3, 4), total
"""
        + END
    )


def test_our_fin_behind_what_is_not_sent_yet_does_not_count():
    answers(
        PAIR
        + """
taken = sock.sock.send(b"z" * 20_000_000)
sock.write_eof()
assert counted() == (0, taken)
"""
        + END
    )


def test_a_reset_adds_nothing():
    answers(
        PAIR
        + """
peer.sendall(b"abc")
loop.run(lambda: counted() == (3, 0))
peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
peer.close()
loop.run(lambda: state() == 7)
assert counted() == (3, 0)
assert sock.read(10) == b"abc" and sock.read(10) is None
assert counted() == (3, 0)
"""
        + END
    )


def test_a_unix_socket_is_counted_by_nobody_nor_is_a_closed_one():
    answers(
        PAIR
        + """
one, other = socket.socketpair()
unix = d.Socket(one)
unix.write(b"abc")
assert traffic(unix) is None
unix.close()
sock.close()
assert traffic(unix) is traffic(sock) is None
other.close()
assert accept_queue(listener) == 0
peers = [socket.create_connection(listener.getsockname()) for _ in range(3)]
assert accept_queue(listener) == 3 and accept_queue(peer) is None
for one in peers: one.close()
"""
        + END
    )


def test_tls_is_counted_as_encrypted_and_a_wire_counts_itself():
    answers("""
from dangagreen.sockets.kernel import traffic
from tests.certificates import client_context, server_context
def main():
    listener = d.serve(("127.0.0.1", 0), lambda sock: sock.read_to_end(), tls=server_context())
    with d.connect(listener.address, tls=client_context()) as sock:
        sock.write_all(b"x" * 1000)
        sock.drain()
        assert traffic(sock).sent > 1000 and traffic(sock).received > 500
    listener.close()
d.run(main)
with virtual_loop():
    one, other = wire()
    sock = d.Socket(one)
    sock.write(b"abc")
    other.send(b"de")
    assert traffic(sock) == (2, 3, None)
    for not_ours in (dict, 5, None):  # what another object that looks like a socket has under this name
        one.transferred = not_ours
        assert traffic(sock) is None
    sock.close(); other.close()
""")
