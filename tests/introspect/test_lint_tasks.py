"""Lints of tasks: each finds its fault at the line of the fault, and is silent about what looks like it."""

from __future__ import annotations

import pytest

from tests.introspect.seeing import finds, finds_nothing, linted

pytestmark = pytest.mark.slow_but_first  # each starts a program


# -- long runs


def test_long_runs_of_a_task():
    finds(
        "long-run",
        """
def report():
    for _ in range(5):
        d.sleep(1)
        loop.clock.jump(0.03)
        d.sleep(0)  # HERE
def main():
    d.spawn(report).join()
""",
        "task 'report' ran for 0.030 s, from <string>:",
        "before it waited in sleep(0)",
        "3 of 6 runs were such",
    )


def test_long_runs_of_tasks_that_never_wait():
    finds(
        "long-run",
        """
def work():
    loop.clock.jump(0.03)
def main():
    for _ in range(3):
        task = d.spawn(work)  # HERE
        task.join()
""",
        "since it was started, before it ended",
    )


def test_a_long_run_of_a_handler_is_in_its_function():
    finds(
        "long-run",
        """
def handle(sock):  # HERE
    loop.clock.jump(0.03)
def main():
    with d.serve(("127.0.0.1", 0), handle) as server:
        for _ in range(3):
            with d.connect(server.address) as sock:
                sock.read_to_end()
""",
        "task 'handle' ran",
    )


@pytest.mark.parametrize(
    ("runs", "seconds"), [(2, 0.03), (5, 0.019)], ids=["a machine that is slow twice", "many that are not long"]
)
def test_what_is_not_long_or_not_often(runs, seconds):
    finds_nothing(f"""
def report():
    for _ in range({runs}):
        d.sleep(1)
        loop.clock.jump({seconds})
        d.sleep(0)
def main():
    d.spawn(report).join()
""")


def test_a_few_long_runs_among_very_many_are_none_of_the_task():
    finds_nothing("""
def report():
    for number in range(3000):
        d.sleep(1)
        if number % 100 == 99:
            loop.clock.jump(0.03)
def main():
    d.spawn(report).join()
""")


# -- polling


def test_a_task_that_polls():
    finds(
        "self-wake",
        """
done = []
def poll():
    while not done:
        d.sleep(0)  # HERE
def main():
    time_passes()
    task = d.spawn(poll)
    d.sleep(30)
    done.append(1)
    task.join()
""",
        "task 'poll' wakes itself: 1000 times in 10.0 s",
    )


def test_work_in_pieces_is_no_polling():
    finds_nothing("""
def work():
    for _ in range(5000):
        loop.clock.jump(0.0001)
        d.sleep(0)
def main():
    time_passes()
    d.spawn(work).join()
""")


def test_giving_way_now_and_then_is_no_polling():
    finds_nothing("""
def work():
    for number in range(3000):
        d.sleep(0)
        if number % 900 == 0:
            d.sleep(1)
def quick():  # no second is over
    for number in range(3000):
        d.sleep(0)
def main():
    d.spawn(quick).join()
    time_passes()
    d.spawn(work).join()
""")


# -- waits for an fd


PAIR = """
import socket
def pair():
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        return ours, server.accept()[0]
"""


@pytest.mark.parametrize("there", ["send(b'hello')", "shutdown(1)"])
def test_a_task_that_waits_for_an_fd_and_does_not_read(there):
    finds(
        "idle-wake",
        PAIR
        + f"""
def watch(sock):
    for _ in range(3000):
        d.wait_readable(sock)  # HERE
def main():
    ours, theirs = pair()
    with ours, theirs:
        theirs.{there}
        d.spawn(watch, ours).join()
""",
        "task 'watch' has called wait_readable 1000 times in a row, and has read nothing",
    )


@pytest.mark.parametrize("pair", ["pair", "socket.socketpair"])
def test_a_task_that_waits_for_an_fd_and_reads(pair):
    finds_nothing(
        PAIR
        + f"""
def watch(sock):
    for _ in range(3000):
        d.wait_readable(sock)
        sock.recv(1)
def main():
    ours, theirs = {pair}()
    with ours, theirs:
        theirs.send(b"h" * 3000)
        d.spawn(watch, ours).join()
        theirs.send(b"hhh")
        task = d.spawn(watch, ours)
        for _ in range(3000):  # as much comes as is read
            d.sleep(0)
            theirs.send(b"h")
        task.join()
"""
    )


# -- locks that are held


HELD = """
lock = d.Lock()
def hold():
    with lock:
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
        "task 'hold' holds a Lock while it waits in sleep, for 10.0 s, and 'other' (<string>:",
        "and 1 more wait for that lock",
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
    lock.acquire()
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
        "task 'other' has waited 5.0 s for a Lock, which task 'forget' has acquired, and not released before it ended",
    )


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
    with source:
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
        "waits for the Lock that 'transfer#2' holds, 'transfer#2' (<string>:",
        "waits for the RLock that 'transfer#3' holds",
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
        "waits for the end of 'child#",
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
        "unless another task releases it: 'twice#",
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


# -- what is kept


def test_nothing_is_kept_of_tasks_that_have_ended():
    linted("""
import weakref
def work(lock):
    for _ in range(3):
        loop.clock.jump(0.03)
        d.sleep(0)
        with lock:
            d.sleep(0)
def main():
    lock = d.Lock()
    tasks = [d.spawn(work, lock) for _ in range(3)]
    for task in tasks:
        task.join()
    return [weakref.ref(task) for task in tasks]
gone = d.run(main)
found.clear()
gc.collect()
assert [ref() for ref in gone] == [None] * 3
""")
