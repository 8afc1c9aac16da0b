"""The receiving half of TLS: what is left over reaches its reader, in both styles, although no poller announces it."""

from __future__ import annotations

import random
import socket
import ssl

import pytest

import dangagreen as d
from dangagreen.sockets.tls import TlsSocket
from tests.certificates import ByHand, client_context, server_context


class Reader(d.Socket):
    """Reads a little at each event."""

    __slots__ = ("got", "most", "reads")

    def __init__(self, sock, most=1000):
        super().__init__(sock)
        self.got, self.most, self.reads = bytearray(), most, 0

    def event_read(self):
        data = self.read(self.most)
        if data:
            self.got += data
            self.reads += 1
        elif data is None:
            self.close()


@pytest.mark.parametrize("most", [1, 1000, 16384, 100_000])
def test_event_read_gets_all_that_lies_in_one_record(sockets, run_until, most):
    mine, other = sockets((Reader, d.Socket))
    mine.most = most
    mine.watch_read(True)
    other.write(b"x" * 3000)
    run_until(lambda: len(mine.got) == 3000)
    assert mine.reads == max(1, 3000 // most)


def test_event_read_gets_records_that_came_together(sockets, run_until):
    mine, other = sockets((Reader, d.Socket))
    mine.watch_read(True)
    for number in range(50):
        other.write(b"%d," % number)
    run_until(lambda: mine.got.endswith(b"49,"))
    assert mine.reads == 1


def test_one_event_a_turn_for_a_socket(sockets, run_turns):
    mine, other = sockets((Reader, d.Socket))
    mine.watch_read(True)
    other.write(b"x" * 10_000)
    run_turns(3)
    assert mine.reads <= 4


def test_close_notify_behind_data_is_told_without_an_event(sockets, run_until):
    mine, other = sockets((Reader, d.Socket))
    mine.watch_read(True)
    other.write(b"the end")
    with pytest.raises(ssl.SSLWantReadError):
        other.sock.ssl_object.unwrap()
    other.sock.beneath.send(other.sock.outgoing.read())
    run_until(lambda: mine.closed)
    assert mine.got == b"the end"


def test_what_is_left_over_waits_while_reading_is_off(sockets, run_turns):
    mine, other = sockets((Reader, d.Socket))
    mine.watch_read(True)
    other.write(b"x" * 3000)
    run_turns(1)
    mine.watch_read(False)
    before = mine.reads
    run_turns(3)
    assert mine.reads == before
    mine.watch_read(True)
    run_turns(5)
    assert len(mine.got) == 3000


def test_a_task_gets_what_callbacks_have_left(sockets):
    mine, other = sockets((Reader, d.Socket))
    other.write(b"x" * 1000 + b"a line\n" + b"y" * 5000)
    assert mine.read(1000) == b"x" * 1000

    def main():
        d.sleep(0.1)
        assert mine.read_line() == b"a line\n"
        assert mine.read_exactly(5000) == b"y" * 5000

    d.run(main)


def test_callbacks_get_what_a_task_has_left(sockets, run_until):
    mine, other = sockets((Reader, d.Socket))
    other.write(b"hello\n" + b"y" * 5000)

    def main():
        assert mine.read_some(6) == b"hello\n"
        mine.watch_read(True)

    d.spawn(main)
    run_until(lambda: mine.got == b"y" * 5000)


def test_a_task_that_reads_a_little_each_time(sockets):
    mine, other = sockets()
    other.write(b"0123456789" * 1000)

    def main():
        got = b""
        while len(got) < 10_000:
            got += mine.read_some(7)
        assert got == b"0123456789" * 1000

    d.run(main)


def test_a_read_that_is_cancelled_loses_nothing(sockets):
    mine, other = sockets()
    data = bytes(range(256)) * 400
    rng = random.Random(4)

    def write():
        for start in range(0, len(data), 700):
            other.write_all(data[start : start + 700])
            d.sleep(0.01)

    def main():
        d.spawn(write)
        got = b""
        while len(got) < len(data):
            size = min(rng.choice([1, 100, 5000, 20000]), len(data) - len(got))
            with d.move_on_after(rng.random() / 50):
                got += mine.read_exactly(size)
        assert got == data

    d.run(main)


def test_a_look_takes_nothing(sockets, run_turns):
    mine, other = sockets()
    assert not mine.ready
    other.write(b"hello")
    assert mine.ready
    assert mine.ready
    assert mine.read(10) == b"hello"
    assert not mine.ready


def test_what_a_look_has_found_is_announced(sockets, run_until):
    mine, other = sockets((Reader, d.Socket))
    other.write(b"hello")
    assert mine.sock.recv(2, socket.MSG_PEEK) == b"he"
    mine.watch_read(True)
    run_until(lambda: mine.got == b"hello")


def test_select_hears_of_what_is_left_over(sockets):
    mine, other = sockets()
    other.write(b"x" * 100)

    def main():
        assert mine.read_some(10) == b"x" * 10
        assert d.select(mine) is mine
        assert mine.read_exactly(90) == b"x" * 90

    d.run(main)


def test_read_into(sockets):
    mine, other = sockets()
    other.write(b"x" * 20_000)
    buffer = bytearray(8000)
    assert mine.read_into(buffer) == 8000
    assert mine.read_into(memoryview(buffer)[:100]) == 100

    def main():
        rest = 20_000 - 8100
        while rest:
            rest -= mine.read_some_into(buffer)

    d.run(main)


def test_bulk_is_received_several_records_at_a_time(ends):
    mine, other = ends(capacity=1 << 20)
    other.send(b"x" * 60_000)
    assert len(mine.recv(65536)) == 60_000


def test_back_pressure_holds_the_peer_while_nobody_reads(sockets, run_turns):
    mine, other = sockets()
    other.write(b"x" * 1_000_000)
    assert mine.read(10)
    run_turns(50)
    assert mine.buffered < 100_000
    assert other.unsent > 700_000


def test_openssl_gets_one_record_at_a_time(ends):
    mine, other = ends(capacity=1 << 20)
    other.send(b"x" * 200_000)
    largest = []

    class Looking:
        def __getattr__(self, name):
            return getattr(inner, name)

        def write(self, data):
            largest.append(inner.pending + len(data))
            return inner.write(data)

    inner, mine.incoming = mine.incoming, Looking()
    got = 0
    while got < 200_000:
        got += len(mine.recv(65536))
    assert max(largest) <= 16640


def test_input_that_comes_with_the_end_of_the_handshake_is_announced(wires, peers, run_until):
    one, two = wires()
    mine = TlsSocket(one, server_context(), True)
    peer = ByHand(two, client_context(), server_hostname="localhost")
    peers.append(mine)
    with pytest.raises(BlockingIOError):
        peer.go_on()
    with pytest.raises(BlockingIOError):
        mine.go_on()
    peer.take()
    peer.tls.do_handshake()
    peer.tls.write(b"early")
    peer.give()
    sock = Reader(mine.go_on())
    mine.attach(sock)
    sock.watch_read(True)
    run_until(lambda: sock.got == b"early")


class Counting:
    """A socket whose sends are counted."""

    def __init__(self, sock):
        self.sock, self.sends = sock, 0

    def __getattr__(self, name):
        return getattr(self.sock, name)

    def send(self, data):
        self.sends += 1
        return self.sock.send(data)


class Echo(d.Socket):
    __slots__ = ()

    def event_read(self):
        if data := self.read(65536):
            self.write(data)


@pytest.mark.parametrize("early", [b"request", b""], ids=["a request has come", "no request yet"])
@pytest.mark.parametrize("style", ["callbacks", "tasks"])
def test_session_tickets_leave_with_the_first_reply_or_when_the_turn_ends(wires, peers, run_turns, early, style):
    one, two = wires()
    beneath = Counting(one)
    mine = TlsSocket(beneath, server_context(), True)
    peer = ByHand(two, client_context(), server_hostname="localhost")
    peers.append(mine)
    for step in (peer.go_on, mine.go_on):
        with pytest.raises(BlockingIOError):
            step()
    peer.take()
    peer.tls.do_handshake()
    if early:
        peer.tls.write(early)
    peer.give()
    mine.go_on()
    sock = Echo(mine)
    mine.attach(sock)

    def reply():  # the task ends: what it has written leaves at the end of the turn
        sock.write_all(sock.read_some())

    if style == "callbacks":
        sock.watch_read(True)
    else:
        d.spawn(reply)
    assert beneath.sends == 1
    run_turns(2)
    assert beneath.sends == 2
    assert peer.read() == early
    assert peer.tls.session.has_ticket
    peer.write(b"another")
    if style == "tasks" and early:
        d.spawn(reply)
    run_turns(3)
    assert beneath.sends == 3


def test_a_peer_that_has_cut_its_stream_short_is_sent_no_alert(sockets):
    """It would answer by an RST."""
    mine, other = sockets()
    mine.sock.beneath = Counting(mine.sock.beneath)
    other.sock.beneath.shutdown(socket.SHUT_WR)

    def main():
        with pytest.raises(d.TruncatedError):
            mine.read_some()
        with pytest.raises(d.TruncatedError):
            mine.read_some()
        mine.close()

    d.run(main)
    assert mine.sock.beneath.sends == 0


def test_late_input_of_a_lingering_close_is_discarded_to_its_end(sockets, run_until):
    mine, other = sockets()
    for _ in range(100):
        other.write(b"x" * 500)
    other.write_eof()
    mine.finish()
    run_until(lambda: mine.closed)
    assert mine.close_reason is None
