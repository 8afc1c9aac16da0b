"""A turn: its order, one batch of events, when a loop ends, and what Ctrl-C leaves in its middle."""

from __future__ import annotations

import socket

import pytest

from dangagreen import Socket, serve
from tests.connections import Collector

# -- one batch of events


def test_every_ready_socket_of_a_batch_is_served_in_one_turn(real_loop, real_pair, run_turns):
    collectors = []
    for number in range(20):
        sock, peer = real_pair()
        collectors.append(Collector(sock))
        collectors[-1].watch_read(True)
        peer.send(b"%d" % number)
    run_turns(1)
    assert [collector.data for collector in collectors] == [b"%d" % number for number in range(20)]


# -- the turn


def test_a_keyboard_interrupt_in_on_error_leaves_no_failed_connection_open(loop, wires, run_turns):
    class Bad(Socket):
        __slots__ = ()

        def event_read(self):
            raise ValueError

    def on_error(_context):
        raise KeyboardInterrupt

    near, far = wires()
    bad = Bad(near)
    bad.watch_read(True)
    far.send(b"x")
    usual, loop.on_error = loop.on_error, on_error
    with pytest.raises(KeyboardInterrupt):
        run_turns(1)
    loop.on_error = usual
    assert bad.closed
    run_turns(1)
    assert loop.descriptor_map() == {}


def test_a_keyboard_interrupt_in_the_making_of_a_connection_leaves_no_half_made_one(real_loop, run_until):
    class Slow(Socket):
        __slots__ = ()

        def __init__(self, sock):
            super().__init__(sock)
            made.append(self)
            raise KeyboardInterrupt

    made = []
    listener = serve(("127.0.0.1", 0), Slow)
    with socket.create_connection(listener.address) as client:
        with pytest.raises(KeyboardInterrupt):
            run_until(lambda: False)
        assert made[0].closed
        client.settimeout(30)
        assert client.recv(1) == b""
    assert list(real_loop.descriptor_map()) == [listener.fd]
    listener.close()


def test_a_keyboard_interrupt_at_the_high_water_mark_leaves_what_was_written_to_be_sent(loop, wires, run_turns):
    class Full(Socket):
        __slots__ = ()
        high_water = low_water = 10

        def on_high_water(self):
            raise KeyboardInterrupt

    near, far = wires()
    full = Full(near)
    full.set_writer_func(near.send)
    with pytest.raises(KeyboardInterrupt):
        full.write(b"x" * 20)
    run_turns(1)
    assert far.recv(100) == b"x" * 20
    assert full.unsent == 0
    full.close()


def test_the_order_of_a_turn(loop, wires, run_turns):
    trace = []

    class Tracer(Collector):
        __slots__ = ("name",)

        def event_read(self):
            trace.append(self.name)
            super().event_read()

    (sock, peer), (pushed_sock, _), (soon_sock, soon_peer), (closing_sock, _) = (wires() for _ in range(4))
    reader, pushed, soon, closing = (Tracer(end) for end in (sock, pushed_sock, soon_sock, closing_sock))
    reader.name, pushed.name = "dispatch", "pushed back"
    reader.watch_read(True)
    pushed.watch_read(True)
    peer.send(b"x")
    pushed.push_back_read(b"y")
    loop.add_timer(0, lambda: trace.append("timer"))
    loop.call_soon(lambda: trace.append("call_soon"))
    soon.set_writer_func(lambda data: trace.append("flush") or soon_sock.send(data))
    soon.write_soon(b"z")
    really_close = closing_sock.close
    closing_sock.close = lambda: trace.append("real close") or really_close()
    loop.call_soon(closing.close)
    loop.post_loop_callback = lambda *_: trace.append("post-loop") or True
    run_turns(1)
    assert trace == ["dispatch", "timer", "call_soon", "pushed back", "flush", "real close", "post-loop"]
    assert soon_peer.recv(10) == b"z"


def test_run_ends_with_the_turn_in_which_stop_was_called_and_can_start_again(loop):
    ran = []
    loop.call_soon(loop.stop)
    loop.call_soon(ran.append, "same turn")
    loop.run()
    assert ran == ["same turn"]
    loop.call_soon(ran.append, "second run")
    loop.call_soon(loop.stop)
    loop.run()
    assert ran == ["same turn", "second run"]


def test_run_within_run_raises(loop):
    errors = []

    def nested():
        try:
            loop.run()
        except RuntimeError as error:
            errors.append(str(error))
        loop.stop()

    loop.call_soon(nested)
    loop.run()
    assert "running already" in errors[0]


def test_a_loop_with_nothing_to_do_but_a_timer_turns_once(loop, advance):
    waits = loop.poller.waits
    advance(3600)
    assert loop.poller.waits - waits <= 2


def test_a_socket_closed_by_a_post_loop_callback_is_really_closed_without_waiting_for_an_event(loop, wires, advance):
    sock, _ = wires()
    one = Collector(sock)
    closed_at = []
    really_close = sock.close
    sock.close = lambda: closed_at.append(loop.time()) or really_close()
    start = loop.time()
    loop.post_loop_callback = lambda *_: one.close() or True
    advance(100)
    assert closed_at == [start]


def test_a_socket_made_before_the_loop_runs_learns_of_a_hang_up_though_it_watches_nothing(loop, wires, advance):
    sock, peer = wires()
    one = Collector(sock)
    peer.hang_up()
    hung_up_at = []
    loop.add_timer(50, lambda: hung_up_at.append(one.closed))
    advance(100)
    assert hung_up_at == [True]
    assert one.close_reason == "the peer hung up"


# -- the loop's timeout


def test_a_loop_timeout_is_the_longest_that_a_turn_waits(loop):
    Socket.set_loop_timeout(250)
    start, turns = loop.time(), iter(range(10))
    loop.run(lambda: next(turns, None) is None)
    assert loop.time() - start == pytest.approx(11 * 0.25)


def test_a_loop_timeout_of_zero_does_not_wait(loop):
    Socket.set_loop_timeout(0)
    timer = loop.add_timer(100, lambda: None)
    start, turns = loop.time(), iter(range(10))
    loop.run(lambda: next(turns, None) is None)
    assert loop.time() == start
    timer.cancel()


def test_a_loop_timeout_of_minus_one_waits_without_limit(loop):
    Socket.set_loop_timeout(0)
    Socket.set_loop_timeout(-1)
    waits, fired = loop.poller.waits, []
    loop.add_timer(100, lambda: fired.append(loop.time()))
    loop.run(lambda: bool(fired))
    assert loop.poller.waits - waits == 1


def test_a_loop_timeout_beyond_the_next_timer_does_not_delay_it(loop):
    Socket.set_loop_timeout(60_000)
    start, fired = loop.time(), []
    loop.add_timer(1, lambda: fired.append(loop.time() - start))
    loop.run(lambda: bool(fired))
    assert fired == [1]


def test_a_loop_timeout_on_every_real_poller(real_loop):
    Socket.set_loop_timeout(2)
    start, turns = real_loop.time(), iter(range(4))
    real_loop.run(lambda: next(turns, None) is None)
    assert 0.01 <= real_loop.time() - start < 1
