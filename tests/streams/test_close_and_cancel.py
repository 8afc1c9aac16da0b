"""Close and cancel under reading and writing: whoever is parked on a socket is woken once, and told why."""

from __future__ import annotations

import pytest

import dangagreen as d
from tests.connections import READS, WRITES, blocked

# -- close and cancel wake whoever is parked, once


def parked(pair, call):
    """A task that is parked in that call, then sleeps twice; it notes each thing that wakes it, and when."""
    sock, _ = blocked(pair)
    woken = []

    def work():
        for wait in (call, lambda sock: d.sleep(10), lambda sock: d.sleep(10)):
            try:
                wait(sock)
                woken.append("slept")
            except BaseException as error:
                woken.append(error)

    task = d.spawn(work)
    d.sleep(1)
    assert task.waits_for
    assert woken == []
    return sock, task, woken


any_wait = pytest.mark.parametrize("call", [*READS.values(), *WRITES.values()], ids=[*READS, *WRITES])


@any_wait
def test_close_wakes_whoever_is_parked_once_with_the_reason(loop, pair, call):
    sock, task, woken = parked(pair, call)
    sock.close("my reason")
    sock.close("too late")
    task.join()
    error = woken.pop(0)
    assert isinstance(error, d.ClosedError)
    assert error.reason == "my reason"
    assert error.sock is sock
    assert "my reason" in str(error)
    assert woken == ["slept", "slept"]
    assert loop.clock() == 1021


@any_wait
def test_cancel_wakes_whoever_is_parked_with_the_reason(loop, pair, call):
    sock, task, woken = parked(pair, call)
    task.cancel("my reason")
    task.join()
    assert [type(error) for error in woken] == [d.Cancelled] * 3
    assert woken[0].reason == "my reason"
    assert loop.clock() == 1001
    assert not sock.closed


@any_wait
def test_of_close_and_cancel_the_first_counts(loop, pair, call):
    for first in ("close", "cancel"):
        sock, task, woken = parked(pair, call)
        if first == "close":
            sock.close()
        task.cancel()
        sock.close()
        task.join()
        kinds = [type(error) for error in woken]
        assert kinds == [d.ClosedError if first == "close" else d.Cancelled, d.Cancelled, d.Cancelled]


@any_wait
def test_a_task_that_closes_from_another_task_wakes_it(loop, pair, call):
    sock, task, woken = parked(pair, call)
    d.spawn(sock.close, "by another task")
    task.join()
    assert woken[0].reason == "by another task"
    assert woken[1:] == ["slept", "slept"]


@any_wait
def test_every_call_on_a_closed_socket_raises_closed_error_with_the_reason(loop, pair, call):
    sock, far = pair()
    far.send(b"unread\r\n")
    sock.close("my reason")
    with pytest.raises(d.ClosedError, match="my reason"):
        call(sock)


def test_bytes_and_close_in_one_turn_wake_the_reader_once(loop, pair):
    sock, task, woken = parked(pair, READS["read_exactly"])

    def both():
        sock.sock.peer.send(b"12345678")
        sock.close("at once")

    loop.add_timer(1, both)
    task.join()
    assert woken[1:] == ["slept", "slept"]
