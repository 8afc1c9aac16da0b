"""The virtual clock: time passes only when nothing else can happen, and then straight to the next deadline."""

from __future__ import annotations

import socket

import pytest

import dangagreen as d
from dangagreen.loop.pollers import READ, WRITE
from dangagreen.testing import StalledError, VirtualClock, VirtualPoller, wire


class Reader(d.Socket):
    __slots__ = ("got",)

    def __init__(self, sock):
        super().__init__(sock)
        self.got = []
        self.watch_read(True)

    def event_read(self):
        data = self.read(100)
        if data is None:
            self.close()
        else:
            self.got.append((data, self.loop.clock()))


def test_the_clock_tells_the_time_and_jumps():
    clock = VirtualClock(5.0)
    assert clock() == 5.0
    clock.jump(2.5)
    clock.jump(0)
    assert clock() == clock.now == 7.5
    with pytest.raises(ValueError, match="negative"):
        clock.jump(-1)
    assert clock() == 7.5


def test_a_year_takes_no_time(loop):
    d.sleep(365 * 24 * 3600)
    assert loop.clock() == 1000 + 365 * 24 * 3600


def test_it_jumps_to_each_deadline_in_turn_and_no_further(loop):
    fired = []
    for seconds in (3, 1, 2, 1):
        loop.add_timer(seconds, lambda: fired.append(loop.clock()))
    d.sleep(2.5)
    assert fired == [1001, 1001, 1002]
    assert loop.clock() == 1002.5
    d.sleep(1)
    assert fired[3:] == [1003]


def test_no_time_passes_while_anything_can_happen(loop, wires):
    near, far = wires()
    sock = Reader(near)
    near.reads.extend([1] * 20)
    loop.add_timer(1, lambda: None)
    far.send(b"x" * 20)
    d.sleep(1)
    assert sock.got == [(b"x", 1000.0)] * 20


def test_a_sleep_takes_one_turn(loop):
    before = loop.poller.waits
    d.sleep(100)
    assert loop.poller.waits - before == 1


def test_the_clock_may_be_moved_by_the_test(loop):
    fired = []
    loop.add_timer(10, lambda: fired.append(loop.clock()))
    loop.clock.jump(60)
    d.sleep(0)
    assert fired == [1060]


def test_nothing_can_happen_is_an_error_not_a_hang(loop, wires):
    loop.poller.patience = 0
    near, _ = wires()
    sock = d.Socket(near)
    with pytest.raises(StalledError):
        sock.read_line()


def test_real_sockets_of_this_process_are_heard_before_time_passes(loop, unix_pair):
    near, far = unix_pair()
    sock = Reader(near)
    loop.add_timer(5, lambda: far.send(b"in time"))
    d.sleep(10)
    assert sock.got == [(b"in time", 1005.0)]


def test_a_real_fd_without_a_deadline_is_granted_patience(loop, unix_pair):
    near, far = unix_pair()
    sock = d.Socket(near)
    task = d.spawn(sock.read_line)
    loop.call_soon(far.send, b"line\n")
    task.join()
    assert task.result() == b"line\n"
    assert loop.clock() == 1000


def test_the_loop_timeout_is_a_deadline_too(loop):
    loop.loop_timeout = 0.25
    turns = iter(range(4))
    loop.run(lambda: next(turns, None) is None)
    assert loop.clock() == 1000 + 5 * 0.25
    loop.loop_timeout = None


def test_the_poller_keeps_the_promises_of_a_poller(poller_class):
    real_ends = socket.socketpair()
    poller = VirtualPoller(real=poller_class())
    near, far = wire()
    for end in (near, real_ends[0]):
        fd = end.fileno()
        poller.add(fd, 0)
        with pytest.raises(OSError):
            poller.add(fd, READ)
        assert poller.wait(0) == []
        poller.modify(fd, WRITE)
        assert poller.wait(0) == [(fd, WRITE)]
        poller.modify(fd, READ | WRITE)
        (far if end is near else real_ends[1]).send(b"x")
        assert poller.wait(None) == [(fd, READ | WRITE)]
        poller.remove(fd)
        assert poller.wait(0) == []
        for change in (lambda fd=fd: poller.modify(fd, READ), lambda fd=fd: poller.remove(fd)):
            with pytest.raises((OSError, KeyError)):
                change()
    poller.close()
    for end in real_ends:
        end.close()


def test_two_virtual_loops_have_clocks_of_their_own(loop):
    other = VirtualPoller()
    other.wait(5)
    assert other.clock() == 1005
    assert loop.clock() == 1000
    other.close()
