"""The leak check: it names what is left behind, and says nothing when nothing is."""

from __future__ import annotations

import os
import re
import socket

import pytest

import dangagreen as d
from dangagreen.loop.loop import here
from dangagreen.testing import LeakCheck, no_leaks, virtual_loop, wire


@pytest.fixture
def own_loop():
    """A virtual loop that nobody else checks."""
    loop = virtual_loop()
    here.loop = loop
    yield loop
    loop.close()
    here.loop = None


def leak_of(loop, make):
    """What the check says about what `make()` leaves behind."""
    with pytest.raises(AssertionError) as caught, no_leaks(loop):
        make()
    return str(caught.value)


def test_nothing_left_behind_is_fine(own_loop):
    with no_leaks() as check:
        near, _ = wire()
        sock = d.Socket(near)
        task = d.spawn(sock.read_line)
        timer = own_loop.add_timer(100, print)
        d.sleep(1)
        task.cancel()
        task.join()
        timer.cancel()
        sock.close()
        assert isinstance(check, LeakCheck)


def test_a_socket_that_closes_at_the_end_of_the_turn_is_no_leak(own_loop):
    with no_leaks():
        one, other = socket.socketpair()
        sock = d.Socket(one)
        own_loop.call_soon(sock.close)
        other.close()


def test_an_open_descriptor_is_named(own_loop):
    fds = []
    message = leak_of(own_loop, lambda: fds.extend(os.pipe()))
    assert f"fd {fds[0]}" in message
    assert f"fd {fds[1]}" in message
    for fd in fds:
        os.close(fd)


def test_a_registered_socket_is_named(own_loop):
    near, _ = wire()
    message = leak_of(own_loop, lambda: d.Socket(near))
    assert "socket: Socket" in message
    assert "10.0.0.2" in message


def test_tasks_of_one_name_are_told_apart(own_loop):
    message = leak_of(own_loop, lambda: (d.spawn(d.sleep, 7), d.spawn(d.sleep, 8)))
    assert "task: <Task sleep#1, " in message
    assert "task: <Task sleep#2, " in message


def test_a_parked_task_is_named_with_what_it_waits_for(own_loop):
    def forgotten():
        d.sleep(100)

    def make():
        d.spawn(forgotten)
        d.sleep(1)

    message = leak_of(own_loop, make)
    assert "forgotten" in message
    assert "sleep" in message


def test_an_unstarted_task_gets_its_turn_before_it_counts(own_loop):
    with no_leaks():
        task = d.spawn(int)
    assert task.done


def test_a_timer_is_named_with_its_place_and_its_time(own_loop):
    def alarm():
        pass

    message = leak_of(own_loop, lambda: (own_loop.add_timer(9, print), own_loop.add_timer(5, alarm)))
    assert "timer: print (print), due in 9 s" in message
    assert re.search(r"timer: .*alarm \(.*test_leaks.py:\d+\), due in 5 s", message)


def test_a_timer_in_the_place_of_an_old_one_is_no_leak(own_loop):
    old = own_loop.add_timer(5, print)
    with no_leaks():
        old.cancel()
        new = own_loop.add_timer(6, print)
    new.cancel()


def test_a_timer_that_only_looks_on_is_no_leak(own_loop):
    with no_leaks():
        own_loop.onlookers.add(own_loop.timers.add(own_loop.clock() + 5, int))


def test_a_task_that_sleeps_is_named_with_its_place_and_its_timer_is_not(own_loop):
    def make():
        d.spawn(d.sleep, 100)
        d.sleep(1)

    message = leak_of(own_loop, make)
    assert re.search(r"task: <Task sleep, parked in sleep .*>, spawned at .*test_leaks.py:\d+", message)
    assert "timer:" not in message


def test_a_descriptor_that_another_loop_has_is_its_own_affair(own_loop):
    with d.start_in_thread() as thread, no_leaks():
        listener = thread.call(d.serve, ("127.0.0.1", 0), d.Socket.read_line)
        with socket.create_connection(listener.address, 5) as client:
            client.sendall(b"x")
            thread.call(d.sleep, 0)
    assert listener.connections == 0


def test_what_is_exempt_is_no_leak_and_all_else_is(own_loop):
    others = []

    def make(check):
        others.append(d.Socket(wire()[0]))
        with check.exempt():
            others.extend([d.Socket(wire()[0]), *os.pipe()])

    with pytest.raises(AssertionError) as caught, no_leaks() as check:
        make(check)
    assert str(caught.value).count("\n") == 1
    assert repr(others[0]) in str(caught.value)
    for fd in others[2:]:
        os.close(fd)


def test_an_unhandled_error_is_named(own_loop):
    def fail():
        d.spawn(lambda: 1 / 0)
        d.sleep(1)

    message = leak_of(own_loop, fail)
    assert "unhandled error" in message
    assert "ZeroDivisionError" in message


def test_an_error_that_the_test_takes_out_is_no_leak(own_loop):
    with no_leaks() as check:
        d.spawn(lambda: 1 / 0)
        d.sleep(1)
        (context,) = check.errors
        assert isinstance(context.exception, ZeroDivisionError)
        check.errors.clear()


def test_all_leaks_are_named_at_once(own_loop):
    near, _ = wire()

    def make():
        d.Socket(near)
        own_loop.add_timer(5, print)

    message = leak_of(own_loop, make)
    assert "socket" in message
    assert "timer" in message


def test_what_was_there_before_is_no_leak(own_loop):
    near, _ = wire()
    sock = d.Socket(near)
    task = d.spawn(sock.read_line)
    timer = own_loop.add_timer(100, print)
    fds = os.pipe()
    d.sleep(1)
    with no_leaks():
        d.sleep(1)
    timer.cancel()
    task.cancel()
    for fd in fds:
        os.close(fd)


def test_a_new_socket_in_the_place_of_an_old_one_is_a_leak(own_loop):
    one, other = socket.socketpair()
    old = d.Socket(one)
    made = []

    def make():
        old.close()
        made.extend(socket.socketpair())
        made.append(d.Socket(made[0]))

    assert "socket: " in leak_of(own_loop, make)
    for sock in (other, *made[1:]):
        sock.close()


def test_a_failing_block_raises_its_own_error(own_loop):
    def fail():
        with no_leaks():
            own_loop.add_timer(5, print)
            raise KeyError

    with pytest.raises(KeyError):
        fail()


@pytest.mark.parametrize("fails", [True, False])
def test_on_error_is_put_back(own_loop, fails):
    mine = []
    own_loop.on_error = mine.append
    try:
        with no_leaks():
            assert own_loop.on_error != mine.append
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert own_loop.on_error == mine.append


def test_the_check_moves_no_clock(own_loop):
    with no_leaks():
        pass
    assert own_loop.clock() == 1000


def test_reset_leaves_nothing_behind(own_loop):
    with no_leaks():
        near, _ = wire()
        d.spawn(d.Socket(near).read_line)
        own_loop.add_timer(5, print)
        d.sleep(1)
        own_loop.reset()
