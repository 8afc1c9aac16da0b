"""When event_read is called for what was pushed back or read ahead, and how often."""

import socket

from dangagreen.testing import BLOCK
from tests.connections import Reader


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
    real_loop.add_timer(0.02, lambda: ticks.append(len(one.calls)))
    run_until(lambda: ticks)
    assert ticks[0] <= 2
    peer.send(b"56789ab")
    run_until(lambda: one.messages)
    assert one.messages == [b"0123456789"]
    assert one.buffered in (0, 2)
    calls = len(one.calls)
    peer.close()
    run_until(lambda: len(one.calls) > calls)
    real_loop.add_timer(0.02, lambda: ticks.append(len(one.calls)))
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
