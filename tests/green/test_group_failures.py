"""Groups: what comes out of them, when tasks or the block fail, or the program is interrupted."""

# ruff: noqa: PT012  what is raised at the end of a block has that block inside

from __future__ import annotations

import contextlib
import gc
import weakref

import pytest

import dangagreen as d
from dangagreen.green.waiters import wake
from tests.helpers import fail, fails, in_group, nap, outcome, protected, stays

# -- failures


def test_the_first_failure_cancels_the_rest_and_interrupts_the_body(loop, call):
    error = KeyError("mine")
    steps = []

    def work():
        with pytest.raises(ExceptionGroup) as raised, d.TaskGroup() as group:
            tasks = [group.spawn(nap, 100), group.spawn(fail, error, 2), group.spawn(nap, 1, "in time")]
            try:
                d.sleep(50)
            except d.Cancelled as interruption:
                steps.append((loop.clock(), interruption.reason))
                raise
        assert type(raised.value) is ExceptionGroup
        assert raised.value.exceptions == (error,)
        assert error.__traceback__ is not None
        assert raised.value.__suppress_context__  # the Cancelled of the body is no news
        assert tasks[1].done
        with pytest.raises(KeyError):
            tasks[1].result()
        with pytest.raises(d.TaskCancelledError, match="'fail' of its group failed"):
            tasks[0].result()
        return outcome(tasks[2]), loop.clock()

    assert call(work) == ("in time", 1002)
    ((time, reason),) = steps
    assert time == 1002
    assert "fail" in reason


def test_a_failure_while_the_body_has_ended(loop, call):
    error = KeyError("mine")

    def work():
        with pytest.raises(ExceptionGroup) as raised, d.TaskGroup() as group:
            group.spawn(nap, 100)
            group.spawn(fail, error, 2)
        return in_group(raised), loop.clock()

    assert call(work) == ({error}, 1002)


def test_a_failure_before_the_first_wait_of_the_body(loop, call):
    error = KeyError("mine")
    steps = []

    def work():
        with pytest.raises(ExceptionGroup) as raised, d.TaskGroup() as group:
            group.spawn(fail, error)
            d.sleep(0)
            d.sleep(0)
            d.sleep(0)
            steps.append("never")
        return in_group(raised)

    assert call(work) == {error}
    assert steps == []


def test_a_body_that_swallows_the_interruption_is_interrupted_again_and_the_failure_comes_out(loop, call):
    error = KeyError("mine")
    steps = []

    def work():
        with pytest.raises(ExceptionGroup) as raised, d.TaskGroup() as group:
            group.spawn(fail, error, 1)
            for _ in range(3):
                try:
                    d.sleep(50)
                except d.Cancelled:
                    steps.append(loop.clock())
        return in_group(raised)

    assert call(work) == {error}
    assert steps == [1001] * 3


def test_a_failure_of_the_body_itself_cancels_the_children(loop, call):
    error = KeyError("mine")
    log = []

    def work():
        with pytest.raises(ExceptionGroup) as raised, d.TaskGroup() as group:
            group.spawn(stays, 2, log)
            d.sleep(1)
            raise error
        return in_group(raised), loop.clock()

    assert call(work) == ({error}, 1003)
    assert log == [1003]


def test_a_failure_of_the_body_before_any_child_has_started(loop, call):
    error = KeyError("mine")
    ran = []

    def work():
        with pytest.raises(ExceptionGroup) as raised, d.TaskGroup() as group:
            group.spawn(ran.append, 1)
            raise error
        return in_group(raised)

    assert call(work) == {error}
    assert ran == []


def test_a_body_that_fails_alone_comes_out_in_a_group_too(loop, call):
    error = KeyError("mine")

    def work():
        with pytest.raises(ExceptionGroup) as raised, d.TaskGroup():
            raise error
        return in_group(raised)

    assert call(work) == {error}


def test_a_body_that_fails_because_a_child_did(loop, call):
    errors = [KeyError("the child's"), ValueError("the body's")]

    def work():
        with pytest.raises(ExceptionGroup) as raised, d.TaskGroup() as group:
            group.spawn(fail, errors[0], 1)
            try:
                d.sleep(50)
            except d.Cancelled:
                raise errors[1] from None
        return in_group(raised)

    assert call(work) == set(errors)


def test_a_child_that_fails_after_the_body_did_is_the_second(loop, call):
    def work():
        with fails(KeyError, ValueError), d.TaskGroup() as group:
            group.spawn(protected, 2, ValueError())
            d.sleep(1)
            raise KeyError

    call(work)


def test_several_failures_at_once(loop, call):
    errors = [KeyError(1), ValueError(2), OSError(3)]

    def work():
        with pytest.raises(ExceptionGroup) as raised, d.TaskGroup() as group:
            for error in errors[:2]:
                group.spawn(fail, error, 1)
            d.sleep(1)
            raise errors[2]
        return in_group(raised)

    found = call(work)
    assert found
    assert found <= set(errors)


def test_children_that_fail_while_they_clean_up_after_the_first_failure(loop, call):
    errors = [KeyError("the first"), ValueError("in finally"), OSError("instead of Cancelled")]

    def in_finally():
        try:
            d.sleep(100)
        finally:
            with d.shield():
                d.sleep(3)
            raise errors[1]

    def instead():
        try:
            d.sleep(100)
        except d.Cancelled:
            raise errors[2] from None

    def work():
        with pytest.raises(ExceptionGroup) as raised, d.TaskGroup() as group:
            group.spawn(in_finally)
            group.spawn(instead)
            group.spawn(fail, errors[0], 1)
        return raised.value.exceptions, loop.clock()

    assert call(work) == ((errors[0], errors[2], errors[1]), 1004)


@pytest.mark.parametrize(("seconds", "failure"), [(100, 1), (1, 5)], ids=["entered by it", "entered before"])
def test_a_finally_that_waits_without_a_shield_is_interrupted_by_the_failure_of_another(seconds, failure, loop, call):
    log = []

    def child():
        try:
            d.sleep(seconds)
        finally:
            try:
                d.sleep(100)
            finally:
                log.append(loop.clock())

    def work():
        with pytest.raises(ExceptionGroup), d.TaskGroup() as group:
            group.spawn(child)
            group.spawn(fail, KeyError(), failure)

    call(work)
    assert log == [1000 + failure]


def test_a_second_failure_while_others_are_in_finally_does_not_cut_them_short(loop, call):
    errors = [KeyError("the first"), ValueError("the second")]
    log = []

    def late():
        try:
            d.sleep(100)
        finally:
            with d.shield():
                d.sleep(2)
            raise errors[1]

    def work():
        with pytest.raises(ExceptionGroup) as raised, d.TaskGroup() as group:
            group.spawn(stays, 5, log)
            group.spawn(late)
            group.spawn(fail, errors[0], 1)
        return in_group(raised)

    assert call(work) == set(errors)
    assert log == [1006]


def test_a_child_that_ends_normally_after_it_was_cancelled_keeps_its_result(loop, call):
    def stubborn():
        with contextlib.suppress(d.Cancelled):
            d.sleep(100)
        return "mine all the same"

    def work():
        with pytest.raises(ExceptionGroup), d.TaskGroup() as group:
            task = group.spawn(stubborn)
            group.spawn(fail, KeyError(), 1)
        return task.result()

    assert call(work) == "mine all the same"


def test_a_failure_is_not_reported_to_the_loop_as_well(loop, call, take_errors):
    def work():
        with pytest.raises(ExceptionGroup), d.TaskGroup() as group:
            group.spawn(fail, KeyError(), 1)
        d.sleep(1)

    call(work)
    assert take_errors() == []


def test_a_failing_child_that_is_joined_is_a_failure_of_the_group_all_the_same(loop, call):
    error = KeyError("mine")
    seen = []

    def work():
        with pytest.raises(ExceptionGroup) as raised, d.TaskGroup() as group:
            task = group.spawn(fail, error, 1)
            with contextlib.suppress(d.Cancelled):
                task.join()
            seen.append(task.done)
        return in_group(raised)

    assert call(work) == {error}
    assert seen == [True]


def test_a_childs_own_timeout_is_a_failure_like_any_other(loop, call):
    def child():
        with d.timeout(1):
            d.sleep(5)

    def work():
        with pytest.raises(ExceptionGroup) as raised, d.TaskGroup() as group:
            group.spawn(child)
            group.spawn(nap, 50)
        return [type(error) for error in raised.value.exceptions], loop.clock()

    assert call(work) == ([TimeoutError], 1001)


def test_the_groups_error_can_be_taken_apart(loop, call):
    def work():
        taken = []
        try:
            with d.TaskGroup() as group:
                group.spawn(fail, ValueError("v"), 1)
                group.spawn(protected, 2, OSError("o"))
        except* ValueError as errors:
            taken += errors.exceptions
        except* OSError as errors:
            taken += errors.exceptions
        return [type(error) for error in taken]

    assert call(work) == [ValueError, OSError]


class Odd(BaseException):
    """No Exception."""


def test_a_body_that_raises_a_base_exception(loop, call):
    error = Odd()
    log = []

    def work():
        with pytest.raises(BaseExceptionGroup) as raised, d.TaskGroup() as group:
            group.spawn(stays, 1, log)
            d.sleep(1)
            raise error
        return in_group(raised), isinstance(raised.value, Exception)

    assert call(work) == ({error}, False)
    assert log == [1002]


def test_an_exception_of_an_unusual_base_makes_a_base_group(loop, call):
    def work():
        with d.TaskGroup() as group:
            group.spawn(protected, 1, Odd())
            group.spawn(protected, 2, ValueError())

    with pytest.raises(BaseExceptionGroup) as caught:
        call(work)
    assert not isinstance(caught.value, ExceptionGroup)
    assert {type(error) for error in caught.value.exceptions} == {Odd, ValueError}


def test_nested_groups_hand_a_failure_outwards(loop, call):
    error = KeyError("mine")
    log = []

    def work():
        with pytest.raises(ExceptionGroup) as raised, d.TaskGroup() as outer:
            outer.spawn(stays, 1, log)
            with d.TaskGroup() as inner:
                inner.spawn(stays, 2, log)
                inner.spawn(fail, error, 1)
        (inner_group,) = raised.value.exceptions
        assert inner_group.exceptions == (error,)
        return loop.clock()

    assert call(work) == 1004
    assert log == [1003, 1004]


def test_a_failure_deep_inside_comes_out_in_nested_groups(loop, call):
    def inner():
        with d.TaskGroup() as group:
            group.spawn(fail, ValueError("deep"), 1)
            group.spawn(nap, 100)

    def work():
        with d.TaskGroup() as group:
            group.spawn(inner)
            group.spawn(nap, 100)

    with pytest.raises(ExceptionGroup) as caught:
        call(work)
    (nested,) = caught.value.exceptions
    (deep,) = nested.exceptions
    assert str(deep) == "deep"
    assert loop.clock() == 1001


def test_a_failure_in_the_outer_group_cancels_the_children_of_the_inner_one(loop, call):
    error = KeyError("mine")
    log = []

    def work():
        with pytest.raises(ExceptionGroup) as raised, d.TaskGroup() as outer:
            outer.spawn(fail, error, 1)
            with d.TaskGroup() as inner:
                inner.spawn(stays, 2, log)
            log.append("never")
        return in_group(raised), loop.clock()

    assert call(work) == ({error}, 1003)
    assert log == [1003]


def test_an_inner_group_that_fails_and_is_caught_leaves_the_outer_one_alone(loop, call):
    def work():
        with d.TaskGroup() as outer:
            task = outer.spawn(nap, 5, "fine")
            with pytest.raises(ExceptionGroup), d.TaskGroup() as inner:
                inner.spawn(fail, KeyError(), 1)
        return task.result(), loop.clock()

    assert call(work) == ("fine", 1005)


# -- failures of what is cancelled


def test_failures_while_a_group_that_was_cancelled_by_hand_winds_up_come_out(loop, call):
    error = KeyError("mine")

    def child():
        try:
            d.sleep(100)
        finally:
            raise error

    def work():
        with pytest.raises(ExceptionGroup) as raised, d.TaskGroup() as group:
            group.spawn(child)
            d.sleep(1)
            group.cancel()
        return in_group(raised)

    assert call(work) == {error}


def test_a_child_cancelled_by_hand_whose_clean_up_fails_is_a_failure(loop, call):
    error = KeyError("mine")

    def child():
        try:
            d.sleep(100)
        finally:
            raise error

    def work():
        with pytest.raises(ExceptionGroup) as raised, d.TaskGroup() as group:
            task = group.spawn(child)
            group.spawn(nap, 50)
            d.sleep(1)
            task.cancel()
        return in_group(raised), loop.clock()

    assert call(work) == ({error}, 1001)


def test_cancelling_from_outside_while_the_children_clean_up_after_a_failure(loop):
    """The failure comes out, and does not end the cancellation."""
    error = KeyError("mine")
    log = []

    def work():
        try:
            with d.TaskGroup() as group:
                group.spawn(stays, 5, log)
                group.spawn(fail, error, 1)
        except ExceptionGroup as raised:
            log.append(raised.exceptions)
        d.sleep(1)
        log.append("never")

    task = d.spawn(work)
    d.sleep(2)
    task.cancel()
    task.join()
    assert outcome(task) is d.TaskCancelledError
    assert log == [1006, (error,)]


def test_a_child_that_fails_because_of_a_cancellation_from_outside(loop, call):
    error = KeyError("mine")
    log = []

    def child():
        try:
            d.sleep(100)
        finally:
            raise error

    def work():
        with d.move_on_after(1) as scope:
            try:
                with d.TaskGroup() as group:
                    group.spawn(child)
            except* KeyError as raised:
                log.extend(raised.exceptions)
            d.sleep(1)
            log.append("never")
        return scope.cancelled_caught, loop.clock()

    assert call(work) == (True, 1001)
    assert log == [error]


def test_when_main_ends_by_a_failure_of_its_group_nothing_is_left(loop):
    def main():
        with d.TaskGroup() as group:
            group.spawn(nap, 100)
            group.spawn(fail, KeyError("mine"), 1)

    with pytest.raises(ExceptionGroup):
        d.run(main)
    assert loop.clock() == 1001


def test_a_failure_is_not_lost_where_a_generator_is_closed(loop, call):
    def generator():
        with d.TaskGroup() as group:
            group.spawn(protected, 5, ValueError())
            yield

    def work():
        held = generator()
        next(held)
        d.sleep(1)
        with fails(ValueError):
            held.close()

    call(work)
    assert loop.clock() == 1005


def test_failures_leave_no_cycles_behind(loop, call):
    class Thing:
        pass

    refs = []

    def child():
        local = Thing()
        refs.append(weakref.ref(local))
        d.sleep(1)
        raise ValueError

    def work():
        local = Thing()
        refs.append(weakref.ref(local))
        try:
            with d.TaskGroup() as group:
                group.spawn(child)
                with d.shield():
                    d.sleep(2)
                raise KeyError
        except* (ValueError, KeyError):
            pass

    gc.collect()
    gc.disable()
    try:
        call(work)
        assert [ref() for ref in refs] == [None] * 2
    finally:
        gc.enable()


# -- interrupts of the program


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_a_child_cancels_the_rest_and_leaves_the_block_bare(loop, kind):
    log = []

    def main():
        try:
            with d.TaskGroup() as group:
                group.spawn(stays, 2, log)
                group.spawn(fail, kind(), 1)
        except BaseException as error:
            log.append(type(error))
            raise

    with pytest.raises(kind):
        d.run(main)
    assert log == [1003, kind]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_a_child_may_be_caught(loop, call, kind):
    log = []

    def work():
        with pytest.raises(kind), d.TaskGroup() as group:
            group.spawn(stays, 2, log)
            group.spawn(fail, kind(), 1)
            d.sleep(50)
        d.sleep(1)
        return loop.clock()

    assert call(work) == 1004
    assert log == [1003]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interrupt_in_the_body_cancels_the_children_waits_for_them_and_stays_bare(loop, call, kind):
    log = []

    def work():
        with pytest.raises(kind) as raised, d.TaskGroup() as group:
            group.spawn(stays, 2, log)
            d.sleep(1)
            raise kind("mine")
        return str(raised.value), loop.clock()

    assert call(work) == ("mine", 1003)
    assert log == [1003]


def test_an_interrupt_goes_before_failures(loop):
    log = []

    def late():
        try:
            d.sleep(100)
        finally:
            log.append("late")
            raise KeyError

    def main():
        with d.TaskGroup() as group:
            group.spawn(late)
            group.spawn(fail, KeyboardInterrupt(), 1)

    with pytest.raises(KeyboardInterrupt):
        d.run(main)
    assert log == ["late"]


def test_failures_beside_a_bare_one_are_its_cause(loop, call):
    def work():
        with pytest.raises(SystemExit) as caught, d.TaskGroup() as group:
            group.spawn(protected, 1, ValueError())
            group.spawn(protected, 2, SystemExit(3))
        return caught.value.code, [type(error) for error in caught.value.__cause__.exceptions]

    assert call(work) == (3, [ValueError])


def test_of_two_interrupts_the_first_leaves(loop, call):
    def work():
        with pytest.raises(SystemExit) as raised, d.TaskGroup() as group:
            group.spawn(protected, 2, KeyboardInterrupt())
            group.spawn(fail, SystemExit(3), 1)
        return raised.value.code, loop.clock()

    assert call(work) == (3, 1002)


def test_an_interrupt_in_a_nested_group_leaves_both_bare(loop):
    log = []

    def main():
        with d.TaskGroup() as outer:
            outer.spawn(stays, 1, log)
            with d.TaskGroup() as inner:
                inner.spawn(stays, 2, log)
                inner.spawn(fail, KeyboardInterrupt(), 1)

    with pytest.raises(KeyboardInterrupt):
        d.run(main)
    assert log == [1003, 1004]


def test_ctrl_c_in_run_ends_the_tasks_and_leaves(loop):
    steps = []

    def child():
        try:
            d.sleep(100)
        finally:
            steps.append(("child", loop.clock()))

    def main():
        me = d.current_task()
        loop.add_timer(2, lambda: wake(me, KeyboardInterrupt()))
        try:
            with d.TaskGroup() as group:
                group.spawn(child)
        finally:
            steps.append(("main", loop.clock()))

    with pytest.raises(KeyboardInterrupt):
        d.run(main)
    assert steps == [("child", 1002), ("main", 1002)]


def test_ctrl_c_at_top_level_ends_the_tasks_and_a_second_one_does_not_wait(loop):
    def interrupt():
        raise KeyboardInterrupt

    loop.add_timer(1, interrupt)
    loop.add_timer(2, interrupt)
    with pytest.raises(KeyboardInterrupt), d.TaskGroup() as group:
        quick, slow = group.spawn(nap, 50), group.spawn(protected, 100)
    assert loop.clock() == 1002
    assert quick.done
    assert not slow.done
    slow.join()


def test_what_fails_after_nobody_waits_for_it_is_reported(loop, take_errors):
    def interrupt():
        raise KeyboardInterrupt

    loop.add_timer(1, interrupt)
    loop.add_timer(2, interrupt)
    with pytest.raises(KeyboardInterrupt), d.TaskGroup() as group:
        group.spawn(protected, 100, ValueError())
    d.sleep(200)
    assert [type(context.exception) for context in take_errors()] == [ValueError]
