"""What a loop has done and is doing, as families of metrics, whatever exports them."""

import sys

import pytest

import dangagreen as d
from dangagreen.metrics import LoopMetrics
from dangagreen.metrics.counts import BUCKETS, FAMILIES
from tests.certificates import server_context
from tests.connections import Echo, for_ever


def value(metrics, name, *labels):
    """The value of these labels, in the family of this name; 0 if there is none."""
    (family,) = (one for one in FAMILIES if one.name == name)
    return family.read(metrics).get(labels, 0)


@pytest.fixture
def metrics(active_loop):
    return LoopMetrics(active_loop)


def test_turns_and_waits(loop, metrics, advance):
    def works():
        loop.clock.jump(0.02)

    loop.add_timer(1, works)
    advance(3)
    assert value(metrics, "turns") == loop.turns == 2
    assert value(metrics, "wait") == pytest.approx(2.98)
    assert metrics.worked == pytest.approx(0.02)
    assert sum(metrics.buckets) == 2
    assert metrics.buckets[BUCKETS.index(0.025)] == 1


def test_tasks(loop, metrics, run_turns):
    def fails():
        raise ZeroDivisionError

    tasks = [d.spawn(d.sleep, 100), d.spawn(int), d.spawn(fails), d.spawn(d.sleep, 100)]
    loop.on_error = lambda context: None
    assert value(metrics, "tasks", "new") == 4
    run_turns(1)
    assert value(metrics, "tasks", "parked") == 2
    tasks[0].cancel()
    run_turns(1)
    assert value(metrics, "tasks_spawned") == 4
    outcomes = [value(metrics, "tasks_ended", outcome) for outcome in ("returned", "raised", "cancelled")]
    assert outcomes == [1, 1, 1]
    assert value(metrics, "errors") == 1
    tasks[3].cancel()
    run_turns(1)
    assert value(metrics, "tasks", "parked") == 0


def test_connections_and_listeners(real_loop, metrics):
    def main():
        server = d.serve(("127.0.0.1", 0), Echo, max_connections=5)
        label = f"127.0.0.1:{server.address[1]}"
        with d.connect(server.address) as one, d.connect(server.address) as two:
            for sock in (one, two):
                sock.write_all(b"x\n")
                sock.read_line()
            assert value(metrics, "connections", "Echo", "open") == 2
            assert value(metrics, "connections", "Socket", "open") == 2
            assert value(metrics, "listener_accepted", label) == 2
            assert value(metrics, "listener_connections", label) == 2
            assert value(metrics, "listener_limit", label) == 5
        assert value(metrics, "connections_closed", "Socket") == 2

    d.run(main)
    assert value(metrics, "connections_accepted", "Echo") == 2
    assert value(metrics, "connections_closed", "Echo") == 2
    assert value(metrics, "connections", "Echo", "open") == 0


def test_a_listener_without_a_limit_has_none(real_loop, metrics):
    with d.serve(("127.0.0.1", 0), Echo):
        (family,) = (one for one in FAMILIES if one.name == "listener_limit")
        assert family.read(metrics) == {}


def test_ipv6_and_unix_addresses_are_labels(real_loop, metrics, tmp_path):
    path = str(tmp_path / "socket")
    with d.serve([("::1", 0), path], Echo) as server:
        (family,) = (one for one in FAMILIES if one.name == "listener_accepted")
        assert list(family.read(metrics)) == [(f"[::1]:{server.address[1]}, {path}",)]


def test_bytes_in_queues(loop, metrics, pair):
    sock = pair(capacity=10)[0]
    sock.write(b"x" * 100)
    assert value(metrics, "unsent") == sock.unsent == 90
    other = pair()[0]
    other.push_back_read(b"abc")
    assert value(metrics, "unread") == 3


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel does not tell")
def test_bytes_that_have_passed_through(real_loop, metrics):
    def main():
        server = d.serve(("127.0.0.1", 0), Echo)
        with d.connect(server.address) as sock:
            sock.write_all(b"12345\n")
            sock.read_line()
            assert value(metrics, "received", "Echo") == value(metrics, "sent", "Echo") == 6
        with d.connect(server.address) as sock:
            sock.write_all(b"1234567\n")
            sock.read_line()
            assert value(metrics, "received", "Echo") == value(metrics, "sent", "Socket") == 14

    d.run(main)
    assert value(metrics, "received", "Echo") == value(metrics, "received", "Socket") == 14
    assert value(metrics, "sent", "Echo") == value(metrics, "sent", "Socket") == 14


def test_bytes_never_go_down(loop, metrics):
    metrics.gone[0]["Echo"] = 10
    assert value(metrics, "received", "Echo") == 10
    metrics.gone[0]["Echo"] = 7  # as if one had closed between two looks of another thread
    assert value(metrics, "received", "Echo") == 10


def test_refused_handshakes(real_loop, metrics):
    def main():
        server = d.serve(("127.0.0.1", 0), Echo, tls=server_context())
        with d.connect(server.address) as sock:
            sock.write_all(b"no TLS\n" * 3)
            sock.read_to_end(1000)
        return value(metrics, "listener_refused", f"127.0.0.1:{server.address[1]}")

    assert d.run(main) == 1


def test_queues_and_timers(loop, metrics):
    loop.call_soon(print)
    d.spawn(int)
    timer = loop.add_timer(5, print)
    assert [value(metrics, name) for name in ("queued_calls", "queued_tasks", "timers")] == [1, 1, 1]
    timer.cancel()
    loop.reset()


def test_slow_ones(loop, metrics, advance):
    loop.slow_seconds, loop.on_slow = 0.5, lambda report: None
    loop.add_timer(1, lambda: loop.clock.jump(1))
    advance(5)
    assert value(metrics, "slow") == 1


def test_it_is_read_in_another_thread(real_loop, metrics, in_thread):
    def main():
        with d.serve(("127.0.0.1", 0), for_ever) as server, d.connect(server.address):
            d.sleep(0.01)
            return d.in_thread(lambda: {family.name: family.read(metrics) for family in FAMILIES})

    values = d.run(main)
    assert values["connections"]["Socket", "open"] == 2


def test_after_cancel_nothing_is_counted(loop, metrics, advance):
    metrics.cancel()
    assert loop.instruments is None
    d.spawn(int)
    advance(1)
    assert value(metrics, "tasks_spawned") == 0


def test_it_is_made_in_the_thread_of_its_loop(loop, in_thread):
    with pytest.raises(d.ForeignThreadError):
        in_thread(LoopMetrics, loop)


def test_names_are_those_of_prometheus_without_prefix_and_suffix():
    for family in FAMILIES:
        assert family.name.islower()
        assert family.name.split("_")[-1] not in ("total", "seconds", "bytes", "count")
        assert family.words.endswith(".")
        assert family.kind in ("counter", "gauge")
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)


def values(metrics, name):
    (family,) = (one for one in FAMILIES if one.name == name)
    return family.read(metrics)


def test_what_has_not_happened_yet_is_there_and_0(loop, metrics):
    assert values(metrics, "tasks_ended") == {("returned",): 0, ("raised",): 0, ("cancelled",): 0}
    assert values(metrics, "tasks") == {("new",): 0, ("ready",): 0, ("parked",): 0}


def test_a_class_of_connections_is_there_in_all_states_from_its_first_to_the_end(real_loop, metrics):
    nothing = {("Echo", "open"): 0, ("Echo", "finishing"): 0, ("Echo", "closed"): 0}

    def of_echo():
        return {labels: number for labels, number in values(metrics, "connections").items() if labels[0] == "Echo"}

    def main():
        server = d.serve(("127.0.0.1", 0), Echo)
        with d.connect(server.address) as sock:
            sock.write_all(b"x\n")
            sock.read_line()
            assert of_echo() == nothing | {("Echo", "open"): 1}
            assert value(metrics, "connections_closed", "Echo") == 0
            assert ("Echo",) in values(metrics, "connections_closed")

    d.run(main)
    assert of_echo() == nothing


def test_closed_connections_that_a_table_keeps_are_counted_until_they_are_freed(real_loop, metrics):
    table = []

    class Listed(Echo):
        __slots__ = ()

        def __init__(self, sock):
            super().__init__(sock)
            table.append(self)

    def main():
        server = d.serve(("127.0.0.1", 0), Listed)
        for _ in range(3):
            with d.connect(server.address) as sock:
                sock.write_all(b"x\n")
                sock.read_line()
        server.drain()

    d.run(main)
    assert value(metrics, "connections", "Listed", "closed") == 3
    table.clear()
    assert value(metrics, "connections", "Listed", "closed") == 0


def test_the_histogram_has_room_for_short_turns_and_for_what_one_asks_for(active_loop):
    metrics = LoopMetrics(active_loop, buckets=[1e-6, 2, 3.5])
    assert metrics.bounds == (1e-6, 2.0, 3.5)
    for seconds in (1e-6, 0.5, 2, 4, 5):
        metrics.add_turn(seconds)
    assert metrics.buckets == [1, 2, 0, 2]
    assert LoopMetrics(active_loop).bounds == BUCKETS
    assert min(BUCKETS) == 50e-6


@pytest.mark.parametrize("buckets", [[], [1, 1], [2, 1], [1, float("inf")]])
def test_bounds_that_do_not_grow_are_refused(active_loop, buckets):
    with pytest.raises(ValueError, match="upper bounds that grow"):
        LoopMetrics(active_loop, buckets=buckets)
    assert active_loop.instruments is None
