"""SO_LINGER: a linger time that a socket has of its own neither stops the loop nor cuts off what is queued."""

import socket
import struct
import time

import pytest

from dangagreen import Socket, serve

LINGER_SECONDS = 20


def set_linger(sock, seconds, on=True):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", on, seconds))


def fill(sock):
    """Write until the kernel takes no more, to a peer that does not read."""
    while sock.write(bytes(65536)):
        pass


@pytest.fixture
def accepted(real_loop, run_until, peers):
    """`accepted(class)`: a connection that a listener has accepted, its listener, and the peer."""
    made = []

    def accepted(before=lambda listener: None):
        listener = serve(("127.0.0.1", 0), Keeping)
        before(listener)
        peer = socket.create_connection(listener.address, 5)
        peer.settimeout(5)
        peers.append(peer)
        made.append(listener)
        run_until(lambda: Keeping.made)
        return Keeping.made.pop(), peer

    yield accepted
    for listener in made:
        listener.close()


class Keeping(Socket):
    __slots__ = ()
    made: list = []  # noqa: RUF012

    def __init__(self, sock, loop=None):
        super().__init__(sock, loop)
        self.made.append(self)

    def event_read(self):
        self.read(1)


def of_ones_own(tcp_pair, accepted):
    ours, theirs = tcp_pair()
    sock = Socket(ours)
    set_linger(sock.sock, LINGER_SECONDS)
    return sock, theirs


def set_before(tcp_pair, accepted):
    ours, theirs = tcp_pair()
    set_linger(ours, LINGER_SECONDS)
    return Socket(ours), theirs


def of_a_server(tcp_pair, accepted):
    sock, peer = accepted()
    set_linger(sock.sock, LINGER_SECONDS)
    return sock, peer


def inherited(tcp_pair, accepted):
    return accepted(lambda listener: set_linger(listener.sock, LINGER_SECONDS))


@pytest.mark.parametrize(
    "make", [of_ones_own, set_before, of_a_server, inherited], ids=["own", "before", "server", "inherited"]
)
def test_a_linger_time_does_not_stop_the_loop_and_the_rest_is_sent_all_the_same(
    make, real_loop, tcp_pair, accepted, run_turns
):
    sock, peer = make(tcp_pair, accepted)
    fill(sock)
    queued = sock.unsent
    start = time.monotonic()
    sock.close()
    run_turns(2)
    assert time.monotonic() - start < LINGER_SECONDS / 2
    received = 0
    while data := peer.recv(1 << 20):
        received += len(data)
    assert received > 65536
    assert (received + queued) % 65536 == 0  # what the kernel had taken, whole


def test_a_linger_time_of_zero_still_means_a_reset(real_loop, tcp_pair, accepted, run_turns):
    for make in (of_ones_own, of_a_server):
        sock, peer = make(tcp_pair, accepted)
        set_linger(sock.sock, 0)
        sock.write(b"hello")
        sock.close()
        run_turns(2)
        peer.recv(5)
        with pytest.raises(ConnectionResetError):
            peer.recv(1)


def test_what_only_looks_like_a_socket_is_closed_without_a_question(real_loop, unix_pair, run_turns):
    ours, theirs = unix_pair()

    class Plain:
        def __init__(self):
            self.recv, self.send, self.close, self.fileno = ours.recv, ours.send, ours.close, ours.fileno

        def setblocking(self, flag):
            ours.setblocking(flag)

    Socket(Plain()).close()
    run_turns(2)
    assert ours.fileno() == -1
    assert theirs.recv(1) == b""
