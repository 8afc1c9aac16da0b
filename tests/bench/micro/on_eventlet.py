"""Tasks and timers of eventlet: timers are those of its hub."""

import warnings

warnings.simplefilter("ignore")  # eventlet deprecates itself at import

import eventlet  # noqa: E402
from eventlet.hubs import get_hub  # noqa: E402

from tests.bench.micro.common import BATCH, FAN_OUT, FAR, NEAR, WINDOW, far, measure, nothing  # noqa: E402


def spawn_one(count):
    for _ in range(count):
        eventlet.spawn(nothing).wait()


def spawn_many(count):
    for _ in range(count // FAN_OUT):
        for task in [eventlet.spawn(nothing) for _ in range(FAN_OUT)]:
            task.wait()


def switch(count):
    def turns(number):
        for _ in range(number):
            eventlet.sleep(0)

    for task in [eventlet.spawn(turns, count // FAN_OUT) for _ in range(FAN_OUT)]:
        task.wait()


def timer_cancel(count):
    add = get_hub().schedule_call_global
    for _ in range(count // BATCH):
        for timer in [add(seconds, nothing) for seconds in FAR]:
            timer.cancel()
        eventlet.sleep(0)


def timer_fire(count):
    add, fired = get_hub().schedule_call_global, []

    def fire():
        fired.append(None)

    for _ in range(count // BATCH):
        fired.clear()
        for seconds in NEAR:
            add(seconds, fire)
        while len(fired) < BATCH:
            eventlet.sleep(WINDOW)


def pending(count):
    for seconds in far(count):
        get_hub().schedule_call_global(seconds, nothing)


MODES = {"spawn": spawn_one, "spawn_many": spawn_many, "switch": switch,
         "timer_cancel": timer_cancel, "timer_fire": timer_fire}  # fmt: skip

if __name__ == "__main__":
    measure(MODES, pending)
