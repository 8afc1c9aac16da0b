"""Tasks and timers of dangagreen."""

from dangagreen import current_loop, run, sleep, spawn
from tests.bench.micro.common import BATCH, FAN_OUT, FAR, NEAR, WINDOW, far, measure, nothing


def spawn_one(count):
    for _ in range(count):
        spawn(nothing).join()


def spawn_many(count):
    for _ in range(count // FAN_OUT):
        tasks = [spawn(nothing) for _ in range(FAN_OUT)]
        for task in tasks:
            task.join()


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
    for _ in range(count // BATCH):
        fired.clear()
        for seconds in NEAR:
            add_timer(seconds, lambda: fired.append(None))
        while len(fired) < BATCH:
            sleep(WINDOW)


def pending(count):
    for seconds in far(count):
        current_loop().add_timer(seconds, nothing)


MODES = {"spawn": spawn_one, "spawn_many": spawn_many, "switch": switch,
         "timer_cancel": timer_cancel, "timer_fire": timer_fire}  # fmt: skip

if __name__ == "__main__":
    run(measure, MODES, pending)
