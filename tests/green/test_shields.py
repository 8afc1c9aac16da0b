"""Shields, which are scopes too: what they hold off, and what they do not."""

from __future__ import annotations

import contextlib

import pytest

import dangagreen as d
from tests.helpers import end_of


def test_a_shield_holds_off_the_scopes_around_it_until_the_next_wait(loop, call):
    def work():
        steps = []
        with d.move_on_after(1) as scope:
            with d.shield():
                d.sleep(5)
                d.sleep(0)
                steps.append("in the shield")
            steps.append("after it")
            d.sleep(5)
            steps.append("never")
        return steps, scope.cancelled_caught, loop.clock()

    assert call(work) == (["in the shield", "after it"], True, 1005)


def test_a_shield_holds_off_task_cancel(loop):
    steps = []

    def work():
        with d.shield():
            d.sleep(5)
            steps.append(loop.clock())
        steps.append("after it")
        d.sleep(5)
        steps.append("never")

    task = d.spawn(work)
    d.sleep(1)
    assert task.cancel("now") is True
    task.join()
    with pytest.raises(d.TaskCancelledError, match="now"):
        task.result()
    assert steps == [1005, "after it"]
    assert loop.clock() == 1005


def test_a_shield_protects_cleaning_up_after_the_interruption(loop, pair):
    sock, far = pair()

    def work():
        try:
            sock.read_line()
        finally:
            with d.shield():
                sock.write_all(b"bye\n")
                sock.drain()
                d.sleep(1)

    task = d.spawn(work)
    d.sleep(1)
    task.cancel()
    assert end_of(task) is d.TaskCancelledError
    assert loop.clock() == 1002
    assert far.recv(100) == b"bye\n"


def test_a_scope_within_a_shield_works_and_may_bound_the_cleaning_up(loop):
    def work():
        try:
            d.sleep(100)
        finally:
            with d.shield(), d.move_on_after(2) as scope:
                d.sleep(100)
            seen.append((scope.cancelled_caught, loop.clock()))

    seen = []
    task = d.spawn(work)
    d.sleep(1)
    task.cancel()
    assert end_of(task) is d.TaskCancelledError
    assert seen == [(True, 1003)]


def test_a_timeout_within_a_shield_raises_also_when_everything_around_is_cancelled(loop, call):
    def work():
        with d.move_on_after(1) as outer:
            with d.shield():
                with pytest.raises(TimeoutError), d.timeout(3):
                    d.sleep(10)
                d.sleep(1)
            d.sleep(10)
        return outer.cancelled_caught, loop.clock()

    assert call(work) == (True, 1004)


def test_a_shield_within_a_shield(loop, call):
    def work():
        with d.move_on_after(1):
            with d.shield():
                with d.shield():
                    d.sleep(2)
                d.sleep(2)
            d.sleep(2)
        return loop.clock()

    assert call(work) == 1004


def test_a_shield_that_is_entered_by_a_cancelled_task_lets_it_wait(loop):
    def work():
        d.current_task().cancel()
        with d.shield():
            d.sleep(3)
        try:
            d.sleep(3)
        except d.Cancelled:
            return loop.clock()

    assert end_of(d.spawn(work)) == 1003


def test_a_shield_lets_exceptions_out(loop, call):
    def work():
        with d.shield():
            raise KeyError("mine")

    with pytest.raises(KeyError):
        call(work)


def test_after_an_exception_left_a_shield_the_interruption_comes_at_the_next_wait(loop, call):
    def work():
        with d.move_on_after(1):
            with contextlib.suppress(KeyError), d.shield():
                d.sleep(2)
                raise KeyError("mine")
            d.sleep(5)
        return loop.clock()

    assert call(work) == 1002


def test_a_shield_has_a_deadline_and_a_cancel_of_its_own(loop, in_task):
    def work():
        with d.timeout(0):
            with d.shield() as shield:
                shield.deadline = loop.clock() + 2
                d.sleep(100)
            assert shield.cancelled_caught
            assert loop.clock() == 1002
            with d.shield() as shield:
                shield.cancel()
                d.sleep(100)
        return loop.clock()

    assert in_task(work) == 1002


def test_a_shield_is_used_once_too(loop, call):
    def work():
        scope = d.shield()
        with scope:
            pass
        with pytest.raises(RuntimeError), scope:
            pass

    call(work)
