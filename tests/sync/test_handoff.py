"""What queues and channels have in common: nothing is lost or doubled whatever happens at the same time, waiting costs
the same however many wait, and those who watch are told."""

from __future__ import annotations

import gc
import queue
import random
import time
from contextlib import ExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dangagreen as d
from dangagreen.green.waiters import Waiter, wake
from dangagreen.loop.loop import here
from dangagreen.sync import channels, queues
from dangagreen.testing import no_leaks, virtual_loop
from tests.helpers import joined
from tests.inside import waiting_for

# -- random interleavings


class QueueCalls:
    """How a queue is used: each item has a number, and is put in once."""

    errors = (queue.Empty, queue.Full, d.ShutDown)

    def __init__(self, handoff):
        self.handoff = handoff
        self.put_nowait, self.get_nowait = handoff.put_nowait, handoff.get_nowait

    def put(self, item, timeout):
        self.handoff.put(item, timeout=timeout)

    def get(self, timeout):
        return self.handoff.get(timeout=timeout)

    def end(self, immediate):
        """Answers what was dropped."""
        dropped = list(self.handoff.queue) if immediate else []
        self.handoff.shutdown(immediate)
        return dropped


class ChannelCalls(QueueCalls):
    """The same of a channel, which has no timeouts: there the task is cancelled."""

    errors = (queue.Empty, queue.Full, d.ClosedChannelError, d.ChannelEnd)

    def __init__(self, handoff):
        self.handoff = handoff
        self.put_nowait, self.get_nowait = handoff.send_nowait, handoff.receive_nowait

    def limited(self, timeout, call, *args):
        timer = None if timeout is None else self.handoff.loop.add_timer(timeout, d.current_task().cancel)
        try:
            return call(*args)
        finally:
            if timer is not None:
                timer.cancel()

    def put(self, item, timeout):
        self.limited(timeout, self.handoff.send, item)

    def get(self, timeout):
        return self.limited(timeout, self.handoff.receive)

    def end(self, immediate):
        self.handoff.close()
        return []


class Workload:
    """Puts, gets, cancellations and shutdowns in any order, with a record of what came in and what came out."""

    def __init__(self, loop, calls):
        self.loop = loop
        self.calls = calls
        self.tasks = []
        self.numbers = iter(range(1_000_000))
        self.put_in = []
        self.taken = []
        self.dropped = []

    def put(self, timeout):
        item = next(self.numbers)

        def body():
            try:
                self.calls.put(item, timeout)
            except self.calls.errors:
                return
            self.put_in.append(item)

        self.tasks.append(d.spawn(body))

    def get(self, timeout):
        def body():
            try:
                item = self.calls.get(timeout)
            except self.calls.errors:
                return
            self.taken.append(item)

        self.tasks.append(d.spawn(body))

    def put_nowait(self):
        item = next(self.numbers)
        try:
            self.calls.put_nowait(item)
        except self.calls.errors:
            return
        self.put_in.append(item)

    def get_nowait(self):
        try:
            self.taken.append(self.calls.get_nowait())
        except self.calls.errors:
            pass

    def cancel(self, which):
        if self.tasks:
            self.tasks[which % len(self.tasks)].cancel()

    def end(self, immediate):
        self.dropped += self.calls.end(immediate)

    def resize(self, maxsize):
        if isinstance(self.calls.handoff, d.Queue):
            self.calls.handoff.maxsize = maxsize

    def later(self, seconds, action):
        self.loop.add_timer(seconds, lambda: self.do(action))

    def run(self, seconds):
        d.sleep(seconds)

    def do(self, action):
        getattr(self, action[0])(*action[1:])
        self.check()

    def check(self):
        handoff = self.calls.handoff
        room = handoff._max_items
        assert not (handoff._getters and (handoff.queue or handoff._putters))
        assert not (handoff._putters and len(handoff.queue) < room)
        assert not (handoff._ended and (handoff._getters or handoff._putters))
        assert handoff._slow_put or not (handoff._getters or handoff._ended)

    def finish(self):
        """Everybody ends; what was put in is what was taken and what is left."""
        d.sleep(10)
        for task in self.tasks:
            task.cancel()
        d.sleep(10)
        assert all(task.done for task in self.tasks)
        self.check()
        left = list(self.calls.handoff.queue)
        assert sorted(self.put_in) == sorted(self.taken + self.dropped + left)
        if isinstance(self.calls.handoff, d.Queue):
            assert self.calls.handoff.unfinished_tasks == len(self.taken) + len(left)


TIMEOUTS = st.sampled_from([None, None, 0, 0.5, 1])
AT_ONCE = st.one_of(
    st.tuples(st.just("put"), TIMEOUTS),
    st.tuples(st.just("get"), TIMEOUTS),
    st.tuples(st.just("put_nowait")),
    st.tuples(st.just("get_nowait")),
    st.tuples(st.just("cancel"), st.integers(0, 20)),
    st.tuples(st.just("resize"), st.integers(0, 3)),
)
RARELY = st.tuples(st.just("end"), st.booleans())
ACTIONS = st.one_of(
    AT_ONCE,
    AT_ONCE,
    AT_ONCE,
    st.tuples(st.just("run"), st.sampled_from([0, 0, 0.5, 1])),
    st.tuples(st.just("later"), st.sampled_from([0, 0.5, 1]), st.one_of(AT_ONCE, AT_ONCE, RARELY)),
    RARELY,
)
PASSAGES = {
    "Queue()": lambda: QueueCalls(d.Queue()),
    "Queue(1)": lambda: QueueCalls(d.Queue(1)),
    "Queue(2)": lambda: QueueCalls(d.Queue(2)),
    "LifoQueue(2)": lambda: QueueCalls(d.LifoQueue(2)),
    "PriorityQueue(2)": lambda: QueueCalls(d.PriorityQueue(2)),
    "Channel()": lambda: ChannelCalls(d.Channel()),
    "Channel(2)": lambda: ChannelCalls(d.Channel(2)),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", PASSAGES)
@settings(max_examples=100, deadline=None)
@given(actions=st.lists(ACTIONS, max_size=40))
def test_what_was_put_in_is_what_was_taken_and_what_is_left(kind, actions):
    with ExitStack() as undo:
        loop = virtual_loop()
        undo.callback(setattr, here, "loop", None)
        undo.callback(loop.close)
        here.loop = loop
        with no_leaks(loop):
            workload = Workload(loop, PASSAGES[kind]())
            for action in actions:
                workload.do(action)
            workload.finish()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["put", "get"]), max_size=60), st.integers(0, 3))
def test_items_keep_their_order_through_any_mix_of_those_who_wait(calls, capacity):
    with virtual_loop() as loop, no_leaks(loop):
        channel = d.Channel(capacity)
        sent = iter(range(1000))
        receivers, tasks = [], []
        for call in calls:
            if call == "put":
                tasks.append(d.spawn(channel.send, next(sent)))
            else:
                receivers.append(d.spawn(channel.receive))
            d.sleep(0)
        done = [task.done for task in receivers]
        assert done == sorted(done, reverse=True)  # the first to come have been served
        assert [task.result() for task in receivers if task.done] == list(range(sum(done)))
        for task in tasks + receivers:
            task.cancel()
        d.sleep(0)


# -- what waiting costs


class Bare(Waiter):
    """A waiter without a greenlet, whose memory would cost more than what is measured here."""

    __slots__ = ()

    def resume(self):
        pass

    def resume_with(self, error):
        pass


def parked(subject, wait, arrange, n):
    waiters = []
    for _ in range(n):
        task = Bare(subject.loop)
        arrange(task)
        task.wait, task.subject = wait, subject
        waiters.append(task)
    return waiters


def waiting(kind, n):
    """What they wait for, and n who do."""
    if kind in ("get", "receive"):
        handoff = d.Queue() if kind == "get" else d.Channel()
        wait = queues._GET if kind == "get" else channels._RECEIVE
        handoff._slow_put = True
        return handoff, parked(handoff, wait, lambda task: handoff._getters.update({task: []}), n)
    if kind in ("put", "send"):
        handoff = d.Queue(1) if kind == "put" else d.Channel(1)
        (handoff.put_nowait if kind == "put" else handoff.send_nowait)(0)
        wait = queues._PUT if kind == "put" else channels._SEND
        return handoff, parked(handoff, wait, lambda task: handoff._putters.update({task: 1}), n)
    if kind == "join":
        q = d.Queue()
        q.put_nowait(0)
        return q, parked(q, queues._JOIN, lambda task: q._joiners.update({task: None}), n)
    result = d.Future()
    return result, parked(result, channels._WAIT, result._watch, n)


WAKING = {  # how they are served: (kind, what is done to `subject`, for each of n?)
    "get": (lambda q: q.put_nowait(1), True),
    "receive": (lambda channel: channel.send_nowait(1), True),
    "put": (lambda q: q.get_nowait(), True),
    "send": (lambda channel: channel.receive_nowait(), True),
    "join": (lambda q: q.task_done(), False),
    "wait": (lambda result: result.set_result(1), False),
}
FEW, MANY = 500, {"cancelled": 20_000, "served": 80_000}  # to search is dear, to find the first less so


def seconds_each(loop, kind, way, n):
    """Processor time that it takes to wake one of n, by cancelling them or by serving them."""
    subject, tasks = waiting(kind, n)
    random.Random(1).shuffle(tasks)
    gc.disable()
    began = time.process_time()
    try:
        if way == "cancelled":
            for task in tasks:
                wake(task, TimeoutError())
        else:
            serve, one_by_one = WAKING[kind]
            for _ in range(n if one_by_one else 1):
                serve(subject)
    finally:
        spent = time.process_time() - began
        gc.enable()
    assert [task for task in tasks if task.wait is not None] == []
    assert len(loop.runnable) == n
    loop.runnable.clear()
    return spent / n


@pytest.mark.slow
@pytest.mark.parametrize("way", ["cancelled", "served"])
@pytest.mark.parametrize("kind", WAKING)
def test_to_wake_one_costs_the_same_however_many_wait(loop, kind, way):
    few = min(seconds_each(loop, kind, way, FEW) for _ in range(5))
    many = min(seconds_each(loop, kind, way, MANY[way]) for _ in range(2))
    assert many < 8 * few


@pytest.mark.slow
def test_ten_thousand_tasks_wait_and_are_all_cancelled(loop):
    full, busy = d.Queue(1), d.Queue()
    full.put(0)
    busy.put(0)
    calls = [d.Queue().get, lambda: d.Queue().get(timeout=10), lambda: full.put(1), busy.join, d.Channel().receive]
    calls += [lambda: d.Channel().send(1), d.Future().wait]
    tasks = [d.spawn(calls[number % len(calls)]) for number in range(10_000)]
    d.sleep(0)
    assert all(task.waits_for for task in tasks)
    for task in tasks:
        task.cancel()
    d.sleep(0)
    assert all(task.done for task in tasks)
    assert waiting_for(full) == waiting_for(busy) == 0


# -- those who watch


def watching(*sources):
    task = d.spawn(d.select, *sources)
    d.sleep(0)
    assert task.waits_for
    return task


def empty_queue():
    q = d.Queue(1)
    return q, [lambda: q.put_nowait(1), lambda: q.put(1), q.shutdown]


def empty_channel():
    channel = d.Channel(1)
    return channel, [lambda: channel.send_nowait(1), lambda: channel.send(1), channel.close]


def handover_channel():
    channel = d.Channel()
    return channel, [lambda: d.spawn(channel.send, 1), channel.close]


def unset_result():
    result = d.Future()
    return result, [lambda: result.set_result(1), lambda: result.set_exception(KeyError())]


CHANGES = [
    pytest.param(make, number, id=f"{make.__name__}-{number}")
    for make in (empty_queue, empty_channel, handover_channel, unset_result)
    for number in range(2 if make in (handover_channel, unset_result) else 3)
]


@pytest.mark.parametrize(("make", "number"), CHANGES)
def test_whoever_watches_is_woken_when_it_becomes_ready(loop, make, number):
    source, changes = make()
    other = d.Queue()
    tasks = [watching(other, source), watching(source)]
    assert not source.ready
    changes[number]()
    assert [joined(task) for task in tasks] == [source, source]
    if make is handover_channel and number == 0:
        assert source.receive_nowait() == 1
        d.sleep(0)
    assert waiting_for(source) == waiting_for(other) == 0


def test_it_is_ready_as_long_as_there_is_something(loop):
    q = d.Queue(1)
    assert not q.ready
    q.put(1)
    assert q.ready
    q.get()
    assert not q.ready
    q.shutdown()
    assert q.ready


def test_a_watcher_that_is_cancelled_leaves_nothing_behind(loop):
    q, channel, result = d.Queue(), d.Channel(), d.Future()
    task = watching(q, channel, result)
    task.cancel()
    assert [waiting_for(source) for source in (q, channel, result)] == [0, 0, 0]
    d.sleep(0)
    q.put_nowait(1)
    assert q.get_nowait() == 1


def test_an_item_goes_to_who_waits_for_it_rather_than_to_who_watches(loop):
    q = d.Queue()
    watcher = watching(q)
    getter = d.spawn(q.get)
    d.sleep(0)
    q.put(1)
    assert joined(getter) == 1
    assert not watcher.done
    q.put(2)
    assert joined(watcher) is q
    assert q.get_nowait() == 2


def test_watching_the_same_twice_is_harmless(loop):
    q = d.Queue()
    task = watching(q, q)
    q.put(1)
    assert joined(task) is q
