"""Event, Condition, Barrier: what is particular to each. What all have in common is in test_line."""

from __future__ import annotations

import threading

import pytest

import dangagreen as d
from tests.helpers import in_callback, is_free
from tests.inside import waiting_for


@pytest.fixture
def work(loop):
    """`work(function, *args)` spawns a task and has it run until it first parks. Its failure is the test's affair."""

    def work(function, *args):
        task = d.spawn(function, *args)
        task.error_retrieved = True
        d.sleep(0)
        return task

    return work


# -- Event


def test_an_event_is_set_or_not(loop):
    event = d.Event()
    assert (event.is_set(), event.ready) == (False, False)
    for _ in range(2):
        event.set()
        assert (event.is_set(), event.ready) == (True, True)
    for _ in range(2):
        event.clear()
        assert (event.is_set(), event.ready) == (False, False)


def test_to_wait_for_an_event_that_is_set_is_no_wait(loop):
    event = d.Event()
    event.set()
    waits = loop.poller.waits
    assert event.wait() is True
    assert event.wait(0) is True
    assert loop.poller.waits == waits


def test_those_who_waited_go_on_although_it_was_cleared(work):
    event = d.Event()
    tasks = [work(event.wait) for _ in range(3)]
    event.set()
    event.clear()
    late = work(event.wait, 1)
    for task in [*tasks, late]:
        task.join()
    assert [task.result() for task in [*tasks, late]] == [True, True, True, False]


@pytest.mark.parametrize("where", ["top-level code", "callback", "timer", "other task"])
def test_set_from_everywhere(loop, work, where):
    event = d.Event()
    task = work(event.wait)
    if where == "top-level code":
        event.set()
    elif where == "callback":
        loop.call_soon(event.set)
    elif where == "timer":
        loop.add_timer(1, event.set)
    else:
        d.spawn(event.set)
    task.join(2)
    assert task.result() is True


def test_an_event_in_words(loop):
    event = d.Event()
    assert repr(event) == f"<dangagreen.Event at {id(event):#x}: unset>"
    event.set()
    assert repr(event) == f"<dangagreen.Event at {id(event):#x}: set>"


def test_one_task_watches_several_events(loop, work):
    events = [d.Event() for _ in range(3)]
    task, beside = work(d.select, *events), work(events[1].wait)
    events[1].set()
    assert not any(waiting_for(event) for event in events)
    task.join(1)
    assert task.result() is events[1]
    assert [event.ready for event in events] == [False, True, False]
    assert beside.result() is True


def test_a_watcher_that_is_cancelled_watches_no_more(loop, work):
    events = [d.Event(), d.Event()]
    task = work(d.select, *events)
    task.cancel()
    assert not any(waiting_for(event) for event in events)
    task.join()
    events[0].set()


def test_to_watch_an_event_twice_is_harmless(loop, work):
    event = d.Event()
    tasks = [work(d.select, event, event) for _ in range(2)]
    tasks[0].cancel()
    assert waiting_for(event) == 1
    event.set()
    tasks[1].join(1)
    assert tasks[1].result() is event
    assert waiting_for(event) == 0


# -- Condition: wait and notify


class Box:
    """One thing, or none, and who may look."""

    def __init__(self, lock=None):
        self.changed = d.Condition(lock)
        self.things = []

    def put(self, thing):
        with self.changed:
            self.things.append(thing)
            self.changed.notify()

    def take(self):
        with self.changed:
            while not self.things:
                self.changed.wait()
            return self.things.pop(0)


@pytest.mark.in_order
@pytest.mark.parametrize("lock", [d.Lock, d.RLock, lambda: None])
def test_producers_and_consumers(loop, lock):
    box = Box(lock())
    takers = [d.spawn(box.take) for _ in range(10)]
    for number in range(5):
        d.spawn(box.put, number)
    d.sleep(1)
    for number in range(5, 10):
        box.put(number)
    for taker in takers:
        taker.join(1)
    assert [taker.result() for taker in takers] == list(range(10))


@pytest.mark.parametrize("lock", [threading.Lock(), threading.RLock(), object(), d.Semaphore])
def test_a_condition_takes_no_lock_that_stops_the_loop(loop, lock):
    with pytest.raises(TypeError, match="needs a Lock or an RLock"):
        d.Condition(lock() if lock is d.Semaphore else lock)


@pytest.mark.in_order
def test_notify_wakes_as_many_as_it_says_in_order(loop, work):
    condition, log = d.Condition(), []

    def wait(number):
        with condition:
            condition.wait()
            log.append(number)

    tasks = [work(wait, number) for number in range(6)]
    with condition:
        condition.notify(2)
        d.sleep(1)
        assert log == []  # they have to have the lock
    d.sleep(1)
    assert log == [0, 1]
    with condition:
        condition.notify(0)
        condition.notify()
    d.sleep(1)
    assert log == [0, 1, 2]
    with condition:
        condition.notify_all()
        condition.notify(100)
        condition.notify_all()
    d.sleep(1)
    assert log == list(range(6))
    assert all(task.done for task in tasks)


def test_a_callback_notifies(loop, work):
    condition = d.Condition()

    def wait():
        with condition:
            return condition.wait()

    def notify():
        assert condition.acquire(False)
        condition.notify_all()
        condition.release()

    tasks = [work(wait) for _ in range(2)]
    in_callback(loop, notify)
    for task in tasks:
        task.join(1)
    assert [task.result() for task in tasks] == [True, True]


@pytest.mark.parametrize("lock", [d.Lock, d.RLock])
@pytest.mark.parametrize("call", ["wait", "notify", "notify_all", "wait_for"])
def test_only_the_holder_of_the_lock_may_ask(loop, work, lock, call):
    condition = d.Condition(lock())
    ask = (lambda: condition.wait_for(lambda: True)) if call == "wait_for" else getattr(condition, call)
    with pytest.raises(RuntimeError, match="without holding"):
        ask()
    work(condition.acquire)
    with pytest.raises(RuntimeError, match="without holding"):
        ask()
    with pytest.raises(RuntimeError, match="hold"):
        work(ask).result()


def test_a_wait_gives_all_of_the_lock_up_and_takes_all_of_it_again(loop, work):
    condition = d.Condition()

    def wait():
        with condition, condition, condition:
            condition.wait()
            seen.append(condition._lock._depth)
        seen.append(not is_free(condition))

    seen = []
    task = work(wait)
    assert condition.acquire(False)
    condition.notify()
    condition.release()
    task.join(1)
    assert seen == [2, False]


def test_two_conditions_of_one_lock(loop, work):
    lock = d.Lock()
    full, empty, things, log = d.Condition(lock), d.Condition(lock), [], []

    def produce():
        for number in range(20):
            with lock:
                while len(things) == 3:
                    full.wait()
                things.append(number)
                empty.notify()

    def consume():
        for _ in range(20):
            with lock:
                while not things:
                    empty.wait()
                log.append(things.pop(0))
                full.notify()

    for task in [work(produce), work(consume)]:
        task.join(1)
    assert log == list(range(20))


def test_wait_for(loop, work):
    condition, asked = d.Condition(), []
    state = []

    def predicate():
        asked.append(len(state))
        return len(state) >= 3 and "yes"

    def wait():
        with condition:
            return condition.wait_for(predicate)

    task = work(wait)
    for _ in range(3):
        with condition:
            state.append(1)
            condition.notify()
        d.sleep(1)
    task.join(1)
    assert task.result() is True
    assert asked == [0, 1, 2, 3]


def test_the_timeout_of_wait_for_is_for_all_of_it(loop, work):
    condition = d.Condition()

    def wait():
        with condition:
            return condition.wait_for(lambda: False, 5)

    task = work(wait)
    for _ in range(4):
        d.sleep(1)
        with condition:
            condition.notify()
    task.join(100)
    assert task.result() is False
    assert loop.clock() == 1005
    with condition:
        assert condition.wait_for(lambda: False, 0) is False
        assert condition.wait_for(lambda: True, 0) is True


def test_wait_for_looks_for_cancellation_also_when_it_need_not_wait(loop, work, take_errors):
    condition, asked = d.Condition(), []

    def wait():
        with condition:
            d.current_task().cancel()
            condition.wait_for(lambda: asked.append(1) or True)

    work(wait)
    loop.call_soon(condition.wait_for, wait)
    d.sleep(0)
    assert asked == []
    (context,) = take_errors()
    assert isinstance(context.exception, d.CannotParkError)


def test_whether_the_lock_of_a_condition_is_held(loop):
    condition = d.Condition()
    assert not condition.locked()
    with condition:
        assert condition.locked()


def test_a_condition_in_words(loop, work):
    condition = d.Condition(d.Lock())

    def wait():
        with condition:
            condition.wait(1)

    task = work(wait)
    assert repr(condition).startswith("<dangagreen.Condition at 0x")
    assert repr(condition).endswith(", 1 waiting>")
    assert "<unlocked dangagreen.Lock object" in repr(condition)
    task.join()


# -- Condition: the lock comes back


def holds(condition):
    """Does who calls this hold its lock?"""
    try:
        condition.notify(0)
    except RuntimeError:
        return False
    return True


def holding(lock, seconds):
    """Hold it for so long."""
    with lock:
        d.sleep(seconds)


class Waiting:
    """A task that waits on a condition, and what it sees afterwards."""

    def __init__(self, condition, timeout=None):
        self.condition = condition
        self.timeout = timeout
        self.owned = self.answer = self.error = self.at = self.cancelled_at_next = None
        self.task = d.spawn(self.run)
        d.sleep(0)

    def run(self):
        with self.condition:
            try:
                self.answer = self.condition.wait(self.timeout)
            except BaseException as error:
                self.error = error
            self.owned = holds(self.condition)
            self.at = self.condition.loop.clock() - 1000
            try:
                d.sleep(0)
            except d.Cancelled as error:
                self.cancelled_at_next = error.reason
            except BaseException as error:
                self.cancelled_at_next = error
            if self.error is not None:
                raise self.error


@pytest.fixture(params=[d.Lock, d.RLock])
def condition(request, loop):
    return d.Condition(request.param())


def test_a_cancelled_wait_has_the_lock_before_it_raises(condition, work):
    waiting = Waiting(condition)
    work(holding, condition, 5)
    waiting.task.cancel("enough")
    d.sleep(1)
    assert waiting.owned is None
    assert "to have" in waiting.task.waits_for
    waiting.task.join()
    assert waiting.owned is True
    assert waiting.error.reason == "enough"
    assert waiting.at == 5
    assert is_free(condition)
    assert waiting_for(condition) == 0


def test_a_wait_whose_time_is_up_has_the_lock_before_it_answers(condition, work):
    waiting = Waiting(condition, 2)
    work(holding, condition, 5)
    waiting.task.join()
    assert (waiting.answer, waiting.owned, waiting.at) == (False, True, 5)
    assert is_free(condition)


def test_cancelled_a_second_time_while_it_waits_for_the_lock(condition, work):
    waiting = Waiting(condition)
    work(holding, condition, 5)
    for reason in ("first", "second", "third"):
        waiting.task.cancel(reason)
        d.sleep(1)
    assert waiting.owned is None
    waiting.task.join()
    assert (waiting.error.reason, waiting.owned, waiting.at) == ("first", True, 5)
    assert waiting.cancelled_at_next == "first"


def test_an_interrupt_on_its_way_is_held_off_until_it_has_the_lock(condition, work):
    """As `run` leaves one with a main task that was woken just before Ctrl-C."""
    waiting = Waiting(condition)
    with condition:
        condition.notify()
        waiting.task.interrupt = interrupt = KeyboardInterrupt()
        d.sleep(3)
    waiting.task.join()
    assert (waiting.answer, waiting.owned, waiting.error, waiting.at) == (True, True, None, 3)
    assert waiting.cancelled_at_next is interrupt


def test_cancelled_after_its_time_was_up(condition, work):
    """It had ended its wait by then: that answers, and the next one raises."""
    waiting = Waiting(condition, 1)
    work(holding, condition, 5)
    d.sleep(2)
    waiting.task.cancel("late")
    waiting.task.join()
    assert (waiting.answer, waiting.owned, waiting.at) == (False, True, 5)
    assert waiting.cancelled_at_next == "late"


@pytest.mark.parametrize("late", [False, True])
def test_cancelled_after_it_was_notified(condition, work, late):
    """The notification is not lost: it answers, with the lock, and the next wait raises."""
    waiting = Waiting(condition)
    with condition:
        condition.notify()
        if late:  # it runs, and finds that it has to wait for the lock
            d.sleep(1)
        waiting.task.cancel("late")
        d.sleep(3)
    waiting.task.join()
    assert (waiting.answer, waiting.owned, waiting.error) == (True, True, None)
    assert waiting.cancelled_at_next == "late"
    assert is_free(condition)


def test_a_cancellation_does_not_cost_the_place_in_the_line_for_the_lock(condition, work):
    waiting = Waiting(condition, 1)
    work(holding, condition, 5)
    d.sleep(2)  # its time is up, it waits for the lock
    seen = []

    def want():
        with condition:
            seen.append(waiting.owned)

    later = work(want)
    waiting.task.cancel()
    later.join()
    assert seen == [True]
    waiting.task.join()


def test_given_the_lock_and_cancelled_in_one_turn(condition, work):
    """Woken by the cancellation, it is given the lock before it has run."""
    waiting = Waiting(condition, 1)
    condition.acquire()
    d.sleep(2)  # its time is up, it waits for the lock
    waiting.task.cancel("now")
    condition.release()
    assert condition.acquire(False) is False
    waiting.task.join()
    assert (waiting.answer, waiting.owned, waiting.cancelled_at_next) == (False, True, "now")
    assert is_free(condition)


def test_one_that_is_cancelled_already_keeps_the_lock(condition, work):
    log = []

    def wait():
        with condition:
            try:
                d.sleep(100)
            except d.Cancelled:
                pass
            try:
                condition.wait()
            finally:
                log.append((holds(condition), waiting_for(condition)))

    task = work(wait)
    other = work(condition.acquire)
    task.cancel()
    task.join()
    assert log == [(True, 0)]
    other.join(1)
    assert other.result() is True


def test_the_other_waiters_lose_nothing_by_a_cancellation(condition, work):
    waiting = [Waiting(condition) for _ in range(4)]
    waiting[0].task.cancel()
    waiting[2].task.cancel()
    with condition:
        condition.notify(2)
    for one in waiting:
        one.task.join(1)
    assert [one.answer for one in waiting] == [None, True, None, True]
    assert all(one.owned for one in waiting)


def test_a_wait_without_time_lets_those_who_want_the_lock_have_it(condition, work):
    log = []

    def want():
        with condition:
            log.append("other")

    with condition:
        task = work(want)
        assert log == []
        assert condition.wait(0) is False
        log.append("me")
    assert log == ["other", "me"]
    assert task.done


@pytest.mark.parametrize("kind", [d.Lock, d.RLock])
def test_reset_ends_a_wait_that_cannot_have_its_lock(loop, work, take_errors, kind):
    lock = kind()
    condition = d.Condition(lock)
    ones = [Waiting(condition), Waiting(condition, 1)]
    holder = work(holding, condition, 100)
    d.sleep(2)
    loop.reset()
    assert holder.done
    for one in ones:
        assert one.task.done
        assert one.owned is False
    assert is_free(condition)
    assert waiting_for(condition) == waiting_for(lock) == 0
    assert take_errors() == []


def test_ctrl_c_while_top_level_code_waits_for_the_lock_passes_the_notification_on(condition, loop):
    def notify():
        with condition:
            d.sleep(1)
            condition.notify()
            d.sleep(2)

    def ctrl_c():
        raise KeyboardInterrupt

    def wait():
        waiting.append(Waiting(condition))

    waiting = []
    d.spawn(wait)
    loop.add_timer(0.25, lambda: d.spawn(notify))
    loop.add_timer(1.5, ctrl_c)
    with pytest.raises(KeyboardInterrupt), condition:
        condition.wait()
    assert waiting[0].answer is None
    waiting[0].task.join(5)
    assert (waiting[0].answer, waiting[0].at) == (True, 3.25)
    assert is_free(condition)


# -- Barrier


def test_all_go_on_when_the_last_has_come(loop, work):
    barrier = d.Barrier(4)
    tasks = [work(barrier.wait) for _ in range(3)]
    d.sleep(10)
    assert barrier.n_waiting == 3
    assert not any(task.done for task in tasks)
    assert barrier.wait() == 3
    assert barrier.n_waiting == 0
    d.sleep(0)
    assert [task.result() for task in tasks] == [0, 1, 2]


def test_round_after_round(loop):
    barrier, log = d.Barrier(3), []

    def run(name, pause):
        for number in range(10):
            d.sleep(pause)
            log.append(number)
            barrier.wait()

    tasks = [d.spawn(run, name, pause) for name, pause in (("a", 0), ("b", 1), ("c", 2.5))]
    for task in tasks:
        task.join()
    assert log == sorted(log)
    assert len(log) == 30


def test_more_than_the_parties_form_the_next_round(loop, work):
    barrier = d.Barrier(3)
    tasks = [work(barrier.wait) for _ in range(8)]
    d.sleep(0)
    assert [task.done for task in tasks] == [True] * 6 + [False] * 2
    assert [task.result() for task in tasks[:6]] == [2 if number == 2 else number for number in (0, 1, 2)] * 2
    barrier.abort()
    with pytest.raises(d.BrokenBarrierError):
        tasks[7].join(1) or tasks[7].result()
    tasks[6].join(1)


def test_a_barrier_for_one_never_waits(loop):
    barrier = d.Barrier(1)
    waits = loop.poller.waits
    assert [barrier.wait() for _ in range(3)] == [0, 0, 0]
    assert loop.poller.waits == waits


@pytest.mark.parametrize("parties", [0, -1])
def test_a_barrier_needs_parties(loop, parties):
    with pytest.raises(ValueError, match="at least one"):
        d.Barrier(parties)


def test_its_errors_are_those_of_threading(loop):
    assert d.BrokenBarrierError is threading.BrokenBarrierError


def broken(tasks):
    """How many of them ended by a broken barrier."""
    count = 0
    for task in tasks:
        task.join(1)
        with pytest.raises(d.BrokenBarrierError, match="Barrier"):
            task.result()
        count += 1
    return count


def test_a_timeout_breaks_the_barrier_for_all(loop, work):
    barrier = d.Barrier(4)
    tasks = [work(barrier.wait), work(barrier.wait, 3), work(barrier.wait, 50)]
    d.sleep(2.9)
    assert not barrier.broken
    d.sleep(0.2)
    assert barrier.broken
    assert broken(tasks) == 3
    with pytest.raises(d.BrokenBarrierError):
        barrier.wait()
    assert barrier.n_waiting == 0
    assert loop.clock() == 1003.1


def test_the_timeout_of_the_barrier_is_for_all_who_give_none(loop, work):
    barrier = d.Barrier(3, timeout=5)
    tasks = [work(barrier.wait)]
    d.sleep(4)
    tasks.append(work(barrier.wait, 100))
    d.sleep(0.9)
    assert not barrier.broken
    d.sleep(0.2)
    assert broken(tasks) == 2


@pytest.mark.parametrize("call", ["abort", "reset"])
def test_abort_and_reset_wake_all_who_wait(loop, work, call):
    barrier = d.Barrier(3)
    tasks = [work(barrier.wait) for _ in range(2)]
    in_callback(loop, getattr(barrier, call))
    assert broken(tasks) == 2
    assert barrier.broken is (call == "abort")
    barrier.reset()
    tasks = [work(barrier.wait) for _ in range(2)]
    assert barrier.wait() == 2
    for task in tasks:
        task.join(1)
    assert [task.result() for task in tasks] == [0, 1]


@pytest.mark.parametrize("call", ["abort", "reset"])
def test_what_comes_after_the_last_has_come_hurts_nobody(loop, work, call):
    barrier = d.Barrier(3)
    tasks = [work(barrier.wait, 5) for _ in range(2)]
    assert barrier.wait() == 2
    getattr(barrier, call)()  # before the others have run
    tasks[0].cancel()
    for task in tasks:
        task.join(1)
    assert [task.result() for task in tasks] == [0, 1]


def test_one_that_is_cancelled_leaves_its_place_to_another(loop, work):
    barrier = d.Barrier(3)
    tasks = [work(barrier.wait) for _ in range(2)]
    tasks[0].cancel()
    assert barrier.n_waiting == 1
    tasks.append(work(barrier.wait))
    assert not barrier.broken
    assert barrier.wait() == 2
    for task in tasks:
        task.join(1)
    assert [task.result() for task in tasks[1:]] == [0, 1]
    with pytest.raises(d.TaskCancelledError):
        tasks[0].result()


def test_the_last_runs_the_action_before_the_others_go_on(loop, work):
    log = []
    barrier = d.Barrier(3, lambda: log.append("action"))

    def run(name):
        number = barrier.wait()
        log.append((name, number))

    tasks = [work(run, name) for name in "abc"]
    for task in tasks:
        task.join(1)
    assert log[0] == "action"
    assert sorted(log[1:]) == [("a", 0), ("b", 1), ("c", 2)]


def test_an_action_that_raises_breaks_the_barrier(loop, work):
    barrier = d.Barrier(3, lambda: 1 / 0)
    tasks = [work(barrier.wait) for _ in range(2)]
    with pytest.raises(ZeroDivisionError):
        barrier.wait()
    assert barrier.broken
    assert broken(tasks) == 2


@pytest.mark.in_order
def test_while_the_action_waits_those_who_come_belong_to_the_next_round(loop, work):
    log = []

    def action():
        log.append(barrier.n_waiting)
        d.sleep(5)

    barrier = d.Barrier(3, action)
    tasks = [work(barrier.wait) for _ in range(6)]
    d.sleep(1)
    assert not any(task.done for task in tasks)
    d.sleep(4)
    d.sleep(0)
    assert [task.done for task in tasks] == [True] * 3 + [False] * 3
    d.sleep(5)
    assert [task.result() for task in tasks] == [0, 1, 2, 0, 1, 2]
    assert log == [2, 2]


def test_abort_while_the_action_waits(loop, work):
    barrier = d.Barrier(2, lambda: d.sleep(5))
    tasks = [work(barrier.wait) for _ in range(3)]
    d.sleep(1)
    barrier.abort()
    assert broken(tasks[:1]) == 1
    d.sleep(5)
    assert broken(tasks[1:]) == 2


def test_cancelled_in_the_action(loop, work):
    barrier = d.Barrier(2, lambda: d.sleep(5))
    tasks = [work(barrier.wait) for _ in range(3)]
    tasks[1].cancel()
    tasks[1].join(1)
    with pytest.raises(d.TaskCancelledError):
        tasks[1].result()
    assert broken([tasks[0], tasks[2]]) == 2
    assert barrier.broken


def test_a_barrier_in_words(loop, work):
    barrier = d.Barrier(2)
    assert repr(barrier) == f"<dangagreen.Barrier at {id(barrier):#x}: waiters=0/2>"
    work(barrier.wait)
    assert repr(barrier).endswith("waiters=1/2>")
    assert barrier.parties == 2
    barrier.abort()
    assert repr(barrier).endswith("broken>")
    d.sleep(0)
