"""Scopes: timeout, timeout_at, move_on_after, shield, current_deadline, and how they nest; sleep_until."""

from __future__ import annotations

import contextlib
import gc
import math
import sys
import traceback

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dangagreen as d
from dangagreen.green.sched import scheduler
from dangagreen.testing import virtual_loop


@pytest.fixture
def in_task(loop):
    """A function that runs another in a task, and answers its result or raises what it raised."""

    def in_task(function, *args):
        task = d.spawn(function, *args)
        task.join()
        return task.result()

    return in_task


@pytest.fixture(params=["task", "top level"])
def anywhere(request, in_task):
    """The same, in a task and in plain top-level code."""
    return in_task if request.param == "task" else lambda function, *args: function(*args)


KINDS = {
    "timeout": lambda loop, seconds: d.timeout(seconds),
    "timeout_at": lambda loop, seconds: d.timeout_at(loop.clock() + seconds),
    "move_on_after": lambda loop, seconds: d.move_on_after(seconds),
}


@contextlib.contextmanager
def times_out():
    with pytest.raises(TimeoutError):
        yield


def expires(kind):
    """What a scope of this kind does at the edge of its block when it has expired."""
    return times_out() if kind.startswith("timeout") else contextlib.nullcontext()


# -- one scope


@pytest.mark.parametrize("kind", KINDS)
def test_a_wait_that_takes_too_long_ends_the_block(loop, anywhere, kind):
    seen = []

    def work():
        with expires(kind), KINDS[kind](loop, 2) as scope:
            assert scope.deadline == 1002
            assert not scope.cancelled
            try:
                d.sleep(100)
            except d.Cancelled as error:
                seen.append((loop.clock(), error.reason))
                raise
        assert scope.cancelled
        assert scope.cancelled_caught

    anywhere(work)
    assert [time for time, _ in seen] == [1002]
    assert "2" in seen[0][1]
    assert len(loop.timers) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_that_is_quick_enough_ends_as_it_would(loop, anywhere, kind):
    def work():
        with KINDS[kind](loop, 2) as scope:
            d.sleep(1)
        assert not scope.cancelled
        assert not scope.cancelled_caught
        d.sleep(5)
        return loop.clock()

    assert anywhere(work) == 1006
    assert len(loop.timers) == 0


def test_the_error_names_the_limit_and_where_the_wait_was(loop):
    with pytest.raises(TimeoutError, match=r"2\.5 s") as caught, d.timeout(2.5):
        d.sleep(100)
    assert isinstance(caught.value.__cause__, d.Cancelled)
    frames = [frame.f_code.co_name for frame, _ in traceback.walk_tb(caught.value.__cause__.__traceback__)]
    assert "sleep" in frames


@pytest.mark.parametrize("make", [d.timeout, d.timeout_at, d.move_on_after], ids=lambda make: make.__name__)
def test_none_is_no_limit(loop, in_task, make):
    def work():
        with make(None) as scope:
            assert scope.deadline is None
            d.sleep(1e6)
        return scope.cancelled

    assert in_task(work) is False


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


def test_the_time_begins_with_the_block(loop, in_task):
    def work():
        scope = d.timeout(2)
        assert scope.deadline is None
        d.sleep(10)
        with scope:
            assert scope.deadline == 1012
            d.sleep(1)

    in_task(work)


@pytest.mark.parametrize("seconds", [0, -1])
@pytest.mark.parametrize("kind", KINDS)
def test_an_expired_scope_raises_at_the_first_wait_and_not_at_entry(loop, anywhere, pair, kind, seconds):
    sock, far = pair()
    far.send(b"input\n")
    reached = []

    def work():
        with expires(kind), KINDS[kind](loop, seconds) as scope:
            reached.append(True)
            sock.read_exactly(0)  # need not wait
            reached.append("never")
        assert scope.cancelled_caught

    anywhere(work)
    assert reached == [True]
    assert sock.read_line() == b"input\n"


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


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_without_an_interrupted_wait_raises_nothing_though_late(loop, anywhere, kind):
    def work():
        with KINDS[kind](loop, 1) as scope:
            loop.clock.jump(5)
            assert scope.cancelled
        assert not scope.cancelled_caught

    anywhere(work)
    d.sleep(1)


def test_an_expired_block_that_swallows_its_interruption_raises_nothing(loop, in_task):
    def work():
        with d.timeout(1) as scope, contextlib.suppress(d.Cancelled):
            d.sleep(5)
        return scope.cancelled, scope.cancelled_caught

    assert in_task(work) == (True, False)


def test_other_exceptions_pass_unchanged_also_from_an_expired_scope(loop, in_task):
    def work(error):
        with d.timeout(1) as scope:
            try:
                d.sleep(5)
            except d.Cancelled:
                raise error from None
        return scope

    for error in (KeyError("mine"), SystemError()):
        with pytest.raises(type(error)) as caught:
            in_task(work, error)
        assert caught.value is error


def test_code_that_swallows_cancelled_is_interrupted_again_at_each_wait(loop, in_task):
    interruptions = []

    def work():
        with d.timeout(1):
            for _ in range(5):
                try:
                    d.sleep(10)
                except d.Cancelled:
                    interruptions.append(loop.clock())
            d.sleep(0)

    with pytest.raises(TimeoutError):
        in_task(work)
    assert interruptions == [1001] * 5


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


def test_a_task_woken_before_its_deadline_keeps_what_it_waited_for(loop, in_task):
    work = d.spawn(d.sleep, 1)

    def waiter():
        with d.timeout(5) as scope:
            work.join()
            loop.clock.jump(10)  # it was late only after it had been woken
        return scope.cancelled_caught

    assert in_task(waiter) is False


# -- by hand


def test_cancel_by_a_callback_ends_the_block_quietly(loop, anywhere):
    def work():
        with d.timeout(50) as scope:
            loop.add_timer(1, lambda: scope.cancel("enough"))
            with pytest.raises(d.Cancelled, match="enough"):
                d.sleep(100)
            d.sleep(100)
        assert scope.cancelled
        assert scope.cancelled_caught
        return loop.clock()

    assert anywhere(work) == 1001
    assert len(loop.timers) == 0


def test_cancel_by_another_task_and_by_itself(loop, in_task):
    def work():
        with d.move_on_after(None) as scope:
            d.spawn(scope.cancel)
            d.sleep(100)
        with d.move_on_after() as other:
            other.cancel("me")
            assert other.cancelled
            with pytest.raises(d.Cancelled, match="me"):
                d.sleep(0)
            d.sleep(0)
        return loop.clock(), scope.cancelled_caught, other.cancelled_caught

    assert in_task(work) == (1000, True, True)


def test_cancel_from_a_thread(real_loop, in_thread):
    loop = d.current_loop()

    def work():
        with d.move_on_after(5) as scope:
            with pytest.raises(d.ForeignThreadError, match="the other one"):
                in_thread(scope.cancel)
            with pytest.raises(d.ForeignThreadError):
                in_thread(scope.reschedule, 5)
            assert not scope.cancelled
            in_thread(loop.call_soon_threadsafe, scope.cancel)
            d.sleep(5)
        assert scope.cancelled_caught

    task = d.spawn(work)
    task.join(10)
    task.result()


def test_cancelling_twice_keeps_the_first_reason(loop, in_task):
    def work():
        with d.timeout(5) as scope:
            scope.cancel("first")
            scope.cancel("second")
            with pytest.raises(d.Cancelled, match="first"):
                d.sleep(1)

    in_task(work)


def test_expired_first_and_cancelled_then_is_still_a_timeout(loop, in_task):
    def work(seconds):
        with d.timeout(seconds) as scope:
            with contextlib.suppress(d.Cancelled):
                d.sleep(5)
            scope.cancel()
            d.sleep(5)

    with pytest.raises(TimeoutError):
        in_task(work, 1)

    def busy():
        with d.timeout(1) as scope:
            loop.clock.jump(2)  # nobody has noticed yet
            scope.cancel()
            d.sleep(5)

    with pytest.raises(TimeoutError):
        in_task(busy)


def test_cancelled_first_and_late_then_is_no_timeout(loop, in_task):
    def work():
        with d.timeout(1) as scope:
            scope.cancel()
            loop.clock.jump(2)
            d.sleep(5)
        return scope.cancelled_caught

    assert in_task(work) is True


def test_a_scope_that_is_cancelled_before_it_is_entered(loop, in_task):
    def work():
        for scope in (d.timeout(5), d.timeout(0)):
            scope.cancel("early")
            with scope, pytest.raises(d.Cancelled, match="early"):
                d.sleep(1)
            with d.move_on_after(0):
                d.sleep(1)

    in_task(work)


def test_cancel_after_the_block_does_nothing(loop, in_task):
    def work():
        with d.timeout(5) as scope:
            pass
        scope.cancel()
        scope.deadline = 0
        d.sleep(1)

    in_task(work)


# -- deadlines that change


def test_a_deadline_may_be_put_off(loop, anywhere):
    def work():
        with d.timeout(2) as scope:
            d.sleep(1)
            scope.deadline = loop.clock() + 10
            assert scope.deadline == 1011
            d.sleep(9)
            scope.reschedule(None)
            d.sleep(100)

    anywhere(work)
    assert loop.clock() == 1110
    assert len(loop.timers) == 0


def test_a_deadline_may_be_brought_forward_by_a_callback(loop, anywhere):
    def work():
        with times_out(), d.timeout(50) as scope:
            loop.add_timer(1, lambda: scope.reschedule(1002))
            d.sleep(100)
        return loop.clock()

    assert anywhere(work) == 1002
    assert len(loop.timers) == 0


def test_a_deadline_in_the_past_expires_at_once(loop, in_task):
    def work():
        with times_out(), d.timeout(None) as scope:
            loop.add_timer(1, lambda: scope.reschedule(900))
            d.sleep(100)
        with times_out(), d.timeout(5) as scope:
            scope.deadline = loop.clock()
            assert scope.cancelled
            d.sleep(0)
        return loop.clock()

    assert in_task(work) == 1001


def test_no_deadline_takes_back_that_a_scope_has_expired(loop, in_task):
    def work():
        with times_out(), d.timeout(0) as scope:
            scope.deadline = None
            d.sleep(1)

    in_task(work)


def test_a_deadline_given_before_the_block_counts(loop, in_task):
    def work():
        scope = d.timeout(5)
        scope.deadline = 1001
        with pytest.raises(TimeoutError), scope:
            d.sleep(50)
        return loop.clock()

    assert in_task(work) == 1001


def test_an_idle_limit_by_rescheduling(loop, in_task, pair):
    sock, far = pair()
    for second in (1, 2, 3, 8):
        loop.add_timer(second, lambda: far.send(b"x"))

    def work():
        got = 0
        with d.move_on_after(2) as scope:
            while True:
                got += len(sock.read_some())
                scope.deadline = loop.clock() + 2
        return got, loop.clock()

    assert in_task(work) == (3, 1005)
    d.sleep(5)
    assert sock.read_some() == b"x"


# -- nesting


@pytest.mark.parametrize("inner", [1, 2, 3])
@pytest.mark.parametrize("outer", [1, 2, 3])
@pytest.mark.parametrize("middle", [1, 2, 3])
def test_the_earliest_of_three_converts_and_of_equals_the_outermost(loop, anywhere, outer, middle, inner):
    limits = {"outer": outer, "middle": middle, "inner": inner}
    scopes = [d.timeout(limit) for limit in limits.values()]

    def work():
        try:
            with scopes[0]:
                try:
                    with scopes[1]:
                        try:
                            with scopes[2]:
                                d.sleep(100)
                        except TimeoutError:
                            return "inner"
                except TimeoutError:
                    return "middle"
        except TimeoutError:
            return "outer"

    assert anywhere(work) == min(limits, key=lambda name: limits[name])
    assert loop.clock() == 1000 + min(limits.values())
    assert sum(scope.cancelled_caught for scope in scopes) == 1


def test_after_the_inner_one_has_expired_the_outer_one_still_does(loop, anywhere):
    def work():
        with times_out(), d.timeout(5) as outer:
            with times_out(), d.timeout(1):
                d.sleep(100)
            assert loop.clock() == 1001
            with d.move_on_after(1):
                d.sleep(100)
            assert loop.clock() == 1002
            d.sleep(100)
        assert outer.cancelled_caught
        return loop.clock()

    assert anywhere(work) == 1005


def test_the_outer_one_that_is_cancelled_while_the_inner_one_unwinds_takes_it(loop, in_task):
    def work():
        with d.move_on_after() as outer:
            with d.timeout(1) as inner:
                try:
                    d.sleep(100)
                finally:
                    outer.cancel()
            raise AssertionError("the inner one must not convert")
        return outer.cancelled_caught, inner.cancelled_caught, inner.cancelled

    assert in_task(work) == (True, False, True)


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


@settings(deadline=None, max_examples=300)
@given(st.lists(NESTED, max_size=6))
def test_any_nesting_does_what_the_rules_say(specs):
    with virtual_loop() as loop:
        task = d.spawn(nested, loop, specs)
        task.join()
        assert task.result() == expected(specs)
        assert task.deadline_timer is None
        assert nested(loop, []) == expected([])


# -- tasks


def test_cancelling_the_task_is_caught_by_none_of_its_scopes(loop):
    scopes = [d.move_on_after(50), d.timeout(60)]

    def work():
        with scopes[0], scopes[1]:
            d.sleep(100)

    task = d.spawn(work)
    d.sleep(1)
    assert task.cancel("by hand") is True
    task.join()
    with pytest.raises(d.TaskCancelledError, match="by hand"):
        task.result()
    assert [scope.cancelled_caught for scope in scopes] == [False, False]
    assert len(loop.timers) == 0


def test_a_task_cancelled_and_expired_at_once_is_cancelled(loop):
    def work():
        with d.move_on_after(1):
            d.sleep(100)

    task = d.spawn(work)
    loop.add_timer(1, task.cancel)
    task.join()
    with pytest.raises(d.TaskCancelledError):
        task.result()


def test_cancelling_in_finally_and_twice(loop):
    steps = []

    def work():
        try:
            d.sleep(100)
        finally:
            assert d.current_task().cancel("again") is True
            with contextlib.suppress(d.Cancelled):
                d.sleep(1)
            steps.append(loop.clock())

    task = d.spawn(work)
    d.sleep(1)
    task.cancel("first")
    task.cancel("second")
    task.join()
    assert steps == [1001]
    with pytest.raises(d.TaskCancelledError, match="first"):
        task.result()
    assert task.cancel() is False


# -- shield


def test_a_shield_holds_off_scopes_and_the_task_until_its_end(loop, anywhere):
    steps = []

    def work():
        with times_out(), d.timeout(1):
            try:
                d.sleep(100)
            finally:
                with d.shield():
                    d.sleep(5)
                steps.append(loop.clock())
                d.sleep(1)
        steps.append(loop.clock())

    anywhere(work)
    assert steps == [1006, 1006]
    assert len(loop.timers) == 0


def test_a_shielded_task_is_cancelled_after_the_shield(loop):
    steps = []

    def work():
        with d.shield():
            d.sleep(10)
            steps.append(loop.clock())
        d.sleep(10)
        steps.append("never")

    task = d.spawn(work)
    d.sleep(1)
    assert task.cancel("outside") is True
    task.join()
    assert steps == [1010]
    with pytest.raises(d.TaskCancelledError, match="outside"):
        task.result()


def test_a_shield_may_be_entered_when_it_is_too_late_outside(loop, in_task):
    def work():
        with times_out(), d.timeout(0):
            with d.shield():
                d.sleep(3)
            assert loop.clock() == 1003
            d.sleep(1)

    in_task(work)


def test_scopes_inside_a_shield_work_and_convert_their_own(loop, in_task):
    def work():
        with d.move_on_after(1) as outer:
            with d.shield():
                with times_out(), d.timeout(3):
                    d.sleep(100)
                assert loop.clock() == 1003
            d.sleep(1)
        return outer.cancelled_caught

    assert in_task(work) is True


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


def test_an_exception_leaves_a_shield_as_it_is(loop, in_task):
    def work():
        with d.shield():
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        in_task(work)


# -- current_deadline


def test_current_deadline_is_the_earliest_up_to_a_shield(loop, anywhere):
    def work():
        seen = [d.current_deadline()]
        with d.timeout(5):
            seen.append(d.current_deadline())
            with d.timeout(9):
                seen.append(d.current_deadline())
                with d.timeout(2):
                    seen.append(d.current_deadline())
                with d.shield() as shield:
                    seen.append(d.current_deadline())
                    shield.deadline = 1050
                    seen.append(d.current_deadline())
                    with d.move_on_after(70):
                        seen.append(d.current_deadline())
            with d.move_on_after() as cancelled:
                cancelled.cancel()
                seen.append(d.current_deadline())
                with d.shield():
                    seen.append(d.current_deadline())
        return seen

    assert anywhere(work) == [None, 1005, 1005, 1002, None, 1050, 1050, -math.inf, None]


def test_current_deadline_of_a_cancelled_task_and_of_a_callback(loop):
    seen = []

    def work():
        d.current_task().cancel()
        seen.append(d.current_deadline())
        with d.shield():
            seen.append(d.current_deadline())

    d.spawn(work)
    loop.call_soon(lambda: seen.append(d.current_deadline()))
    d.sleep(1)
    assert seen == [None, -math.inf, None]


# -- sockets


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
        with times_out(), d.timeout(1):
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
        with times_out():
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
    with times_out(), d.timeout(0):
        d.connect(listening.address)
    listening.close()


# -- where scopes may not be, and disorder


def test_a_scope_is_used_once(loop, anywhere):
    def work():
        scope = d.timeout(1)
        with scope, pytest.raises(RuntimeError, match="used once"):
            scope.__enter__()
        with pytest.raises(RuntimeError, match="used once"), scope:
            raise AssertionError
        with pytest.raises(RuntimeError, match="not open"):
            scope.__exit__(None, None, None)

    anywhere(work)


@pytest.mark.parametrize("make", [d.timeout, d.shield, d.TaskGroup], ids=lambda make: make.__name__)
def test_no_scope_in_a_callback(loop, make):
    raised = []

    def my_callback():
        try:
            with make(*[5] * (make is d.timeout)):
                raise AssertionError
        except d.CannotParkError as error:
            raised.append(str(error))

    loop.call_soon(my_callback)
    d.sleep(1)
    assert len(raised) == 1
    assert "my_callback" in raised[0]


def test_scopes_left_in_another_order_say_so_and_do_no_harm(loop, anywhere):
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

    anywhere(work)
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
        with times_out():
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


def test_a_server_that_reads_with_a_timeout_makes_one_timer_in_all_that_time(loop, in_task, pair):
    sock, far = pair()

    def work():
        with d.timeout(5):
            sock.read_line()
        before = loop.timers._added
        for _ in range(1000):
            with d.timeout(5):
                sock.read_line()
        return loop.timers._added - before

    far.send(b"x\n" * 1001)
    assert in_task(work) == 0


def test_the_alarm_is_set_anew_as_often_as_it_rings_and_no_more(loop, in_task):
    def work():
        before = loop.timers._added
        for _ in range(1000):
            with d.timeout(5):
                d.sleep(0.01)
        return loop.timers._added - before - 1000

    assert in_task(work) in (2, 3)


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
    assert sizes[-1] - sizes[0] < 100
    assert len(loop.timers.heap) < 100


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
        with times_out(), d.timeout(50):
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


# -- sleep_until


def test_sleep_until_takes_a_time_of_the_clock(loop, anywhere):
    def work():
        d.sleep_until(1002.5)
        first = loop.clock()
        d.sleep_until(0)
        return first, loop.clock()

    assert anywhere(work) == (1002.5, 1002.5)


def test_a_ticker_on_absolute_deadlines_does_not_drift(loop, in_task):
    def work():
        start, ticks = loop.clock(), []
        for number in range(1, 101):
            d.sleep_until(start + number * 0.01)
            ticks.append(loop.clock() - start)
            loop.clock.jump(0.004)
        return ticks

    ticks = in_task(work)
    assert all(math.isclose(tick, (number + 1) * 0.01, abs_tol=1e-6) for number, tick in enumerate(ticks))


def test_no_scope_is_left_behind_in_top_level_code(loop):
    with contextlib.suppress(TimeoutError), d.timeout(0):
        d.sleep(1)
    assert scheduler(loop).top_level.scope is None
    assert scheduler(loop).top_level.interrupt is None
