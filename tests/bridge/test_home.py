"""The asyncio loop that `await_` makes: one for all, and its end with what is left in it."""

from __future__ import annotations

import asyncio
import gc
import os

import pytest

import dangagreen as d
from dangagreen import bridge
from dangagreen.bridge import await_, to_task
from dangagreen.green.waiters import wake
from dangagreen.testing import VirtualPoller
from tests.bridge.programs import begin, cleans_up, nap, never, program, stubborn

# -- running


def test_await_in_a_task_of_a_hosted_loop_is_run_by_that_loop(vloop):
    async def which():
        return asyncio.get_running_loop()

    async def main():
        return asyncio.get_running_loop(), await to_task(lambda: await_(which()))

    def work():
        return bridge.run(main())

    mine, seen = d.run(work)
    assert seen is mine


def test_the_first_await_makes_one_loop_for_all(vloop):
    async def which():
        return asyncio.get_running_loop()

    def work():
        return {await_(which()), await_(which()), d.spawn(await_, which())}

    loops = d.run(lambda: {await_(which()), await_(which())})
    assert len(loops) == 1
    assert loops.pop().is_closed()


# -- the end


@pytest.mark.parametrize("raises", [False, True])
def test_at_the_end_of_run_tasks_end_first_and_then_coroutines(vloop, raises):
    log = []

    async def cleans(name):
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(1)
            log.append(name)

    def waits():
        try:
            await_(cleans("awaited"))
        finally:
            log.append("task")

    async def numbers():
        try:
            yield 1
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(0)
            log.append("generator")

    held = []

    async def hold():
        held.append(numbers())
        async for _ in held[0]:
            return

    def main():
        d.spawn(waits)
        await_(begin(cleans("left")))
        await_(hold())
        d.sleep(1)
        if raises:
            raise KeyError("it")

    if raises:
        with pytest.raises(KeyError):
            d.run(main)
    else:
        d.run(main)
    assert log == ["awaited", "task", "left", "generator"]


@pytest.mark.parametrize("how", ["left", "await_", "bridge.run"])
def test_a_coroutine_that_refuses_to_end_is_reported_with_its_stack(vloop, how, caplog):
    held = []

    def main():
        if how == "left":
            held.append(await_(begin(stubborn())))
        else:
            d.spawn(await_ if how == "await_" else bridge.run, stubborn())
        d.sleep(1)

    d.run(main)
    held.clear()
    assert f"{stubborn.__code__.co_filename}:{stubborn.__code__.co_firstlineno + 4}" in caplog.text
    assert caplog.text.count("did not end within") == 1
    assert 1006 <= vloop.clock() <= 1011


def test_a_shielded_wait_for_what_does_not_end_is_given_up_in_the_same_way(vloop, caplog):
    log = []

    def waits():
        try:
            with d.shield():
                await_(never())
        except d.Cancelled:
            log.append("cancelled")
            raise

    def main():
        d.spawn(waits)
        d.sleep(1)

    d.run(main)
    assert log == ["cancelled"]
    assert vloop.clock() >= 5
    assert "did not end within 5.0 s" in caplog.text


def test_how_long_they_may_take_is_a_setting(vloop, caplog, monkeypatch):
    monkeypatch.setattr(bridge.EventLoop, "clean_up_seconds", 60.0)
    held = []
    d.run(lambda: [held.append(await_(begin(stubborn()))), d.sleep(1)])
    assert vloop.clock() == 1061
    assert "within 60.0 s" in caplog.text
    assert held.pop().cancelling() == 1


def test_what_cleans_up_already_is_not_cancelled_again_at_the_end(vloop):
    """A second Ctrl-C has taken away the task that waited for its clean-up."""
    log = []

    def main():
        task = d.current_task()
        for seconds in (1, 2):
            vloop.add_timer(seconds, lambda: wake(task, KeyboardInterrupt()))
        await_(cleans_up(4, log))

    with pytest.raises(KeyboardInterrupt):
        d.run(main)
    assert log == ["cancelled", "clean"]
    assert vloop.clock() == 1005


def test_a_failure_at_the_end_is_told_once(vloop, caplog):
    async def fails():
        try:
            await asyncio.sleep(1000)
        finally:
            raise KeyError("at the end")

    held = []
    d.run(lambda: [held.append(await_(begin(fails()))), d.sleep(1)])
    held.clear()
    gc.collect()
    assert caplog.text.count("KeyError: 'at the end'") == 1


def test_after_the_end_of_run_the_next_begins_anew(vloop):
    for _ in range(3):
        assert d.run(lambda: await_(nap(1, "it"))) == "it"
    assert await_(nap(1, "it")) == "it"


def test_a_reset_ends_coroutines_where_they_are(vloop):
    log = []

    async def cleans(name):
        try:
            await asyncio.sleep(1000)
        finally:
            log.append(name)
            await asyncio.sleep(0)
            log.append(f"{name} again")
            await asyncio.sleep(1)
            log.append("not here")

    def work(wait, name):
        try:
            wait(cleans(name))
        finally:
            log.append(f"task {name}")

    async def across():
        await to_task(work, await_, "c")

    for wait, name in ((await_, "a"), (bridge.run, "b")):
        d.spawn(work, wait, name)
    d.spawn(bridge.run, across())
    d.sleep(1)
    vloop.reset()
    assert sorted(log) == ["a", "a again", "b", "b again", "c", "c again", "task a", "task b", "task c"]
    assert isinstance(vloop.poller, VirtualPoller)
    assert await_(nap(1, "anew")) == "anew"


def test_a_script_that_ends_leaves_nothing():
    text = program(
        """
        import asyncio
        import dangagreen as d
        from dangagreen.bridge import await_

        async def begin():
            return asyncio.ensure_future(main())

        async def main():
            try:
                await asyncio.sleep(1000)
            finally:
                await asyncio.sleep(0)
                print("clean")

        held = await_(begin())
        await_(asyncio.sleep(0))
        d.spawn(lambda: await_(main()))
        d.sleep(0.01)
        print("end")
        """
    )
    assert text == "end\nclean\nclean\n"


# -- fork


def test_a_forked_child_makes_loops_of_its_own(rloop):
    """In the middle of a task, where none of asyncio's is at work."""

    def work():
        await_(asyncio.sleep(0))
        read, write = os.pipe()
        if (pid := os.fork()) == 0:
            try:
                os.write(write, f"{await_(nap(0.001, 'await_'))} {bridge.run(nap(0.001, 'run'))}".encode())
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        os.close(write)
        with open(read, "rb") as answer:
            return answer.read(), await_(nap(0.001, "parent"))

    assert d.run(work) == (b"await_ run", "parent")
