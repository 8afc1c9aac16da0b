"""send_file, write_file: by sendfile(2), or in pieces by a thread; turns, back-pressure, cancellation, short files."""

from __future__ import annotations

import contextlib
import errno
import gc
import gzip
import io
import itertools
import os
import random
import socket
import tempfile
import threading

import pytest

import dangagreen as d
from dangagreen.streams import files
from tests.connections import reset, tcp_ends
from tests.helpers import attempt

SIZE = 700_000  # more than a connection's kernels hold, of which the fixtures below give little


class Near(d.Socket):
    """Its queue is soon full."""

    __slots__ = ()
    high_water = 8192
    low_water = 2048


@pytest.fixture
def content():
    return random.Random(7).randbytes(SIZE)


@pytest.fixture
def file(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    with open(path, "rb") as opened:
        yield opened


@pytest.fixture
def real_ends(real_loop, peers):
    """A function: (our socket, its peer) over TCP or a Unix pair, with small buffers."""
    real_loop.loop_timeout = 0.001  # the peer goes on in each turn, and wakes nobody

    def make(kind="tcp"):
        near, far = tcp_ends(buffers=16384) if kind == "tcp" else socket.socketpair()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        far.setblocking(False)
        peers.extend((near, far))
        return Near(near), far

    yield make
    for thread in threading.enumerate():
        while thread.name == "send_file":  # it reads for a call that was given up, and closes the file then
            thread.join(0.01)


class Taker:
    """The peer: reads when it is told to, a step for each turn."""

    def __init__(self, far):
        self.far, self.got, self.ended = far, bytearray(), False

    def step(self):
        with contextlib.suppress(BlockingIOError):
            data = self.far.recv(30_000)
            self.got += data
            self.ended = not data

    def has(self, size):
        def has():
            self.step()
            return len(self.got) >= size or self.ended

        return has


@pytest.fixture
def calls(monkeypatch):
    """The sizes that sendfile(2) was asked for."""
    sizes = []
    sendfile = os.sendfile

    def counted(out, source, offset, count):
        sizes.append(count)
        return sendfile(out, source, offset, count)

    monkeypatch.setattr(os, "sendfile", counted)
    return sizes


def buffered(sock):
    """Have a socket send its files in pieces."""
    os_socket = sock.sock
    sock.set_writer_func(lambda data: os_socket.send(data))


WAYS = {"directly": lambda sock: None, "in pieces": buffered}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


# -- all of it


@ways
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_file_is_sent_whole_and_its_position_left_alone(kind, way, real_ends, run_until, file, content, calls):
    sock, far = real_ends(kind)
    way(sock)
    file.seek(17)
    task = d.spawn(sock.send_file, file)
    taker = Taker(far)
    run_until(taker.has(SIZE))
    run_until(lambda: task.done)
    assert taker.got == content
    assert task.result() == SIZE
    assert file.tell() == 17
    assert sock.sent_of_file == 0
    assert bool(calls) == (way is not buffered)
    assert all(size <= 256 * 1024 for size in calls)


@ways
@pytest.mark.parametrize(
    ("offset", "count", "begin", "end"),
    [(0, 10, 0, 10), (5, 10, 5, 15), (SIZE - 3, None, SIZE - 3, SIZE), (SIZE, None, 0, 0), (SIZE + 5, None, 0, 0)],
)
def test_a_part_of_a_file(offset, count, begin, end, way, real_ends, run_until, file, content):
    sock, far = real_ends()
    way(sock)
    task = d.spawn(sock.send_file, file, offset, count)
    run_until(lambda: task.done)
    assert task.result() == end - begin
    taker = Taker(far)
    run_until(taker.has(end - begin))
    assert taker.got == content[begin:end]


def test_a_small_file_is_sent_without_a_wait(real_ends, run_turns, file, content):
    sock, far = real_ends()
    parks = []

    def send():
        task = d.current_task()
        to_hub = task.to_hub
        task.to_hub = lambda: parks.append(task.waits_for) or to_hub()
        return sock.send_file(file, 0, 1000)

    task = d.spawn(send)
    run_turns(2)
    assert task.result() == 1000
    assert parks == []
    assert far.recv(2000) == content[:1000]


def test_more_than_two_gigabytes_go_in_portions(real_ends, run_until, tmp_path, monkeypatch):
    """The file has a hole, and sendfile is made to swallow it."""
    path = tmp_path / "large"
    with open(path, "wb") as large:
        large.truncate(5 << 30)
    sizes, offsets = [], []

    def sendfile(out, source, offset, count):
        sizes.append(count)
        offsets.append(offset)
        return count

    monkeypatch.setattr(os, "sendfile", sendfile)
    monkeypatch.setattr(files, "_AT_ONCE", 1 << 28)
    sock, _ = real_ends()
    with open(path, "rb") as large:
        task = d.spawn(sock.send_file, large)
        run_until(lambda: task.done)
    assert task.result() == 5 << 30
    assert set(sizes) == {1 << 28}
    assert offsets == list(range(0, 5 << 30, 1 << 28))


def test_others_have_their_turn_while_a_fast_peer_takes_a_large_file(real_ends, run_until, tmp_path, monkeypatch):
    turns = []
    monkeypatch.setattr(os, "sendfile", lambda out, source, offset, count: turns.append(sock.loop.now) or count)
    sock, _ = real_ends()
    path = tmp_path / "large"
    with open(path, "wb") as large:
        large.truncate(50 << 20)
    ticks = []

    def tick():
        ticks.append(len(turns))
        if not task.done:
            sock.loop.call_soon(tick)

    with open(path, "rb") as large:
        task = d.spawn(sock.send_file, large)
        sock.loop.call_soon(tick)
        run_until(lambda: task.done)
    assert max(after - before for before, after in itertools.pairwise(ticks)) <= 2


# -- files without a descriptor, and what is no file


def no_file(content):
    return io.BytesIO(content)


def compressed(content):
    return gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(content, 1)))


def temporary(content):
    file = tempfile.NamedTemporaryFile()  # noqa: SIM115
    file.write(content)
    file.flush()
    return file


def spooled(content):
    file = tempfile.SpooledTemporaryFile(max_size=1 << 24)  # noqa: SIM115
    file.write(content)
    return file


@pytest.mark.parametrize("make", [no_file, compressed, temporary, spooled], ids=lambda make: make.__name__)
@pytest.mark.parametrize("count", [None, 20_000])
def test_what_has_no_descriptor_of_its_own_is_read(count, make, real_ends, run_until, content):
    """A GzipFile has one, of the compressed file."""
    content = content[:100_000]
    sock, far = real_ends()
    with make(content) as source:
        before = source.tell()
        task = d.spawn(sock.send_file, source, 10, count)
        taker = Taker(far)
        size = 99_990 if count is None else count
        run_until(taker.has(size))
        run_until(lambda: task.done)
        assert task.result() == size
        assert taker.got == content[10 : 10 + size]
        assert source.tell() == before


def test_over_a_wire(pair, wait_for, content):
    sock, far = pair(Near, 5000)
    task = d.spawn(sock.send_file, io.BytesIO(content[:40_000]))
    taker = Taker(far)
    wait_for(taker.has(40_000))
    wait_for(lambda: task.done)
    assert taker.got == content[:40_000]


def test_what_is_no_regular_file_is_refused(pair, wait_for, tmp_path):
    sock, far = pair()
    read, write = os.pipe()
    (tmp_path / "text").write_text("text")
    with (
        open(read, "rb") as pipe,
        open(write, "wb"),
        open(tmp_path / "text") as text,
        open("/dev/zero", "rb") as device,
        open(tmp_path / "output", "wb") as output,
    ):
        cases = [
            (pipe, ValueError, "regular files"),
            (device, ValueError, "regular files"),
            (output, io.UnsupportedOperation, "for writing only"),
            (text, TypeError, "binary mode"),
            (io.StringIO("text"), TypeError, "binary mode"),
            (b"bytes", TypeError, "a file"),
            ("path", TypeError, "a file"),
            (3, TypeError, "a file"),
        ]
        for wrong, kind, words in cases:
            task = d.spawn(attempt, sock.send_file, wrong)
            wait_for(lambda task=task: task.done)
            assert type(task.result()) is kind
            assert words in str(task.result())
    assert far.events(1) == 0


def test_a_closed_file_is_refused(pair, wait_for, tmp_path):
    sock, _ = pair()
    (tmp_path / "file").write_bytes(b"x")
    for source in (open(tmp_path / "file", "rb"), io.BytesIO(b"x")):  # noqa: SIM115
        source.close()
        task = d.spawn(attempt, sock.send_file, source)
        wait_for(lambda task=task: task.done)
        assert type(task.result()) is ValueError
    assert not sock.closed


def test_a_file_that_is_read_as_text_is_refused(pair, wait_for):
    class Text:
        def read(self, size):
            return "text"

        def seek(self, offset):
            return offset

        def tell(self):
            return 0

    sock, _ = pair()
    task = d.spawn(attempt, sock.send_file, Text())
    wait_for(lambda: task.done)
    assert type(task.result()) is TypeError
    assert "read as str" in str(task.result())


@pytest.mark.parametrize("number", ["EINVAL", "EOPNOTSUPP"])
def test_where_the_file_system_has_no_sendfile_pieces_are_read(
    number, real_ends, run_until, file, content, monkeypatch
):
    def refuses(*_args):
        raise OSError(getattr(errno, number), number)

    monkeypatch.setattr(os, "sendfile", refuses)
    sock, far = real_ends()
    task = d.spawn(sock.send_file, file)
    taker = Taker(far)
    run_until(taker.has(SIZE))
    run_until(lambda: task.done)
    assert task.result() == SIZE
    assert taker.got == content


# -- errors


def by_send_file(sock, *file):
    """Begin to send it: a function that answers the error, None while there is none."""
    task = d.spawn(attempt, sock.send_file, *file)
    return lambda: task.result() if task.done else None


def by_write_file(sock, *file):
    refused = attempt(sock.write_file, *file)
    if isinstance(refused, Exception):
        return lambda: refused
    sock.write(b"never")  # it is dropped with the connection
    return lambda: sock.close_reason


each_call = pytest.mark.parametrize("call", [by_send_file, by_write_file], ids=lambda call: call.__name__)


@each_call
@ways
def test_a_file_that_is_too_short_is_refused_before_a_byte_is_sent(call, way, real_ends, run_until, run_turns, file):
    sock, far = real_ends()
    way(sock)
    error_of = call(sock, file, 10, SIZE)
    run_until(error_of)
    error = error_of()
    assert isinstance(error, d.ShortFileError)
    assert isinstance(error, EOFError)
    assert error.sent == 0
    assert f"has {SIZE - 10} bytes from the offset on, and {SIZE} were to be sent" in str(error)
    sock.write(b"an answer all the same")
    run_turns(2)
    assert far.recv(100) == b"an answer all the same"


@each_call
@ways
def test_a_file_that_shrinks_is_an_error_and_no_hang(call, way, real_ends, run_until, run_turns, file, content):
    sock, far = real_ends()
    way(sock)
    error_of = call(sock, file)
    run_turns(20)
    assert error_of() is None
    os.truncate(file.name, SIZE // 2)
    taker = Taker(far)
    run_until(lambda: taker.step() or error_of())
    error = error_of()
    assert isinstance(error, d.ShortFileError)
    assert 0 < error.sent < SIZE
    assert sock.closed == (call is by_write_file)  # the caller of `send_file` does that
    if not sock.closed:
        assert sock.sent_of_file == error.sent
        sock.close()
    run_until(taker.has(SIZE))
    assert taker.ended
    assert taker.got == content[: error.sent]


@ways
def test_an_error_of_the_file_costs_no_connection(way, real_ends, run_until, file, monkeypatch):
    def fails(*_args):
        raise OSError(errno.EIO, "the disk is broken")

    monkeypatch.setattr(os, "sendfile", fails)
    monkeypatch.setattr(os, "pread", fails)
    sock, far = real_ends()
    way(sock)
    task = d.spawn(attempt, sock.send_file, file)
    run_until(lambda: task.done)
    assert task.result().errno == errno.EIO
    sock.write(b"still there")
    taker = Taker(far)
    run_until(taker.has(11))
    assert taker.got == b"still there"


@ways
def test_a_reset_ends_it(way, real_ends, run_until, run_turns, file):
    sock, far = real_ends()
    way(sock)
    task = d.spawn(attempt, sock.send_file, file)
    run_turns(20)
    reset(far)
    run_until(lambda: task.done)
    assert isinstance(task.result(), ConnectionError)
    assert 0 < sock.sent_of_file < SIZE
    sock.close()


@ways
def test_a_close_ends_it(way, real_ends, run_until, run_turns, file):
    sock, _ = real_ends()
    way(sock)
    task = d.spawn(attempt, sock.send_file, file)
    run_turns(20)
    sock.close("enough")
    run_until(lambda: task.done)
    assert isinstance(task.result(), d.ClosedError)
    assert task.result().reason == "enough"


def test_after_the_end_nothing_is_sent(pair, wait_for):
    for end in ("close", "finish", "write_eof"):
        sock, _ = pair()
        getattr(sock, end)()
        task = d.spawn(attempt, sock.send_file, io.BytesIO(b"x"))
        wait_for(lambda task=task: task.done)
        assert isinstance(task.result(), d.ClosedError)


def test_a_file_that_is_closed_meanwhile_is_sent_all_the_same(real_ends, run_until, run_turns, file, content, tmp_path):
    """Its descriptor's number may be another file's by then."""
    sock, far = real_ends()
    task = d.spawn(sock.send_file, file)
    run_turns(5)
    number = file.fileno()
    file.close()
    (tmp_path / "secret").write_bytes(b"secret" * SIZE)
    with open(tmp_path / "secret", "rb") as secret:
        assert secret.fileno() == number
        taker = Taker(far)
        run_until(taker.has(SIZE))
    run_until(lambda: task.done)
    assert taker.got == content


# -- its turn


@pytest.mark.in_order
@ways
def test_it_has_its_turn_and_others_have_theirs_after_it(way, real_ends, run_until, run_turns, file, content):
    sock, far = real_ends()
    way(sock)
    head, tail = b"h" * 300_000, b"t" * 300_000
    tasks = [
        d.spawn(sock.write_all, head),
        d.spawn(sock.send_file, file),
        d.spawn(sock.write_all, tail),
        d.spawn(sock.send_file, file, 0, 10),
        d.spawn(sock.write_all, b"!"),
    ]
    run_turns(20)
    assert not any(task.done for task in tasks[1:])
    taker = Taker(far)
    everything = head + content + tail + content[:10] + b"!"
    run_until(taker.has(len(everything)))
    run_until(lambda: all(task.done for task in tasks))
    assert taker.got == everything


@ways
def test_what_is_written_while_a_file_is_sent_comes_after_it(way, real_ends, run_until, run_turns, file, content):
    sock, far = real_ends()
    way(sock)
    task = d.spawn(sock.send_file, file)
    run_turns(10)
    sock.write(b"by a callback, ")
    other = d.spawn(sock.write_all, b"by a task")
    run_turns(5)
    taker = Taker(far)
    run_until(taker.has(SIZE + 24))
    assert taker.got == content + b"by a callback, by a task"
    run_until(lambda: task.done and other.done)


@ways
def test_drain_and_finish_wait_for_the_file(way, real_ends, run_until, run_turns, file, content):
    sock, far = real_ends()
    way(sock)
    task = d.spawn(sock.send_file, file)
    run_turns(10)
    drain = d.spawn(sock.drain)
    run_turns(5)
    sock.finish()
    run_turns(5)
    assert not drain.done
    taker = Taker(far)
    run_until(taker.has(SIZE + 1))
    assert taker.got == content
    assert taker.ended
    run_until(lambda: task.done and drain.done)
    far.close()
    run_until(lambda: sock.closed)


@ways
def test_only_one_piece_is_in_memory_and_another_writer_waits(way, real_ends, run_turns, run_until, file):
    sock, far = real_ends()
    way(sock)
    task = d.spawn(sock.send_file, file)
    run_turns(30)
    assert sock.unsent <= 8192
    others = [d.spawn(sock.write_all, b"x" * 6000) for _ in range(4)]
    run_turns(5)
    assert [other.done for other in others].count(True) <= 2
    taker = Taker(far)
    run_until(taker.has(SIZE + 24_000))
    run_until(lambda: task.done and all(other.done for other in others))


@ways
def test_steal_socket_is_refused_meanwhile(way, real_ends, run_turns, run_until, file):
    sock, far = real_ends()
    way(sock)
    task = d.spawn(sock.send_file, file)
    run_turns(10)
    with pytest.raises(d.BusyError):
        sock.steal_socket()
    taker = Taker(far)
    run_until(taker.has(SIZE))
    run_until(lambda: task.done)


# -- cancellation, progress, limits


@ways
@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 9, 30])
def test_a_cancelled_one_has_sent_a_prefix_and_can_be_gone_on_with(
    turns, way, real_ends, run_turns, run_until, file, content
):
    sock, far = real_ends()
    way(sock)
    descriptors = len(os.listdir("/dev/fd"))
    task = d.spawn(sock.send_file, file)
    run_turns(turns)
    task.cancel()
    run_until(lambda: task.done)
    sent = sock.sent_of_file
    assert sent < SIZE
    again = d.spawn(sock.send_file, file, sent)
    taker = Taker(far)
    run_until(taker.has(SIZE))
    run_until(lambda: again.done)
    assert again.result() == SIZE - sent
    assert taker.got == content
    run_until(lambda: len(os.listdir("/dev/fd")) == descriptors)  # a thread may still have been reading


@ways
def test_a_cancelled_one_that_waits_for_its_turn_sends_nothing(way, real_ends, run_turns, run_until, file):
    sock, far = real_ends()
    way(sock)
    first = d.spawn(sock.write_all, b"x" * 500_000)
    run_turns(5)
    sock.watch_write(False)
    task = d.spawn(sock.send_file, file)
    run_turns(5)
    task.cancel()
    run_until(lambda: task.done)
    assert sock.sent_of_file == 0
    after = d.spawn(sock.write_all, b"!")
    taker = Taker(far)
    run_until(taker.has(500_001))
    assert taker.got == b"x" * 500_000 + b"!"
    run_until(lambda: first.done and after.done)


def test_a_cancellation_does_not_wait_for_a_slow_disk(real_ends, run_until, file, monkeypatch):
    going, stop = threading.Event(), threading.Event()
    pread = os.pread

    def slow(*args):
        going.set()
        stop.wait(30)
        return pread(*args)

    monkeypatch.setattr(os, "pread", slow)
    sock, far = real_ends()
    buffered(sock)
    task = d.spawn(sock.send_file, file)
    run_until(going.is_set)
    file.close()
    task.cancel()
    run_until(lambda: task.done)
    sock.write(b"after it")
    taker = Taker(far)
    run_until(taker.has(8))
    assert taker.got == b"after it"
    descriptors = len(os.listdir("/dev/fd"))
    stop.set()
    run_until(lambda: len(os.listdir("/dev/fd")) < descriptors)  # the thread's duplicate


@ways
def test_progress(way, real_ends, run_turns, run_until, file):
    sock, far = real_ends()
    way(sock)
    task = d.spawn(sock.send_file, file)
    seen, taker = [], Taker(far)

    def step():
        taker.step()
        seen.append(sock.sent_of_file)
        return task.done

    run_until(step)
    assert len(set(seen)) > 3
    assert seen[:-1] == sorted(seen[:-1])


class Impatient(Near):
    __slots__ = ()
    idle_timeout = 0.3


@ways
def test_a_peer_that_takes_nothing_is_idle(way, real_loop, peers, run_until, file):
    near, far = socket.socketpair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
    peers.extend((near, far))
    real_loop.loop_timeout = 0.001
    real_loop.clock = clock = SkippingClock(real_loop.clock)
    sock = Impatient(near)
    way(sock)
    task = d.spawn(attempt, sock.send_file, file)

    def ended():
        clock.ahead += 0.02
        return task.done

    run_until(ended)
    assert "idle for 0.3 s" in str(task.result())


def test_a_slow_disk_is_no_idle_peer(real_loop, peers, run_until, file, content, monkeypatch):
    near, far = socket.socketpair()
    peers.extend((near, far))
    sock = Impatient(near)
    buffered(sock)
    real_loop.loop_timeout = 0.001
    real_loop.clock = clock = SkippingClock(real_loop.clock)
    pread = os.pread

    def slow(*args):
        clock.ahead += 10.0
        return pread(*args)

    monkeypatch.setattr(os, "pread", slow)
    task = d.spawn(sock.send_file, file, 0, 100_000)
    far.setblocking(False)
    taker = Taker(far)
    run_until(taker.has(100_000))
    run_until(lambda: task.done)
    assert taker.got == content[:100_000]


class SkippingClock:
    """A real clock that is put on."""

    def __init__(self, clock):
        self.clock, self.ahead = clock, 0.0

    def __call__(self):
        return self.clock() + self.ahead


def test_a_file_that_was_sent_leaves_nothing_behind(pair, wait_for):
    gc.collect()
    others = len(files._progress)
    sock, far = pair()
    task = d.spawn(sock.send_file, io.BytesIO(b"x" * 10))
    wait_for(lambda: task.done)
    assert len(files._progress) == others
    assert far.recv(20) == b"x" * 10


def test_a_connection_that_was_cut_short_is_forgotten_with_its_object(pair, wait_for):
    gc.collect()
    others = len(files._progress)
    sock, _ = pair(Near, 0)
    task = d.spawn(attempt, sock.send_file, io.BytesIO(b"x" * 10))
    wait_for(lambda task=task: task.waits_for)
    task.cancel()
    wait_for(lambda task=task: task.done)
    assert len(files._progress) == others + 1
    sock.close()
    wait_for(lambda loop=sock.loop: not loop.to_close)
    del sock, task
    wait_for(lambda: gc.collect() is not None and len(files._progress) <= others)


# -- write_file: nobody waits


@ways
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_write_file_has_its_turn_in_the_order_of_writes(kind, way, real_ends, run_until, file, content, calls):
    sock, far = real_ends(kind)
    way(sock)
    file.seek(17)
    told = []
    sock.write(b"head")
    assert sock.write_file(file) is False
    sock.write(b"between")
    sock.write_file(file, 5, 10)
    sock.write(lambda: told.append(taker.step()))
    sock.write(b"tail")
    assert file.tell() == 17
    file.close()
    taker = Taker(far)
    everything = b"head" + content + b"between" + content[5:15] + b"tail"
    run_until(taker.has(len(everything)))
    assert taker.got == everything
    assert len(told) == 1
    assert sock.sent_of_file == 0
    assert bool(calls) == (way is not buffered)


@ways
def test_write_file_leaves_no_descriptor_and_closing_drops_it(way, real_ends, run_until, run_turns, file):
    sock, _ = real_ends()
    way(sock)
    descriptors = len(os.listdir("/dev/fd"))
    sock.write_file(file)
    run_turns(10)
    sock.close()
    run_until(lambda: len(os.listdir("/dev/fd")) == descriptors - 1)
    assert sock.write_file(file) is True


def test_write_file_of_little_is_sent_at_once(real_ends, file, content, calls):
    sock, far = real_ends()
    descriptors = len(os.listdir("/dev/fd"))
    assert sock.write_file(file, 0, 1000) is True
    assert sock.write_file(file, SIZE) is True
    assert (calls, len(os.listdir("/dev/fd"))) == ([1000], descriptors)
    assert far.recv(2000) == content[:1000]


@ways
def test_write_file_that_cannot_be_read_closes_the_connection(way, real_ends, run_until, file, monkeypatch):
    def fails(*_args):
        raise OSError(errno.EIO, "the disk is broken")

    monkeypatch.setattr(os, "sendfile", fails)
    monkeypatch.setattr(os, "pread", fails)
    sock, _ = real_ends()
    way(sock)
    sock.write_file(file)
    run_until(lambda: sock.closed)
    assert sock.close_reason.errno == errno.EIO


def test_write_file_that_is_read_as_text_closes_the_connection(pair, wait_for):
    class Text(io.BytesIO):
        def read(self, size):
            return "text"

    sock, _ = pair()
    sock.write_file(Text())
    wait_for(lambda: sock.closed)
    assert "write_file: " in str(sock.close_reason)
    assert "read as str" in str(sock.close_reason)


@ways
def test_finish_waits_for_write_file(way, real_ends, run_until, run_turns, file, content):
    sock, far = real_ends()
    way(sock)
    sock.write_file(file)
    sock.finish()
    run_turns(5)
    taker = Taker(far)
    run_until(taker.has(SIZE + 1))
    assert taker.got == content
    assert taker.ended
    far.close()
    run_until(lambda: sock.closed)


@ways
def test_write_file_and_send_file_take_turns(way, real_ends, run_until, file, content):
    sock, far = real_ends()
    way(sock)
    sock.write_file(file)
    task = d.spawn(sock.send_file, file, 0, 10)
    taker = Taker(far)
    run_until(taker.has(SIZE + 10))
    run_until(lambda: task.done)
    assert taker.got == content + content[:10]
