"""Slow callbacks and tasks are named: which one, its socket or task, its place in the program, how long."""

from __future__ import annotations

import contextlib
import functools
import gc
import math
import socket
import time

import pytest

import dangagreen as d
from dangagreen.loop.error_log import MOST, SECONDS
from dangagreen.loop.slowness import SlowReport
from tests.certificates import secured
from tests.programs import run_python


@pytest.fixture
def reports(loop):
    """What `on_slow` is given, on a loop whose limit is 0.1 s."""
    reports = []
    loop.slow_seconds = 0.1
    loop.on_slow = reports.append
    return reports


def line_of(function, offset=0):
    return f"{__file__}:{function.__code__.co_firstlineno + offset}"


def test_the_default():
    code, out, _ = run_python("-c", "import dangagreen; print(dangagreen.current_loop().slow_seconds)")
    assert (code, out) == (0, "0.1\n")


def test_none_is_never():
    with d.Loop() as loop:
        loop.slow_seconds = None
        assert loop.slow_seconds is None
        loop.slow_seconds = math.inf
        assert loop.slow_seconds is None
        loop.slow_seconds = 2
        assert loop.slow_seconds == 2


def test_a_virtual_loop_takes_no_jump_for_slow_code(loop):
    assert loop.slow_seconds is None


def test_what_is_no_function_is_refused(loop):
    with pytest.raises(TypeError, match=r"on_slow"):
        loop.on_slow = 3


@pytest.mark.in_order
def test_one_slow_callback_among_quick_ones_of_one_turn_is_the_one_that_is_named(loop, wires, reports, run_until):
    class Peer(d.Socket):
        __slots__ = ("seconds",)

        def event_read(self):
            self.read(100)
            loop.clock.jump(self.seconds)

    ends = []
    for seconds in (0.0, 0.01, 0.3, 0.0, 0.09, 0.0):
        ours, theirs = wires()
        peer = Peer(ours)
        peer.seconds = seconds
        peer.watch_read(True)
        ends.append((peer, theirs))
    for _, theirs in ends:
        theirs.send(b"x")
    run_until(lambda: not any(peer.buffered for peer, _ in ends), turns=3)
    (report,) = reports
    assert report.subject is ends[2][0]
    assert report.place == line_of(Peer.event_read)
    assert report.seconds == pytest.approx(0.3)
    peer = ends[2][0].peer_addr_string()
    assert report.what == f"event_read of Peer, the connection with {peer},"
    assert str(report) == f"{report.what} held up the loop for 0.300 s: {report.place}"
    for peer, theirs in ends:
        peer.close()
        theirs.close()


def test_what_is_quick_one_by_one_is_not_slow_together(loop, reports):
    for _ in range(60):
        loop.call_soon(loop.clock.jump, 0.09)
    loop.call_soon(loop.stop)
    loop.run()
    assert reports == []


def test_a_call_and_a_timer(loop, reports):
    def slow():
        loop.clock.jump(0.2)

    loop.call_soon(slow)
    loop.add_timer(1, slow)
    loop.add_timer(2, loop.stop)
    loop.run()
    assert [(report.what, report.place, report.subject) for report in reports] == [
        (f"the call_soon callback {slow.__qualname__}", line_of(slow), None),
        (f"the timer's callback {slow.__qualname__}", line_of(slow), None),
    ]


def test_a_task_is_named_with_the_line_where_it_waits_now(loop, reports):
    def work():
        d.sleep(1)
        loop.clock.jump(0.5)
        d.sleep(1)

    task = d.spawn(work)
    task.join()
    (report,) = reports
    assert report.subject is task
    assert report.what == f"task {work.__qualname__!r}, before it waited in sleep,"
    assert report.place == line_of(work, 3)


def test_a_task_that_has_ended_is_named_with_where_it_was_spawned(loop, reports):
    def work():
        d.sleep(1)
        loop.clock.jump(0.5)

    task = d.spawn(work)
    task.join()
    (report,) = reports
    assert report.what == f"task {work.__qualname__!r}, before it ended,"
    assert report.place == task.spawned_at


def test_a_task_that_never_waits(loop, reports):
    def work():
        loop.clock.jump(0.5)

    task = d.spawn(work)
    task.join()
    (report,) = reports
    assert (report.what, report.place) == (f"task {work.__qualname__!r}, before it ended,", task.spawned_at)


def test_a_task_that_is_woken_by_an_error(loop, reports):
    def work():
        try:
            d.sleep(100)
        except d.Cancelled:
            loop.clock.jump(0.5)
            raise

    task = d.spawn(work)
    d.sleep(0)
    task.cancel()
    task.join()
    (report,) = reports
    assert report.what == f"task {work.__qualname__!r}, before it ended,"


@pytest.mark.parametrize("ends", [True, False])
def test_a_handler_on_its_connection(loop, wires, reports, ends):
    ours, theirs = wires()
    sock = d.Socket(ours)

    def handler():
        sock.read_exactly(1)
        loop.clock.jump(0.5)
        if not ends:
            with contextlib.suppress(d.ClosedError):
                sock.read_exactly(1)

    task = d.spawn(handler)
    d.sleep(0)
    theirs.send(b"x")
    d.sleep(1)
    sock.close()
    theirs.close()
    task.join()
    (report,) = reports
    assert report.subject is task
    before = "it ended" if ends else "it waited in read_exactly"
    peer = sock.peer_addr_string()
    assert report.what == f"task {handler.__qualname__!r}, before {before}, on the connection with {peer},"
    assert report.place == (task.spawned_at if ends else line_of(handler, 5))


def test_the_handler_of_a_request_is_named_not_our_event_read(real_loop):
    reports = []
    real_loop.on_slow = reports.append
    real_loop.slow_seconds = 0.0  # all that runs is slow

    def handler(sock):
        sock.write_all(sock.read_line())

    with d.serve_requests(("127.0.0.1", 0), handler) as listener, d.connect(listener.address) as sock:
        sock.write_all(b"x\n")
        assert sock.read_line() == b"x\n"
    assert line_of(handler) in [report.place for report in reports]
    real_loop.slow_seconds = None


def test_the_end_of_what_a_closed_socket_held(loop, wires, reports):
    class Slow:
        def __del__(self):
            loop.clock.jump(0.5)

    class Holder(d.Socket):
        __slots__ = ("held",)

    ours, theirs = wires()
    holder = Holder(ours)
    holder.held = Slow()
    loop.call_soon(holder.close)
    del holder
    d.sleep(1)
    gc.collect()
    (report,) = reports
    assert report.seconds == pytest.approx(0.5)
    assert report.what == f"closing a socket, and a __del__ perhaps, of class {Holder.__qualname__}"
    assert report.place == Holder.__qualname__
    theirs.close()


def test_of_several_sockets_that_are_closed_at_once_the_first_and_how_many(loop, wires, reports):
    class Slow:
        def __del__(self):
            loop.clock.jump(0.2)

    class Holder(d.Socket):
        __slots__ = ("held",)

        def __init__(self, sock):
            super().__init__(sock)
            self.held = Slow()

    def close_them(holders):
        while holders:
            holders.pop().close()

    ends = [wires() for _ in range(2)]
    loop.call_soon(close_them, [Holder(ours) for ours, _ in ends])
    d.sleep(1)
    gc.collect()
    (report,) = reports
    assert report.what == f"closing 2 sockets, and a __del__ perhaps, the first of class {Holder.__qualname__}"
    assert report.place == line_of(Holder.__init__)
    for _, theirs in ends:
        theirs.close()


@pytest.mark.parametrize("further", [False, True])
def test_a_server_s_class_that_is_slow_to_make_by_its_name_not_the_acceptor_s(real_loop, further):
    reports = []

    class Peer(d.Socket):
        def __init__(self, *args):
            real_loop.slow_seconds = 0.0  # from now on all that ends is slow
            super().__init__(args[-1])

        def event_read(self):
            self.close()

    handler = functools.partial(Peer, 1) if further else Peer
    real_loop.on_slow = reports.append
    with d.serve(("127.0.0.1", 0), handler) as listener, d.connect(listener.address):
        while not reports:
            d.sleep(0)
    real_loop.slow_seconds = None
    (report,) = [report for report in reports if "Acceptor" in report.what]
    assert report.what == f"event_read of Acceptor, which makes {Peer.__qualname__},"
    assert report.place == line_of(Peer.__init__)


def test_a_listener_s_own_function_with_what_it_was_given(real_loop):
    class Rude:
        def __repr__(self):
            raise ValueError("no")

    def made(_rude, sock, _listener):
        real_loop.slow_seconds = 0.0
        sock.close()

    reports = []
    real_loop.on_slow = reports.append
    listening = socket.create_server(("127.0.0.1", 0))
    with d.Listener(listening, functools.partial(made, Rude())) as listener, d.connect(listener.address):
        while not reports:
            d.sleep(0)
    real_loop.slow_seconds = None
    (report,) = [report for report in reports if "Acceptor" in report.what]
    assert report.what == f"event_read of Acceptor, which calls {made.__qualname__},"
    assert report.place == line_of(made)


def test_a_function_in_c_by_its_module(real_loop):
    reports = []
    real_loop.on_slow = reports.append
    real_loop.slow_seconds = 0.0
    real_loop.call_soon(time.sleep, 0)
    d.sleep(0.001)
    real_loop.slow_seconds = None
    assert ("the call_soon callback time.sleep", "time.sleep") in [(report.what, report.place) for report in reports]


def test_a_writer_function(loop, wires, reports):
    ours, theirs = wires()
    sock = d.Socket(ours)

    def later():
        loop.clock.jump(0.5)

    def write():
        sock.write_soon(b"x")
        sock.write(later)

    loop.call_soon(write)
    d.sleep(1)
    assert [report.seconds for report in reports] == [pytest.approx(0.5)]
    sock.close()
    theirs.close()


def test_pushed_back_input(loop, wires, reports):
    class Peer(d.Socket):
        __slots__ = ("calls",)

        def event_read(self):
            self.calls += 1
            data = self.read(100)
            if self.calls == 1:
                self.push_back_read(data)
            else:
                loop.clock.jump(0.5)

    ours, theirs = wires()
    peer = Peer(ours)
    peer.calls = 0
    peer.watch_read(True)
    theirs.send(b"x")
    d.sleep(1)
    (report,) = reports
    assert (report.subject, report.place) == (peer, line_of(Peer.event_read))
    peer.close()
    theirs.close()


def test_post_loop_callbacks(loop, reports):
    def slow(*_maps):
        loop.clock.jump(0.5)
        return False

    loop.post_loop_callback = slow
    loop.call_soon(int)  # so that there is a turn
    loop.run()
    (report,) = reports
    assert (report.what, report.place) == (f"the post-loop callback {slow.__qualname__}", line_of(slow))


def test_the_slowest_of_the_last_turn_that_had_any(loop, reports):
    assert loop.slow_in_turn is None
    for seconds in (0.2, 0.4, 0.3):
        loop.call_soon(loop.clock.jump, seconds)
    d.sleep(0)
    (turn, slowest) = loop.slow_in_turn
    assert turn == loop.turns
    assert slowest.seconds == pytest.approx(0.4)
    loop.call_soon(loop.clock.jump, 0.2)
    d.sleep(0)
    assert loop.slow_in_turn[0] > turn
    assert loop.slow_in_turn[1].seconds == pytest.approx(0.2)
    assert loop.slowest.seconds == pytest.approx(0.4)


def test_an_fd_of_other_fds_by_its_function(real_loop):
    reports = []
    real_loop.on_slow = reports.append
    ours, theirs = socket.socketpair()

    def readable(_bits):
        ours.recv(1)
        real_loop.stop()

    real_loop.add_other_fds({ours.fileno(): readable})
    real_loop.slow_seconds = 0.0
    theirs.send(b"x")
    real_loop.run()
    real_loop.slow_seconds = None
    assert line_of(readable) in [report.place for report in reports]
    real_loop.remove_other_fd(ours.fileno())
    ours.close()
    theirs.close()


def test_an_on_slow_that_raises_is_reported_and_costs_nothing_else(loop):
    errors = []
    loop.on_error = errors.append
    loop.slow_seconds = 0.1

    def refuse(_report):
        raise ValueError("no")

    loop.on_slow = refuse
    done = []
    loop.call_soon(loop.clock.jump, 0.5)
    loop.call_soon(done.append, 1)
    loop.call_soon(loop.stop)
    loop.run()
    assert done == [1]
    (context,) = errors
    assert "on_slow raised" in context.message


def test_the_log_has_a_line_for_each_and_counts_a_flood(loop, caplog):
    loop.slow_seconds = 0.1

    def slow():
        loop.clock.jump(0.11)

    for _ in range(MOST + 5):
        loop.call_soon(slow)
    loop.call_soon(loop.stop)
    loop.run()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == MOST
    assert lines[0] == f"the call_soon callback {slow.__qualname__} held up the loop for 0.110 s: {line_of(slow)}"
    caplog.clear()
    loop.clock.jump(SECONDS)
    loop.slow_log(SlowReport("another", "elsewhere", 1.0, None))
    assert [record.getMessage() for record in caplog.records] == [
        f"slow at {line_of(slow)}: 5 more of these were left out",
        "another held up the loop for 1.000 s: elsewhere",
    ]


def test_input_that_tls_has_kept_is_that_of_its_socket(loop, wires, peers, reports, run_until):
    class Peer(d.Socket):
        __slots__ = ("calls",)

        def event_read(self):
            self.calls += 1
            self.read(1)
            if self.calls == 3:  # the first one is an event's, and leaves the others to no event
                loop.clock.jump(0.5)

    mine, other = secured(wires())
    peers += mine, other
    peer = Peer(mine)
    mine.attach(peer)
    peer.calls = 0
    peer.watch_read(True)
    other.send(b"1234")
    run_until(lambda: peer.calls == 4)
    (report,) = reports
    assert (report.subject, report.place) == (peer, line_of(Peer.event_read))
    assert report.what == f"event_read of Peer, the connection with {peer.peer_addr_string()},"
