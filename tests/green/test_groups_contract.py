"""TaskGroup: children end before the block does, and what comes out of it."""

# ruff: noqa: PT012  what is raised at the end of a block has that block inside

from __future__ import annotations

import contextlib
import contextvars
import math
import random

import pytest

import dangagreen as d

var = contextvars.ContextVar("var", default="unset")


@pytest.fixture(params=["task", "top-level code"])
def call(request, loop):
    """A function that calls another, in a task or right here, and hands back what it returns or raises."""

    def in_task(function):
        task = d.spawn(function)
        task.join()
        return task.result()

    return in_task if request.param == "task" else lambda function: function()


def fail(error, seconds=0.0):
    """Sleep, then raise it."""
    d.sleep(seconds)
    raise error


def nap(seconds, value=None):
    """Sleep, then return it."""
    d.sleep(seconds)
    return value


def outcome(task):
    """How it ended: its result, or the class of what it raised."""
    assert task.done
    try:
        return task.result()
    except Exception as error:
        return type(error)


def stays(seconds, log):
    """Wait for ever; when cancelled, take so long to clean up, and say when that was done."""
    try:
        d.sleep(1_000_000)
    finally:
        with d.shield():
            d.sleep(seconds)
        log.append(d.current_loop().clock())


def in_group(raised):
    """The exceptions in a group."""
    assert isinstance(raised.value, BaseExceptionGroup)
    return set(raised.value.exceptions)


# -- all goes well


def test_children_end_before_the_block_does_and_keep_their_results(loop, call):
    def work():
        with d.TaskGroup() as group:
            tasks = [group.spawn(nap, seconds, value=seconds * 10) for seconds in (3, 1, 2)]
            assert all(isinstance(task, d.Task) for task in tasks)
            assert loop.clock() == 1000
        assert loop.clock() == 1003
        return [task.result() for task in tasks]

    assert call(work) == [30, 10, 20]


def test_the_block_ends_when_its_body_does_if_that_is_later(loop, call):
    def work():
        with d.TaskGroup() as group:
            task = group.spawn(nap, 1)
            d.sleep(5)
            assert task.done
        return loop.clock()

    assert call(work) == 1005


def test_an_empty_group_takes_no_time(loop, call):
    def work():
        with d.TaskGroup() as group:
            pass
        return list(group.tasks), loop.clock()

    assert call(work) == ([], 1000)


def test_spawn_hands_over_its_arguments_and_does_not_run_the_task_at_once(loop, call):
    ran = []

    def child(*args, **kwargs):
        ran.append((args, kwargs))

    def work():
        with d.TaskGroup() as group:
            group.spawn(child, 1, 2, function=3, limit=4)
            assert ran == []

    call(work)
    assert ran == [((1, 2), {"function": 3, "limit": 4})]


def test_spawn_of_something_that_is_no_function(loop, call):
    def work():
        with d.TaskGroup() as group, pytest.raises(TypeError):
            group.spawn(5)

    call(work)


def test_a_group_knows_those_of_its_tasks_that_have_not_ended(loop, call):
    def work():
        with d.TaskGroup() as group:
            short, long = group.spawn(nap, 1), group.spawn(nap, 3)
            assert set(group.tasks) == {short, long}
            d.sleep(2)
            assert set(group.tasks) == {long}
        assert set(group.tasks) == set()

    call(work)


def test_a_child_has_a_copy_of_its_spawners_context(loop, call):
    def child():
        value = var.get()
        var.set("the child's")
        return value

    def work():
        var.set("the body's")
        with d.TaskGroup() as group:
            task = group.spawn(child)
        assert var.get() == "the body's"
        return task.result()

    assert contextvars.copy_context().run(call, work) == "the body's"


def test_children_may_be_spawned_by_children_also_after_the_body_has_ended(loop, call):
    ends = []

    def child(group, generation):
        d.sleep(1)
        if generation:
            group.spawn(child, group, generation - 1)
        else:
            d.sleep(5)
        ends.append(loop.clock())

    def work():
        with d.TaskGroup() as group:
            group.spawn(child, group, 3)
        return loop.clock()

    assert call(work) == 1009
    assert ends == [1001, 1002, 1003, 1009]


def test_children_may_be_spawned_by_callbacks_and_by_other_tasks(loop, call):
    ends = []

    def work():
        with d.TaskGroup() as group:
            loop.call_soon(group.spawn, ends.append, "call_soon")
            loop.call_soon_threadsafe(group.spawn, ends.append, "threadsafe")
            loop.add_timer(2, lambda: group.spawn(lambda: (d.sleep(1), ends.append(loop.clock()))))
            d.spawn(group.spawn, ends.append, "a task")
            d.sleep(2)
        return loop.clock()

    assert call(work) == 1003
    assert sorted(ends, key=str) == [1003, "a task", "call_soon", "threadsafe"]


def test_a_child_may_be_joined_in_the_body_and_by_its_siblings(loop, call):
    def work():
        with d.TaskGroup() as group:
            one = group.spawn(nap, 1, "one")
            two = group.spawn(lambda: (one.join(), one.result(), loop.clock()))
            two.join()
            return two.result()

    assert call(work) == (None, "one", 1001)


def test_groups_of_thousands(loop, call):
    def work():
        with d.TaskGroup() as group:
            tasks = [group.spawn(nap, number % 7, number) for number in range(3000)]
        return [task.result() for task in tasks] == list(range(3000))

    assert call(work) is True


def test_a_group_works_in_main(loop):
    def main():
        with d.TaskGroup() as group:
            task = group.spawn(nap, 1, "fine")
        return task.result()

    assert d.run(main) == "fine"


def test_groups_one_after_the_other_and_nested(loop, call):
    def work():
        ends = []
        for _ in range(2):
            with d.TaskGroup() as outer:
                outer.spawn(nap, 3)
                with d.TaskGroup() as inner:
                    inner.spawn(nap, 1)
                ends.append(loop.clock())
            ends.append(loop.clock())
        return ends

    assert call(work) == [1001, 1003, 1004, 1006]


def test_a_child_may_have_a_group_of_its_own(loop, call):
    def child():
        with d.TaskGroup() as group:
            tasks = [group.spawn(nap, seconds, seconds) for seconds in (1, 2)]
        return sum(task.result() for task in tasks)

    def work():
        with d.TaskGroup() as group:
            tasks = [group.spawn(child) for _ in range(2)]
        return [task.result() for task in tasks], loop.clock()

    assert call(work) == ([3, 3], 1002)


# -- used wrongly


def test_spawn_after_the_block_raises(loop, call):
    ran = []

    def work():
        with d.TaskGroup() as group:
            pass
        with pytest.raises(RuntimeError):
            group.spawn(ran.append, 1)

    call(work)
    d.sleep(1)
    assert ran == []


def test_spawn_after_a_block_that_failed_or_was_cancelled_raises(loop, call):
    ran = []

    def work():
        with d.TaskGroup() as cancelled:
            cancelled.cancel()
        with pytest.raises(ExceptionGroup), d.TaskGroup() as failed:
            raise KeyError
        for group in (cancelled, failed):
            with pytest.raises(RuntimeError):
                group.spawn(ran.append, 1)

    call(work)
    d.sleep(1)
    assert ran == []


def test_spawn_before_the_block_raises(loop, call):
    def work():
        with pytest.raises(RuntimeError):
            d.TaskGroup().spawn(int)

    call(work)


def test_a_group_is_used_once(loop, call):
    def work():
        group = d.TaskGroup()
        with group:
            with pytest.raises(RuntimeError), group:
                pass
            group.spawn(nap, 1)
        with pytest.raises(RuntimeError), group:
            pass
        return loop.clock()

    assert call(work) == 1001


def test_a_group_cannot_be_entered_in_a_callback(loop):
    seen = []

    def callback():
        try:
            with d.TaskGroup():
                seen.append("inside")
        except d.CannotParkError:
            seen.append("refused")

    loop.call_soon(callback)
    d.sleep(1)
    assert seen == ["refused"]


# -- limits


@pytest.mark.in_order
def test_no_more_than_the_limit_run_at_once_and_the_others_follow_in_order(loop, call):
    running, most, started = set(), [], []

    def child(number):
        started.append(number)
        running.add(number)
        most.append(len(running))
        d.sleep(1 + number % 3)
        running.discard(number)

    def work():
        with d.TaskGroup(limit=3) as group:
            for number in range(20):
                group.spawn(child, number)
            assert loop.clock() == 1000
            assert len(group.tasks) == 20

    call(work)
    assert started == list(range(20))
    assert max(most) == 3
    assert running == set()


def test_a_limit_of_one_is_one_after_the_other(loop, call):
    def work():
        ends = []
        with d.TaskGroup(limit=1) as group:
            for seconds in (1, 2, 3):
                group.spawn(lambda seconds=seconds: (d.sleep(seconds), ends.append(loop.clock())))
        return ends

    assert call(work) == [1001, 1003, 1006]


def test_as_many_as_the_limit_run_together(loop, call):
    def work():
        with d.TaskGroup(limit=5) as group:
            for _ in range(10):
                group.spawn(nap, 1)
        return loop.clock()

    assert call(work) == 1002


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_that_lets_nobody_run_is_refused(loop, limit):
    with pytest.raises(ValueError):
        d.TaskGroup(limit=limit)


def test_within_a_limit_children_spawn_children(loop, call):
    started = []

    def child(group, number):
        started.append(number)
        if number < 5:
            group.spawn(child, group, number + 1)
        d.sleep(1)

    def work():
        with d.TaskGroup(limit=1) as group:
            group.spawn(child, group, 0)
        return loop.clock()

    assert call(work) == 1006
    assert started == list(range(6))


def test_a_child_that_is_cancelled_while_it_waits_for_its_turn_never_runs_and_blocks_nobody(loop, call):
    ran = []

    def child(number):
        ran.append(number)
        d.sleep(1)

    def work():
        with d.TaskGroup(limit=1) as group:
            tasks = [group.spawn(child, number) for number in range(4)]
            d.sleep(0.5)
            assert tasks[1].cancel("changed my mind") is True
            tasks[1].join()
            assert loop.clock() == 1000.5
            assert outcome(tasks[1]) is d.TaskCancelledError
        return [task.done for task in tasks], loop.clock()

    assert call(work) == ([True] * 4, 1003)
    assert ran == [0, 2, 3]


def test_a_running_child_that_is_cancelled_makes_room_for_the_next(loop, call):
    def work():
        with d.TaskGroup(limit=1) as group:
            first, second = group.spawn(nap, 100), group.spawn(nap, 1, "second")
            d.sleep(2)
            first.cancel()
        return second.result(), loop.clock()

    assert call(work) == ("second", 1003)


def test_those_who_wait_for_their_turn_never_run_when_another_fails(loop, call):
    ran = []

    def work():
        with pytest.raises(ExceptionGroup) as raised, d.TaskGroup(limit=2) as group:
            group.spawn(fail, error, 1)
            group.spawn(nap, 100)
            tasks.extend(group.spawn(ran.append, number) for number in range(5))
        assert in_group(raised) == {error}
        return loop.clock()

    tasks, error = [], KeyError("mine")
    assert call(work) == 1001
    assert ran == []
    assert [outcome(task) for task in tasks] == [d.TaskCancelledError] * 5


def test_those_who_wait_for_their_turn_never_run_when_the_group_is_cancelled(loop, call):
    ran = []

    def work():
        with d.TaskGroup(limit=1) as group:
            group.spawn(nap, 100)
            for number in range(5):
                group.spawn(ran.append, number)
            d.sleep(1)
            group.cancel()
        return loop.clock()

    assert call(work) == 1001
    assert ran == []


# -- failures


def test_the_first_failure_cancels_the_rest_and_interrupts_the_body(loop, call):
    error = KeyError("mine")
    steps = []

    def work():
        with pytest.raises(ExceptionGroup) as raised, d.TaskGroup() as group:
            tasks = [group.spawn(nap, 100), group.spawn(fail, error, 2), group.spawn(nap, 1, "in time")]
            try:
                d.sleep(50)
            except d.Cancelled:
                steps.append(loop.clock())
                raise
        assert type(raised.value) is ExceptionGroup
        assert raised.value.exceptions == (error,)
        assert error.__traceback__ is not None
        assert tasks[1].done
        with pytest.raises(KeyError):
            tasks[1].result()
        return outcome(tasks[0]), outcome(tasks[2]), loop.clock()

    assert call(work) == (d.TaskCancelledError, "in time", 1002)
    assert steps == [1002]


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
        return in_group(raised), loop.clock()

    assert call(work) == (set(errors), 1004)


def test_a_failure_while_others_are_in_a_finally_that_waits_without_a_shield(loop, call):
    log = []

    def child():
        try:
            d.sleep(100)
        finally:
            try:
                d.sleep(100)
            finally:
                log.append(loop.clock())

    def work():
        with pytest.raises(ExceptionGroup), d.TaskGroup() as group:
            group.spawn(child)
            group.spawn(fail, KeyError(), 1)

    call(work)
    assert log == [1001]


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


def test_a_child_in_finally_when_a_failure_comes_is_interrupted_there(loop, call):
    log = []

    def child():
        try:
            d.sleep(1)
        finally:
            try:
                d.sleep(100)
            finally:
                log.append(loop.clock())

    def work():
        with pytest.raises(ExceptionGroup), d.TaskGroup() as group:
            group.spawn(child)
            group.spawn(fail, KeyError(), 5)

    call(work)
    assert log == [1005]


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


def test_except_star_picks_what_it_knows(loop, call):
    def work():
        seen = []
        try:
            with d.TaskGroup() as group:
                group.spawn(fail, KeyError("mine"), 1)
        except* KeyError as caught:
            seen.extend(caught.exceptions)
        return [type(error) for error in seen]

    assert call(work) == [KeyError]


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
def test_an_interrupt_in_a_child_of_top_level_code(loop, kind):
    log = []
    with pytest.raises(kind), d.TaskGroup() as group:
        group.spawn(stays, 2, log)
        group.spawn(fail, kind(), 1)
    assert log == [1003]
    d.sleep(1)
    assert loop.clock() == 1004


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_the_body_cancels_the_children_and_stays_bare(loop, kind):
    log = []

    def main():
        with d.TaskGroup() as group:
            group.spawn(stays, 2, log)
            d.sleep(1)
            raise kind

    with pytest.raises(kind):
        d.run(main)
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


# -- cancelled by hand


@pytest.mark.parametrize("by", ["the body", "a child", "another task", "call_soon", "a timer", "call_soon_threadsafe"])
def test_a_group_that_is_cancelled_by_hand_ends_quietly(loop, call, by):
    log = []

    def work():
        with d.TaskGroup() as group:
            tasks = [group.spawn(nap, 100), group.spawn(stays, 2, log)]
            d.sleep(1)
            if by == "the body":
                group.cancel("my reason")
            elif by == "a child":
                group.spawn(group.cancel, "my reason")
            elif by == "another task":
                d.spawn(group.cancel, "my reason")
            elif by == "call_soon":
                loop.call_soon(group.cancel, "my reason")
            elif by == "a timer":
                loop.add_timer(0, lambda: group.cancel("my reason"))
            else:
                loop.call_soon_threadsafe(group.cancel, "my reason")
            d.sleep(50)
            log.append("never")
        assert [outcome(task) for task in tasks] == [d.TaskCancelledError] * 2
        with pytest.raises(d.TaskCancelledError, match="my reason"):
            tasks[0].result()
        d.sleep(1)
        return loop.clock()

    assert call(work) == 1004
    assert log == [1003]


def test_a_group_may_be_cancelled_when_its_body_has_ended(loop, call):
    def work():
        with d.TaskGroup() as group:
            group.spawn(nap, 100)
            loop.add_timer(2, group.cancel)
        return loop.clock()

    assert call(work) == 1002


def test_cancelling_a_group_twice_and_after_the_block_is_harmless(loop, call):
    log = []

    def work():
        with d.TaskGroup() as group:
            group.spawn(stays, 3, log)
            d.sleep(1)
            group.cancel("first")
            group.cancel("second")
            loop.add_timer(1, group.cancel)
        group.cancel()
        d.sleep(1)
        return loop.clock()

    assert call(work) == 1005
    assert log == [1004]


def test_children_that_have_not_started_never_run_when_the_group_is_cancelled(loop, call):
    ran = []

    def work():
        with d.TaskGroup() as group:
            task = group.spawn(ran.append, 1)
            group.cancel()
        return outcome(task)

    assert call(work) is d.TaskCancelledError
    assert ran == []


def test_a_spawn_into_a_cancelled_group_makes_a_task_that_never_runs(loop, call):
    ran = []

    def work():
        with d.TaskGroup() as group:
            group.cancel("over")
            task = group.spawn(ran.append, 1)
            assert isinstance(task, d.Task)
        assert outcome(task) is d.TaskCancelledError
        return list(group.tasks)

    assert call(work) == []
    assert ran == []


def test_a_spawn_while_the_group_winds_up_after_a_failure_makes_a_task_that_never_runs(loop, call):
    ran, late = [], []

    def child(group):
        try:
            d.sleep(100)
        finally:
            late.append(group.spawn(ran.append, 1))
            with d.shield():
                d.sleep(1)
                late.append(group.spawn(ran.append, 2))

    def work():
        with pytest.raises(ExceptionGroup), d.TaskGroup() as group:
            group.spawn(child, group)
            group.spawn(fail, KeyError(), 1)
        return [outcome(task) for task in late]

    assert call(work) == [d.TaskCancelledError] * 2
    assert ran == []


def test_a_spawn_into_a_limited_group_that_is_cancelled_never_runs_either(loop, call):
    ran = []

    def work():
        with d.TaskGroup(limit=1) as group:
            group.cancel()
            tasks = [group.spawn(ran.append, number) for number in range(3)]
        return [outcome(task) for task in tasks]

    assert call(work) == [d.TaskCancelledError] * 3
    assert ran == []


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


def test_one_child_cancelled_by_hand_is_no_failure_and_costs_nobody_else(loop, call):
    def work():
        with d.TaskGroup() as group:
            one, other = group.spawn(nap, 100), group.spawn(nap, 5, "fine")
            d.sleep(1)
            assert one.cancel("enough") is True
            d.sleep(1)
            assert one.done
        return outcome(one), other.result(), loop.clock()

    assert call(work) == (d.TaskCancelledError, "fine", 1005)


def test_a_child_that_was_cancelled_by_hand_before_its_group_was_keeps_its_reason(loop, call):
    log = []

    def work():
        with d.TaskGroup() as group:
            task = group.spawn(stays, 3, log)
            d.sleep(1)
            task.cancel("the first reason")
            d.sleep(1)
            group.cancel("the second")
        with pytest.raises(d.TaskCancelledError, match="the first reason"):
            task.result()

    call(work)
    assert log == [1004]


@pytest.mark.parametrize("how", ["the child", "the group"])
def test_a_child_that_is_cancelled_when_its_turn_has_come_and_it_has_not_started(loop, call, how):
    ran = []

    def work():
        with d.TaskGroup(limit=1) as group:
            first = group.spawn(nap, 1)
            second, third = group.spawn(ran.append, 2), group.spawn(ran.append, 3)
            canceller = d.spawn(lambda: (first.join(), second.cancel() if how == "the child" else group.cancel()))
        canceller.join()
        return outcome(second), outcome(third)

    def at_its_very_end():
        with d.TaskGroup(limit=1) as group:
            tasks = []

            def first():
                d.sleep(1)
                loop.call_soon(tasks[0].cancel if how == "the child" else group.cancel)

            group.spawn(first)
            tasks.extend([group.spawn(ran.append, 2), group.spawn(ran.append, 3)])
        return [task.done for task in tasks]

    for body in (work, at_its_very_end):
        ran.clear()
        call(body)
        assert set(ran) <= {2, 3}
        assert (3 in ran) or how == "the group"


def test_a_reset_of_the_loop_ends_groups_and_children_and_runs_their_finally_blocks(loop):
    log = []

    def child(name):
        try:
            with d.shield(), d.timeout(500):
                d.sleep(1000)
        finally:
            log.append(name)

    def work():
        try:
            with d.timeout(900), d.TaskGroup(limit=2) as group:
                for name in ("one", "two", "never started"):
                    group.spawn(child, name)
                d.sleep(1000)
        finally:
            log.append("parent")

    task = d.spawn(work)
    d.sleep(1)
    loop.reset()
    assert task.done
    assert sorted(log) == ["one", "parent", "two"]
    assert len(loop.timers) == 0


def test_a_child_that_cancels_itself_is_no_failure(loop, call):
    def child():
        d.current_task().cancel()
        d.sleep(1)

    def work():
        with d.TaskGroup() as group:
            task, other = group.spawn(child), group.spawn(nap, 5, "fine")
        return outcome(task), other.result()

    assert call(work) == (d.TaskCancelledError, "fine")


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


def test_a_child_cancelled_before_it_started_costs_nobody_else(loop, call):
    ran = []

    def work():
        with d.TaskGroup() as group:
            group.spawn(ran.append, 1).cancel()
            group.spawn(ran.append, 2)

    call(work)
    assert ran == [2]


def test_a_group_that_is_cancelled_does_not_interrupt_what_is_around_it(loop, call):
    def work():
        with d.timeout(50) as scope, d.TaskGroup() as outer:
            task = outer.spawn(nap, 5, "fine")
            with d.TaskGroup() as inner:
                inner.spawn(nap, 100)
                inner.cancel()
            d.sleep(1)
        return task.result(), scope.cancelled_caught, loop.clock()

    assert call(work) == ("fine", False, 1005)


def test_cancelling_the_outer_group_ends_the_inner_one_too(loop, call):
    log = []

    def work():
        with d.TaskGroup() as outer:
            with d.TaskGroup() as inner:
                inner.spawn(stays, 2, log)
                d.sleep(1)
                outer.cancel()
                d.sleep(50)
            log.append("never")
        return loop.clock()

    assert call(work) == 1003
    assert log == [1003]


def test_a_body_that_waits_no_more_ends_when_the_children_of_its_cancelled_group_have(loop, call):
    log = []

    def work():
        with d.TaskGroup() as outer:
            outer.spawn(stays, 1, log)
            with d.TaskGroup() as inner:
                inner.spawn(stays, 2, log)
                d.sleep(1)
                outer.cancel()
        return loop.clock()

    assert call(work) == 1003
    assert log == [1002, 1003]


def test_from_a_real_thread(real_loop, in_thread):
    ran = []

    def work():
        with d.TaskGroup() as group:
            groups.append(group)
            d.sleep(50)
        return "ended quietly"

    groups = []
    task = d.spawn(work)
    d.sleep(0)
    with pytest.raises(d.ForeignThreadError):
        in_thread(groups[0].cancel)
    with pytest.raises(d.ForeignThreadError):
        in_thread(groups[0].spawn, ran.append, "in the wrong thread")
    in_thread(real_loop.call_soon_threadsafe, groups[0].spawn, ran.append, 1)
    d.sleep(0.01)
    in_thread(real_loop.call_soon_threadsafe, groups[0].cancel)
    task.join(10)
    assert task.result() == "ended quietly"
    assert ran == [1]


# -- cancelled from outside


@pytest.mark.parametrize("body_waits", [True, False], ids=["in the body", "at its end"])
def test_a_scope_around_a_group_cancels_the_children_at_once(loop, call, body_waits):
    log = []

    def work():
        with d.move_on_after(2) as scope:
            with d.TaskGroup() as group:
                tasks = [group.spawn(nap, 100), group.spawn(stays, 3, log)]
                if body_waits:
                    d.sleep(50)
            log.append("never")
        return [outcome(task) for task in tasks], scope.cancelled_caught, loop.clock()

    assert call(work) == ([d.TaskCancelledError] * 2, True, 1005)
    assert log == [1005]


def test_the_children_hear_of_it_even_while_the_body_is_in_a_shield(loop, call):
    log = []

    def work():
        with d.move_on_after(1) as scope, d.TaskGroup() as group:
            group.spawn(stays, 0, log)
            with d.shield():
                d.sleep(5)
            log.append("after the shield")
            d.sleep(5)
            log.append("never")
        return scope.cancelled_caught, loop.clock()

    assert call(work) == (True, 1005)
    assert log == [1001, "after the shield"]


def test_a_timeout_around_a_group_raises_timeout_error_bare(loop, call):
    def work():
        with pytest.raises(TimeoutError), d.timeout(2), d.TaskGroup() as group:
            group.spawn(nap, 100)
            group.spawn(nap, 1)
        return loop.clock()

    assert call(work) == 1002


@pytest.mark.parametrize("body_waits", [True, False], ids=["in the body", "at its end"])
def test_cancelling_the_parent_cancels_the_children_and_waits_for_them(loop, body_waits):
    log = []

    def work():
        try:
            with d.TaskGroup() as group:
                group.spawn(stays, 3, log)
                group.spawn(nap, 100)
                if body_waits:
                    d.sleep(50)
        except BaseException as error:
            log.append(type(error))
            raise

    task = d.spawn(work)
    d.sleep(1)
    task.cancel("my reason")
    task.join()
    with pytest.raises(d.TaskCancelledError, match="my reason"):
        task.result()
    assert log == [1004, d.Cancelled]


def test_a_parent_that_is_cancelled_before_its_children_have_started_runs_none(loop):
    ran = []

    def work():
        with d.TaskGroup() as group:
            group.spawn(ran.append, 1)
            d.current_task().cancel()

    task = d.spawn(work)
    task.join()
    assert outcome(task) is d.TaskCancelledError
    assert ran == []


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


def test_a_group_in_a_shield_is_not_cancelled_from_outside(loop):
    log = []

    def work():
        with d.shield(), d.TaskGroup() as group:
            task = group.spawn(nap, 5, "fine")
        log.append((task.result(), loop.clock()))
        d.sleep(1)

    task = d.spawn(work)
    d.sleep(1)
    task.cancel()
    task.join()
    assert outcome(task) is d.TaskCancelledError
    assert log == [("fine", 1005)]


def test_a_shield_in_a_child_holds_off_the_group(loop, call):
    def child():
        with d.shield():
            d.sleep(5)
        return "through"

    def work():
        with d.TaskGroup() as group:
            task = group.spawn(child)
            d.sleep(1)
            group.cancel()
        return task.result(), loop.clock()

    assert call(work) == ("through", 1005)


def test_when_main_ends_by_a_failure_of_its_group_nothing_is_left(loop):
    def main():
        with d.TaskGroup() as group:
            group.spawn(nap, 100)
            group.spawn(fail, KeyError("mine"), 1)

    with pytest.raises(ExceptionGroup):
        d.run(main)
    assert loop.clock() == 1001


# -- scopes and children


def test_the_deadline_of_a_child_counts_the_scopes_around_its_group(loop, call):
    def child():
        with d.timeout(50):
            return d.current_deadline()

    def work():
        with d.timeout(9), d.TaskGroup() as group:
            plain, own = group.spawn(d.current_deadline), group.spawn(child)
            with d.timeout(3):
                narrower = group.spawn(d.current_deadline)
            loop.call_soon(lambda: tasks.append(group.spawn(d.current_deadline)))
            d.sleep(1)
        with d.timeout(9), d.shield(), d.TaskGroup() as group:
            shielded = group.spawn(d.current_deadline)
        return [task.result() for task in (plain, own, narrower, *tasks, shielded)]

    tasks = []
    assert call(work) == [1009, 1009, 1009, 1009, None]


def test_a_scope_within_the_block_does_not_limit_the_children_that_are_spawned_in_it(loop, call):
    def work():
        with d.TaskGroup() as group:
            with d.move_on_after(1):
                task = group.spawn(nap, 5, "fine")
                d.sleep(10)
            assert loop.clock() == 1001
        return task.result()

    assert call(work) == "fine"


def test_a_scope_of_a_child_is_nothing_to_the_grandchildren_that_it_spawns_into_the_group(loop, call):
    def child(group):
        with d.move_on_after(1):
            tasks.append(group.spawn(nap, 5, "fine"))
            d.sleep(10)

    def work():
        with d.TaskGroup() as group:
            group.spawn(child, group)
        return tasks[0].result()

    tasks = []
    assert call(work) == "fine"


def test_a_child_of_a_cancelled_group_sees_no_time_left(loop, call):
    def child():
        try:
            d.sleep(100)
        except d.Cancelled:
            return d.current_deadline()

    def work():
        with d.TaskGroup() as group:
            task = group.spawn(child)
            d.sleep(1)
            group.cancel()
        return task.result()

    assert call(work) == -math.inf


def test_moving_the_deadline_around_a_group_moves_that_of_its_children(loop, call):
    def child():
        with contextlib.suppress(d.Cancelled):
            d.sleep(100)
        return loop.clock()

    def work():
        with d.move_on_after(3) as scope, d.TaskGroup() as group:
            task = group.spawn(child)
            d.sleep(1)
            scope.deadline = 1010
            assert d.current_deadline() == 1010
        return task.result()

    assert call(work) == 1010


def test_a_childs_own_scope_lets_the_interruption_of_the_group_pass(loop, call):
    scopes = []

    def child():
        with d.timeout(5) as scope:
            scopes.append(scope)
            d.sleep(100)

    def work():
        with d.move_on_after(5) as outer, d.TaskGroup() as group:
            group.spawn(child)
        return outer.cancelled_caught

    assert call(work) is True
    assert scopes[0].cancelled_caught is False


def test_swallowing_children_are_interrupted_again(loop, call):
    seen = []

    def child():
        for _ in range(3):
            try:
                d.sleep(100)
            except d.Cancelled:
                seen.append(loop.clock())

    def work():
        with d.TaskGroup() as group:
            group.spawn(child)
            d.sleep(1)
            group.cancel()

    call(work)
    assert seen == [1001] * 3


# -- at random


class Jumble:
    """Tasks with groups and scopes in groups and scopes, cancelled and rescheduled at random by timers.

    `chain` is what is around a piece of code, from the outside in: tasks, scopes, groups, and None for a shield.
    """

    def __init__(self, loop, seed):
        self.loop = loop
        self.dice = random.Random(seed)
        self.cancelled = set()  # tasks and groups, by hand
        self.caught = self.interrupted = 0
        self.pieces = 60

    def run(self):
        task = d.spawn(self.actor, [])
        task.join(10_000)
        with contextlib.suppress(d.TaskCancelledError):
            task.result()

    def is_cancelled(self, chain):
        """Whether a wait inside all of this is to be interrupted."""
        for around in reversed(chain):
            if around is None:
                return False
            if around in self.cancelled or getattr(around, "cancelled", None) is True:
                return True
        return False

    def some_time(self):
        return self.dice.randrange(8) * 0.25

    def actor(self, chain):
        task = d.current_task()
        self.body([*chain, task])
        return "through"

    def body(self, chain):
        for _ in range(self.dice.randint(1, 4)):
            self.pieces -= 1
            if self.pieces < 0:
                return self.nap(chain)
            piece = self.dice.choice((self.nap, self.scoped, self.scoped, self.shielded, self.grouped, self.swallowing))
            piece(chain)
        return None

    def nap(self, chain):
        before = self.is_cancelled(chain)
        try:
            d.sleep(self.some_time())
        except d.Cancelled:
            self.interrupted += 1
            assert self.is_cancelled(chain), "interrupted for nothing"
            raise
        assert not before, "it waited although it was cancelled"

    def swallowing(self, chain):
        with contextlib.suppress(d.Cancelled):
            self.body(chain)

    def shielded(self, chain):
        with d.shield():
            self.body([*chain, None])

    def scoped(self, chain):
        scope = self.dice.choice((d.timeout, d.move_on_after))(self.dice.choice((None, self.some_time())))
        raises = False
        try:
            with scope:
                self.trouble(chain, scope)
                self.body([*chain, scope])
        except TimeoutError:
            raises = True
        except d.Cancelled:
            assert self.is_cancelled(chain), "out of its own block"
            assert not scope.cancelled_caught
            raise
        assert not raises or scope.cancelled_caught
        if scope.cancelled_caught:
            self.caught += 1
            assert scope.cancelled
            assert not self.is_cancelled(chain), "caught what belongs to one further out"

    def grouped(self, chain):
        group, tasks = d.TaskGroup(self.dice.choice((None, 1, 2))), []
        inside = [*chain, group]
        try:
            with group:
                for _ in range(self.dice.randint(1, 3)):
                    tasks.append(group.spawn(self.actor, inside))
                    self.trouble(chain, tasks[-1], group)
                self.body(inside)
        except d.Cancelled:
            assert self.is_cancelled(chain), "out of its own block"
            raise
        finally:
            assert all(task.done for task in tasks)
            assert not group.tasks
        for task in tasks:
            try:
                assert task.result() == "through"
            except d.TaskCancelledError:
                assert self.is_cancelled([*inside, task])

    def trouble(self, chain, *targets):
        for target in targets:
            if self.dice.random() < 0.4:
                self.loop.add_timer(self.some_time(), lambda target=target: self.strike(target))

    def strike(self, target):
        if hasattr(target, "reschedule"):
            if self.dice.random() < 0.5:
                target.reschedule(self.dice.choice((None, self.loop.clock() + self.some_time() - 0.5)))
            else:
                target.cancel("by hand")
        elif isinstance(target, d.TaskGroup):
            self.cancelled.add(target)
            target.cancel("by hand")
        elif target.cancel("by hand"):
            self.cancelled.add(target)


def test_whatever_is_cancelled_at_random_the_rules_hold(loop):
    caught = interrupted = 0
    for seed in range(300):
        jumble = Jumble(loop, seed)
        try:
            jumble.run()
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        caught += jumble.caught
        interrupted += jumble.interrupted
    d.sleep(10)  # for the strikes that came too late
    assert caught > 100
    assert interrupted > 1000
