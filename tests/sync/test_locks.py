"""Locks and semaphores: who holds them, who may release them, what they say. What they share is in test_line."""

from __future__ import annotations

import random
import threading

import pytest

import dangagreen as d
import dangagreen.testing
from tests.helpers import in_callback, result_of
from tests.inside import waiting_for

LOCKS = [d.Lock, d.RLock]
SEMAPHORES = [d.Semaphore, d.BoundedSemaphore]


@pytest.fixture(params=["top-level code", "task", "callback"])
def anywhere(request, loop):
    """A function that calls another from each place where a program may be."""

    def call(function, *args):
        if request.param == "task":
            return result_of(function, *args)
        if request.param == "callback":
            return in_callback(loop, function, *args)
        return function(*args)

    return call


# -- locks


@pytest.mark.parametrize("kind", LOCKS)
def test_a_lock_is_held_or_not(kind, anywhere):
    def work():
        lock = kind()
        return [lock.locked(), lock.acquire(False), lock.locked(), lock.release(), lock.locked()]

    assert anywhere(work) == [False, True, True, None, False]


@pytest.mark.parametrize("kind", [*LOCKS, *SEMAPHORES])
def test_as_a_context_manager(kind, loop):
    thing = kind()
    for _ in range(2):
        with thing as taken:
            assert taken is True
            assert result_of(thing.acquire, False) is False
    with pytest.raises(KeyError), thing:
        raise KeyError
    assert result_of(thing.acquire, False) is True


@pytest.mark.parametrize("kind", [*LOCKS, *SEMAPHORES])
def test_a_cancelled_holder_gives_it_back_on_its_way_out(kind, loop):
    thing = kind()

    def hold():
        with thing:
            d.sleep(100)

    holder = d.spawn(hold)
    d.sleep(1)
    holder.cancel()
    assert result_of(thing.acquire) is True
    assert loop.clock() == 1001


@pytest.mark.parametrize("kind", [*LOCKS, *SEMAPHORES])
def test_what_is_free_is_taken_without_a_switch(kind, loop):
    thing = kind()
    log = []

    def work():
        d.spawn(log.append, "other")
        for _ in range(10):
            with thing:
                log.append("work")

    result_of(work)
    assert log == ["work"] * 10 + ["other"]


@pytest.mark.parametrize("kind", [*LOCKS, *SEMAPHORES])
def test_a_timeout_beside_not_blocking_is_refused(kind, anywhere):
    thing = kind()
    with pytest.raises(ValueError, match="timeout"):
        result_of(thing.acquire, False, 1)
    with pytest.raises(ValueError, match="timeout"):
        thing.acquire(blocking=False, timeout=0)
    assert anywhere(thing.acquire, False) is True


@pytest.mark.parametrize("kind", LOCKS)
def test_limits_of_a_timeout_are_those_of_threading(kind, loop):
    lock = kind()
    for timeout in (-2, -0.5):
        with pytest.raises(ValueError, match="negative"):
            lock.acquire(timeout=timeout)
    for timeout in (threading.TIMEOUT_MAX + 1, float("inf")):
        with pytest.raises(OverflowError):
            lock.acquire(timeout=timeout)
    assert not lock.locked()
    assert lock.acquire(timeout=threading.TIMEOUT_MAX) is True


def test_the_default_timeout_of_a_semaphore_is_none_and_a_negative_one_does_not_wait(loop):
    semaphore = d.Semaphore(0)
    assert semaphore.acquire(timeout=-1) is False
    loop.add_timer(50, semaphore.release)
    assert semaphore.acquire() is True
    assert loop.clock() == 1050


# -- Lock


def test_a_lock_is_not_for_its_own_holder(loop):
    lock = d.Lock()

    def work():
        lock.acquire()
        return lock.acquire(False), lock.acquire(timeout=3)

    assert result_of(work) == (False, False)
    assert loop.clock() == 1003


def test_anybody_may_release_a_lock(anywhere):
    lock = d.Lock()
    result_of(lock.acquire)
    anywhere(lock.release)
    assert not lock.locked()


def test_a_lock_that_nobody_holds_cannot_be_released(anywhere):
    lock = d.Lock()

    def work():
        with pytest.raises(RuntimeError, match="is not held"):
            lock.release()
        return True

    assert anywhere(work)


def test_an_rlock_says_how_often_it_was_acquired(loop):
    lock = d.RLock()
    assert repr(lock).startswith("<unlocked dangagreen.RLock object count=0 at 0x")
    with lock, lock:
        assert repr(lock).startswith("<locked dangagreen.RLock object owner=")
        assert " count=2 at 0x" in repr(lock)


def test_a_lock_says_who_holds_it(loop):
    lock = d.Lock()

    def the_holder():
        lock.acquire()
        d.sleep(1)

    assert repr(lock).startswith("<unlocked dangagreen.Lock object at 0x")
    task = d.spawn(the_holder)
    d.sleep(0.5)
    assert "<locked dangagreen.Lock object owner='" in repr(lock)
    assert "the_holder'" in repr(lock)
    task.join()
    assert "the_holder', which has ended" in repr(lock)
    lock.release()
    assert "owner" not in repr(lock)
    in_callback(loop, lock.acquire, False)
    assert "a callback" in repr(lock)
    lock.release()
    lock.acquire()
    assert "top-level code" in repr(lock)


# -- RLock


def test_an_rlock_is_released_as_often_as_it_was_acquired(anywhere):
    lock = d.RLock()

    def work():
        seen = [lock.acquire(False) for _ in range(3)]
        for _ in range(3):
            seen.append(lock.locked())
            lock.release()
        return [*seen, lock.locked()]

    assert anywhere(work) == [True, True, True, True, True, True, False]


@pytest.mark.in_order
def test_an_rlock_goes_to_the_next_after_the_last_release(loop):
    lock = d.RLock()
    log = []

    def work(name):
        with lock:
            with lock, lock:
                d.sleep(1)
                log.append((name, "in"))
            d.sleep(1)
            log.append((name, "out"))

    tasks = [d.spawn(work, name) for name in "ab"]
    for task in tasks:
        task.join()
    assert log == [("a", "in"), ("a", "out"), ("b", "in"), ("b", "out")]
    assert not lock.locked()


def test_only_its_holder_may_release_an_rlock(loop):
    lock = d.RLock()
    lock.acquire()

    def other():
        with pytest.raises(RuntimeError, match=r"other.*cannot release.*owner='top-level code'"):
            lock.release()

    def callback():
        with pytest.raises(RuntimeError, match="a callback cannot release"):
            lock.release()

    result_of(other)
    in_callback(loop, callback)
    assert lock.locked()
    lock.release()
    with pytest.raises(RuntimeError, match="top-level code"):
        lock.release()


def test_top_level_code_and_callbacks_are_not_the_same_to_an_rlock(loop):
    lock = d.RLock()
    lock.acquire()
    assert in_callback(loop, lock.acquire, False) is False
    lock.release()
    assert in_callback(loop, lock.acquire, False) is True
    assert in_callback(loop, lock.acquire, False) is True  # callbacks are all the same to it
    assert lock.acquire(False) is False
    assert lock.acquire(timeout=1) is False
    in_callback(loop, lock.release)
    in_callback(loop, lock.release)
    assert not lock.locked()


def test_a_cancelled_holder_cannot_acquire_an_rlock_again_by_waiting(loop):
    lock = d.RLock()
    log = []

    def work():
        with lock:
            try:
                d.sleep(10)
            except d.Cancelled:
                log.append(lock.acquire(False))
                lock.release()
                lock.acquire()

    task = d.spawn(work)
    d.sleep(1)
    task.cancel()
    task.join()
    with pytest.raises(d.TaskCancelledError):
        task.result()
    assert log == [True]
    assert not lock.locked()


# -- semaphores


@pytest.mark.parametrize("kind", SEMAPHORES)
def test_a_semaphore_has_so_many_permits(kind, anywhere):
    semaphore = kind(3)
    assert anywhere(lambda: [semaphore.acquire(False) for _ in range(4)]) == [True, True, True, False]
    for _ in range(3):
        anywhere(semaphore.release)
    assert "value=3" in repr(semaphore)


@pytest.mark.parametrize("kind", SEMAPHORES)
def test_a_negative_number_of_permits_is_refused(kind, loop):
    with pytest.raises(ValueError, match=kind.__name__):
        kind(-1)
    assert kind(0).acquire(False) is False


@pytest.mark.in_order
@pytest.mark.parametrize("kind", SEMAPHORES)
def test_several_permits_at_once_go_to_those_who_wait_first(kind, loop):
    semaphore = kind(5)
    for _ in range(5):
        semaphore.acquire()
    tasks = [d.spawn(semaphore.acquire) for _ in range(3)]
    d.sleep(1)
    semaphore.release(2)
    d.sleep(1)
    assert [task.done for task in tasks] == [True, True, False]
    semaphore.release(3)
    assert semaphore.acquire(False) is True
    assert semaphore.acquire(False) is True
    assert semaphore.acquire(False) is False
    tasks[2].join(1)
    assert tasks[2].done


@pytest.mark.parametrize("kind", SEMAPHORES)
@pytest.mark.parametrize("n", [0, -1])
def test_to_release_none_is_refused(kind, n, loop):
    semaphore = kind(2)
    semaphore.acquire()
    with pytest.raises(ValueError, match="one or more"):
        semaphore.release(n)
    assert "value=1" in repr(semaphore)


def test_a_bounded_semaphore_takes_no_more_than_it_gave(anywhere):
    semaphore = d.BoundedSemaphore(2)
    anywhere(semaphore.acquire, False)

    def work():
        with pytest.raises(ValueError, match="more permits"):
            semaphore.release(2)
        semaphore.release()
        with pytest.raises(ValueError, match="more permits"):
            semaphore.release()
        return True

    assert anywhere(work)
    assert repr(semaphore).endswith("value=2/2>")


def test_how_many_run_at_once(loop):
    semaphore = d.Semaphore(4)
    now, most = 0, 0

    def work():
        nonlocal now, most
        with semaphore:
            now += 1
            most = max(now, most)
            d.sleep(1)
            now -= 1

    tasks = [d.spawn(work) for _ in range(20)]
    for task in tasks:
        task.join()
    assert most == 4
    assert loop.clock() == 1005


# -- chance


@pytest.mark.in_order
@pytest.mark.parametrize("seed", range(25))
def test_whatever_happens_nothing_is_lost(seed, loop):
    """Tasks that take, wait, give up and are cancelled at any moment: no more hold it than may, and in the end all of
    it is there."""
    dice = random.Random(seed)
    kind, permits = dice.choice([(d.Lock, 1), (d.RLock, 1), (d.Semaphore, 3), (d.BoundedSemaphore, 2)])
    thing = kind() if permits == 1 else kind(permits)
    holders, got = set(), 0

    def work():
        nonlocal got
        for _ in range(dice.randint(1, 4)):
            me = object()
            if not thing.acquire(timeout=dice.choice((0, 0.5, 1, 2, 1000))):
                continue
            try:
                holders.add(me)
                got += 1
                assert len(holders) <= permits
                if dice.random() < 0.8:
                    d.sleep(dice.choice((0, 0.5, 1)))
                elif dice.random() < 0.5:
                    d.current_task().cancel()
            finally:
                holders.discard(me)
                thing.release()

    tasks = []
    for _ in range(150):
        tasks.append(d.spawn(work))
        if dice.random() < 0.4:
            dice.choice(tasks).cancel()
        if dice.random() < 0.3:
            d.sleep(dice.choice((0, 0.5)))
    for task in tasks:
        task.join(10_000)
        if dice.random() < 0.2:
            dice.choice(tasks).cancel()
    assert got > 50
    assert waiting_for(thing) == 0
    assert [thing.acquire(False) for _ in range(permits)] == [True] * permits
    if kind is not d.RLock:
        assert thing.acquire(False) is False


@pytest.mark.parametrize("make", [d.RLock, d.Lock, d.Condition])
def test_inside_no_parking_its_holder_is_still_its_holder(make, loop):
    def work():
        lock = make()
        with lock, d.no_parking():
            if isinstance(lock, d.Condition):
                lock.notify()
            lock.release()
            assert lock.acquire(False)
        assert lock.acquire(False)
        lock.release()

    task = d.spawn(work)
    task.join()
    task.result()


@pytest.mark.parametrize("make", [d.RLock, d.Lock, d.Semaphore])
def test_a_lock_of_another_loop_of_this_thread_is_refused(make, loop):
    lock = make()
    with dangagreen.testing.virtual_loop():
        for use in (lock.acquire, lock.__enter__):
            task = d.spawn(use)
            with pytest.raises(RuntimeError, match="belongs to another loop"):
                d.run(lambda task=task: (task.join(), task.result()))
    assert lock.acquire(False)
    lock.release()


@pytest.mark.parametrize("make", [d.RLock, d.Lock])
def test_another_thread_cannot_release_while_the_holder_runs(make, loop, in_thread):
    def work():
        lock = make()
        lock.acquire()
        for release in (lock.release, lambda: lock.__exit__(None, None, None)):
            with pytest.raises(d.ForeignThreadError):
                in_thread(release)
        assert lock.locked()
        lock.release()

    task = d.spawn(work)
    task.join()
    task.result()
