"""The work of the workloads within one process, in the same words for every library, and its measurement.

Each library's module has functions that take a number of operations; a tenth of the work goes before, unmeasured.

Rules: what the garbage collector takes is in every figure, at its long-term share, and not by luck. Thousands of timers
pass between two collections of everything, each of which looks at all that are pending: whether one falls into a
measurement, or none, would be half the figure. So the measured part begins with such a collection, and with timers it
ends with one.
"""

import gc
import json
import random
import sys
import time

FAN_OUT = 100  # tasks started together in spawn_many, and tasks that take turns in switch
PENDING = 100_000  # timers that are waiting meanwhile
BATCH = 1000  # timers added before they are cancelled, or before all of them have fired
WINDOW = 0.005  # seconds within which the timers of a batch are due
LONGEST = 3  # times the work that was asked for

_random = random.Random(1)
FAR = [_random.uniform(1000, 2000) for _ in range(BATCH)]  # seconds
NEAR = [_random.uniform(0.001, WINDOW) for _ in range(BATCH)]


def nothing(*_args):
    """What spawned tasks and timers do."""


async def nothing_async():
    """The same."""


def far(number):
    """The deadlines of pending timers, mixed with those that are added and cancelled."""
    return (FAR[i % BATCH] + i / PENDING for i in range(number))


def full_collections():
    """How many collections of everything there were."""
    return gc.get_stats()[-1]["collections"]


def measured(mode, count):
    """The portions of the work, one after the other: numbers of operations. Prints what the processor spent on them.

    Of timers it is more than `count`, up to the next collection of everything; `LONGEST` times as much, where few
    objects are made, and what is missing of a collection is little.
    """
    timers = mode.startswith("timer")
    portion = BATCH if timers else count
    gc.collect()
    done, wall, cpu = 0, time.perf_counter(), time.process_time()
    while done < count:
        yield portion
        done += portion
    before = full_collections()
    while timers and full_collections() == before and done < LONGEST * count:
        yield portion
        done += portion
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(json.dumps({"units": done, "seconds": wall, "cpu": cpu}), flush=True)


def arguments():
    """The mode and the number of operations."""
    return sys.argv[1], int(sys.argv[2])


def warmup(count):
    return max(BATCH, count // 10)


def measure(modes, pending):
    """Run one mode of a library whose calls look blocking; `pending` sets up timers that wait."""
    mode, count = arguments()
    if mode.startswith("timer"):
        pending(PENDING)
    modes[mode](warmup(count))
    for number in measured(mode, count):
        modes[mode](number)


async def measure_async(modes, pending):
    """The same with await."""
    mode, count = arguments()
    kept = await pending(PENDING) if mode.startswith("timer") else None
    await modes[mode](warmup(count))
    for number in measured(mode, count):
        await modes[mode](number)
    return kept
