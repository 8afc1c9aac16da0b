"""Tasks and timers of trio, which has no timers with callbacks: a deadline of a scope is added and cancelled, a task
that sleeps is what fires."""

import trio

from tests.bench.micro.common import BATCH, FAN_OUT, FAR, NEAR, arguments, far, measured, nothing_async, warmup


async def spawn_one(count):
    for _ in range(count):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(nothing_async)


async def spawn_many(count):
    for _ in range(count // FAN_OUT):
        async with trio.open_nursery() as nursery:
            for _ in range(FAN_OUT):
                nursery.start_soon(nothing_async)


async def switch(count):
    async def turns():
        for _ in range(count // FAN_OUT):
            await trio.sleep(0)

    async with trio.open_nursery() as nursery:
        for _ in range(FAN_OUT):
            nursery.start_soon(turns)


async def timer_cancel(count):
    for _ in range(count // BATCH):
        for seconds in FAR:
            with trio.move_on_after(seconds):
                pass
        await trio.sleep(0)


async def timer_fire(count):
    for _ in range(count // BATCH):
        async with trio.open_nursery() as nursery:
            for seconds in NEAR:
                nursery.start_soon(trio.sleep, seconds)


MODES = {"spawn": spawn_one, "spawn_many": spawn_many, "switch": switch,
         "timer_cancel": timer_cancel, "timer_fire": timer_fire}  # fmt: skip


async def main(pending=100_000):
    mode, count = arguments()
    async with trio.open_nursery() as nursery:
        for seconds in far(pending if mode.startswith("timer") else 0):
            nursery.start_soon(trio.sleep, seconds)
        await trio.sleep(0)
        await MODES[mode](warmup(count))
        for number in measured(mode, count):
            await MODES[mode](number)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
