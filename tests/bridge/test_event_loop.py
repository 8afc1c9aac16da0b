"""`bridge.EventLoop` and `bridge.run`: running, cancelling, threads, errors in words, fork."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import threading
from _thread import get_ident

import pytest

import dangagreen as d
from dangagreen import bridge
from dangagreen.bridge import await_, to_task
from dangagreen.bridge.selector import ParkingSelector
from dangagreen.green.waiters import wake
from dangagreen.loop.deadlock import external_wakers
from dangagreen.loop.loop import Loop
from tests.bridge.programs import begin, cleans_up, nap

# -- running


def test_several_loops_run_in_several_tasks(vloop):
    seen = []

    async def main(name):
        for _ in range(3):
            await asyncio.sleep(1)
            seen.append((name, asyncio.get_running_loop()))

    def work():
        with d.TaskGroup() as group:
            for name in "abc":
                group.spawn(bridge.run, main(name))

    d.run(work)
    assert [name for name, _ in seen] == list("abc") * 3
    assert len({loop for _, loop in seen}) == 3
    assert vloop.clock() == 1003


@pytest.mark.parametrize("runner", ["bridge.run", "Runner"])
def test_in_top_level_code_our_loop_is_not_started_anew_for_each_wait(rloop, monkeypatch, runner):
    runs = []
    run = Loop.run
    monkeypatch.setattr(Loop, "run", lambda loop, *until: runs.append(1) or run(loop, *until))

    async def main():
        for _ in range(50):
            await asyncio.sleep(0.0001)

    if runner == "bridge.run":
        bridge.run(main())
    else:
        with asyncio.Runner(loop_factory=bridge.EventLoop) as runner:
            runner.run(main())
    assert len(runs) < 10  # one for main, and those of the end


@pytest.mark.skipif(sys.version_info < (3, 12), reason="loop_factory is new in Python 3.12")
@pytest.mark.parametrize("where", ["task", "top-level code"])
def test_asyncio_run_with_our_factory_lets_tasks_run_meanwhile(vloop, where):
    log = []

    async def main():
        await asyncio.sleep(2)
        log.append("main")
        return await to_task(lambda: "task")

    def work():
        return asyncio.run(main(), loop_factory=bridge.EventLoop)

    d.spawn(lambda: [d.sleep(1), log.append("other")])
    assert (d.run(work) if where == "task" else work()) == "task"
    assert log == ["other", "main"]


# -- cancelling who has called it


def test_a_cancelled_run_cancels_main_and_cleans_up_all(vloop):
    log = []

    async def sibling():
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(1)
            log.append("sibling")

    async def numbers():
        try:
            yield 1
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(0)
            log.append("generator")

    async def left():
        async for _ in numbers():
            return

    async def main():
        other, first = asyncio.ensure_future(sibling()), asyncio.ensure_future(left())
        await first
        del first
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            log.append("main")
            await asyncio.sleep(1)
            other.done()
            raise

    def work():
        with d.move_on_after(1) as scope:
            bridge.run(main())
        return scope.cancelled_caught

    assert d.run(work) is True
    assert sorted(log) == ["generator", "main", "sibling"]


def test_a_runner_may_be_used_again_and_interrupted_again(vloop):
    def work():
        with asyncio.Runner(loop_factory=bridge.EventLoop) as runner:
            for _ in range(3):
                with d.move_on_after(1) as scope:
                    runner.run(nap(1000))
                assert scope.cancelled_caught

    d.run(work)
    assert vloop.clock() == 1003


@pytest.mark.parametrize("how", ["bridge.run", "Runner", "run_until_complete"])
def test_in_an_expired_scope_it_does_not_begin(vloop, how):
    begun = []

    async def main():
        begun.append(1)

    def work():
        with d.move_on_after(10) as scope:
            scope.cancel()
            if how == "bridge.run":
                bridge.run(main())
            elif how == "Runner":
                with asyncio.Runner(loop_factory=bridge.EventLoop) as runner:
                    runner.run(main())
            else:
                with contextlib.closing(bridge.EventLoop()) as loop:
                    loop.run_until_complete(main())
        assert scope.cancelled_caught

    d.run(work)
    gc.collect()
    assert begun == []


def test_what_still_awaits_in_a_loop_that_ends_is_cancelled(vloop):
    """Whoever awaits in it again and again, also while it cleans up, is not left waiting for it."""
    log = []

    def again_and_again():
        try:
            for _ in range(100):  # in the end by the loop that `await_` makes
                await_(asyncio.sleep(0))
            log.append("told")
        except d.TaskCancelledError:
            log.append("told")

    async def main():
        for _ in range(3):
            d.spawn(again_and_again)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    d.run(lambda: [bridge.run(main()), d.sleep(1)])
    assert log == ["told"] * 3


def test_a_task_outlives_the_loop_that_has_awaited_it(vloop):
    log = []

    def slow():
        d.sleep(5)
        log.append("ended")

    async def main():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(bridge.as_future(d.spawn(slow))), 1)

    d.run(lambda: [bridge.run(main()), d.sleep(10)])
    assert log == ["ended"]


@pytest.mark.parametrize("interrupts", [1, 2])
def test_ctrl_c_while_it_cleans_up_ends_it_there(vloop, interrupts):
    """The first cancels main, which cleans up; the second ends that, and what is left has another time to clean up."""
    log = []

    def work():
        task = d.current_task()
        for number in range(interrupts):
            vloop.add_timer(1 + number, lambda: wake(task, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            bridge.run(cleans_up(10, log))
        return vloop.clock() - 1000

    took = d.run(work)
    assert log == (["cancelled", "clean"] if interrupts == 1 else ["cancelled"])
    assert took == (11 if interrupts == 1 else 2)


# -- threads


def test_the_executor_ends_with_the_loop(rloop):
    async def main():
        return await asyncio.to_thread(threading.current_thread)

    for run in (lambda: await_(main()), lambda: bridge.run(main())):
        assert not d.run(run).is_alive()


def test_other_threads_reach_it(rloop):
    async def main():
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        thread = threading.Thread(target=loop.call_soon_threadsafe, args=(future.set_result, "soon"))
        thread.start()
        first = await future
        thread.join()

        async def inner():
            return await to_task(lambda: d.sleep(0.001) or "coroutine")

        second = await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(inner(), loop).result(10))
        return first, second

    assert bridge.run(main()) == ("soon", "coroutine")
    assert d.run(lambda: await_(main())) == ("soon", "coroutine")


def test_an_event_loop_in_another_thread_is_refused(rloop, in_thread):
    with contextlib.closing(bridge.EventLoop()) as loop:

        def elsewhere():
            with pytest.raises(RuntimeError, match="thread"):
                loop.run_forever()

        in_thread(elsewhere)


def test_the_end_of_a_thread_leaves_nothing(in_thread):
    log = []

    async def main():
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(0)
            log.append("clean")

    def elsewhere():
        await_(begin(main()))
        await_(asyncio.sleep(0))

    gc.collect()
    before = len(os.listdir("/dev/fd"))
    in_thread(elsewhere)
    gc.collect()
    assert len(os.listdir("/dev/fd")) == before
    assert log == ["clean"]


# -- errors in words


def test_one_that_was_never_run_is_closed_in_a_coroutine_as_well(vloop):
    async def main():
        with contextlib.closing(bridge.EventLoop()) as other, pytest.raises(RuntimeError):
            other.run_forever()
        return other.is_closed() and asyncio.get_running_loop() is not other

    assert bridge.run(main())


def test_a_loop_that_runs_or_is_closed_says_so(vloop):
    async def again():
        loop = asyncio.get_running_loop()
        with pytest.raises(RuntimeError, match="running"):
            loop.run_forever()

    bridge.run(again())
    await_(again())
    loop = bridge.EventLoop()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop.run_forever()


# -- fork


def test_the_loop_of_the_parent_says_that_it_is(rloop):
    loop = bridge.EventLoop()
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            loop.run_forever()
        except RuntimeError as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(write)
    with open(read, "rb") as answer:
        assert b"parent" in answer.read()
    loop.close()


def test_a_coroutine_cannot_go_on_in_a_child(rloop):
    async def main():
        read, write = os.pipe()
        if (pid := os.fork()) == 0:
            try:
                await asyncio.sleep(0.001)
            except RuntimeError as error:
                os.write(write, str(error).encode())
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        os.close(write)
        with open(read, "rb") as answer:
            return answer.read(), await nap(0.001, "parent")

    said, parent = bridge.run(main())
    assert said
    assert parent == "parent"


# -- Ctrl-C


def test_the_handler_of_ctrl_c_of_a_runner_is_nobody_who_might_wake_the_loop(vloop):
    async def main():
        return signal.getsignal(signal.SIGINT), list(external_wakers())

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        handler, wakers = bridge.run(main())
        assert handler is not signal.default_int_handler
        assert "the handler of SIGINT" not in wakers
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_running_loop_is_told_in_one_place(vloop, monkeypatch):
    """asyncio's own tests put its Python implementation in the place of the other one."""
    for module in asyncio, asyncio.events:
        for name in ("_get_running_loop", "_set_running_loop", "get_running_loop"):
            monkeypatch.setattr(module, name, getattr(asyncio.events, f"_py_{name}"))

    async def main():
        return asyncio.get_running_loop()

    loop = bridge.EventLoop()
    assert loop.run_until_complete(main()) is loop
    assert asyncio._get_running_loop() is None
    loop.close()


@pytest.mark.parametrize("call", ["call_soon", "call_later"])
def test_what_debug_mode_refuses_in_another_thread_wakes_nobody_there(vloop, monkeypatch, call):
    kicks, kick = [], ParkingSelector.kick
    monkeypatch.setattr(ParkingSelector, "kick", lambda selector: kicks.append(get_ident()) or kick(selector))

    async def main():
        aio = asyncio.get_running_loop()
        aio.set_debug(True)
        arguments = (print,) if call == "call_soon" else (1, print)
        task = d.spawn(d.in_thread, lambda: getattr(aio, call)(*arguments))
        with pytest.raises(RuntimeError, match="thread"):
            await task

    bridge.run(main())
    assert kicks.count(get_ident()) == len(kicks)


def test_its_dict_keeps_to_what_the_interpreter_reads_quickly(vloop):
    """Up to 30 attributes; asyncio has 26 of them, in Python 3.13."""

    async def attributes():
        return len(vars(asyncio.get_running_loop()))

    assert d.run(lambda: await_(attributes())) <= 29
    assert bridge.run(attributes()) <= 29
