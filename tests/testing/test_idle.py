"""Waiting until the loop is idle: everything that can happen has happened, and no time has passed."""

from __future__ import annotations

import pytest

import dangagreen as d
from dangagreen.testing import wait_until_idle


def chain(length, note):
    if length:
        d.spawn(chain, length - 1, note)
    else:
        note()


def test_every_task_that_can_run_has_run(loop):
    ends = []
    d.spawn(chain, 50, lambda: ends.append(True))
    wait_until_idle()
    assert ends == [True]


def test_calls_that_make_calls_have_been_made(loop):
    made = []

    def call(left):
        made.append(left)
        if left:
            loop.call_soon(call, left - 1)

    loop.call_soon(call, 200)
    wait_until_idle()
    assert len(made) == 201


def test_what_was_sent_is_read(loop, wires):
    near, far = wires()
    near.reads.extend([1] * 30)
    task = d.spawn(d.Socket(near).read_exactly, 30)
    far.send(b"x" * 30)
    wait_until_idle()
    assert task.done
    assert task.result() == b"x" * 30


def test_what_was_sent_over_real_sockets_is_read(real_loop, tcp_pair):
    near, far = tcp_pair()
    ends = []
    d.spawn(chain, 50, lambda: ends.append(True))
    task = d.spawn(d.Socket(near).read_exactly, 5)
    far.sendall(b"hello")
    wait_until_idle()
    assert task.done
    assert ends == [True]


def test_no_time_passes_and_timers_that_are_not_due_do_not_count(loop):
    timer = loop.add_timer(0.001, lambda: None)
    wait_until_idle()
    assert loop.clock() == 1000
    assert timer.active
    loop.clock.jump(1)
    wait_until_idle()
    assert timer.fired


def test_several_may_wait_at_once(loop):
    tasks = [d.spawn(wait_until_idle) for _ in range(5)]
    d.spawn(chain, 10, lambda: None)
    wait_until_idle()
    for task in tasks:
        task.join(1)


def test_it_can_be_cancelled_and_timed_out_while_a_loop_is_never_idle(loop):
    def again():
        loop.clock.jump(1)
        if busy:
            loop.call_soon(again)

    busy = True
    loop.call_soon(again)
    with pytest.raises(TimeoutError), d.timeout(50):
        wait_until_idle()
    task = d.spawn(wait_until_idle)
    d.sleep(5)
    task.cancel()
    task.join()
    busy = False
    wait_until_idle()  # who has given up is not counted any more


def test_it_is_refused_in_a_callback(loop, take_errors):
    loop.call_soon(wait_until_idle)
    d.sleep(1)
    (context,) = take_errors()
    assert isinstance(context.exception, d.CannotParkError)
    assert "wait_until_idle" in str(context.exception)
