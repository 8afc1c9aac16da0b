"""Idle timeouts where tasks read, write and select: whose wait counts, and for how long."""

from __future__ import annotations

import pytest

import dangagreen as d

# -- pushing back, and the block


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
