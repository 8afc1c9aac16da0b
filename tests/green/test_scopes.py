"""Scopes: who is interrupted, when, and at the edge of whose block it ends. Shields are in test_shields."""

# ruff: noqa: PT012  what is raised at the edge of a block has that block inside

from __future__ import annotations

import contextlib
import gc
import itertools
import math
import traceback

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import dangagreen as d
from dangagreen.testing import virtual_loop
from tests.helpers import SCOPES, any_scope, end_of


def start(function, *args):
    """Spawn it, and have it run to its first wait."""
    task = d.spawn(function, *args)
    d.sleep(0)
    return task


def edge(scope):
    """The block, where what comes out at its edge is no concern of the test."""
    stack = contextlib.ExitStack()
    stack.enter_context(contextlib.suppress(TimeoutError))
    stack.enter_context(scope)
    return stack


# -- one scope


@pytest.mark.parametrize("scope_of", [SCOPES["timeout"], SCOPES["timeout_at"]], ids=["timeout", "timeout_at"])
def test_a_timeout_raises_at_the_edge_of_its_block_when_it_expires(loop, call, scope_of):
    seen = []

    def work():
        with pytest.raises(TimeoutError, match="2") as raised, scope_of(2) as scope:
            assert (scope.deadline, scope.cancelled) == (1002, False)
            try:
                d.sleep(10)
            except Exception:
                seen.append("no Exception inside")
            finally:
                seen.append(loop.clock())
        seen.append(scope.cancelled_caught)
        assert scope.cancelled
        assert not isinstance(raised.value, d.Cancelled)
        d.sleep(1)
        return loop.clock()

    assert call(work) == 1003
    assert seen == [1002, True]
    assert len(loop.timers) == 0


def test_inside_the_block_the_interruption_is_cancelled(loop, call):
    def work():
        with d.move_on_after(2), pytest.raises(d.Cancelled, match="2"):
            d.sleep(10)
        return loop.clock()

    assert call(work) == 1002


def test_move_on_after_just_ends_its_block(loop, call):
    def work():
        steps = []
        with d.move_on_after(2) as scope:
            assert (scope.deadline, scope.cancelled) == (1002, False)
            d.sleep(1)
            steps.append("one second")
            d.sleep(2)
            steps.append("never")
        assert scope.cancelled
        assert len(loop.timers) == 0
        return steps, loop.clock(), scope.cancelled_caught

    assert call(work) == (["one second"], 1002, True)


@any_scope
def test_a_block_that_ends_in_time_is_left_alone(loop, call, scope_of):
    def work():
        with scope_of(5) as scope:
            d.sleep(1)
        assert (scope.cancelled, scope.cancelled_caught) == (False, False)
        d.sleep(10)
        assert len(loop.timers) == 0
        assert scope.cancelled_caught is False
        return loop.clock()

    assert call(work) == 1011


def test_the_error_names_the_limit_and_where_the_wait_was(loop):
    with pytest.raises(TimeoutError, match=r"2\.5 s") as caught, d.timeout(2.5):
        d.sleep(100)
    assert isinstance(caught.value.__cause__, d.Cancelled)
    frames = [frame.f_code.co_name for frame, _ in traceback.walk_tb(caught.value.__cause__.__traceback__)]
    assert "sleep" in frames


def test_a_deadline_is_known_and_is_a_time_of_the_loops_clock(loop, call):
    def work():
        with d.timeout(5) as one, d.move_on_after(7) as two, d.timeout_at(1003) as three, d.timeout(None) as four:
            return one.deadline, two.deadline, three.deadline, four.deadline

    assert call(work) == (1005, 1007, 1003, None)


def test_the_time_begins_with_the_block(loop, in_task):
    def work():
        scope = d.timeout(2)
        assert scope.deadline is None
        d.sleep(10)
        with scope:
            assert scope.deadline == 1012
            d.sleep(1)

    in_task(work)


@pytest.mark.parametrize("scope_of", [d.timeout, d.timeout_at, d.move_on_after], ids=lambda scope_of: scope_of.__name__)
def test_none_is_no_limit(loop, call, scope_of):
    def work():
        with scope_of(None) as scope:
            d.sleep(1_000_000)
        return scope.deadline, scope.cancelled, scope.cancelled_caught

    assert call(work) == (None, False, False)


def test_an_infinite_limit_is_none(loop, in_task):
    def work():
        with d.timeout(math.inf):
            timers = len(loop.timers)
            d.sleep(5)
        return timers

    assert in_task(work) == 0


def test_a_limit_that_is_no_number_is_refused(loop, in_task):
    def work():
        with pytest.raises(ValueError):
            d.timeout(math.nan).__enter__()
        with pytest.raises(ValueError):
            d.timeout_at(math.nan)
        with pytest.raises(TypeError):
            d.timeout("5").__enter__()
        with d.timeout(5) as scope, pytest.raises(ValueError):
            scope.deadline = math.nan
        with d.timeout(5), pytest.raises(ValueError):
            d.timeout(math.nan).__enter__()
        assert d.current_task().scope is None

    in_task(work)


@any_scope
def test_the_block_may_end_late_if_no_wait_was_interrupted(loop, call, scope_of):
    def work():
        with scope_of(2) as scope:
            d.sleep(1)
            loop.clock.jump(1)
            assert scope.cancelled  # to the second
            loop.clock.jump(4)
        assert scope.cancelled_caught is False
        d.sleep(1)
        return loop.clock()

    assert call(work) == 1007


@any_scope
@pytest.mark.parametrize("seconds", [0, -5])
def test_an_expired_scope_is_entered_quietly_and_raises_at_the_first_wait(loop, call, scope_of, seconds):
    def work():
        steps = []
        with edge(scope := scope_of(seconds)):
            steps.append("inside")
            d.sleep(3)
            steps.append("never")
        return steps, scope.cancelled_caught, loop.clock()

    assert call(work) == (["inside"], True, 1000)


@any_scope
def test_an_expired_scope_without_a_wait_raises_nothing(loop, call, scope_of):
    def work():
        with scope_of(0) as scope:
            pass
        return scope.cancelled_caught

    assert call(work) is False


def test_an_expired_scope_raises_also_at_a_wait_that_need_not_wait(loop, call, pair):
    sock, far = pair()
    sock.push_back_read(b"there\n")
    ended = d.spawn(int)
    ended.join()

    def work():
        reads, writes = (sock.read_line, lambda: sock.read_exactly(0)), (lambda: sock.write_all(b"x"), sock.drain)
        for wait in (*reads, ended.join, lambda: d.sleep(0), *writes):
            with pytest.raises(TimeoutError), d.timeout(0):
                wait()
        return sock.read_line()

    assert call(work) == b"there\n"
    assert sock.unsent == 0
    assert far.events(1) == 0


@pytest.mark.parametrize("seconds", [0, -1])
def test_an_expired_scope_in_one_that_is_late(loop, in_task, seconds):
    def work():
        with d.timeout(1) as outer:
            loop.clock.jump(5)  # the alarm has not rung
            with contextlib.suppress(TimeoutError), d.timeout(seconds) as inner:
                assert inner.cancelled
                with pytest.raises(d.Cancelled):
                    d.sleep(0)
                outer.deadline = None
                d.sleep(0)
        return inner.cancelled_caught, outer.cancelled_caught

    assert in_task(work) == (True, False)


def test_an_expired_block_that_swallows_its_interruption_raises_nothing(loop, in_task):
    def work():
        with d.timeout(1) as scope, contextlib.suppress(d.Cancelled):
            d.sleep(5)
        return scope.cancelled, scope.cancelled_caught

    assert in_task(work) == (True, False)


@any_scope
def test_other_exceptions_pass_through_unchanged(loop, call, scope_of):
    error = KeyError("mine")

    def fail():
        with scope_of(5) as scope:
            scopes.append(scope)
            d.sleep(1)
            raise error

    def fail_after_the_interruption():
        with scope_of(5) as scope:
            scopes.append(scope)
            try:
                d.sleep(10)
            except d.Cancelled:
                raise error from None

    scopes = []
    for work in (fail, fail_after_the_interruption):
        with pytest.raises(KeyError) as raised:
            call(work)
        assert raised.value is error
    assert [scope.cancelled_caught for scope in scopes] == [False, False]


def test_a_timeout_error_of_the_block_itself_is_not_mistaken_for_expiry(loop, call):
    error = TimeoutError("the kernel's own")

    def work():
        with d.move_on_after(5) as scope:
            raise error
        return scope

    with pytest.raises(TimeoutError) as raised:
        call(work)
    assert raised.value is error


@any_scope
def test_a_cancelled_that_nobody_sent_is_no_interruption_of_the_scope(loop, call, scope_of):
    mine = d.Cancelled("made by hand")

    def work():
        with pytest.raises(d.Cancelled) as raised, scope_of(5) as scope:
            raise mine
        return raised.value is mine, scope.cancelled_caught

    assert call(work) == (True, False)


def test_an_interrupt_of_the_program_passes_through_an_expired_scope(loop):
    def work():
        with d.move_on_after(1):
            try:
                d.sleep(5)
            except d.Cancelled:
                raise KeyboardInterrupt from None

    with pytest.raises(KeyboardInterrupt):
        work()
    d.sleep(1)
    assert loop.clock() == 1002


def test_the_next_block_begins_afresh(loop, call):
    def work():
        ends = []
        for _ in range(5):
            with d.move_on_after(1):
                d.sleep(10)
            ends.append(loop.clock())
        with d.timeout(3):
            d.sleep(2)
        return ends

    assert call(work) == [1001, 1002, 1003, 1004, 1005]


def test_a_deadline_at_the_very_time_of_the_wake_comes_first(loop, in_task):
    def work():
        outcomes = []
        for _ in range(3):  # with and without an alarm that is older
            try:
                with d.timeout(0.5):
                    d.sleep(0.25)
                with d.timeout(0.5):
                    d.sleep(0.5)
                outcomes.append("slept")
            except TimeoutError:
                outcomes.append("expired")
        return outcomes

    assert in_task(work) == ["expired"] * 3


@pytest.mark.parametrize("seconds", [0.5, 1, 1.5])
def test_a_wait_that_ends_at_the_very_deadline_is_woken_once(loop, seconds):
    """Which of the two comes first at 1 is left open, but not that one of them does."""

    def work():
        with d.move_on_after(1) as scope:
            d.sleep(seconds)
        ended = loop.clock()
        d.sleep(10)
        return scope.cancelled_caught, ended, loop.clock()

    caught, ended, after = end_of(d.spawn(work))
    assert ended == 1000 + min(seconds, 1)
    assert after == ended + 10
    if seconds != 1:
        assert caught == (seconds > 1)


def test_a_task_woken_before_its_deadline_keeps_what_it_waited_for(loop, in_task):
    work = d.spawn(d.sleep, 1)

    def waiter():
        with d.timeout(5) as scope:
            work.join()
            loop.clock.jump(10)  # it was late only after it had been woken
        return scope.cancelled_caught

    assert in_task(waiter) is False


def test_scopes_of_two_tasks_know_nothing_of_each_other(loop):
    def work(seconds):
        with d.move_on_after(seconds) as scope:
            d.sleep(5)
        return scope.cancelled_caught, loop.clock()

    tasks = [d.spawn(work, seconds) for seconds in (1, 9, 3)]
    assert [end_of(task) for task in tasks] == [(True, 1001), (False, 1005), (True, 1003)]


def test_what_a_task_spawns_is_not_in_its_scope(loop):
    def work():
        with d.move_on_after(1):
            other = d.spawn(lambda: (d.sleep(5), loop.clock(), d.current_deadline())[1:])
            d.sleep(10)
        return other

    task = d.spawn(work)
    task.join()
    assert end_of(task.result()) == (1005, None)


def test_a_scope_of_top_level_code_is_not_that_of_the_tasks_that_run_underneath(loop):
    with d.move_on_after(1):
        task = d.spawn(lambda: (d.sleep(5), d.current_deadline())[1])
        d.sleep(10)
    assert loop.clock() == 1001
    assert end_of(task) is None
    assert loop.clock() == 1005


def test_scopes_work_in_main(loop):
    def main():
        with pytest.raises(TimeoutError), d.timeout(1):
            d.sleep(10)
        return loop.clock()

    assert d.run(main) == 1001


def test_a_scope_on_an_exit_stack(loop, call):
    def work():
        with contextlib.suppress(TimeoutError), contextlib.ExitStack() as stack:
            stack.enter_context(d.timeout(1))
            stack.enter_context(d.move_on_after(2))
            d.sleep(10)
        return loop.clock()

    assert call(work) == 1001


def test_join_may_time_out_within_a_scope_and_the_scope_within_a_join(loop, call):
    def work():
        other = d.spawn(d.sleep, 100)
        with d.timeout(5) as scope, pytest.raises(TimeoutError):
            other.join(1)
        assert scope.cancelled_caught is False
        with pytest.raises(TimeoutError), d.timeout(1) as scope:
            other.join(5)
        assert scope.cancelled_caught is True
        assert loop.clock() == 1002
        other.cancel()
        other.join()

    call(work)


def test_scopes_say_what_they_are(loop):
    scopes = d.timeout(5), d.timeout_at(1007.0), d.move_on_after(), d.shield()
    assert [repr(scope) for scope in scopes] == [
        "<timeout(5), not open>",
        "<timeout_at(1007.000), not open>",
        "<move_on_after(), not open>",
        "<shield(), not open>",
    ]
    with scopes[0]:
        assert repr(scopes[0]) == "<timeout(5), open>"
        scopes[0].cancel()
        assert repr(scopes[0]) == "<timeout(5), cancelled>"
    with d.move_on_after(0) as scope:
        assert repr(scope) == "<move_on_after(0), expired>"


# -- again and again


@any_scope
def test_code_that_swallows_the_interruption_is_interrupted_at_its_next_wait(loop, call, pair, scope_of):
    sock, far = pair()
    sock.push_back_read(b"there is input, and still\n")
    ended = d.spawn(int)
    ended.join()
    waits = [
        lambda: d.sleep(5),
        lambda: d.sleep(5),
        lambda: d.sleep(0),
        ended.join,
        lambda: sock.read_exactly(1),
        lambda: sock.read_exactly(0),
        sock.read_line,
        lambda: sock.read_until(b";"),
        sock.read_some,
        sock.read_to_end,
        lambda: next(iter(sock)),
        lambda: sock.write_all(b"x"),
        sock.drain,
        lambda: d.connect(("127.0.0.1", 1)),
    ]
    raised = []

    def work():
        with edge(scope_of(1)):
            for wait in waits:
                try:
                    wait()
                except d.Cancelled:
                    raised.append(loop.clock())
        return sock.read_line()

    assert call(work) == b"there is input, and still\n"
    assert raised == [1001] * len(waits)
    assert far.events(1) == 0


def test_a_finally_that_waits_is_interrupted_as_well(loop, call):
    def work():
        steps = []
        with d.move_on_after(1):
            try:
                d.sleep(10)
            finally:
                steps.append("before")
                d.sleep(10)
                steps.append("never")
        return steps, loop.clock()

    assert call(work) == (["before"], 1001)


def test_expiry_while_the_block_cleans_up(loop, in_task):
    steps = []

    def work():
        with d.timeout(2):
            try:
                raise KeyError
            finally:
                try:
                    d.sleep(10)
                finally:
                    steps.append(loop.clock())
                    try:
                        d.sleep(10)
                    finally:
                        steps.append(loop.clock())

    with pytest.raises(TimeoutError):
        in_task(work)
    assert steps == [1002, 1002]


def test_a_retry_loop_that_swallows_everything_still_ends_with_its_scope(loop, call):
    def work():
        attempts = 0
        with d.move_on_after(10):
            while attempts < 100:
                attempts += 1
                try:
                    d.sleep(3)
                except BaseException:
                    d.sleep(0)
        return attempts, loop.clock()

    assert call(work) == (4, 1010)


def test_a_caught_timeout_does_not_end_the_loop_around_it(loop, in_task, pair):
    sock, _ = pair()

    def work():
        ticks = 0
        with d.move_on_after(10):
            while True:
                try:
                    with d.timeout(1):
                        sock.read_line()
                except TimeoutError:
                    ticks += 1
        return ticks

    assert in_task(work) == 9


# -- nested


def test_an_inner_expiry_is_none_of_the_outer_ones_business(loop, call):
    def work():
        with d.timeout(5) as outer:
            with pytest.raises(TimeoutError), d.timeout(1):
                d.sleep(10)
            d.sleep(1)
        return outer.cancelled_caught, loop.clock()

    assert call(work) == (False, 1002)


def test_after_the_inner_one_has_expired_the_outer_one_still_does(loop, call):
    def work():
        with pytest.raises(TimeoutError), d.timeout(5) as outer:
            with pytest.raises(TimeoutError), d.timeout(1):
                d.sleep(100)
            assert loop.clock() == 1001
            with d.move_on_after(1):
                d.sleep(100)
            assert loop.clock() == 1002
            d.sleep(100)
        assert outer.cancelled_caught
        return loop.clock()

    assert call(work) == 1005


@pytest.mark.parametrize("inner_of", SCOPES.values(), ids=SCOPES)
@any_scope
def test_an_outer_expiry_passes_the_inner_scope(loop, call, scope_of, inner_of):
    def work():
        steps = []
        with edge(scope_of(1)):
            with inner_of(5) as inner:
                d.sleep(10)
            steps.append("never")
        return steps, inner.cancelled_caught, loop.clock()

    assert call(work) == ([], False, 1001)


@pytest.mark.parametrize("kinds", list(itertools.product(["timeout", "move_on_after"], repeat=3)), ids="-".join)
@pytest.mark.parametrize("in_order", [True, False], ids=["outer timer first", "inner timer first"])
def test_of_equal_deadlines_the_outermost_converts(loop, call, kinds, in_order):
    scopes = [SCOPES[kind](5 if in_order else 5 + 5 * (3 - depth)) for depth, kind in enumerate(kinds)]

    def work():
        with contextlib.ExitStack() as stack:
            for scope in scopes:
                stack.enter_context(scope)
            for scope in reversed(scopes):
                scope.deadline = 1005
            d.sleep(10)

    try:
        call(work)
        raised = False
    except TimeoutError:
        raised = True
    assert raised == (kinds[0] == "timeout")
    assert [scope.cancelled_caught for scope in scopes] == [True, False, False]
    assert loop.clock() == 1005


def test_an_outer_scope_that_expires_while_the_inner_one_cleans_up_gets_the_interruption(loop, call):
    def work():
        steps = []
        with pytest.raises(TimeoutError), d.timeout(3) as outer:
            with d.move_on_after(1) as inner:
                try:
                    d.sleep(10)
                finally:
                    with d.shield():
                        d.sleep(5)
            steps.append("never")
        return steps, inner.cancelled_caught, outer.cancelled_caught, loop.clock()

    assert call(work) == ([], False, True, 1006)


def test_an_outer_scope_that_is_cancelled_while_an_inner_timeout_unwinds_ends_quietly(loop, call):
    def work():
        with d.timeout(100) as outer:
            with d.timeout(1) as inner:
                try:
                    d.sleep(10)
                finally:
                    outer.cancel("all of it")
            raise AssertionError("the outer scope was cancelled too")
        return inner.cancelled, inner.cancelled_caught, outer.cancelled_caught

    assert call(work) == (True, False, True)


def test_an_inner_scope_of_a_cancelled_one_raises_at_its_first_wait(loop, in_task):
    def work():
        with d.move_on_after() as outer:
            outer.cancel("outer")
            with d.timeout(0) as inner:
                with pytest.raises(d.Cancelled, match="outer"):
                    d.sleep(1)
                d.sleep(1)
        return outer.cancelled_caught, inner.cancelled_caught

    assert in_task(work) == (True, False)


def test_between_two_expired_scopes_code_runs_but_cannot_wait(loop, call):
    def work():
        steps = []
        with d.move_on_after(3):
            with d.move_on_after(1):
                try:
                    d.sleep(10)
                except d.Cancelled:
                    loop.clock.jump(5)
            steps.append("after the inner block")
            d.sleep(10)
            steps.append("never")
        return steps

    assert call(work) == ["after the inner block"]


def test_a_thousand_scopes(loop, in_task):
    def work(step):
        with contextlib.ExitStack() as stack:
            scopes = [d.move_on_after(5000 + step * n) for n in range(1000)]
            for scope in scopes:
                stack.enter_context(scope)
            assert len(loop.timers) == 1
            d.sleep(1e6)
        return loop.clock(), [number for number, scope in enumerate(scopes) if scope.cancelled_caught]

    assert in_task(work, 1) == (6000, [0])
    assert in_task(work, 0) == (11000, [0])
    assert in_task(work, -1) == (15001, [999])


NESTED = st.tuples(
    st.sampled_from(["timeout_at", "move_on_after", "shield"]),
    st.none() | st.integers(min_value=0, max_value=500),  # the deadline
    st.none() | st.integers(min_value=0, max_value=500),  # cancelled by hand half a second later
)


EVERY_WAIT = 100


def expected(specs):
    """What `nested` is to log: which scopes catch, when, and how."""
    log = []

    def due(number):
        _, deadline, cancelled = specs[number]
        return min(math.inf if deadline is None else deadline, math.inf if cancelled is None else cancelled + 0.5)

    def wait(depth, now):
        visible = []
        for number in reversed(range(depth)):
            visible.append(number)
            if specs[number][0] == "shield":
                break
        end = min([max(now, due(number)) for number in visible], default=math.inf)
        if end > now + EVERY_WAIT:
            return now + EVERY_WAIT, None
        return end, min(number for number in visible if due(number) <= end)

    def block(number, now):
        if number < len(specs):
            now, caught_by = block(number + 1, now)
            if caught_by == number:
                kind, deadline, _ = specs[number]
                log.append((number, now, "raised" if kind == "timeout_at" and due(number) == deadline else "quiet"))
            elif caught_by is not None:
                return now, caught_by
        return wait(number, now)

    log.append(block(0, 0))
    return log


def nested(loop, specs):
    """Enter all of the scopes; wait inside the innermost, and again after each of them."""
    log, start = [], loop.clock()

    def block(number):
        if number < len(specs):
            kind, deadline, cancelled = specs[number]
            scope = d.timeout_at(None) if kind == "timeout_at" else getattr(d, kind)()
            if cancelled is not None:
                loop.add_timer(cancelled + 0.5, scope.cancel)
            try:
                with scope:
                    scope.deadline = None if deadline is None else start + deadline
                    block(number + 1)
                if scope.cancelled_caught:
                    log.append((number, loop.clock() - start, "quiet"))
            except TimeoutError:
                log.append((number, loop.clock() - start, "raised"))
        d.sleep(EVERY_WAIT)

    block(0)
    log.append((loop.clock() - start, None))
    return log


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@example([("timeout_at", 2, None), ("shield", None, None), ("move_on_after", 1, None)])
@example([("move_on_after", 1, None), ("move_on_after", 1, None), ("timeout_at", 1, None)])
@given(st.lists(NESTED, max_size=6))
def test_any_nesting_does_what_the_rules_say(specs):
    with virtual_loop() as loop:
        task = d.spawn(nested, loop, specs)
        task.join()
        assert task.result() == expected(specs)
        assert task.deadline_timer is None
        assert nested(loop, []) == expected([])


# -- cancelled by hand


@any_scope
def test_a_scope_cancelled_by_hand_ends_its_block_quietly(loop, call, scope_of):
    def work():
        with scope_of(50) as scope:
            d.sleep(1)
            scope.cancel("enough")
            assert scope.cancelled is True
            with pytest.raises(d.Cancelled) as raised:
                d.sleep(10)
            assert raised.value.reason == "enough"
            d.sleep(10)
        assert scope.cancelled_caught is True
        d.sleep(1)
        return loop.clock()

    assert call(work) == 1002
    assert len(loop.timers) == 0


@any_scope
def test_a_scope_cancelled_by_hand_whose_block_waits_no_more_has_caught_nothing(loop, call, scope_of):
    def work():
        with scope_of(50) as scope:
            scope.cancel()
        return scope.cancelled, scope.cancelled_caught

    assert call(work) == (True, False)


@any_scope
@pytest.mark.parametrize("by", ["another task", "call_soon", "a timer", "call_soon_threadsafe"])
def test_a_scope_can_be_cancelled_from_elsewhere(loop, scope_of, by):
    scopes = []

    def work():
        with scope_of(50) as scope:
            scopes.append(scope)
            d.sleep(40)
        return scope.cancelled_caught, loop.clock()

    task = d.spawn(work)
    d.sleep(1)
    (scope,) = scopes
    if by == "another task":
        d.spawn(scope.cancel)
    elif by == "call_soon":
        loop.call_soon(scope.cancel)
    elif by == "a timer":
        loop.add_timer(0, scope.cancel)
    else:
        loop.call_soon_threadsafe(scope.cancel)
    assert end_of(task) == (True, 1001)


def test_from_a_real_thread(real_loop, in_thread):
    scopes = []

    def work():
        with d.move_on_after(60) as scope:
            scopes.append(scope)
            d.sleep(50)
        return scope.cancelled_caught

    task = start(work)
    leave = (scopes[0].__exit__, None, None, None)
    for call in ((scopes[0].cancel,), (scopes[0].reschedule, 0.0), (scopes[0].reschedule, 5), leave):
        with pytest.raises(d.ForeignThreadError, match="the other one"):
            in_thread(*call)
    assert not scopes[0].cancelled
    in_thread(real_loop.call_soon_threadsafe, scopes[0].cancel)
    task.join(10)
    assert end_of(task) is True


def test_expired_first_and_then_cancelled_is_still_a_timeout(loop, call):
    def work():
        with pytest.raises(TimeoutError), d.timeout(1) as scope:
            try:
                d.sleep(10)
            finally:
                scope.cancel("late")

    call(work)


def test_expired_before_anybody_has_noticed_and_then_cancelled_is_a_timeout_as_well(loop, call):
    def work():
        with pytest.raises(TimeoutError), d.timeout(1) as scope:
            loop.clock.jump(2)
            scope.cancel("late")
            d.sleep(1)
        return loop.clock()

    assert call(work) == 1002


def test_cancelled_first_and_then_expired_is_still_quiet(loop, call):
    def work():
        with d.timeout(1) as scope:
            scope.cancel()
            try:
                d.sleep(10)
            except d.Cancelled:
                with d.shield():
                    d.sleep(5)
            d.sleep(10)
        return scope.cancelled_caught, loop.clock()

    assert call(work) == (True, 1005)


def test_cancelling_twice_and_after_the_block_is_harmless(loop, call):
    def work():
        with d.move_on_after(None) as scope:
            scope.cancel("first")
            scope.cancel("second")
            with pytest.raises(d.Cancelled) as raised:
                d.sleep(1)
        scope.cancel("third")
        scope.deadline = 0
        d.sleep(1)
        return raised.value.reason, loop.clock()

    assert call(work) == ("first", 1001)


@pytest.mark.parametrize("seconds", [5, 0])
@any_scope
def test_a_scope_may_be_cancelled_before_it_is_entered(loop, call, scope_of, seconds):
    def work():
        scope = scope_of(seconds)
        scope.cancel("early")
        steps = []
        with scope:
            steps.append("inside")
            with pytest.raises(d.Cancelled, match="early"):
                d.sleep(1)
            d.sleep(1)
            steps.append("never")
        with d.move_on_after(0):  # which is not cancelled
            d.sleep(1)
        return steps, scope.cancelled_caught, loop.clock()

    assert call(work) == (["inside"], True, 1000)


def test_cancelling_an_outer_scope_from_the_inner_block_leaves_both(loop, call):
    def work():
        with d.move_on_after(50) as outer:
            with d.timeout(50) as inner:
                outer.cancel()
                d.sleep(1)
            raise AssertionError("not here")
        return outer.cancelled_caught, inner.cancelled_caught

    assert call(work) == (True, False)


def test_cancelling_an_inner_scope_leaves_the_outer_one_alone(loop, call):
    def work():
        with d.timeout(50) as outer:
            with d.timeout(50) as inner:
                inner.cancel()
                d.sleep(1)
            d.sleep(1)
        return outer.cancelled_caught, inner.cancelled_caught

    assert call(work) == (False, True)


def test_whoever_cancels_his_own_outer_scope_while_parked_elsewhere_is_woken_once(loop):
    seen = []

    def work():
        with d.move_on_after(5) as outer, d.move_on_after(5) as inner:
            loop.add_timer(1, inner.cancel)
            loop.add_timer(1, outer.cancel)
            loop.add_timer(1, inner.cancel)
            d.sleep(10)
        seen.append(loop.clock())
        d.sleep(10)
        seen.append(loop.clock())

    d.spawn(work).join()
    assert seen == [1001, 1011]


# -- cancelled with their task


@any_scope
def test_task_cancel_is_caught_by_no_scope(loop, scope_of):
    scopes = []

    def work():
        with scope_of(10) as outer, scope_of(20) as inner:
            scopes.extend([outer, inner])
            d.sleep(100)

    task = d.spawn(work)
    d.sleep(1)
    task.cancel("my reason")
    task.join()
    with pytest.raises(d.TaskCancelledError, match="my reason"):
        task.result()
    assert [scope.cancelled_caught for scope in scopes] == [False, False]
    assert loop.clock() == 1001
    assert len(loop.timers) == 0


@any_scope
@pytest.mark.parametrize("expires", [True, False])
def test_task_cancel_goes_before_every_scope_that_is_cancelled_as_well(loop, scope_of, expires):
    def work():
        with scope_of(1 if expires else 100) as scope:
            loop.add_timer(1, d.current_task().cancel)
            if not expires:
                loop.add_timer(1, scope.cancel)
            try:
                d.sleep(100)
            finally:
                with d.shield():
                    d.sleep(1)
        raise AssertionError("the task was cancelled too")

    assert end_of(d.spawn(work)) is d.TaskCancelledError
    assert loop.clock() == 1002


@any_scope
def test_a_scope_entered_after_task_cancel_catches_nothing(loop, scope_of):
    def work():
        d.current_task().cancel()
        with scope_of(0) as scope:
            scopes.append(scope)
            d.sleep(1)
        raise AssertionError("the task was cancelled")

    scopes = []
    assert end_of(d.spawn(work)) is d.TaskCancelledError
    assert scopes[0].cancelled_caught is False


@pytest.mark.in_order
@any_scope
def test_a_scope_that_is_cancelled_between_the_wake_and_the_run_ends_at_its_next_wait(loop, scope_of):
    steps, scopes = [], []

    def work():
        with scope_of(100) as scope:
            scopes.append(scope)
            other.join()
            steps.append("joined")
            d.sleep(1)
            steps.append("never")
        return scope.cancelled_caught

    def cancel():
        other.join()
        steps.append(task.waits_for)
        scopes[0].cancel()

    other = d.spawn(d.sleep, 1)
    canceller = d.spawn(cancel)
    task = d.spawn(work)
    assert end_of(task) is True
    assert steps == [None, "joined"]
    canceller.join()


def test_a_scope_that_was_left_between_the_wake_and_the_run_interrupts_nobody(loop):
    scopes = []

    def work():
        with d.timeout(100) as scope:
            scopes.append(scope)
            other.join()
        d.sleep(5)
        return loop.clock()

    def cancel():
        other.join()
        scopes[0].cancel()

    other = d.spawn(d.sleep, 1)
    d.spawn(cancel)
    assert end_of(d.spawn(work)) == 1006


# -- with sockets


def test_a_read_that_times_out_loses_no_byte(loop, in_task, pair):
    sock, far = pair()
    sent = b"".join(b"line %d\n" % number for number in range(200))
    for number in range(len(sent)):
        loop.add_timer(number * 0.3, lambda number=number: far.send(sent[number : number + 1]))

    def work():
        lines, timeouts = [], 0
        while len(b"".join(lines)) < len(sent):
            try:
                with d.timeout(1):
                    lines.append(sock.read_line())
            except TimeoutError:
                timeouts += 1
        return lines, timeouts

    lines, timeouts = in_task(work)
    assert b"".join(lines) == sent
    assert all(line.startswith(b"line ") and line.endswith(b"\n") for line in lines)
    assert timeouts > 100


def test_a_write_that_times_out_has_queued_none_of_its_data(loop, in_task, pair):
    class Small(d.Socket):
        __slots__ = ()
        high_water = 10
        low_water = 5

    sock, far = pair(Small, capacity=4)

    def work():
        sock.write_all(b"x" * 11)
        with pytest.raises(TimeoutError), d.timeout(1):
            sock.write_all(b"y" * 10)
        sock.close()

    in_task(work)
    assert far.recv(100) == b"x" * 4


def test_a_callback_that_closes_the_socket_before_the_deadline_and_at_it(loop, in_task, pair):
    def work(closing):
        sock, _ = pair()
        loop.add_timer(closing, sock.close)
        with d.timeout(2):
            sock.read_line()

    with pytest.raises(d.ClosedError):
        in_task(work, 1)
    with pytest.raises(TimeoutError):  # both at once: the deadline is first, and the first wake counts
        in_task(work, 2)
    with pytest.raises(TimeoutError):
        in_task(work, 3)
    d.sleep(2)


def test_a_handler_with_a_timeout_around_each_read(loop):
    def handler(sock):
        with pytest.raises(TimeoutError):
            while True:
                with d.timeout(2):
                    sock.write_all(sock.read_line().upper())
        sock.write_all(b"too slow\n")

    listener = d.serve(("127.0.0.1", 0), handler)
    with d.connect(listener.address) as sock:
        for _ in range(3):
            d.sleep(1)
            sock.write_all(b"hello\n")
            assert sock.read_line() == b"HELLO\n"
        assert sock.read_to_end() == b"too slow\n"
    listener.close()


def test_connect_that_times_out_leaves_nothing_behind(real_loop):
    listening = d.serve(("127.0.0.1", 0), lambda sock: None, backlog=1)
    with pytest.raises(TimeoutError), d.timeout(0):
        d.connect(listening.address)
    listening.close()


# -- used wrongly


@any_scope
def test_a_scope_is_used_once(loop, call, scope_of):
    def work():
        scope = scope_of(5)
        with scope:
            with pytest.raises(RuntimeError, match="used once"), scope:
                pass
            d.sleep(1)
        with pytest.raises(RuntimeError, match="used once"), scope:
            pass
        with pytest.raises(RuntimeError, match="not open"):
            scope.__exit__(None, None, None)
        d.sleep(10)
        return loop.clock()

    assert call(work) == 1011


@pytest.mark.parametrize("enter", [*SCOPES.values(), lambda _: d.shield()], ids=[*SCOPES, "shield"])
def test_a_scope_cannot_be_entered_in_a_callback(loop, enter):
    seen = []

    def my_callback():
        try:
            with enter(1):
                seen.append("inside")
        except d.CannotParkError as error:
            seen.append(str(error))

    loop.call_soon(my_callback)
    d.sleep(1)
    assert len(seen) == 1
    assert seen != ["inside"]
    assert "my_callback" in seen[0]


def test_scopes_left_in_another_order_say_so_and_do_no_harm(loop, call):
    def work():
        first, second, third = d.timeout(5), d.move_on_after(7), d.timeout(9)
        for scope in (first, second, third):
            scope.__enter__()
        with pytest.raises(RuntimeError, match=r"timeout\(5\).*left before.*timeout\(9\)"):
            first.__exit__(None, None, None)
        with pytest.raises(d.Cancelled):
            d.sleep(100)
        assert loop.clock() == 1007
        third.__exit__(None, None, None)
        error = d.Cancelled()
        assert second.__exit__(d.Cancelled, error, None) is True
        d.sleep(100)

    call(work)
    assert len(loop.timers) == 0


def test_the_inner_scope_is_free_of_a_cancelled_one_that_was_left_in_disorder(loop, in_task):
    def work():
        outer, inner = d.move_on_after(), d.move_on_after()
        outer.__enter__()
        inner.__enter__()
        outer.cancel()
        with pytest.raises(d.Cancelled):
            d.sleep(1)
        with pytest.raises(RuntimeError):
            outer.__exit__(None, None, None)
        d.sleep(1)
        inner.__exit__(None, None, None)

    in_task(work)


def test_a_scope_left_in_another_task_says_so(loop):
    scope = d.timeout(5)

    def one():
        scope.__enter__()
        with contextlib.suppress(d.Cancelled):
            d.sleep(20)
        d.sleep(20)

    first = d.spawn(one)
    first.name = "one"
    second = d.spawn(lambda: (d.sleep(1), scope.__exit__(None, None, None)))
    second.name = "two"
    second.join()
    with pytest.raises(RuntimeError, match=r"entered in 'one' and left in 'two'"):
        second.result()
    first.join()
    assert first.result() is None
    assert loop.clock() == 1040


def held():
    with d.timeout(5):
        yield 1
        yield 2


def test_a_generator_that_holds_a_scope_open_across_tasks(loop):
    generator = held()

    def one():
        next(generator)
        d.sleep(1)
        return "one"

    def two():
        d.sleep(0.5)
        next(generator)
        d.sleep(100)  # the scope is not ours
        with pytest.raises(RuntimeError, match="Does a generator yield"):
            next(generator)
        d.sleep(100)
        return "two"

    tasks = [d.spawn(one), d.spawn(two)]
    for task in tasks:
        task.join()
    assert [task.result() for task in tasks] == ["one", "two"]
    assert len(loop.timers) == 0


def test_a_generator_used_in_one_task_and_closed_in_order_is_fine(loop, in_task):
    def work():
        generator = held()
        for _ in generator:
            d.sleep(1)
        generator = held()
        next(generator)
        generator.close()
        generator = held()
        next(generator)
        with pytest.raises(TimeoutError):
            try:
                d.sleep(10)
            except d.Cancelled as error:
                generator.throw(error)
        return loop.clock()

    assert in_task(work) == 1007


def test_a_generator_thrown_away_after_its_task_makes_no_noise(loop, in_task):
    kept = []

    def work():
        kept.append(held())
        next(kept[0])

    in_task(work)
    assert len(loop.timers) == 0
    kept.clear()
    gc.collect()
    d.sleep(10)


def test_a_generator_closed_while_its_task_goes_on_elsewhere_is_told(loop):
    generator = held()
    task = d.spawn(lambda: (next(generator), d.sleep(1)))
    d.sleep(0.5)
    with pytest.raises(RuntimeError, match="top-level code"):
        generator.close()
    task.join()


def test_a_task_that_ends_with_an_open_scope_leaves_no_alarm(loop):
    scope = d.timeout(50)
    task = d.spawn(scope.__enter__)
    task.join()
    assert len(loop.timers) == 0
    scope.cancel()
    scope.deadline = 0
    with pytest.raises(RuntimeError):
        scope.__exit__(None, None, None)


# -- the end of the loop, Ctrl-C


def test_reset_with_open_scopes(loop):
    steps = []

    def work():
        with d.timeout(50):
            try:
                with d.move_on_after(5), d.shield():
                    d.sleep(100)
            finally:
                steps.append("left")
                with contextlib.suppress(d.Cancelled):
                    d.sleep(1)
                    steps.append("never")
                with d.timeout(1), contextlib.suppress(d.Cancelled):
                    d.sleep(1)
                    steps.append("never")
                steps.append("cleaned up")

    task = d.spawn(work)
    d.sleep(1)
    loop.reset()
    assert task.done
    assert steps == ["left", "cleaned up"]
    assert len(loop.timers) == 0


def test_reset_inside_a_scope_of_top_level_code(loop):
    with d.timeout(5) as scope:
        loop.reset()
        assert len(loop.timers) == 0
        d.sleep(1)
        with pytest.raises(TimeoutError), d.timeout(50):
            d.sleep(100)
    assert not scope.cancelled_caught
    assert loop.clock() == 1051


def test_a_keyboard_interrupt_passes_through_scopes_and_shields(loop):
    def work():
        with d.timeout(50), d.shield() as shield:
            loop.call_soon(shield.cancel)  # what is pending once must survive that the rest is looked at again
            d.current_task().interrupt = KeyboardInterrupt()
            with d.timeout(0):
                pass
            try:
                d.sleep(1)
            except KeyboardInterrupt:
                raised.append(loop.clock())
            d.sleep(100)
        return loop.clock()

    raised = []
    task = d.spawn(work)
    task.join()
    assert task.result() == 1000
    assert raised == [1000]


def test_a_keyboard_interrupt_once_raised_makes_room_for_the_cancellation(loop):
    def work():
        with d.move_on_after() as scope:
            scope.cancel()
            d.current_task().interrupt = KeyboardInterrupt()
            with pytest.raises(KeyboardInterrupt):
                d.sleep(1)
            d.sleep(1)
        return scope.cancelled_caught

    task = d.spawn(work)
    task.join()
    assert task.result() is True


def test_an_exception_that_leaves_the_loop_passes_a_top_level_scope(loop):
    def interrupt():
        raise KeyboardInterrupt

    loop.add_timer(1, interrupt)
    with pytest.raises(KeyboardInterrupt), d.timeout(50):
        d.sleep(100)
    assert len(loop.timers) == 0
