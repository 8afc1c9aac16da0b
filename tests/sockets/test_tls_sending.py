"""The sending half of TLS: what counts as sent, back-pressure in plain text, few records, key updates, memory."""

from __future__ import annotations

import contextlib
import ssl

import pytest

import dangagreen as d
from dangagreen.sockets.tls import TlsSocket
from dangagreen.testing import BLOCK
from tests.certificates import client_context, server_context

RECORD = 16384


@pytest.fixture
def ends(ends):
    """`ends(capacity=65536)` makes two TLS ends whose session tickets are read."""

    def without_tickets(capacity=65536):
        made = ends(capacity=1 << 20)
        for end in made:
            with pytest.raises(BlockingIOError):
                end.recv(1)
            end.beneath.capacity = capacity
        return made

    return without_tickets


def everything(end):
    """All plain text that has come to an end."""
    got = b""
    try:
        while piece := end.recv(100_000):
            got += piece
    except BlockingIOError:
        pass
    return got


@pytest.mark.parametrize("room", [1, 5, 22, 1000, 20000, 70000])
def test_whatever_the_kernel_takes_nothing_is_lost_or_sent_twice(ends, room):
    mine, other = ends(room)
    data = bytes(range(256)) * (800 if room > 100 else 80)
    sent, got = 0, bytearray()
    while sent < len(data):
        try:
            sent += mine.send(data[sent : sent + 150_000])
        except BlockingIOError:
            pass
        got += everything(other)
    assert not mine.wants_write
    assert got == data


def test_not_all_counts_as_sent_while_ciphertext_waits(ends):
    mine, other = ends(100)
    assert 0 < mine.send(b"x" * 1000) < 1000
    assert mine.wants_write
    other.beneath.recv(100)


def test_a_refused_send_is_repeated_with_what_was_written_since(ends):
    mine, other = ends()
    mine.beneath.writes.append(BLOCK)
    with pytest.raises(BlockingIOError):
        mine.send(b"one")
    assert mine.send(b"one, two") == 8
    assert everything(other) == b"one, two"


def test_an_empty_send_makes_no_record(ends):
    mine, other = ends()
    assert mine.send(b"") == 0
    assert other.beneath.events(1) == 0


def test_unsent_counts_plain_text_and_ends_with_the_ciphertext(sockets, run_turns):
    mine, other = sockets(capacity=5000)
    mine.write(b"x" * 4000)
    assert mine.unsent == 0
    mine.write(b"y" * 4000)
    assert 0 < mine.unsent <= 4000
    run_turns(3)
    assert mine.unsent > 0
    other.sock.beneath.recv(5000)
    run_turns(3)
    assert mine.unsent == 0


def test_max_unsent_and_water_marks_count_plain_text(sockets, run_turns):
    told = []

    class Marked(d.Socket):
        high_water, low_water, max_unsent = 3000, 1000, 5000

        def on_high_water(self):
            told.append(("high", self.unsent))

        def on_low_water(self):
            told.append(("low", self.unsent))

    mine, other = sockets((Marked, d.Socket), capacity=100)
    mine.write(b"x" * 4900)
    assert told == [("high", mine.unsent)]
    assert not mine.closed
    while mine.unsent > 1000:
        other.sock.beneath.recv(100)
        run_turns(1)
    assert told[-1][0] == "low"
    assert told[-1][1] <= 1000
    mine.write(b"x" * 5000)
    assert mine.closed
    assert "max_unsent" in mine.close_reason


def test_many_small_pieces_become_few_records(sockets, run_turns):
    mine, other = sockets()
    for _ in range(1000):
        mine.write_soon(b"0123456789")
    run_turns(1)
    got = other.sock.beneath.recv(65536)
    assert len(got) < 10_000 + 2 * 40  # one record, of 22 bytes more than its text


def test_many_small_writes_of_a_task_become_few_records(sockets, run_turns):
    mine, other = sockets()

    def main():
        for _ in range(1000):
            mine.write_all(b"0123456789")
        mine.drain()
        assert len(other.sock.beneath.recv(65536)) < 10_000 + 2 * 40

    d.run(main)


def test_a_large_write_goes_through_openssl_a_record_at_a_time(ends):
    mine, other = ends(1 << 24)
    largest = []

    class Looking:
        def __getattr__(self, name):
            return getattr(inner, name)

        def write(self, data):
            done = inner.write(data)
            largest.append(mine.outgoing.pending)
            return done

    inner, mine.ssl_object = mine.ssl_object, Looking()
    assert mine.send(b"x" * (1 << 20)) == 1 << 20
    assert max(largest) < RECORD + 100
    assert len(everything(other)) == 1 << 20


def test_one_call_encrypts_a_bounded_amount(ends):
    mine, _other = ends(1 << 25)
    assert mine.send(b"x" * (1 << 24)) == 1 << 20


def test_a_broken_connection_is_an_error_of_the_socket_beneath(ends):
    mine, other = ends()
    other.beneath.reset()
    with pytest.raises(ConnectionResetError):
        mine.send(b"x")


def test_a_refusal_that_a_write_meets_is_the_peers(wires, peers):
    """Under TLS 1.3 a client is refused after its handshake; by then it may be writing, and meets a reset."""
    one, two = wires()
    context = server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    mine, other = TlsSocket(one, client_context(), False, "localhost"), TlsSocket(two, context, True)
    peers.extend([mine, other])
    for end in (mine, other, mine):
        with contextlib.suppress(BlockingIOError):
            end.go_on()
    with pytest.raises(d.TlsError, match="no certificate"):
        other.go_on()
    other.beneath.reset()
    with pytest.raises(d.TlsError, match=r"the server localhost has refused TLS: certificate required") as caught:
        mine.send(b"request")
    assert caught.value.refused_by == "server"
    with pytest.raises(d.TlsError):
        mine.recv(10)


def test_a_writer_function_sees_plain_text(sockets):
    mine, other = sockets()
    seen = []

    def writer(data):
        seen.append(bytes(data))
        return mine.sock.send(data)

    mine.set_writer_func(writer)
    mine.write(b"plain")
    assert seen == [b"plain"]
    assert everything(other.sock) == b"plain"


def test_callables_run_when_all_before_them_has_left_as_ciphertext(sockets, run_turns):
    mine, other = sockets(capacity=100)
    done = []
    mine.write(b"x" * 500)
    mine.write(lambda: done.append(mine.sock.wants_write))
    for _ in range(5):  # of 522 bytes
        run_turns(2)
        assert done == []
        other.sock.beneath.recv(100)
    run_turns(2)
    assert done == [False]
