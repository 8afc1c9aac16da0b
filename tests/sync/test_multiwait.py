"""wait, as_completed, select: several things, one waiter, and nothing of it left behind. Sockets are in streams."""

from __future__ import annotations

import gc
import re
import time
from contextvars import ContextVar

import pytest

import dangagreen as d
from dangagreen.loop.timers import Timers
from dangagreen.testing import virtual_loop
from tests.helpers import Box, result_of
from tests.inside import waiting_for


class Gong(Exception):
    """What the failing tasks here raise."""


def fail_after(seconds):
    d.sleep(seconds)
    raise Gong(seconds)


def napper(seconds):
    def nap():
        d.sleep(seconds)
        return seconds

    task = d.spawn(nap)
    task.name = f"nap {seconds}"
    return task


def nappers(*seconds):
    return [napper(each) for each in seconds]


def forlorn(*tasks):
    """Does nobody wait for any of them?"""
    return not any(waiting_for(task) for task in tasks)


def gongs(contexts):
    """The arguments of the failures that were reported."""
    assert all(isinstance(context.exception, Gong) for context in contexts)
    return [context.exception.args[0] for context in contexts]


# -- wait


def test_wait_answers_when_all_have_ended(loop):
    tasks = nappers(3, 1, 2)
    done, pending = d.wait(tasks)
    assert (done, pending) == (set(tasks), set())
    assert loop.clock() == 1003


def test_wait_until_the_first_answers_when_one_has_ended(loop):
    tasks = nappers(3, 1, 2)
    done, pending = d.wait(tasks, until="first")
    assert (done, pending) == ({tasks[1]}, {tasks[0], tasks[2]})
    assert loop.clock() == 1001
    assert forlorn(*tasks)
    d.wait(pending)


def test_those_that_end_in_the_same_turn_are_all_done(loop):
    tasks = nappers(1, 1, 2)
    done, pending = d.wait(tasks, until="first")
    assert (done, pending) == ({tasks[0], tasks[1]}, {tasks[2]})
    d.wait(pending)


@pytest.mark.parametrize("until", ["all", "first"])
def test_wait_for_nothing_returns_at_once(loop, until):
    turns = loop.poller.waits
    assert d.wait([], until=until) == (set(), set())
    assert d.wait(iter(()), 5, until) == (set(), set())
    assert loop.poller.waits == turns


def test_wait_for_what_has_ended_returns_at_once(loop):
    tasks = nappers(1, 2, 3)
    d.sleep(1.5)
    turns = loop.poller.waits
    assert d.wait(tasks, until="first") == ({tasks[0]}, {tasks[1], tasks[2]})
    assert d.wait(tasks[:1]) == ({tasks[0]}, set())
    assert loop.poller.waits == turns
    assert forlorn(*tasks)
    d.wait(tasks)


def test_wait_takes_any_iterable_and_counts_duplicates_once(loop):
    one, other = nappers(1, 2)
    done, pending = d.wait(task for task in (one, other, one, one))
    assert (done, pending) == ({one, other}, set())
    assert loop.clock() == 1002


def test_wait_answers_when_the_time_is_up(loop):
    tasks = nappers(1, 5, 9)
    done, pending = d.wait(tasks, timeout=6)
    assert (done, pending) == ({tasks[0], tasks[1]}, {tasks[2]})
    assert loop.clock() == 1006
    assert forlorn(*tasks)
    assert d.wait(pending, timeout=100) == (pending, set())
    assert loop.clock() == 1009
    assert len(loop.timers) == 0


@pytest.mark.parametrize("timeout", [0, -1, -0.0])
def test_wait_with_no_time_at_all_looks_once(loop, timeout):
    ended, other = nappers(1, 5)
    d.sleep(2)
    assert d.wait([ended, other], timeout) == ({ended}, {other})
    assert d.wait([other], timeout) == (set(), {other})
    assert loop.clock() == 1002
    other.join()


def test_a_task_that_ends_as_the_time_runs_out_is_done(loop):
    task = napper(5)
    assert d.wait([task], timeout=5) == ({task}, set())
    late = d.spawn(d.sleep_until, 1010.0)
    done, pending = d.wait([late], timeout=5)  # its timer is behind that of the sleep
    assert (done, pending) == ({late}, set())


@pytest.mark.parametrize("seconds", [3, 10])
def test_what_happens_between_the_wake_and_the_return_counts(loop, seconds):
    """However the wait was woken, the sets say what is so when it returns."""
    tasks = nappers(3, 10, 3)
    loop.timers.add(1000.0 + seconds, lambda: d.spawn(tasks[1].cancel))
    done, pending = d.wait(tasks, until="first", timeout=3)
    assert done == {task for task in tasks if task.done}
    assert pending == {task for task in tasks if not task.done}
    d.wait(pending)


def test_cancelled_tasks_have_ended_too(loop):
    tasks = nappers(5, 5)
    loop.add_timer(1, tasks[0].cancel)
    done, pending = d.wait(tasks, until="first")
    assert (done, pending) == ({tasks[0]}, {tasks[1]})
    with pytest.raises(d.TaskCancelledError):
        tasks[0].result()
    tasks[1].join()


def test_a_cancelled_wait_leaves_no_joiner_behind(loop):
    tasks = nappers(1, 5, 6)
    waiting = d.spawn(d.wait, tasks, 100)
    d.sleep(2)
    assert "wait for 2 tasks" in waiting.waits_for
    waiting.cancel()
    waiting.join()
    assert loop.clock() == 1002
    assert forlorn(*tasks)
    d.wait(tasks)
    assert len(loop.timers) == 0


def test_an_interrupt_of_top_level_code_leaves_no_joiner_behind(loop):
    def interrupt():
        raise KeyboardInterrupt

    tasks = nappers(2, 2)
    iterator = d.as_completed(tasks)
    for call in (lambda: d.wait(tasks), lambda: next(iterator)):
        loop.add_timer(0.5, interrupt)
        with pytest.raises(KeyboardInterrupt):
            call()
        assert forlorn(*tasks)
    d.wait(tasks)


def test_a_wait_that_was_woken_before_it_was_cancelled_returns(loop):
    task = napper(1)
    answers = []

    def waits():
        answers.append(d.wait([task]))
        d.sleep(1)

    waiting = d.spawn(waits)
    d.sleep(0.5)
    loop.timers.add(1001, waiting.cancel)  # right after the nap, and before `waiting` has run
    waiting.join()
    assert answers == [({task}, set())]
    assert loop.clock() == 1001
    with pytest.raises(d.TaskCancelledError):
        waiting.result()


def test_a_cancelled_task_cannot_wait_even_for_nothing(loop):
    def cancels_itself():
        d.current_task().cancel("enough")
        caught = []
        for call in (lambda: d.wait([]), lambda: next(d.as_completed([ended])), lambda: d.select(ended)):
            try:
                call()
            except d.Cancelled as cancelled:
                caught.append(cancelled.reason)
        return caught

    ended = d.spawn(int)
    ended.join()
    assert result_of(cancels_itself) == ["enough"] * 3


def test_many_wait_for_the_same_tasks(loop):
    tasks = nappers(1, 2)
    waiting = [d.spawn(d.wait, tasks, until=until) for until in ("all", "first", "all")]
    d.wait(waiting)
    assert [{len(part) for part in task.result()} for task in waiting] == [{2, 0}, {1}, {2, 0}]


def test_wait_in_top_level_code_and_in_tasks_of_tasks(loop):
    def outer():
        inner = nappers(1, 2)
        done, _ = d.wait(inner)
        return sorted(task.result() for task in done)

    assert result_of(outer) == [1, 2]


def test_ten_thousand_tasks_cost_the_same_each(loop):
    """Linear: ten times as many take ten times as long, not a hundred times."""

    def seconds_for(number):
        tasks = [d.spawn(d.sleep, 1 + n % 7) for n in range(number)]
        d.sleep(0.5)
        begin = time.process_time()
        assert d.wait(tasks) == (set(tasks), set())
        return time.process_time() - begin

    few = min(seconds_for(500) for _ in range(3))
    assert seconds_for(10000) < 20 * few * 5


def test_each_task_that_ends_is_heard_of_once(loop, monkeypatch):
    """The same without a stopwatch: a wait for all wakes its waiter once, and detaches from none that has ended."""
    unwatched = []
    monkeypatch.setattr(d.Task, "_unwatch", lambda task, joiner: unwatched.append(task))
    tasks = nappers(*range(1, 101))
    d.wait(tasks)
    assert unwatched == []
    turns = loop.poller.waits
    d.wait(tasks)
    assert loop.poller.waits == turns


# -- wait: misuse


@pytest.mark.parametrize("until", ["any", "", None, "FIRST"])
def test_wait_until_something_else_is_refused(loop, until):
    with pytest.raises(ValueError, match="until"):
        d.wait([], until=until)


@pytest.mark.parametrize("call", [d.wait, d.as_completed])
def test_what_is_no_task_is_refused(loop, call):
    task = napper(1)
    with pytest.raises(TypeError, match=f"{call.__name__} needs tasks"):
        call([task, 5])
    with pytest.raises(TypeError, match="iterable"):
        call(task)
    assert forlorn(task)
    task.join()


def test_a_task_cannot_wait_for_itself(loop):
    other = napper(9)

    def waits():
        d.wait([other, d.current_task()])

    def iterates():
        list(d.as_completed([other, d.current_task()]))

    def selects():
        d.select(other, d.current_task())

    for function in (waits, iterates, selects):
        with pytest.raises(RuntimeError, match="itself"):
            result_of(function)
    assert forlorn(other)
    assert loop.clock() == 1000
    other.join()


def test_none_of_them_may_be_called_in_a_callback(loop, take_errors):
    ended = d.spawn(int)
    ended.join()
    for call in (lambda: d.wait([]), lambda: d.select(ended), lambda: next(d.as_completed([ended]))):
        loop.call_soon(call)
    d.sleep(1)
    errors = [context.exception for context in take_errors()]
    assert [type(error) for error in errors] == [d.CannotParkError] * 3
    assert [str(error).split()[0] for error in errors] == ["wait", "select", "as_completed"]


def test_tasks_of_another_thread_are_refused(loop, in_thread):
    task = napper(1)

    def elsewhere():
        refused = []
        with d.Loop():
            for call in (lambda: d.wait([task]), lambda: d.as_completed([task]), lambda: d.select(task)):
                try:
                    call()
                except d.ForeignThreadError as error:
                    refused.append(str(error))
        return refused

    refused = in_thread(elsewhere)
    assert len(refused) == 3
    assert all("the other one" in words for words in refused)
    assert forlorn(task)
    task.join()


def test_tasks_and_timers_of_another_loop_are_refused(loop):
    with virtual_loop() as other:
        task, timer = d.spawn(int), other.add_timer(1, int)
    for call in (lambda: d.wait([task]), lambda: d.as_completed([task]), lambda: d.select(task)):
        with pytest.raises(RuntimeError, match="another loop"):
            call()
    with pytest.raises(RuntimeError, match="another loop"):
        d.select(timer)


# -- as_completed


def test_as_completed_yields_in_the_order_of_ending(loop):
    tasks = nappers(3, 1, 2)
    seen = [(task.result(), loop.clock()) for task in d.as_completed(tasks)]
    assert seen == [(1, 1001), (2, 1002), (3, 1003)]


def test_those_that_ended_before_come_first_in_the_order_given(loop):
    tasks = nappers(5, 2, 1, 4)
    d.sleep(3)
    assert [task.result() for task in d.as_completed(tasks)] == [2, 1, 4, 5]


def test_as_completed_takes_any_iterable_and_yields_each_once(loop):
    one, other = nappers(2, 1)
    assert list(d.as_completed(task for task in (one, other, one))) == [other, one]
    assert list(d.as_completed([])) == []


def test_those_that_end_between_two_steps_are_kept_in_order(loop):
    tasks = nappers(4, 3, 1, 2)
    seen = []
    for task in d.as_completed(tasks):
        seen.append(task.result())
        d.sleep(10)
    assert seen == [1, 2, 3, 4]


@pytest.mark.in_order
def test_tasks_that_end_in_one_turn_come_in_the_order_of_ending(loop):
    tasks = nappers(*[1] * 20)
    assert list(d.as_completed(reversed(tasks))) == tasks


def test_nothing_is_arranged_before_the_first_step(loop):
    task = napper(1)
    iterator = d.as_completed([task])
    assert forlorn(task)
    del iterator
    task.join()


@pytest.mark.parametrize("how", ["break", "close", "throw", "drop"])
def test_an_abandoned_iteration_leaves_nothing_behind(loop, how):
    tasks = nappers(1, 2, 3)

    def abandon():
        iterator = d.as_completed(tasks)
        first = next(iterator)
        assert not forlorn(*tasks)
        if how == "break":
            for _ in iterator:
                break
        elif how == "close":
            iterator.close()
        elif how == "throw":
            with pytest.raises(KeyError):
                iterator.throw(KeyError)
        del iterator
        return first

    assert result_of(abandon) is tasks[0]
    assert forlorn(*tasks)
    d.wait(tasks)


def test_a_cancelled_iteration_leaves_nothing_behind(loop):
    tasks = nappers(1, 5)
    task = d.spawn(list, d.as_completed(tasks))
    d.sleep(2)
    assert "as_completed of 1 task" in task.waits_for
    task.cancel()
    task.join()
    assert forlorn(*tasks)
    tasks[1].join()


def test_an_iterator_may_go_from_task_to_task(loop):
    iterator = d.as_completed(nappers(1, 2, 3))
    results = [result_of(next, iterator).result() for _ in range(3)]
    assert results == [1, 2, 3]
    assert result_of(next, iterator, "no more") == "no more"


def test_an_iterator_closed_by_another_task(loop, take_errors):
    failing = d.spawn(fail_after, 2)
    iterator = d.as_completed([napper(1), failing])
    result_of(next, iterator)
    result_of(iterator.close)
    assert forlorn(failing)
    d.sleep(5)
    assert gongs(take_errors()) == [2]


def test_two_tasks_cannot_step_the_same_iterator_at_once(loop):
    iterator = d.as_completed(nappers(1))
    first = d.spawn(next, iterator)
    d.sleep(0.5)
    with pytest.raises(ValueError, match="already executing"):
        next(iterator)
    first.join()
    assert first.result().result() == 1


def test_an_iterator_dropped_in_another_thread_is_let_go_by_the_loop(loop, in_thread, take_errors):
    tasks = [napper(1), d.spawn(fail_after, 3), napper(9), d.spawn(fail_after, 10)]
    held = [d.as_completed(tasks)]
    next(held[0])
    d.sleep(3)
    in_thread(held.clear)
    assert take_errors() == []  # nothing is done in that thread
    assert not forlorn(*tasks)
    d.sleep(0.1)
    assert forlorn(*tasks)
    assert gongs(take_errors()) == [3]
    d.sleep(20)
    assert gongs(take_errors()) == [10]


def test_an_iterator_cannot_be_stepped_in_another_thread(loop, in_thread):
    task = napper(1)
    iterator = d.as_completed([task])
    with pytest.raises(d.ForeignThreadError):
        in_thread(next, iterator)
    assert forlorn(task)
    task.join()


def test_an_iterator_that_outlives_its_loop():
    with virtual_loop() as loop:
        iterator = d.as_completed(nappers(1, 2))
        next(iterator)
    assert loop.closed
    assert next(iterator).done
    iterator.close()


def test_as_completed_hands_on_what_the_body_raises(loop):
    tasks = nappers(1, 2)

    def body():
        for task in d.as_completed(tasks):
            task.result() / 0

    with pytest.raises(ZeroDivisionError):
        body()
    gc.collect()
    assert forlorn(*tasks)
    d.wait(tasks)


# -- who takes care of a failure


def test_a_failure_that_wait_hands_back_is_not_reported(loop):
    tasks = [d.spawn(fail_after, seconds) for seconds in (1, 2)]
    done, _ = d.wait(tasks)
    for task in done:
        with pytest.raises(Gong):
            task.result()


def test_wait_until_the_first_takes_care_of_what_is_done_and_no_more(loop, take_errors):
    tasks = [d.spawn(fail_after, seconds) for seconds in (1, 2)]
    assert d.wait(tasks, until="first") == ({tasks[0]}, {tasks[1]})
    d.sleep(5)
    assert gongs(take_errors()) == [2]


def test_two_failures_in_the_turn_that_ends_a_wait_are_both_handed_back(loop):
    tasks = [d.spawn(fail_after, 1) for _ in range(2)]
    assert d.wait(tasks, until="first") == (set(tasks), set())


def test_a_failure_after_the_time_was_up_is_reported(loop, take_errors):
    task = d.spawn(fail_after, 2)
    assert d.wait([task], timeout=1) == (set(), {task})
    d.sleep(5)
    assert gongs(take_errors()) == [2]


def test_a_failure_after_a_join_that_timed_out_is_reported(loop, take_errors):
    task = d.spawn(fail_after, 2)
    with pytest.raises(TimeoutError):
        task.join(1)
    d.sleep(5)
    assert gongs(take_errors()) == [2]


def test_a_wait_that_was_cancelled_gives_back_what_had_failed_under_it(loop, take_errors):
    """Nobody has seen the first failure, though somebody was waiting when it came."""
    tasks = [d.spawn(fail_after, seconds) for seconds in (1, 3)]
    waiting = d.spawn(d.wait, tasks)
    d.sleep(2)
    assert take_errors() == []
    waiting.cancel()
    d.sleep(0.1)
    assert gongs(take_errors()) == [1]
    d.sleep(5)
    assert gongs(take_errors()) == [3]


def test_a_failure_between_a_cancellation_and_its_arrival_is_reported(loop, take_errors):
    waiting = d.spawn(lambda: d.wait([failing]))
    loop.timers.add(1001, waiting.cancel)  # before the timer of the sleep, which is due at the same time
    failing = d.spawn(fail_after, 1)
    waiting.join()
    assert loop.clock() == 1001
    with pytest.raises(d.TaskCancelledError):
        waiting.result()
    assert gongs(take_errors()) == [1]


def test_a_failure_that_a_joiner_takes_is_not_reported_by_a_wait_that_was_cancelled(loop):
    failing = d.spawn(fail_after, 1)
    joining = d.spawn(failing.join)
    waiting = d.spawn(d.wait, [failing, napper(2)])
    d.sleep(1.5)
    waiting.cancel()
    d.wait([joining, waiting])
    d.sleep(1)


def test_as_completed_takes_care_of_what_it_yields_and_gives_the_rest_back(loop, take_errors):
    tasks = [d.spawn(fail_after, seconds) for seconds in (1, 2, 3, 9)]
    for task in d.as_completed(tasks):
        assert task is tasks[0]
        d.sleep(5)
        assert take_errors() == []
        break
    assert gongs(take_errors()) == [2, 3]
    d.sleep(9)
    assert gongs(take_errors()) == [9]


def test_a_failure_that_was_reported_before_is_not_reported_again(loop, take_errors):
    task = d.spawn(fail_after, 1)
    d.sleep(2)
    assert gongs(take_errors()) == [1]
    assert d.wait([task, napper(1)])[0] >= {task}
    next(d.as_completed([task, task]))
    d.as_completed([task]).close()
    assert d.select(Box(), task) is task


@pytest.mark.in_order
def test_select_takes_care_of_the_task_it_returns_and_no_other(loop, take_errors):
    tasks = [d.spawn(fail_after, 1) for _ in range(2)]
    assert d.select(*tasks) is tasks[0]
    assert [context.subject for context in take_errors()] == [tasks[1]]
    assert d.select(tasks[1]) is tasks[1]


def test_a_failure_whose_select_returns_something_else_is_reported(loop, take_errors):
    box, task = Box(), d.spawn(fail_after, 1)
    selecting = d.spawn(d.select, box, task)
    d.sleep(0.5)
    loop.timers.add(1001, lambda: box.put("after the failure, before the select has run"))
    selecting.join()
    assert selecting.result() is box
    assert gongs(take_errors()) == [1]


def test_on_error_may_not_park_where_a_failure_is_given_back(loop):
    """It is called in the task that gives back, and is no part of it."""
    tried = []

    def on_error(context):
        try:
            d.sleep(1)
        except BaseException as error:
            tried.append(type(error))

    def gives_back():
        iterator = d.as_completed([d.spawn(fail_after, 1), d.spawn(fail_after, 1)])
        next(iterator)
        iterator.close()
        return d.current_task()

    old, loop.on_error = loop.on_error, on_error
    try:
        task = d.spawn(gives_back)
        task.join()
    finally:
        loop.on_error = old
    assert tried == [d.CannotParkError]
    assert task.result() is task


@pytest.mark.in_order
def test_what_one_iteration_has_yielded_is_not_reported_by_another(loop):
    tasks = [d.spawn(fail_after, 1), d.spawn(fail_after, 1)]
    takes, drops = d.as_completed(tasks), d.as_completed([napper(0.5), *tasks])
    next(drops)
    assert list(takes) == tasks
    drops.close()


def test_owned_tasks_are_not_reported_by_anybody(loop):
    task = d.spawn(fail_after, 1)
    task.error_retrieved = True
    waiting = d.spawn(d.wait, [task, napper(5)])
    d.sleep(2)
    waiting.cancel()
    d.sleep(5)


# -- select: whatever has the three names


def test_select_returns_what_is_ready_without_parking(loop):
    empty, full = Box(), Box(1)
    turns = loop.poller.waits
    assert d.select(empty, full) is full
    assert loop.poller.waits == turns
    assert empty.watched == full.watched == 0


def test_of_several_that_are_ready_the_first_argument_is_returned(loop):
    one, other = Box(1), Box(1)
    assert d.select(one, other) is one
    assert d.select(other, one) is other
    assert d.select(Box(), other, one) is other


def test_select_takes_nothing_out(loop):
    box = Box(1, 2)
    for _ in range(3):
        assert d.select(box) is box
    assert list(box.items) == [1, 2]


def test_select_parks_until_one_is_ready(loop):
    boxes = [Box() for _ in range(3)]
    loop.add_timer(5, lambda: boxes[1].put(1))
    assert d.select(*boxes) is boxes[1]
    assert loop.clock() == 1005
    assert [box.watched for box in boxes] == [1, 1, 1]
    assert all(box.undone() for box in boxes)


def test_when_several_become_ready_the_first_argument_wins(loop):
    """Not the one that was first in time: they are all ready when the task runs."""
    boxes = [Box() for _ in range(3)]
    loop.timers.add(1001, lambda: boxes[2].put(1))
    loop.timers.add(1001, lambda: boxes[1].put(1))
    assert d.select(*boxes) is boxes[1]
    assert all(box.undone() for box in boxes)


def test_a_source_that_fires_twice_wakes_once(loop):
    one, other = Box(), Box()

    def both():
        one.put(1)
        one.put(2)
        other.put(3)

    loop.add_timer(1, both)
    woken = []

    def selects():
        woken.append(d.select(one, other))
        one.items.clear()
        woken.append(d.select(one, other))
        d.sleep(5)

    result_of(selects)
    assert woken == [one, other]
    assert loop.clock() == 1006
    assert one.undone()
    assert other.undone()


def test_select_parks_again_when_somebody_took_the_item(loop):
    box, other = Box(), Box()
    selecting = d.spawn(d.select, box, other)
    d.sleep(1)

    def put_and_take():
        box.put("gone before the task has run")
        box.items.clear()

    loop.call_soon(put_and_take)
    d.sleep(1)
    assert not selecting.done
    assert box.watched == other.watched == 2
    assert len(box.watchers) == len(other.watchers) == 1
    other.put(1)
    selecting.join()
    assert selecting.result() is other
    assert box.undone()
    assert other.undone()


def test_an_item_for_many_wakes_them_all_and_is_found_by_one(loop):
    box, found = Box(), []

    def selects():
        d.select(box)
        found.append(box.items.popleft())

    tasks = [d.spawn(selects) for _ in range(5)]
    d.sleep(1)
    for item in range(5):
        box.put(item)
        d.sleep(1)
        assert found == list(range(item + 1))
    d.wait(tasks)
    assert box.undone()


def test_the_same_source_twice_is_watched_once(loop):
    box, other = Box(), Box()
    loop.add_timer(1, lambda: box.put(1))
    assert d.select(box, other, box) is box
    assert box.watched == other.watched == 1
    assert box.undone()


def test_sources_that_are_equal_or_cannot_be_hashed_are_sources_of_their_own(loop):
    class Odd(Box):
        __hash__ = None

        def __eq__(self, other):
            return True

    one, other = Odd(), Odd()
    loop.add_timer(1, lambda: other.put(1))
    assert d.select(one, other) is other


@pytest.mark.parametrize("kind", ["watching", "the other"])
def test_a_source_that_fires_while_select_arranges_is_not_missed(loop, kind):
    """Its wake finds nobody parked yet."""
    first = Box()

    class Firing(Box):
        def _watch(self, task):
            super()._watch(task)
            (self if kind == "watching" else first).put(1)

    firing, last = Firing(), Box()
    turns = loop.poller.waits
    assert d.select(first, firing, last) is (firing if kind == "watching" else first)
    assert loop.poller.waits == turns
    assert all(box.undone() for box in (first, firing, last))


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_source_that_cannot_be_watched_undoes_the_others(loop, error):
    class Bad(Box):
        def _watch(self, task):
            self.watched += 1
            raise error

    before, bad, after = Box(), Bad(), Box()
    with pytest.raises(error):
        d.select(before, bad, after)
    assert (before.watched, bad.watched, after.watched) == (1, 1, 0)
    assert all(box.undone() for box in (before, bad, after))


def test_a_source_whose_ready_raises_undoes_them_all(loop):
    class Bad(Box):
        asked = 0

        @property
        def ready(self):
            self.asked += 1
            if self.asked == 2:
                raise OSError
            return False

    box, bad = Box(), Bad()
    with pytest.raises(OSError):
        d.select(box, bad)
    assert box.undone()
    assert bad.undone()


def test_a_cancelled_select_is_undone_once(loop):
    boxes = [Box() for _ in range(3)]
    selecting = d.spawn(d.select, *boxes)
    d.sleep(1)
    selecting.cancel()
    assert all(box.undone() and box.watched == 1 for box in boxes)
    boxes[0].put(1)
    selecting.join()
    assert all(box.undone() and box.watched == 1 for box in boxes)
    with pytest.raises(d.TaskCancelledError):
        selecting.result()


def test_a_select_that_was_woken_before_it_was_cancelled_returns(loop):
    box, got = Box(), []

    def selects():
        got.append(d.select(box))
        d.select(box)

    selecting = d.spawn(selects)
    d.sleep(1)
    box.put(1)
    selecting.cancel()
    selecting.join()
    assert got == [box]
    with pytest.raises(d.TaskCancelledError):
        selecting.result()


def test_a_select_that_was_cancelled_and_would_park_again_raises(loop):
    box = Box()
    selecting = d.spawn(d.select, box)
    d.sleep(1)
    box.put(1)
    box.items.clear()
    selecting.cancel()
    selecting.join()
    with pytest.raises(d.TaskCancelledError):
        selecting.result()
    assert box.undone()
    assert loop.clock() == 1001


def test_a_select_that_ends_with_the_loop_is_undone():
    box = Box()
    with virtual_loop() as loop:
        d.spawn(d.select, box)
        d.sleep(1)
        assert box.watchers
        loop.reset()
        assert box.undone()


def test_an_interrupt_of_top_level_code_undoes_a_select(loop):
    box = Box()

    def interrupt():
        raise KeyboardInterrupt

    loop.add_timer(1, interrupt)
    with pytest.raises(KeyboardInterrupt):
        d.select(box)
    assert box.undone()


def test_select_without_a_source_is_refused(loop):
    with pytest.raises(ValueError, match="nothing to wait for"):
        d.select()


@pytest.mark.parametrize("what", [5, "box", None, [Box()]])
def test_select_on_what_is_no_source_is_refused(loop, what):
    box = Box(1)
    with pytest.raises(TypeError, match="cannot wait for"):
        d.select(box, what)
    assert box.undone()


def test_a_select_says_what_it_waits_for(loop, pair):
    sock, _ = pair()
    few, many = d.spawn(d.select, sock, napper(5)), d.spawn(d.select, *(napper(5) for _ in range(10)))
    d.sleep(1)
    assert few.waits_for == f"select of {sock!r}, task 'nap 5'"
    assert many.waits_for.endswith("and 7 more")
    few.cancel()
    d.wait([few, many])
    d.sleep(5)


def test_thousands_of_sources(loop):
    boxes = [Box() for _ in range(5000)]
    loop.add_timer(1, lambda: boxes[4321].put(1))
    assert d.select(*boxes) is boxes[4321]
    assert all(box.undone() and box.watched == 1 for box in boxes)


def test_thousands_of_selects_on_one_task(loop):
    """Each of them comes and goes at the same price."""
    gate = napper(50)
    boxes = [Box() for _ in range(3000)]
    tasks = [d.spawn(d.select, gate, box) for box in boxes]
    d.sleep(1)
    assert waiting_for(gate) == 3000
    for box in boxes[1:]:
        box.put(1)
    d.wait(tasks[1:])
    assert waiting_for(gate) == 1
    tasks[0].join()
    assert tasks[0].result() is gate


@pytest.mark.in_order
def test_select_rotated_by_its_user_serves_all(loop):
    """The order of the arguments is their rank: who wants them all served turns them."""
    boxes, served = [Box() for _ in range(3)], []

    def producer(box, name):
        for n in range(20):
            box.put((name, n))
            d.sleep(0.01)

    def consumer():
        order = list(boxes)
        while len(served) < 60:
            box = d.select(*order)
            served.append(box.items.popleft()[0])
            order.append(order.pop(order.index(box)))

    d.wait([d.spawn(consumer), *(d.spawn(producer, box, name) for box, name in zip(boxes, "abc", strict=True))])
    assert served[:6] == list("abcabc")
    assert all(box.undone() for box in boxes)


# -- select: tasks and timers


def test_select_of_tasks(loop):
    tasks = nappers(3, 1, 2)
    assert d.select(*tasks) is tasks[1]
    assert loop.clock() == 1001
    assert forlorn(*tasks)
    assert d.select(*tasks) is tasks[1]
    assert [task.ready for task in tasks] == [False, True, False]
    d.wait(tasks)


def test_select_and_join_and_wait_on_one_task(loop):
    task = napper(1)
    waiting = [
        d.spawn(d.select, task),
        d.spawn(task.join),
        d.spawn(d.wait, [task]),
        d.spawn(next, d.as_completed([task])),
    ]
    d.wait(waiting)
    assert [each.result() for each in waiting] == [task, None, ({task}, set()), task]


def test_select_of_a_timer(loop):
    fired = []
    timer, other = loop.add_timer(3, lambda: fired.append(1)), loop.add_timer(5, lambda: fired.append(2))
    assert d.select(other, timer) is timer
    assert fired == [1]
    assert loop.clock() == 1003
    assert d.select(other, timer) is timer
    assert len(loop.timers) == 1
    assert d.select(other) is other
    assert fired == [1, 2]
    assert len(loop.timers) == 0


def test_a_select_that_loses_its_timer_leaves_no_other_behind(loop):
    timer, box = loop.add_timer(10, int), Box()
    loop.add_timer(1, lambda: box.put(1))
    assert d.select(box, timer) is box
    assert len(loop.timers) == 1
    assert timer.active
    timer.cancel()


def test_a_timer_whose_callback_raises_has_fired(loop, take_errors):
    timer = loop.add_timer(1, lambda: 1 / 0)
    assert d.select(timer) is timer
    assert len(take_errors()) == 1


def test_a_timer_of_this_very_turn(loop):
    """It is due, and has not fired yet, when select is called."""
    fired = []

    def selects():
        d.sleep(1)
        assert not timer.fired
        assert d.select(timer) is timer
        assert fired == [1]

    task = d.spawn(selects)
    d.sleep(0.5)
    timer = loop.timers.add(1001, lambda: fired.append(1))
    task.join()
    task.result()
    assert loop.clock() == 1001


def test_a_cancelled_timer_is_never_ready(loop):
    timer, box = loop.add_timer(1, int), Box()
    timer.cancel()
    loop.add_timer(5, lambda: box.put(1))
    assert d.select(timer, box) is box
    assert not timer.fired


def test_a_timer_cancelled_meanwhile_is_never_ready(loop):
    timer, box = loop.add_timer(3, int), Box()
    loop.add_timer(1, timer.cancel)
    loop.add_timer(5, lambda: box.put(1))
    assert d.select(timer, box) is box
    assert loop.clock() == 1005


def test_a_select_on_cancelled_timers_alone_raises(loop):
    timer = loop.add_timer(1, int)
    timer.cancel()
    with pytest.raises(ValueError, match="cancelled"):
        d.select(timer, timer)
    later = loop.add_timer(3, int)
    loop.add_timer(1, later.cancel)
    with pytest.raises(ValueError, match="cancelled"):
        d.select(timer, later)
    assert loop.clock() == 1003  # it is noticed when it would have been due
    assert len(loop.timers) == 0


def test_a_reset_cancels_timers_they_have_not_fired():
    with virtual_loop() as loop:
        timer = loop.add_timer(1, int)
    assert not timer.active
    assert not timer.fired


def test_a_timer_without_an_owner_is_taken_as_it_is(loop):
    timers = Timers()
    timer = timers.add(1000, int)
    timers.pop_due(1000, timers.mark()).fire()
    assert d.select(timer) is timer


# -- fairness


@pytest.mark.parametrize("first", ["wait", "select", "as_completed"])
def test_a_failure_is_not_reported_while_somebody_else_still_has_it_handed_back(loop, take_errors, first):
    box = Box()

    def fail():
        d.sleep(1)
        box.put("x")
        raise Gong

    def lets_go():
        if first == "select":
            assert d.select(box, failing) is box
        with d.move_on_after(2):
            if first == "wait":
                d.wait([failing, sleeper])
            if first == "as_completed":
                iteration = d.as_completed([failing, sleeper])
                d.sleep(1.5)
                iteration.close()

    failing, sleeper = d.spawn(fail), d.spawn(d.sleep, 5)
    early, late = d.spawn(lets_go), d.spawn(d.wait, [failing, sleeper])
    d.wait([early, late])
    early.result()
    assert late.result() == ({failing, sleeper}, set())
    assert take_errors() == []


def test_the_last_who_lets_go_of_a_failure_reports_it_in_its_own_context(loop):
    request, seen = ContextVar("request", default="-"), []
    loop.on_error = lambda context: seen.append((request.get(), str(context.exception)))

    def fail():
        d.sleep(1)
        raise ValueError("of request 7")

    def fails():
        request.set("7")
        return d.spawn(fail)

    def looks(failing):
        request.set("8")
        with d.move_on_after(2):
            d.wait([failing, sleeper])

    sleeper = d.spawn(d.sleep, 5)
    maker = d.spawn(fails)
    maker.join()
    d.wait([d.spawn(looks, maker.result()) for _ in range(2)])
    assert seen == [("7", "of request 7")]
    sleeper.join()


def test_one_task_in_the_place_of_several_is_refused_with_the_cure(loop):
    task = napper(1)
    with pytest.raises(TypeError, match=r"wait\(\[<Task"):
        d.wait(task)
    with pytest.raises(TypeError, match=r"select\(a, b\)"):
        d.select([task])
    task.join()


@pytest.mark.parametrize(
    ("given", "hint"), [([d.Event], "as in select(a, b)"), (d.Lock, "only tasks, timers, sockets,")]
)
def test_what_is_no_source_is_refused_with_what_is_one(loop, given, hint):
    wrong = [given[0]()] if isinstance(given, list) else given()
    with pytest.raises(TypeError, match=re.escape(hint)):
        d.run(d.select, wrong)
