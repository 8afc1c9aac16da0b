"""Tasks and timers of asyncio. Third argument: `asyncio` or `uvloop`."""

import asyncio
import sys

from tests.bench.micro.common import (
    BATCH,
    FAN_OUT,
    FAR,
    NEAR,
    WINDOW,
    far,
    measure_async,
    nothing,
    nothing_async,
)


async def spawn_one(count):
    create_task = asyncio.get_running_loop().create_task
    for _ in range(count):
        await create_task(nothing_async())


async def spawn_many(count):
    create_task = asyncio.get_running_loop().create_task
    for _ in range(count // FAN_OUT):
        for task in [create_task(nothing_async()) for _ in range(FAN_OUT)]:
            await task


async def switch(count):
    async def turns(number):
        for _ in range(number):
            await asyncio.sleep(0)

    await asyncio.gather(*[turns(count // FAN_OUT) for _ in range(FAN_OUT)])


async def timer_cancel(count):
    call_later = asyncio.get_running_loop().call_later
    for _ in range(count // BATCH):
        for timer in [call_later(seconds, nothing) for seconds in FAR]:
            timer.cancel()
        await asyncio.sleep(0)


async def timer_fire(count):
    call_later, fired = asyncio.get_running_loop().call_later, []

    def fire():
        fired.append(None)

    for _ in range(count // BATCH):
        fired.clear()
        for seconds in NEAR:
            call_later(seconds, fire)
        while len(fired) < BATCH:
            await asyncio.sleep(WINDOW)


async def pending(count):
    call_later = asyncio.get_running_loop().call_later
    return [call_later(seconds, nothing) for seconds in far(count)]


MODES = {"spawn": spawn_one, "spawn_many": spawn_many, "switch": switch,
         "timer_cancel": timer_cancel, "timer_fire": timer_fire}  # fmt: skip

if __name__ == "__main__":
    if sys.argv[3] == "uvloop":
        import uvloop

        uvloop.run(measure_async(MODES, pending))
    else:
        asyncio.run(measure_async(MODES, pending))
