"""Idle and lifetime timeouts: when they close, and what a stall of the whole process means."""

import errno

import pytest

from dangagreen import Socket
from tests.connections import Patient, Server


class Idle(Server):
    __slots__ = ()
    idle_timeout = 10


class Mortal(Server):
    __slots__ = ()
    lifetime = 10


def test_an_idle_peer_is_closed_with_a_reason(loop, wires, advance):
    sock, peer = wires()
    one = Idle(sock)
    one.watch_read(True)
    advance(9.9)
    assert not one.closed
    advance(0.2)
    assert one.closed
    assert "idle" in str(one.close_reason)
    assert "10 s" in str(one.close_reason)
    assert peer.recv(1) == b""


def test_a_peer_that_takes_nothing_of_what_is_queued_is_idle(loop, wires, advance):
    sock, _ = wires(10)
    one = Idle(sock)
    one.write(b"x" * 100)
    advance(25)
    assert one.closed


def test_a_peer_that_keeps_taking_what_is_queued_is_not_idle(loop, wires, advance):
    sock, peer = wires(10)
    one = Idle(sock)
    one.watch_read(True)
    one.write(b"x" * 200)
    received = b""
    for _ in range(20):
        advance(3)
        received += peer.recv(10) if peer.events(1) else b""
    assert not one.closed
    assert received == b"x" * 200


def test_a_lifetime_ends_a_busy_connection_too(loop, wires, advance):
    sock, peer = wires()
    one = Mortal(sock)
    one.watch_read(True)
    for _ in range(9):
        peer.send(b"x")
        advance(1)
    assert not one.closed
    advance(1.1)
    assert one.closed
    assert "lifetime" in str(one.close_reason)


def test_a_lifetime_counts_also_while_nothing_is_watched(loop, wires, advance):
    one = Mortal(wires()[0])
    advance(10.1)
    assert one.closed


def test_the_earlier_of_both_limits_counts(loop, wires, advance):
    class Both(Server):
        __slots__ = ()
        idle_timeout = 3
        lifetime = 5

    (idle_sock, _), (busy_sock, busy_peer) = wires(), wires()
    idle, busy = Both(idle_sock), Both(busy_sock)
    for one in (idle, busy):
        one.watch_read(True)
    advance(2)
    busy_peer.send(b"x")
    advance(1.5)
    assert idle.closed
    assert "idle" in str(idle.close_reason)
    assert not busy.closed
    advance(2)
    assert "lifetime" in str(busy.close_reason)


@pytest.mark.parametrize("kind", [Idle, Mortal])
def test_closing_leaves_no_timer_behind(kind, loop, wires):
    one = kind(wires()[0])
    assert len(loop.timers) == 1
    one.close()
    assert len(loop.timers) == 0


@pytest.mark.parametrize("ends", [False, True], ids=["no limit", "finish"])
def test_a_hook_may_change_the_limits_when_a_timeout_looks_for_the_last_time(ends, loop, wires, run_turns):
    """What the kernel had no memory for leaves then, which is no idleness."""

    class Changing(Idle):
        __slots__ = ()
        high_water, low_water = 10, 1

        def on_low_water(self):
            if ends:
                self.finish()
            else:
                self.idle_timeout = None

    sock, peer = wires()
    one = Changing(sock)
    sock.writes.append(OSError(errno.ENOBUFS, "no memory"))
    one.write(b"x" * 20)
    loop.clock.jump(10.1)
    run_turns(1)
    assert peer.recv(100) == b"x" * 20
    assert not one.closed
    assert len(loop.timers) == ends
    one.close()


@pytest.mark.parametrize("name", ["idle_timeout", "lifetime", "linger_seconds"])
@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_times_that_are_none_are_refused_with_the_class(name, seconds):
    with pytest.raises(ValueError, match=rf"Bad.{name} is {seconds}"):
        type("Bad", (Socket,), {name: seconds})


# -- after a stall of the whole process


def test_nobody_who_has_sent_before_a_stall_is_closed_as_idle(loop, wires, run_turns):
    """Of a large batch of events most are dispatched after timers have been looked at."""
    socks = []
    for _ in range(300):
        near, far = wires()
        socks.append((Patient(near), far))
        socks[-1][0].watch_read(True)
    run_turns(1)
    for _, far in socks:
        far.send(b"here")
    loop.clock.jump(5.0)
    run_turns(3)
    assert [sock.close_reason for sock, _ in socks if sock.closed] == []
    assert {sock.got for sock, _ in socks} == {b"here"}


def test_who_has_sent_nothing_before_a_stall_is_closed(loop, wires, run_turns):
    sock = Patient(wires()[0])
    sock.watch_read(True)
    run_turns(1)
    loop.clock.jump(5.0)
    run_turns(2)
    assert sock.close_reason == "the peer was idle for 1.0 s"


def test_who_has_taken_what_was_queued_before_a_stall_is_not_idle(loop, wires, run_turns):
    near, far = wires(100)
    sock = Patient(near)
    sock.write(b"x" * 1000)
    run_turns(1)
    assert sock.unsent
    far.recv(100)
    loop.clock.jump(5.0)
    sock._timer.cancel()
    sock._check_limits()  # before its event
    assert not sock.closed
    assert sock.unsent == 800


def test_a_hook_may_finish_a_connection_when_a_timeout_looks_for_the_last_time(loop, wires, run_turns):
    """Though the peer was idle: it has as long as after any finish()."""

    class Finishing(Idle):
        __slots__ = ()

        def on_incomplete_write(self):
            if self.loop.now > 1010:
                self.finish()

    sock, peer = wires()
    one = Finishing(sock)
    sock.writes += [OSError(errno.ENOBUFS, "no memory"), OSError(errno.ENOBUFS, "no memory")]
    one.write(b"x" * 20)
    loop.clock.jump(10.1)
    run_turns(1)
    assert not one.closed
    loop.clock.jump(0.1)  # and the kernel has memory again
    run_turns(2)
    assert peer.recv(100) == b"x" * 20
    assert peer.recv(100) == b""
    one.close()


@pytest.mark.parametrize("end", ["idle_timeout", "finish"])
def test_a_hook_that_raises_when_a_timeout_looks_for_the_last_time_costs_the_connection(
    end, loop, wires, run_turns, take_errors
):
    class Failing(Idle):
        __slots__ = ()

        def on_incomplete_write(self):
            if self.loop.now > 1010:
                raise ValueError("no")

    sock, _peer = wires()
    one = Failing(sock)
    sock.writes.append(OSError(errno.ENOBUFS, "no memory"))
    one.write(b"x" * 20)
    if end == "finish":
        one.finish()
    loop.clock.jump(10.1)
    sock.writes.append(5)
    run_turns(2)
    assert one.closed
    assert [str(context.exception) for context in take_errors()] == ["no"]
    assert len(loop.timers) == 0
