"""What is true of everything that tasks stand in line for: order, hand-over, cancellation, timeouts, where it may be
called. Each test runs for every kind of thing there is."""

from __future__ import annotations

import re
import time
from functools import partial

import pytest

import dangagreen as d
from dangagreen.green.waiters import Waiter
from dangagreen.sync.wait_queue import WaitQueue
from tests.helpers import in_callback, is_free
from tests.inside import run_tasks, waiting_for

pytestmark = pytest.mark.in_order  # of spawning: who waits first is served first


class Kind:
    """One kind of thing: how to make one that has nothing to give, to wait for it, and to give to the first in line.

    `wait(timeout)` answers whether one was given; `give()` never parks; `left()` is how many were given and not taken.
    `done()` is what somebody does who has got one, so that the next gets one as well, if that is how it works.
    """

    timed_out: type[Exception] | None = None

    def wait(self, timeout=None):
        raise NotImplementedError

    def done(self):
        pass


class OfLock(Kind):
    make = d.Lock

    def __init__(self):
        self.thing = type(self).make()
        self.thing.acquire()

    def wait(self, timeout=None):
        return self.thing.acquire() if timeout is None else self.thing.acquire(timeout=timeout)

    def give(self):
        self.thing.release()

    def left(self):
        return int(not self.thing.locked())

    done = give


class OfRLock(OfLock):
    """The first holder is a callback, so that callbacks can give it."""

    make = d.RLock

    def __init__(self):
        self.thing = d.RLock()
        loop = d.current_loop()
        loop.call_soon(self.thing.acquire, False)
        d.sleep(0)
        assert self.thing.locked()


class OfSemaphore(Kind):
    make = d.Semaphore

    def __init__(self):
        self.thing = type(self).make(1)
        self.thing.acquire()

    def wait(self, timeout=None):
        return self.thing.acquire(timeout=timeout)

    def give(self):
        self.thing.release()

    def left(self):
        return int(re.search(r"value=(\d+)", repr(self.thing))[1])

    done = give


class OfBoundedSemaphore(OfSemaphore):
    make = d.BoundedSemaphore


class OfCondition(Kind):
    """A notification is not kept for later ones: `left` counts those that found nobody."""

    def __init__(self):
        self.thing = d.Condition()
        self.unheard = 0

    def wait(self, timeout=None):
        with self.thing:
            return self.thing.wait(timeout)

    def give(self):
        assert self.thing.acquire(False)
        self.unheard += not waiting_for(self.thing)
        self.thing.notify()
        self.thing.release()

    def left(self):
        return self.unheard

    done = give


class OfEvent(Kind):
    """Whoever has been waiting is given one; nothing is left for others."""

    def __init__(self):
        self.thing = d.Event()

    def wait(self, timeout=None):
        return self.thing.wait(timeout)

    def give(self):
        self.thing.set()
        self.thing.clear()

    def left(self):
        return 0


ONE_AT_A_TIME = [OfLock, OfRLock, OfSemaphore, OfBoundedSemaphore, OfCondition]
EVERY_KIND = [*ONE_AT_A_TIME, OfEvent]


def each(kinds):
    return pytest.mark.parametrize("make", kinds, ids=lambda kind: kind.__name__[2:])


def waiters(kind, number, log, timeout=None):
    """So many tasks that wait, note what came of it, wait once more, and are done with it."""

    def work(me):
        got = kind.wait(timeout)
        log.append((me, got))
        if got:
            try:
                d.sleep(1)
            finally:
                kind.done()

    return [d.spawn(work, me) for me in range(number)]


# -- order


@each(EVERY_KIND)
def test_first_come_first_served(make, loop, advance):
    kind, log = make(), []
    tasks = waiters(kind, 5, log)
    advance(1)
    assert log == []
    in_callback(loop, kind.give)
    advance(10)
    assert log == [(me, True) for me in range(5)]
    assert all(task.done for task in tasks)


@each(ONE_AT_A_TIME)
def test_one_is_given_to_one(make, loop, advance):
    kind, log = make(), []
    tasks = waiters(kind, 3, log)
    advance(1)
    in_callback(loop, kind.give)
    advance(0.5)
    assert log == [(0, True)]
    assert sum(task.waits_for.startswith("sleep") for task in tasks) == 1
    advance(10)


@each([OfLock, OfRLock, OfSemaphore, OfBoundedSemaphore])
def test_nobody_overtakes_the_one_who_was_given_it(make, loop, advance):
    kind, log = make(), []
    waiters(kind, 2, log)
    advance(1)

    def give_and_take():
        kind.give()
        log.append(kind.thing.acquire(False))

    in_callback(loop, give_and_take)
    late = d.spawn(lambda: log.append(("late", kind.wait())) or kind.done())
    advance(10)
    assert log == [False, (0, True), (1, True), ("late", True)]
    assert late.done


# -- timeouts


@each(EVERY_KIND)
def test_a_timeout_is_false_and_takes_nothing(make, loop, advance):
    kind, log = make(), []
    tasks = waiters(kind, 3, log, timeout=5)
    advance(4.9)
    assert log == []
    advance(0.2)
    assert log == [(me, False) for me in range(3)]
    assert all(task.done for task in tasks)
    assert waiting_for(kind.thing) == 0
    assert kind.left() == 0
    assert len(loop.timers) == 0


@each(EVERY_KIND)
@pytest.mark.parametrize("timeout", [0, -2.5])
def test_no_time_is_no_wait(make, loop, timeout):
    kind = make()
    waits = loop.poller.waits
    if isinstance(kind, OfLock) and timeout < 0:
        with pytest.raises(ValueError, match="negative"):
            kind.wait(timeout)
    else:
        assert kind.wait(timeout) is False
    assert loop.poller.waits == waits
    assert waiting_for(kind.thing) == 0


@each(EVERY_KIND)
def test_a_timeout_must_be_a_number(make, loop):
    kind = make()
    with pytest.raises(ValueError, match="not a number"):
        kind.wait(float("nan"))
    assert waiting_for(kind.thing) == 0


@each(EVERY_KIND)
def test_given_just_before_the_time_is_up(make, loop, advance):
    kind, log = make(), []
    loop.add_timer(5, kind.give)
    (task,) = waiters(kind, 1, log, timeout=5)
    advance(10)
    assert log == [(0, True)]
    assert task.done


@each(ONE_AT_A_TIME)
def test_given_just_after_the_time_is_up(make, loop, advance, run_turns):
    kind, log = make(), []
    (task,) = waiters(kind, 1, log, timeout=5)
    run_turns(2)
    loop.add_timer(5, kind.give)
    advance(10)
    assert log == [(0, False)]
    assert task.done
    assert kind.left() == 1


@each(EVERY_KIND)
def test_time_up_within_the_line(make, loop, advance):
    kind, log = make(), []
    first, last = waiters(kind, 1, log), []
    advance(0.1)
    hasty = waiters(kind, 3, last, timeout=1)
    advance(0.1)
    first += waiters(kind, 1, log)
    advance(2)
    assert last == [(me, False) for me in range(3)]
    in_callback(loop, kind.give)
    advance(10)
    assert log == [(0, True), (0, True)]
    assert all(task.done for task in first + hasty)


# -- cancellation


@each(EVERY_KIND)
@pytest.mark.parametrize("timeout", [None, 100])
def test_cancelled_before_it_is_given(make, timeout, loop, advance):
    kind, log = make(), []
    first, second, third = waiters(kind, 3, log, timeout)
    advance(1)
    first.cancel("not that one")
    in_callback(loop, kind.give)
    advance(10)
    assert log == [(1, True), (2, True)]
    for task in (first, second, third):
        assert task.done
    with pytest.raises(d.TaskCancelledError, match="not that one"):
        first.result()
    assert waiting_for(kind.thing) == 0


@each(EVERY_KIND)
def test_cancelled_and_given_in_one_turn(make, loop, advance):
    """The cancellation was first: the second one gets it."""
    kind, log = make(), []
    first, second = waiters(kind, 2, log)
    advance(1)

    def cancel_and_give():
        first.cancel()
        kind.give()

    in_callback(loop, cancel_and_give)
    advance(10)
    assert log == [(1, True)]
    assert first.done
    assert second.done


@each(EVERY_KIND)
def test_given_and_cancelled_before_it_runs(make, loop, advance):
    """What it was given is its own: it returns, and its next wait raises."""
    kind, log = make(), []
    first, second = waiters(kind, 2, log)
    advance(1)

    def give_and_cancel():
        kind.give()
        first.cancel()

    in_callback(loop, give_and_cancel)
    advance(10)
    assert log == [(0, True), (1, True)]
    with pytest.raises(d.TaskCancelledError):
        first.result()
    assert second.result() is None


@each(EVERY_KIND)
def test_cancelled_while_it_has_it(make, loop, advance):
    kind, log = make(), []
    first, second = waiters(kind, 2, log)
    advance(1)
    in_callback(loop, kind.give)
    advance(0.5)
    first.cancel()
    advance(10)
    assert log == [(0, True), (1, True)]
    assert first.done
    assert second.done


@each(EVERY_KIND)
def test_one_that_is_cancelled_already_takes_nothing(make, loop, advance, run_turns):
    kind = make()
    errors = []

    def work():
        try:
            d.sleep(100)
        except d.Cancelled:
            pass
        try:
            kind.wait()
        except d.Cancelled as error:
            errors.append(error.reason)

    task = d.spawn(work)
    run_turns(1)
    if isinstance(kind, OfEvent):
        kind.thing.set()
    elif not isinstance(kind, OfCondition):
        in_callback(loop, kind.give)
    task.cancel("go away")
    advance(1)
    assert errors == ["go away"]
    assert task.done
    assert waiting_for(kind.thing) == 0
    if not isinstance(kind, OfEvent | OfCondition):
        assert kind.left() == 1


@pytest.mark.slow
@each(EVERY_KIND)
def test_thousands_that_are_cancelled(make, loop, advance, run_turns):
    kind, log = make(), []
    tasks = waiters(kind, 3000, log)
    run_turns(50)
    assert waiting_for(kind.thing) == 3000
    for task in tasks[1::2] + tasks[-2::-2]:
        task.cancel()
    assert waiting_for(kind.thing) == 0
    in_callback(loop, kind.give)
    run_turns(50)
    assert log == []
    assert all(task.done for task in tasks)
    assert kind.left() == (0 if isinstance(kind, OfEvent) else 1)


def test_a_place_costs_the_same_in_any_line(loop):
    def cost(number):
        tasks = [Waiter(loop) for _ in range(number)]
        best = 1e9
        for _ in range(3):
            line = WaitQueue()
            before = time.process_time()
            for task in tasks:
                line._join(task)
            for task in tasks[number // 2 :: -1]:
                line._leave(task)
            while line._waiters:
                line._grant()
            best = min(best, time.process_time() - before)
        return best / number

    cost(100)
    assert cost(30_000) < cost(1000) * 5


# -- what ends a waiter without asking it


@each(EVERY_KIND)
def test_reset_of_the_loop_leaves_nothing_with_the_dead(make, loop, run_turns):
    kind, log = make(), []
    tasks = waiters(kind, 3, log)
    run_turns(2)

    def give_and_interrupt():  # they are served, and have not run
        kind.give()
        raise KeyboardInterrupt

    loop.call_soon(give_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        d.sleep(1)
    loop.reset()
    assert log == []
    assert all(task.done for task in tasks)
    assert waiting_for(kind.thing) == 0
    if not isinstance(kind, OfEvent | OfCondition):
        assert kind.left() == 1


@each([OfLock, OfRLock, OfSemaphore, OfBoundedSemaphore, OfCondition])
def test_ctrl_c_in_top_level_code_that_was_given_it(make, loop, advance):
    """It goes to the next one: top-level code is out of its wait, and does not know that it was served."""
    kind, log = make(), []
    later = []

    def give_and_interrupt():
        later.extend(waiters(kind, 1, log))
        run_tasks(loop)
        kind.give()
        raise KeyboardInterrupt

    loop.call_soon(give_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        kind.wait()
    assert not isinstance(kind, OfCondition) or is_free(kind.thing)
    advance(10)
    assert log == [(0, True)]
    assert later[0].done


@each(EVERY_KIND)
def test_ctrl_c_in_top_level_code_that_waits(make, loop, advance):
    kind, log = make(), []

    def interrupt():
        raise KeyboardInterrupt

    loop.add_timer(1, interrupt)
    with pytest.raises(KeyboardInterrupt):
        kind.wait()
    assert waiting_for(kind.thing) == 0
    (task,) = waiters(kind, 1, log)
    advance(1)
    in_callback(loop, kind.give)
    advance(10)
    assert log == [(0, True)]
    assert task.done


# -- where it is called


@each(EVERY_KIND)
def test_top_level_code_waits_and_gives(make, loop):
    kind = make()
    loop.add_timer(3, kind.give)
    assert kind.wait() is True
    assert loop.clock() == 1003
    log = []
    (task,) = waiters(kind, 1, log)
    d.sleep(1)
    assert log == []
    kind.give()  # no loop is running
    task.join(10)
    assert log == [(0, True)]


@each(EVERY_KIND)
def test_a_callback_may_not_wait_also_when_it_need_not(make, loop, take_errors):
    kind = make()
    in_callback(loop, kind.wait)
    in_callback(loop, kind.thing.set if isinstance(kind, OfEvent) else kind.give)
    in_callback(loop, kind.wait)
    errors = take_errors()
    assert len(errors) == 2
    for context in errors:
        assert isinstance(context.exception, d.CannotParkError)
        assert "wait" in str(context.exception)
    assert waiting_for(kind.thing) == 0


FOREIGN = {
    "Lock.acquire": lambda: d.Lock().acquire,
    "Lock.acquire(False)": lambda: partial(d.Lock().acquire, False),
    "Lock.release": lambda: held(d.Lock()).release,
    "RLock.acquire": lambda: d.RLock().acquire,
    "RLock.release": lambda: held(d.RLock()).release,
    "Semaphore.acquire": lambda: d.Semaphore().acquire,
    "Semaphore.release": lambda: d.Semaphore().release,
    "BoundedSemaphore.release": lambda: held(d.BoundedSemaphore()).release,
    "Condition.acquire": lambda: d.Condition().acquire,
    "Condition.wait": lambda: held(d.Condition()).wait,
    "Condition.wait_for": lambda: partial(held(d.Condition()).wait_for, lambda: True),
    "Condition.notify": lambda: held(d.Condition()).notify,
    "Condition.notify_all": lambda: held(d.Condition()).notify_all,
    "Barrier.wait": lambda: d.Barrier(1).wait,
    "Barrier.abort": lambda: d.Barrier(1).abort,
    "Barrier.reset": lambda: d.Barrier(1).reset,
}


def held(thing):
    thing.acquire()
    return thing


@pytest.mark.parametrize("call", FOREIGN)
def test_a_foreign_thread_is_refused(call, loop, in_thread):
    function = FOREIGN[call]()
    with pytest.raises(d.ForeignThreadError, match="the other one"):
        in_thread(function)


@pytest.mark.parametrize("call", [name for name in FOREIGN if not name.endswith(".release")])
def test_a_foreign_thread_is_refused_while_a_task_runs(call, loop, in_thread):
    def work():
        in_thread(FOREIGN[call]())

    task = d.spawn(work)
    task.join()
    with pytest.raises(d.ForeignThreadError, match="the other one"):
        task.result()


@each(EVERY_KIND)
def test_another_thread_gives_by_way_of_the_loop(make, real_loop, in_thread):
    kind = make()
    task = d.spawn(kind.wait)
    real_loop.add_timer(0.01, lambda: in_thread(real_loop.call_soon_threadsafe, kind.give))
    task.join(10)
    assert task.result() is True


# -- in words


@each(EVERY_KIND)
def test_who_waits_says_for_what(make, loop, advance):
    kind, log = make(), []
    (task,) = waiters(kind, 1, log)
    advance(1)
    assert repr(kind.thing) in task.waits_for
    assert task.waits_for.startswith(("acquire of", "wait of"))
    in_callback(loop, kind.give)
    advance(2)
    assert task.done


def test_a_name_of_a_subclass_is_its_own(loop):
    class _Acquirable(d.Semaphore):
        pass

    assert "_Acquirable at" in repr(_Acquirable())


def test_the_one_who_is_served_is_answered(loop):
    line, task = WaitQueue(), Waiter(loop)
    place = line._join(task)
    assert line._grant(7) is task
    assert place == [7]
