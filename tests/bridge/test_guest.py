"""Our loop as the guest of asyncio's: what runs meanwhile, what wakes it, how it ends, and where it refuses."""

# ruff: noqa: PT012  what is raised at the edge of a block has that block inside

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import logging
import signal
import socket
import threading

import pytest

import dangagreen as d
from dangagreen import bridge
from dangagreen.bridge import await_, to_task
from dangagreen.loop import deadlock
from dangagreen.loop.loop import Loop
from dangagreen.loop.pollers import available_pollers

guest_module = importlib.import_module("dangagreen.bridge.guest")  # whose name is the class's too


def as_guest(function):
    """Run `await function()` inside of guest(), on asyncio's loop."""

    async def main():
        async with bridge.guest():
            return await function()

    return asyncio.run(main())


def cleans_up(seconds, log):
    """It waits for ever; when cancelled, it takes so long to clean up."""
    try:
        d.sleep(1000)
    finally:
        with d.shield():
            d.sleep(seconds)
        log.append("clean")


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


def test_the_loop_that_await_made_before_lives_on(rloop):
    async def which():
        return asyncio.get_running_loop()

    home = await_(which())

    async def main():
        assert await to_task(lambda: await_(which())) is asyncio.get_running_loop()

    as_guest(main)
    assert await_(which()) is home


def test_its_end_cancels_tasks_and_waits_for_them(rloop):
    log = []

    async def main():
        d.spawn(cleans_up, 0.01, log)
        await asyncio.sleep(0.01)

    as_guest(main)
    assert log == ["clean"]


def test_its_end_is_quiet_for_a_server_that_nobody_awaits(rloop, caplog):
    async def main():
        listener = d.serve(("127.0.0.1", 0), lambda sock: None)
        to_task(d.serve_forever, listener)
        await asyncio.sleep(0.01)

    as_guest(main)
    gc.collect()
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


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

    async def block():
        async with bridge.guest():
            d.spawn(cleans_up, 0.02, log)
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


def test_a_host_that_refuses_leaves_nothing_behind(rloop):
    """Such as one that cannot watch descriptors."""

    async def main():
        loop = asyncio.get_running_loop()
        loop.add_reader = lambda *_: 1 / 0
        with pytest.raises(ZeroDivisionError):
            async with bridge.guest():
                pass
        del loop.add_reader
        async with bridge.guest():
            return await to_task(lambda: "it")

    assert asyncio.run(main()) == "it"
    assert d.run(lambda: await_(asyncio.sleep(0, "ours hosts"))) == "ours hosts"


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


# -- threads and signals


@pytest.fixture(params=["asyncio", "uvloop"])
def debugging(request):
    """`debugging(main())` runs it on a loop of these in its debug mode, which refuses calls from other threads."""
    make = asyncio.new_event_loop if request.param == "asyncio" else pytest.importorskip("uvloop").new_event_loop

    def run(coroutine):
        with asyncio.Runner(debug=True, loop_factory=make) as runner:
            return runner.run(asyncio.wait_for(coroutine, 10))

    run(asyncio.sleep(0))  # what uvloop opens once for all
    return run


def by_in_thread(_loop, gate):
    return d.in_thread(lambda: gate.wait(30))


def by_from_thread(_loop, gate):
    return d.in_thread(lambda: gate.wait(30) and d.from_thread(lambda: d.sleep(0) or True))


def by_queue(loop, gate):
    queue = d.Queue()
    return put(loop, gate, queue.put) and queue.get()


def by_event(loop, gate):
    event = d.Event()
    return put(loop, gate, lambda _it: event.set()) and event.wait()


def by_call(loop, gate):
    queue = d.Queue()
    return put(loop, gate, lambda it: loop.call_soon_threadsafe(queue.put_nowait, it)) and queue.get()


def put(loop, gate, function):
    """Have a thread of nobody's call it when the gate is open."""
    threading.Thread(target=lambda: gate.wait(30) and function(True), daemon=True).start()
    return True


def by_look_up(loop, gate):
    class Late:
        def getaddrinfo(self, *asked):
            gate.wait(30)
            return socket.getaddrinfo(*asked)

    loop.resolver = Late()
    listener = d.serve(("127.0.0.1", 0), lambda sock: None)
    with d.connect(("localhost", listener.address[1]), 30) as sock:
        return sock.read_to_end() == b""


@pytest.mark.parametrize("way", [by_in_thread, by_from_thread, by_queue, by_event, by_call, by_look_up])
def test_other_threads_reach_it_also_in_debug_mode(debugging, rloop, way):
    gate = threading.Event()

    async def main():
        async with bridge.guest():
            asyncio.get_running_loop().call_later(0.01, gate.set)  # there is no turn then
            future = to_task(way, rloop, gate)
            assert (await asyncio.wait({future}, timeout=5))[0], "nobody has woken the host"
            return future.result()

    assert debugging(main()) is True


@pytest.mark.parametrize("who", ["thread", "signal handler"])
def test_neither_threads_nor_signal_handlers_call_the_host(debugging, rloop, who):
    calls, came = [], []

    def tell(*_):
        calls.append(None)
        rloop.call_soon_threadsafe(came.append, "it")
        calls.append(None)

    async def main():
        aio = asyncio.get_running_loop()
        call_soon = aio.call_soon
        async with bridge.guest():
            await asyncio.sleep(0.01)
            aio.call_soon = lambda *args, **kwargs: calls.append(args) or call_soon(*args, **kwargs)
            try:
                if who == "thread":
                    thread = threading.Thread(target=tell)
                    thread.start()
                    thread.join()
                else:
                    signal.raise_signal(signal.SIGUSR1)
                assert calls == [None, None]
            finally:
                del aio.call_soon
            while not came:
                await asyncio.sleep(0.001)

    before = signal.signal(signal.SIGUSR1, tell)
    try:
        debugging(main())
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("which", [0, 1], ids=["begins", "ends"])
def test_what_a_thread_queues_while_it_begins_or_ends_is_not_lost(rloop, monkeypatch, which):
    """It may come between any two steps of that."""
    came = []

    def meanwhile(kind):
        def make(*held):
            queue = kind(*held)
            thread = threading.Thread(target=rloop.call_soon_threadsafe, args=(came.append, "it"))
            thread.start()
            thread.join()
            return queue

        return make

    kinds = list(guest_module._QUEUES["ready"])
    kinds[which] = meanwhile(kinds[which])
    monkeypatch.setitem(guest_module._QUEUES, "ready", tuple(kinds))

    async def main():
        await asyncio.sleep(0)

    as_guest(main)
    rloop.set_loop_timeout(0)
    rloop.run(lambda: True)
    assert came == ["it"]


# -- turns


def test_an_idle_guest_makes_no_turns(rloop, monkeypatch):
    turns = []
    turn = Loop.turn
    monkeypatch.setattr(Loop, "turn", lambda loop: turns.append(1) or turn(loop))

    async def main():
        task = d.spawn(d.sleep, 0.1)
        await asyncio.sleep(0.01)
        before = len(turns)
        await task
        return len(turns) - before

    assert as_guest(main) <= 2


def test_both_sides_get_their_share(rloop):
    log = []

    async def spins():
        while len(log) < 200:
            log.append("asyncio")
            await asyncio.sleep(0)

    def spin():
        while len(log) < 200:
            log.append("ours")
            d.sleep(0)

    async def main():
        task = d.spawn(spin)
        await spins()
        await task

    as_guest(main)
    assert 50 < log.count("ours") < 150


# -- stop


@pytest.mark.parametrize("who", ["task", "callback", "coroutine", "post-loop callback"])
def test_stop_ends_the_block_quietly(rloop, who):
    log = []

    def stays():
        try:
            d.sleep(1000)
        finally:
            log.append("task")

    def stop_in_task():
        d.sleep(0)
        rloop.stop()

    async def main():
        async with bridge.guest():
            d.spawn(stays)
            await asyncio.sleep(0.01)
            if who == "task":
                d.spawn(stop_in_task)
            elif who == "callback":
                rloop.call_soon(rloop.stop)
            elif who == "coroutine":
                rloop.stop()
            else:
                d.Socket.set_post_loop_callback(lambda *_: False)
                rloop.call_soon(int)
            try:
                await asyncio.sleep(1000)
            finally:
                log.append("coroutine")
        d.Socket.set_post_loop_callback(None)
        assert asyncio.current_task().cancelling() == 0
        await asyncio.sleep(0)
        return "the host goes on"

    assert asyncio.run(main()) == "the host goes on"
    assert log == ["coroutine", "task"]


def test_stop_has_serve_forever_drain_and_the_block_goes_on(rloop):
    def serve():
        d.serve_forever(d.serve(("127.0.0.1", 0), lambda sock: None))
        return "drained"

    async def main():
        task = d.spawn(serve)
        await asyncio.sleep(0.01)
        rloop.stop()
        return await task, await asyncio.sleep(0, "goes on")

    assert as_guest(main) == ("drained", "goes on")


def test_a_cancellation_by_others_is_not_swallowed_by_stop(rloop):
    async def block():
        async with bridge.guest():
            rloop.stop()
            asyncio.current_task().cancel()
            await asyncio.sleep(1000)

    async def main():
        with pytest.raises(asyncio.CancelledError):
            await asyncio.ensure_future(block())

    asyncio.run(main())


# -- deadlock


async def waits_for_nothing():
    await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("who", ["event", "await_"])
def test_a_deadlock_is_raised_at_the_end_of_the_block(alone, rloop, who):
    rloop.deadlock_seconds = 0.01
    log = []

    def work():
        try:
            d.Event().wait() if who == "event" else await_(waits_for_nothing())
        finally:
            log.append("clean")

    async def main():
        with pytest.raises(d.Deadlock) as caught:
            async with bridge.guest():
                await to_task(work)
        assert log == ["clean"]
        await asyncio.sleep(0)
        return caught.value.table

    table = asyncio.run(main())
    assert "work" in table
    if who == "await_":
        code = waits_for_nothing.__code__
        assert f"{code.co_filename}:{code.co_firstlineno + 1}" in table


@pytest.mark.parametrize("what", ["timer", "descriptor", "call", "thread"])
def test_what_asyncio_waits_for_is_no_deadlock(rloop, what, monkeypatch):
    """A thread of asyncio's might wake it: that is a doubt, and told in a warning."""
    if what != "thread":
        monkeypatch.setattr(deadlock, "external_wakers", lambda: iter(()))
    rloop.deadlock_seconds = 0.01
    looks, warned, looked, ended = [], [], asyncio.Event(), threading.Event()
    seems_stalled = Loop.seems_stalled

    def look(loop):
        looks.append(1)
        if len(looks) == 3:
            looked.set()
        return seems_stalled(loop)

    monkeypatch.setattr(Loop, "seems_stalled", look)
    monkeypatch.setattr(deadlock.log(), "warning", lambda *words: [warned.append(words), looked.set()])
    near, far = socket.socketpair()

    async def main():
        loop, event, running = asyncio.get_running_loop(), d.Event(), None
        task = d.spawn(event.wait)
        if what == "timer":
            loop.call_later(1000, int)
        elif what == "descriptor":
            loop.add_reader(near, int)
        elif what == "thread":
            running = asyncio.ensure_future(asyncio.to_thread(ended.wait, 10))
        while what == "call" and not looked.is_set():
            await asyncio.sleep(0)
        await looked.wait()
        event.set()
        await task
        ended.set()
        if running is not None:
            await running

    with near, far:
        as_guest(main)
    assert len(warned) == (1 if what == "thread" else 0)


def test_a_task_that_waits_for_a_thread_is_in_no_doubt(rloop, caplog, monkeypatch):
    rloop.deadlock_seconds = 0.001
    seen, looked, seems_stalled = [], threading.Event(), Loop.seems_stalled

    def look(loop):
        seen.append(seems_stalled(loop))
        if loop.green is not None and loop.green.awaits_thread():
            looked.set()
        return seen[-1]

    monkeypatch.setattr(Loop, "seems_stalled", look)

    async def main():
        return await to_task(d.in_thread, lambda: looked.wait(30) and "it")

    assert as_guest(main) == "it"
    assert not any(seen)
    assert "all tasks wait" not in caplog.text


def test_a_deadlock_of_its_end_is_raised_too(alone, rloop):
    rloop.deadlock_seconds = 0.01

    def refuses():
        with d.shield():
            d.Event().wait()

    async def main():
        asyncio.get_running_loop().clean_up_seconds = 0.1
        async with bridge.guest():
            d.spawn(refuses)
            await asyncio.sleep(0.001)

    with pytest.raises(d.Deadlock):
        asyncio.run(main())


def test_the_look_for_deadlocks_can_be_turned_off(alone, rloop):
    rloop.deadlock_seconds = None

    async def main():
        task = d.spawn(d.Event().wait)
        await asyncio.sleep(0.02)
        assert not task.done
        task.cancel()

    as_guest(main)


def test_ctrl_c_in_the_middle_of_what_arranges_the_next_turn_loses_none(monkeypatch):
    arrange, strikes = guest_module.guest._arrange_next, []

    def arrange_or_strike(self):
        if d.current_loop().timers and not strikes:
            strikes.append(1)
            raise KeyboardInterrupt
        arrange(self)

    async def main():
        async with guest_module.guest():
            await to_task(d.sleep, 0.01)
        return "over"

    monkeypatch.setattr(guest_module.guest, "_arrange_next", arrange_or_strike)
    with contextlib.closing(asyncio.new_event_loop()) as host:
        task = host.create_task(main())
        with pytest.raises(KeyboardInterrupt):
            host.run_until_complete(task)
        assert host.run_until_complete(asyncio.wait_for(task, 20)) == "over"
    assert strikes == [1]
