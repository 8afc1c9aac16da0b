"""Tasks and timers of dangagreen. Third argument: `group` for tasks that belong to a TaskGroup."""

import sys

from dangagreen import TaskGroup, current_loop, run, sleep, spawn
from tests.bench.micro.common import BATCH, FAN_OUT, FAR, NEAR, WINDOW, far, measure, nothing


def spawn_one(count):
    for _ in range(count):
        spawn(nothing).join()


def spawn_many(count):
    for _ in range(count // FAN_OUT):
        tasks = [spawn(nothing) for _ in range(FAN_OUT)]
        for task in tasks:
            task.join()


def spawn_one_in_a_group(count):
    with TaskGroup() as group:
        for _ in range(count):
            group.spawn(nothing).join()


def spawn_many_in_a_group(count):
    for _ in range(count // FAN_OUT):
        with TaskGroup() as group:
            for _ in range(FAN_OUT):
                group.spawn(nothing)


def switch(count):
    def turns(number):
        for _ in range(number):
            sleep(0)

    tasks = [spawn(turns, count // FAN_OUT) for _ in range(FAN_OUT)]
    for task in tasks:
        task.join()


def timer_cancel(count):
    add_timer = current_loop().add_timer
    for _ in range(count // BATCH):
        for timer in [add_timer(seconds, nothing) for seconds in FAR]:
            timer.cancel()
        sleep(0)


def timer_fire(count):
    add_timer, fired = current_loop().add_timer, []

    def fire():
        fired.append(None)

    for _ in range(count // BATCH):
        fired.clear()
        for seconds in NEAR:
            add_timer(seconds, fire)
        while len(fired) < BATCH:
            sleep(WINDOW)


def pending(count):
    for seconds in far(count):
        current_loop().add_timer(seconds, nothing)


MODES = {"spawn": spawn_one, "spawn_many": spawn_many, "switch": switch,
         "timer_cancel": timer_cancel, "timer_fire": timer_fire}  # fmt: skip

IN_A_GROUP = {"spawn": spawn_one_in_a_group, "spawn_many": spawn_many_in_a_group}

if __name__ == "__main__":
    run(measure, IN_A_GROUP if sys.argv[3:] == ["group"] else MODES, pending)
