"""Many tasks that write to one socket: as many go on as there is room for, in order, and none is forgotten."""

from __future__ import annotations

from random import Random

import pytest

import dangagreen as d
from dangagreen.streams import writing


class Small(d.Socket):
    __slots__ = ()
    high_water = 1000
    low_water = 200


class Bounded(Small):
    __slots__ = ()
    max_unsent = 1500


@pytest.fixture
def full(wires):
    """A socket above its high-water mark, and the peer's end."""
    sock, peer = wires(100)
    one = Small(sock)
    one.write(bytes(1101))
    return one, peer


def take(peer, run_turns, size=100):
    """The peer reads so much, and the socket sends more."""
    data = peer.recv(size)
    run_turns(2)
    return data


@pytest.mark.in_order
def test_as_many_are_woken_as_there_is_room_for(loop, full, run_turns, monkeypatch):
    one, peer = full
    woken = []
    original = writing.wake
    monkeypatch.setattr(writing, "wake", lambda task, *error: woken.append(task) or original(task, *error))
    tasks = [d.spawn(one.write_all, b"%03d" % number + bytes(97)) for number in range(200)]
    run_turns(5)
    received = b""
    while not all(task.done for task in tasks) or one.unsent:
        received += take(peer, run_turns)
    received += peer.recv(100)
    assert [int(received[at : at + 3]) for at in range(1101, len(received), 100)] == list(range(200))
    assert len(woken) <= 2 * 200  # rather than 200 times each time there is room
    assert one._drain_waiters is None


@pytest.mark.parametrize("how", ["cancelled", "hook"])
def test_room_that_a_woken_task_does_not_use_is_for_the_next(loop, wires, run_turns, how, take_errors):
    class Hooked(Small):
        __slots__ = ()
        low_water = 900

        def on_high_water(self):
            if d.current_task() is not None and d.current_task().name == "bad":
                raise KeyError("hook")

    sock, peer = wires(100)
    one = Hooked(sock)
    one.write(bytes(1101))
    bad = d.spawn(one.write_all, bytes(950))
    bad.name = "bad"
    good = d.spawn(one.write_all, b"good")
    run_turns(2)
    assert good.wait is bad.wait is not None
    if how == "cancelled":
        bad.cancel()
        run_turns(2)
    while one.unsent or not (good.done and bad.done):
        take(peer, run_turns)
    assert good.done
    assert bad.done
    if how == "hook":
        (context,) = take_errors()
        assert repr(context.exception) == "KeyError('hook')"


@pytest.mark.parametrize("end", ["close", "finish", "write_eof", "reset", "error"])
def test_none_waits_for_ever_for_a_socket_that_ends(loop, full, run_turns, end, advance):
    one, peer = full
    errors = []

    def write():
        try:
            one.write_all(bytes(500))
        except OSError as error:
            errors.append(error)

    def drain():
        try:
            one.drain()
        except OSError as error:
            errors.append(error)

    tasks = [d.spawn(work) for _ in range(30) for work in (write, drain)]
    run_turns(3)
    if end == "reset":
        peer.reset()
    elif end == "error":
        one.sock.writes.append(OSError(32, "Broken pipe"))
        peer.recv(100)
    else:
        getattr(one, end)()
    for _ in range(40):
        try:
            peer.recv(100)
        except OSError:
            pass
        run_turns(2)
    assert all(task.done for task in tasks)
    assert len(errors) >= 30
    one.close()


@pytest.mark.parametrize("seed", range(30))
def test_whatever_comes_in_between_everybody_goes_on(loop, wires, run_turns, seed):
    random = Random(seed)
    sock, peer = wires(random.choice([50, 1000]))
    one = random.choice([Small, Bounded])(sock)
    written = []
    tasks = []

    def write(number):
        data = b"%04d" % number + bytes(random.choice([1, 100, 600, 1400]))
        one.write_all(data)
        written.append(data)

    received = b""
    for number in range(150):
        step = random.random()
        if step < 0.6:
            tasks.append(d.spawn(write, number))
        elif step < 0.7:
            tasks.append(d.spawn(one.drain))
        elif step < 0.8 and tasks:
            random.choice(tasks).cancel()
        else:
            try:
                received += peer.recv(random.randrange(1, 2000))
            except BlockingIOError:
                pass
            run_turns(random.randrange(3))
    for _ in range(10_000):
        if all(task.done for task in tasks) and one._queue is None:
            break
        try:
            received += peer.recv(10_000)
        except BlockingIOError:
            pass
        run_turns(1)
    assert all(task.done for task in tasks)
    try:
        received += peer.recv(10_000)
    except BlockingIOError:
        pass
    assert received == b"".join(written)
    one.close()
