"""TLS as an object that looks like a socket: the handshake, half-close, close, and what a Socket over it promises."""

from __future__ import annotations

import socket
import ssl
from functools import partial

import pytest

import dangagreen as d
from dangagreen.sockets.tls import TlsSocket
from tests.certificates import ByHand, client_context, secured, server_context, shake_hands, versions

pytestmark = pytest.mark.parametrize("version", versions(), ids=lambda version: version.name)


@pytest.fixture
def ends(ends, version):
    """`ends(capacity=65536)` makes two TLS ends of this version."""
    return partial(ends, version)


def test_bytes_go_both_ways(ends):
    mine, other = ends()
    assert mine.send(b"hello") == 5
    assert other.recv(100) == b"hello"
    assert other.send(b"you") == 3
    assert mine.recv(100) == b"you"
    with pytest.raises(BlockingIOError):
        mine.recv(1)


def test_a_handshake_in_pieces_of_one_byte(wires, version):
    one, two = wires(capacity=1)
    mine = TlsSocket(one, client_context(version), False, "localhost")
    other = TlsSocket(two, server_context(version=version), True)
    with pytest.raises(BlockingIOError):
        mine.go_on()
    assert mine.wants_write
    shake_hands(mine, other)
    assert not mine.wants_write
    assert (mine.tls.version, other.tls.version) == (version.name.replace("_", "."),) * 2


def test_nothing_is_received_or_sent_before_the_handshake_is_over(wires, version):
    one, _two = wires()
    mine = TlsSocket(one, client_context(version), False, "localhost")
    with pytest.raises(BlockingIOError):
        mine.send(b"x")
    with pytest.raises(BlockingIOError):
        mine.recv(1)


def test_it_answers_for_the_socket_beneath(tcp_pair, peers, version):
    one, two = tcp_pair()
    one.setblocking(False)
    two.setblocking(False)
    mine, _other = secured((one, two), version)
    peers.append(mine)
    assert mine.fileno() == one.fileno()
    assert (mine.family, mine.type, mine.proto) == (one.family, socket.SOCK_STREAM, one.proto)
    assert (mine.getpeername(), mine.getsockname()) == (one.getpeername(), one.getsockname())
    mine.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    assert mine.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    with pytest.raises(ValueError, match="does not block"):
        mine.setblocking(True)


def test_what_was_agreed_upon(sockets, version):
    mine, other = sockets()
    assert mine.tls.version == version.name.replace("_", ".")
    assert mine.tls.cipher[1].startswith("TLSv1")
    assert mine.tls.alpn is None
    assert mine.tls.server_hostname == "localhost"
    assert ("DNS", "localhost") in mine.tls.peer_certificate["subjectAltName"]
    assert isinstance(mine.tls.peer_certificate_der, bytes)
    assert other.tls.peer_certificate is None is other.tls.peer_certificate_der
    assert not mine.tls.session_reused
    assert version.name.replace("_", ".") in repr(mine.tls)


# -- the end


def test_half_close(sockets, loop):
    mine, other = sockets()

    def main():
        mine.write_all(b"question")
        mine.write_eof()
        assert other.read_to_end() == b"question"
        other.write_all(b"answer" * 10000)
        other.write_eof()
        assert mine.read_to_end() == b"answer" * 10000

    d.run(main)


def test_input_that_came_before_the_half_close_is_read_after_it(sockets, run_turns):
    mine, other = sockets()
    other.write(b"x" * 40000)
    assert mine.sock.recv(10) == b"x" * 10  # the rest lies in OpenSSL, which would drop it at close_notify
    mine.write_eof()

    def main():
        assert mine.read_exactly(39990) == b"x" * 39990
        other.write_all(b"and more")
        other.write_eof()
        assert mine.read_to_end() == b"and more"

    d.run(main)


def test_finish_sends_close_notify_and_waits_for_that_of_the_peer(sockets, run_until):
    mine, other = sockets()
    mine.write(b"reply")
    mine.finish()

    def main():
        assert other.read_to_end() == b"reply"
        other.finish()

    d.spawn(main)
    run_until(lambda: mine.closed and other.closed)
    assert mine.close_reason is None


def test_finish_does_not_hang_on_a_peer_that_does_not_answer(sockets, advance):
    mine, _other = sockets()
    mine.finish()
    advance(d.Socket.linger_seconds + 0.1)
    assert mine.closed


@pytest.mark.parametrize("when", ["before", "after"])
def test_close_notify_is_sent_although_there_is_no_room_for_it_at_first(sockets, advance, run_turns, when):
    """What was written has filled the kernel to the last byte; the peer ended its side before finish(), or after it."""
    mine, other = sockets(capacity=100_000)
    if when == "before":
        other.write_eof()
        run_turns(2)
        assert mine.read(1) is None
    mine.write(b"x" * 5000)
    other.sock.beneath.capacity = 0
    mine.finish()
    if when == "after":
        advance(0.05)
        other.write_eof()
    advance(0.05)
    assert not mine.closed
    other.sock.beneath.capacity = 100_000

    def main():
        assert len(other.read_to_end()) == 5000  # which a stream that was cut short would not do

    d.run(main)
    advance(0.05)
    assert mine.closed
    assert mine.close_reason is None


def test_close_notify_that_never_has_room_is_waited_for_as_long_as_a_lingering_close_may_take(sockets, advance):
    mine, other = sockets(capacity=100_000)
    other.write_eof()
    assert mine.read(1) is None
    other.sock.beneath.capacity = 0
    mine.finish()
    advance(mine.linger_seconds - 0.1)
    assert not mine.closed
    advance(0.2)
    assert mine.closed


def test_finish_takes_a_fin_without_close_notify_for_the_end(sockets, run_until):
    mine, other = sockets()
    mine.finish()
    other.sock.beneath.shutdown(socket.SHUT_WR)
    run_until(lambda: mine.closed)
    assert mine.close_reason is None


def test_close_sends_close_notify(sockets, run_until):
    mine, other = sockets()
    mine.close()
    reader = d.spawn(other.read_to_end)
    run_until(lambda: reader.done)
    assert reader.result() == b""


def test_a_stream_that_is_cut_short_is_an_error(sockets):
    mine, other = sockets()
    other.write(b"the first half")
    other.sock.beneath.shutdown(socket.SHUT_WR)

    def main():
        with pytest.raises(ConnectionError, match="without close_notify") as caught:
            mine.read_to_end()
        assert type(caught.value) is d.TruncatedError

    d.run(main)
    assert not issubclass(d.TruncatedError, EOFError)


def test_a_line_that_was_cut_short_stays_readable(sockets):
    mine, other = sockets()
    other.write(b"a line\nhalf of")
    other.sock.beneath.shutdown(socket.SHUT_WR)

    def main():
        assert mine.read_line() == b"a line\n"
        with pytest.raises(d.TruncatedError):
            mine.read_line()
        assert mine.buffered == 7
        with pytest.raises(d.TruncatedError):  # the first error is the one that counts
            mine.read_line()

    d.run(main)


@pytest.mark.parametrize(
    "read",
    [d.Socket.read_line, d.Socket.read_to_end, lambda sock: sock.read_exactly(100), list],
    ids=["read_line", "read_to_end", "read_exactly", "iteration"],
)
def test_what_was_too_little_for_a_read_is_there_for_read_some(sockets, read):
    mine, other = sockets()
    other.write(b"half of")
    other.sock.beneath.shutdown(socket.SHUT_WR)

    def main():
        with pytest.raises(d.TruncatedError):
            read(mine)
        assert mine.read_some() == b"half of"
        with pytest.raises(d.TruncatedError):
            mine.read_some()

    d.run(main)


@pytest.mark.parametrize("end", [d.Socket.finish, d.Socket.close])
@pytest.mark.parametrize("how", ["cut short", "reset"])
def test_a_callback_that_ends_it_finds_the_error_as_its_reason(sockets, run_until, run_turns, end, how):
    """It is told no other way: `event_err` is for a connection that is open."""
    told = []

    class Reader(d.Socket):
        def event_read(self):
            if self.read(100) is None:
                end(self)

        def event_err(self):
            told.append("err")

    mine, other = sockets((Reader, d.Socket))
    mine.watch_read(True)
    if how == "reset":
        other.sock.beneath.reset()
    else:
        other.sock.beneath.shutdown(socket.SHUT_WR)
    run_until(lambda: mine.closed)
    run_turns(2)
    assert told == []
    assert type(mine.close_reason) is (ConnectionResetError if how == "reset" else d.TruncatedError)


def test_callbacks_hear_of_a_stream_that_was_cut_short(sockets, run_until):
    told = []

    class Reader(d.Socket):
        def event_read(self):
            told.append(self.read(100))

        def event_err(self):
            told.extend(("err", self.close_reason))
            super().event_err()

    mine, other = sockets((Reader, d.Socket))
    mine.watch_read(True)
    other.write(b"half")
    other.sock.beneath.shutdown(socket.SHUT_WR)
    run_until(lambda: mine.closed)
    assert told == [b"half", None, "err", None]
    assert isinstance(mine.close_reason, d.TruncatedError)


def test_a_stream_that_is_cut_short_may_be_accepted(sockets):
    class Lenient(d.Socket):
        accept_truncated_tls = True

    mine, other = sockets((Lenient, d.Socket))
    other.write(b"all of it")
    other.sock.beneath.shutdown(socket.SHUT_WR)

    def main():
        assert mine.read_to_end() == b"all of it"
        assert mine.read_some() == b""

    d.run(main)


def test_a_reset_is_a_reset(sockets):
    mine, other = sockets()
    other.sock.beneath.reset()

    def main():
        with pytest.raises(ConnectionResetError):
            mine.read_some()

    d.run(main)


def test_close_within_a_record_sends_no_close_notify(sockets, run_turns):
    mine, other = sockets(capacity=4096)
    mine.write(b"x" * 100_000)
    mine.close()
    run_turns(1)

    def main():
        with pytest.raises(d.TruncatedError):
            other.read_to_end()

    d.run(main)


def test_a_client_that_never_reads_loses_nothing_by_session_tickets(real_loop, peers, tcp_pair, version):
    one, two = tcp_pair()
    one.setblocking(False)
    peer = ByHand(two, server_context(version=version), True)
    two.setblocking(False)
    mine = TlsSocket(one, client_context(version), False, "localhost")
    shake_hands(mine, peer)
    sock = d.Socket(mine)
    mine.attach(sock)
    two.settimeout(30)

    def main():
        with sock:
            sock.write_all(b"x" * 200_000)

    with pytest.MonkeyPatch.context():
        task = d.spawn(main)
        got = bytearray()

        def read():
            two.setblocking(False)
            got.extend(peer.read())
            return task.done

        real_loop.run(read)
        two.settimeout(30)
        while piece := two.recv(65536):
            peer.incoming.write(piece)
        peer.incoming.write_eof()
        while piece := peer.tls.read(65536):
            got.extend(piece)
    assert len(got) == 200_000


def test_it_cannot_be_stolen(sockets):
    mine, _other = sockets()
    with pytest.raises(RuntimeError, match="secured by TLS"):
        mine.steal_socket()
    assert not mine.closed


def test_writing_after_the_peer_has_ended(sockets):
    mine, other = sockets()

    def main():
        mine.write_eof()
        assert other.read_to_end() == b""
        other.write_all(b"still" * 30000)
        other.write_eof()
        assert len(mine.read_to_end()) == 150_000

    d.run(main)


def test_the_second_call_after_an_error_says_the_same(ends):
    mine, other = ends()
    other.beneath.send(b"this is no record of TLS, as long as it may be" * 10)
    for _ in range(3):
        with pytest.raises(d.TlsError) as caught:
            mine.recv(100)
        assert caught.value.reason not in (None, "UNEXPECTED_EOF_WHILE_READING")
    assert caught.value.refused_by == "client"


def test_an_alert_after_the_handshake_is_the_peers(ends):
    mine, other = ends()
    other.beneath.send(b"this is no record of TLS, as long as it may be" * 10)
    with pytest.raises(d.TlsError):
        mine.recv(100)
    with pytest.raises(d.TlsError) as caught:
        other.recv(100)
    assert caught.value.refused_by == "client"
    assert "the client" in str(caught.value)
    with pytest.raises(d.TlsError):
        other.send(b"x")


def test_openssl_reports_no_error_of_a_second_connection(ends):
    """OpenSSL's queue of errors belongs to the thread: a failure must not be found by the next connection."""
    for _ in range(3):
        mine, other = ends()
        other.beneath.send(b"no record" * 20)
        with pytest.raises(d.TlsError):
            mine.recv(100)
    mine, other = ends()
    other.send(b"well")
    assert mine.recv(10) == b"well"
    assert isinstance(mine.ssl_object, ssl.SSLObject)
