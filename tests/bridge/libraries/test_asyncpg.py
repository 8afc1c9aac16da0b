"""asyncpg from tasks, against PostgreSQL: pools, queries that are cut off, transactions, notifications."""

from __future__ import annotations

import asyncio

import pytest

import dangagreen as d
from dangagreen.bridge import await_
from tests.bridge.libraries.company import made, result, results
from tests.programs import needed

asyncpg = needed("asyncpg")
pytestmark = pytest.mark.slow


@pytest.fixture
def in_pool(in_company, database_url):
    """`in_pool(function)` calls it with a Company and a pool of up to three connections, which is whole at the end."""

    def in_pool(function):
        async def begin():
            return await asyncpg.create_pool(database_url, min_size=1, max_size=3)

        def body(company):
            pool = await_(begin())
            try:
                answer = function(company, pool)
                company.until(lambda: pool.get_idle_size() == pool.get_size())
                with d.timeout(20):  # each connection is in order: they can be had at a time, and answer
                    connections = [await_(pool.acquire()) for _ in range(3)]
                    assert [await_(each.fetchval("select 7")) for each in connections] == [7, 7, 7]
                    for each in connections:
                        await_(pool.release(each))
            finally:
                await_(pool.close())
            return answer

        return in_company(body)

    return in_pool


def asleep(pool, query):
    """How many connections of the server sleep in it. One that is active might not have begun what it was sent last,
    and PostgreSQL ignores a wish to cancel that comes between two messages."""
    return await_(
        pool.fetchval("select count(*) from pg_stat_activity where query = $1 and wait_event = 'PgSleep'", query)
    )


def test_many_tasks_share_a_pool(in_pool):
    def ask(pool, n):
        return await_(pool.fetchval("select $1::int * 2", n))

    def body(_company, pool):
        return results([d.spawn(ask, pool, n) for n in range(30)])

    assert in_pool(body) == [2 * n for n in range(30)]


def test_a_query_waits_alone(in_pool):
    def body(company, pool):
        holder = await_(pool.acquire())
        await_(holder.execute("select pg_advisory_lock(1)"))
        waiting = company.waits(pool.fetchval("select pg_advisory_lock(1)::text || 'mine'"))
        assert await_(pool.fetchval("select 1")) == 1
        await_(holder.execute("select pg_advisory_unlock(1)"))
        assert result(waiting) == "mine"
        await_(pool.release(holder))

    in_pool(body)


@pytest.mark.parametrize("cut", ["timeout", "move_on_after", "cancel", "asyncio.timeout"])
def test_a_query_that_is_cut_off_is_gone_from_the_server(in_pool, cut):
    query = f"select pg_sleep(3600), '{cut}'"

    limits = []

    async def asyncio_timeout(pool):
        async with asyncio.timeout(None) as limit:
            limits.append(limit)
            await pool.fetchval(query)

    def body(company, pool):
        begun = lambda: asleep(pool, query) == 1  # noqa: E731
        if cut == "timeout":
            company.cut_off(pool.fetchval(query), begun)
        elif cut == "move_on_after":
            with d.move_on_after(None) as scope:
                d.spawn(company.expire, scope, begun)
                await_(pool.fetchval(query))
            assert scope.cancelled
        elif cut == "asyncio.timeout":
            task = d.spawn(await_, asyncio_timeout(pool))
            company.until(begun)
            await_(made(limits[0].reschedule, 0))
            with pytest.raises(TimeoutError):
                result(task)
        else:
            task = d.spawn(await_, pool.fetchval(query))
            company.until(begun)
            task.cancel()
            with pytest.raises(d.TaskCancelledError):
                result(task)
        company.until(lambda: asleep(pool, query) == 0)

    in_pool(body)


def test_a_transaction_that_is_cut_off_is_rolled_back(in_pool):
    async def change(pool, seconds):
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("insert into cut values (1)")
            await connection.execute(f"select pg_sleep({seconds})")

    def body(company, pool):
        await_(pool.execute("create table cut (n int)"))
        try:
            company.cut_off(change(pool, 3600), lambda: asleep(pool, "select pg_sleep(3600)") == 1)
            assert await_(pool.fetchval("select count(*) from cut")) == 0
            await_(change(pool, 0))
            assert await_(pool.fetchval("select count(*) from cut")) == 1
        finally:
            await_(pool.execute("drop table cut"))

    in_pool(body)


def test_a_task_that_waits_for_a_connection_leaves_the_queue_when_it_is_cut_off(in_pool):
    def body(company, pool):
        held = [await_(pool.acquire()) for _ in range(3)]
        company.cut_off(pool.acquire())
        waiting = company.waits(pool.fetchval("select 1"))
        await_(pool.release(held.pop()))
        assert result(waiting) == 1
        for each in held:
            await_(pool.release(each))

    in_pool(body)


def test_rows_come_one_by_one(in_pool):
    """An asynchronous generator, each of whose steps a task awaits."""

    async def rows(pool):
        async with pool.acquire() as connection, connection.transaction():
            async for row in connection.cursor("select generate_series(1, 200) as n", prefetch=10):
                yield row["n"]

    def body(_company, pool):
        steps, found = rows(pool), []
        while (n := await_(anext(steps, None))) is not None:
            found.append(n)
        return found

    assert in_pool(body) == list(range(1, 201))


def test_notifications_reach_a_task(in_pool):
    """asyncpg calls back in asyncio; there nothing may park, and putting into a queue with room does not."""

    def body(company, pool):
        heard = d.Queue()
        listener = await_(pool.acquire())
        hear = lambda *args: heard.put_nowait(args[-1])  # noqa: E731
        await_(listener.add_listener("news", hear))
        reader = d.spawn(lambda: [heard.get() for _ in range(3)])
        company.go_on()
        for words in "abc":
            await_(pool.execute(f"notify news, '{words}'"))
        assert result(reader) == ["a", "b", "c"]
        await_(listener.remove_listener("news", hear))
        await_(pool.release(listener))

    in_pool(body)


def test_errors_of_the_server_reach_the_task(in_pool):
    def body(_company, pool):
        with pytest.raises(asyncpg.DivisionByZeroError):
            await_(pool.fetchval("select 1 / 0"))

    in_pool(body)
