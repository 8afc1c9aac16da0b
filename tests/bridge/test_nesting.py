"""Time limits of asyncio, of anyio and of ours around each other, three deep, in every order.

Each expires at its own edge: what is outside goes on, clean-up is done from the inside out, no cancellation is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random

import pytest

import dangagreen as d
from dangagreen.bridge import await_, to_task

KINDS = ("ours", "asyncio", "anyio")
LONG = 200.0


class Nest:
    """Blocks around each other, one a level, and a wait within; `expired` has the levels whose limits were told."""

    def __init__(self, kinds, first, unit, clean_up=0.0):
        self.kinds, self.unit, self.clean_up = kinds, unit, clean_up
        self.limits = [(3 if level == first else 30) * unit for level in range(len(kinds))]
        self.expired, self.cleaned = [], []

    def task(self, level):
        if level == len(self.kinds):
            return self.wait()
        if self.kinds[level] != "ours":
            return await_(self.coroutine(level))
        try:
            with d.timeout(self.limits[level]):
                return self.task(level + 1) if level % 2 else await_(self.coroutine(level + 1))
        except TimeoutError:
            self.expired.append(level)
            d.sleep(self.unit)
            return level
        finally:
            self.cleaned.append(level)

    async def coroutine(self, level):
        if level == len(self.kinds):
            return await self.wait_in_coroutine()
        if self.kinds[level] == "ours":
            return await to_task(self.task, level)
        before = asyncio.current_task().cancelling()
        try:
            async with self.block(level):
                return await (self.coroutine(level + 1) if level % 2 else to_task(self.task, level + 1))
        except TimeoutError:
            self.expired.append(level)
            assert asyncio.current_task().cancelling() == before
            await asyncio.sleep(self.unit)
            return level
        finally:
            self.cleaned.append(level)

    @contextlib.asynccontextmanager
    async def block(self, level):
        if self.kinds[level] == "asyncio":
            async with asyncio.timeout(self.limits[level]):
                yield
        else:
            with pytest.importorskip("anyio").fail_after(self.limits[level]):
                yield

    def wait(self):
        try:
            d.sleep(LONG * self.unit)
        finally:
            if self.clean_up:
                with d.shield():
                    d.sleep(self.clean_up)
            self.cleaned.append("wait")

    async def wait_in_coroutine(self):
        try:
            await asyncio.sleep(LONG * self.unit)
        finally:
            self.cleaned.append("wait")


@pytest.mark.parametrize("kinds", list(itertools.product(KINDS, repeat=3)), ids="-".join)
@pytest.mark.parametrize("outermost", ["task", "coroutine"])
def test_each_limit_expires_at_its_own_edge(vloop, kinds, outermost):
    for first in range(3):
        nest = Nest(kinds, first, 1.0)
        answer = d.run(nest.task, 0) if outermost == "task" else d.run(lambda nest=nest: await_(nest.coroutine(0)))
        assert (answer, nest.expired, nest.cleaned) == (first, [first], ["wait", 2, 1, 0])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_clean_up_is_waited_for_in_any_of_them(ours, unit, hosting, seed):
    """Not in anyio on a virtual clock: that stands still while anyio cancels anew in each pass until all have ended."""
    choose = random.Random(seed)
    kinds = KINDS[:2] if hosting in ("in a task", "in run", "top-level code") else KINDS
    first = choose.randrange(3)
    nest = Nest(choose.choices(kinds, k=3), first, unit, clean_up=unit)
    answer = ours(lambda: nest.task(0))
    assert (answer, nest.expired, nest.cleaned) == (first, [first], ["wait", 2, 1, 0])
