"""Deadlines of scopes: how they change, current_deadline, and the one timer that serves them all."""

# ruff: noqa: PT012  what is raised at the edge of a block has that block inside

from __future__ import annotations

import contextlib
import gc
import itertools
import math
import sys

import pytest

import dangagreen as d
from dangagreen.green.sched import scheduler
from tests.helpers import any_scope, end_of

# -- deadlines that change


@any_scope
@pytest.mark.parametrize("by", ["another task", "call_soon", "a timer", "call_soon_threadsafe"])
@pytest.mark.parametrize("assign", [True, False], ids=["deadline", "reschedule"])
def test_a_scope_can_be_rescheduled_from_elsewhere(loop, scope_of, by, assign):
    scopes = []

    def reschedule(deadline):
        if assign:
            scopes[0].deadline = deadline
        else:
            scopes[0].reschedule(deadline)

    def work():
        with contextlib.suppress(TimeoutError), scope_of(5) as scope:
            scopes.append(scope)
            d.sleep(40)
        return loop.clock()

    for deadline in (20, 3, 2.5):
        scopes.clear()
        task, begun = d.spawn(work), loop.clock()
        d.sleep(1)
        change = [lambda deadline=deadline, begun=begun: reschedule(begun + deadline)]
        if by == "another task":
            d.spawn(*change)
        elif by == "call_soon":
            loop.call_soon(*change)
        elif by == "a timer":
            loop.add_timer(0, *change)
        else:
            loop.call_soon_threadsafe(*change)
        assert end_of(task) == begun + deadline
        assert scopes[0].deadline == begun + deadline


def test_the_deadline_may_be_moved_by_the_block_itself(loop, call):
    def work():
        with d.move_on_after(2) as scope:
            for _ in range(10):
                d.sleep(1)
                scope.deadline = loop.clock() + 2
            d.sleep(10)
        return loop.clock()

    assert call(work) == 1012


def test_the_deadline_may_be_taken_away_and_given(loop, call):
    def work():
        with d.move_on_after(2) as scope:
            scope.deadline = None
            assert scope.deadline is None
            d.sleep(10)
        assert scope.cancelled_caught is False
        with pytest.raises(TimeoutError), d.timeout(None) as scope:
            scope.deadline = loop.clock() + 1
            d.sleep(10)
        return loop.clock()

    assert call(work) == 1011


def test_a_deadline_given_before_the_block_counts(loop, in_task):
    def work():
        scope = d.timeout(5)
        scope.deadline = 1001
        with pytest.raises(TimeoutError), scope:
            d.sleep(50)
        return loop.clock()

    assert in_task(work) == 1001


def test_a_deadline_that_is_moved_into_the_past_interrupts_at_once(loop, call):
    def work():
        with d.move_on_after(50) as scope:
            loop.add_timer(1, lambda: scope.reschedule(loop.clock() - 5))
            d.sleep(10)
        assert loop.clock() == 1001
        with d.move_on_after(50) as scope:
            scope.deadline = 0
            d.sleep(10)
        with pytest.raises(TimeoutError), d.timeout(5) as other:
            other.deadline = loop.clock()
            assert other.cancelled
            d.sleep(0)
        return loop.clock(), scope.cancelled_caught

    assert call(work) == (1001, True)


def test_an_expired_scope_is_not_revived(loop, call):
    def work():
        steps = []
        with pytest.raises(TimeoutError), d.timeout(1) as scope:
            try:
                d.sleep(10)
            except d.Cancelled:
                with contextlib.suppress(RuntimeError):
                    scope.deadline = loop.clock() + 100
            d.sleep(10)
            steps.append("never")
        return steps, loop.clock()

    assert call(work) == ([], 1001)


def test_no_deadline_takes_back_that_a_scope_has_expired(loop, in_task):
    def work():
        with pytest.raises(TimeoutError), d.timeout(0) as scope:
            scope.deadline = None
            d.sleep(1)

    in_task(work)


def test_a_cancelled_scope_is_not_revived(loop, call):
    def work():
        with d.move_on_after(1) as scope:
            scope.cancel()
            with contextlib.suppress(RuntimeError):
                scope.deadline = loop.clock() + 100
            d.sleep(10)
        return loop.clock()

    assert call(work) == 1000


# -- current_deadline


def test_current_deadline_is_the_earliest_that_a_wait_would_see(loop, call):
    def work():
        assert d.current_deadline() is None
        with d.timeout(None):
            assert d.current_deadline() is None
            with d.timeout(5) as outer:
                assert d.current_deadline() == 1005
                with d.move_on_after(9) as inner:
                    assert d.current_deadline() == 1005
                    inner.deadline = 1002
                    assert d.current_deadline() == 1002
                    outer.deadline = 1001
                    assert d.current_deadline() == 1001
                    with d.shield() as shield:
                        assert d.current_deadline() is None
                        with d.timeout(50):
                            assert d.current_deadline() == 1050
                            shield.deadline = 1040
                            assert d.current_deadline() == 1040
                    assert d.current_deadline() == 1001
                outer.deadline = None
                assert d.current_deadline() is None
        assert d.current_deadline() is None
        return "through"

    assert call(work) == "through"


def test_current_deadline_of_what_is_cancelled_already(loop, call):
    def work():
        with d.move_on_after(5) as outer:
            with d.timeout(3):
                outer.cancel()
                assert d.current_deadline() == -math.inf
                with d.shield():
                    assert d.current_deadline() is None
                    with d.move_on_after(None) as inner:
                        inner.cancel()
                        assert d.current_deadline() == -math.inf
            assert d.current_deadline() == -math.inf
        assert d.current_deadline() is None
        with d.move_on_after(1):
            try:
                d.sleep(5)
            except d.Cancelled:
                return d.current_deadline()

    assert call(work) == -math.inf


def test_current_deadline_of_a_cancelled_task(loop):
    def work():
        d.current_task().cancel()
        with d.timeout(5):
            inside = d.current_deadline()
            with d.shield():
                shielded = d.current_deadline()
        return inside, shielded, d.current_deadline()

    assert end_of(d.spawn(work)) == (-math.inf, None, -math.inf)


def test_current_deadline_in_a_callback(loop):
    seen = []
    with d.timeout(5):
        loop.call_soon(lambda: seen.append(d.current_deadline()))
        d.sleep(1)
    assert seen == [None]


# -- the alarm


def test_one_timer_does_for_all_scopes_of_a_task(loop, in_task):
    def work():
        counts = set()
        for _ in range(1000):
            with d.timeout(50), d.timeout(5), d.move_on_after(500):
                counts.add(len(loop.timers))
        return counts

    assert in_task(work) == {1}
    assert len(loop.timers) == 0


def timers_made(loop, function):
    """How many timers a call makes, those included that have gone again."""
    before = loop.timers.mark()
    function()
    return loop.timers.mark() - before


def test_a_server_that_reads_with_a_timeout_makes_one_timer_in_all_that_time(loop, in_task, pair):
    sock, far = pair()

    def work():
        with d.timeout(5):
            sock.read_line()
        return timers_made(loop, reads)

    def reads():
        for _ in range(1000):
            with d.timeout(5):
                sock.read_line()

    far.send(b"x\n" * 1001)
    assert in_task(work) == 0


def test_the_alarm_is_set_anew_as_often_as_it_rings_and_no_more(loop, in_task):
    def work():
        for _ in range(1000):
            with d.timeout(5):
                d.sleep(0.01)

    assert in_task(timers_made, loop, work) - 1000 in (2, 3)


def test_top_level_code_leaves_no_alarm(loop):
    with d.timeout(50):
        with d.timeout(5):
            assert len(loop.timers) == 1
        d.sleep(1)
        assert len(loop.timers) == 1
    assert len(loop.timers) == 0


def test_a_million_timeouts_take_no_memory(loop, in_task):
    def work():
        sizes = []
        for _ in range(4):
            for _ in range(250):
                for _ in range(1000):
                    with d.timeout(5):
                        pass
                loop.clock.jump(1)
                d.sleep(0)
            gc.collect()
            sizes.append(sys.getallocatedblocks())
        return sizes

    sizes = in_task(work)
    grown = [after - before for before, after in itertools.pairwise(sizes)]
    assert min(grown) < 100, grown  # a thread of pytest-xdist may have got something to do in one of these rounds
    assert len(loop.timers.heap) < 100


def test_no_scope_is_left_behind_in_top_level_code(loop):
    with contextlib.suppress(TimeoutError), d.timeout(0):
        d.sleep(1)
    assert scheduler(loop).top_level.scope is None
    assert scheduler(loop).top_level.interrupt is None
