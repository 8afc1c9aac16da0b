"""Lints of locks and circles: each finds its fault at the line of the fault, and is silent about what looks like it."""

from __future__ import annotations

import pytest

from tests.introspect.seeing import finds, finds_nothing, linted

pytestmark = pytest.mark.slow_but_first  # each starts a program


# -- locks that are held


HELD = """
lock = d.Lock()
def hold():
    with lock:  # ACQUIRED
        d.sleep(10)  # HERE
def other():
    with lock:
        pass
"""


def test_a_lock_that_is_held_in_a_long_wait_while_the_loop_does_nothing_else():
    finds(
        "held-lock",
        HELD
        + """
def main():
    for task in [d.spawn(hold), d.spawn(other), d.spawn(other)]:
        task.join()
""",
        "task 'hold' holds a Lock, acquired at ACQUIRED, while it waits in sleep, for 5.0 s, and 'other#",
        "and 1 more wait for that lock",
    )


def test_a_lock_that_is_held_for_ever_by_who_waits_for_a_socket_while_nothing_else_happens():
    linted(
        """
lock = d.Lock()
def hold():
    ours, theirs = wire()
    with lock, d.Socket(ours) as sock:
        try:
            sock.read_line()
        finally:
            theirs.close()
def other():
    with lock:
        pass
def main():
    d.spawn(hold), d.spawn(other)
    began = loop.clock()
    loop.add_timer(4.9, lambda: times.append(kinds()))
    loop.add_timer(5.1, lambda: times.append(kinds()))
    d.sleep(400)
times = []
d.run(main)
assert times == [[], ["held-lock"]], times
assert kinds() == ["held-lock"]
"""
    )


def test_a_lock_that_is_asked_for_late_is_looked_at_five_seconds_later():
    linted(
        """
lock = d.Lock()
def hold():
    with lock:
        d.sleep(100)
def other():
    d.sleep(8)
    with lock:
        pass
def main():
    d.spawn(hold), d.spawn(other)
    loop.add_timer(12.9, lambda: times.append(kinds()))
    loop.add_timer(13.1, lambda: times.append(kinds()))
    d.sleep(400)
times = []
d.run(main)
assert times == [[], ["held-lock"]], times
"""
    )


def test_tasks_of_one_name_have_those_of_the_dump_in_the_line_of_a_held_lock():
    linted(
        """
import re
lock = d.Lock()
def transfer():
    with lock:
        d.sleep(10)
def main():
    tasks = [d.spawn(transfer), d.spawn(transfer)]
    d.sleep(1)
    names = [task.name for task in introspect.snapshot(loop).tasks if task.name.startswith("transfer#")]
    for task in tasks:
        task.join()
    return names
first, second = d.run(main)
(report,) = found
assert report.what.startswith(f"task {first!r} holds a Lock") and f"and {second!r} (<string>:" in report.what, report
"""
    )


def test_a_lock_that_is_held_for_ever_while_the_loop_goes_on():
    finds(
        "held-lock",
        HELD.replace("sleep(10)", "Event().wait()")
        + """
def main():
    tasks = [d.spawn(hold), d.spawn(other)]
    for _ in range(20):
        d.sleep(1)
    for task in tasks:
        task.cancel()
""",
        "'other' (<string>:",
    )


def test_places_in_helpers_name_who_has_called_them():
    finds(
        "held-lock",
        """
import contextlib
lock = d.Lock()
@contextlib.contextmanager
def locked():
    with lock:
        yield
def pause():
    d.sleep(10)  # HERE in pause, called from
def hold():
    with locked():  # ACQUIRED
        pause()  # HERE
def take():
    lock.acquire()
def other():
    take()
    lock.release()
def main():
    for task in [d.spawn(hold), d.spawn(other)]:
        task.join()
""",
        " in locked, called from ACQUIRED, while it waits in sleep",
        " in take, called from <string>:",
    )


def test_a_lock_is_acquired_where_the_holder_has_it_first():
    finds(
        "held-lock",
        """
lock = d.RLock()
def hold():
    lock.acquire()
    lock.release()
    with lock:  # ACQUIRED
        with lock:
            assert lock.acquire(False)
            d.sleep(10)  # HERE
            lock.release()
def other():
    with lock:
        pass
def main():
    for task in [d.spawn(hold), d.spawn(other)]:
        task.join()
""",
        "holds a RLock, acquired at ACQUIRED, while",
    )


def test_a_lock_that_a_condition_has_released_and_acquired_again():
    finds(
        "held-lock",
        """
condition = d.Condition()
def hold():
    with condition:  # ACQUIRED
        condition.wait(1)
        d.sleep(10)  # HERE
def other():
    with condition:
        d.sleep(2)
def third():
    d.sleep(2)
    with condition:
        pass
def main():
    for task in [d.spawn(hold), d.spawn(other), d.spawn(third)]:
        task.join()
""",
        "acquired at ACQUIRED, while it waits in sleep",
    )


@pytest.mark.parametrize(
    "main",
    [
        "d.spawn(hold).join()",  # nobody waits for it
        "first = d.spawn(hold); d.sleep(6); second = d.spawn(other); first.join(); second.join()",  # nobody waits long
        "tasks = [d.spawn(short) for _ in range(9)]; [task.join() for task in tasks]",
        "tasks = [d.spawn(hold_condition), d.spawn(other)]; [task.join() for task in tasks]",
    ],
    ids=["alone", "late", "in turn", "a condition"],
)
def test_locks_that_are_held_for_nobody_or_not_for_long(main):
    finds_nothing(
        HELD
        + f"""
condition = d.Condition(lock)
def short():
    with lock:
        d.sleep(2)
def hold_condition():
    with condition:
        condition.wait(20)
def main():
    {main}
"""
    )


def test_a_lock_that_was_never_released():
    finds(
        "held-lock",
        """
lock = d.Lock()
def forget():
    lock.acquire()  # ACQUIRED
def other():
    with lock:  # HERE
        pass
def main():
    d.spawn(forget)
    task = d.spawn(other)
    for _ in range(20):
        d.sleep(1)
    task.cancel()
""",
        "task 'other' has waited for 5.0 s for a Lock, which task 'forget' has acquired at ACQUIRED, and not released",
    )


def test_a_lock_that_is_acquired_in_a_garbage_collection():
    finds_nothing("""
lock = d.Lock()
done = []
class Dying:
    def __init__(self):
        self.circle = self
    def __del__(self):
        with lock:
            done.append(1)
def work():
    Dying()
    gc.collect()
def main():
    d.spawn(work).join()
    assert done == [1]
""")


def test_a_lock_that_another_task_releases():
    finds_nothing("""
lock = d.Lock()
def begin():
    lock.acquire()
def other():
    with lock:
        pass
def main():
    d.spawn(begin).join()
    task = d.spawn(other)
    for _ in range(4):
        d.sleep(1)
    lock.release()
    task.join()
""")


# -- circles


def test_two_tasks_that_wait_for_each_other():
    finds(
        "deadlock",
        """
mine, yours = d.Lock(), d.RLock()
def transfer(source, target):
    with source:  # ACQUIRED
        d.sleep(1)
        with target:  # HERE
            pass
def main():
    tasks = [d.spawn(transfer, mine, yours), d.spawn(transfer, yours, mine)]
    d.sleep(2)
    assert len(found) == 1, "told at once"
    for _ in range(20):
        d.sleep(1)
    for task in tasks:
        task.cancel()
""",
        "a wait that cannot end: 'transfer#3' (<string>:",
        "waits for the Lock that 'transfer#2' has acquired at ACQUIRED, 'transfer#2' (<string>:",
        "waits for the RLock that 'transfer#3' has acquired at ACQUIRED",
    )


def test_a_group_whose_task_waits_for_a_lock_of_its_owner():
    finds(
        "deadlock",
        """
lock = d.Lock()
def child():
    with lock:  # HERE
        pass
def parent():
    with lock:
        with d.TaskGroup() as group:
            group.spawn(d.sleep, 1)
            group.spawn(child)
def main():
    task = d.spawn(parent)
    for _ in range(20):
        d.sleep(1)
    task.cancel()
    task.join()
""",
        "waits for the end of 'child'",
    )


def test_a_lock_that_is_taken_twice():
    finds(
        "deadlock",
        """
lock = d.Lock()
def twice():
    with lock:
        with lock:  # HERE
            pass
def main():
    task = d.spawn(twice)
    for _ in range(20):
        d.sleep(1)
    task.cancel()
""",
        "unless another task releases it: 'twice'",
    )


def test_tasks_that_wait_for_each_other_for_a_time():
    finds_nothing("""
mine, yours = d.Lock(), d.Lock()
def by_timeout(source, target):
    with source:
        d.sleep(1)
        target.acquire(timeout=1)
def by_scope(source, target):
    with source, d.move_on_after(1):
        d.sleep(0.5)
        with target:
            pass
def main():
    for function in by_timeout, by_scope:
        tasks = [d.spawn(function, mine, yours), d.spawn(function, yours, mine)]
        for task in tasks:
            task.join()
        for lock in mine, yours:
            if lock.locked():
                lock.release()
""")


def test_tasks_that_wait_in_a_row_and_a_lock_as_a_signal():
    finds_nothing("""
lock, done = d.Lock(), d.Lock()
def first():
    with lock:
        d.sleep(1)
def second(task):
    with lock:
        pass
    task.join()
def signal():
    done.acquire()
    loop.add_timer(4, done.release)
    done.acquire()
    done.release()
def main():
    one = d.spawn(first)
    for task in [d.spawn(second, one), d.spawn(second, one), d.spawn(signal)]:
        task.join()
""")


def test_top_level_code_that_waits_for_a_time_for_who_waits_for_it():
    linted("""
lock = d.Lock()
def work():
    with lock:
        pass
lock.acquire()
task = d.spawn(work)
try:
    task.join(timeout=1)
except TimeoutError:
    lock.release()
task.join()
assert found == [], found
""")
