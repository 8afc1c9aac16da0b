"""What the kernel does that a good guess gets wrong, and what sockets make of it: Linux 6, over real sockets."""

from __future__ import annotations

import errno
import socket
import sys

import pytest

import dangagreen as d
from dangagreen.loop.pollers import SelectPoller, available_pollers
from tests.connections import Plain, keeping, reset

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what Linux does")

SO_ZEROCOPY, MSG_ZEROCOPY = 60, 0x4000000


def outcome(call):
    """What a call answers, or the name of its errno."""
    try:
        return call()
    except OSError as error:
        return errno.errorcode[error.errno]


# -- a reset


CALLS = {
    "recv": lambda sock: outcome(lambda: sock.recv(10)),
    "peek": lambda sock: outcome(lambda: sock.recv(10, socket.MSG_PEEK)),
    "send": lambda sock: outcome(lambda: sock.send(b"x")),
    "SO_ERROR": lambda sock: errno.errorcode.get(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), 0),
}
AFTERWARDS = {"recv": b"", "peek": b"", "send": "EPIPE", "SO_ERROR": 0}


@pytest.mark.parametrize("first", CALLS)
def test_a_reset_is_told_once_to_whichever_call_is_the_first(loop, tcp_pair, first):
    for later in CALLS:
        near, far = tcp_pair()
        reset(far)
        assert CALLS[first](near) == "ECONNRESET"
        assert CALLS[later](near) == AFTERWARDS[later]


@pytest.mark.parametrize("first", ["write", "event_err", "none"])
def test_a_reset_that_a_write_or_an_event_has_met_is_raised_by_a_later_read(real_loop, tcp_pair, first):
    near, far = tcp_pair()
    sock = d.Socket(near)
    reset(far)
    if first == "write":
        sock.write(b"x")
    elif first == "event_err":
        d.sleep(0)
    with pytest.raises(ConnectionResetError):
        sock.read_exactly(1)


# -- readiness


def test_readable_does_not_promise_data_and_a_peek_leaves_that_so(loop, unix_pair, run_turns):
    near, far = unix_pair()
    near.setblocking(False)
    assert outcome(lambda: far.send(b"!", socket.MSG_OOB)) in (1, "EOPNOTSUPP")
    assert outcome(lambda: near.recv(1, socket.MSG_PEEK)) == "EAGAIN"
    assert outcome(lambda: near.recv(1)) == "EAGAIN"


def test_an_urgent_byte_is_no_input_and_does_not_make_the_loop_spin(real_loop, real_pair, run_turns):
    near, far = real_pair()

    class Reading(Plain):
        __slots__ = ()

        def event_read(self):
            self.calls.append(self.read(10))

    sock = Reading(near)
    sock.watch_read(True)
    if outcome(lambda: far.send(b"!", socket.MSG_OOB)) != 1:
        pytest.skip("this kernel has no urgent byte of Unix sockets")
    run_turns(5)
    assert set(sock.calls) <= {b""}
    assert len(sock.calls) <= 2
    assert not sock.closed
    far.send(b"data")
    run_turns(2)
    assert sock.calls[-1] == b"data"


@pytest.mark.parametrize("mark", [1, 5, 100])
def test_a_low_water_mark_of_the_kernels_delays_no_read_for_ever(real_loop, real_pair, mark):
    """SO_RCVLOWAT: TCP is readable at the mark or at the end; for a Unix socket it means nothing."""
    near, far = real_pair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, mark)
    sock = d.Socket(near)
    far.sendall(b"hello")
    if mark > 5:
        far.shutdown(socket.SHUT_WR)
    assert sock.read_exactly(5) == b"hello"


# -- error queues


@pytest.mark.parametrize("poller_class", [one for one in available_pollers() if one is not SelectPoller])
@pytest.mark.parametrize("reading", [True, False])
@pytest.mark.parametrize("drains", [True, False])
def test_an_error_queue_is_an_event_err_without_an_error_and_does_not_make_the_loop_spin(
    real_loop, poller_class, tcp_pair, run_turns, reading, drains
):
    """MSG_ZEROCOPY: the kernel tells in the error queue that it has sent; until that is read, it reports ERR.

    select(2) calls it readable, and does not tell why.
    """

    class Zero(Plain):
        __slots__ = ()

        def event_read(self):
            self.calls.append(self.read(100))

        def event_err(self):
            self.calls.append(self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
            if drains:
                self.sock.recvmsg(0, 1000, socket.MSG_ERRQUEUE)

    near, far = tcp_pair()
    near.setsockopt(socket.SOL_SOCKET, SO_ZEROCOPY, 1)
    sock = Zero(near)
    sock.watch_read(reading)
    near.send(b"x" * 20000, MSG_ZEROCOPY)
    run_turns(20)
    assert sock.calls == [b""] * reading + [0]
    assert not sock.closed
    far.send(b"data")
    sock.watch_read(True)
    run_turns(3)
    assert sock.calls[reading + 1 :] == [b"data"]


# -- listeners


@pytest.mark.parametrize("family", ["tcp", "unix", "shared"])
def test_closing_a_listener_resets_those_in_its_queue_also_where_the_port_is_shared(
    loop, server, client, run_turns, tmp_path, family
):
    address = str(tmp_path / "socket") if family == "unix" else ("127.0.0.1", 0)
    first = server(address, reuse_port=family == "shared")
    second = server(first.address, reuse_port=True) if family == "shared" else None
    peers = [client(first.address) for _ in range(40)]
    first.close()
    run_turns(4)
    ends = []
    for peer in peers:
        peer.settimeout(0)
        ends.append(outcome(lambda peer=peer: peer.recv(1)))
    assert set(ends) <= {"ECONNRESET", "EAGAIN"}
    assert ends.count("EAGAIN") == len(keeping()) == (second.connections if second is not None else 0)
    assert "ECONNRESET" in ends
    assert (second is None) == ("EAGAIN" not in ends)


# -- names


def test_names_of_unix_sockets_are_bytes_if_abstract_a_str_for_a_path_and_empty_without_one(
    real_loop, server, run_turns, tmp_path
):
    listener = server(str(tmp_path / "server"))
    peers = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    peers[0].bind(str(tmp_path / "client"))
    peers[1].bind(b"\0dangagreen facts %d" % id(peers))
    names = [peer.getsockname() for peer in peers]
    assert list(map(type, names)) == [str, bytes, str]
    assert names[2] == ""
    for peer in peers:
        peer.connect(listener.address)
    run_turns(4)
    told = {sock.peer_addr_string() for sock in keeping()}
    assert told == {names[0], "@" + names[1][1:].decode(), ""}
    assert {sock.peer_ip_string() for sock in keeping()} == {None}
    for peer in peers:
        peer.close()


# -- connecting


def test_a_socket_whose_connect_has_failed_says_so_once_more_before_it_starts_anew(loop, free_address):
    with socket.socket() as sock:
        sock.setblocking(False)
        assert sock.connect_ex(free_address) in (errno.EINPROGRESS, errno.ECONNREFUSED)
        while (number := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)) == 0:
            pass
        assert number == errno.ECONNREFUSED
        assert sock.connect_ex(free_address) == errno.ECONNABORTED
        assert sock.connect_ex(free_address) in (errno.EINPROGRESS, errno.ECONNREFUSED)
