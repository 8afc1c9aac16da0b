"""The greenlet that runs an asyncio loop: coroutines start in it, and it counts as waiting in a deadlock."""

from __future__ import annotations

import asyncio
import threading

import greenlet
import pytest

import dangagreen as d
from dangagreen import bridge
from dangagreen.bridge import await_, to_task
from dangagreen.loop import deadlock
from tests.bridge.programs import never


@pytest.mark.parametrize("where", ["run", "top-level code"])
def test_a_deadlock_shows_the_stack_of_the_coroutine(alone, where):
    async def outer():
        await never()

    def work():
        await_(outer())

    code = never.__code__
    with pytest.raises(d.Deadlock) as caught:
        d.run(work) if where == "run" else work()
    table = caught.value.table
    assert f"{code.co_filename}:{code.co_firstlineno + 1} < {__file__}:{outer.__code__.co_firstlineno + 1}" in table


@pytest.mark.parametrize("where", ["task", "top-level code"])
@pytest.mark.parametrize("what", ["future", "task of ours"])
def test_a_hosted_loop_that_waits_for_nothing_is_a_deadlock(alone, where, what):
    async def main():
        await (never() if what == "future" else to_task(d.Event().wait))

    with pytest.raises(d.Deadlock):
        d.run(lambda: bridge.run(main())) if where == "task" else bridge.run(main())


def test_a_hosted_loop_that_waits_for_a_thread_is_none(rloop, monkeypatch):
    rloop.deadlock_seconds = 0.01
    looked = threading.Event()  # for a deadlock, and found that the thread might end it
    monkeypatch.setattr(deadlock.log(), "warning", lambda *_words: looked.set())

    async def main():
        return await asyncio.to_thread(lambda: looked.wait(30) and "it")

    assert bridge.run(main()) == "it"
    assert d.run(lambda: await_(asyncio.to_thread(lambda: "it"))) == "it"


def test_what_blocks_in_a_hosted_loop_is_reported_as_a_coroutine_or_a_callback_of_it(rloop):
    reports = []
    rloop.slow_seconds, rloop.on_slow = 0.0, reports.append

    async def two_steps():
        await asyncio.sleep(0.001)
        return repr(asyncio.get_running_loop())

    loop = d.run(lambda: await_(two_steps()))
    assert f"a coroutine or a callback of {loop}, before it waited in select," in {report.what for report in reports}


@pytest.mark.parametrize("where", ["run", "top-level code"])
def test_all_steps_of_a_coroutine_are_made_in_one_greenlet_which_is_not_the_callers(rloop, where):
    """Some keep the greenlet that has made the first step as the parent of others: SQLAlchemy does."""

    async def steps():
        first = greenlet.getcurrent()
        await asyncio.sleep(0)
        return first, greenlet.getcurrent()

    def work():
        first, last = await_(steps())
        return first is last, first is greenlet.getcurrent()

    await_(asyncio.sleep(0))  # the loop runs from now on
    assert (d.run(work) if where == "run" else work()) == (True, False)


def test_a_coroutine_that_never_waits_raises_and_returns_at_once(rloop):
    async def fails():
        raise ValueError("at once")

    async def returns():
        return "at once"

    def work():
        assert await_(returns()) == "at once"
        with pytest.raises(ValueError, match="at once"):
            await_(fails())
        return await_(returns())

    assert d.run(work) == "at once"
