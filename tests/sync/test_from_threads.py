"""Queue and Event between tasks and threads: nothing is lost, also where the queue is full, or the time is up."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time

import pytest

import dangagreen as d
from tests.helpers import OtherThread, joined
from tests.inside import waiting_for


def until(condition):
    """Run the loop until it is true."""
    with d.timeout(30):
        while not condition():
            d.sleep(0.001)


# -- Queue


@pytest.mark.parametrize("kind", [d.Queue, d.LifoQueue, d.PriorityQueue])
def test_a_thread_puts_and_a_task_gets_and_the_other_way_round(real_loop, kind):
    one = kind()
    assert OtherThread(one.put, 1).join() is None
    assert one.get() == 1
    one.put(2)
    assert OtherThread(one.get).join() == 2
    getter = OtherThread(one.get)
    until(lambda: waiting_for(one))
    one.put_nowait(3)
    assert getter.join() == 3
    assert one.unfinished_tasks == 3


def test_a_full_queue_makes_a_thread_wait_in_line_and_loses_no_item(real_loop):
    one = d.Queue(2)
    one.put("a")
    one.put("b")
    first = d.spawn(one.put, "task")
    d.sleep(0)
    putter = OtherThread(one.put, "thread")
    until(lambda: waiting_for(one) == 2)
    assert [one.get() for _ in range(4)] == ["a", "b", "task", "thread"]
    first.join()
    assert putter.join() is None


def test_a_thread_whose_time_is_up_has_put_or_taken_nothing(real_loop):
    def main():  # in `run`, so that the loop runs all the time, and comes to what is asked of it with a timeout of 0
        one = d.Queue(1)
        assert isinstance(OtherThread(one.get, timeout=0.01).join(), queue.Empty)
        one.put("a")
        assert isinstance(OtherThread(one.put, "b", timeout=0.01).join(), queue.Full)
        assert isinstance(OtherThread(one.put, "c", timeout=0.0).join(), queue.Full)
        assert OtherThread(one.get, timeout=0.0).join() == "a"
        assert one.empty()
        assert waiting_for(one) == 0

    d.run(main)


def test_a_timeout_holds_also_while_the_loop_does_not_run(real_loop):
    one = d.Queue()
    one.put("a")
    for call in (lambda: one.get(timeout=0.01), lambda: one.put("b", timeout=0.01)):
        other = OtherThread(call)
        other.thread.join(30)
        assert isinstance(other.answer, queue.Empty | queue.Full)
    d.sleep(0.01)
    assert one.get() == "a"
    assert one.empty()


def test_without_waiting(real_loop):
    one = d.Queue(1)
    assert isinstance(OtherThread(one.get_nowait).join(), queue.Empty)
    assert isinstance(OtherThread(one.get, False).join(), queue.Empty)
    assert OtherThread(one.put_nowait, 1).join() is None
    assert isinstance(OtherThread(one.put, 2, False).join(), queue.Full)
    assert OtherThread(one.get_nowait).join() == 1


def test_a_bad_timeout_is_refused_in_a_thread_as_well(real_loop):
    one = d.Queue()
    for bad, error in ((-1, ValueError), ("1", TypeError)):
        assert isinstance(OtherThread(one.get, timeout=bad).join(), error)
        assert isinstance(OtherThread(one.put, 1, timeout=bad).join(), error)
    assert one.empty()


def test_threads_that_consume_and_a_task_that_joins(real_loop):
    one, seen = d.Queue(3), []

    def consume():
        for item in one:
            seen.append(item)
            one.task_done()

    consumers = [OtherThread(consume) for _ in range(3)]
    for n in range(50):
        one.put(n)
    one.join()
    assert sorted(seen) == list(range(50))
    one.shutdown()
    assert [consumer.join() for consumer in consumers] == [None] * 3


def test_a_shutdown_is_heard_by_threads_that_wait_and_made_by_them(real_loop):
    one = d.Queue()
    getter = OtherThread(one.get)
    until(lambda: waiting_for(one))
    assert OtherThread(one.shutdown).join() is None
    assert isinstance(getter.join(), d.ShutDown)
    assert isinstance(OtherThread(one.put, 1).join(), d.ShutDown)


def test_an_item_that_came_to_a_thread_that_was_interrupted_is_the_next_one_again():
    """Ctrl-C, in the main thread of a program whose loop runs in the background."""
    with d.start_in_thread() as background:
        one = background.call(d.Queue)

        def interrupt():
            while not background.call(waiting_for, one):
                pass
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            one.get()
        thread.join(30)
        background.call(one.put, "item")
        assert one.get(timeout=5) == "item"
        assert background.call(waiting_for, one) == 0


def test_the_end_of_run_lets_a_thread_go_that_waits(real_loop):
    waits = []

    def main():
        one = d.Queue()
        waits.append(OtherThread(one.get))
        until(lambda: waiting_for(one))

    d.run(main)
    waits[0].thread.join(30)
    assert isinstance(waits[0].answer, d.TaskCancelledError)


def test_many_threads_and_tasks_lose_no_item(real_loop):
    """Bounded: 4 threads and 4 tasks on each side, 50 items of each."""
    one, taken = d.Queue(5), []

    def put(name):
        for n in range(50):
            one.put((name, n))

    def get():
        for _ in range(50):
            taken.append(one.get())

    tasks = [d.spawn(put, f"task {k}") for k in range(4)] + [d.spawn(get) for _ in range(4)]
    threads = [OtherThread(put, f"thread {k}") for k in range(4)] + [OtherThread(get) for _ in range(4)]
    for task in tasks:
        joined(task)
    assert [thread.join() for thread in threads] == [None] * 8
    assert len(taken) == 400
    assert sorted(taken) == sorted(
        (f"{kind} {k}", n) for kind in ("task", "thread") for k in range(4) for n in range(50)
    )
    assert one.empty()


def test_what_is_raised_in_a_thread_has_no_other_error_as_its_context(real_loop):
    one = d.Queue()
    one.shutdown()
    for call, kind in (
        (one.get, d.ShutDown),
        (lambda: one.put(1), d.ShutDown),
        (lambda: one.get(timeout="soon"), TypeError),
        (lambda: d.Event().wait("soon"), TypeError),
    ):
        error = OtherThread(call).join()
        assert isinstance(error, kind)
        assert error.__context__ is None


# -- Event


def test_a_thread_sets_what_a_task_waits_for(real_loop):
    event = d.Event()
    thread = threading.Timer(0.01, event.set)
    thread.start()
    assert event.wait(30)
    thread.join()
    OtherThread(event.clear).join()
    until(lambda: not event.is_set())


def test_a_thread_waits_for_what_a_task_sets(real_loop):
    event = d.Event()
    assert OtherThread(event.wait, 0.01).join() is False
    waiter = OtherThread(event.wait)
    until(lambda: waiting_for(event))
    event.set()
    assert waiter.join() is True
    assert OtherThread(event.wait).answer in (True, None)  # at once, without the loop
    assert OtherThread(event.wait, 0).join() is True
    assert waiting_for(event) == 0


def test_a_set_by_a_thread_does_not_wait_for_the_loop(real_loop):
    """Who waits for the thread, and not for the loop, is not held up by it."""
    event = d.Event()
    other = OtherThread(event.set)
    other.thread.join(30)
    assert other.answer is None
    assert not event.is_set()
    d.sleep(0)
    d.sleep(0)
    assert event.is_set()


def test_a_wait_of_a_thread_whose_time_is_up_while_the_loop_does_not_run(real_loop):
    event = d.Event()
    other = OtherThread(event.wait, 0.01)
    other.thread.join(30)
    assert other.answer is False
    d.sleep(0.01)
    assert waiting_for(event) == 0


def test_what_a_thread_did_before_is_seen_after(real_loop):
    """Each hand-over orders the two sides: what was written before it is read after it."""
    event, result = d.Event(), []

    def work():
        result.append(time.monotonic())
        event.set()

    OtherThread(work)
    event.wait()
    assert len(result) == 1


# -- where a loop runs, nothing blocks


def test_a_task_of_another_loop_is_refused_and_may_use_a_thread(real_loop):
    one, event = d.Queue(), d.Event()

    def in_its_loop():
        for call in (one.get, lambda: one.put(1), one.get_nowait, one.join, event.wait):
            with pytest.raises(d.ForeignThreadError):
                call()
        event.set()
        return d.in_thread(one.get)

    other = OtherThread(d.run, in_its_loop)
    until(lambda: waiting_for(one))
    assert event.is_set()
    one.put("item")
    assert other.join() == "item"


# -- the others belong to one thread


def test_locks_and_channels_are_refused_in_another_thread(real_loop):
    lock, channel = d.Lock(), d.Channel()
    for call in (lock.acquire, d.Condition().acquire, channel.receive, d.Barrier(2).wait):
        assert isinstance(OtherThread(call).join(), d.ForeignThreadError)
