"""Profiling: what is measured, by class and event, and that it costs nothing while off."""

import sys

import pytest

import dangagreen as d
from dangagreen import Socket
from dangagreen.sockets.kernel import passed_through
from tests.connections import Echo


class Spinner(Socket):
    """Burns some processor time in its hooks."""

    __slots__ = ("calls",)

    def __init__(self, sock, loop=None):
        super().__init__(sock, loop)
        self.calls = []

    def burn(self, name):
        self.calls.append(name)
        sum(range(20000))

    def event_read(self):
        self.read(100)
        self.burn("read")

    def event_write(self):
        self.watch_write(False)
        self.burn("write")

    def event_err(self):
        self.burn("err")

    def event_hup(self):
        self.burn("hup")


class Other(Spinner):
    __slots__ = ()


def test_profiling_counts_per_class_and_event(loop, wires, run_turns):
    Socket.enable_profiling()
    (sock, peer), (same_sock, same_peer), (other_sock, other_peer) = (wires() for _ in range(3))
    one, same, other = Spinner(sock), Spinner(same_sock), Other(other_sock)
    for reader in (one, same, other):
        reader.watch_read(True)
    for _ in range(3):
        peer.send(b"x")
        same_peer.send(b"x")
        run_turns(1)
    other.watch_write(True)
    run_turns(1)
    other_peer.reset()
    run_turns(3)
    data = Socket.profiling_data()
    assert {name: row[2] for name, row in data.items()} == {
        "Spinner-read": 6,
        "Other-read": 1,
        "Other-write": 1,
        "Other-err": 1,
        "Other-hup": 1,
    }
    assert one.calls + same.calls == ["read"] * 6


def test_a_row_is_user_seconds_system_seconds_and_calls(loop, wires, run_turns):
    Socket.enable_profiling()
    sock, peer = wires()
    one = Spinner(sock)
    one.watch_read(True)
    for _ in range(200):
        peer.send(b"x")
        run_turns(1)
    user, system, calls = Socket.profiling_data()["Spinner-read"]
    assert calls == 200
    assert 0 < user + system < 20
    assert user >= 0
    assert system >= 0


def test_pushed_back_reads_are_counted(loop, wires, run_turns):
    Socket.enable_profiling()
    one = Spinner(wires()[0])
    one.watch_read(True)
    one.push_back_read(b"x")
    run_turns(1)
    assert Socket.profiling_data()["Spinner-read"][2] == 1


def test_nothing_is_measured_while_it_is_off(loop, wires, run_turns, monkeypatch):
    def forbidden(who):
        raise AssertionError("getrusage was called")

    monkeypatch.setattr("resource.getrusage", forbidden)
    sock, peer = wires()
    one = Spinner(sock)
    one.watch_read(True)
    peer.send(b"x")
    run_turns(2)
    assert one.calls == ["read"]
    assert Socket.profiling_data() == {}


def test_switching_it_off_stops_measuring_and_reset_forgets(loop, wires, run_turns):
    sock, peer = wires()
    Spinner(sock).watch_read(True)
    calls = []
    for switch in (Socket.enable_profiling, Socket.disable_profiling, Socket.enable_profiling):
        switch()
        peer.send(b"x")
        run_turns(1)
        calls.append(Socket.profiling_data()["Spinner-read"][2])
    assert calls == [1, 1, 1]  # to enable it again begins anew
    Socket.reset()
    assert Socket.profiling_data() == {}


def test_a_callback_that_raises_is_counted_reported_and_closed_all_the_same(loop, wires, run_turns, take_errors):
    class Failing(Spinner):
        __slots__ = ()

        def event_read(self):
            raise ZeroDivisionError

    Socket.enable_profiling()
    sock, peer = wires()
    one = Failing(sock)
    one.watch_read(True)
    peer.send(b"x")
    run_turns(2)
    assert one.closed
    assert len(take_errors()) == 1
    assert Socket.profiling_data()["Failing-read"][2] == 1


@pytest.mark.parametrize("profiled", [False, True])
def test_events_are_the_same_with_and_without_profiling(profiled, real_loop, unix_pair, run_turns, poller_class):
    if profiled:
        Socket.enable_profiling()
    sock, peer = unix_pair()
    one = Spinner(sock)
    one.watch_read(True)
    one.watch_write(True)
    peer.send(b"x")
    run_turns(2)
    peer.close()
    run_turns(3)
    hup = ["hup"] if poller_class.__name__ != "SelectPoller" else []
    assert one.calls == ["read", "write", "read", *hup]


# -- tasks, functions, time and bytes


def rows():
    return d.current_loop().measurements.rows


@pytest.fixture
def profiling(active_loop):
    Socket.enable_profiling()
    yield
    Socket.disable_profiling()


def test_tasks_and_functions_have_rows_of_their_own(loop, profiling, advance):
    def work():
        for _ in range(3):
            d.sleep(1)

    def timed():
        pass

    first, second = d.spawn(work), d.spawn(work)
    second.name = "another"
    loop.add_timer(1, timed)
    loop.call_soon(timed)
    advance(5)
    place = work.__qualname__.removesuffix("work")
    calls = {name: row.calls for name, row in rows().items()}
    assert calls == {
        f"{first.name}-task": 4,
        "another-task": 4,
        f"{place}timed-timer": 1,
        f"{place}timed-call_soon": 1,
        "advance.<locals>.advance.<locals>.<lambda>-timer": 1,
    }


def test_what_runs_within_a_callback_is_not_counted_twice(real_loop, profiling, monkeypatch):
    """The handler of a request is started by `event_read`; what it takes is not the callback's."""
    clock = [0.0]
    monkeypatch.setattr("dangagreen.loop.profiling.perf_counter", lambda: clock[0])

    def request(sock):
        sock.read_line()
        clock[0] += 5
        sock.write_all(b"done\n")

    def main():
        with d.connect(d.serve_requests(("127.0.0.1", 0), request).address) as sock:
            sock.write_all(b"go\n")
            sock.read_line()

    d.run(main)
    seconds = {name: row.seconds for name, row in rows().items()}
    assert seconds.pop(f"{request.__qualname__}-task") == 5
    assert seconds[f"{request.__qualname__}-read"] == 0
    assert set(seconds.values()) == {0}


def test_requests_of_servers_without_a_class_have_a_row_for_each_handler(real_loop, profiling):
    def first(sock):
        sock.write_all(sock.read_line())

    def second(sock):
        sock.write_all(sock.read_line())

    def main():
        for handler in first, second:
            with d.connect(d.serve_requests(("127.0.0.1", 0), handler).address) as sock:
                sock.write_all(b"go\n")
                sock.read_line()

    d.run(main)
    assert {f"{first.__qualname__}-read", f"{second.__qualname__}-read"} < rows().keys()
    assert "Socket-read" not in rows()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel does not tell")
def test_bytes_by_class_and_by_task(real_loop, profiling, monkeypatch):
    monkeypatch.setattr("dangagreen.loop.profiling._passed_through", passed_through)  # as introspect does

    def handler(sock):
        for line in sock:
            sock.write_all(line * 2)

    def main():
        callbacks, tasks = d.serve(("127.0.0.1", 0), Echo), d.serve(("127.0.0.1", 0), handler)
        for server, size in (callbacks, 6), (tasks, 12):
            with d.connect(server.address) as sock:
                for _ in range(3):
                    sock.write_all(b"12345\n")
                    sock.read_exactly(size)

    d.run(main)
    seen = rows()
    assert (seen["Echo-read"].bytes_in, seen["Echo-read"].bytes_out) == (18, 18)
    (task,) = (row for name, row in seen.items() if name.endswith("handler-task"))
    assert task.bytes_in == 18
    assert task.bytes_out <= 36


def test_danga_s_form_has_three_figures(loop, profiling, run_turns):
    loop.call_soon(int)
    run_turns(1)
    assert [len(row) for row in d.Socket.profiling_data().values()] == [3]
