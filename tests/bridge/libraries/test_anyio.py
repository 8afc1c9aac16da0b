"""anyio, in each hosting and as the owner of a loop of ours: groups, scopes, streams, threads, portals, its plugin."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading

import pytest

import dangagreen as d
from dangagreen import bridge
from dangagreen.bridge import await_, to_task
from tests.bridge.libraries.company import made, result, results
from tests.programs import needed

anyio = needed("anyio")
sniffio = needed("sniffio")
from_thread, to_thread = needed("anyio.from_thread"), needed("anyio.to_thread")
pytestmark = pytest.mark.slow


# -- in each hosting


def test_a_group_whose_members_wait_for_tasks(in_company):
    async def main(company):
        found = []

        async def member(n):
            await to_task(company.go_on)
            found.append(n)

        async with anyio.create_task_group() as group:
            for n in range(5):
                group.start_soon(member, n)
        return sorted(found)

    assert in_company(lambda company: await_(main(company))) == [0, 1, 2, 3, 4]


def test_the_failure_of_a_task_cancels_the_group_and_the_tasks_of_the_others(in_company):
    ended = []

    def fails():
        d.sleep(0.005)
        raise ValueError("told")

    def waits(n):
        try:
            d.sleep(3600)
        finally:
            ended.append(n)

    async def main():
        async with anyio.create_task_group() as group:
            for n in range(3):
                group.start_soon(to_task_of, waits, n)
            group.start_soon(to_task_of, fails)

    async def to_task_of(function, *args):
        await to_task(function, *args)

    with pytest.raises(ExceptionGroup) as caught:
        in_company(lambda _company: await_(main()))
    assert [str(error) for error in caught.value.exceptions] == ["told"]
    assert sorted(ended) == [0, 1, 2]


def test_scopes_of_both_sides_end_their_own_blocks_only(in_company):
    """Three deep: whichever expires is the one that notices."""

    def ours(limits, seconds):
        with d.move_on_after(limits[0]) as scope:
            d.sleep(seconds)
        return [scope.cancelled]

    async def theirs(limits, seconds):
        with anyio.move_on_after(limits[1]) as scope:
            return [*await to_task(ours, limits, seconds), scope.cancelled_caught]
        return [None, scope.cancelled_caught]

    def outer(limits, seconds=3600):
        with d.move_on_after(limits[2]) as scope:
            return [*await_(theirs(limits, seconds)), scope.cancelled]
        return [None, None, scope.cancelled]

    def body(_company):
        return [outer((0.01, 20, 20)), outer((20, 0.01, 20)), outer((20, 20, 0.01)), outer((20, 20, 20), 0.001)]

    assert in_company(body) == [
        [True, False, False],
        [None, True, False],
        [None, None, True],
        [False, False, False],
    ]


def test_a_shielded_clean_up_is_waited_for(in_company):
    log = []

    async def main(company):
        log.append("begun")
        try:
            await anyio.sleep(3600)
        finally:
            with anyio.CancelScope(shield=True):
                await to_task(company.go_on)
                await anyio.sleep(0.001)
                log.append("cleaned up")

    def body(company):
        company.cut_off(main(company), lambda: log)
        log.append("left")

    in_company(body)
    assert log == ["begun", "cleaned up", "left"]


def test_a_stream_between_a_coroutine_and_a_task(in_company):
    async def produce(send):
        async with send:
            for n in range(50):
                await send.send(n)

    def consume(receive):
        found = []
        with contextlib.suppress(anyio.EndOfStream):
            while True:
                found.append(await_(receive.receive()))
        await_(receive.aclose())
        return found

    def body(company):
        send, receive = anyio.create_memory_object_stream(1)
        waiting = company.waits(receive.receive())
        send.send_nowait("first")
        assert result(waiting) == "first"
        producer = d.spawn(await_, produce(send))
        found = consume(receive)
        result(producer)
        return found

    assert in_company(body) == list(range(50))


def test_a_tcp_stream_to_a_server_of_ours(in_company):
    def shout(sock):
        for line in sock:
            sock.write_all(line.upper())

    async def ask(address):
        async with await anyio.connect_tcp(*address) as stream:
            await stream.send(b"hello\n")
            return await stream.receive()

    def body(_company):
        with contextlib.closing(d.serve(("127.0.0.1", 0), shout)) as listener:
            return results([d.spawn(await_, ask(listener.address)) for _ in range(5)])

    assert in_company(body) == [b"HELLO\n"] * 5


def test_a_thread_works_while_the_others_go_on(in_company):
    """It is let go when they have gone on: they are not stopped by it."""
    go = threading.Event()

    def work():
        assert go.wait(20)
        return threading.get_ident()

    def body(company):
        task = company.waits(to_thread.run_sync(work))
        go.set()
        return result(task)

    assert in_company(body) != threading.get_ident()


def test_a_thread_calls_back(in_company):
    """What it calls is a coroutine, and can await a task."""
    variable = contextvars.ContextVar("variable", default="none")

    def work(company):
        return from_thread.run(ask, company), from_thread.run_sync(threading.get_ident)

    async def ask(company):
        await to_task(company.go_on)
        return variable.get(), threading.get_ident()

    async def main(company):
        variable.set("of main")
        return await to_thread.run_sync(work, company)

    mine = threading.get_ident()
    assert in_company(lambda company: await_(main(company))) == (("of main", mine), mine)


def test_a_portal_into_the_thread(in_company):
    """A thread that is not anyio's calls coroutines here."""

    async def main(company):
        async with from_thread.BlockingPortal() as portal:
            return await to_thread.run_sync(work, portal, company)

    def work(portal, company):
        found = []
        thread = threading.Thread(target=lambda: found.append(portal.call(ask, company)))
        thread.start()
        thread.join()
        return found

    async def ask(company):
        await to_task(company.go_on)
        return threading.get_ident()

    assert in_company(lambda company: await_(main(company))) == [threading.get_ident()]


def test_a_limiter_and_a_lock_are_shared_by_tasks(in_company):
    inside, most = 0, 0

    async def work(limiter):
        nonlocal inside, most
        async with limiter:
            inside += 1
            most = max(most, inside)
            await anyio.sleep(0.001)
            inside -= 1

    def body(_company):
        limiter = await_(made(anyio.CapacityLimiter, 2))
        results([d.spawn(await_, work(limiter)) for _ in range(8)])
        assert limiter.borrowed_tokens == 0

    in_company(body)
    assert most == 2


def test_which_library_runs(in_company):
    """asyncio's in a coroutine, none in a task, also where a coroutine has started it."""

    def in_task():
        with pytest.raises(sniffio.AsyncLibraryNotFoundError):
            sniffio.current_async_library()
        for current in (asyncio.get_running_loop, asyncio.current_task, anyio.get_current_task):
            with pytest.raises(RuntimeError):
                current()

    async def main():
        names = [sniffio.current_async_library()]
        await to_task(in_task)
        assert anyio.get_current_task().id == id(asyncio.current_task())
        return [*names, sniffio.current_async_library()]

    def body(_company):
        in_task()
        return await_(main())

    assert in_company(body) == ["asyncio", "asyncio"]


# -- anyio as the owner of a loop of ours

OPTIONS = {"loop_factory": bridge.EventLoop}


def nap(value):
    d.sleep(0.001)
    return value


@pytest.mark.parametrize("hosting", ["in run", "top-level code"], indirect=True)
def test_anyio_runs_on_a_loop_of_ours(ours):
    async def main():
        assert type(asyncio.get_running_loop()) is bridge.EventLoop
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 0.001)
        return await to_task(nap, "done")

    assert ours(lambda: anyio.run(main, backend="asyncio", backend_options=OPTIONS)) == "done"


@pytest.mark.parametrize("hosting", ["top-level code"], indirect=True)
def test_a_portal_of_a_thread_with_a_loop_of_ours(hosting):
    """Each thread has its own: that of the portal begins and ends with it."""

    async def ask(n):
        assert type(asyncio.get_running_loop()) is bridge.EventLoop
        return await to_task(nap, n), threading.get_ident()

    with from_thread.start_blocking_portal(backend_options=OPTIONS) as portal:
        futures = [portal.start_task_soon(ask, n) for n in range(5)]
        answers = [future.result(20) for future in futures]
        with portal.wrap_async_context_manager(context()) as entered:
            assert entered == "entered"
    assert [n for n, _ in answers] == [0, 1, 2, 3, 4]
    assert threading.get_ident() not in {thread for _, thread in answers}


@contextlib.asynccontextmanager
async def context():
    yield await to_task(nap, "entered")
    await to_task(nap, None)
