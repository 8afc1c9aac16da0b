"""Since when a connection waits for its peer: what counts as idle time, and what does not."""

from dangagreen.loop.timers import Timers
from tests.connections import Server


class Idle(Server):
    __slots__ = ()
    idle_timeout = 10


def test_input_begins_the_idle_time_anew(loop, wires, advance):
    sock, peer = wires()
    one = Idle(sock)
    one.watch_read(True)
    for _ in range(20):
        advance(6)
        peer.send(b"x")
    advance(0.1)
    assert not one.closed
    advance(9.8)
    assert not one.closed
    advance(0.2)
    assert one.closed
    assert one.data == b"x" * 20


def test_a_handlers_own_work_does_not_count_as_idle(loop, wires, advance):
    sock, _ = wires()
    one = Idle(sock)
    one.watch_read(True)
    advance(5)
    one.watch_read(False)
    advance(100)
    assert not one.closed
    one.watch_read(True)
    advance(9.9)
    assert not one.closed
    advance(0.2)
    assert one.closed


def test_a_thousand_reads_cost_one_timer(loop, wires, run_turns, monkeypatch):
    sock, peer = wires()
    one = Idle(sock)
    one.watch_read(True)
    added = []

    class Counting(Timers):
        def add(self, *arguments):
            added.append(arguments)
            return super().add(*arguments)

    timers, counting = loop.timers, Counting(loop)
    counting.share(timers)
    monkeypatch.setattr(loop, "timers", counting)
    for _ in range(1000):
        peer.send(b"x")
        run_turns(1)
    monkeypatch.setattr(loop, "timers", timers)
    assert one.data == b"x" * 1000
    assert added == []
    assert len(timers) == 1


def test_no_timeout_means_no_timer(loop, wires):
    Server(wires()[0])
    assert len(loop.timers) == 0


def test_work_that_computes_does_not_count_as_idle(loop, wires, advance):
    """Though no turn of the loop comes in between."""

    class Slow(Idle):
        __slots__ = ()

        def event_read(self):
            super().event_read()
            self.loop.clock.jump(15)

    sock, peer = wires()
    one = Slow(sock)
    one.watch_read(True)
    peer.send(b"x")
    advance(9)
    assert not one.closed
    one.push_back_read(b"y")
    advance(1)  # and 15 of its own
    advance(8.9)
    assert not one.closed
    advance(2)
    assert one.closed


def test_time_before_a_reply_gets_stuck_does_not_count_as_idle(loop, wires, advance):
    sock, peer = wires(10)
    one = Idle(sock)
    advance(19.9)
    one.write(b"x" * 20)
    advance(1)
    assert not one.closed
    assert peer.recv(100) == b"x" * 10
    advance(9)
    assert peer.recv(100) == b"x" * 10
    assert not one.closed
    one.write(b"x" * 20)
    advance(10.1)
    assert one.closed
