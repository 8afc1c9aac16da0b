"""The write queue: order, short writes, callables, write_soon, corking, marks and limits, writers of one's own."""

import array
import errno
import os
import socket
from functools import partial
from random import Random

import pytest

from dangagreen import Socket
from dangagreen.testing import BLOCK
from tests.connections import Plain
from tests.helpers import first_quick
from tests.inside import incoming


class Reader(Plain):
    """Notes what it reads, and each None."""

    __slots__ = ("data",)

    def __init__(self, sock, loop=None):
        super().__init__(sock, loop)
        self.data = b""

    def event_read(self):
        data = self.read(4 if len(self.data) < 100 else 65536)
        if data is None:
            self.calls.append(None)
        else:
            self.data += data


class Recording:
    """In front of a poller: notes which fds had events, turn by turn."""

    def __init__(self, poller):
        self.poller = poller
        self.turns = []

    def __getattr__(self, name):
        return getattr(self.poller, name)

    def wait(self, timeout):
        events = self.poller.wait(timeout)
        self.turns.append([fd for fd, _ in events])
        return events


@pytest.fixture
def blocked(loop, wires):
    """A socket whose queue holds b"4567890", since its peer takes 3 bytes at a time, and the peer's end."""
    sock, peer = wires(3)
    one = Plain(sock)
    assert one.write(b"1234567890") is False
    assert one.unsent == 7
    return one, peer


@pytest.fixture
def drain(run_turns):
    """Read everything that a socket has to send, turn by turn."""

    def drain(peer, turns=60):
        received = b""
        for _ in range(turns):
            try:
                received += peer.recv(65536)
            except BlockingIOError:
                pass
            run_turns(1)
        return received

    return drain


# -- what write answers, and what it takes


def test_write_answers_true_when_the_kernel_took_all_and_false_when_anything_is_queued(loop, wires):
    sock, peer = wires(5)
    one = Plain(sock)
    assert one.write(b"12345") is True
    assert one.unsent == 0
    assert one.write(b"678") is False
    assert one.unsent == 3
    assert one.write(b"9") is False
    assert one.unsent == 4
    assert peer.recv(100) == b"12345"


def test_write_puts_the_bytes_into_the_kernel_at_once(real_loop, real_pair):
    sock, peer = real_pair()
    assert Plain(sock).write(b"now") is True
    assert peer.recv(10) == b"now"


def test_a_closed_socket_answers_true_and_sends_nothing(loop, wires):
    sock, peer = wires()
    one = Plain(sock)
    ran = []
    one.close()
    assert one.write(b"x") is True
    assert one.write(bytearray(b"x")) is True
    assert one.write(lambda: ran.append(1)) is True
    assert one.write(None) is True
    one.write_soon(b"x")
    assert one.unsent == 0
    assert ran == []
    assert peer.recv(10) == b""


@pytest.mark.parametrize("text", ["text", 5, 1.5, ["a"], {}], ids=repr)
def test_anything_but_bytes_raises_type_error(text, blocked, wires):
    one, _ = blocked
    fresh = Plain(wires()[0])
    for sock in (one, fresh):
        with pytest.raises(TypeError):
            sock.write(text)
        with pytest.raises(TypeError):
            sock.write_soon(text)
    assert one.unsent == 7
    assert fresh.unsent == 0


@pytest.mark.parametrize("empty", [b"", bytearray(), memoryview(b"")], ids=["bytes", "bytearray", "memoryview"])
def test_an_empty_write_is_harmless(empty, blocked, wires, drain):
    fresh_sock, fresh_peer = wires()
    fresh = Plain(fresh_sock)
    assert fresh.write(empty) is True
    fresh.write_soon(empty)
    assert fresh.unsent == 0
    assert fresh.write(b"a") is True
    assert fresh_peer.recv(10) == b"a"
    one, peer = blocked
    assert one.write(empty) is False
    one.write_soon(empty)
    assert one.unsent == 7
    assert drain(peer) == b"1234567890"
    assert one.unsent == 0


@pytest.mark.parametrize("kind", [bytearray, lambda data: memoryview(bytearray(data))], ids=["bytearray", "memoryview"])
def test_a_mutable_buffer_that_changes_afterwards_is_sent_as_it_was(kind, blocked, wires, drain):
    one, peer = blocked
    buffers = [kind(b"abc"), kind(b"def")]
    one.write(buffers[0])
    one.write_soon(buffers[1])
    for buffer in buffers:
        buffer[:] = b"###"
    assert drain(peer) == b"1234567890abcdef"


def test_a_mutable_buffer_that_left_in_part_is_sent_as_it_was(loop, wires, drain):
    sock, peer = wires(4)
    one = Plain(sock)
    buffer = bytearray(b"abcdefgh")
    assert one.write(buffer) is False
    buffer[:] = b"########"
    buffer.clear()  # a buffer that somebody still exports could not be resized
    assert drain(peer) == b"abcdefgh"


def test_a_buffer_of_wide_items_is_sent_byte_for_byte(loop, wires, drain):
    sock, peer = wires(5)
    one = Plain(sock)
    numbers = array.array("I", range(10))
    one.write(numbers)
    one.write(memoryview(numbers)[::2])
    assert drain(peer) == numbers.tobytes() + array.array("I", range(0, 10, 2)).tobytes()


# -- order


def test_writes_leave_in_the_order_of_the_calls(loop, wires, drain):
    sock, peer = wires(7)
    one = Plain(sock)
    pieces = [b"%d," % number for number in range(50)]
    for number, piece in enumerate(pieces):
        (one.write_soon if number % 3 == 2 else one.write)(piece)
    assert drain(peer, 100) == b"".join(pieces)


def test_small_pieces_leave_together_and_large_ones_are_not_copied_for_that(loop, wires):
    sock, _ = wires()
    one = Plain(sock)
    sends = []
    one.set_writer_func(lambda data: sends.append(len(data)) or len(data))
    for size in (10, 20, 200_000, 300_000, 30, 40):
        one.write_soon(bytes(size))
    one.write(None)
    assert sends == [30, 200_000, 300_000, 70]


def test_a_write_within_event_write_goes_behind_what_is_queued(loop, wires, drain):
    class Chatty(Plain):
        __slots__ = ()

        def event_write(self):
            if not self.calls:
                self.write(b"<from event_write>")
            super().event_write()

    sock, peer = wires(4)
    one = Chatty(sock)
    one.write(b"0123456789")
    one.write(b"abc")
    assert drain(peer) == b"0123456789abc<from event_write>"


def test_a_write_within_a_queued_callable_goes_behind_what_was_queued_before(blocked, drain):
    one, peer = blocked
    one.write(lambda: one.write(b"<from the callable>"))
    one.write(b"abc")
    assert drain(peer) == b"1234567890abc<from the callable>"


def test_a_write_within_on_incomplete_write_goes_behind_what_is_queued(loop, wires, drain):
    class Chatty(Plain):
        __slots__ = ()

        def on_incomplete_write(self):
            if not self.calls:
                self.calls.append("incomplete")
                self.write(b"abc")

    sock, peer = wires(4)
    one = Chatty(sock)
    one.write(b"0123456789")
    assert drain(peer) == b"0123456789abc"


def test_the_kernel_taking_any_number_of_bytes_or_none_costs_nothing(loop, wires, drain):
    sock, peer = wires()
    one = Plain(sock)
    sock.writes.extend([1, BLOCK, 2, BLOCK, BLOCK, 1, 3, BLOCK, 5])
    one.write(b"0123456789")
    one.write(b"abcdefghij")
    assert drain(peer) == b"0123456789abcdefghij"
    assert one.unsent == 0


def test_a_megabyte_goes_through_a_real_socket(real_loop, real_pair, run_until):
    sock, peer = real_pair()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    payload = os.urandom(1 << 20)
    one, other = Plain(sock), Reader(peer)
    other.watch_read(True)
    assert one.write(payload) is False
    assert one.unsent > 0
    run_until(lambda: len(other.data) == len(payload))
    assert other.data == payload
    assert one.unsent == 0


# -- callables


def test_a_callable_runs_at_once_when_nothing_is_queued(loop, wires):
    ran = []
    one = Plain(wires()[0])
    assert one.write(lambda: ran.append(1)) is True
    assert ran == [1]


def test_what_a_callable_run_at_once_raises_reaches_the_caller_and_the_socket_lives_on(loop, wires):
    def raising():
        raise ZeroDivisionError

    sock, peer = wires()
    one = Plain(sock)
    with pytest.raises(ZeroDivisionError):
        one.write(raising)
    assert not one.closed
    assert one.write(b"still here") is True
    assert peer.recv(100) == b"still here"


def test_what_a_callable_wrote_before_it_raised_is_sent(loop, wires, run_turns):
    def raising():
        one.write(b"written first")
        raise ZeroDivisionError

    sock, peer = wires()
    one = Plain(sock)
    with pytest.raises(ZeroDivisionError):
        one.write(raising)
    run_turns(3)
    assert peer.recv(100) == b"written first"
    assert one.unsent == 0


def test_what_is_queued_behind_a_callable_that_raises_in_a_kick_start_is_sent(blocked, run_turns, drain):
    def raising():
        raise ZeroDivisionError

    one, peer = blocked
    one.write(raising)
    one.write(b"tail")
    peer.capacity = 100
    with pytest.raises(ZeroDivisionError):
        one.write(None)
    assert drain(peer, 5) == b"1234567890tail"


def test_a_callable_behind_data_runs_once_after_all_of_it_left_in_several_pieces(blocked, run_turns):
    one, peer = blocked
    ran = []
    assert one.write(lambda: ran.append(one.unsent)) is False
    received = b""
    for _ in range(10):
        if not ran:
            assert len(received) < 10
        received += peer.recv(1) if peer.events(1) else b""
        run_turns(1)
    for _ in range(10):
        received += peer.recv(1) if peer.events(1) else b""
        run_turns(1)
    assert ran == [0]
    assert received == b"1234567890"


def test_a_callable_runs_only_when_the_last_byte_before_it_is_with_the_kernel(loop, wires, run_turns):
    sock, peer = wires(1)
    one = Plain(sock)
    seen = []
    one.write(b"abc")
    one.write(lambda: seen.append(bytes(peer.received)))
    one.write(b"d")
    for _ in range(8):
        run_turns(1)
        peer.recv(1) if peer.events(1) else None
    assert seen == [b"ab"]  # the c was on the wire, and the d was not
    assert bytes(peer.received) == b"abcd"


def test_several_callables_run_in_their_places(blocked, drain):
    one, peer = blocked
    ran = []
    for name in "abc":
        one.write(lambda name=name: ran.append((name, one.unsent)))
        one.write(name.encode())
    assert drain(peer) == b"1234567890abc"
    assert ran == [("a", 3), ("b", 2), ("c", 1)]


def test_a_thousand_callables_run_in_order_and_none_is_left(blocked, drain):
    one, peer = blocked
    ran = []
    for number in range(1000):
        one.write(lambda number=number: ran.append(number))
    one.write(b"end")
    assert drain(peer, 200) == b"1234567890end"
    assert ran == list(range(1000))


def test_a_callable_that_writes_the_next_one_for_ever_does_not_starve_the_loop(loop, wires, advance):
    one = Plain(wires()[0])
    ran = []

    def again():
        ran.append(1)
        if not stop:
            one.write(again)

    stop = []
    loop.add_timer(0, lambda: stop.append(1))
    one.write(again)
    advance(1)
    assert stop
    assert len(ran) > 1


def test_a_callable_behind_data_does_not_run_when_the_socket_is_closed(blocked, run_turns):
    one, _ = blocked
    ran = []
    one.write(lambda: ran.append(1))
    one.close()
    run_turns(2)
    assert ran == []


def test_a_callable_that_closes_ends_the_queue(blocked, drain):
    one, peer = blocked
    ran = []
    one.write(one.close)
    one.write(b"never")
    one.write(lambda: ran.append(1))
    assert drain(peer) == b"1234567890"
    assert one.closed
    assert ran == []


def test_write_of_close_closes_at_once_when_nothing_is_queued(loop, wires):
    sock, peer = wires()
    one = Plain(sock)
    one.write(b"bye")
    one.write(one.close)
    assert one.closed
    assert peer.recv(10) == b"bye"
    assert peer.recv(10) == b""


def test_write_none_kick_starts_the_queue(blocked):
    one, peer = blocked
    assert peer.recv(100) == b"123"
    assert one.write(None) is False
    assert peer.recv(100) == b"456"
    peer.capacity = 100
    assert one.write(None) is True
    assert peer.recv(100) == b"7890"
    assert one.unsent == 0


def test_write_none_with_nothing_queued_does_nothing(loop, wires):
    assert Plain(wires()[0]).write(None) is True


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_is_queued_behind_a_callable_that_leaves_run_is_sent_by_the_next_run(error, loop, wires, run_turns):
    def raising():
        raise error

    sock, peer = wires(4)
    one = Plain(sock)
    one.write(b"123456")
    one.write(raising)
    one.write(b"tail")
    peer.recv(10)
    with pytest.raises(error):
        run_turns(3)
    received = peer.recv(10)
    run_turns(3)
    assert received + peer.recv(10) == b"56tail"
    assert not one.closed


def test_a_hook_that_closes_in_the_middle_of_a_write_is_harmless(loop, wires, run_turns):
    class Closing(Plain):
        __slots__ = ()
        high_water = low_water = 5

        def on_incomplete_write(self):
            self.close("incomplete")

    class ClosingAtHighWater(Plain):
        __slots__ = ()
        high_water = low_water = 5

        def on_high_water(self):
            self.close("high")

    for kind, reason in ((Closing, "incomplete"), (ClosingAtHighWater, "high")):
        sock, peer = wires(3)
        one = kind(sock)
        one.write(b"0123456789")
        one.write(b"more")
        run_turns(2)
        assert one.close_reason == reason
        assert one.unsent == 0
        assert peer.recv(100) == b"012"


def test_finish_and_close_in_a_queued_callable_come_after_what_was_queued(blocked, drain):
    one, peer = blocked
    one.write(one.finish)
    assert drain(peer, 10) == b"1234567890"
    assert peer.recv(10) == b""
    assert not one.closed


# -- interest in writability


def test_interest_ends_when_the_queue_empties(real_loop, real_pair, run_until, run_turns):
    sock, peer = real_pair()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    one, other = Plain(sock), Reader(peer)
    other.watch_read(True)
    one.write(b"x" * 1_000_000)
    run_until(lambda: len(other.data) == 1_000_000)
    assert one.calls
    run_turns(3)
    one.calls.clear()
    real_loop.poller = Recording(real_loop.poller)
    run_turns(10)
    assert one.calls == []
    assert real_loop.poller.turns == [[]] * 10


def test_interest_stays_when_the_subclass_asked_for_it(real_loop, real_pair, run_turns):
    sock, _ = real_pair()
    one = Plain(sock)
    one.watch_write(True)
    one.write(b"x")
    run_turns(5)
    assert len(one.calls) >= 4
    one.watch_write(False)
    run_turns(1)
    one.calls.clear()
    run_turns(5)
    assert one.calls == []


def test_interest_that_the_subclass_asked_for_survives_a_queue_that_fills_and_empties(blocked, drain):
    one, peer = blocked
    one.watch_write(True)
    assert drain(peer) == b"1234567890"
    one.calls.clear()
    assert drain(peer, 5) == b""
    assert len(one.calls) >= 5


def test_interest_for_the_queue_survives_a_subclass_that_watches_and_no_longer_does(blocked, drain):
    one, peer = blocked
    one.watch_write(True)
    one.watch_write(False)
    assert drain(peer) == b"1234567890"


def test_no_writable_event_is_delivered_while_nothing_is_queued(loop, wires, advance):
    one = Plain(wires()[0])
    one.write(b"x")
    waits = loop.poller.waits
    advance(60)
    assert one.calls == []
    assert loop.poller.waits - waits <= 3


# -- write_soon


def counted(one):
    """Note the sizes of what is given to the system call."""
    sizes = []

    def send(data):
        sizes.append(len(data))
        return one.sock.send(data)

    one.set_writer_func(send)
    return sizes


def test_write_soon_leaves_in_one_system_call_at_the_end_of_the_turn(loop, wires, run_turns):
    sock, peer = wires()
    one = Plain(sock)
    sizes = counted(one)
    for _ in range(100):
        one.write_soon(b"reply")
    assert sizes == []
    assert one.unsent == 500
    run_turns(1)
    assert sizes == [500]
    assert one.unsent == 0
    assert peer.recv(1000) == b"reply" * 100


def test_write_soon_within_a_callback_leaves_in_the_same_turn(loop, wires, run_turns):
    sock, peer = wires()
    one = Plain(sock)
    loop.call_soon(one.write_soon, b"x")
    run_turns(1)
    assert peer.recv(10) == b"x"


def test_write_soon_and_close_drops_and_write_soon_and_write_close_does_not(loop, wires, run_turns):
    (sock, peer), (other_sock, other_peer) = wires(), wires()
    one, other = Plain(sock), Plain(other_sock)
    one.write_soon(b"dropped")
    one.close()
    other.write_soon(b"kept")
    other.write(other.close)
    run_turns(2)
    assert peer.recv(100) == b""
    assert other_peer.recv(100) == b"kept"


def test_write_soon_behind_a_blocked_queue_keeps_order(blocked, drain):
    one, peer = blocked
    one.write_soon(b"abc")
    one.write(b"def")
    assert drain(peer) == b"1234567890abcdef"


# -- the writer function, and hooks


def test_set_writer_func_replaces_the_system_call_until_it_is_taken_back(loop, wires):
    sock, peer = wires()
    one = Plain(sock)
    written = []
    one.set_writer_func(lambda data: written.append(bytes(data)) or len(data))
    assert one.write(b"abc") is True
    one.set_writer_func(None)
    assert one.write(b"def") is True
    assert written == [b"abc"]
    assert peer.recv(100) == b"def"


def test_a_writer_func_may_take_less_or_block(loop, wires, run_turns):
    answers = [2, BlockingIOError(), 1, 100]
    written = []

    def writer(data):
        answer = answers.pop(0)
        if isinstance(answer, BlockingIOError):
            raise answer
        written.append(bytes(data[:answer]))
        return min(answer, len(data))

    one = Plain(wires()[0])
    one.set_writer_func(writer)
    assert one.write(b"abcdef") is False
    run_turns(4)
    assert written == [b"ab", b"c", b"def"]
    assert one.unsent == 0


def test_on_incomplete_write_is_called_for_every_short_write(loop, wires, run_turns):
    class Counting(Plain):
        __slots__ = ()

        def on_incomplete_write(self):
            self.calls.append(self.unsent)

    sock, peer = wires()
    one = Counting(sock)
    sock.writes.extend([3, 3, BLOCK])
    one.write(b"0123456789")
    assert one.calls == [7]
    run_turns(3)
    assert [call for call in one.calls if call != "write"] == [7, 4, 4]
    assert peer.recv(100) == b"0123456789"


def test_unsent_is_the_sum_of_what_is_queued(loop, wires, run_turns):
    sock, peer = wires(7)
    one = Plain(sock)
    written = 0
    for size in (3, 10, 0, 1, 25):
        one.write(b"x" * size)
        one.write(lambda: None)
        written += size
        assert one.unsent == written - min(written, 7)
    while one.unsent:
        taken = len(peer.recv(5))
        assert taken > 0
        run_turns(1)
        assert one.unsent == written - len(peer.received) - len(incoming(peer))


def test_close_drops_what_is_queued(blocked, run_turns):
    one, peer = blocked
    one.close()
    assert one.unsent == 0
    run_turns(2)
    assert peer.recv(100) == b"123"
    assert peer.recv(100) == b""


# -- a peer that takes no more


def test_a_write_to_a_peer_that_is_gone_closes_with_the_error(real_loop, unix_pair, run_turns):
    sock, peer = unix_pair()
    one = Plain(sock)
    peer.close()
    assert one.write(b"x") is True
    run_turns(1)
    assert one.closed
    assert isinstance(one.close_reason, (BrokenPipeError, ConnectionResetError))


def test_a_failed_write_does_not_cost_what_the_peer_sent_while_somebody_reads(real_loop, unix_pair, run_turns):
    sock, peer = unix_pair()
    one = Reader(sock)
    one.watch_read(True)
    peer.send(b"the last words")
    peer.close()
    one.write(b"x")
    run_turns(10)
    assert one.data == b"the last words"
    assert one.calls.count(None) == 1


def test_a_failed_write_while_reading_is_paused_does_not_cost_what_the_peer_sent(real_loop, unix_pair, run_turns):
    sock, peer = unix_pair()
    one = Reader(sock)
    peer.send(b"the last words")
    peer.close()
    one.write(b"x")
    run_turns(3)
    one.watch_read(True)
    run_turns(10)
    assert one.data == b"the last words"
    assert one.calls.count(None) == 1


def test_a_hang_up_with_a_blocked_queue_and_reading_paused_does_not_cost_what_the_peer_sent(loop, wires, run_turns):
    sock, peer = wires(10)
    one = Reader(sock)
    one.write(b"x" * 100)
    peer.send(b"last words")
    peer.hang_up()
    run_turns(3)
    one.watch_read(True)
    run_turns(10)
    assert one.data == b"last words"
    assert one.calls.count(None) == 1


def test_a_failed_write_with_reading_paused_and_nothing_unread_closes(loop, wires, run_turns):
    sock, peer = wires(10)
    one = Reader(sock)
    one.write(b"x" * 100)
    peer.hang_up()
    run_turns(3)
    assert one.closed


class Noisy(Socket):
    """Its water marks are of no account."""

    __slots__ = ()
    high_water = low_water = 1 << 40


@pytest.mark.parametrize("seed", first_quick(range(8), 2))
def test_a_long_queue_of_pieces_and_callables_leaves_in_order(loop, wires, run_turns, seed):
    random = Random(seed)
    sock, peer = wires(200)
    one = Noisy(sock)
    one.write(bytes(201))
    peer.recv(200)
    written, left = bytearray(1), []
    for number in range(600):
        if random.random() < 0.3:
            one.write(partial(left.append, (number, len(written))))
        else:
            piece = random.randbytes(random.choice([1, 3, 50, 3000]))
            written += piece
            one.write(random.choice([bytes, bytearray, memoryview])(piece))
    read = bytearray()
    for _ in range(100_000):
        for _, at in left:
            assert at <= len(read) + 400  # what was written before it has been sent
        if not one.unsent and not one._queued_callables:
            break
        sock.writes.append(random.randrange(1, 150))
        try:
            read += peer.recv(random.randrange(1, 300))
        except BlockingIOError:
            pass
        run_turns(1)
    read += peer.recv(400)
    assert read == written
    assert [number for number, _ in left] == sorted(number for number, _ in left)
    assert one.unsent == one._queued_callables == 0


@pytest.mark.parametrize("name", ["EINVAL", "EACCES", "EMSGSIZE", "EOPNOTSUPP", "ENOTSOCK", "EBADF"])
def test_a_send_that_fails_on_a_connection_that_may_live_closes_it_so_that_the_peer_does_not_wait(loop, wires, name):
    near, far = wires()
    sock = Socket(near)
    sock.watch_read(True)
    far.send(b"a request")
    near.writes.append(OSError(getattr(errno, name), "no sense"))
    assert sock.write(b"a reply")
    assert sock.closed
    assert sock.close_reason.errno == getattr(errno, name)


@pytest.mark.parametrize("name", ["EPIPE", "EHOSTUNREACH", "ETIMEDOUT"])
def test_after_a_send_that_broke_reading_goes_on_and_the_peer_if_there_is_one_is_told_the_end(loop, wires, name):
    near, far = wires()
    sock = Socket(near)
    sock.watch_read(True)
    far.send(b"before")
    near.writes.append(OSError(getattr(errno, name), "broken"))
    sock.write(b"a reply")
    assert not sock.closed
    assert far.recv(10) == b""
    assert sock.read(10) == b"before"
    sock.close()
