"""Profiling: what is measured, by class and event, and that it costs nothing while off."""

import pytest

from dangagreen import Socket


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
