"""Sockets that select waits for: what is ready, who else may read meanwhile, and who gets what is left."""

from __future__ import annotations

import errno
import socket
import threading

import pytest

import dangagreen as d
from dangagreen.testing import BLOCK
from tests.helpers import Box, result_of
from tests.inside import has_reader

# -- select: sockets


class Chatty(d.Socket):
    """In callback style it keeps what comes, and what happens."""

    __slots__ = ("ended", "events", "got")

    def __init__(self, *args):
        super().__init__(*args)
        self.got, self.ended, self.events = b"", False, []

    def event_read(self):
        data = self.read(1000)
        self.events.append(data)
        if data is None:
            self.watch_read(False)
        else:
            self.got += data

    def event_err(self):
        self.events.append("err")
        super().event_err()

    def event_hup(self):
        self.events.append("hup")
        super().event_hup()


def read_all(sock):
    parts = []
    while part := sock.read_some():
        parts.append(part)
    return b"".join(parts)


def test_select_of_a_socket_with_input_reads_nothing(loop, pair):
    sock, far = pair()
    far.send(b"hello\n")
    turns = loop.poller.waits
    assert sock.ready
    assert d.select(Box(), sock) is sock
    assert loop.poller.waits == turns
    assert sock.sock.received == b""
    assert sock.buffered == 0
    assert sock.read_line() == b"hello\n"
    assert not sock.ready


def test_select_parks_until_a_socket_has_input(loop, pair):
    (one, far_one), (other, far_other) = pair(), pair()
    box = Box()
    d.sleep(0.5)  # the kernel has been told that nobody wants to read
    loop.add_timer(2, lambda: far_other.send(b"x"))
    loop.add_timer(9, lambda: far_one.send(b"y"))
    assert d.select(box, one, other) is other
    assert loop.clock() == 1002.5
    assert not has_reader(one)
    assert not has_reader(other)
    assert other.sock.received == b""
    assert other.read_some() == b"x"
    assert d.select(box, one, other) is one
    assert box.undone()


def test_a_socket_with_buffered_input_is_ready(loop, pair):
    sock, far = pair()
    far.send(b"one\ntwo\n")
    assert sock.read_line() == b"one\n"
    assert sock.ready
    assert d.select(sock) is sock
    assert sock.read_line() == b"two\n"
    assert not sock.ready


def test_what_is_pushed_back_wakes_a_select(loop, pair):
    sock, _ = pair()
    loop.add_timer(1, lambda: sock.push_back_read(b"again\n"))
    assert d.select(Box(), sock) is sock
    assert sock.read_line() == b"again\n"


@pytest.mark.parametrize("before", [True, False])
def test_the_end_of_the_stream_is_ready(loop, pair, before):
    sock, far = pair()
    if before:
        far.shutdown(socket.SHUT_WR)
    else:
        loop.add_timer(1, lambda: far.shutdown(socket.SHUT_WR))
    assert d.select(Box(), sock) is sock
    assert sock.read_some() == b""
    sock.sock.recv = None  # the OS need not be asked again
    assert d.select(sock) is sock


@pytest.mark.parametrize("before", [True, False])
def test_a_hang_up_costs_no_bytes(loop, pair, before):
    sock, far = pair()

    def ends():
        far.send(b"the last words")
        far.hang_up()

    ends() if before else loop.add_timer(1, ends)
    assert d.select(Box(), sock) is sock
    d.sleep(1)  # the hang-up is reported in each turn
    assert not sock.closed
    assert read_all(sock) == b"the last words"


def test_a_hang_up_leaves_the_socket_to_the_task(loop, pair):
    """In callback style, with reading off, event_hup would close it."""
    sock, far = pair()
    d.sleep(1)
    loop.add_timer(1, far.hang_up)
    assert d.select(Box(), sock) is sock
    d.sleep(1)
    assert not sock.closed
    assert sock.read_some() == b""


@pytest.mark.parametrize("before", [True, False])
def test_a_broken_connection_is_ready_and_the_read_raises(loop, pair, before):
    sock, far = pair()
    far.reset() if before else loop.add_timer(1, far.reset)
    assert d.select(Box(), sock) is sock
    d.sleep(1)
    assert sock.ready
    for _ in range(2):
        with pytest.raises(ConnectionResetError):
            sock.read_some()


def test_a_socket_closed_meanwhile_is_ready(loop, pair):
    sock, _ = pair()
    box = Box()
    loop.add_timer(1, lambda: sock.close("enough"))
    assert d.select(box, sock) is sock
    assert loop.clock() == 1001
    assert sock.ready
    with pytest.raises(d.ClosedError, match="enough"):
        sock.read_some()
    assert d.select(box, sock) is sock
    assert box.undone()


def test_a_socket_finished_meanwhile_is_ready(loop, pair):
    sock, far = pair()
    loop.add_timer(1, sock.finish)
    assert d.select(Box(), sock) is sock
    assert loop.clock() == 1001
    assert sock.ready
    with pytest.raises(d.ClosedError, match="finish"):
        sock.read_some()
    far.close()
    d.sleep(1)


def test_a_reader_that_is_no_select_still_hears_of_the_close(loop, pair):
    sock, _ = pair()
    reading = d.spawn(sock.read_some)
    d.sleep(1)
    sock.close("enough")
    reading.join()
    with pytest.raises(d.ClosedError, match="enough"):
        reading.result()


def test_nobody_else_may_read_while_a_select_waits(loop, pair):
    sock, far = pair()
    selecting = d.spawn(d.select, sock)
    selecting.name = "the selector"
    d.sleep(1)
    box = Box()
    with pytest.raises(d.BusyError, match="'the selector' is reading"):
        sock.read_line()
    with pytest.raises(d.BusyError, match="'the selector' is reading"):
        d.select(box, sock)
    with pytest.raises(d.BusyError):
        sock.steal_socket()
    assert box.undone()
    assert not selecting.done
    far.send(b"x")
    selecting.join()
    assert sock.read_some() == b"x"


def test_a_select_while_a_task_is_parked_in_a_read(loop, pair):
    sock, far = pair()
    reading = d.spawn(sock.read_line)
    reading.name = "the reader"
    d.sleep(1)
    far.send(b"not for the select\n")
    assert not sock.ready
    box = Box()
    with pytest.raises(d.BusyError, match="'the reader' is reading"):
        d.select(box, sock)
    assert box.undone()
    assert d.select(sock, Box(1)) is not sock
    reading.join()
    assert reading.result() == b"not for the select\n"


def test_a_select_that_is_cancelled_makes_room_for_the_next_reader(loop, pair):
    sock, far = pair()
    selecting = d.spawn(d.select, sock)
    d.sleep(1)
    selecting.cancel()
    assert not has_reader(sock)
    reading = d.spawn(sock.read_line)
    d.sleep(1)
    assert selecting.done
    far.send(b"x\n")
    reading.join()
    assert reading.result() == b"x\n"


@pytest.mark.parametrize("first", ["select", "read"])
@pytest.mark.parametrize("second", ["select", "read"])
def test_who_cancels_a_reader_may_take_its_place_at_once(loop, pair, first, second):
    """The cancelled one has not run yet: when it does, it must not undo what is not its own."""
    sock, far = pair()

    def begin(how):
        return sock.read_some() if how == "read" else d.select(sock)

    def takes_its_place():
        old.cancel()
        begin(second)
        return sock.closed

    old = d.spawn(begin, first)
    d.sleep(1)
    new = d.spawn(takes_its_place)
    d.sleep(1)
    assert old.done
    assert has_reader(sock)
    far.send(b"x")
    assert d.wait([new], timeout=1) == ({new}, set())


def test_a_socket_that_loses_gives_its_input_to_the_next_reader(loop, pair):
    sock, far = pair()
    box = Box()
    loop.add_timer(1, lambda: box.put(1))
    loop.add_timer(2, lambda: far.send(b"x\n"))
    assert d.select(sock, box) is box
    assert sock.read_line() == b"x\n"


def test_select_parks_again_when_somebody_took_the_bytes(loop, pair):
    sock, far = pair()
    selecting = d.spawn(d.select, sock, Box())
    d.sleep(1)
    taken = []
    far.send(b"taken")
    loop.timers.add(1001, lambda: taken.append(sock.read(100)))  # after the event, and before the task has run
    d.sleep(1)
    assert taken == [b"taken"]
    assert not selecting.done
    far.send(b"more")
    selecting.join()
    assert sock.read_some() == b"more"


def test_a_callback_that_finds_the_end_wakes_a_select(loop, pair):
    sock, far = pair()
    selecting = d.spawn(d.select, sock)
    d.sleep(1)
    far.shutdown(socket.SHUT_WR)
    loop.timers.add(1001, lambda: sock.read(10))
    selecting.join()
    assert sock.read_some() == b""


def test_a_readable_event_for_nothing_does_not_end_a_select(loop, pair):
    sock, far = pair()
    selecting = d.spawn(d.select, sock)
    d.sleep(1)
    sock._reader.resume()
    d.sleep(1)
    assert not selecting.done
    assert has_reader(sock)
    far.send(b"x")
    selecting.join()
    assert sock.read_some() == b"x"


def test_select_sends_first_what_the_task_has_written(loop, pair):
    sock, far = pair()

    def asks():
        sock.write_all(b"question")
        return d.select(sock)

    loop.timers.add(1000.5, lambda: far.recv(100) == b"question" and far.send(b"answer"))
    assert result_of(asks) is sock
    assert sock.read_some() == b"answer"


def test_a_socket_closed_by_sending_what_the_task_has_written(loop, pair):
    """The queue is sent when select parks: what that does must wake it."""
    sock, _ = pair()

    def asks():
        sock.write_all(b"question")
        sock.write(lambda: sock.close("by the queue"))
        return d.select(sock, Box())

    assert result_of(asks) is sock
    assert sock.close_reason == "by the queue"


def test_a_waiting_select_counts_as_waiting_for_the_peer(loop, pair):
    class Impatient(d.Socket):
        idle_timeout = 5

    sock, _ = pair(Impatient)
    d.sleep(4)  # its own work does not count
    assert d.select(sock, Box()) is sock
    assert loop.clock() == 1009
    assert "idle" in sock.close_reason


# -- select: sockets in callback style


def test_while_a_select_waits_event_read_is_not_called(loop, pair):
    sock, far = pair(Chatty)
    sock.watch_read(True)
    loop.add_timer(1, lambda: far.send(b"for the select"))
    got = []

    def selects():
        assert d.select(Box(), sock) is sock
        got.append(sock.read(100))

    result_of(selects)
    assert got == [b"for the select"]
    assert sock.got == b""
    far.send(b"for the callback")
    d.sleep(1)
    assert sock.got == b"for the callback"


@pytest.mark.parametrize("winner", ["box", "socket"])
def test_what_a_select_leaves_is_for_event_read(loop, pair, winner):
    sock, far = pair(Chatty)
    sock.watch_read(True)
    box = Box()

    def both():
        far.send(b"left")
        if winner == "box":
            box.put(1)

    loop.add_timer(1, both)
    assert d.select(box, sock) is (box if winner == "box" else sock)
    d.sleep(1)
    assert sock.got == b"left"


def test_what_is_pushed_back_and_left_is_for_event_read(loop, pair):
    sock, _ = pair(Chatty)
    sock.watch_read(True)
    box = Box()

    def both():
        sock.push_back_read(b"left")
        box.put(1)

    loop.add_timer(1, both)
    assert d.select(box, sock) is box
    d.sleep(1)
    assert sock.got == b"left"


def test_a_read_after_a_select_in_callback_style(loop, pair):
    sock, far = pair(Chatty)
    sock.watch_read(True)
    loop.add_timer(1, lambda: far.send(b"line\nrest"))
    lines = []

    def selects():
        d.select(sock)
        lines.append(sock.read_line())

    result_of(selects)
    d.sleep(1)
    assert lines == [b"line\n"]
    assert sock.got == b"rest"


@pytest.mark.parametrize("before", [True, False])
def test_a_hang_up_in_callback_style_comes_after_the_bytes(loop, pair, before):
    sock, far = pair(Chatty)
    sock.watch_read(True)

    def ends():
        far.send(b"last")
        far.hang_up()

    ends() if before else loop.add_timer(1, ends)
    assert d.select(Box(), sock) is sock
    d.sleep(1)
    assert sock.got == b"last"
    assert sock.events == [b"last", None, "hup"]


@pytest.mark.parametrize("before", [True, False])
def test_a_broken_connection_in_callback_style(loop, pair, before):
    """Whoever comes first finds the error: nobody is left without the end."""
    sock, far = pair(Chatty)
    sock.watch_read(True)
    far.reset() if before else loop.add_timer(1, far.reset)
    assert d.select(Box(), sock) is sock
    with pytest.raises(ConnectionResetError):
        sock.read_some()
    d.sleep(1)
    assert sock.closed or None in sock.events


def test_an_error_that_a_select_has_found_ends_callback_style_too(loop, pair):
    """The OS tells it but once, and no event announces it again."""
    sock, _ = pair(Chatty)
    sock.sock._shut_read, sock.sock._error = True, errno.EIO
    sock.watch_read(True)
    assert d.select(Box(), sock) is sock
    sock.watch_write(True)
    sock.watch_write(False)  # whatever makes the interest new: with the end known, it is none in reading
    d.sleep(1)
    assert sock.events == [None, "err"]


# -- select: sockets of the operating system


def test_select_of_real_sockets(real_loop, real_pair):
    (near, far), (near2, far2) = real_pair(), real_pair()
    one, other = d.Socket(near), d.Socket(near2)
    selecting = d.spawn(d.select, one, other)
    d.sleep(0)
    assert not selecting.done
    far2.sendall(b"hello")
    selecting.join(30)
    assert selecting.result() is other
    assert other.read_some() == b"hello"
    far.close()
    assert d.select(one, other) is one
    assert one.read_some() == b""
    one.close()
    other.close()


def test_a_reset_by_a_real_peer(real_loop, tcp_pair):
    near, far = tcp_pair()
    sock = d.Socket(near)
    selecting = d.spawn(d.select, sock)
    d.sleep(0)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    far.close()
    selecting.join(30)
    assert selecting.result() is sock
    assert sock.ready
    with pytest.raises(ConnectionResetError):
        sock.read_some()
    sock.close()


def test_a_select_that_a_thread_ends(real_loop):
    box = Box()
    thread = threading.Timer(0.01, real_loop.call_soon_threadsafe, [box.put, 1])
    thread.start()
    assert d.select(box) is box
    thread.join(30)
    assert box.undone()


# -- fairness


def test_a_socket_that_always_has_input_does_not_starve_the_rest(loop, pair):
    """select need not park on it, and reading what it returned does."""
    sock, far = pair()
    ticks, chunks = [], []

    def flood():
        while len(ticks) < 5:
            far.send(b"x" * 100)
            assert d.select(sock, Box()) is sock
            chunks.append(sock.read_some())
            loop.clock.jump(0.001)

    def ticker():
        for n in range(1, 6):
            d.sleep_until(1000 + n * 0.01)
            ticks.append(loop.clock())

    d.wait([d.spawn(flood), d.spawn(ticker)])
    assert ticks == pytest.approx([1000 + n * 0.01 for n in range(1, 6)], abs=0.0021)
    assert len(chunks) >= 40


def test_a_block_step_is_not_consumed_by_a_look(loop, pair):
    """`ready` asks the OS without using up what a test has scripted for reads."""
    sock, far = pair()
    far.send(b"x")
    sock.sock.reads.append(BLOCK)
    assert sock.ready
    assert list(sock.sock.reads) == [BLOCK]
    assert sock.read_some() == b"x"
