"""Tasks: spawn, join, result, cancel."""

from __future__ import annotations

import gc
import weakref

import pytest

import dangagreen as d
from tests.helpers import Thing, end_of

# -- spawn, join, result


def test_a_task_gets_its_arguments_and_hands_back_its_result(loop):
    def work(*args, **kwargs):
        d.sleep(1)
        return args, kwargs

    task = d.spawn(work, 1, 2, function=3)
    task.join()
    assert task.done
    assert task.result() == ((1, 2), {"function": 3})


def test_spawn_does_not_run_the_task_at_once(loop):
    ran = []
    task = d.spawn(ran.append, 1)
    assert ran == []
    assert not task.done
    task.join()
    assert ran == [1]


@pytest.mark.in_order
def test_tasks_start_in_the_order_of_spawning(loop):
    ran = []
    for number in range(10):
        d.spawn(ran.append, number)
    d.sleep(0.1)
    assert ran == list(range(10))


def test_a_task_spawns_a_task(loop):
    def outer():
        inner = d.spawn(lambda: "inner")
        inner.join()
        return inner.result()

    task = d.spawn(outer)
    task.join()
    assert task.result() == "inner"


def test_result_before_the_end_raises_at_once(loop):
    task = d.spawn(d.sleep, 1)
    with pytest.raises(RuntimeError, match="join"):
        task.result()
    task.join()
    assert task.result() is None


def test_result_raises_what_the_task_raised(loop):
    error = KeyError("mine")

    def fail():
        raise error

    task = d.spawn(fail)
    task.join()
    with pytest.raises(KeyError) as caught:
        task.result()
    assert caught.value is error


def test_join_does_not_raise_what_the_task_raised(loop):
    task = d.spawn(lambda: 1 / 0)
    task.join()
    assert task.done


def test_join_of_a_task_that_has_ended_returns_at_once(loop):
    task = d.spawn(int)
    task.join()
    before = loop.clock()
    task.join()
    task.join(timeout=0)
    assert loop.clock() == before


def test_all_who_join_are_woken(loop):
    work = d.spawn(d.sleep, 5)
    joiners = [d.spawn(work.join) for _ in range(3)]
    for joiner in joiners:
        joiner.join()
    assert [joiner.result() for joiner in joiners] == [None] * 3
    assert loop.clock() == 1005


def test_join_times_out_and_leaves_the_task_alone(loop):
    task = d.spawn(d.sleep, 10)
    with pytest.raises(TimeoutError, match="2"):
        task.join(2)
    assert loop.clock() == 1002
    assert not task.done
    task.join(100)
    assert loop.clock() == 1010
    assert len(loop.timers) == 0


def test_join_with_no_time_left_times_out_and_a_task_that_ends_in_time_does_not(loop):
    task = d.spawn(d.sleep, 1)
    with pytest.raises(TimeoutError):
        task.join(0)
    task.join(1.5)
    assert loop.clock() == 1001


def test_an_ended_task_and_the_timeout_of_its_joiner_wake_the_joiner_once(loop):
    work = d.spawn(d.sleep, 1)
    seen = []

    def joiner():
        try:
            work.join(1)
            seen.append("ended")
        except TimeoutError:
            seen.append("timeout")
        d.sleep(5)
        seen.append(loop.clock())

    task = d.spawn(joiner)
    task.join()
    assert len(seen) == 2
    assert seen[1] == 1006


def test_a_task_cannot_join_itself(loop):
    def myself():
        d.current_task().join()

    task = d.spawn(myself)
    task.join(1)
    with pytest.raises(RuntimeError, match="itself"):
        task.result()


def test_a_task_is_named_after_its_function_and_can_be_renamed(loop):
    def work():
        d.sleep(1)

    task = d.spawn(work)
    assert task.name.endswith("work")
    task.name = "number 5"
    assert task.name == "number 5"
    assert "number 5" in repr(task)
    task.join()
    assert task.name == "number 5"
    other = d.spawn(work)
    other.join()
    assert other.name.endswith("work")


def test_current_task_is_the_one_that_runs(loop):
    task = d.spawn(d.current_task)
    task.join()
    assert task.result() is task
    seen = []
    loop.call_soon(lambda: seen.append(d.current_task()))
    d.sleep(1)
    assert seen == [None]
    assert d.current_task() is None


def test_a_parked_task_says_what_it_waits_for(loop, pair):
    sock, far = pair()
    sleeper, reader = d.spawn(d.sleep, 5), d.spawn(sock.read_line)
    joiner = d.spawn(sleeper.join)
    d.sleep(1)
    assert "sleep" in sleeper.waits_for
    assert "read_line" in reader.waits_for
    assert repr(sock) in reader.waits_for
    assert "join" in joiner.waits_for
    far.send(b"x\n")
    joiner.join()
    assert sleeper.waits_for is None


def test_what_answers_to_every_name_is_a_function_and_what_is_called_by_await_is_none(loop):
    class Proxy:
        def __getattr__(self, name):
            return Proxy()

        def __call__(self):
            return "called"

    class Async:
        async def __call__(self):
            """Never runs."""

    task = d.spawn(Proxy())
    task.join()
    assert task.result() == "called"
    with pytest.raises(TypeError, match="async def"):
        d.spawn(Async())


# -- failures


def test_the_failure_of_a_task_that_nobody_joins_is_reported_once(loop, take_errors):
    def forgotten():
        raise ValueError("nobody sees me")

    task = d.spawn(forgotten)
    d.sleep(1)
    (context,) = take_errors()
    assert isinstance(context.exception, ValueError)
    assert context.exception.__traceback__ is not None
    assert context.subject is task
    assert "forgotten" in context.message
    assert "test_tasks.py" in context.message


def test_a_failing_task_harms_no_other(loop, take_errors):
    other = d.spawn(lambda: (d.sleep(1), "fine"))
    d.spawn(lambda: 1 / 0)
    other.join()
    assert other.result() == (None, "fine")
    assert [type(context.exception) for context in take_errors()] == [ZeroDivisionError]


@pytest.mark.in_order
@pytest.mark.parametrize("how", ["cancelled", "timed out", "seen by another", "in a group"])
def test_a_failure_is_reported_once_where_a_joiner_goes_in_the_same_turn(loop, take_errors, how):
    gate = d.Event()

    def fails():
        gate.wait()
        raise ValueError("once")

    def joins(task):
        with d.timeout(1 if how == "timed out" else 5):
            task.join()

    def scene(spawn):
        task = spawn(fails)
        joiner = d.spawn(joins, task)
        another = d.spawn(task.join) if how == "seen by another" else None
        d.sleep(0.5)
        if how == "timed out":
            loop.add_timer(0.5, gate.set)
        else:
            gate.set()
            joiner.cancel()
        joiner.join()
        if another is not None:
            another.join()

    def main():
        if how == "in a group":
            with pytest.raises(ExceptionGroup), d.TaskGroup() as group:
                scene(group.spawn)
        else:
            scene(d.spawn)

    task = d.spawn(main)
    task.join()
    task.result()
    reports = [str(context.exception) for context in take_errors()]
    assert reports == ([] if how in ("seen by another", "in a group") else ["once"])


@pytest.mark.in_order
def test_a_failure_that_an_interrupted_join_did_not_see_is_reported(loop, take_errors):
    def leave(error):
        raise error

    task = d.spawn(leave, ValueError("seen by nobody"))
    d.spawn(leave, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        task.join()
    assert [str(context.exception) for context in take_errors()] == ["seen by nobody"]


def test_an_interrupt_that_meets_the_end_of_a_join_wakes_no_later_wait(loop):
    def interrupt():
        raise KeyboardInterrupt

    task = d.spawn(int)
    loop.call_soon(interrupt)
    with pytest.raises(KeyboardInterrupt):
        task.join()
    d.sleep(10)
    assert loop.clock() == 1010


# -- what an ended task keeps


def test_a_done_task_lets_go_of_its_function_and_arguments(loop):
    thing = Thing()
    ref = weakref.ref(thing)
    task = d.spawn(lambda argument: None, thing)
    task.join()
    del thing
    gc.collect()
    assert ref() is None
    assert task.result() is None


@pytest.mark.in_order
def test_its_arguments_go_before_a_joiner_is_woken(loop):
    order, gone = [], d.Event()

    class Leaves:
        def __del__(self):
            gone.set()

    def use(_thing):
        pass

    def wait():
        gone.wait()
        order.append("told by the argument")

    def join():
        d.spawn(use, Leaves()).join()
        order.append("joiner")

    for task in [d.spawn(wait), d.spawn(join)]:
        task.join()
    assert order == ["told by the argument", "joiner"]


def test_what_a_task_raises_keeps_no_greenlet_of_another_alive(loop):
    kept = []

    def fail():
        local = Thing()
        kept.append(weakref.ref(local))
        raise ValueError("with a traceback")

    task = d.spawn(fail)
    task.join()
    with pytest.raises(ValueError):
        task.result()
    del task
    gc.collect()
    assert kept[0]() is None


def test_a_failure_that_was_handed_back_keeps_nothing_else_alive(loop):
    def fails():
        raise ValueError

    class Large:
        pass

    def makes():
        large = Large()
        refs.append(weakref.ref(large))
        d.sleep(5)
        return large

    refs = []
    failed, other = d.spawn(fails), d.spawn(makes)
    assert d.wait([failed, other], until="first")[0] == {failed}
    other.join()
    del other
    gc.collect()
    assert refs[0]() is None
    assert failed.context is None


# -- cancel


def test_cancel_raises_at_the_wait_with_the_reason(loop):
    caught = []

    def work():
        try:
            d.sleep(100)
        except d.Cancelled as error:
            caught.append((error.reason, loop.clock()))
            raise

    task = d.spawn(work)
    d.sleep(1)
    assert task.cancel(("any", "object")) is True
    task.join()
    assert caught == [(("any", "object"), 1001)]
    assert len(loop.timers) == 0


def test_result_of_a_cancelled_task_is_an_ordinary_exception(loop):
    task = d.spawn(d.sleep, 100)
    d.sleep(1)
    task.cancel("enough")
    task.join()
    with pytest.raises(d.TaskCancelledError, match="enough") as caught:
        task.result()
    assert isinstance(caught.value, Exception)
    assert not isinstance(caught.value, d.Cancelled)
    assert caught.value.reason == "enough"


def test_cancelled_is_not_caught_by_except_exception(loop):
    def stubborn():
        try:
            d.sleep(100)
        except Exception:
            return "caught"

    task = d.spawn(stubborn)
    d.sleep(1)
    task.cancel()
    task.join()
    with pytest.raises(d.TaskCancelledError):
        task.result()


def test_a_cancelled_task_is_no_failure(loop, take_errors):
    task = d.spawn(d.sleep, 100)
    d.sleep(1)
    task.cancel()
    d.sleep(1)
    assert task.done
    assert take_errors() == []


def test_cancel_of_a_task_that_has_not_started(loop):
    ran = []
    task = d.spawn(ran.append, 1)
    assert task.cancel("first") is True
    assert task.cancel("second") is True
    task.join()
    with pytest.raises(d.TaskCancelledError, match="first"):
        task.result()
    assert task.cancel() is False
    assert ran == []


def test_every_later_wait_of_a_cancelled_task_raises_again(loop, pair):
    sock, far = pair()
    far.send(b"there is input, and still\n")
    ended = d.spawn(int)
    ended.join()
    waits = [
        lambda: d.sleep(1),
        lambda: d.sleep(0),
        lambda: ended.join(),
        lambda: sock.read_exactly(1),
        lambda: sock.read_exactly(0),
        lambda: sock.read_line(),
        lambda: sock.read_until(b";"),
        lambda: sock.read_some(),
        lambda: sock.read_to_end(),
        lambda: next(iter(sock)),
        lambda: sock.write_all(b"x"),
        lambda: sock.drain(),
        lambda: d.connect(("127.0.0.1", 1)),
    ]
    raised = []

    def work():
        for wait in waits:
            try:
                wait()
            except d.Cancelled as error:
                raised.append(error.reason)
        return "through"

    task = d.spawn(work)
    d.sleep(0.5)
    task.cancel("now")
    task.join()
    assert raised == ["now"] * len(waits)
    assert task.result() == "through"
    assert sock.read_line() == b"there is input, and still\n"
    assert far.events(1) == 0


def test_cancelling_twice_wakes_once_and_keeps_the_first_reason(loop):
    seen = []

    def work():
        for _ in range(3):
            try:
                d.sleep(10)
            except d.Cancelled as error:
                seen.append((error.reason, loop.clock()))
        with d.shield():
            d.sleep(10)
        seen.append(loop.clock())

    task = d.spawn(work)
    d.sleep(1)
    assert task.cancel("first") is True
    assert task.cancel("second") is True
    d.sleep(1)
    assert task.cancel("third") is True
    task.join()
    assert seen == [("first", 1001)] * 3 + [1011]


def test_cancel_of_a_finished_task_changes_nothing(loop):
    task = d.spawn(lambda: 5)
    task.join()
    assert task.cancel() is False
    assert task.result() == 5


def test_a_task_that_cancels_itself_goes_on_to_its_next_wait(loop):
    steps = []

    def work():
        with d.move_on_after(5):
            assert d.current_task().cancel("me") is True
            steps.append("goes on")
            d.sleep(0)
            steps.append("never")

    task = d.spawn(work)
    task.join()
    with pytest.raises(d.TaskCancelledError, match="me"):
        task.result()
    assert steps == ["goes on"]


def test_a_task_that_cancels_itself_and_waits_no_more_has_ended_normally(loop):
    def work():
        d.current_task().cancel()
        return "my result"

    assert end_of(d.spawn(work)) == "my result"


def test_cancelling_from_finally(loop):
    """A cancelled task cancels another, and itself again, while it unwinds."""
    steps = []

    def other():
        try:
            d.sleep(100)
        finally:
            steps.append(("other", loop.clock()))

    def work():
        try:
            d.sleep(100)
        finally:
            steps.append(second.cancel("by the first"))
            steps.append(d.current_task().cancel("again"))

    second = d.spawn(other)
    first = d.spawn(work)
    d.sleep(1)
    first.cancel("from outside")
    first.join()
    second.join()
    assert steps == [True, True, ("other", 1001)]
    with pytest.raises(d.TaskCancelledError, match="from outside"):
        first.result()
    with pytest.raises(d.TaskCancelledError, match="by the first"):
        second.result()


def test_a_cancelled_task_that_waits_in_finally_without_a_shield_is_interrupted_there(loop):
    steps = []

    def work():
        try:
            d.sleep(100)
        finally:
            try:
                d.sleep(100)
            finally:
                steps.append(loop.clock())

    task = d.spawn(work)
    d.sleep(1)
    task.cancel()
    assert end_of(task) is d.TaskCancelledError
    assert steps == [1001]


@pytest.mark.in_order
def test_cancel_between_the_wake_and_the_run_comes_at_the_next_wait(loop):
    """The first wake counts: the join has been answered already."""
    steps = []

    def work():
        try:
            other.join()
            steps.append("joined")
            d.sleep(1)
            steps.append("never")
        except d.Cancelled:
            steps.append("cancelled")
            raise

    def cancel():
        other.join()  # woken together with the task
        steps.append(task.waits_for)
        task.cancel()

    other = d.spawn(d.sleep, 1)
    canceller = d.spawn(cancel)
    task = d.spawn(work)
    assert end_of(task) is d.TaskCancelledError
    assert steps == [None, "joined", "cancelled"]
    canceller.join()


def test_a_cancelled_join_leaves_the_joined_task_alone(loop):
    work = d.spawn(lambda: (d.sleep(5), "done")[1])
    joiner = d.spawn(work.join)
    d.sleep(1)
    joiner.cancel()
    joiner.join()
    work.join()
    assert work.result() == "done"


def test_cancel_undoes_a_sleep_of_no_seconds(loop):
    task = d.spawn(d.sleep, 0)
    loop.call_soon(lambda: task.cancel("now"))
    task.join()
    with pytest.raises(d.TaskCancelledError):
        task.result()
    d.sleep(1)


@pytest.mark.parametrize("timer_first", [True, False])
def test_a_cancel_by_a_timer_at_the_very_deadline_of_a_sleep_wakes_once(loop, timer_first):
    woken = []

    def work():
        for _ in range(2):
            try:
                d.sleep(1)
                woken.append("slept")
            except d.Cancelled:
                woken.append("cancelled")

    task = d.spawn(work)
    if timer_first:
        loop.add_timer(1, task.cancel)
    d.sleep(0)
    if not timer_first:
        loop.add_timer(1, task.cancel)
    task.join()
    assert woken == (["cancelled", "cancelled"] if timer_first else ["slept", "cancelled"])


def test_a_yielding_task_that_is_cancelled_by_the_call_before_it_leaves_the_queue_in_order(loop):
    ran = []

    def yields():
        loop.call_soon(lambda: task.cancel("by the call before"))
        d.sleep(0)

    def main():
        task.join()
        loop.call_soon(ran.append, "later")
        d.sleep(0)

    task = d.spawn(yields)
    d.run(main)
    assert ran == ["later"]
    with pytest.raises(d.TaskCancelledError, match="by the call before"):
        task.result()
