"""Reading that looks blocking: what each call returns, what ends it, and that no byte is lost."""

from __future__ import annotations

import socket
import threading
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dangagreen as d
from dangagreen.testing import BLOCK
from tests.connections import READS, any_read, take
from tests.helpers import result_of
from tests.inside import incoming

thorough = settings(deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def failure_of(function, *args):
    """The same, for what it raises."""
    try:
        function(*args)
    except Exception as error:
        return error
    return None


# -- reading


def test_read_exactly_waits_for_all_of_it_and_leaves_the_rest(loop, pair):
    sock, far = pair()
    task = d.spawn(sock.read_exactly, 5)
    for piece in (b"ab", b"c", b"defg"):
        far.send(piece)
        assert not task.done
        d.sleep(1)
    assert task.result() == b"abcde"
    assert sock.read_exactly(2) == b"fg"


def test_read_exactly_of_nothing_returns_at_once(loop, pair):
    sock, _ = pair()
    assert sock.read_exactly(0) == b""
    with pytest.raises(ValueError, match="-1"):
        sock.read_exactly(-1)
    assert loop.poller.waits == 0


def test_read_exactly_of_megabytes(loop, pair):
    sock, far = pair(capacity=10000)
    data = bytes(range(256)) * 8192

    def feed():
        sent = 0
        while sent < len(data):
            try:
                sent += far.send(data[sent : sent + 7777])
            except BlockingIOError:
                d.sleep(0.001)

    d.spawn(feed)
    assert sock.read_exactly(len(data) - 3) == data[:-3]
    assert sock.read_exactly(3) == data[-3:]


def test_lines_keep_their_end_however_they_arrive(loop, pair):
    sock, far = pair()
    far.send(b"one\ntwo\r\n\nfo")
    assert [sock.read_line() for _ in range(3)] == [b"one\n", b"two\r\n", b"\n"]
    task = d.spawn(sock.read_line)
    d.sleep(1)
    assert not task.done
    far.send(b"ur\nfive")
    task.join()
    assert task.result() == b"four\n"
    assert sock.read_exactly(4) == b"five"


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_short_reads_make_no_difference(loop, pair, size):
    sock, far = pair()
    sock.sock.reads.extend([size, BLOCK] * 50)
    far.send(b"one\ntwo\nthree--four")
    assert sock.read_line() == b"one\n"
    assert sock.read_exactly(4) == b"two\n"
    assert sock.read_until(b"--") == b"three--"
    assert sock.read_exactly(4) == b"four"


@thorough
@given(st.lists(st.binary(min_size=1, max_size=4), max_size=6), st.integers(1, 5))
def test_a_separator_split_over_any_number_of_reads_is_found(loop, pair, before, separator_size):
    separator = b"aab--"[:separator_size]
    sock, far = pair()
    data = b"".join(before).replace(separator, b"") + separator + b"rest"
    first = data[: data.index(separator) + len(separator)]
    task = d.spawn(sock.read_until, separator)
    for n in range(len(data)):
        far.send(data[n : n + 1])
        d.sleep(0)
    task.join(10)
    assert task.result() == first
    assert sock.read_exactly(len(data) - len(first)) == data[len(first) :]
    sock.close()


def test_a_separator_that_overlaps_itself_is_found_where_it_first_ends(loop, pair):
    sock, far = pair()
    task = d.spawn(sock.read_until, b"aab")
    for n in b"aaaabaab":
        far.send(bytes([n]))
        d.sleep(1)
    assert task.result() == b"aaaab"
    assert sock.read_until(b"aab") == b"aab"


def test_an_empty_separator_is_refused(loop, pair):
    sock, _ = pair()
    with pytest.raises(ValueError, match="empty"):
        sock.read_until(b"")


def test_read_some_returns_what_is_there_up_to_its_limit(loop, pair):
    sock, far = pair()
    task = d.spawn(sock.read_some)
    d.sleep(1)
    assert not task.done
    far.send(b"abcdef")
    task.join()
    assert task.result() == b"abcdef"
    far.send(b"ghijkl")
    assert sock.read_some(4) == b"ghij"
    assert sock.read_some(4) == b"kl"
    with pytest.raises(ValueError):
        sock.read_some(0)


def test_read_to_end_returns_everything(loop, pair):
    sock, far = pair()
    task = d.spawn(sock.read_to_end)
    for piece in (b"one", b"two", b"three"):
        far.send(piece)
        d.sleep(1)
    assert not task.done
    far.shutdown(1)
    task.join()
    assert task.result() == b"onetwothree"
    assert sock.read_to_end() == b""


def test_iteration_yields_lines_up_to_the_end(loop, pair):
    sock, far = pair()
    far.send(b"one\n\nthree\n")
    far.close()
    assert list(sock) == [b"one\n", b"\n", b"three\n"]
    assert list(sock) == []


BETWEEN = {
    "read_exactly": lambda sock: sock.read_exactly(3),
    "read_line": lambda sock: sock.read_line(),
    "read_some": lambda sock: sock.read_some(5),
    "read": lambda sock: sock.read(4),
    "push_back_read": lambda sock: sock.push_back_read(b"again\nand ") or b"",
    "push_back_read of the line": lambda sock: sock.push_back_read(b"1\n") or b"",
    "another iteration": lambda sock: next(iter(sock)),
    "nothing": lambda sock: b"",
}


@pytest.mark.parametrize("how", BETWEEN)
@pytest.mark.parametrize("line", [0, 1, 2, 3])
def test_others_may_read_and_push_back_between_the_lines_of_an_iteration(loop, pair, how, line):
    sock, far = pair()
    sent = b"".join(b"%d\n" % number for number in range(1, 9))
    far.send(sent)
    far.shutdown(1)
    unread = bytearray(sent)
    for number, got in enumerate(sock):
        assert got == bytes(unread[: unread.index(b"\n") + 1])
        del unread[: len(got)]
        assert sock.buffered == len(unread)
        if number == line:
            taken = BETWEEN[how](sock)
            assert unread.startswith(taken)
            del unread[: len(taken)]
            if how == "push_back_read":
                unread[:0] = b"again\nand "
            elif how == "push_back_read of the line":
                unread[:0] = b"1\n"
            assert sock.buffered == len(unread)
        if not unread.endswith(b"\n"):
            break
    assert not unread


@pytest.mark.parametrize("seed", range(10))
def test_lines_agree_with_a_model_whatever_else_reads_between_them(loop, pair, seed):
    sock, far = pair()
    rng = Random(seed)
    unread, iteration = b"", iter(sock)
    for _ in range(300):
        step = rng.choice(["send", "read_line", "read_line", "next", "read_exactly", "read_some", "push back", "limit"])
        if step in ("send", "push back"):
            data = b"".join(b"x" * rng.randrange(30) + b"\n" for _ in range(rng.randrange(12)))
            data += b"y" * rng.choice((0, 0, 5))
            far.send(data) if step == "send" else sock.push_back_read(data)
            unread = unread + data if step == "send" else data + unread
        elif step == "limit":
            sock.line_limit = rng.choice((15, 29, 1000, 1000))
        elif step in ("read_line", "next"):
            for _ in range(rng.randrange(1, 5)):
                if not (size := unread.find(b"\n") + 1):
                    break
                if size > sock.line_limit:
                    with pytest.raises(d.LimitError):
                        sock.read_line()
                    break
                assert (sock.read_line() if step == "read_line" else next(iteration)) == unread[:size]
                unread = unread[size:]
        elif len(unread) >= (size := rng.randrange(1, 40)):
            got = getattr(sock, step)(size)
            assert got == unread[: len(got)]
            assert got
            assert step == "read_some" or len(got) == size
            unread = unread[len(got) :]
    far.shutdown(1)
    assert sock.read_to_end() == unread


def test_an_iteration_is_cancelled_between_lines_that_came_together(loop, pair):
    sock, far = pair()
    far.send(b"1\n2\n3\n")
    lines = []

    def read():
        for line in sock:
            lines.append(line)
            task.cancel()

    task = d.spawn(read)
    task.join()
    assert lines == [b"1\n"]
    assert sock.read_some() == b"2\n3\n"


def test_an_iteration_does_not_outlive_its_socket(loop, pair):
    sock, far = pair()
    far.send(b"1\n2\n3\n")
    lines = iter(sock)
    assert next(lines) == b"1\n"
    sock.close()
    with pytest.raises(d.ClosedError):
        next(lines)


def test_an_iteration_goes_on_behind_a_line_that_came_in_part(loop, pair):
    sock, far = pair()
    far.send(b"1\n2\n3")
    lines = iter(sock)
    assert [next(lines), next(lines)] == [b"1\n", b"2\n"]
    assert sock.buffered == 1
    far.send(b"3\n4\n")
    assert [next(lines), next(lines)] == [b"33\n", b"4\n"]
    assert sock.buffered == 0


class ShortLines(d.Socket):
    __slots__ = ()
    line_limit = 6


@pytest.mark.parametrize(
    "read",
    [lambda s: s.read_line(), lambda s: s.read_until(b"\n"), lambda s: next(s.lines)],
    ids=["line", "until", "iter"],
)
def test_a_class_says_how_long_a_line_may_be(loop, pair, read):
    class Lines(ShortLines):
        __slots__ = ("lines",)

    sock, far = pair(Lines)
    sock.lines = iter(sock)
    far.send(b"short\n" * 3 + b"longer\nshort\n")
    assert [read(sock) for _ in range(3)] == [b"short\n"] * 3
    with pytest.raises(d.LimitError, match="6 bytes"):
        read(sock)
    assert sock.read_line(100) == b"longer\n"


def test_an_iteration_is_told_who_else_reads(loop, pair):
    sock, far = pair()
    far.send(b"1\n2\n")

    def read():
        lines = iter(sock)
        next(lines)
        other = d.spawn(sock.read_exactly, 100)
        d.sleep(0)
        d.sleep(0)
        with pytest.raises(d.BusyError, match="read_exactly"):
            next(lines)
        other.cancel()
        other.join()
        return sock.read_line()

    assert result_of(read) == b"2\n"


def test_iteration_raises_when_the_last_line_has_no_end(loop, pair):
    sock, far = pair()
    far.send(b"one\ntwo")
    far.close()
    lines = []
    with pytest.raises(EOFError) as caught:
        lines.extend(iter(sock))
    assert caught.value.partial == b"two"


# -- the end of the stream


@pytest.mark.parametrize(
    ("read", "wanted"),
    [(READS["read_exactly"], "8"), (READS["read_line"], "n"), (READS["read_until"], "r"), (READS["iteration"], "n")],
)
def test_an_end_in_the_middle_raises_with_the_partial_bytes(loop, pair, read, wanted):
    sock, far = pair()
    task = d.spawn(read, sock)
    far.send(b"part")
    d.sleep(1)
    far.shutdown(1)
    task.join()
    with pytest.raises(EOFError) as caught:
        task.result()
    assert isinstance(caught.value, d.IncompleteReadError)
    assert caught.value.partial == b"part"
    assert caught.value.sock is sock
    assert wanted in caught.value.wanted
    assert sock.read_some() == b""
    assert not sock.closed


@pytest.mark.parametrize("name", ["read_line", "read_some", "read_to_end", "read_until"])
def test_at_a_clean_end_there_is_nothing_time_and_again(loop, pair, name):
    sock, far = pair()
    far.shutdown(1)
    assert [READS[name](sock) for _ in range(3)] == [b""] * 3


def test_read_exactly_at_a_clean_end_raises(loop, pair):
    sock, far = pair()
    far.shutdown(1)
    for _ in range(2):
        with pytest.raises(EOFError) as caught:
            sock.read_exactly(3)
        assert caught.value.partial == b""


@pytest.mark.parametrize("close", ["shutdown", "close", "hang_up"])
def test_everything_sent_before_the_end_is_read_before_it(loop, pair, close):
    sock, far = pair()
    far.send(b"one\ntwo\nthree")
    far.shutdown(1) if close == "shutdown" else getattr(far, close)()
    d.sleep(1)
    assert sock.read_line() == b"one\n"
    d.sleep(1)
    assert sock.read_line() == b"two\n"
    assert sock.read_to_end() == b"three"
    assert not sock.closed


@any_read
def test_a_reset_raises_in_each_read_and_again(loop, pair, read):
    sock, far = pair()
    task = d.spawn(read, sock)
    d.sleep(1)
    far.reset()
    task.join()
    with pytest.raises(ConnectionResetError):
        task.result()
    with pytest.raises(ConnectionResetError):
        read(sock)


def test_a_reset_while_the_task_is_busy_elsewhere_is_found_by_the_next_read(loop, pair):
    sock, far = pair()
    far.reset()
    d.sleep(10)
    with pytest.raises(ConnectionResetError):
        sock.read_line()


def test_a_hang_up_that_nobody_reads_does_not_make_the_loop_spin(loop, pair):
    sock, far = pair()
    sock.write_all(b"hello")
    sock.drain()
    task = d.spawn(sock.read_line)
    far.send(b"line\n")
    task.join()
    far.send(b"unread\n")
    far.hang_up()
    before = loop.poller.waits
    for _ in range(10):
        d.sleep(10)
    assert loop.poller.waits - before < 30
    assert sock.read_line() == b"unread\n"
    assert sock.read_line() == b""


# -- limits


@pytest.mark.parametrize("name", ["read_line", "read_until"])
@pytest.mark.parametrize("at_once", [True, False])
def test_a_line_over_the_limit_raises_and_is_not_lost(loop, pair, name, at_once):
    sock, far = pair()
    args = (b"\n",) if name == "read_until" else ()
    read = getattr(sock, name)
    task = d.spawn(failure_of, read, *args, 9)
    for piece in [b"123456789\nrest\n"] if at_once else [b"123", b"456789", b"\nrest\n"]:
        far.send(piece)
        d.sleep(1)
    error = task.result()
    assert isinstance(error, d.LimitError)
    assert error.limit == 9
    assert "9" in str(error)
    assert str(error).startswith(f"a line from {sock.peer_addr_string() or 'the peer'} is longer")
    for _ in range(2):
        with pytest.raises(d.LimitError):
            read(*args, 9)
    assert read(*args, 10) == b"123456789\n"
    assert read(*args, 5) == b"rest\n"


def test_reaching_the_limit_does_not_wait_for_the_separator(loop, pair):
    sock, far = pair()
    far.send(b"x" * 100)
    with pytest.raises(d.LimitError):
        sock.read_line(100)
    assert sock.read_exactly(100) == b"x" * 100


def test_read_to_end_over_the_limit_raises_and_loses_nothing(loop, pair):
    sock, far = pair()
    far.send(b"12345")
    far.shutdown(1)
    with pytest.raises(d.LimitError, match="4"):
        sock.read_to_end(4)
    assert sock.read_to_end(5) == b"12345"


def test_a_peer_that_never_ends_its_line_does_not_fill_the_memory(loop, pair):
    sock, far = pair(capacity=1 << 20)
    far.send(b"x" * (1 << 20))
    with pytest.raises(d.LimitError):
        sock.read_line(1000)
    assert len(incoming(far.peer)) >= (1 << 20) - 2 * 65536


# -- a second reader


@any_read
def test_a_second_reader_raises_busy_and_names_the_first(loop, pair, read):
    sock, far = pair()
    first = d.spawn(sock.read_line)
    first.name = "the first reader"
    d.sleep(1)
    with pytest.raises(d.BusyError, match="the first reader"):
        result_of(read, sock)
    far.send(b"for the first\n")
    first.join()
    assert first.result() == b"for the first\n"


def test_top_level_code_can_be_the_first_reader(loop, pair):
    sock, far = pair()
    raised = []

    def second():
        try:
            sock.read_some()
        except d.BusyError as error:
            raised.append(str(error))
        far.send(b"x\n")

    d.spawn(second)
    assert sock.read_line() == b"x\n"
    assert "top-level" in raised[0]


def test_after_the_first_reader_was_cancelled_another_may_read(loop, pair):
    sock, far = pair()
    first = d.spawn(sock.read_line)
    d.sleep(1)
    first.cancel()
    far.send(b"line\n")
    assert sock.read_line() == b"line\n"
    assert first.done


def test_a_reader_does_not_disturb_writers(loop, pair):
    sock, far = pair(capacity=10)
    reader, writer = d.spawn(sock.read_line), d.spawn(lambda: (sock.write_all(b"x" * 30), sock.drain()))
    got = b""
    for _ in range(10):
        d.sleep(1)
        got += take(far)
    assert got == b"x" * 30
    assert writer.done
    assert not reader.done
    far.send(b"\n")
    reader.join()


# -- nothing is lost


class Closer(d.Socket):
    """Closes another socket when it has input."""

    __slots__ = ("victim",)

    def event_read(self):
        self.read(100)
        self.victim.close("by another")


@pytest.mark.in_order
@any_read
def test_a_close_in_the_batch_that_brings_the_bytes_wakes_the_reader_once(loop, pair, read):
    closer, knife = pair(Closer)
    closer.watch_read(True)
    sock, far = pair()
    closer.victim = sock
    woken = []

    def work():
        try:
            woken.append(read(sock))
        except d.ClosedError as error:
            woken.append(error.reason)
        d.sleep(10)
        woken.append(loop.clock())

    task = d.spawn(work)
    d.sleep(1)
    knife.send(b"!")
    far.send(b"line 1\r\n")
    task.join()
    assert woken == ["by another", 1011]


class Canceller(d.Socket):
    """Cancels a task when it has input."""

    __slots__ = ("victim",)

    def event_read(self):
        self.read(100)
        self.victim.cancel()


@any_read
@pytest.mark.parametrize("canceller_first", [True, False])
def test_a_cancel_in_the_batch_that_brings_the_bytes_loses_none(loop, pair, read, canceller_first):
    data = b"line 1\r\n"
    if canceller_first:
        canceller, knife = pair(Canceller)
        canceller.watch_read(True)
    sock, far = pair()
    task = d.spawn(read, sock)
    d.sleep(1)
    if not canceller_first:
        canceller, knife = pair(Canceller)
        canceller.watch_read(True)
    canceller.victim = task
    knife.send(b"!")
    far.send(data)
    far.shutdown(1)
    task.join()
    try:
        got = task.result()
    except d.TaskCancelledError:
        got = b""
    assert got + sock.read_to_end() == data


@any_read
def test_bytes_of_a_cancelled_read_are_there_for_the_next_at_every_split_point(loop, pair, read):
    data = b"line 1\r\n"
    for split in range(len(data)):
        for pieces in (1, 2):
            sock, far = pair()
            task = d.spawn(read, sock)
            for piece in [data[:split]] if pieces == 1 else [data[: split // 2], data[split // 2 : split]]:
                if piece:
                    far.send(piece)
                    d.sleep(0.1)
            task.cancel()
            task.join()
            try:
                got = task.result()
            except d.TaskCancelledError:
                got = b""
            far.send(data[split:])
            far.shutdown(1)
            if got:
                assert got == data[: len(got)]
                assert sock.read_to_end() == data[len(got) :]
            else:
                assert read(sock) == data
            sock.close()


calls = st.one_of(
    st.tuples(st.just("read_exactly"), st.integers(0, 9).map(lambda n: (n,))),
    st.tuples(st.just("read_line"), st.sampled_from([(), (3,)])),
    st.tuples(st.just("read_until"), st.sampled_from([(b"ab",), (b"aab", 5), (b"a",)])),
    st.tuples(st.just("read_some"), st.sampled_from([(), (2,)])),
    st.tuples(st.just("read_to_end"), st.sampled_from([(), (4,)])),
)
segments = st.lists(st.text("ab\n", min_size=1, max_size=8).map(str.encode), max_size=12)


def read_within_limits(read, *args):
    try:
        return read(*args)
    except d.LimitError:
        return b""


@thorough
@given(segments, st.lists(st.tuples(calls, st.integers(0, 3), st.booleans()), max_size=15), st.integers(1, 6))
def test_however_reads_are_cancelled_no_byte_is_lost_doubled_or_reordered(loop, pair, pieces, attempts, short):
    sock, far = pair()
    sock.sock.reads.extend([short, BLOCK, 100] * 20)
    coming, got = list(pieces), b""
    for (name, args), patience, same_turn in attempts:
        task = d.spawn(read_within_limits, getattr(sock, name), *args)
        for _ in range(patience):
            if coming:
                far.send(coming.pop(0))
            d.sleep(0 if same_turn else 1)
        if same_turn and coming:
            far.send(coming.pop(0))
        task.cancel()
        task.join()
        try:
            got += task.result()
        except d.TaskCancelledError:
            pass
    for piece in coming:
        far.send(piece)
    far.shutdown(1)
    assert got + sock.read_to_end() == b"".join(pieces)
    sock.close()


# -- pushing back, finishing


def test_what_is_pushed_back_wakes_the_reader_and_comes_first(loop, pair):
    sock, far = pair()
    task = d.spawn(sock.read_line)
    d.sleep(1)
    sock.push_back_read(b"pushed\nand ")
    task.join(1)
    assert task.result() == b"pushed\n"
    far.send(b"sent\n")
    assert sock.read_line() == b"and sent\n"


def test_what_is_pushed_back_before_half_a_line_is_searched_too(loop, pair):
    sock, far = pair()
    task = d.spawn(sock.read_line)
    far.send(b"half a line")
    d.sleep(1)
    sock.push_back_read(b"pushed\n")
    task.join(1)
    assert task.result() == b"pushed\n"
    far.send(b"\n")
    assert sock.read_line() == b"half a line\n"


def test_a_callback_that_reads_under_a_parked_reader_spoils_no_line(loop, pair):
    sock, far = pair()
    task = d.spawn(sock.read_line)
    far.send(b"half a line")
    d.sleep(1)
    taken = []
    loop.call_soon(lambda: taken.append(sock.read(100)))
    d.sleep(1)
    far.send(b"x\nmore than was searched before\n")
    task.join(1)
    assert taken == [b"half a line"]
    assert task.result() == b"x\n"


def test_a_task_may_push_back_what_it_read(loop, pair):
    sock, far = pair()
    far.send(b"GET /\n")
    line = sock.read_line()
    sock.push_back_read(line)
    assert sock.read_line() == line


def test_finish_wakes_a_reader(loop, pair):
    sock, far = pair()
    task = d.spawn(sock.read_line)
    d.sleep(1)
    sock.finish()
    task.join()
    with pytest.raises(d.ClosedError):
        task.result()
    far.close()
    d.sleep(1)
    assert sock.closed


# -- read_some_into


def read_all_into(sock, size):
    """Everything up to the end, by `read_some_into` with a buffer of that size."""
    buffer, got = bytearray(size), b""
    while count := sock.read_some_into(buffer):
        got += buffer[:count]
    return got


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_read_some_into_a_buffer_up_to_the_end(loop, pair, size):
    sock, far = pair()
    task = d.spawn(read_all_into, sock, size)
    for piece in (b"one ", b"two ", b"three"):
        far.send(piece)
        d.sleep(1)
    far.shutdown(socket.SHUT_WR)
    task.join()
    assert task.result() == b"one two three"


def test_read_some_into_takes_what_is_in_the_buffer_first(loop, pair):
    sock, far = pair()
    far.send(b"a line\nand more")
    assert sock.read_line() == b"a line\n"
    buffer = bytearray(3)
    assert (sock.read_some_into(buffer), bytes(buffer)) == (3, b"and")
    sock.push_back_read(b"first")
    assert sock.read_some_into(memoryview(buffer)[:2]) == 2
    assert sock.read_exactly(8) == b"rst more"


def test_read_some_into_woken_by_what_is_pushed_back(loop, pair):
    sock, _ = pair()
    buffer = bytearray(10)
    task = d.spawn(sock.read_some_into, buffer)
    d.sleep(1)
    sock.push_back_read(b"back")
    task.join()
    assert buffer[: task.result()] == b"back"


def test_an_interrupted_read_some_into_loses_nothing(loop, pair):
    sock, far = pair()
    buffer = bytearray(10)
    for _ in range(3):
        with pytest.raises(TimeoutError), d.timeout(1):
            sock.read_some_into(buffer)
    task = d.spawn(sock.read_some_into, buffer)
    d.sleep(1)
    far.send(b"there")
    task.cancel()
    task.join()
    assert sock.read_some() == b"there"


def test_read_some_into_of_a_broken_or_closed_connection_raises(loop, pair):
    sock, far = pair()
    far.reset()
    for _ in range(2):
        with pytest.raises(ConnectionResetError):
            sock.read_some_into(bytearray(10))
    sock, _ = pair()
    sock.close()
    with pytest.raises(d.ClosedError):
        sock.read_some_into(bytearray(10))
    sock, _ = pair()
    with pytest.raises(ValueError, match="no room"):
        sock.read_some_into(bytearray())


def test_bulk_by_read_some_into_lets_others_run(real_loop, real_pair):
    near, peer = real_pair()
    sock = d.Socket(near)
    sender = threading.Thread(target=lambda: (peer.sendall(bytes(30_000_000)), peer.shutdown(socket.SHUT_WR)))
    sender.start()
    buffer, ticks = bytearray(65536), []

    def tick():
        while True:
            ticks.append(d.sleep(0))

    def receive():
        total = 0
        while size := sock.read_some_into(buffer):
            total += size
        return total

    ticker, task = d.spawn(tick), d.spawn(receive)
    task.join()
    sender.join()
    ticker.cancel()
    ticker.join()
    assert task.result() == 30_000_000
    assert len(ticks) > 5


def test_what_a_callback_finds_after_read_some_into_has_found_the_end(loop, pair):
    class Told(d.Socket):
        __slots__ = ("told",)

        def event_read(self):
            self.told.append(self.read(10))

    sock, far = pair(Told)
    sock.told = []
    far.send(b"x")
    far.shutdown(socket.SHUT_WR)
    assert read_all_into(sock, 10) == b"x"
    sock.watch_read(True)
    d.sleep(1)
    assert sock.told == [None]


def test_read_some_hands_out_what_was_received_without_a_copy(loop, wires, run_turns):
    """Where the limit allows: the very object that recv has returned."""
    sock, peer = wires()
    one = d.Socket(sock)
    received = []

    class Noting:
        """In the place of the OS socket."""

        def __getattr__(self, name):
            return getattr(sock, name)

        def recv(self, *args):
            received.append(sock.recv(*args))
            return received[-1]

    one.sock = Noting()
    reading = d.spawn(lambda: (one.read_some(1000), one.read_some(3), one.read_some(1000)))
    loop.call_soon(lambda: peer.send(b"x" * 500))
    loop.run(lambda: bool(received))
    peer.send(b"abcdef")
    loop.run(lambda: reading.done)
    first, second, third = reading.result()
    assert first is received[0]
    assert (first, second, third) == (b"x" * 500, b"abc", b"def")
    one.close()
    run_turns(1)
