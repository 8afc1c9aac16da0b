"""Groups: tasks that end before the block does, limits, cancelling. What comes out is in test_group_failures."""

# ruff: noqa: PT012  what is raised at the end of a block has that block inside

from __future__ import annotations

import contextlib
import contextvars
import gc
import math
import random
import weakref

import pytest

import dangagreen as d
from dangagreen.green.sched import scheduler
from tests.helpers import fail, in_group, nap, outcome, stays

var = contextvars.ContextVar("var", default="unset")


# -- all goes well


def test_children_end_before_the_block_does_and_keep_their_results(loop, call):
    def work():
        with d.TaskGroup() as group:
            tasks = [group.spawn(nap, seconds, value=seconds * 10) for seconds in (3, 1, 2)]
            assert all(isinstance(task, d.Task) for task in tasks)
            assert loop.clock() == 1000
        assert loop.clock() == 1003
        assert len(loop.timers) == 0
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
            task = group.spawn(child, 1, 2, function=3, limit=4)
            assert ran == []
            assert not task.done
            assert "not started" in repr(task)
            assert "test_groups.py" in task.spawned_at
            assert task.name.endswith("child")

    call(work)
    assert ran == [((1, 2), {"function": 3, "limit": 4})]


def test_spawn_of_something_that_is_no_function(loop, call):
    def work():
        with d.TaskGroup() as group, pytest.raises(TypeError, match="spawn needs a function"):
            group.spawn(5)

    call(work)


def test_a_group_knows_those_of_its_tasks_that_have_not_ended(loop, call):
    def work():
        with d.TaskGroup() as group:
            long, short = group.spawn(nap, 3), group.spawn(nap, 1)
            assert group.tasks == [long, short]
            d.sleep(2)
            assert group.tasks == [long]
        assert group.tasks == []

    call(work)


def test_a_group_says_what_it_is(loop, in_task):
    def work():
        with d.TaskGroup() as group:
            assert repr(group) == "<TaskGroup of 0 tasks>"
            group.spawn(nap, 1)
            assert repr(group) == "<TaskGroup of 1 task>"
            me = d.current_task()
            loop.add_timer(0.5, lambda: seen.append(me.waits_for))

    seen = []
    in_task(work)
    assert seen == ["leaving of <TaskGroup of 1 task>"]


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


@pytest.mark.parametrize("limit", [None, 10])
def test_groups_of_thousands(loop, call, limit):
    def work():
        with d.TaskGroup(limit) as group:
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
                    outer.spawn(nap, 2)
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
        with pytest.raises(RuntimeError, match="block has not begun, or is over"):
            group.spawn(ran.append, 1)

    call(work)
    assert list(scheduler(loop).tasks) == []
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
        with pytest.raises(RuntimeError, match="block has not begun, or is over"):
            d.TaskGroup().spawn(int)

    call(work)


def test_a_group_is_used_once(loop, call):
    def work():
        group = d.TaskGroup()
        with group:
            with pytest.raises(RuntimeError, match="used once"), group:
                pass
            group.spawn(nap, 1)
        with pytest.raises(RuntimeError, match="used once"), group:
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


def test_a_group_left_in_disorder_says_so_and_cancels_its_tasks(loop, call):
    def work():
        group, scope = d.TaskGroup(), d.timeout(50)
        group.__enter__()
        child = group.spawn(nap, 100)
        with scope:
            with pytest.raises(RuntimeError, match=r"TaskGroup.*left before.*timeout\(50\)"):
                group.__exit__(None, None, None)
            d.sleep(1)
        assert child.done
        with pytest.raises(RuntimeError, match="not open"):
            group.__exit__(None, None, None)
        return loop.clock()

    assert call(work) == 1001


def test_a_group_left_in_a_callback_cannot(loop):
    raised = []
    group = d.TaskGroup()

    def parent():
        group.__enter__()
        group.spawn(nap, 100)
        d.sleep(2)

    def my_callback():
        try:
            group.__exit__(None, None, None)
        except d.CannotParkError as error:
            raised.append(error)

    task = d.spawn(parent)
    loop.add_timer(1, my_callback)
    task.join()
    assert "my_callback" in str(raised[0])
    d.sleep(0)
    assert loop.clock() == 1002
    assert list(scheduler(loop).tasks) == []  # the parent's end was theirs


def test_a_generator_with_a_group_that_is_closed_in_its_task_waits(loop, call):
    def generator():
        with d.TaskGroup() as group:
            group.spawn(nap, 5)
            yield group

    def work():
        held = generator()
        group = next(held)
        held.close()
        return group.tasks, loop.clock()

    assert call(work) == ([], 1000)


def test_a_task_that_ends_with_an_open_group_ends_its_tasks(loop, take_errors):
    groups = [d.TaskGroup()]

    def child():
        try:
            d.sleep(100)
        finally:
            raise ValueError

    def work():
        groups[0].__enter__()
        groups[0].spawn(child)
        d.sleep(1)

    d.spawn(work).join()
    d.sleep(1)
    assert groups[0].tasks == []
    assert [type(context.exception) for context in take_errors()] == [ValueError]


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
    with pytest.raises(ValueError, match="no task could ever run"):
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
            assert "not started" in repr(tasks[1])
            assert "a place in <TaskGroup of 4 tasks, 3 of them not started>" in tasks[1].waits_for
            assert tasks[1].cancel("changed my mind") is True
            assert tasks[1].cancel() is True
            tasks[1].join()
            assert loop.clock() == 1000.5
            with pytest.raises(d.TaskCancelledError, match="changed my mind"):
                tasks[1].result()
            d.sleep(0.25)
            assert ran == [0]
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
            tasks = [group.spawn(ran.append, number) for number in range(100)]
            d.sleep(1)
            group.cancel()
        return {outcome(task) for task in tasks}, loop.clock()

    assert call(work) == ({d.TaskCancelledError}, 1001)
    assert ran == []


# -- cancelled by hand


@pytest.mark.parametrize("by", ["the body", "a child", "another task", "call_soon", "a timer", "call_soon_threadsafe"])
def test_a_group_that_is_cancelled_by_hand_ends_quietly(loop, call, by):
    log, reasons = [], []

    def told():
        try:
            d.sleep(100)
        except d.Cancelled as error:
            reasons.append((loop.clock(), error.reason))
            raise

    def work():
        with d.TaskGroup() as group:
            tasks = [group.spawn(told), group.spawn(stays, 2, log)]
            d.sleep(1)
            if by == "the body":
                group.cancel("my reason")
            elif by == "a child":
                group.spawn(lambda: (group.cancel("my reason"), log.append("goes on")))
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
    assert log == ["goes on", 1003] if by == "a child" else [1003]
    assert reasons == [(1001, "my reason")]


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
            assert task in group.tasks
        with pytest.raises(d.TaskCancelledError, match="over"):
            task.result()
        return list(group.tasks)

    assert call(work) == []
    assert ran == []


def test_a_spawn_into_a_group_of_an_expired_scope_never_runs(loop, call):
    ran = []

    def work():
        with d.move_on_after(0) as scope, d.TaskGroup() as group:
            group.spawn(ran.append, 1)
        return scope.cancelled_caught

    assert call(work) is True
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


def test_one_child_cancelled_by_hand_is_no_failure_and_costs_nobody_else(loop, call):
    def work():
        with d.TaskGroup() as group:
            one, other = group.spawn(nap, 100), group.spawn(nap, 5, "fine")
            d.sleep(1)
            assert one.cancel("enough") is True
            d.sleep(1)
            assert one.done
        with pytest.raises(d.TaskCancelledError, match="enough"):
            one.result()
        return other.result(), loop.clock()

    assert call(work) == ("fine", 1005)


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


def test_a_child_that_cancels_itself_is_no_failure(loop, call):
    def child():
        d.current_task().cancel()
        d.sleep(1)

    def work():
        with d.TaskGroup() as group:
            task, other = group.spawn(child), group.spawn(nap, 5, "fine")
        return outcome(task), other.result()

    assert call(work) == (d.TaskCancelledError, "fine")


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


def test_swallowing_children_are_interrupted_again(loop, call):
    seen = []

    def child():
        for _ in range(3):
            try:
                d.sleep(100)
            except d.Cancelled:
                seen.append(loop.clock())
        return "stubborn"

    def work():
        with d.TaskGroup() as group:
            task = group.spawn(child)
            d.sleep(1)
            group.cancel()
        return task.result()

    assert call(work) == "stubborn"
    assert seen == [1001] * 3


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
            child = group.spawn(nap, 100)
            group.spawn(nap, 1)
        assert child.done
        assert len(loop.timers) == 0
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
    task.cancel("again")
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


def test_the_end_of_a_block_is_a_wait_that_looks_for_cancellation(loop, call):
    def work():
        with d.move_on_after() as scope:
            scope.cancel()
            with d.TaskGroup():
                pass
            raise AssertionError
        return scope.cancelled_caught

    assert call(work) is True


def test_a_cancelled_of_ones_own_making_passes_through(loop):
    def work():
        with d.TaskGroup() as group:
            group.spawn(nap, 3)
            raise d.Cancelled("my own")

    task = d.spawn(work)
    task.join()
    with pytest.raises(d.TaskCancelledError, match="my own"):
        task.result()
    assert loop.clock() == 1003


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


def test_nested_groups_die_at_once_from_the_top(loop):
    ended = []

    def tree(depth):
        try:
            with d.TaskGroup() as group:
                if depth:
                    group.spawn(tree, depth - 1)
                    group.spawn(tree, depth - 1)
                d.sleep(1000)
        finally:
            ended.append((depth, loop.clock()))

    task = d.spawn(tree, 5)
    d.sleep(1)
    task.cancel()
    assert all(other.interrupt is not None for other in scheduler(loop).tasks)
    task.join()
    assert len(ended) == 63
    assert {time for _, time in ended} == {1001}
    assert [depth for depth, _ in ended][-1] == 5


def test_a_chain_of_a_thousand_groups(loop):
    deepest = []

    def chain(depth):
        with d.TaskGroup() as group:
            if depth:
                group.spawn(chain, depth - 1)
            else:
                deepest.append(d.current_task())
                d.sleep(1e6)

    task = d.spawn(chain, 1000)
    d.sleep(1)
    assert d.current_deadline() is None
    task.cancel("all of you")
    task.join()
    with pytest.raises(d.TaskCancelledError, match="all of you"):
        deepest[0].result()


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


def test_the_deadline_of_a_child_counts_its_own_scopes_and_those_around_nested_groups(loop, call):
    seen = []

    def look():
        seen.append(d.current_deadline())
        with d.timeout(5):
            seen.append(d.current_deadline())
        with d.timeout(50), d.shield():
            seen.append(d.current_deadline())

    def nested():
        with d.timeout(30), d.TaskGroup() as group:
            group.spawn(look)

    def work():
        with d.timeout(20) as outer, d.TaskGroup() as group:
            group.spawn(look).join()
            group.spawn(nested).join()
            outer.deadline = 1100
            with d.shield(), d.TaskGroup() as shielded:
                shielded.spawn(look)
            with d.timeout(1):  # not around the group
                group.spawn(look).join()

    call(work)
    assert seen == [1020, 1005, None, 1020, 1005, None, None, 1005, None, 1100, 1005, None]


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


# -- the end of the loop, and what is left


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

    tasks = [d.spawn(work), d.spawn(work)]
    d.sleep(1)
    loop.reset()
    assert all(task.done for task in tasks)
    assert list(scheduler(loop).tasks) == []
    assert sorted(log) == ["one", "one", "parent", "parent", "two", "two"]
    assert len(loop.timers) == 0


def test_reset_in_the_block_of_top_level_code(loop):
    with d.TaskGroup(limit=1) as group:
        started, waiting = group.spawn(nap, 5), group.spawn(nap, 5)
        d.sleep(1)
        loop.reset()
        assert group.tasks == []
    assert started.done
    assert waiting.done


def test_when_main_ends_groups_of_other_tasks_are_wound_up(loop):
    steps = []

    def child():
        try:
            d.sleep(100)
        finally:
            steps.append("child")

    def other():
        try:
            with d.TaskGroup() as group:
                group.spawn(child)
        finally:
            steps.append("other")

    def main():
        d.spawn(other)
        d.sleep(1)

    d.run(main)
    assert steps == ["child", "other"]


def test_a_group_keeps_nothing_alive_after_its_end(loop, call):
    class Thing:
        pass

    refs = []

    def work():
        thing = Thing()
        refs.append(weakref.ref(thing))
        with d.TaskGroup(limit=1) as group:
            group.spawn(lambda thing: d.sleep(1), thing)
            refs.append(weakref.ref(group.spawn(lambda thing: None, thing)))
            cancelled = group.spawn(lambda thing: None, thing)
            cancelled.cancel()
            refs.append(weakref.ref(cancelled))
            del cancelled
        return group

    gc.disable()
    try:
        group = call(work)
        assert group.tasks == []
        assert [ref() for ref in refs] == [None] * 3
    finally:
        gc.enable()


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
