"""Tasks and timers of gevent: timers are those of its loop, which are cheaper than `spawn_later`."""

import gevent

from tests.bench.micro.common import BATCH, FAN_OUT, FAR, NEAR, WINDOW, far, measure, nothing


def spawn_one(count):
    for _ in range(count):
        gevent.spawn(nothing).join()


def spawn_many(count):
    for _ in range(count // FAN_OUT):
        tasks = [gevent.spawn(nothing) for _ in range(FAN_OUT)]
        for task in tasks:
            task.join()


def switch(count):
    def turns(number):
        for _ in range(number):
            gevent.sleep(0)

    gevent.joinall([gevent.spawn(turns, count // FAN_OUT) for _ in range(FAN_OUT)])


def add(seconds, function, *args):
    timer = gevent.get_hub().loop.timer(seconds)
    timer.start(function, *args)
    return timer


def timer_cancel(count):
    for _ in range(count // BATCH):
        for timer in [add(seconds, nothing) for seconds in FAR]:
            timer.close()
        gevent.sleep(0)


def timer_fire(count):
    fired = []

    def fire():
        fired.append(None)

    for _ in range(count // BATCH):
        fired.clear()
        timers = [add(seconds, fire) for seconds in NEAR]
        while len(fired) < BATCH:
            gevent.sleep(WINDOW)
        for timer in timers:
            timer.close()


kept = []


def pending(count):
    kept.extend(add(seconds, nothing) for seconds in far(count))


MODES = {"spawn": spawn_one, "spawn_many": spawn_many, "switch": switch,
         "timer_cancel": timer_cancel, "timer_fire": timer_fire}  # fmt: skip

if __name__ == "__main__":
    measure(MODES, pending)
