"""The work of the workloads within one process, in the same words for every library, and its measurement.

Each library's module has functions that take a number of operations; a tenth of the work goes before, unmeasured.
"""

import json
import random
import sys
import time

FAN_OUT = 100  # tasks started together in spawn_many, and tasks that take turns in switch
PENDING = 100_000  # timers that are waiting meanwhile
BATCH = 1000  # timers added before they are cancelled, or before all of them have fired
WINDOW = 0.005  # seconds within which the timers of a batch are due

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


class Measured:
    """Prints what the processor spent on a block, in the form in which the suite reads it."""

    def __init__(self, count):
        self.count = count

    def __enter__(self):
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def __exit__(self, kind, *_error):
        cpu, wall = time.process_time() - self.cpu, time.perf_counter() - self.wall
        if kind is None:
            print(json.dumps({"units": self.count, "seconds": wall, "cpu": cpu}), flush=True)


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
    with Measured(count):
        modes[mode](count)


async def measure_async(modes, pending):
    """The same with await."""
    mode, count = arguments()
    kept = await pending(PENDING) if mode.startswith("timer") else None
    await modes[mode](warmup(count))
    with Measured(count):
        await modes[mode](count)
    return kept
