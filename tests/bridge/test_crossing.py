"""What crosses the border, and how: `await_`, `await task`, `to_task` and `as_future`, in each of the hostings."""

# ruff: noqa: PT012  what is raised at the edge of a block has that block inside

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import itertools
import sys
import threading
import traceback

import pytest

import dangagreen as d
from dangagreen.bridge import as_future, await_, to_task

VAR = contextvars.ContextVar("VAR", default="unset")


async def answer(value, seconds=0.0, rounds=0):
    """Wait for the time, then so many passes of the loop, and return it."""
    if seconds:
        await asyncio.sleep(seconds)
    for _ in range(rounds):
        await asyncio.sleep(0)
    return value


async def fails(error, seconds=0.0):
    await answer(None, seconds)
    raise error


def nap(seconds, value=None):
    d.sleep(seconds)
    return value


def raises(error, seconds=0.0):
    d.sleep(seconds)
    raise error


class Slow:
    """A coroutine that takes its time to clean up, and says what happened to it."""

    def __init__(self, seconds, clean_up=0.0, result=None):
        self.seconds, self.clean_up, self.result = seconds, clean_up, result
        self.log = []

    async def __call__(self):
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.log.append("cancelled")
            if self.clean_up:
                try:
                    await asyncio.sleep(self.clean_up)
                except asyncio.CancelledError:
                    self.log.append("cancelled again")
            self.log.append("clean")
            if self.result is not None:
                return self.result
            raise
        self.log.append("ended")
        return "the end"


# -- the table


@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_await_returns_the_result(ours, rounds):
    assert ours(lambda: await_(answer("it", rounds=rounds))) == "it"


def test_await_takes_futures_tasks_and_whatever_can_be_awaited(ours, unit):
    class Wanted:
        def __await__(self):
            yield from asyncio.sleep(0).__await__()
            return "wanted"

    async def make():
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_later(unit, future.set_result, "future")
        return future, loop.create_task(answer("task", unit))

    def work():
        future, task = await_(make())
        return await_(future), await_(task), await_(Wanted()), await_(future), await_(asyncio.gather(answer(1)))

    def in_coroutine():
        future, task = await_(make())
        return await_(future), await_(task), await_(Wanted()), await_(future)

    assert ours(in_coroutine) == ("future", "task", "wanted", "future")


@pytest.mark.parametrize("seconds", [0, 1])
def test_await_raises_the_exception_with_both_tracebacks(ours, unit, seconds):
    error = KeyError("it")

    def work():
        with pytest.raises(KeyError) as caught:
            await_(fails(error, seconds * unit))
        return caught.value

    caught = ours(work)
    assert caught is error
    names = [frame.f_code.co_name for frame, _ in traceback.walk_tb(caught.__traceback__)]
    assert "work" in names
    assert "fails" in names


def test_only_that_task_waits(ours, unit):
    log = []

    def ticker():
        for _ in range(3):
            d.sleep(unit)
            log.append("tick")

    async def until_it_has_ticked():
        for _ in range(1000):
            if len(log) == 3:
                return
            await asyncio.sleep(unit)

    def work():
        task = d.spawn(ticker)
        await_(until_it_has_ticked())
        log.append("done")
        task.join()

    ours(work)
    assert log == ["tick"] * 3 + ["done"]


def test_a_coroutine_that_begins_overtakes_none_whose_turn_it_is(ours, unit):
    """As in a pool of connections: who asks again at once would starve those who wait for what was given back."""
    order = []

    async def given_back():
        return asyncio.get_running_loop().create_future()

    async def waits(future):
        await future
        order.append("who has waited")

    async def gives_back(future):
        future.set_result(None)

    async def asks():
        order.append("who asks again")

    def body():
        future = await_(given_back())
        waiting = d.spawn(await_, waits(future))
        d.sleep(unit)
        await_(gives_back(future))
        await_(asks())
        waiting.join()

    ours(body)
    assert order == ["who has waited", "who asks again"]


def test_await_in_a_callback_is_refused_and_closes_the_coroutine(ours, unit):
    coroutine = answer(1)
    seen = []

    def callback():
        with pytest.raises(d.CannotParkError, match="spawn") as caught:
            await_(coroutine)
        seen.append(str(caught.value))

    def work():
        d.current_loop().call_soon(callback)
        d.sleep(unit)

    ours(work)
    assert seen
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


def test_await_in_a_coroutine_is_refused_and_closes_the_coroutine(theirs):
    inner = answer(1)

    async def outer():
        with pytest.raises(d.CannotParkError, match="await it"):
            await_(inner)

    theirs(outer())
    assert inspect.getcoroutinestate(inner) == inspect.CORO_CLOSED


def test_await_in_a_callback_of_asyncio_is_refused(theirs):
    inner = answer(1)

    async def outer():
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def callback():
            try:
                await_(inner)
            except BaseException as error:
                done.set_result(error)

        loop.call_soon(callback)
        return await done

    assert isinstance(theirs(outer()), d.CannotParkError)
    assert inspect.getcoroutinestate(inner) == inspect.CORO_CLOSED


def test_await_where_parking_is_forbidden_is_refused(ours):
    inner = answer(1)

    def work():
        with d.no_parking(), pytest.raises(d.CannotParkError):
            await_(inner)
        return await_(answer(2))

    assert ours(work) == 2
    assert inspect.getcoroutinestate(inner) == inspect.CORO_CLOSED


PARKING = {
    "sleep": lambda: d.sleep(1),
    "sleep(0)": lambda: d.sleep(0),
    "join": lambda: d.spawn(d.sleep, 0).join(),
    "event": lambda: d.Event().wait(),
    "queue": lambda: d.Queue().get(),
    "group": lambda: d.run(lambda: None),
}


@pytest.mark.parametrize("call", list(PARKING)[:5])
@pytest.mark.parametrize("where", ["coroutine", "callback"])
def test_parking_on_asyncios_side_is_refused_with_the_cure(theirs, unit, call, where):
    async def outer():
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def park():
            try:
                PARKING[call]()
            except BaseException as error:
                done.set_result(error)
            else:
                done.set_result(None)

        if where == "coroutine":
            park()
        else:
            loop.call_soon(park)
        error = await done
        await asyncio.sleep(unit)
        return error

    error = theirs(outer())
    assert isinstance(error, d.CannotParkError)
    assert "to_task" in str(error)


def test_run_in_a_coroutine_is_refused(theirs):
    async def outer():
        with pytest.raises(RuntimeError):
            d.run(lambda: None)
        return await answer(3)

    assert theirs(outer()) == 3


def test_a_coroutine_awaits_tasks(theirs, unit):
    async def outer():
        task = d.spawn(nap, unit, "spawned")
        return (
            await task,
            await task,
            await to_task(nap, unit, value="keyword"),
            await to_task(lambda: "at once"),
        )

    assert theirs(outer()) == ("spawned", "spawned", "keyword", "at once")


def test_a_coroutine_gets_what_a_task_raises(theirs, unit):
    error = KeyError("it")

    async def outer():
        with pytest.raises(KeyError) as caught:
            await to_task(raises, error, unit)
        return caught.value

    caught = theirs(outer())
    assert caught is error
    names = [frame.f_code.co_name for frame, _ in traceback.walk_tb(caught.__traceback__)]
    assert "raises" in names
    assert "outer" in names


def test_a_future_of_a_task_is_one_of_asyncios(theirs, unit):
    calls = []

    async def outer():
        first, second = as_future(d.spawn(nap, unit, 1)), as_future(d.spawn(nap, 5 * unit, 2))
        assert isinstance(first, asyncio.Future)
        first.add_done_callback(calls.append)
        done, pending = await asyncio.wait([first, second], return_when=asyncio.FIRST_COMPLETED)
        assert (done, pending) == ({first}, {second})
        await asyncio.sleep(0)
        assert calls == [first]
        return await asyncio.gather(first, second, asyncio.shield(as_future(d.spawn(nap, unit, 3))))

    assert theirs(outer()) == [1, 2, 3]


def test_a_future_of_a_task_that_has_ended_is_done(theirs):
    async def outer():
        task = d.spawn(lambda: 7)
        await task
        return await as_future(task), await asyncio.wait_for(as_future(task), 1)

    assert theirs(outer()) == (7, 7)


def test_a_failure_that_a_coroutine_has_taken_is_not_reported(theirs, unit, unhandled):
    async def outer():
        for how in (lambda task: task, as_future):
            task = d.spawn(raises, KeyError("it"), unit)
            with pytest.raises(KeyError):
                await how(task)

    theirs(outer())
    assert unhandled() == []


# -- cancellation, from our side


def timed_out(seconds, function, *args):
    """Whether the block ended by its time, as our scopes tell it."""
    with d.move_on_after(seconds) as scope:
        return function(*args), scope
    return None, scope


@pytest.mark.parametrize("how", ["scope", "task"])
@pytest.mark.parametrize("clean_up", [0, 3])
def test_a_coroutine_is_cancelled_once_and_waited_for(ours, unit, how, clean_up):
    slow = Slow(50 * unit, clean_up * unit)

    def wait():
        try:
            await_(slow())
        finally:
            slow.log.append("left")

    def work():
        if how == "scope":
            with d.move_on_after(unit) as scope:
                wait()
            assert scope.cancelled_caught
        else:
            task = d.spawn(wait)
            d.sleep(unit)
            task.cancel("enough")
            task.join()
            with pytest.raises(d.TaskCancelledError):
                task.result()

    ours(work)
    assert slow.log == ["cancelled", "clean", "left"]


def test_a_second_cancellation_does_not_disturb_the_clean_up(ours, unit):
    slow = Slow(50 * unit, 4 * unit)

    def work():
        task = d.spawn(lambda: await_(slow()))
        d.sleep(unit)
        for _ in range(3):
            task.cancel("enough")
            d.sleep(unit / 2)
        assert not task.done
        task.join()

    ours(work)
    assert slow.log == ["cancelled", "clean"]


def test_a_scope_that_expires_while_an_inner_one_cleans_up(ours, unit):
    slow = Slow(50 * unit, 4 * unit)

    def work():
        with d.move_on_after(2 * unit) as outer:
            with d.move_on_after(unit) as inner:
                await_(slow())
            d.sleep(0)
            slow.log.append("not here")
        return inner.cancelled_caught, outer.cancelled_caught

    assert ours(work)[1] is True
    assert slow.log == ["cancelled", "clean"]


def test_a_result_in_spite_of_it_is_returned_and_the_next_wait_raises(ours, unit):
    slow = Slow(50 * unit, unit, "all the same")
    log = []

    def work():
        with d.move_on_after(unit) as scope:
            log.append(await_(slow()))
            d.sleep(0)
            log.append("not here")
        return scope.cancelled_caught

    assert ours(work) is True
    assert log == ["all the same"]


def test_an_exception_in_spite_of_it_is_raised(ours, unit):
    async def slow():
        try:
            await asyncio.sleep(50 * unit)
        except asyncio.CancelledError:
            raise KeyError("instead") from None

    def work():
        with pytest.raises(KeyError), d.timeout(unit):
            await_(slow())
        d.sleep(0)

    ours(work)


def test_timeout_raises_timeout_error_at_its_edge(ours, unit):
    slow = Slow(50 * unit, unit)

    def work():
        with pytest.raises(TimeoutError), d.timeout(unit):
            await_(slow())
        return await_(answer(5))

    assert ours(work) == 5
    assert slow.log == ["cancelled", "clean"]


def test_a_shield_keeps_the_coroutine_from_it(ours, unit):
    slow = Slow(3 * unit)

    def work():
        with d.move_on_after(unit) as scope:
            with d.shield():
                slow.log.append(await_(slow()))
            d.sleep(0)
            slow.log.append("not here")
        return scope.cancelled_caught

    assert ours(work) is True
    assert slow.log == ["ended", "the end"]


def test_a_shield_around_the_wait_of_asyncio_lets_the_coroutine_go_on(ours, unit):
    slow = Slow(3 * unit)

    async def begin():
        return asyncio.ensure_future(slow())

    async def shielded(task):
        return asyncio.shield(task)

    def work():
        task = await_(begin())
        with d.move_on_after(unit) as scope:
            await_(await_(shielded(task)))
        assert scope.cancelled_caught
        assert slow.log == []
        return await_(task)

    assert ours(work) == "the end"
    assert slow.log == ["ended"]


def test_in_an_expired_scope_the_coroutine_is_not_begun(ours, unit):
    started = []

    async def never():
        started.append(1)

    coroutine = never()

    def work():
        with d.move_on_after(10 * unit) as scope:
            scope.cancel()
            await_(coroutine)
        return scope.cancelled_caught

    assert ours(work) is True
    assert started == []
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


def test_a_future_awaited_in_an_expired_scope_is_left_alone(ours, unit):
    async def begin():
        return asyncio.ensure_future(answer("alive", 2 * unit))

    def work():
        task = await_(begin())
        with d.move_on_after(10 * unit) as scope:
            scope.cancel()
            await_(task)
        return task.cancelling()

    assert ours(work) == 0


# -- cancellation, from theirs


def test_cancelling_a_coroutine_cancels_the_task_and_waits_for_its_end(theirs, unit):
    log = []

    def stays():
        try:
            d.sleep(50 * unit)
        except d.Cancelled:
            log.append("cancelled")
            with d.shield():
                d.sleep(2 * unit)
            log.append("clean")
            raise

    async def outer():
        waiting = asyncio.ensure_future(to_task(stays))
        await asyncio.sleep(unit)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        log.append("left")

    theirs(outer())
    assert log == ["cancelled", "clean", "left"]


@pytest.mark.parametrize("how", ["timeout", "wait_for"])
def test_a_time_limit_of_asyncio_over_a_task(theirs, unit, how):
    log = []

    def stays():
        try:
            d.sleep(50 * unit)
        finally:
            with d.shield():
                d.sleep(unit)
            log.append("clean")

    async def outer():
        with pytest.raises(TimeoutError):
            if how == "timeout":
                async with asyncio.timeout(unit):
                    await to_task(stays)
            else:
                await asyncio.wait_for(to_task(stays), unit)
        log.append("left")
        assert asyncio.current_task().cancelling() == 0
        return await to_task(nap, unit, "goes on")

    assert theirs(outer()) == "goes on"
    assert log == ["clean", "left"]


def test_a_cancellation_is_counted_once_and_can_be_taken_back(theirs, unit):
    async def inner():
        try:
            await to_task(d.sleep, 50 * unit)
        except asyncio.CancelledError:
            count = asyncio.current_task().cancelling()
            asyncio.current_task().uncancel()
            await to_task(d.sleep, unit)
            return count, asyncio.current_task().cancelling()

    async def outer():
        task = asyncio.ensure_future(inner())
        await asyncio.sleep(unit)
        task.cancel()
        return await task

    assert theirs(outer()) == (1, 0)


def test_shield_of_asyncio_over_a_task(theirs, unit):
    async def outer():
        task = d.spawn(nap, 3 * unit, "the end")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(unit):
                await asyncio.shield(as_future(task))
        assert not task.done
        return await task

    assert theirs(outer()) == "the end"


def test_a_task_that_ends_with_a_result_in_spite_of_it(theirs, unit):
    def stays():
        try:
            d.sleep(50 * unit)
        except d.Cancelled:
            return "all the same"

    async def outer():
        task = d.spawn(stays)
        waiting = asyncio.ensure_future(to_wait(task))
        await asyncio.sleep(unit)
        waiting.cancel()
        return (await asyncio.gather(waiting, return_exceptions=True))[0]

    async def to_wait(task):
        return await task

    end = theirs(outer())
    assert end == "all the same" or isinstance(end, asyncio.CancelledError)


def test_cancelling_the_future_of_a_task_cancels_the_task(theirs, unit):
    log = []

    def stays():
        try:
            d.sleep(50 * unit)
        finally:
            log.append("clean")

    async def outer():
        task = d.spawn(stays)
        future = as_future(task)
        await asyncio.sleep(unit)
        assert future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await future
        assert task.done
        assert log == ["clean"]
        with pytest.raises(d.TaskCancelledError):
            task.result()

    theirs(outer())


def test_a_failing_child_cancels_tasks_in_a_group_of_asyncio(theirs, unit):
    log = []

    def stays():
        try:
            d.sleep(50 * unit)
        finally:
            with d.shield():
                d.sleep(unit)
            log.append("clean")

    async def outer():
        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                group.create_task(to_task_coroutine(stays))
                group.create_task(to_task_coroutine(raises, KeyError("it"), unit))
        log.append("left")
        return [type(error) for error in caught.value.exceptions]

    async def to_task_coroutine(*call):
        return await to_task(*call)

    assert theirs(outer()) == [KeyError]
    assert log == ["clean", "left"]


def test_a_failing_coroutine_cancels_its_siblings_in_a_group_of_ours(ours, unit):
    slow = Slow(50 * unit, unit)

    def work():
        with pytest.raises(ExceptionGroup) as caught, d.TaskGroup() as group:
            group.spawn(await_, slow())
            group.spawn(await_, fails(KeyError("it"), unit))
        slow.log.append("left")
        return [type(error) for error in caught.value.exceptions]

    assert ours(work) == [KeyError]
    assert slow.log == ["cancelled", "clean", "left"]


@pytest.mark.parametrize("first", [1, 2, 3])
def test_three_limits_each_converted_at_its_own_edge(ours, unit, first):
    """Ours around asyncio's around ours; the one that expires first is the one that is told."""
    limits = [2 * unit if level == first else 20 * unit for level in (1, 2, 3)]
    log = []

    def innermost():
        try:
            with d.timeout(limits[2]):
                d.sleep(200 * unit)
        except TimeoutError:
            log.append(3)
            d.sleep(unit)
            return "third"

    async def middle():
        try:
            async with asyncio.timeout(limits[1]):
                return await to_task(innermost)
        except TimeoutError:
            log.append(2)
            await asyncio.sleep(unit)
            return "second"

    def work():
        try:
            with d.timeout(limits[0]):
                return await_(middle())
        except TimeoutError:
            log.append(1)
            d.sleep(unit)
            return "first"

    assert ours(work) == ["first", "second", "third"][first - 1]
    assert log == [first]


@pytest.mark.parametrize("first", [1, 2, 3])
def test_three_limits_the_other_way_round(theirs, unit, first):
    limits = [2 * unit if level == first else 20 * unit for level in (1, 2, 3)]
    log = []

    async def innermost():
        try:
            async with asyncio.timeout(limits[2]):
                await asyncio.sleep(200 * unit)
        except TimeoutError:
            log.append(3)
            await asyncio.sleep(unit)
            return "third"

    def middle():
        try:
            with d.timeout(limits[1]):
                return await_(innermost())
        except TimeoutError:
            log.append(2)
            d.sleep(unit)
            return "second"

    async def outer():
        try:
            async with asyncio.timeout(limits[0]):
                return await to_task(middle)
        except TimeoutError:
            log.append(1)
            assert asyncio.current_task().cancelling() == 0
            await asyncio.sleep(unit)
            return "first"

    assert theirs(outer()) == ["first", "second", "third"][first - 1]
    assert log == [first]


# -- somebody else's cancellation


def test_a_future_that_a_third_party_cancels_is_no_cancellation_of_the_waiter(ours, unit):
    async def begin():
        task = asyncio.ensure_future(answer(1, 50 * unit))
        asyncio.get_running_loop().call_later(unit, task.cancel)
        return task

    def work():
        task = await_(begin())
        with pytest.raises(d.TaskCancelledError):
            await_(task)
        with pytest.raises(d.TaskCancelledError):
            await_(task)  # cancelled already
        return await_(answer("goes on", unit))

    assert ours(work) == "goes on"


@pytest.mark.parametrize("how", ["task", "group", "failure"])
def test_a_cancelled_task_that_nobody_awaits_is_quiet_and_a_failed_one_is_not(theirs, unit, caplog, how):
    def fails():
        d.sleep(unit)
        raise d.TaskCancelledError("somebody else was")

    def in_group(made):
        with d.TaskGroup() as group:
            made.append(group.spawn(d.sleep, 50 * unit))
            d.sleep(2 * unit)
            group.cancel()

    async def main():
        made = []
        if how == "group":
            d.spawn(in_group, made)
            await asyncio.sleep(unit)
        else:
            made.append(d.spawn(fails) if how == "failure" else d.spawn(d.sleep, 50 * unit))
        future = as_future(made[0])
        if how == "task":
            made[0].cancel("enough")
        await asyncio.wait([future])  # which does not ask for its exception

    theirs(main())
    gc.collect()
    assert ("never retrieved" in caplog.text) is (how == "failure")


def test_a_cancelled_task_that_was_quiet_raises_where_it_is_awaited_later(theirs, unit):
    async def main():
        task = d.spawn(d.sleep, 50 * unit)
        future = as_future(task)
        task.cancel("enough")
        await asyncio.wait([future])
        with pytest.raises(d.TaskCancelledError, match="enough"):
            await future

    theirs(main())


def test_a_coroutine_that_raises_cancelled_error_of_its_own(ours):
    async def gives_up():
        raise asyncio.CancelledError("mine")

    async def gives_up_later():
        await asyncio.sleep(0)
        raise asyncio.CancelledError("mine")

    def work():
        for coroutine in (gives_up(), gives_up_later()):
            with pytest.raises(d.TaskCancelledError):
                await_(coroutine)
        return await_(answer("goes on"))

    assert ours(work) == "goes on"


def test_a_coroutine_that_a_third_party_cancels_before_it_begins(ours, unit):
    """Where it does not begin at once: before Python 3.12, and on somebody else's loop."""

    async def which():
        return asyncio.get_running_loop()

    coroutine = answer("never", 50 * unit)

    def cancel(loop):
        for task in asyncio.all_tasks(loop):
            if task.get_coro().__qualname__ == coroutine.__qualname__:
                task.cancel()

    def work():
        loop = await_(which())
        task = d.spawn(await_, coroutine)
        d.spawn(cancel, loop)
        task.join(30)
        with pytest.raises(d.TaskCancelledError):
            task.result()
        return inspect.getcoroutinestate(coroutine)

    assert ours(work) == inspect.CORO_CLOSED


@pytest.mark.parametrize("future", [False, True])
def test_a_task_that_a_third_party_cancels_is_no_cancellation_of_the_coroutine(theirs, unit, future):
    async def outer():
        task = d.spawn(nap, 50 * unit)
        asyncio.get_running_loop().call_later(unit, task.cancel, "a third party")
        with pytest.raises(d.TaskCancelledError, match="third party"):
            await (as_future(task) if future else task)
        with pytest.raises(d.TaskCancelledError):
            await task  # cancelled already
        assert asyncio.current_task().cancelling() == 0
        return await answer("goes on", unit)

    assert theirs(outer()) == "goes on"


# -- exceptions


def test_groups_pass_unchanged(ours, theirs, hosting):
    group = ExceptionGroup("it", [KeyError(1), ValueError(2)])

    async def across():
        await to_task(raises, group)

    def work():
        with pytest.raises(ExceptionGroup) as caught:
            await_(across())
        return caught.value

    assert ours(work) is group


def test_stop_iteration_is_a_runtime_error_that_names_it(ours):
    def stop():
        raise StopIteration("it")

    async def stops():
        raise StopIteration("it")

    async def across():
        with pytest.raises(RuntimeError, match="StopIteration"):
            await to_task(stop)
        with pytest.raises(RuntimeError, match="StopIteration"):
            await as_future(d.spawn(stop))

    def work():
        await_(across())
        with pytest.raises(RuntimeError, match="StopIteration"):
            await_(stops())

    ours(work)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("suspends", [False, True])
@pytest.mark.parametrize("depth", [1, 2])
def test_the_end_of_the_program_leaves_from_a_coroutine_once(ours, unit, kind, suspends, depth):
    async def ends():
        if suspends:
            await asyncio.sleep(unit)
        raise kind("the end")

    async def between():
        await to_task(lambda: await_(ends()))

    with pytest.raises(kind, match="the end"):
        ours(lambda: await_(ends() if depth == 1 else between()))


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_the_end_of_the_program_leaves_from_a_task_once(theirs, unit, kind):
    async def outer():
        await to_task(raises, kind("the end"), unit)

    with pytest.raises(kind, match="the end"):
        theirs(outer())


class Mine(BaseException):
    """Neither an Exception nor the end of the program."""


@pytest.mark.parametrize("error", [Mine("it"), BaseExceptionGroup("it", [Mine("it")])], ids=["one", "group"])
def test_other_base_exceptions_pass_unchanged(ours, unit, error):
    async def across(seconds):
        with pytest.raises(type(error)) as caught:
            await to_task(raises, error, seconds)
        raise caught.value

    def work():
        for seconds in (0, unit):
            with pytest.raises(type(error)) as caught:
                await_(across(seconds))
            assert caught.value is error
        return "goes on"

    assert ours(work) == "goes on"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["call_soon", "call_later", "task of asyncio", "callback of ours", "task of ours"])
def test_the_end_of_the_program_leaves_from_where_nobody_waits(ours, unit, hosting, kind, where):
    """From a callback, or a coroutine or task that nobody awaits; main cleans up, unless it is no task at all."""
    held, log = [], []

    def end():
        raise kind("the end")

    async def ends():
        end()

    async def start():
        loop = asyncio.get_running_loop()
        if where == "call_soon":
            loop.call_soon(end)
        elif where == "call_later":
            loop.call_later(unit, end)
        else:
            held.append(asyncio.ensure_future(ends()))

    def work():
        try:
            if where == "callback of ours":
                d.current_loop().call_soon(end)
            elif where == "task of ours":
                d.spawn(end)
            else:
                await_(start())
            d.sleep(50 * unit)
        finally:
            log.append("clean")

    with pytest.raises(kind, match="the end"):
        ours(work)
    assert log == ([] if hosting == "in a task" else ["clean"])  # there it is parked until the loop ends
    for task in held:
        assert isinstance(task.exception(), kind)


# -- contexts


def test_a_coroutine_sees_the_context_of_the_task_and_keeps_its_own(ours):
    async def look(rounds):
        seen = [VAR.get()]
        VAR.set("coroutine")
        for _ in range(rounds):
            await asyncio.sleep(0)
        return [*seen, VAR.get()]

    def work():
        VAR.set("task")
        return [(await_(look(rounds)), VAR.get()) for rounds in (0, 2)]

    assert ours(work) == [
        (["task", "coroutine"], "task"),
        (["task", "coroutine"], "task"),
    ]


def test_a_task_gets_a_copy_of_the_context_of_the_coroutine(theirs, unit):
    def look():
        seen = [VAR.get()]
        VAR.set("task")
        d.sleep(unit)
        return [*seen, VAR.get()]

    async def outer():
        VAR.set("coroutine")
        return await to_task(look), VAR.get()

    assert theirs(outer()) == (["coroutine", "task"], "coroutine")


def test_spans_nest_through_three_changes_of_side(ours, unit):
    trace = pytest.importorskip("opentelemetry.trace")
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    tracer = sdk.TracerProvider().get_tracer("test")
    spans = {}

    def span(name):
        return tracer.start_as_current_span(name)

    def note(name):
        spans[name] = trace.get_current_span()

    async def second():
        with span("second"):
            note("second")
            await asyncio.sleep(unit)
            await to_task(third)
            note("second again")

    def third():
        with span("third"):
            note("third")
            d.sleep(unit)
            await_(fourth())

    async def fourth():
        with span("fourth"):
            await asyncio.sleep(unit)
            note("fourth")

    def work():
        with span("first"):
            note("first")
            await_(second())
            note("first again")

    ours(work)
    names = ["first", "second", "third", "fourth"]
    for outer, inner in itertools.pairwise(names):
        assert spans[inner].parent.span_id == spans[outer].get_span_context().span_id
    assert spans["first again"] is spans["first"]
    assert spans["second again"] is spans["second"]


# -- who is running


def test_no_loop_of_asyncio_runs_in_a_task_and_its_own_in_a_coroutine(ours, unit):
    async def look():
        before = asyncio.get_running_loop(), asyncio.current_task(), sys.get_asyncgen_hooks().firstiter
        assert None not in before
        inside = await to_task(nobody)
        assert inside is True
        assert (asyncio.get_running_loop(), asyncio.current_task(), sys.get_asyncgen_hooks().firstiter) == before
        await asyncio.sleep(unit)
        assert (asyncio.get_running_loop(), asyncio.current_task(), sys.get_asyncgen_hooks().firstiter) == before

    def nobody():
        for _ in range(3):
            with pytest.raises(RuntimeError):
                asyncio.get_running_loop()
            with pytest.raises(RuntimeError):
                asyncio.current_task()
            assert sys.get_asyncgen_hooks() == (None, None)
            d.sleep(unit / 4)
        return True

    def work():
        sibling = d.spawn(nobody)
        nobody()
        await_(look())
        nobody()
        with pytest.raises(KeyError):
            await_(fails(KeyError("it")))
        nobody()
        assert sibling.result()

    ours(work)


def test_sniffio_answers_asyncio_in_a_coroutine_and_nothing_in_a_task(ours):
    sniffio = pytest.importorskip("sniffio")

    async def look():
        assert sniffio.current_async_library() == "asyncio"
        await to_task(nobody)
        assert sniffio.current_async_library() == "asyncio"

    def nobody():
        with pytest.raises(sniffio.AsyncLibraryNotFoundError):
            sniffio.current_async_library()

    def work():
        nobody()
        await_(look())
        nobody()

    ours(work)


def test_our_current_task_is_nobody_in_a_coroutine(ours, unit):
    """A coroutine that `await_` runs in the greenlet of its caller is not that task."""

    async def look():
        with pytest.raises(d.CannotParkError):
            d.sleep(0)
        return await to_task(d.current_task)

    def work():
        mine = d.current_task()
        theirs = await_(look())
        assert theirs is not mine
        assert d.current_task() is mine

    ours(work)


# -- async generators


def test_an_async_generator_that_is_left_is_closed_by_its_loop(ours, unit):
    log = []

    async def numbers():
        try:
            for number in range(10):
                yield number
                await asyncio.sleep(0)
        finally:
            await asyncio.sleep(0)
            log.append("closed")

    async def look():
        async for number in numbers():
            if number == 2:
                break
        await asyncio.sleep(unit)

    ours(lambda: await_(look()))
    assert log == ["closed"]


# -- errors in words


@pytest.mark.parametrize(
    "thing", [None, 3, "a coroutine", answer], ids=lambda thing: getattr(thing, "__name__", repr(thing))
)
def test_what_cannot_be_awaited_is_named(ours, thing):
    def work():
        with pytest.raises(TypeError, match="await_ needs a coroutine"):
            await_(thing)
        return await_(answer(1))

    assert ours(work) == 1


def test_a_coroutine_that_was_awaited_already_says_so(ours):
    coroutine = answer("it", rounds=1)

    def work():
        assert await_(coroutine) == "it"
        with pytest.raises(RuntimeError, match="already awaited"):
            await_(coroutine)
        return await_(answer(1))

    assert ours(work) == 1


def test_to_task_and_as_future_outside_of_asyncio_say_so(ours):
    def work():
        task = d.spawn(lambda: 1)
        with pytest.raises(RuntimeError):
            as_future(task)
        task.join()

    ours(work)


def test_a_task_of_another_threads_loop_cannot_be_awaited(hosting, theirs, in_thread):
    def elsewhere():
        task = d.spawn(lambda: 1)
        task.join()
        return task

    foreign = in_thread(elsewhere)

    async def outer():
        with pytest.raises(RuntimeError, match=r"neither hosts .* nor is its guest"):
            await foreign
        with pytest.raises(RuntimeError):
            as_future(foreign)

    theirs(outer())


def test_a_future_of_another_threads_loop_cannot_be_awaited(ours, in_thread):
    def elsewhere():
        loop = asyncio.new_event_loop()
        return loop, loop.create_future()

    loop, foreign = in_thread(elsewhere)

    def work():
        with pytest.raises(RuntimeError, match=r"_UnixSelectorEventLoop.*dangagreen\.Loop"):
            await_(foreign)

    try:
        ours(work)
    finally:
        loop.close()


def test_an_await_in_a_thread_of_its_own_makes_that_threads_loops(ours, in_thread):
    def elsewhere():
        try:
            return await_(answer("there", 0.001))
        finally:
            d.current_loop().close()

    assert ours(lambda: in_thread(elsewhere)) == "there"


def test_a_future_of_a_running_loop_is_refused_with_the_names_of_both_threads(ours):
    """And a task of a running loop of ours is."""
    ready, end = threading.Event(), threading.Event()
    made = []

    async def hold():
        made.append(asyncio.get_running_loop().create_future())
        made.append(await to_task(d.current_task))
        ready.set()
        while not end.is_set():
            await asyncio.sleep(0.001)

    def elsewhere():
        d.run(lambda: d.spawn(await_, hold()).join())

    async def awaits(task):
        with pytest.raises(d.ForeignThreadError, match=r"thread 'other'.*thread 'MainThread'"):
            await task

    def work():
        with pytest.raises(d.ForeignThreadError, match=r"thread 'other'.*thread 'MainThread'"):
            await_(made[0])
        await_(awaits(made[1]))

    thread = threading.Thread(target=elsewhere, name="other")
    thread.start()
    try:
        assert ready.wait(30)
        ours(work)
    finally:
        end.set()
        thread.join()


def test_outside_of_a_coroutine_the_way_there_is_named(loop):
    ran = []

    def main():
        with pytest.raises(
            RuntimeError, match=r"^to_task was called outside of a coroutine.*: elsewhere .* spawn\(f, x\)$"
        ):
            to_task(ran.append, 1)
        with pytest.raises(RuntimeError, match=r"^as_future was called outside of a coroutine.* join\(\)$"):
            as_future(d.spawn(d.sleep, 0))
        d.sleep(0.1)

    d.run(main)
    assert ran == []
