"""finish and write_eof, how long a peer is waited for, and a linger time of the OS socket's own."""

import socket
import struct
import time

import pytest

from dangagreen import Socket, serve
from dangagreen.loop.pollers import ERR
from dangagreen.sockets.states import EOF_TOLD
from tests.connections import Patient, Server, taken


class Client(Socket):
    """Sends without end, a chunk for each writable event, and reads; what its OS socket raises is not hidden."""

    __slots__ = ("chunk", "data", "ended", "reset_by")

    def __init__(self, sock, loop=None):
        super().__init__(sock, loop)
        self.data = bytearray()
        self.ended = False
        self.reset_by = None
        self.chunk = b"x" * 1000

    def event_write(self):
        try:
            self.sock.send(self.chunk)
        except BlockingIOError:
            pass
        except OSError:
            self.watch_write(False)

    def event_read(self):
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            self.reset_by = error
            data = b""
        self.data += data
        if not data:
            self.ended = True
            self.watch_read(False)
            self.watch_write(False)


REPLY = bytes(range(256)) * 4096


# -- finish, on real sockets


def test_the_whole_reply_reaches_a_peer_that_is_still_sending_and_no_reset_does(
    real_loop, real_pair, run_turns, run_until
):
    sock, peer = real_pair()
    server, client = Server(sock), Client(peer)
    client.watch_write(True)
    run_turns(5)
    server.write(REPLY)
    server.finish()
    client.watch_read(True)
    run_until(lambda: client.ended)
    assert client.reset_by is None
    assert bytes(client.data) == REPLY
    client.close()
    run_until(lambda: server.closed)
    assert server.close_reason is None


def test_a_small_reply_to_a_large_request_that_nobody_reads_arrives(real_loop, real_pair, run_until):
    sock, peer = real_pair()
    server, client = Server(sock), Client(peer)
    client.chunk = b"x" * 100_000
    client.event_write()
    server.write(b"413 too large")
    server.finish()
    client.watch_read(True)
    run_until(lambda: client.ended)
    assert client.reset_by is None
    assert bytes(client.data) == b"413 too large"
    client.close()
    run_until(lambda: server.closed)


def test_a_peer_that_never_stops_sending_is_cut_off(real_loop, real_pair, run_until):
    class Impatient(Server):
        __slots__ = ()
        linger_seconds = 0.05

    sock, peer = real_pair()
    server, client = Impatient(sock), Client(peer)
    client.watch_write(True)
    server.write(b"bye")
    start = real_loop.time()
    server.finish()
    run_until(lambda: server.closed, turns=1_000_000)
    assert real_loop.time() - start >= 0.05 or "bytes" in str(server.close_reason)
    assert server.close_reason is not None


def test_finish_with_the_peer_gone_already_closes_without_lingering(real_loop, real_pair, run_until):
    sock, peer = real_pair()
    server = Server(sock)
    server.watch_read(True)
    peer.close()
    run_until(lambda: server.ends or server.closed)
    server.finish()
    assert server.closed


def test_finish_after_a_reset_closes(real_loop, tcp_pair, run_turns):
    sock, peer = tcp_pair()
    server = Server(sock)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    server.finish()
    run_turns(3)
    assert server.closed


# -- finish, on the wire


def test_finish_ends_the_stream_at_once_and_closes_when_the_peer_ends_its_own(loop, wires, run_turns):
    sock, peer = wires()
    server = Server(sock)
    server.write(b"reply")
    server.finish()
    assert peer.recv(10) == b"reply"
    assert peer.recv(10) == b""
    assert not server.closed
    run_turns(3)
    assert not server.closed
    peer.shutdown(socket.SHUT_WR)
    run_turns(2)
    assert server.closed
    assert server.close_reason is None
    assert not peer.events(0) & ERR  # no reset


def test_finish_sends_what_is_queued_before_it_ends_the_stream(loop, wires, run_turns):
    sock, peer = wires(3)
    server = Server(sock)
    ran = []
    server.write(b"0123456789")
    server.write(lambda: ran.append(server.unsent))
    server.finish()
    assert taken(peer, lambda: run_turns(1), 10) == b"0123456789"
    assert ran == [0]
    assert peer.recv(1) == b""


def test_finish_sends_what_write_soon_has_queued(loop, wires, run_turns):
    sock, peer = wires()
    server = Server(sock)
    server.write_soon(b"soon")
    server.finish()
    run_turns(1)
    assert peer.recv(10) == b"soon"
    assert peer.recv(10) == b""


def test_a_peer_that_ended_its_side_before_gets_the_whole_reply(loop, wires, run_turns):
    sock, peer = wires(10)
    server = Server(sock)
    server.watch_read(True)
    peer.shutdown(socket.SHUT_WR)
    run_turns(2)
    assert server.ends == 1
    server.write(b"0123456789" * 10)
    server.finish()
    assert taken(peer, lambda: run_turns(1), 20) == b"0123456789" * 10
    assert server.closed


def test_a_peer_that_ends_its_side_during_finish_gets_the_whole_reply(loop, wires, run_turns):
    sock, peer = wires(10)
    server = Server(sock)
    server.write(b"0123456789" * 10)
    server.finish()
    peer.send(b"late")
    peer.shutdown(socket.SHUT_WR)
    assert taken(peer, lambda: run_turns(1), 20) == b"0123456789" * 10
    assert server.closed


def test_a_peer_that_ends_its_side_during_finish_does_not_make_the_loop_spin(loop, wires, advance):
    sock, peer = wires(10)
    server = Server(sock)
    server.write(b"0123456789" * 10)
    server.finish()
    peer.shutdown(socket.SHUT_WR)
    waits = loop.poller.waits
    advance(4)
    assert loop.poller.waits - waits <= 6
    assert not server.closed


def test_late_input_is_thrown_away_and_calls_no_hook(loop, wires, run_turns):
    sock, peer = wires()
    server = Server(sock)
    server.watch_read(True)
    server.push_back_read(b"read ahead")
    server.finish()
    peer.send(b"late")
    run_turns(3)
    server.watch_read(True)
    server.push_back_read(b"again")
    peer.send(b"later")
    run_turns(3)
    assert server.data == b""
    assert server.ends == 0
    assert bytes(sock.received) == b"latelater"
    assert not server.closed


def test_what_is_written_after_finish_goes_nowhere(loop, wires, run_turns):
    sock, peer = wires()
    server = Server(sock)
    ran = []
    server.finish()
    assert server.write(b"x") is True
    assert server.write(lambda: ran.append(1)) is True
    server.write_soon(b"y")
    run_turns(2)
    assert peer.recv(10) == b""
    assert ran == []


def test_finish_twice_and_after_close_does_nothing(loop, wires, run_turns):
    (sock, peer), (other_sock, _) = wires(), wires()
    server, closed = Server(sock), Server(other_sock)
    closed.close("closed")
    closed.finish()
    assert closed.close_reason == "closed"
    server.finish()
    server.finish()
    peer.shutdown(socket.SHUT_WR)
    run_turns(2)
    assert server.closed


def test_a_peer_that_does_nothing_after_finish_is_cut_off_after_linger_seconds(loop, wires, advance):
    sock, _ = wires()
    server = Server(sock)
    server.finish()
    advance(Server.linger_seconds - 0.1)
    assert not server.closed
    advance(0.2)
    assert server.closed
    assert "5.0 s" in str(server.close_reason)


def test_a_peer_that_drips_after_finish_is_cut_off_in_bounded_time(loop, wires, advance):
    sock, peer = wires()
    server = Server(sock)
    server.finish()
    seconds = 0
    while not server.closed:
        peer.send(b"x")
        advance(0.5)
        seconds += 0.5
        assert seconds < 30
    assert seconds == pytest.approx(Server.linger_seconds, abs=1)


def test_a_peer_that_floods_after_finish_is_cut_off_after_linger_bytes(loop, wires, run_turns):
    class Limited(Server):
        __slots__ = ()
        linger_bytes = 200_000

    sock, peer = wires(65536)
    server = Limited(sock)
    server.finish()
    sent = 0
    while not server.closed:
        sent += peer.send(b"x" * 10_000)
        run_turns(1)
        assert sent < 10_000_000
    assert 200_000 < sent <= 300_000
    assert "200000 bytes" in str(server.close_reason)


def test_a_peer_that_takes_nothing_of_the_reply_is_cut_off_after_linger_seconds(loop, wires, advance):
    sock, _ = wires(10)
    server = Server(sock)
    server.write(b"x" * 100)
    server.finish()
    advance(Server.linger_seconds + 0.1)
    assert server.closed
    assert "took no more" in str(server.close_reason)


def test_a_peer_that_takes_the_reply_slowly_gets_all_of_it(loop, wires, advance):
    sock, peer = wires(10)
    server = Server(sock)
    server.write(b"x" * 100)
    server.finish()
    assert taken(peer, lambda: advance(Server.linger_seconds * 0.8), 20) == b"x" * 100
    assert peer.recv(1) == b""


def test_a_peer_that_is_reset_during_finish_closes_it(loop, wires, run_turns):
    sock, peer = wires(10)
    server = Server(sock)
    server.write(b"x" * 100)
    server.finish()
    peer.reset()
    run_turns(3)
    assert server.closed


def test_a_hang_up_during_finish_closes_it_without_spinning(loop, wires, advance):
    sock, peer = wires(10)
    server = Server(sock)
    server.write(b"x" * 100)
    server.finish()
    peer.hang_up()
    waits = loop.poller.waits
    advance(1)
    assert server.closed
    assert loop.poller.waits - waits <= 4


def test_finish_leaves_no_timer_behind(loop, wires, run_turns):
    sock, peer = wires()
    server = Server(sock)
    server.finish()
    assert len(loop.timers) == 1
    peer.shutdown(socket.SHUT_WR)
    run_turns(2)
    assert len(loop.timers) == 0


def test_close_during_finish_closes_at_once(loop, wires, run_turns):
    sock, _ = wires(10)
    server = Server(sock)
    server.write(b"x" * 100)
    server.finish()
    server.close("no patience")
    assert server.close_reason == "no patience"
    run_turns(1)
    assert sock.closed
    assert len(loop.timers) == 0


# -- write_eof: half a close


class Reader(Socket):
    __slots__ = ("data",)

    def __init__(self, sock):
        super().__init__(sock)
        self.data = b""

    def event_read(self):
        self.data += self.read(100) or b""


def test_write_eof_ends_writing_behind_what_is_queued_and_reading_goes_on(loop, wires, run_turns):
    sock, peer = wires(10)
    one = Reader(sock)
    one.watch_read(True)
    one.write(b"x" * 15)
    one.write_eof()
    assert one.write(b"nowhere") is True
    assert peer.recv(100) == b"x" * 10
    run_turns(3)
    assert peer.recv(100) == b"x" * 5
    run_turns(3)
    assert peer.recv(100) == b""
    peer.send(b"still")
    run_turns(3)
    assert one.data == b"still"
    assert not one.closed
    peer.close()
    run_turns(3)


def test_finish_after_write_eof_closes_when_the_peer_has_ended(loop, wires, run_turns):
    sock, peer = wires()
    one = Reader(sock)
    one.write(b"all")
    one.write_eof()
    one.finish()
    run_turns(2)
    assert peer.recv(100) == b"all"
    assert peer.recv(100) == b""
    assert not one.closed
    peer.close()
    run_turns(3)
    assert one.closed
    assert one.close_reason is None


@pytest.mark.parametrize("queued", [3, 15], ids=["all is sent", "some is queued"])
def test_finish_after_write_eof_is_a_clean_end_when_the_peer_ended_meanwhile(queued, loop, wires, run_turns):
    """A second shutdown(2) would be refused by ENOTCONN once both FINs were exchanged."""
    sock, peer = wires(10)
    one = Reader(sock)
    one.write(b"x" * queued)
    one.write_eof()
    peer.shutdown(socket.SHUT_WR)
    one.finish()
    for _ in range(2):
        peer.recv(100)
        run_turns(2)
    assert one.closed
    assert one.close_reason is None
    assert one._write_error is None


@pytest.mark.parametrize("end", [Socket.write_eof, Socket.finish])
def test_what_a_hook_writes_while_the_end_leaves_goes_nowhere(end, loop, wires, run_turns):
    class Source(Reader):
        """Writes more whenever there is room."""

        __slots__ = ()
        high_water, low_water = 100, 10

        def on_low_water(self):
            self.write(b"more")

    sock, peer = wires()
    one = Source(sock)
    one.watch_read(True)
    one.write_soon(b"x" * 200)
    end(one)
    assert peer.recv(1000) == b"x" * 200
    assert peer.recv(1000) == b""
    assert one._write_error is None
    peer.send(b"still")
    run_turns(2)
    assert one.data == (b"still" if end is Socket.write_eof else b"")
    peer.close()
    run_turns(2)


def test_an_end_that_was_told_stays_told_while_finishing(loop, wires, run_turns):
    sock, peer = wires(10, family=socket.AF_UNIX)
    one = Reader(sock)
    one.watch_read(True)
    peer.shutdown(socket.SHUT_WR)
    one.write(b"x" * 15)
    run_turns(2)
    assert one._eof == EOF_TOLD
    one.finish()
    peer.shutdown(socket.SHUT_RD)  # a hang-up, while something is queued still
    run_turns(2)
    assert one.closed
    assert one._eof == EOF_TOLD


def test_a_failing_shutdown_is_a_failed_write(loop, wires, run_turns):
    sock, _peer = wires()
    one = Reader(sock)
    sock.close()
    one.write_eof()
    run_turns(2)
    assert one.closed
    assert isinstance(one.close_reason, OSError)


def test_what_came_before_a_stall_ends_a_lingering_close_in_order(loop, wires, run_turns):
    near, far = wires()
    sock = Patient(near)
    sock.write(b"bye")
    sock.finish()
    run_turns(1)
    far.send(b"late")
    assert far.recv(10) == b"bye"
    far.close()
    loop.clock.jump(60.0)
    sock._timer.callback()  # before its event
    assert sock.closed
    assert sock.close_reason is None
    run_turns(1)


# -- close(2) with a linger time


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
        peer = socket.create_connection(listener.address, 30)
        peer.settimeout(30)
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
