"""One connection, both styles: read by callbacks now, by a task later, and by callbacks again, and no byte is lost."""

from __future__ import annotations

import socket

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dangagreen as d
from dangagreen.testing import BLOCK

thorough = settings(deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Both(d.Socket):
    """Collects what callbacks read; `size` is what each asks for, `stop_after` how many bytes end callback style."""

    __slots__ = ("calls", "got", "on_enough", "size", "stop_after")

    def __init__(self, sock):
        super().__init__(sock)
        self.got, self.calls, self.size = b"", 0, 1000
        self.stop_after = self.on_enough = None

    def event_read(self):
        self.calls += 1
        data = self.read(self.size)
        if data is None:
            self.watch_read(False)
            return
        self.got += data
        if self.stop_after is not None and len(self.got) >= self.stop_after:
            self.watch_read(False)
            if self.on_enough is not None:
                self.on_enough()


def test_task_then_callback_then_task(loop, pair):
    sock, far = pair(Both)
    far.send(b"one\ntwo\nthree\nfour\n")
    assert [sock.read_line(), sock.read_line()] == [b"one\n", b"two\n"]
    sock.watch_read(True)
    assert sock.got == b""
    d.sleep(1)
    assert sock.got == b"three\nfour\n"
    far.send(b"five\n")
    d.sleep(1)
    assert sock.got == b"three\nfour\nfive\n"
    sock.watch_read(False)
    far.send(b"six\nseven\n")
    assert [sock.read_line(), sock.read_line()] == [b"six\n", b"seven\n"]


def test_what_was_left_in_the_buffer_is_delivered_without_new_input(loop, pair):
    sock, far = pair(Both)
    far.send(b"line\nrest")
    task = d.spawn(lambda: (sock.read_line(), sock.watch_read(True)))
    task.join()
    d.sleep(1)
    assert sock.got == b"rest"
    assert sock.calls == 1


def test_a_small_callback_is_called_until_the_rest_is_consumed(loop, pair):
    sock, far = pair(Both)
    sock.size = 1
    far.send(b"line\nrest")
    sock.read_line()
    sock.watch_read(True)
    d.sleep(1)
    assert sock.got == b"rest"
    assert sock.calls == 4


def test_a_callback_that_stops_watching_leaves_the_rest_to_a_task(loop, pair):
    sock, far = pair(Both)
    sock.size, sock.stop_after = 2, 2
    far.send(b"line\nabcdef\n")
    assert sock.read_line() == b"line\n"
    sock.watch_read(True)
    d.sleep(1)
    assert sock.got == b"ab"
    assert sock.read_line() == b"cdef\n"


def test_hand_over_in_the_middle_of_a_line(loop, pair):
    sock, far = pair(Both)
    far.send(b"be")
    reader = d.spawn(sock.read_line)
    d.sleep(1)
    reader.cancel()
    sock.watch_read(True)
    d.sleep(1)
    assert sock.got == b"be"
    sock.push_back_read(sock.got)
    sock.watch_read(False)
    far.send(b"gin\n")
    assert sock.read_line() == b"begin\n"
    assert sock.calls == 1


def test_a_parked_task_gets_the_input_even_while_reading_is_watched(loop, pair):
    sock, far = pair(Both)
    sock.watch_read(True)
    task = d.spawn(sock.read_exactly, 4)
    d.sleep(1)
    far.send(b"taskrest")
    task.join()
    assert task.result() == b"task"
    d.sleep(1)
    assert sock.got == b"rest"
    far.send(b"more")
    d.sleep(1)
    assert sock.got == b"restmore"


def test_a_cancelled_reader_leaves_its_bytes_to_the_callback(loop, pair):
    sock, far = pair(Both)
    sock.watch_read(True)
    task = d.spawn(sock.read_exactly, 100)
    d.sleep(1)
    far.send(b"partial")
    d.sleep(1)
    assert sock.got == b""
    task.cancel()
    d.sleep(1)
    assert sock.got == b"partial"


def test_a_callback_may_spawn_the_task_that_goes_on(loop, pair):
    sock, far = pair(Both)
    lines = []
    sock.size, sock.stop_after = 3, 3

    def dialogue():
        lines.append(sock.read_line())
        lines.append(sock.read_line())
        sock.stop_after = None
        sock.watch_read(True)

    sock.on_enough = lambda: d.spawn(dialogue)
    sock.watch_read(True)
    far.send(b"abcdef\n")
    d.sleep(1)
    far.send(b"ghi\njkl")
    d.sleep(1)
    far.send(b"mno")
    d.sleep(1)
    assert sock.got == b"abcjklmno"
    assert lines == [b"def\n", b"ghi\n"]


@pytest.mark.parametrize("close", ["shutdown", "close", "hang_up"])
def test_the_end_comes_after_the_buffered_rest(loop, pair, close):
    sock, far = pair(Both)
    sock.size = 3
    far.send(b"line\nrest of it")
    far.shutdown(1) if close == "shutdown" else getattr(far, close)()
    assert sock.read_line() == b"line\n"
    sock.watch_read(True)
    d.sleep(1)
    assert sock.got == b"rest of it"
    assert sock.calls == 5


@pytest.mark.parametrize("close", ["shutdown", "close", "hang_up"])
def test_an_end_that_a_task_has_found_is_told_to_the_callback_once(loop, pair, close):
    sock, far = pair(Both)
    far.send(b"x")
    far.shutdown(1) if close == "shutdown" else getattr(far, close)()
    with pytest.raises(EOFError):
        sock.read_exactly(2)
    sock.push_back_read(b"x")
    sock.watch_read(True)
    d.sleep(1)
    assert sock.got == b"x"
    assert sock.calls == 2


def test_an_end_that_a_callback_has_found_is_found_by_a_task(loop, pair):
    sock, far = pair(Both)
    far.send(b"x")
    far.shutdown(1)
    sock.watch_read(True)
    d.sleep(1)
    assert sock.got == b"x"
    assert sock.read_line() == b""
    with pytest.raises(EOFError):
        sock.read_exactly(1)


class Hooked(Both):
    __slots__ = ("hups",)

    def event_hup(self):
        self.hups += 1


@pytest.mark.parametrize("call", ["read_line", "write_all"])
def test_a_task_that_took_over_is_spared_the_hang_up_hook_and_finds_the_end_by_reading(loop, pair, call):
    sock, far = pair(Hooked)
    sock.hups = 0
    sock.watch_read(True)
    far.send(b"callbacks")
    d.sleep(1)
    sock.watch_read(False)
    far.send(b"task\n")

    def work():
        if call == "read_line":
            sock.read_line()
        else:
            sock.write_all(b"hello")
        d.sleep(10)
        return sock.hups, sock.closed, sock.read_to_end()

    task = d.spawn(work)
    d.sleep(1)
    far.hang_up()
    task.join()
    assert task.result() == (0, False, b"" if call == "read_line" else b"task\n")
    assert sock.got == b"callbacks"


def test_writes_of_both_styles_leave_in_the_order_of_the_calls(loop, pair):
    sock, far = pair(Both, capacity=5)

    def work():
        sock.write_all(b"1111")
        sock.write(b"2222")
        sock.write_all(b"3333")

    task = d.spawn(work)
    task.join()
    sock.write(b"4444")
    sock.write_soon(b"5555")
    got = b""
    for _ in range(10):
        d.sleep(1)
        try:
            got += far.recv(100)
        except BlockingIOError:
            pass
    assert got == b"11112222333344445555"


# -- segments of one byte, over real sockets


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX], ids=["tcp", "unix"])
def test_segments_of_one_byte(real_loop, tcp_pair, unix_pair, family):
    near, far = tcp_pair() if family == socket.AF_INET else unix_pair()
    if family == socket.AF_INET:
        far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock = Both(near)
    data = b"first\nsecond\ncall-backs\nthird\nlast"
    lines = []
    sock.size, sock.stop_after = 3, len(b"call-backs\n")

    def first():
        lines.extend([sock.read_line(), sock.read_until(b"nd\n")])
        sock.watch_read(True)

    def second():
        sock.push_back_read(sock.got[len(b"call-backs\n") :])
        sock.got = sock.got[: len(b"call-backs\n")]
        lines.append(sock.read_line())
        lines.append(sock.read_to_end())

    tasks = [d.spawn(first)]
    sock.on_enough = lambda: tasks.append(d.spawn(second))
    for n in range(len(data)):
        far.send(data[n : n + 1])
        d.sleep(0)
    far.shutdown(socket.SHUT_WR)
    while tasks:
        tasks.pop(0).join(5)
        d.sleep(0)
    assert lines == [b"first\n", b"second\n", b"third\n", b"last"]
    assert sock.got == b"call-backs\n"


# -- any hand-over, at any point, however the bytes arrive


class Relay(d.Socket):
    """Reads in legs, each in one style; a leg begins where the one before it ended."""

    __slots__ = ("at_work", "got", "leg", "legs", "tasks")

    def begin(self, legs):
        self.legs, self.got, self.at_work, self.tasks = iter(legs), b"", True, []
        self.next_leg()

    def next_leg(self):
        self.leg = next(self.legs, ("the rest", 0, 0))
        style, size, _ = self.leg
        if style == "callbacks":
            self.watch_read(True)
        else:
            self.watch_read(False)
            self.tasks.append(d.spawn(self.read_as_task, style, size))

    def event_read(self):
        _, size, back = self.leg
        data = self.read(size)
        if data is None:
            self.at_work = False
            self.watch_read(False)
            return
        if back and len(data) > 1:
            self.push_back_read(data[1:])
            data = data[:1]
        self.got += data
        self.next_leg()

    def read_as_task(self, style, size):
        try:
            if style == "exactly":
                self.got += self.read_exactly(size)
            elif style == "line":
                self.got += self.read_line()
            elif style == "some":
                self.got += self.read_some(size)
            else:
                self.got += self.read_to_end()
                self.at_work = False
                return
        except EOFError as error:
            self.got += error.partial
        self.next_leg()


legs = st.lists(
    st.one_of(
        st.tuples(st.just("callbacks"), st.integers(1, 6), st.booleans()),
        st.tuples(st.sampled_from(["exactly", "line", "some"]), st.integers(1, 6), st.just(False)),
    ),
    max_size=25,
)
pieces = st.lists(st.binary(min_size=1, max_size=8).map(lambda data: data.replace(b"\0", b"\n")), max_size=12)
pauses = st.lists(st.sampled_from([None, 0, 1]), min_size=12, max_size=12)
ends = st.sampled_from(["shutdown", "close", "hang_up"])


@settings(thorough, max_examples=200)
@given(legs, pieces, pauses, st.lists(st.one_of(st.integers(1, 4), st.just(BLOCK)), max_size=20), ends)
def test_at_any_hand_over_no_byte_is_lost_doubled_or_reordered(loop, pair, legs, pieces, pauses, short_reads, end):
    sock, far = pair(Relay)
    sock.sock.reads.extend(short_reads)
    sock.begin(legs)
    for piece, pause in zip(pieces, pauses, strict=False):
        far.send(piece)
        if pause is not None:
            d.sleep(pause)
    far.shutdown(1) if end == "shutdown" else getattr(far, end)()
    for _ in range(100):
        if not sock.at_work or sock.closed:  # by event_hup, between a callback and the task that it has spawned
            break
        d.sleep(1)
    d.sleep(1)
    assert not sock.at_work or sock.close_reason == "the peer hung up"
    assert sock.got == b"".join(pieces)
    assert all(task.done for task in sock.tasks)
    sock.close()


@settings(thorough, max_examples=60)
@given(st.binary(min_size=2, max_size=40), st.data())
def test_a_task_cancelled_at_any_point_hands_over_to_a_callback(loop, pair, data, random):
    sock, far = pair(Both)
    cut = random.draw(st.integers(0, len(data)))
    task = d.spawn(sock.read_exactly, len(data) + 1)
    d.sleep(0)
    far.send(data[:cut])
    d.sleep(random.draw(st.sampled_from([0, 1])))
    task.cancel()
    sock.watch_read(True)
    far.send(data[cut:])
    d.sleep(1)
    assert sock.got == data
    sock.close()
