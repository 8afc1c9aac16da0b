"""Tasks and timers of curio, which has no timers with callbacks: a timeout is set and unset, a task that sleeps is what
fires."""

import os
import sys

import curio

from tests.bench.micro.common import BATCH, FAN_OUT, FAR, NEAR, far, measure_async, nothing_async


async def spawn_one(count):
    for _ in range(count):
        await (await curio.spawn(nothing_async)).join()


async def spawn_many(count):
    for _ in range(count // FAN_OUT):
        for task in [await curio.spawn(nothing_async) for _ in range(FAN_OUT)]:
            await task.join()


async def switch(count):
    async def turns():
        for _ in range(count // FAN_OUT):
            await curio.sleep(0)

    for task in [await curio.spawn(turns) for _ in range(FAN_OUT)]:
        await task.join()


async def timer_cancel(count):
    for _ in range(count // BATCH):
        for seconds in FAR:
            async with curio.ignore_after(seconds):
                pass
        await curio.sleep(0)


async def timer_fire(count):
    for _ in range(count // BATCH):
        for task in [await curio.spawn(curio.sleep, seconds) for seconds in NEAR]:
            await task.join()


async def pending(count):
    return [await curio.spawn(curio.sleep, seconds, daemon=True) for seconds in far(count)]


MODES = {"spawn": spawn_one, "spawn_many": spawn_many, "switch": switch,
         "timer_cancel": timer_cancel, "timer_fire": timer_fire}  # fmt: skip


async def main():
    kept = await measure_async(MODES, pending)
    if kept:
        sys.stdout.flush()
        os._exit(0)  # to cancel 100,000 tasks in order would take curio minutes


if __name__ == "__main__":
    curio.run(main)
