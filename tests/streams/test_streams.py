"""The calls on a socket that look blocking: what they return, what ends them, and that no byte is lost."""

from __future__ import annotations

import socket
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dangagreen as d
from dangagreen.testing import BLOCK

thorough = settings(deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

READS = {
    "read_exactly": lambda sock: sock.read_exactly(8),
    "read_line": lambda sock: sock.read_line(),
    "read_until": lambda sock: sock.read_until(b"\r\n"),
    "read_some": lambda sock: sock.read_some(),
    "read_to_end": lambda sock: sock.read_to_end(),
    "iteration": lambda sock: next(iter(sock)),
}
WRITES = {
    "write_all": lambda sock: sock.write_all(b"more"),
    "drain": lambda sock: sock.drain(),
}
any_read = pytest.mark.parametrize("read", READS.values(), ids=READS)
any_write = pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)


def result_of(function, *args):
    """Run it in a task to its end."""
    task = d.spawn(function, *args)
    task.join(1000)
    return task.result()


def failure_of(function, *args):
    """The same, for what it raises."""
    try:
        function(*args)
    except Exception as error:
        return error
    return None


def take(far, most=1 << 20):
    """What the peer finds now."""
    try:
        return far.recv(most)
    except BlockingIOError:
        return b""


class Small(d.Socket):
    """A socket whose queue is soon full."""

    __slots__ = ()
    high_water = 100
    low_water = 20


def blocked(pair, socket_class=Small):
    """A socket whose peer reads nothing, with more queued than the high-water mark."""
    sock, far = pair(socket_class, capacity=0)
    sock.sock.capacity = 65536
    sock.write_all(b"x" * 101)
    return sock, far


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
    assert len(far.peer._incoming) >= (1 << 20) - 2 * 65536


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


# -- writing


def test_write_all_takes_anything_bytes_like_as_it_is_at_the_call(loop, pair):
    sock, far = pair()
    buffer = bytearray(b"one")
    sock.write_all(buffer)
    buffer[:] = b"XXX"
    sock.write_all(memoryview(b"two"))
    sock.write_all(b"")
    sock.drain()
    assert take(far) == b"onetwo"
    with pytest.raises(TypeError):
        sock.write_all("three")


def test_several_write_alls_leave_in_one_system_call(loop, pair):
    sock, _ = pair()
    sent = []

    def writer(data):
        sent.append(bytes(data))
        return len(data)

    def work():
        for number in range(5):
            sock.write_all(b"%d" % number)
        assert sent == []
        d.sleep(1)

    sock.set_writer_func(writer)
    result_of(work)
    assert sent == [b"01234"]


def test_what_a_task_wrote_leaves_when_it_ends(loop, pair):
    sock, far = pair()
    result_of(sock.write_all, b"last words")
    d.sleep(0)
    assert take(far) == b"last words"


def test_what_top_level_code_wrote_leaves_at_its_next_wait(loop, pair):
    sock, far = pair()
    sock.write_all(b"a line\n")
    d.sleep(0)
    assert take(far) == b"a line\n"


def test_write_and_write_all_keep_their_order(loop, pair):
    sock, far = pair(capacity=4)
    called = []

    def work():
        sock.write(b"aaaaaa")
        sock.write_all(b"bb")
        sock.write(b"cc")
        sock.write(lambda: called.append(sock.unsent))
        sock.write_all(b"dd")
        sock.drain()

    task = d.spawn(work)
    got = b""
    for _ in range(20):
        d.sleep(1)
        got += take(far)
    assert got == b"aaaaaabbccdd"
    assert task.done
    assert len(called) == 1


def test_a_slow_reader_holds_the_writer_back(loop, pair):
    sock, far = pair(Small, capacity=50)
    queued = []

    def work():
        for number in range(100):
            sock.write_all(b"%-10d" % number)
            queued.append(sock.unsent)

    task = d.spawn(work)
    d.sleep(100)
    assert not task.done
    assert len(queued) < 20
    got = b""
    for _ in range(300):
        got += take(far, 7)
        d.sleep(1)
    assert task.done
    assert got == b"".join(b"%-10d" % number for number in range(100))
    assert max(queued) <= Small.high_water + 10


def test_write_all_goes_on_below_the_low_water_mark(loop, pair):
    sock, far = blocked(pair)
    task = d.spawn(sock.write_all, b"more")
    d.sleep(1)
    far.capacity = 10
    left = []
    while not task.done and len(left) < 50:
        left.append(sock.unsent)
        take(far)
        d.sleep(1)
    assert task.done
    assert left[-1] - 10 <= Small.low_water < left[-2]


def test_a_parked_write_all_that_is_cancelled_queues_none_of_it(loop, pair):
    sock, far = blocked(pair)
    task = d.spawn(sock.write_all, b"never sent")
    d.sleep(1)
    assert not task.done
    task.cancel()
    far.capacity = 1000
    sock.drain()
    assert take(far) == b"x" * 101


def test_several_writers_may_wait_and_none_is_forgotten(loop, pair):
    sock, far = blocked(pair)
    tasks = [d.spawn(sock.write_all, b"%d;" % number * 40) for number in range(5)] + [d.spawn(sock.drain)]
    d.sleep(1)
    assert not any(task.done for task in tasks)
    far.capacity = 30
    got = b""
    for _ in range(100):
        got += take(far)
        d.sleep(1)
    assert all(task.done for task in tasks)
    assert got[:101] == b"x" * 101
    assert sorted(got[101:].split(b";")) == sorted([b"%d" % n for n in range(5)] * 40 + [b""])


class Bounded(Small):
    __slots__ = ("low_calls", "high_calls")
    max_unsent = 150

    def on_high_water(self):
        self.high_calls = getattr(self, "high_calls", 0) + 1


def test_one_write_all_over_the_hard_limit_raises_before_anything_is_queued(loop, pair):
    sock, far = pair(Bounded)
    with pytest.raises(d.LimitError, match="150") as caught:
        sock.write_all(b"y" * 151)
    assert caught.value.limit == 150
    assert sock.unsent == 0
    sock.write_all(b"z" * 150)
    sock.drain()
    assert take(far) == b"z" * 150
    assert not sock.closed


def test_write_all_parks_rather_than_reach_the_hard_limit(loop, pair):
    sock, far = pair(Bounded, capacity=0)
    sock.write_all(b"a" * 90)
    task = d.spawn(sock.write_all, b"b" * 90)
    d.sleep(1)
    assert not task.done
    assert not sock.closed
    assert sock.unsent == 90
    far.capacity = 1000
    d.sleep(1)
    assert task.result() is None
    sock.drain()
    assert take(far) == b"a" * 90 + b"b" * 90


def test_write_all_over_the_high_water_mark_calls_the_hook_once(loop, pair):
    sock, far = pair(Bounded, capacity=0)
    sock.write_all(b"a" * 101)
    assert sock.high_calls == 1
    far.capacity = 1000
    sock.drain()
    sock.write_all(b"a" * 101)
    assert sock.high_calls == 2


def test_drain_waits_until_the_kernel_took_everything(loop, pair):
    sock, far = pair(capacity=10)
    sock.write_all(b"x" * 35)
    task = d.spawn(sock.drain)
    for _ in range(3):
        d.sleep(1)
        assert not task.done
        assert take(far) == b"x" * 10
    d.sleep(1)
    assert task.done
    assert sock.unsent == 0


def test_drain_of_nothing_returns_at_once(loop, pair):
    sock, _ = pair()
    before = loop.clock()
    sock.drain()
    assert loop.clock() == before


@any_write
@pytest.mark.parametrize("go", ["reset", "close", "hang_up"])
def test_a_peer_that_goes_while_a_writer_is_parked_wakes_it(loop, pair, write, go):
    sock, far = blocked(pair)
    task = d.spawn(write, sock)
    d.sleep(1)
    far._incoming += b"what it has not read when it goes"
    getattr(far, go)()
    task.join(10)
    with pytest.raises(ConnectionError):
        task.result()
    with pytest.raises(ConnectionError):
        sock.write_all(b"again")


def test_what_the_peer_sent_can_still_be_read_after_a_write_failed(loop, pair):
    sock, far = pair()
    far.send(b"its last line\n")
    sock.sock.writes.append(BrokenPipeError(32, "Broken pipe"))

    def work():
        sock.write_all(b"request\n")
        return sock.read_line()

    assert result_of(work) == b"its last line\n"
    with pytest.raises(BrokenPipeError):
        sock.write_all(b"more")


def test_what_the_peer_sent_can_still_be_read_when_the_write_failed_before_the_read(loop, pair):
    sock, far = pair()
    far.send(b"its last line\n")
    sock.sock.writes.append(BrokenPipeError(32, "Broken pipe"))

    def work():
        sock.write_all(b"request\n")
        d.sleep(1)
        return sock.read_line()

    assert result_of(work) == b"its last line\n"


# -- close and cancel wake whoever is parked, once


def parked(pair, call):
    """A task that is parked in that call, then sleeps twice; it notes each thing that wakes it, and when."""
    sock, _ = blocked(pair)
    woken = []

    def work():
        for wait in (call, lambda sock: d.sleep(10), lambda sock: d.sleep(10)):
            try:
                wait(sock)
                woken.append("slept")
            except BaseException as error:
                woken.append(error)

    task = d.spawn(work)
    d.sleep(1)
    assert task.waits_for
    assert woken == []
    return sock, task, woken


any_wait = pytest.mark.parametrize("call", [*READS.values(), *WRITES.values()], ids=[*READS, *WRITES])


@any_wait
def test_close_wakes_whoever_is_parked_once_with_the_reason(loop, pair, call):
    sock, task, woken = parked(pair, call)
    sock.close("my reason")
    sock.close("too late")
    task.join()
    error = woken.pop(0)
    assert isinstance(error, d.ClosedError)
    assert error.reason == "my reason"
    assert error.sock is sock
    assert "my reason" in str(error)
    assert woken == ["slept", "slept"]
    assert loop.clock() == 1021


@any_wait
def test_cancel_wakes_whoever_is_parked_with_the_reason(loop, pair, call):
    sock, task, woken = parked(pair, call)
    task.cancel("my reason")
    task.join()
    assert [type(error) for error in woken] == [d.Cancelled] * 3
    assert woken[0].reason == "my reason"
    assert loop.clock() == 1001
    assert not sock.closed


@any_wait
def test_of_close_and_cancel_the_first_counts(loop, pair, call):
    for first in ("close", "cancel"):
        sock, task, woken = parked(pair, call)
        if first == "close":
            sock.close()
        task.cancel()
        sock.close()
        task.join()
        kinds = [type(error) for error in woken]
        assert kinds == [d.ClosedError if first == "close" else d.Cancelled, d.Cancelled, d.Cancelled]


@any_wait
def test_a_task_that_closes_from_another_task_wakes_it(loop, pair, call):
    sock, task, woken = parked(pair, call)
    d.spawn(sock.close, "by another task")
    task.join()
    assert woken[0].reason == "by another task"
    assert woken[1:] == ["slept", "slept"]


@any_wait
def test_every_call_on_a_closed_socket_raises_closed_error_with_the_reason(loop, pair, call):
    sock, far = pair()
    far.send(b"unread\r\n")
    sock.close("my reason")
    with pytest.raises(d.ClosedError, match="my reason"):
        call(sock)


def test_bytes_and_close_in_one_turn_wake_the_reader_once(loop, pair):
    sock, task, woken = parked(pair, READS["read_exactly"])

    def both():
        sock.sock.peer.send(b"12345678")
        sock.close("at once")

    loop.add_timer(1, both)
    task.join()
    assert woken[1:] == ["slept", "slept"]


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


# -- pushing back, and the block


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


def test_leaving_the_block_normally_drains_and_closes(loop, pair):
    sock, far = pair(capacity=10)

    def work():
        with sock as same:
            assert same is sock
            sock.write_all(b"x" * 25)

    task = d.spawn(work)
    got = b""
    for _ in range(5):
        d.sleep(1)
        got += take(far)
    assert got == b"x" * 25
    assert task.result() is None
    assert sock.closed


def test_leaving_the_block_by_an_exception_closes_at_once(loop, pair):
    sock, _ = pair(capacity=10)
    error = KeyError("mine")

    def work():
        with sock:
            sock.write_all(b"x" * 25)
            raise error

    task = d.spawn(work)
    task.join()
    assert loop.clock() == 1000
    with pytest.raises(KeyError):
        task.result()
    assert sock.closed
    assert repr(sock.close_reason) == repr(error)
    assert sock.unsent == 0


def test_a_cancel_in_the_block_closes_at_once(loop, pair):
    sock, _ = pair(capacity=0)

    def work():
        with sock:
            sock.write_all(b"x")
            d.sleep(100)

    task = d.spawn(work)
    d.sleep(1)
    task.cancel()
    task.join()
    assert sock.closed
    assert loop.clock() == 1001


def test_a_cancel_while_the_block_drains_closes_too(loop, pair):
    sock, _ = pair(capacity=0)

    def work():
        with sock:
            sock.write_all(b"x")

    task = d.spawn(work)
    d.sleep(1)
    assert not sock.closed
    task.cancel()
    task.join()
    assert sock.closed


def test_a_block_may_close_its_socket_itself(loop, pair):
    sock, _ = pair()
    with sock:
        sock.close("early")
    assert sock.close_reason == "early"


def test_finish_never_waits_and_nothing_of_the_reply_is_lost(loop, pair):
    sock, far = pair(capacity=10)

    def work():
        sock.write_all(b"x" * 25)
        before = loop.clock()
        sock.finish()
        assert loop.clock() == before
        with pytest.raises(d.ClosedError):
            sock.write_all(b"late")
        with pytest.raises(d.ClosedError):
            sock.read_line()

    far.send(b"unread input")
    result_of(work)
    got = b""
    for _ in range(5):
        d.sleep(0.1)
        got += take(far)
    assert got == b"x" * 25
    far.close()
    d.sleep(0.1)
    assert sock.closed


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


def test_a_write_callback_that_closes_ends_the_connection_after_the_data(loop, pair):
    sock, far = pair(capacity=4)
    sock.write(b"123456789")
    sock.write(sock.close)
    got = b""
    for _ in range(5):
        d.sleep(1)
        got += take(far)
    assert got == b"123456789"
    assert sock.closed


def test_room_that_comes_while_the_task_parks_for_it_wakes_the_task(loop, pair):
    sock, far = pair(capacity=1 << 20)
    sock.sock.writes.append(BLOCK)

    def work():
        sock.write_all(b"x" * 100_000)
        sock.write_all(b"y")  # the first attempt to make room is refused, the one when the task parks is not

    task = d.spawn(work)
    task.join(10)
    task.result()
    d.sleep(1)
    assert len(far.recv(200_000)) == 100_001


def test_a_queued_callable_that_raises_while_its_task_parks_costs_the_socket_and_not_the_wait(loop, pair, take_errors):
    sock, _far = pair()

    def work():
        sock.sock.writes.append(BLOCK)
        sock.write_all(b"before")
        sock.write(lambda: 1 / 0)
        d.sleep(1)
        return "slept"

    task = d.spawn(work)
    task.join(10)
    assert task.result() == "slept"
    assert sock.closed
    assert [type(context.exception) for context in take_errors()] == [ZeroDivisionError]


class Idle(d.Socket):
    __slots__ = ()
    idle_timeout = 5


class IdleReader(Idle):
    __slots__ = ()

    def event_read(self):
        self.read(10)


@pytest.mark.parametrize("call", ["read_line", "select"])
def test_waits_that_were_given_up_add_up_to_the_idle_time(loop, pair, call):
    sock, far = pair(Idle)

    def work():
        for _ in range(100):
            with d.move_on_after(1.1):
                sock.read_line() if call == "read_line" else d.select(sock)
            if sock.closed:
                return
            d.sleep(10)  # the handler's own work

    if call == "read_line":
        far.send(b"half a line")
    task = d.spawn(work)
    loop.add_timer(44.9, lambda: closed.append(sock.closed))
    closed = []
    task.join()
    assert loop.clock() == pytest.approx(1045)
    assert closed == [False]
    assert "idle for 5 s" in str(sock.close_reason)
    if call == "read_line":
        with pytest.raises(d.ClosedError):
            task.result()


def test_input_begins_the_idle_time_anew_after_a_wait_that_was_given_up(loop, pair):
    sock, far = pair(Idle)

    def work():
        for _ in range(5):
            with d.move_on_after(4):
                sock.read_line()
            far.send(b"a line\n")
            assert sock.read_line() == b"a line\n"

    task = d.spawn(work)
    task.join()
    task.result()
    assert loop.clock() == 1020
    assert not sock.closed


def test_a_handler_that_computes_does_not_make_its_peer_idle(loop, pair):
    sock, far = pair(Idle)

    def work():
        while sock.read_line():
            loop.clock.jump(20)

    task = d.spawn(work)
    for _ in range(3):
        far.send(b"a line\n")
        d.sleep(4)
    assert not sock.closed
    task.join()
    assert sock.closed
    with pytest.raises(d.ClosedError, match="idle"):
        task.result()


def test_a_closed_socket_is_left_like_any_other_call_that_may_park(loop, pair):
    def leave():
        sock, _ = pair()
        with d.no_parking(), pytest.raises(d.CannotParkError), sock:
            sock.close()

    task = d.spawn(leave)
    task.join()
    task.result()


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


def test_a_wait_that_was_given_up_does_not_count_for_another_that_goes_on(loop, pair):
    """What is queued, or watched, is waited for all the time."""
    sock, far = pair(Idle, 10)
    d.sleep(4)
    sock.write(b"x" * 20)
    with d.move_on_after(0.1):
        sock.read_some()
    d.sleep(4)
    assert not sock.closed
    d.sleep(1)
    assert sock.closed
    far.close()

    sock, far = pair(IdleReader)
    sock.watch_read(True)
    d.sleep(4.5)
    far.send(b"x")
    d.sleep(0.1)
    for _ in range(20):
        with d.move_on_after(0.2):
            d.select(sock)
        assert not sock.closed
    d.sleep(1.1)
    assert sock.closed


def test_a_silent_peer_is_idle_also_for_a_watched_socket_that_is_polled(loop, pair):
    sock, _ = pair(IdleReader)
    sock.watch_read(True)
    for _ in range(9):
        with d.move_on_after(0.5):
            d.select(sock)
    assert not sock.closed
    d.sleep(0.6)
    assert sock.closed


def test_a_writer_that_waited_before_is_given_its_whole_time(loop, pair):
    sock, _ = pair(Idle, 100)
    queue = d.Queue()

    def work():
        while d.select(queue, sock) is queue:
            sock.write_all(queue.get())

    task = d.spawn(work)
    d.sleep(4)
    queue.put(b"x" * 100_000)
    queue.put(b"x" * 10)
    d.sleep(4)
    assert not sock.closed
    task.join()
    assert loop.clock() == pytest.approx(1009)
    with pytest.raises(d.ClosedError, match="idle"):
        task.result()
