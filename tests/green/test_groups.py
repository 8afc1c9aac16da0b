"""Groups: tasks that end before the block does, their failures, their cancellation, limits on how many run."""

from __future__ import annotations

import contextlib
import gc
import weakref

import pytest

import dangagreen as d
from dangagreen.green.sched import scheduler, wake


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


@contextlib.contextmanager
def fails(*kinds):
    """The block raises an ExceptionGroup of just these kinds, in this order."""
    with pytest.raises(ExceptionGroup) as caught:
        yield caught
    assert [type(error) for error in caught.value.exceptions] == list(kinds)


@contextlib.contextmanager
def leaves(kind):
    """The block raises just that, and no group."""
    with pytest.raises(kind) as caught:
        yield caught
    assert not isinstance(caught.value, BaseExceptionGroup)


def after(seconds, error=None, result=None):
    """Work that takes some time, and then raises or returns."""
    d.sleep(seconds)
    if error is not None:
        raise error
    return result


def protected(seconds, error=None):
    """The same, and it cannot be cancelled meanwhile."""
    with d.shield():
        after(seconds, error)


# -- the usual course


def test_the_block_waits_for_its_tasks_and_they_keep_their_results(loop, anywhere):
    def work():
        with d.TaskGroup() as group:
            tasks = [group.spawn(after, number, result=number) for number in (3, 1, 2)]
            assert group.tasks == tasks
            d.sleep(1.5)
            assert group.tasks == [tasks[0], tasks[2]]
        assert group.tasks == []
        return [task.result() for task in tasks]

    assert anywhere(work) == [3, 1, 2]
    assert loop.clock() == 1003
    assert len(loop.timers) == 0


def test_an_empty_group_ends_at_once(loop, anywhere):
    def work():
        with d.TaskGroup():
            pass

    anywhere(work)
    assert loop.clock() == 1000


def test_spawn_never_parks_and_says_where_it_was(loop, in_task):
    def work():
        with d.TaskGroup() as group:
            task = group.spawn(after, 1)
            assert not task.done
            assert "not started" in repr(task)
            assert "test_groups.py" in task.spawned_at
            assert task.name == "after"

    in_task(work)


def test_what_cannot_be_called_is_refused(loop, in_task):
    def work():
        with d.TaskGroup() as group, pytest.raises(TypeError, match="spawn needs a function"):
            group.spawn(after(0))

    in_task(work)


def test_tasks_and_callbacks_may_spawn_into_the_group(loop, in_task):
    ended = []

    def child(group, depth):
        d.sleep(1)
        if depth:
            group.spawn(child, group, depth - 1)
        ended.append((depth, loop.clock()))

    def work():
        with d.TaskGroup() as group:
            group.spawn(child, group, 3)
            loop.add_timer(0.5, lambda: group.spawn(ended.append, "callback's"))
        return loop.clock()

    assert in_task(work) == 1004
    assert ended == ["callback's", (3, 1001), (2, 1002), (1, 1003), (0, 1004)]


def test_no_spawn_before_or_after_the_block(loop, in_task):
    def work():
        group = d.TaskGroup()
        with pytest.raises(RuntimeError, match="block has not begun, or is over"):
            group.spawn(after, 1)
        with group:
            pass
        with pytest.raises(RuntimeError, match="block has not begun, or is over"):
            group.spawn(after, 1)
        with pytest.raises(RuntimeError, match="used once"), group:
            raise AssertionError

    in_task(work)
    assert list(scheduler(loop).tasks) == []


def test_no_spawn_from_another_thread(loop, in_task, in_thread):
    def work():
        with d.TaskGroup() as group:
            with pytest.raises(d.ForeignThreadError):
                in_thread(group.spawn, after, 1)
            with pytest.raises(d.ForeignThreadError):
                in_thread(group.cancel)

    in_task(work)


def test_a_child_may_be_joined_by_its_parent_and_its_siblings(loop, in_task):
    def work():
        with d.TaskGroup() as group:
            first = group.spawn(after, 1, result="first")
            second = group.spawn(lambda: (first.join(), first.result())[1])
            first.join()
            assert loop.clock() == 1001
        return second.result()

    assert in_task(work) == "first"


# -- failures


def test_the_first_failure_cancels_the_rest_and_interrupts_the_body(loop, anywhere):
    seen = []

    def work():
        with fails(ValueError) as caught, d.TaskGroup() as group:
            group.spawn(after, 1, ValueError("mine"))
            other = group.spawn(after, 100)
            try:
                d.sleep(50)
            except d.Cancelled as error:
                seen.append((loop.clock(), error.reason))
                raise
        assert caught.value.exceptions[0].__traceback__ is not None
        assert caught.value.__suppress_context__  # the Cancelled of the body is no news
        with pytest.raises(d.TaskCancelledError, match="'after' of its group failed"):
            other.result()

    anywhere(work)
    ((time, reason),) = seen
    assert time == 1001
    assert "after" in reason


def test_a_failure_while_the_block_waits(loop, anywhere):
    def work():
        with fails(ValueError), d.TaskGroup() as group:
            group.spawn(after, 1, ValueError())
            group.spawn(after, 100)
        return loop.clock()

    assert anywhere(work) == 1001


def test_failures_of_those_that_are_cancelled_are_added(loop, in_task):
    def stubborn():
        try:
            d.sleep(100)
        finally:
            protected(3, KeyError("in finally"))

    def work():
        with fails(ValueError, KeyError), d.TaskGroup() as group:
            group.spawn(stubborn)
            group.spawn(after, 1, ValueError())
        return loop.clock()

    assert in_task(work) == 1004


def test_the_body_fails_too(loop, anywhere):
    def work():
        with fails(KeyError, ValueError), d.TaskGroup() as group:
            group.spawn(protected, 2, ValueError())
            d.sleep(1)
            raise KeyError
        with fails(KeyError), d.TaskGroup():
            raise KeyError

    anywhere(work)


def test_the_groups_error_can_be_taken_apart(loop, in_task):
    def work():
        taken = []
        try:
            with d.TaskGroup() as group:
                group.spawn(after, 1, ValueError("v"))
                group.spawn(protected, 2, OSError("o"))
        except* ValueError as errors:
            taken += errors.exceptions
        except* OSError as errors:
            taken += errors.exceptions
        return [type(error) for error in taken]

    assert in_task(work) == [ValueError, OSError]


def test_a_failure_is_not_reported_as_well(loop, in_task, take_errors):
    def work():
        with fails(ValueError), d.TaskGroup() as group:
            group.spawn(after, 1, ValueError())

    in_task(work)
    assert take_errors() == []


def test_one_child_cancelled_by_hand_is_no_failure_and_harms_nobody(loop, anywhere):
    def work():
        with d.TaskGroup() as group:
            first, second = group.spawn(after, 50), group.spawn(after, 5, result="fine")
            d.sleep(1)
            first.cancel("by hand")
        assert loop.clock() == 1005
        with pytest.raises(d.TaskCancelledError, match="by hand"):
            first.result()
        return second.result()

    assert anywhere(work) == "fine"


def test_an_exception_of_an_unusual_base_makes_a_base_group(loop, in_task, take_errors):
    class Unusual(BaseException):
        pass

    def work():
        with d.TaskGroup() as group:
            group.spawn(protected, 1, Unusual())
            group.spawn(protected, 2, ValueError())

    with pytest.raises(BaseExceptionGroup) as caught:
        in_task(work)
    assert not isinstance(caught.value, ExceptionGroup)
    assert {type(error) for error in caught.value.exceptions} == {Unusual, ValueError}


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_keyboard_interrupt_and_system_exit_of_a_child_leave_the_block_bare(loop, anywhere, kind):
    ended = []

    def patient():
        try:
            d.sleep(100)
        finally:
            ended.append(loop.clock())

    def work():
        with leaves(kind), d.TaskGroup() as group:
            group.spawn(patient)
            group.spawn(after, 1, kind("out"))
            d.sleep(50)
        d.sleep(1)
        return "goes on"

    assert anywhere(work) == "goes on"
    assert ended == [1001]


def test_failures_beside_a_bare_one_are_its_cause(loop, in_task):
    def work():
        with leaves(SystemExit) as caught, d.TaskGroup() as group:
            group.spawn(protected, 1, ValueError())
            group.spawn(protected, 2, SystemExit(3))
        return caught.value.code, [type(error) for error in caught.value.__cause__.exceptions]

    assert in_task(work) == (3, [ValueError])


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_the_bodys_own_interrupt_waits_for_the_children_and_leaves_bare(loop, in_task, kind):
    def work():
        with leaves(kind) as caught, d.TaskGroup() as group:
            group.spawn(cleans_up, 3)
            d.sleep(1)
            raise kind("mine")
        assert str(caught.value) == "mine"
        return loop.clock()

    def cleans_up(seconds):
        try:
            d.sleep(100)
        finally:
            with d.shield():
                d.sleep(seconds)

    assert in_task(work) == 1004


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
        quick, slow = group.spawn(after, 50), group.spawn(protected, 100)
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


# -- cancelling


def test_cancel_ends_the_block_quietly_with_its_tasks(loop, anywhere):
    reasons = []

    def child():
        try:
            d.sleep(100)
        except d.Cancelled as error:
            reasons.append((loop.clock(), error.reason))
            raise

    def work():
        with d.TaskGroup() as group:
            tasks = [group.spawn(child) for _ in range(3)]
            loop.add_timer(1, lambda: group.cancel("enough"))
            d.sleep(50)
        assert all(task.done for task in tasks)
        return loop.clock()

    assert anywhere(work) == 1001
    assert reasons == [(1001, "enough")] * 3


def test_a_child_may_cancel_its_group(loop, in_task):
    def work():
        with d.TaskGroup() as group:
            winner = group.spawn(lambda: (d.sleep(1), group.cancel(), "won")[2])
            group.spawn(after, 100)
        return winner.result(), loop.clock()

    assert in_task(work) == ("won", 1001)


def test_a_spawn_into_a_cancelled_group_never_runs(loop, in_task):
    ran = []

    def work():
        with d.TaskGroup() as group:
            group.cancel("no more")
            task = group.spawn(ran.append, 1)
            assert task in group.tasks
        return task

    task = in_task(work)
    assert ran == []
    with pytest.raises(d.TaskCancelledError, match="no more"):
        task.result()


def test_a_spawn_into_a_group_of_an_expired_scope_never_runs(loop, in_task):
    ran = []

    def work():
        with d.move_on_after(0) as scope, d.TaskGroup() as group:
            group.spawn(ran.append, 1)
        return scope.cancelled_caught

    assert in_task(work) is True
    assert ran == []


def test_cancelling_the_parent_ends_the_children_at_once_and_then_the_parent(loop):
    steps = []

    def child():
        try:
            d.sleep(100)
        finally:
            steps.append(("child", loop.clock()))
            with d.shield():
                d.sleep(3)

    def work():
        try:
            with d.TaskGroup() as group:
                group.spawn(child)
        finally:
            steps.append(("parent", loop.clock()))

    task = d.spawn(work)
    d.sleep(1)
    task.cancel("outside")
    task.cancel("again")
    task.join()
    assert steps == [("child", 1001), ("parent", 1004)]
    with pytest.raises(d.TaskCancelledError, match="outside"):
        task.result()


def test_a_timeout_around_a_group_ends_it_and_converts(loop, anywhere):
    def work():
        with pytest.raises(TimeoutError), d.timeout(2), d.TaskGroup() as group:
            child = group.spawn(after, 100)
        assert child.done
        return loop.clock()

    assert anywhere(work) == 1002
    assert len(loop.timers) == 0


def test_a_timeout_in_a_child_is_its_own_and_of_equal_ones_the_outer_converts(loop, in_task):
    inner = []

    def child(seconds):
        with d.timeout(seconds) as scope:
            inner.append(scope)
            d.sleep(100)

    def work():
        with fails(TimeoutError), d.timeout(5), d.TaskGroup() as group:
            group.spawn(child, 1)
        with pytest.raises(TimeoutError), d.timeout(5), d.TaskGroup() as group:
            group.spawn(child, 5)
        return [scope.cancelled_caught for scope in inner]

    assert in_task(work) == [True, False]


def test_a_failure_outweighs_a_cancellation_from_outside_which_comes_at_the_next_wait(loop, in_task):
    def child():
        try:
            d.sleep(100)
        finally:
            raise ValueError

    def work():
        with d.move_on_after(1) as scope:
            with fails(ValueError), d.TaskGroup() as group:
                group.spawn(child)
            d.sleep(100)
        return scope.cancelled_caught, loop.clock()

    assert in_task(work) == (True, 1001)


def test_a_shield_around_the_group_keeps_its_children(loop):
    def work():
        with d.shield(), d.TaskGroup() as group:
            child = group.spawn(after, 10, result="kept")
        assert child.result() == "kept"
        d.sleep(1)

    task = d.spawn(work)
    d.sleep(1)
    task.cancel()
    task.join()
    assert loop.clock() == 1010
    with pytest.raises(d.TaskCancelledError):
        task.result()


def test_a_shield_in_the_body_protects_the_body_and_not_the_children(loop):
    ended = []

    def child():
        try:
            d.sleep(100)
        finally:
            ended.append(("child", loop.clock()))

    def work():
        with d.TaskGroup() as group:
            group.spawn(child)
            with d.shield():
                d.sleep(10)
            ended.append(("body", loop.clock()))

    task = d.spawn(work)
    d.sleep(1)
    task.cancel()
    task.join()
    assert ended == [("child", 1001), ("body", 1010)]
    with pytest.raises(d.TaskCancelledError):
        task.result()


def test_a_shield_in_a_child_protects_it(loop, in_task):
    def child():
        with d.shield():
            d.sleep(10)
        return "done"

    def work():
        with d.TaskGroup() as group:
            task = group.spawn(child)
            d.sleep(1)
            group.cancel()
        return task.result(), loop.clock()

    assert in_task(work) == ("done", 1010)


def test_the_end_of_a_block_is_a_wait_that_looks_for_cancellation(loop, in_task):
    def work():
        with d.move_on_after() as scope:
            scope.cancel()
            with d.TaskGroup():
                pass
            raise AssertionError
        return scope.cancelled_caught

    assert in_task(work) is True


def test_a_cancelled_of_ones_own_making_passes_through(loop):
    def work():
        with d.TaskGroup() as group:
            group.spawn(after, 3)
            raise d.Cancelled("my own")

    task = d.spawn(work)
    task.join()
    with pytest.raises(d.TaskCancelledError, match="my own"):
        task.result()
    assert loop.clock() == 1003


def test_a_child_that_swallows_its_cancellation_is_interrupted_again(loop, in_task):
    times = []

    def child():
        for _ in range(3):
            with contextlib.suppress(d.Cancelled):
                d.sleep(100)
            times.append(loop.clock())
        return "stubborn"

    def work():
        with d.TaskGroup() as group:
            task = group.spawn(child)
            d.sleep(1)
            group.cancel()
        return task.result()

    assert in_task(work) == "stubborn"
    assert times == [1001] * 3


# -- nesting


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


def test_a_failure_deep_inside_comes_out_in_nested_groups(loop, in_task):
    def inner():
        with d.TaskGroup() as group:
            group.spawn(after, 1, ValueError("deep"))
            group.spawn(after, 100)

    def work():
        with d.TaskGroup() as group:
            group.spawn(inner)
            group.spawn(after, 100)

    with pytest.raises(ExceptionGroup) as caught:
        in_task(work)
    (nested,) = caught.value.exceptions
    (deep,) = nested.exceptions
    assert str(deep) == "deep"
    assert loop.clock() == 1001


def test_two_groups_in_one_task(loop, in_task):
    def work():
        with d.TaskGroup() as outer:
            outer.spawn(after, 5)
            with d.TaskGroup() as inner:
                inner.spawn(after, 2)
                outer.spawn(after, 1)
            assert loop.clock() == 1002
        return loop.clock()

    assert in_task(work) == 1005


def test_cancelling_the_inner_group_leaves_the_outer_one_alone(loop, in_task):
    def work():
        with d.TaskGroup() as outer:
            kept = outer.spawn(after, 5, result="kept")
            with d.TaskGroup() as inner:
                inner.spawn(after, 50)
                d.sleep(1)
                inner.cancel()
            assert loop.clock() == 1001
        return kept.result()

    assert in_task(work) == "kept"


# -- the limit


@pytest.mark.in_order
def test_at_most_so_many_run_at_once_in_order(loop, anywhere):
    running, most, started = set(), [], []

    def child(number):
        running.add(number)
        started.append(number)
        most.append(len(running))
        d.sleep(1)
        running.remove(number)

    def work():
        with d.TaskGroup(limit=3) as group:
            for number in range(10):
                group.spawn(child, number)
            assert len(group.tasks) == 10
        return loop.clock()

    assert anywhere(work) == 1004
    assert max(most) == 3
    assert started == list(range(10))


def test_one_that_waits_for_its_place_says_so_and_can_be_cancelled(loop, in_task):
    ran = []

    def work():
        with d.TaskGroup(limit=1) as group:
            group.spawn(after, 5)
            second, third = group.spawn(ran.append, 2), group.spawn(ran.append, 3)
            d.sleep(1)
            assert "not started" in repr(second)
            assert "a place in <TaskGroup of 3 tasks, 2 of them not started>" in second.waits_for
            assert second.cancel("not needed") is True
            assert second.cancel() is True
            second.join()
            d.sleep(1)
            assert loop.clock() == 1002
            assert ran == []
        assert third.done
        with pytest.raises(d.TaskCancelledError, match="not needed"):
            second.result()
        return loop.clock()

    assert in_task(work) == 1005
    assert ran == [3]


def test_cancelling_a_group_with_a_limit_ends_those_that_wait(loop, in_task):
    ran = []

    def work():
        with d.TaskGroup(limit=2) as group:
            tasks = [group.spawn(lambda: ran.append(d.sleep(100))) for _ in range(100)]
            d.sleep(1)
            group.cancel()
        assert all(task.done for task in tasks)
        return loop.clock()

    assert in_task(work) == 1001
    assert ran == []


def test_a_failure_with_a_limit_starts_no_other(loop, in_task):
    ran = []

    def work():
        with fails(ValueError), d.TaskGroup(limit=1) as group:
            group.spawn(after, 1, ValueError())
            group.spawn(ran.append, 1)

    in_task(work)
    assert ran == []


def test_a_limit_that_lets_nothing_run_is_refused():
    for limit in (0, -1):
        with pytest.raises(ValueError, match="no task could ever run"):
            d.TaskGroup(limit=limit)


def test_thousands_with_a_limit(loop, in_task):
    def work():
        done = []
        with d.TaskGroup(limit=10) as group:
            for number in range(5000):
                group.spawn(lambda number=number: (d.sleep(0.001 * (number % 7)), done.append(number)))
        return len(done)

    assert in_task(work) == 5000


# -- deadlines


def test_current_deadline_in_a_child_counts_the_scopes_around_its_group(loop, in_task):
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

    in_task(work)
    assert seen == [1020, 1005, None, 1020, 1005, None, None, 1005, None, 1100, 1005, None]


# -- disorder, and the end of the loop


def test_a_group_left_in_disorder_says_so_and_cancels_its_tasks(loop, in_task):
    def work():
        group, scope = d.TaskGroup(), d.timeout(50)
        group.__enter__()
        child = group.spawn(after, 100)
        with scope:
            with pytest.raises(RuntimeError, match=r"TaskGroup.*left before.*timeout\(50\)"):
                group.__exit__(None, None, None)
            d.sleep(1)
        assert child.done
        with pytest.raises(RuntimeError, match="not open"):
            group.__exit__(None, None, None)
        return loop.clock()

    assert in_task(work) == 1001


def test_a_group_left_in_a_callback_cannot(loop):
    raised = []
    group = d.TaskGroup()

    def parent():
        group.__enter__()
        group.spawn(after, 100)
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


def test_a_generator_with_a_group_that_is_closed_in_its_task_waits(loop, in_task):
    def generator():
        with d.TaskGroup() as group:
            group.spawn(after, 5)
            yield group

    def work():
        held = generator()
        group = next(held)
        held.close()
        return group.tasks, loop.clock()

    assert in_task(work) == ([], 1000)


def test_a_failure_is_not_lost_where_a_generator_is_closed(loop, in_task):
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

    in_task(work)
    assert loop.clock() == 1005


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


def test_reset_with_groups_open(loop):
    steps = []

    def child(name):
        try:
            d.sleep(100)
        finally:
            steps.append(name)

    def work():
        try:
            with d.timeout(50), d.TaskGroup(limit=2) as group:
                for name in "abcd":
                    group.spawn(child, name)
        finally:
            steps.append("parent")

    tasks = [d.spawn(work), d.spawn(work)]
    d.sleep(1)
    loop.reset()
    assert all(task.done for task in tasks)
    assert sorted(steps) == ["a", "a", "b", "b", "parent", "parent"]
    assert list(scheduler(loop).tasks) == []
    assert len(loop.timers) == 0


def test_reset_in_the_block_of_top_level_code(loop):
    with d.TaskGroup(limit=1) as group:
        started, waiting = group.spawn(after, 5), group.spawn(after, 5)
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


def test_a_group_keeps_nothing_alive_after_its_end(loop, in_task):
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
        group = in_task(work)
        assert group.tasks == []
        assert [ref() for ref in refs] == [None] * 3
    finally:
        gc.enable()


def test_failures_leave_no_cycles_behind(loop, in_task):
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
        in_task(work)
        assert [ref() for ref in refs] == [None] * 2
    finally:
        gc.enable()


def test_a_group_says_what_it_is(loop, in_task):
    def work():
        with d.TaskGroup() as group:
            assert repr(group) == "<TaskGroup of 0 tasks>"
            group.spawn(after, 1)
            assert repr(group) == "<TaskGroup of 1 task>"
            me = d.current_task()
            loop.add_timer(0.5, lambda: seen.append(me.waits_for))

    seen = []
    in_task(work)
    assert seen == ["leaving of <TaskGroup of 1 task>"]
