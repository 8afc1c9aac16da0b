"""Lints of tasks that go on and on though nothing comes from outside: polls without a time, hand-overs between two."""

from __future__ import annotations

import pytest

from tests.introspect.seeing import finds, finds_nothing

pytestmark = pytest.mark.slow_but_first  # each starts a program

POLLS = """
import queue
done = []
empty, full, event, lock = d.Queue(), d.Queue(1), d.Event(), d.Lock()
full.put(1)
def main():
    time_passes()
    lock.acquire()
    task = d.spawn(poll)
    d.sleep(12)
    done.append(1)
    task.join()
    lock.release()
"""


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ("empty.get(timeout=0)", "get"),
        ("full.put(2, timeout=0)", "put"),
        ("event.wait(timeout=0)", "wait"),
        ("lock.acquire(timeout=0)", "acquire"),
    ],
)
def test_a_task_that_asks_with_a_timeout_of_0(call, name):
    finds(
        "self-wake",
        POLLS
        + f"""
def poll():
    while not done:
        loop.clock.jump(0.00002)
        try:
            {call}  # HERE
        except (queue.Empty, queue.Full):
            pass
""",
        "task 'poll' wakes itself: ",
        f" it has asked by {name}, with a timeout of 0, in vain",
    )


@pytest.mark.parametrize(
    "each", ["loop.clock.jump(0.0001)", "if number % 900 == 0: d.sleep(0.001)", "if number > 900: break"]
)
def test_a_task_that_asks_and_works_or_waits_in_between(each):
    finds_nothing(
        POLLS
        + f"""
def poll():
    for number in range(3000):
        try:
            empty.get(timeout=0)
        except queue.Empty:
            pass
        {each}
"""
    )


PLAYERS = """
def play(mine, yours):
    while (ball := mine.get()) is not None:  # HERE
        EACH
        yours.put(ball)
def main():
    time_passes(0.1)
    one, two = d.Queue(), d.Queue()
    tasks = [d.spawn(play, one, two), d.spawn(play, two, one)]
    one.put("ball")
    d.sleep(60)
    one.put(None), two.put(None)
    d.wait(tasks)
    one.queue.clear(), two.queue.clear()
"""


def test_two_tasks_that_only_wake_each_other():
    finds("self-wake", PLAYERS.replace("EACH", "pass"), "tasks 'play#", " wake each other: 10000 times in ")


@pytest.mark.parametrize("each", ["loop.clock.jump(0.0001)", "if len(balls) % 500 == 0: d.sleep(0.001)"])
def test_two_tasks_that_work_or_wait_for_something_else_too(each):
    finds_nothing("balls = []\n" + PLAYERS.replace("EACH", f"balls.append(1)\n        {each}"))


def test_two_tasks_to_which_a_third_one_gives_work():
    finds_nothing("""
def work(jobs, answers):
    while (job := jobs.get()) is not None:
        answers.put(job)
def main():
    time_passes(0.1)
    jobs, answers = d.Queue(), d.Queue()
    worker = d.spawn(work, jobs, answers)
    def ask():
        for number in range(25_000):
            jobs.put(number)
            answers.get()
            if number % 100 == 0:
                event.set()
                back.wait()
                back.clear()
    event, back = d.Event(), d.Event()
    asker = d.spawn(ask)
    while not asker.done:
        with d.move_on_after(1):
            event.wait()
            event.clear()
            back.set()
    jobs.put(None)
    worker.join()
""")
