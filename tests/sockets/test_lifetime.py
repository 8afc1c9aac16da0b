"""finish and write_eof, how long a peer is waited for, idle time and lifetime, what a stall of the process means."""

import errno
import socket
import struct

import pytest

from dangagreen import Socket
from dangagreen.loop.pollers import ERR
from dangagreen.sockets.states import EOF_TOLD


class Server(Socket):
    """Reads what it gets and keeps it."""

    __slots__ = ("data", "ends")

    def __init__(self, sock, loop=None):
        super().__init__(sock, loop)
        self.data = b""
        self.ends = 0

    def event_read(self):
        data = self.read(65536)
        if data is None:
            self.ends += 1
        else:
            self.data += data


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
    received = b""
    for _ in range(10):
        received += peer.recv(100) if peer.events(1) else b""
        run_turns(1)
    assert received == b"0123456789"
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
    received = b""
    for _ in range(20):
        received += peer.recv(100) if peer.events(1) else b""
        run_turns(1)
    assert received == b"0123456789" * 10
    assert server.closed


def test_a_peer_that_ends_its_side_during_finish_gets_the_whole_reply(loop, wires, run_turns):
    sock, peer = wires(10)
    server = Server(sock)
    server.write(b"0123456789" * 10)
    server.finish()
    peer.send(b"late")
    peer.shutdown(socket.SHUT_WR)
    received = b""
    for _ in range(20):
        received += peer.recv(100) if peer.events(1) else b""
        run_turns(1)
    assert received == b"0123456789" * 10
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
    received = b""
    for _ in range(20):
        received += peer.recv(100) if peer.events(1) else b""
        advance(Server.linger_seconds * 0.8)
    assert received == b"x" * 100
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


# -- timeouts


class Idle(Server):
    __slots__ = ()
    idle_timeout = 10


class Mortal(Server):
    __slots__ = ()
    lifetime = 10


def test_an_idle_peer_is_closed_with_a_reason(loop, wires, advance):
    sock, peer = wires()
    one = Idle(sock)
    one.watch_read(True)
    advance(9.9)
    assert not one.closed
    advance(0.2)
    assert one.closed
    assert "idle" in str(one.close_reason)
    assert "10 s" in str(one.close_reason)
    assert peer.recv(1) == b""


def test_input_begins_the_idle_time_anew(loop, wires, advance):
    sock, peer = wires()
    one = Idle(sock)
    one.watch_read(True)
    for _ in range(20):
        advance(6)
        peer.send(b"x")
    advance(0.1)
    assert not one.closed
    advance(9.8)
    assert not one.closed
    advance(0.2)
    assert one.closed
    assert one.data == b"x" * 20


def test_a_handlers_own_work_does_not_count_as_idle(loop, wires, advance):
    sock, _ = wires()
    one = Idle(sock)
    one.watch_read(True)
    advance(5)
    one.watch_read(False)
    advance(100)
    assert not one.closed
    one.watch_read(True)
    advance(9.9)
    assert not one.closed
    advance(0.2)
    assert one.closed


def test_a_peer_that_takes_nothing_of_what_is_queued_is_idle(loop, wires, advance):
    sock, _ = wires(10)
    one = Idle(sock)
    one.write(b"x" * 100)
    advance(25)
    assert one.closed


def test_a_peer_that_keeps_taking_what_is_queued_is_not_idle(loop, wires, advance):
    sock, peer = wires(10)
    one = Idle(sock)
    one.watch_read(True)
    one.write(b"x" * 200)
    received = b""
    for _ in range(20):
        advance(3)
        received += peer.recv(10) if peer.events(1) else b""
    assert not one.closed
    assert received == b"x" * 200


def test_a_lifetime_ends_a_busy_connection_too(loop, wires, advance):
    sock, peer = wires()
    one = Mortal(sock)
    one.watch_read(True)
    for _ in range(9):
        peer.send(b"x")
        advance(1)
    assert not one.closed
    advance(1.1)
    assert one.closed
    assert "lifetime" in str(one.close_reason)


def test_a_lifetime_counts_also_while_nothing_is_watched(loop, wires, advance):
    one = Mortal(wires()[0])
    advance(10.1)
    assert one.closed


def test_the_earlier_of_both_limits_counts(loop, wires, advance):
    class Both(Server):
        __slots__ = ()
        idle_timeout = 3
        lifetime = 5

    (idle_sock, _), (busy_sock, busy_peer) = wires(), wires()
    idle, busy = Both(idle_sock), Both(busy_sock)
    for one in (idle, busy):
        one.watch_read(True)
    advance(2)
    busy_peer.send(b"x")
    advance(1.5)
    assert idle.closed
    assert "idle" in str(idle.close_reason)
    assert not busy.closed
    advance(2)
    assert "lifetime" in str(busy.close_reason)


def test_a_thousand_reads_cost_one_timer(loop, wires, run_turns, monkeypatch):
    sock, peer = wires()
    one = Idle(sock)
    one.watch_read(True)
    added = []
    real_add = loop.timers.add

    class Counting:
        def __getattr__(self, name):
            return getattr(timers, name)

        def __len__(self):
            return len(timers)

        def add(self, *arguments):
            added.append(arguments)
            return real_add(*arguments)

    timers = loop.timers
    monkeypatch.setattr(loop, "timers", Counting())
    for _ in range(1000):
        peer.send(b"x")
        run_turns(1)
    monkeypatch.setattr(loop, "timers", timers)
    assert one.data == b"x" * 1000
    assert added == []
    assert len(timers) == 1


@pytest.mark.parametrize("kind", [Idle, Mortal])
def test_closing_leaves_no_timer_behind(kind, loop, wires):
    one = kind(wires()[0])
    assert len(loop.timers) == 1
    one.close()
    assert len(loop.timers) == 0


def test_no_timeout_means_no_timer(loop, wires):
    Server(wires()[0])
    assert len(loop.timers) == 0


@pytest.mark.parametrize("ends", [False, True], ids=["no limit", "finish"])
def test_a_hook_may_change_the_limits_when_a_timeout_looks_for_the_last_time(ends, loop, wires, run_turns):
    """What the kernel had no memory for leaves then, which is no idleness."""

    class Changing(Idle):
        __slots__ = ()
        high_water, low_water = 10, 1

        def on_low_water(self):
            if ends:
                self.finish()
            else:
                self.idle_timeout = None

    sock, peer = wires()
    one = Changing(sock)
    sock.writes.append(OSError(errno.ENOBUFS, "no memory"))
    one.write(b"x" * 20)
    loop.clock.jump(10.1)
    run_turns(1)
    assert peer.recv(100) == b"x" * 20
    assert not one.closed
    assert len(loop.timers) == ends
    one.close()


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


def test_work_that_computes_does_not_count_as_idle(loop, wires, advance):
    """Though no turn of the loop comes in between."""

    class Slow(Idle):
        __slots__ = ()

        def event_read(self):
            super().event_read()
            self.loop.clock.jump(15)

    sock, peer = wires()
    one = Slow(sock)
    one.watch_read(True)
    peer.send(b"x")
    advance(9)
    assert not one.closed
    one.push_back_read(b"y")
    advance(1)  # and 15 of its own
    advance(8.9)
    assert not one.closed
    advance(2)
    assert one.closed


def test_time_before_a_reply_gets_stuck_does_not_count_as_idle(loop, wires, advance):
    sock, peer = wires(10)
    one = Idle(sock)
    advance(19.9)
    one.write(b"x" * 20)
    advance(1)
    assert not one.closed
    assert peer.recv(100) == b"x" * 10
    advance(9)
    assert peer.recv(100) == b"x" * 10
    assert not one.closed
    one.write(b"x" * 20)
    advance(10.1)
    assert one.closed


@pytest.mark.parametrize("name", ["idle_timeout", "lifetime", "linger_seconds"])
@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_times_that_are_none_are_refused_with_the_class(name, seconds):
    with pytest.raises(ValueError, match=rf"Bad.{name} is {seconds}"):
        type("Bad", (Socket,), {name: seconds})


# -- after a stall of the whole process


class Patient(Socket):
    __slots__ = ("got",)
    idle_timeout = 1.0

    def __init__(self, sock):
        super().__init__(sock)
        self.got = b""

    def event_read(self):
        self.got += self.read(100) or b""


def test_nobody_who_has_sent_before_a_stall_is_closed_as_idle(loop, wires, run_turns):
    """Of a large batch of events most are dispatched after timers have been looked at."""
    socks = []
    for _ in range(300):
        near, far = wires()
        socks.append((Patient(near), far))
        socks[-1][0].watch_read(True)
    run_turns(1)
    for _, far in socks:
        far.send(b"here")
    loop.clock.jump(5.0)
    run_turns(3)
    assert [sock.close_reason for sock, _ in socks if sock.closed] == []
    assert {sock.got for sock, _ in socks} == {b"here"}


def test_who_has_sent_nothing_before_a_stall_is_closed(loop, wires, run_turns):
    sock = Patient(wires()[0])
    sock.watch_read(True)
    run_turns(1)
    loop.clock.jump(5.0)
    run_turns(2)
    assert sock.close_reason == "the peer was idle for 1.0 s"


def test_who_has_taken_what_was_queued_before_a_stall_is_not_idle(loop, wires, run_turns):
    near, far = wires(100)
    sock = Patient(near)
    sock.write(b"x" * 1000)
    run_turns(1)
    assert sock.unsent
    far.recv(100)
    loop.clock.jump(5.0)
    sock._timer.cancel()
    sock._check_limits()  # before its event
    assert not sock.closed
    assert sock.unsent == 800


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
    sock._lingered(0)  # before its event
    assert sock.closed
    assert sock.close_reason is None
    run_turns(1)
