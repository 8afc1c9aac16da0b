"""Our loop as the guest of asyncio's: what runs meanwhile, what wakes it, how it ends, and where it refuses."""

# ruff: noqa: PT012  what is raised at the edge of a block has that block inside

from __future__ import annotations

import asyncio

import pytest

import dangagreen as d
from dangagreen import bridge
from dangagreen.bridge import await_, to_task
from dangagreen.loop.loop import Loop
from dangagreen.loop.pollers import available_pollers


def as_guest(function):
    """Run `await function()` inside of guest(), on asyncio's loop."""

    async def main():
        async with bridge.guest():
            return await function()

    return asyncio.run(main())


def test_servers_tasks_and_timers_run_meanwhile(rloop):
    async def main():
        listener = d.serve(("127.0.0.1", 0), lambda sock: sock.write_all(sock.read_line()))
        rung = asyncio.Event()
        rloop.add_timer(0.001, rung.set)
        await rung.wait()
        reader, writer = await asyncio.open_connection(*listener.sock.getsockname()[:2])
        writer.write(b"it\n")
        answer = await reader.readline()
        writer.close()
        await writer.wait_closed()
        return answer

    assert as_guest(main) == b"it\n"


def test_a_deadline_that_a_coroutine_sets_is_heard_of(rloop):
    scopes = []

    def work():
        with d.move_on_after(1000) as scope:
            scopes.append(scope)
            d.sleep(1000)
        return scope.cancelled_caught

    async def main():
        task = d.spawn(work)
        await asyncio.sleep(0.01)
        scopes[0].deadline = rloop.clock() + 0.01
        return await asyncio.wait_for(task_of(task), 10)

    async def task_of(task):
        return await task

    assert as_guest(main) is True


def test_it_may_be_hosted_again_and_again_and_by_one_guest(rloop):
    async def main():
        guest = bridge.guest()
        for _ in range(3):
            async with guest:
                assert await to_task(lambda: d.sleep(0.001) or "it") == "it"
        return "the host goes on"

    assert asyncio.run(main()) == "the host goes on"
    assert d.run(lambda: await_(asyncio.sleep(0.001, "ours hosts"))) == "ours hosts"


def test_its_end_cancels_tasks_and_waits_for_them(rloop):
    log = []

    def stays():
        try:
            d.sleep(1000)
        finally:
            with d.shield():
                d.sleep(0.01)
            log.append("clean")

    async def main():
        d.spawn(stays)
        await asyncio.sleep(0.01)

    as_guest(main)
    assert log == ["clean"]


def test_a_failure_at_its_end_is_reported(rloop):
    def fails():
        try:
            d.sleep(1000)
        finally:
            raise KeyError("at the end")

    errors = []
    rloop.on_error = errors.append

    async def main():
        d.spawn(fails)
        await asyncio.sleep(0.01)

    as_guest(main)
    assert [repr(context.exception) for context in errors] == ["KeyError('at the end')"]


def test_a_cancelled_host_gets_there_all_the_same(rloop):
    log = []

    def stays():
        try:
            d.sleep(1000)
        finally:
            with d.shield():
                d.sleep(0.02)
            log.append("clean")

    async def block():
        async with bridge.guest():
            d.spawn(stays)
            await asyncio.sleep(0.01)

    async def main():
        task = asyncio.ensure_future(block())
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        log.append("cancelled")

    asyncio.run(main())
    assert log == ["clean", "cancelled"]


@pytest.mark.parametrize("where", ["nested", "hosted", "await_", "running"])
def test_where_it_cannot_be_it_says_so(rloop, where):
    async def block():
        async with bridge.guest():
            pass

    async def nested():
        async with bridge.guest():
            await block()

    with pytest.raises(RuntimeError, match="already"):
        if where == "nested":
            asyncio.run(nested())
        elif where == "hosted":
            bridge.run(block())
        elif where == "await_":
            await_(block())
        else:
            d.run(lambda: asyncio.run(block()))


@pytest.mark.parametrize("poller_class", available_pollers(), ids=lambda poller: poller.__name__)
def test_pollers_without_a_descriptor_are_refused(poller_class):
    async def block():
        async with bridge.guest():
            return await to_task(lambda: d.sleep(0.001) or "it")

    with Loop(poller=poller_class()) as loop:
        if hasattr(loop.poller, "fileno"):
            assert asyncio.run(block()) == "it"
        else:
            with pytest.raises(RuntimeError, match=poller_class.__name__):
                asyncio.run(block())


def test_other_threads_reach_it(rloop):
    async def main():
        event = d.Event()
        task = d.spawn(event.wait)
        await asyncio.to_thread(rloop.call_soon_threadsafe, event.set)
        await asyncio.wait_for(bridge.as_future(task), 10)

    as_guest(main)
