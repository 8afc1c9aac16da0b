"""Queue, PriorityQueue, LifoQueue: order, fairness, nothing lost, and where they may be used."""

from __future__ import annotations

import gc
import queue
import sys
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dangagreen as d
from dangagreen.sync.queues import _undo_pop, _undo_push
from tests.helpers import results, spawn_all
from tests.inside import waiting_for

ALL = (d.Queue, d.LifoQueue, d.PriorityQueue)


@pytest.fixture(params=ALL, ids=lambda queue_class: queue_class.__name__)
def queue_class(request):
    return request.param


@pytest.fixture
def full(loop):
    """A queue for one item, which holds "old"."""
    q = d.Queue(1)
    q.put_nowait("old")
    return q


def drain(q):
    items = []
    while not q.empty():
        items.append(q.get_nowait())
    return items


def getters(q, n):
    return spawn_all(lambda _: q.get(), range(n))


# -- order and size


@pytest.mark.parametrize(
    ("queue_class", "order"), [(d.Queue, [2, 3, 1]), (d.LifoQueue, [1, 3, 2]), (d.PriorityQueue, [1, 2, 3])]
)
def test_each_has_its_order(loop, queue_class, order):
    q = queue_class()
    for item in (2, 3, 1):
        q.put(item)
    assert [q.get() for _ in range(3)] == order


def test_size(loop, queue_class):
    q = queue_class(2)
    assert (q.qsize(), q.empty(), q.full(), q.maxsize) == (0, True, False, 2)
    q.put_nowait(1)
    assert (q.qsize(), q.empty(), q.full()) == (1, False, False)
    q.put_nowait(2)
    assert (q.qsize(), q.empty(), q.full()) == (2, False, True)


@pytest.mark.parametrize("maxsize", [0, -1])
def test_without_a_limit_it_is_never_full(loop, queue_class, maxsize):
    q = queue_class(maxsize)
    for number in range(10_000):
        q.put_nowait(number)
    assert not q.full()
    assert q.maxsize == 0


@pytest.mark.in_order
def test_any_object_is_an_item(loop):
    q = d.Queue()
    items = [None, False, (), [], KeyError, d.Cancelled()]
    waiting = getters(q, 3)
    for item in items:
        q.put(item)
    assert results(waiting) == items[:3]
    assert drain(q) == items[3:]


@pytest.mark.in_order
def test_a_larger_maxsize_lets_those_in_who_wait(loop):
    q = d.Queue(1)
    q.put("old")
    putters = spawn_all(q.put, range(3))
    q.maxsize = 3
    d.sleep(0)
    assert [task.done for task in putters] == [True, True, False]
    q.maxsize = 0
    results(putters)
    assert drain(q) == ["old", 0, 1, 2]


def test_a_smaller_maxsize_holds_putters_back(loop):
    q = d.Queue(3)
    for number in range(3):
        q.put(number)
    q.maxsize = 1
    (putter,) = spawn_all(q.put, [3])
    assert [q.get(), q.get()] == [0, 1]
    d.sleep(0)
    assert not putter.done
    assert q.get() == 2
    putter.join(1)
    assert drain(q) == [3]


# -- first come, first served


@pytest.mark.in_order
def test_getters_are_served_in_the_order_in_which_they_came(loop):
    q = d.Queue()
    waiting = getters(q, 5)
    for number in range(5):
        q.put_nowait(number)
    assert results(waiting) == [0, 1, 2, 3, 4]


@pytest.mark.in_order
def test_putters_are_served_in_the_order_in_which_they_came(loop, full):
    putters = spawn_all(full.put, range(5))
    assert [full.get() for _ in range(6)] == ["old", 0, 1, 2, 3, 4]
    results(putters)


@pytest.mark.in_order
def test_one_item_goes_to_one_getter(loop, queue_class):
    q = queue_class()
    waiting = getters(q, 3)
    q.put("item")
    d.sleep(1)
    assert [task.done for task in waiting] == [True, False, False]
    q.put("other")
    q.put("third")
    assert results(waiting) == ["item", "other", "third"]


def test_an_item_that_was_given_to_a_getter_cannot_be_overtaken(loop, queue_class):
    q = queue_class()
    (getter,) = getters(q, 1)
    q.put_nowait("for the getter")
    assert q.empty()
    with pytest.raises(queue.Empty):
        q.get_nowait()
    with pytest.raises(queue.Empty):
        q.get(timeout=1)
    assert results([getter]) == ["for the getter"]


def test_a_place_that_was_given_to_a_putter_cannot_be_overtaken(loop, full):
    (putter,) = spawn_all(full.put, ["second"])
    assert full.get_nowait() == "old"
    assert full.full()
    with pytest.raises(queue.Full):
        full.put_nowait("third")
    with pytest.raises(queue.Full):
        full.put("third", timeout=1)
    assert putter.done
    assert drain(full) == ["second"]


def test_who_puts_and_gets_in_one_go_comes_after_those_who_wait(loop):
    q = d.Queue()
    (waiting,) = getters(q, 1)

    def put_and_get():
        q.put("first")
        return q.get()

    task = d.spawn(put_and_get)
    d.sleep(1)
    assert waiting.result() == "first"
    assert not task.done
    q.put("second")
    assert results([task]) == ["second"]


def test_two_tasks_take_turns_over_a_queue_of_size_one(loop):
    q = d.Queue(1)
    producer = spawn_all(lambda n: [q.put(number) for number in range(n)], [100])
    assert [q.get() for _ in range(100)] == list(range(100))
    results(producer)


# -- timeouts


def test_get_times_out(loop, queue_class):
    q = queue_class()
    with pytest.raises(queue.Empty):
        q.get(timeout=2)
    assert loop.clock() == 1002
    q.put(1)
    assert q.get(timeout=2) == 1
    assert loop.clock() == 1002


def test_put_times_out(loop, full):
    with pytest.raises(queue.Full):
        full.put("new", timeout=2)
    assert loop.clock() == 1002
    assert drain(full) == ["old"]
    full.put("new", timeout=2)
    assert loop.clock() == 1002


def test_who_asks_again_and_again_with_a_timeout_of_zero_lets_others_run(loop, full):
    def polling(call, *args):
        for _ in range(10):
            try:
                return call(*args, timeout=0)
            except (queue.Empty, queue.Full):
                pass
        return "never"

    q = d.Queue()
    poller = d.spawn(polling, q.get)
    d.spawn(q.put, "item")
    assert results([poller]) == ["item"]
    assert q.empty()
    poller = d.spawn(polling, full.put, "new")
    d.spawn(full.get)
    assert results([poller]) == [None]
    assert loop.clock() == 1000


def test_a_negative_timeout_is_a_mistake(loop):
    q = d.Queue()
    with pytest.raises(ValueError, match="timeout"):
        q.put(1, timeout=-1)
    q.put(1)
    with pytest.raises(ValueError, match="timeout"):
        q.get(timeout=-0.1)
    assert drain(q) == [1]


@pytest.mark.parametrize("first", ["put", "timeout"])
def test_an_item_that_comes_at_the_moment_of_the_timeout_is_not_lost(loop, first):
    q = d.Queue()
    if first == "put":
        loop.add_timer(1, lambda: q.put_nowait("item"))
    (getter,) = spawn_all(lambda timeout: q.get(timeout=timeout), [1])
    if first == "timeout":
        loop.add_timer(1, lambda: q.put_nowait("item"))
    getter.join(2)
    if first == "put":
        assert getter.result() == "item"
    else:
        assert isinstance(getter.result(), queue.Empty)
        assert drain(q) == ["item"]
    assert len(loop.timers) == 0


# -- cancellation


def test_a_cancelled_get_takes_nothing(loop, queue_class):
    q = queue_class()
    first, second = getters(q, 2)
    first.cancel()
    q.put("item")
    assert results([second]) == ["item"]
    with pytest.raises(d.TaskCancelledError):
        first.result()


def test_a_get_that_was_given_its_item_returns_it_and_is_cancelled_at_the_next_wait(loop, queue_class):
    q = queue_class()
    got = []

    def get_twice():
        got.append(q.get())
        got.append(q.get())

    (task,) = spawn_all(lambda _: get_twice(), [0])
    q.put_nowait("first")
    assert task.cancel()
    q.put_nowait("second")
    task.join()
    assert got == ["first"]
    assert drain(q) == ["second"]
    with pytest.raises(d.TaskCancelledError):
        task.result()


def test_a_task_that_is_cancelled_takes_nothing_although_something_is_there(loop):
    q = d.Queue(1)
    q.put("item")

    def cancel_myself_and(call):
        d.current_task().cancel()
        call()

    for call in (q.get, q.join):
        task = d.spawn(cancel_myself_and, call)
        task.join()
        with pytest.raises(d.TaskCancelledError):
            task.result()
    assert drain(q) == ["item"]
    task = d.spawn(cancel_myself_and, lambda: q.put("other"))
    task.join()
    assert q.empty()


def test_a_cancelled_put_has_put_nothing(loop, full):
    first, second = spawn_all(full.put, ["first", "second"])
    first.cancel()
    assert [full.get(), full.get()] == ["old", "second"]
    results([second])
    with pytest.raises(d.TaskCancelledError):
        first.result()
    assert full.empty()


def test_a_put_that_was_let_in_returns_although_it_is_cancelled_meanwhile(loop, full):
    (task,) = spawn_all(full.put, ["new"])
    assert full.get_nowait() == "old"
    task.cancel()
    assert results([task]) == [None]
    assert drain(full) == ["new"]


def interrupt(q, *items):
    for item in items:
        q.put_nowait(item)
    raise KeyboardInterrupt


def test_what_interrupted_top_level_code_was_given_goes_back_to_where_it_was(loop, queue_class):
    q = queue_class()
    loop.call_soon(interrupt, q, 2, 1, 3)
    with pytest.raises(KeyboardInterrupt):
        q.get()
    order = {d.Queue: [2, 1, 3], d.LifoQueue: [2, 3, 1], d.PriorityQueue: [1, 2, 3]}
    assert drain(q) == order[queue_class]


def test_a_queue_that_was_shut_down_meanwhile_stays_so(loop):
    q = d.Queue()
    loop.call_soon(q.put_nowait, "item")
    loop.call_soon(q.shutdown)
    loop.call_soon(interrupt, q)
    with pytest.raises(KeyboardInterrupt):
        q.get()
    with pytest.raises(d.ShutDown):
        q.put_nowait("other")
    assert list(q) == ["item"]


def test_what_interrupted_top_level_code_was_given_goes_to_the_next_who_waits(loop, queue_class):
    q = queue_class()
    waiting = d.spawn(lambda: (d.sleep(1), q.get())[1])  # after the top-level code
    loop.add_timer(2, lambda: interrupt(q, "item"))
    with pytest.raises(KeyboardInterrupt):
        q.get()
    assert results([waiting]) == ["item"]


def test_interrupted_top_level_code_waits_no_more(loop, full):
    loop.call_soon(interrupt, d.Queue())
    with pytest.raises(KeyboardInterrupt):
        full.put("new")
    loop.call_soon(interrupt, d.Queue())
    with pytest.raises(KeyboardInterrupt):
        full.join()
    assert drain(full) == ["old"]
    full.task_done()


def test_a_reset_of_the_loop_loses_no_item(loop, queue_class):
    q = queue_class()
    getters(q, 3)
    q.put_nowait(1)
    q.put_nowait(2)
    loop.reset()
    assert sorted(drain(q)) == [1, 2]


# -- shutdown


def test_after_a_shutdown_nothing_is_let_in_and_what_is_there_comes_out(loop, queue_class):
    q = queue_class(2)
    q.put(1)
    q.put(1)
    assert not q.is_shutdown
    q.shutdown()
    assert q.is_shutdown
    for put in (q.put, q.put_nowait):
        with pytest.raises(d.ShutDown, match="shut down"):
            put(2)
    assert [q.get(), q.get_nowait()] == [1, 1]
    for get in (q.get, q.get_nowait, lambda: q.get(timeout=1), lambda: q.get(False)):
        with pytest.raises(d.ShutDown, match="shut down"):
            get()
    assert loop.clock() == 1000


def test_the_error_is_the_one_of_the_standard_library_where_it_has_one():
    if sys.version_info >= (3, 13):
        assert d.ShutDown is queue.ShutDown
    else:
        assert d.ShutDown.__bases__ == (Exception,)


@pytest.mark.parametrize("immediate", [False, True])
def test_a_shutdown_ends_the_wait_of_getters(loop, queue_class, immediate):
    q = queue_class()
    waiting = getters(q, 3)
    q.shutdown(immediate)
    assert list(map(type, results(waiting))) == [d.ShutDown] * 3


@pytest.mark.parametrize("immediate", [False, True])
def test_a_shutdown_ends_the_wait_of_putters_who_have_put_nothing(loop, full, immediate):
    waiting = spawn_all(full.put, range(3))
    full.shutdown(immediate)
    assert list(map(type, results(waiting))) == [d.ShutDown] * 3
    assert drain(full) == ([] if immediate else ["old"])


@pytest.mark.in_order
def test_what_was_given_before_an_immediate_shutdown_arrives(loop):
    q = d.Queue()
    waiting = getters(q, 2)
    q.put_nowait("item")
    q.shutdown(immediate=True)
    item, end = results(waiting)
    assert item == "item"
    assert isinstance(end, d.ShutDown)


def test_an_immediate_shutdown_drops_what_is_there_and_counts_it_as_done(loop, queue_class):
    q = queue_class()
    for number in range(5):
        q.put(number)
    q.get()
    q.get()
    joiner = d.spawn(q.join)
    q.shutdown(immediate=True)
    assert q.qsize() == 0
    assert q.unfinished_tasks == 2
    d.sleep(1)
    assert not joiner.done
    q.task_done()
    q.task_done()
    joiner.join(1)


def test_an_immediate_shutdown_ends_a_join(loop):
    q = d.Queue()
    q.put(1)
    (joiner,) = spawn_all(lambda _: q.join(), [0])
    q.shutdown()
    d.sleep(1)
    assert not joiner.done
    q.shutdown(immediate=True)
    joiner.join(1)
    q.shutdown()
    assert q.is_shutdown


def test_iteration_ends_with_the_shutdown(loop):
    q = d.Queue(2)

    def produce():
        for number in range(5):
            q.put(number)
        q.shutdown()

    d.spawn(produce)
    assert list(q) == [0, 1, 2, 3, 4]
    assert list(q) == []


@pytest.mark.in_order
def test_several_iterate_over_one_queue(loop):
    q = d.Queue()
    waiting = spawn_all(lambda _: list(q), range(3))
    for number in range(7):
        q.put(number)
    q.shutdown()
    assert results(waiting) == [[0, 3, 4, 5, 6], [1], [2]]


def test_an_error_of_the_loop_body_is_not_mistaken_for_the_end(loop):
    q = d.Queue()
    q.put(1)

    def work():
        for _ in q:
            raise d.ShutDown("mine")

    with pytest.raises(d.ShutDown, match="mine"):
        work()


# -- join


def test_join_waits_until_all_is_done(loop, queue_class):
    q = queue_class()
    q.join()

    def work():
        for _ in q:
            d.sleep(1)
            q.task_done()

    d.spawn(work)
    for number in range(3):
        q.put(number)
    joiners = spawn_all(lambda _: q.join(), range(2))
    q.join()
    assert loop.clock() == 1003
    results(joiners)
    q.shutdown()
    d.sleep(0)


def test_items_of_putters_who_had_to_wait_count(loop, full):
    putters = spawn_all(full.put, range(2))
    assert full.unfinished_tasks == 1
    drain(full)
    assert full.unfinished_tasks == 3
    for _ in range(3):
        full.task_done()
    full.join()
    results(putters)
    with pytest.raises(ValueError, match="more often"):
        full.task_done()
    assert full.unfinished_tasks == 0


def test_a_cancelled_join_leaves_nothing_behind(loop):
    q = d.Queue()
    q.put(1)
    (joiner,) = spawn_all(lambda _: q.join(), [0])
    joiner.cancel()
    q.task_done()
    joiner.join()
    assert waiting_for(q) == 0


# -- where it may be used


def test_what_never_waits_works_in_callbacks(loop, take_errors):
    q = d.Queue(1)
    seen = []

    def callback():
        q.put_nowait(1)
        with pytest.raises(queue.Full):
            q.put(2, False)
        seen.append(q.get(block=False))
        q.put(3, block=False)
        seen.append(q.get_nowait())
        with pytest.raises(queue.Empty):
            q.get_nowait()
        q.task_done()
        q.task_done()
        q.shutdown()

    loop.call_soon(callback)
    d.sleep(1)
    assert seen == [1, 3]
    assert take_errors() == []


@pytest.mark.parametrize("call", ["put", "get", "join"])
def test_what_may_wait_raises_in_a_callback_and_changes_nothing(loop, call):
    q = d.Queue()
    q.put_nowait("item")
    errors = []

    def callback():
        try:
            getattr(q, call)(*["other"] if call == "put" else [])
        except d.CannotParkError as error:
            errors.append(str(error))

    loop.call_soon(callback)
    d.sleep(1)
    assert len(errors) == 1
    assert call in errors[0]
    assert drain(q) == ["item"]


@pytest.mark.in_order
def test_a_callback_wakes_a_task(loop):
    q = d.Queue()
    waiting = getters(q, 2)
    loop.call_soon(q.put_nowait, "soon")
    loop.add_timer(0.5, lambda: q.put_nowait("later"))
    assert results(waiting) == ["soon", "later"]


def test_plain_top_level_code_puts_and_gets(loop):
    q = d.Queue(1)
    d.spawn(lambda: [q.put(number * number) for number in range(5)])
    assert [q.get() for _ in range(5)] == [0, 1, 4, 9, 16]
    consumer = d.spawn(lambda: [q.get() for _ in range(3)])
    for number in range(3):
        q.put(number)
    assert results([consumer]) == [[0, 1, 2]]


def test_what_was_done_before_the_loop_runs_counts(loop):
    q = d.Queue()
    q.put_nowait(1)
    getter = d.spawn(q.get)
    q.put_nowait(2)
    assert q.get_nowait() == 1
    assert results([getter]) == [2]


def test_another_thread_cannot_assign_maxsize(loop, in_thread):
    q = d.Queue()
    with pytest.raises(d.ForeignThreadError):
        in_thread(setattr, q, "maxsize", 1)
    assert q.maxsize == 0


def test_another_thread_puts_by_way_of_the_loop(real_loop, in_thread):
    q = d.Queue()
    in_thread(real_loop.call_soon_threadsafe, q.put_nowait, "from afar")
    assert q.get(timeout=5) == "from afar"


def test_it_belongs_to_the_loop_that_it_was_given(loop):
    with d.Loop() as other:
        pass
    assert d.Queue().loop is loop
    assert d.PriorityQueue(3, loop=other).loop is other


# -- items that make trouble


class Touchy:
    """Can be compared with its like, but not with anything of another mood."""

    def __init__(self, number, mood=0):
        self.number = number
        self.mood = mood

    def __lt__(self, other):
        if self.mood != other.mood:
            raise TypeError("not comparable")
        return self.number < other.number

    def __repr__(self):
        return f"{self.number}/{self.mood}"


def test_an_item_that_cannot_be_compared_is_not_put_in(loop):
    q = d.PriorityQueue()
    for number in (3, 1, 2):
        q.put(number)
    with pytest.raises(TypeError):
        q.put("text")
    with pytest.raises(TypeError):
        q.put_nowait("text")
    assert q.unfinished_tasks == 3
    assert drain(q) == [1, 2, 3]


@pytest.mark.in_order
def test_an_item_that_cannot_be_compared_is_its_putters_affair(loop):
    q = d.PriorityQueue(2)
    q.put(1)
    q.put(2)
    putters = spawn_all(q.put, ["text", 3])
    assert q.get() == 1
    bad, good = results(putters)
    assert isinstance(bad, TypeError)
    assert good is None
    assert q.unfinished_tasks == 3
    assert drain(q) == [2, 3]


def test_a_get_that_cannot_compare_loses_nothing(loop):
    q = d.PriorityQueue()
    first, left, right = (0,), (1, {1: 2}), (1, {})
    for item in (first, left, right):
        q.put(item)
    for _ in range(3):
        with pytest.raises(TypeError):
            q.get()
    assert q.qsize() == 3
    assert all(kept is item for kept, item in zip(q.queue, (first, left, right), strict=True))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 9)), st.integers(0, 9), st.data())
def test_a_failed_push_or_pop_leaves_the_heap_as_it_was(numbers, number, data):
    items = sorted(map(Touchy, numbers), key=lambda item: item.number)  # a heap as any
    q = d.PriorityQueue()
    q.queue.extend(items)
    for item in items:
        item.mood = data.draw(st.integers(0, 1))
    before = list(q.queue)
    try:
        q.put_nowait(Touchy(number))
    except TypeError:
        assert list(map(id, q.queue)) == list(map(id, before))
    else:
        assert len(q.queue) == len(before) + 1
    before = list(q.queue)
    try:
        item = q.get_nowait() if before else None
    except TypeError:
        assert list(map(id, q.queue)) == list(map(id, before))
    else:
        assert len(q.queue) == max(0, len(before) - 1)
        assert item is (before[0] if before else None)


def test_failed_pushes_and_pops_are_undone_from_deep_in_the_heap():
    heap = list(range(15))
    pushed = [0, *heap[1:7], 7, *heap[8:]]
    pushed += [7]
    pushed[7], pushed[3], pushed[1] = 3, 1, "new"  # it came up from the last place, 15, by way of 7 and 3
    _undo_push(pushed, "new")
    assert pushed == heap
    popped = [1, 3, 2, "last", 4, 5, 6, *heap[7:14]]  # the last one took the first's place and went down to place 3
    _undo_pop(popped, 0, "last")
    assert popped == [0, 1, 2, 3, 4, 5, 6, *heap[7:14], "last"]


class Failing(d.Queue):
    """Its hooks fail when they are told to."""

    bad_gets = 0

    def _put(self, item):
        if item == "bad":
            raise OSError("cannot put")
        super()._put(item)

    def _get(self):
        if self.bad_gets:
            self.bad_gets -= 1
            raise OSError("cannot get")
        return super()._get()


@pytest.mark.in_order
def test_a_get_that_fails_leaves_the_item_to_the_next_who_waits(loop):
    q = Failing()
    waiting = getters(q, 2)
    q.bad_gets = 1
    q.put(1)
    q.put(2)
    failure, item = results(waiting)
    assert isinstance(failure, OSError)
    assert item == 1
    assert drain(q) == [2]


@pytest.mark.in_order
def test_a_put_that_fails_is_followed_by_the_next(loop):
    q = Failing(1)
    q.put(0)
    putters = spawn_all(q.put, ["bad", "bad", 3])
    assert q.get() == 0
    assert list(map(type, results(putters))) == [OSError, OSError, type(None)]
    assert q.unfinished_tasks == 2
    assert drain(q) == [3]


class Unique(d.Queue):
    """A queue of another kind, as one makes it with the standard library."""

    def _init(self, maxsize):
        self.queue = set()

    def _put(self, item):
        self.queue.add(item)

    def _get(self):
        return self.queue.pop()


def test_other_kinds_of_queues_are_made_by_overriding_the_hooks(loop):
    q = Unique(2)
    q.put(1)
    q.put(1)
    q.put(2)
    assert q.full()
    (putter,) = spawn_all(q.put, [3])
    got = [q.get(), q.get(), q.get()]
    assert sorted(got) == [1, 2, 3]
    results([putter])
    (getter,) = getters(q, 1)
    q.put(4)
    loop.reset()
    assert drain(q) == [4]
    assert getter.done


# -- in words, and what is left


def test_it_says_what_it_holds_and_its_tasks_what_they_wait_for(loop, full):
    assert repr(full) == "<Queue, 1 of 1 items>"
    putter, joiner, getter = spawn_all(lambda call: call(), [lambda: full.put(1), full.join, d.LifoQueue().get])
    assert putter.waits_for == "put of <Queue, 1 of 1 items>"
    assert joiner.waits_for == "join of <Queue, 1 of 1 items>"
    assert getter.waits_for == "get of <LifoQueue, 0 items>"
    full.shutdown(immediate=True)
    assert repr(full) == "<Queue, 0 of 1 items, shut down>"
    getter.cancel()
    d.sleep(0)


def test_a_queue_lets_go_of_what_it_gave_and_is_no_cycle_itself(loop, queue_class):
    class Thing:
        def __lt__(self, other):
            return False

    q = queue_class(1)
    (getter,) = getters(q, 1)
    q.put(Thing())
    things = [weakref.ref(results([getter])[0])]
    del getter
    q.put(Thing())
    (putter,) = spawn_all(q.put, [Thing()])
    for _ in range(2):
        things.append(weakref.ref(q.get()))
        d.sleep(0)
    del putter
    gc.collect()
    gc.disable()
    try:
        assert [thing() for thing in things] == [None] * 3
        gone = weakref.ref(q, lambda _: things.clear())
        del q
        assert gone() is None
        assert things == []
    finally:
        gc.enable()
