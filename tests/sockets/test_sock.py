"""The socket of callback style: reading, pushing back, hang-ups and resets, the order of events, stealing."""

import errno
import platform
import socket
import sys
from random import Random

import pytest

from dangagreen import BusyError, ClosedError, Loop, Socket
from dangagreen.loop.pollers import ERR, HUP, READ, WRITE
from dangagreen.sockets.states import BY_PEER
from dangagreen.testing import BLOCK
from tests.connections import Reader, Recording, reset
from tests.programs import run_python


class Deaf(Reader):
    """Ignores hang-ups and errors."""

    __slots__ = ()

    def event_hup(self):
        self.calls.append("hup")

    def event_err(self):
        self.calls.append("err")


class Scripted:
    """A poller that reports what it is told to, whatever the interest."""

    def __init__(self):
        self.turns = []

    def add(self, fd, mask):
        pass

    modify = add

    def remove(self, fd):
        pass

    def wait(self, timeout):
        return self.turns.pop(0) if self.turns else []

    def close(self):
        pass


def reports_hang_ups(poller_class):
    return poller_class.__name__ != "SelectPoller"


# -- making one


def test_a_misspelt_attribute_raises(loop, wires):
    class Typo(Socket):
        __slots__ = ("name",)

    one = Typo(wires()[0])
    one.name = "fine"
    with pytest.raises(AttributeError):
        one.nmae = "wrong"
    with pytest.raises(AttributeError):
        Socket(wires()[0]).anything = 1


def test_a_listening_socket_of_your_own_accepts_in_event_read(real_loop, peers, run_until):
    class Accepting(Socket):
        __slots__ = ("accepted",)

        def event_read(self):
            self.accepted = self.sock.accept()[0]

    server = socket.create_server(("127.0.0.1", 0))
    peers.append(server)
    one = Accepting(server)
    one.accepted = None
    one.watch_read(True)
    client = socket.create_connection(server.getsockname())
    peers.append(client)
    run_until(lambda: one.accepted)
    peers.append(one.accepted)
    assert one.accepted.getpeername() == client.getsockname()


def test_a_connecting_socket_sends_what_was_written_meanwhile(real_loop, peers, run_until):
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.socket()
    peers.extend((server, client))
    client.setblocking(False)
    client.connect_ex(server.getsockname())
    one = Reader(client)
    one.write(b"hello")
    one.watch_read(True)
    accepted = server.accept()[0]
    peers.append(accepted)
    accepted.send(b"answer")
    run_until(lambda: one.data)
    assert accepted.recv(100) == b"hello"
    assert one.data == b"answer"


def test_a_connection_that_is_refused_closes_with_that_as_the_reason(real_loop, peers, wait_for):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    client = socket.socket()
    peers.append(client)
    client.setblocking(False)
    client.connect_ex(address)
    one = Reader(client)
    one.watch_write(True)
    one.write(b"hello") if one.loop.poller.__class__.__name__ == "SelectPoller" else None
    wait_for(lambda: one.closed)
    assert isinstance(one.close_reason, OSError)
    assert one.close_reason.errno == errno.ECONNREFUSED


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


# -- push_back_read


def test_pushed_back_bytes_come_before_everything_unread(loop, wires):
    sock, peer = wires()
    one = Reader(sock)
    peer.send(b"kernel")
    one.push_back_read(b"pushed ")
    assert one.read(3) == b"pus"
    received = b"pus"
    while piece := one.read(3):
        received += piece
    assert received == b"pushed kernel"


def test_of_several_pieces_the_latest_comes_first(loop, wires):
    one = Reader(wires()[0])
    one.push_back_read(b"third")
    one.push_back_read(b"second")
    assert one.read(3) == b"sec"
    one.push_back_read(b"first")
    received = b""
    while piece := one.read(2):
        assert len(piece) <= 2
        received += piece
    assert received == b"firstondthird"


def test_who_puts_back_what_is_for_the_next_turn_has_one_share_of_each_turn(loop, wires, run_turns):
    sock, peer = wires()
    read = []

    class Line(Reader):
        __slots__ = ()

        def event_read(self):
            line, _, rest = self.read(4096).partition(b"\n")
            read.append(line)
            self.push_back_read(rest)

    Line(sock).watch_read(True)
    peer.send(b"0\n1\n2\n3\n4\n")
    run_turns(1)  # its event, and once more for what it has put back
    assert read == [b"0", b"1"]
    for turn in range(2):
        peer.send(b"more\n")
        run_turns(1)
        assert read == [b"0", b"1", b"2", b"3"][: turn + 3]
    run_turns(3)
    assert read == [b"0", b"1", b"2", b"3", b"4", b"more", b"more"]


def test_a_pushed_back_buffer_that_changes_afterwards_is_read_as_it_was(loop, wires):
    one = Reader(wires()[0])
    buffer = bytearray(b"abc")
    one.push_back_read(buffer)
    one.push_back_read(memoryview(buffer)[1:])
    buffer[:] = b"###"
    assert one.read(10) == b"bcabc"


def test_pushing_back_nothing_or_a_str(loop, wires, run_turns):
    one = Reader(wires()[0])
    one.watch_read(True)
    one.push_back_read(b"")
    with pytest.raises(TypeError):
        one.push_back_read("text")
    run_turns(3)
    assert one.calls == []


def test_pushing_back_to_a_closed_socket_does_nothing(loop, wires, run_turns):
    one = Reader(wires()[0])
    one.watch_read(True)
    one.close()
    one.push_back_read(b"x")
    assert one.read(1) is None
    run_turns(2)
    assert one.calls == []


def test_pushed_back_input_fires_event_read_at_the_end_of_the_turn_once_a_turn_until_consumed(loop, wires, run_turns):
    one = Reader(wires()[0])
    one.size = 2
    one.watch_read(True)
    one.push_back_read(b"abcde")
    for expected in (b"ab", b"abcd", b"abcde", b"abcde"):
        run_turns(1)
        assert one.data == expected
    assert one.calls == ["read"] * 3


def test_pushed_back_in_event_read_fires_again_in_the_same_turn(loop, wires, run_turns):
    class PushingBack(Reader):
        __slots__ = ()

        def event_read(self):
            super().event_read()
            if len(self.calls) == 1:
                self.push_back_read(self.data[1:])
                self.data = self.data[:1]

    sock, peer = wires()
    one = PushingBack(sock)
    one.watch_read(True)
    peer.send(b"abc")
    run_turns(1)
    assert one.data == b"abc"
    assert one.calls == ["read", "read"]


def test_pushed_back_input_waits_while_reading_is_not_watched(loop, wires, advance):
    one = Reader(wires()[0])
    one.push_back_read(b"abc")
    waits = loop.poller.waits
    advance(10)
    assert one.calls == []
    assert loop.poller.waits - waits <= 3
    one.watch_read(True)
    advance(1)
    assert one.data == b"abc"


def test_pushed_back_input_that_is_no_longer_watched_waits(loop, wires, advance):
    one = Reader(wires()[0])
    one.watch_read(True)
    one.push_back_read(b"abc")
    one.watch_read(False)
    waits = loop.poller.waits
    advance(10)
    assert one.calls == []
    assert loop.poller.waits - waits <= 3
    one.watch_read(True)
    advance(1)
    assert one.data == b"abc"


def test_pushed_back_input_that_nobody_consumes_does_not_starve_others(loop, wires, run_turns):
    class Greedy(Reader):
        __slots__ = ()

        def event_read(self):
            self.calls.append("read")

    sock, peer = wires()
    greedy, other = Greedy(wires()[0]), Reader(sock)
    other.size = 1
    for one in (greedy, other):
        one.watch_read(True)
    greedy.push_back_read(b"never read")
    peer.send(b"abc")
    fired = []
    loop.add_timer(0, lambda: fired.append(len(greedy.calls)))
    run_turns(5)
    assert other.data == b"abc"
    assert fired == [0]
    assert greedy.calls == ["read"]  # it makes no progress


class Messages(Reader):
    """Ten bytes are a message. What is incomplete is pushed back, as the guide says; `at_a_time` are taken."""

    __slots__ = ("at_a_time", "messages", "second")

    def __init__(self, sock):
        super().__init__(sock)
        self.messages, self.at_a_time, self.second = [], 1000, b"not asked"

    def event_read(self):
        self.calls.append("read")
        data = self.read(65536)
        if data is None:
            return self.close("the end")
        for _ in range(self.at_a_time):
            if len(data) < 10:
                break
            self.messages.append(data[:10])
            data = data[10:]
        self.push_back_read(data)
        return None


def test_an_incomplete_message_that_is_pushed_back_waits_for_its_rest(loop, wires, run_turns):
    sock, peer = wires()
    one = Messages(sock)
    one.watch_read(True)
    for number, byte in enumerate(b"0123456789", 1):
        peer.send(bytes([byte]))
        run_turns(20)
        assert len(one.calls) <= 2 * number
    assert one.messages == [b"0123456789"]
    waits = loop.poller.waits
    loop.add_timer(10, loop.stop)
    loop.run()
    assert loop.poller.waits - waits <= 3


def test_over_every_poller_it_waits_for_its_rest(real_loop, real_pair, run_until):
    sock, peer = real_pair()
    one = Messages(sock)
    one.watch_read(True)
    peer.send(b"01234")
    run_until(lambda: one.calls)
    ticks = []
    real_loop.add_timer(0.05, lambda: ticks.append(len(one.calls)))
    run_until(lambda: ticks)
    assert ticks[0] <= 2
    peer.send(b"56789ab")
    run_until(lambda: one.messages)
    assert one.messages == [b"0123456789"]
    assert one.buffered in (0, 2)
    calls = len(one.calls)
    peer.close()
    run_until(lambda: len(one.calls) > calls)
    real_loop.add_timer(0.05, lambda: ticks.append(len(one.calls)))
    run_until(lambda: len(ticks) == 2)
    assert ticks[1] <= calls + 4
    one.close()


def test_whoever_makes_progress_is_called_again(loop, wires, run_turns):
    sock, peer = wires()
    one = Messages(sock)
    one.at_a_time = 1
    one.watch_read(True)
    peer.send(b"0123456789" * 5 + b"rest")
    run_turns(8)
    assert one.messages == [b"0123456789"] * 5
    assert len(one.calls) == 6


def test_progress_is_told_from_what_came_in_meanwhile(loop, wires, run_turns):
    class ReadsOn(Messages):
        __slots__ = ()

        def read(self, n):
            data = b""
            while piece := Reader.read(self, 7):
                data += piece
            return data

    sock, peer = wires()
    one = ReadsOn(sock)
    one.at_a_time = 1
    one.push_back_read(b"0123456789ab")
    peer.send(b"cdefghij" + b"0123456789" * 3)  # more than one call takes
    one.watch_read(True)
    run_turns(8)
    assert len(one.messages) == 5


def test_it_is_called_at_the_end_of_the_stream_and_a_second_read_says_so(loop, wires, advance):
    class ReadsTwice(Messages):
        __slots__ = ()

        def event_read(self):
            super().event_read()
            if self.calls and not self.closed:
                data = self.read(65536)
                self.second = self.read(1)
                self.push_back_read(data)

    sock, peer = wires()
    one = ReadsTwice(sock)
    one.watch_read(True)
    peer.send(b"half")
    advance(1)
    assert one.second == b""
    before = len(one.calls)
    peer.close()
    waits = loop.poller.waits
    advance(10)
    assert one.second is None
    assert before < len(one.calls) <= before + 3
    assert loop.poller.waits - waits <= 6
    one.close()


def test_the_end_is_told_also_where_its_first_read_finds_nothing_yet(loop, wires, run_turns):
    class Takes(Reader):
        __slots__ = ("got",)

        def event_read(self):
            self.got.append(self.read(100))
            if self.got[-1] is None:
                self.close("the end")

    sock, peer = wires()
    one = Takes(sock)
    one.got = []
    one.push_back_read(b"x")
    peer.close()
    sock.reads.extend([10, BLOCK, BLOCK])
    one.watch_read(True)
    run_turns(6)
    assert one.got == [b"x", b"", b"", None]


def test_it_may_ask_for_another_call(loop, wires, run_turns):
    sock, peer = wires()
    one = Messages(sock)
    one.watch_read(True)
    peer.send(b"half")
    run_turns(5)
    calls = len(one.calls)
    one.watch_read(True)
    run_turns(5)
    assert len(one.calls) == calls + 1


def test_a_time_limit_does_not_hide_that_nothing_came(loop, wires, advance):
    class Timed(Messages):
        __slots__ = ()
        idle_timeout = 5.0

    sock, peer = wires()
    one = Timed(sock)
    one.watch_read(True)
    peer.send(b"half")
    advance(4)
    assert len(one.calls) <= 2
    advance(2)
    assert one.closed


def test_each_of_the_pushed_back_set_gets_one_read_a_turn(loop, wires, run_turns):
    ones = [Reader(wires()[0]) for _ in range(3)]
    for one in ones:
        one.size = 1
        one.watch_read(True)
        one.push_back_read(b"ab")
    run_turns(1)
    assert [one.data for one in ones] == [b"a"] * 3
    run_turns(1)
    assert [one.data for one in ones] == [b"ab"] * 3


def test_one_of_the_pushed_back_set_closes_another(loop, wires, run_turns):
    class Closing(Reader):
        __slots__ = ("other",)

        def event_read(self):
            super().event_read()
            self.other.close()

    pair = [Closing(wires()[0]) for _ in range(2)]
    for one, other in (pair, pair[::-1]):
        one.other = other
        one.watch_read(True)
        one.push_back_read(b"x")
    run_turns(3)
    assert sorted(one.data for one in pair) == [b"", b"x"]
    assert sorted(one.closed for one in pair) == [False, True]


def test_bytes_pushed_back_after_the_end_are_read_before_the_end(loop, wires, run_turns):
    class Late(Reader):
        __slots__ = ()

        def event_read(self):
            super().event_read()
            if self.calls.count(None) == 1 and self.calls[-1] is None:
                self.push_back_read(b"late")

    sock, peer = wires()
    one = Late(sock)
    one.watch_read(True)
    peer.send(b"early ")
    peer.shutdown(socket.SHUT_WR)
    run_turns(5)
    assert one.data == b"early late"
    waits_before = one.calls.count("read")
    run_turns(5)
    assert one.calls.count("read") - waits_before <= 1


def test_bytes_pushed_back_after_the_end_do_not_make_the_loop_spin(loop, wires, run_turns, advance):
    sock, peer = wires()
    one = Reader(sock)
    one.watch_read(True)
    peer.shutdown(socket.SHUT_WR)
    run_turns(2)
    assert one.calls == ["read", None]
    one.push_back_read(b"late")
    advance(1)
    assert one.data == b"late"
    waits = loop.poller.waits
    advance(10)
    assert loop.poller.waits - waits <= 3


# -- hang-ups and resets


class Sender(Socket):
    """Sends a megabyte and closes at once."""

    __slots__ = ()


PAYLOAD = bytes(range(256)) * 4096


def test_a_megabyte_and_a_close_at_once_arrive_whole(real_loop, real_pair, run_until, poller_class):
    sock, peer = real_pair()
    one, sender = Deaf(sock), Sender(peer)
    one.watch_read(True)
    sender.write(PAYLOAD)
    sender.write(sender.close)
    run_until(lambda: None in one.calls)
    assert one.data == PAYLOAD
    assert one.calls.count(None) == 1
    assert "hup" not in one.calls[: one.calls.index(None)]


@pytest.mark.parametrize("pauses", [1, 3, 50])
def test_a_megabyte_and_a_close_at_once_arrive_whole_though_reading_pauses(real_loop, real_pair, run_until, pauses):
    class Pausing(Deaf):
        __slots__ = ("pause_at", "paused")

        def event_read(self):
            super().event_read()
            if len(self.data) >= self.pause_at:
                self.pause_at += len(PAYLOAD) // pauses
                self.paused += 1
                self.watch_read(False)
                self.loop.add_timer(0.001, lambda: self.watch_read(True))

    sock, peer = real_pair()
    one, sender = Pausing(sock), Sender(peer)
    one.pause_at, one.paused = len(PAYLOAD) // pauses - 1, 0
    one.size = 65536 if pauses < 50 else 4096
    one.watch_read(True)
    sender.write(PAYLOAD)
    sender.write(sender.close)
    run_until(lambda: None in one.calls)
    assert one.data == PAYLOAD
    assert one.calls.count(None) == 1
    assert one.paused >= 1


def test_a_hang_up_while_reading_is_paused_keeps_every_byte_by_default(real_loop, unix_pair, run_turns, poller_class):
    sock, peer = unix_pair()
    one = Reader(sock)
    peer.send(b"x" * 10000)
    peer.close()
    run_turns(5)
    assert not one.closed
    assert one.calls == (["hup"] if reports_hang_ups(poller_class) else [])
    one.watch_read(True)
    run_turns(10)
    assert one.data == b"x" * 10000
    assert one.calls.count(None) == 1
    assert one.closed == reports_hang_ups(poller_class)


def test_a_hang_up_with_nothing_unread_closes_by_default(real_loop, unix_pair, run_turns, poller_class):
    sock, peer = unix_pair()
    one = Reader(sock)
    peer.close()
    run_turns(3)
    assert one.closed == reports_hang_ups(poller_class)
    assert one.calls == (["hup"] if reports_hang_ups(poller_class) else [])


def test_pushed_back_bytes_count_as_unread_when_the_peer_hangs_up(loop, wires, run_turns):
    sock, peer = wires()
    one = Reader(sock)
    one.push_back_read(b"pushed back")
    peer.hang_up()
    run_turns(3)
    assert not one.closed
    one.watch_read(True)
    run_turns(5)
    assert one.data == b"pushed back"
    assert one.closed


def test_event_hup_comes_once_and_only_after_read_has_answered_none(loop, wires, run_turns):
    sock, peer = wires()
    one = Deaf(sock)
    one.size = 3
    one.watch_read(True)
    peer.send(b"0123456789")
    peer.hang_up()
    run_turns(20)
    assert one.data == b"0123456789"
    assert one.calls == ["read"] * 5 + [None, "hup"]


def test_event_hup_does_not_come_when_the_handler_closes_at_the_end(loop, wires, run_turns):
    class Closing(Deaf):
        __slots__ = ()

        def event_read(self):
            super().event_read()
            if None in self.calls:
                self.close("the end")

    sock, peer = wires()
    one = Closing(sock)
    one.watch_read(True)
    peer.send(b"abc")
    peer.hang_up()
    run_turns(10)
    assert one.calls == ["read", "read", None]
    assert one.close_reason == "the end"


def test_a_fin_alone_is_no_hang_up(real_loop, real_pair, run_turns):
    sock, peer = real_pair()
    one = Reader(sock)
    peer.send(b"request")
    peer.shutdown(socket.SHUT_WR)
    run_turns(5)
    assert one.calls == []
    one.watch_read(True)
    run_turns(5)
    assert one.data == b"request"
    assert one.calls == ["read", "read", None]
    assert one.write(b"reply") is True
    assert peer.recv(10) == b"reply"
    assert not one.closed


def test_the_end_of_the_stream_is_told_once_and_does_not_make_the_loop_spin(real_loop, real_pair, run_turns):
    sock, peer = real_pair()
    one = Reader(sock)
    one.watch_read(True)
    peer.shutdown(socket.SHUT_WR)
    real_loop.poller = Recording(real_loop.poller, one.fd)
    run_turns(20)
    assert one.calls == ["read", None]
    assert real_loop.poller.busy <= 2


@pytest.mark.parametrize("watching", [True, False])
def test_a_hang_up_that_the_handler_ignores_does_not_make_the_loop_spin(
    real_loop, unix_pair, run_turns, watching, poller_class
):
    sock, peer = unix_pair()
    one = Deaf(sock)
    one.watch_read(watching)
    peer.send(b"abc")
    peer.close()
    real_loop.poller = Recording(real_loop.poller, one.fd)
    run_turns(50)
    assert not one.closed
    assert real_loop.poller.busy <= 5
    assert one.calls.count("hup") == reports_hang_ups(poller_class)
    assert one.data == (b"abc" if watching else b"")


@pytest.mark.parametrize("watching", [True, False])
@pytest.mark.parametrize("end", ["hang_up", "reset"])
def test_an_end_that_the_handler_ignores_costs_few_turns_on_the_virtual_clock(loop, wires, advance, watching, end):
    sock, peer = wires()
    one = Deaf(sock)
    one.watch_read(watching)
    getattr(peer, end)()
    waits = loop.poller.waits
    advance(1000)
    assert not one.closed
    assert loop.poller.waits - waits <= 6
    assert one.calls.count("hup") == 1
    assert one.calls.count("err") == (end == "reset")
    assert one.calls.count(None) == watching


def test_an_ignored_hang_up_with_a_queue_that_nobody_takes_does_not_make_the_loop_spin(loop, wires, advance):
    sock, peer = wires(5)
    one = Deaf(sock)
    one.watch_read(True)
    one.write(b"0123456789")
    peer.send(b"abc")
    peer.hang_up()
    waits = loop.poller.waits
    advance(1000)
    assert loop.poller.waits - waits <= 8
    assert one.data == b"abc"


def test_an_ignored_hang_up_is_followed_by_the_rest_when_reading_is_watched_again(real_loop, unix_pair, run_turns):
    sock, peer = unix_pair()
    one = Deaf(sock)
    peer.send(b"abc")
    peer.close()
    run_turns(5)
    one.watch_read(True)
    run_turns(5)
    assert one.data == b"abc"
    assert one.calls.count(None) == 1


def test_a_reset_keeps_what_came_before_it_and_ends_with_the_error(real_loop, tcp_pair, run_turns, run_until):
    sock, peer = tcp_pair()
    one = Reader(sock)
    one.size = 1000
    one.watch_read(True)
    peer.send(b"x" * 10000)
    reset(peer)
    run_turns(30)
    assert one.data == b"x" * 10000
    assert one.calls.count(None) == 1


def test_a_reset_while_reading_is_watched_calls_event_err_once_and_closes(real_loop, tcp_pair, run_turns, poller_class):
    sock, peer = tcp_pair()
    one = Reader(sock)
    one.watch_read(True)
    reset(peer)
    run_turns(5)
    assert one.calls[:2] == ["read", None]
    if reports_hang_ups(poller_class):
        assert one.closed
        assert one.calls[2:] == ["err"]


def test_a_reset_while_reading_is_off_closes_with_the_error(real_loop, tcp_pair, run_turns, poller_class):
    sock, peer = tcp_pair()
    one = Reader(sock)
    reset(peer)
    run_turns(5)
    if reports_hang_ups(poller_class):
        assert one.calls == ["err"]
        assert isinstance(one.close_reason, OSError)
        assert one.close_reason.errno == errno.ECONNRESET
    else:
        assert one.calls == []


def test_a_reset_noticed_by_a_write_closes(real_loop, tcp_pair, run_turns):
    sock, peer = tcp_pair()
    one = Reader(sock)
    reset(peer)
    for _ in range(3):
        assert one.write(b"x") is True
    run_turns(3)
    assert one.closed


@pytest.mark.parametrize("end", ["close", "steal_socket"])
def test_the_usual_event_hup_and_event_err_do_nothing_after_an_end(end, loop, wires, run_turns):
    class Ends(Reader):
        __slots__ = ()

        def event_hup(self):
            getattr(self, end)()
            super().event_hup()
            super().event_err()

    sock, peer = wires()
    one = Ends(sock)
    one.watch_read(True)
    peer.hang_up()
    run_turns(3)
    assert one.calls == ["read", None, "hup", "err"]
    assert one.closed
    assert not one._hangup_state & BY_PEER
    sock.close()


# -- the order of events


class Tracer(Socket):
    __slots__ = ("closes_in", "trace")

    def note(self, event):
        self.trace.append(event)
        if event == self.closes_in:
            self.close()

    def event_read(self):
        self.read(100)
        self.note("read")

    def event_write(self):
        self.note("write")

    def event_err(self):
        self.note("err")

    def event_hup(self):
        self.note("hup")


@pytest.mark.parametrize(
    ("closes_in", "expected"),
    [
        (None, ["read", "write", "err", "hup"]),
        ("read", ["read"]),
        ("write", ["read", "write"]),
        ("err", ["read", "write", "err"]),
        ("hup", ["read", "write", "err", "hup"]),
    ],
)
def test_the_order_of_events_is_read_write_err_hup_each_skipped_once_closed(closes_in, expected, wires, run_turns):
    sock, peer = wires()
    one = Tracer(sock)
    one.trace, one.closes_in = [], closes_in
    one.watch_read(True)
    one.watch_write(True)
    peer.reset()
    assert sock.events(READ | WRITE) == READ | WRITE | ERR | HUP
    run_turns(1)
    assert one.trace == expected


def test_an_event_for_a_socket_that_wants_none_of_it_calls_nothing(wires):
    poller = Scripted()
    loop = Loop(poller=poller)
    sock, peer = wires()
    one = Tracer(sock, loop)
    one.trace, one.closes_in = [], None
    poller.turns = [[(one.fd, READ)], [(one.fd, WRITE)], [(one.fd, READ | WRITE)], [(one.fd + 1000, READ)]]
    loop.run(lambda: not poller.turns)
    assert one.trace == []
    assert not one.closed
    one.close()
    loop.close()
    assert peer.recv(1) == b""


# -- steal_socket


def test_a_stolen_socket_goes_on_elsewhere_with_what_was_pushed_back(real_loop, real_pair, run_turns):
    class Thief(Reader):
        __slots__ = ("loot",)

        def event_read(self):
            super().event_read()
            self.push_back_read(self.data[4:])
            self.loot = self.steal_socket()

    sock, peer = real_pair()
    one = Thief(sock)
    one.watch_read(True)
    one.write(b"hello ")
    peer.send(b"1234rest")
    run_turns(1)
    stolen, rest = one.loot
    assert stolen is sock
    assert rest == b"rest"
    assert one.closed
    assert Socket.watched_sockets() == 0
    peer.send(b"more")
    run_turns(3)
    assert one.calls == ["read"]
    assert stolen.recv(10) == b"more"
    stolen.send(b"world")
    peer_data = b""
    while len(peer_data) < 11:
        peer_data += peer.recv(20)
    assert peer_data == b"hello world"
    heir = Reader(stolen)
    heir.push_back_read(rest)
    heir.watch_read(True)
    peer.send(b"!")
    run_turns(3)
    assert heir.data == b"rest!"


def test_a_stolen_socket_may_be_registered_again_in_the_same_turn(real_loop, real_pair, run_turns):
    heirs = []

    class Thief(Reader):
        __slots__ = ()

        def event_read(self):
            super().event_read()
            heirs.append(Reader(self.steal_socket()[0]))
            heirs[0].watch_read(True)

    sock, peer = real_pair()
    Thief(sock).watch_read(True)
    peer.send(b"first")
    run_turns(1)
    peer.send(b"second")
    run_turns(3)
    assert heirs[0].data == b"second"
    assert not heirs[0].closed


def test_stealing_sends_what_waits_for_the_end_of_the_turn(loop, wires):
    sock, peer = wires()
    one = Reader(sock)
    one.write_soon(b"soon")
    one.steal_socket()
    assert peer.recv(10) == b"soon"


def test_stealing_with_bytes_queued_raises_and_steals_nothing(loop, wires, run_turns):
    sock, peer = wires(4)
    one = Reader(sock)
    one.write(b"123456")
    with pytest.raises(BusyError, match="2 bytes"):
        one.steal_socket()
    assert not one.closed
    assert peer.recv(10) == b"1234"
    run_turns(1)
    assert peer.recv(10) == b"56"


def test_stealing_from_a_closed_socket_raises(loop, wires):
    one = Reader(wires()[0])
    one.close("gone")
    with pytest.raises(ClosedError, match="gone"):
        one.steal_socket()


def test_stealing_in_a_queued_callable_when_everything_was_sent(loop, wires, run_turns):
    (sock, peer), (idle_sock, _) = wires(4), wires()
    one, idle = Reader(sock), Reader(idle_sock)
    loot = []
    one.write(b"123456")
    one.write(lambda: loot.append(one.steal_socket()))
    assert loot == []
    assert peer.recv(10) == b"1234"
    run_turns(2)
    assert peer.recv(10) == b"56"
    assert loot == [(sock, b"")]
    idle.write(lambda: loot.append(idle.steal_socket()))
    assert loot[1] == (idle_sock, b"")


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


def test_a_socket_costs_less_than_a_kilobyte(loop, wires):
    one = Reader(wires()[0])
    assert not hasattr(one, "__dict__")
    assert sys.getsizeof(one) < 1024


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


@pytest.mark.parametrize("seed", range(10))
def test_what_is_pushed_back_and_read_agrees_with_a_model(loop, wires, seed):
    random = Random(seed)
    sock, _peer = wires(1 << 20)
    one = Socket(sock)
    model = b""
    for _ in range(400):
        step = random.random()
        if step < 0.45:
            piece = random.randbytes(random.choice([1, 5, 100, 5000, 70_000]))
            one.push_back_read(piece)
            model = piece + model
        elif model:
            size = random.choice([1, 4, 100, 9000, 100_000, len(model)])
            if step < 0.7:
                read = one.read(size)
            else:
                into = bytearray(size)
                read = bytes(into[: one.read_into(into)])
            assert read == model[: len(read)]
            assert read
            model = model[len(read) :]
        assert one.buffered == len(model)
        assert not one._buffer or len(one._buffer) <= 4 * len(model) + 65536
    assert one.steal_socket() == (sock, model)
    sock.close()
