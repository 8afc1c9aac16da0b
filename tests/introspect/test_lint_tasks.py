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
