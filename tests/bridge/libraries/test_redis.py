"""redis.asyncio from tasks, against a Redis server: pools, pipelines, pub/sub, commands that are cut off."""

from __future__ import annotations

from functools import partial

import pytest

import dangagreen as d
from dangagreen.bridge import await_
from tests.bridge.libraries.company import made, result, results
from tests.programs import needed

redis = needed("redis.asyncio")
redis_client = partial(needed("redis").Redis, "127.0.0.1")  # which blocks
pytestmark = pytest.mark.slow


@pytest.fixture
def in_client(in_company, redis_port):
    """`in_client(function)` calls it with a Company and a client of at most `connections` connections."""

    def in_client(function, connections=3):
        def body(company):
            pool = await_(
                made(redis.BlockingConnectionPool, port=redis_port, max_connections=connections, timeout=None)
            )
            client = await_(made(redis.Redis, connection_pool=pool))
            try:
                await_(client.flushdb())
                answer = function(company, client)
                assert await_(client.ping()) is True
                return answer
            finally:
                await_(client.aclose())
                await_(pool.disconnect())

        return in_company(body)

    return in_client


def test_many_tasks_share_a_pool(in_client):
    def count(client, n):
        await_(client.set(f"key {n}", n))
        return int(await_(client.get(f"key {n}"))), await_(client.incr("all"))

    def body(_company, client):
        return results([d.spawn(count, client, n) for n in range(30)])

    found = in_client(body)
    assert [n for n, _ in found] == list(range(30))
    assert sorted(counted for _, counted in found) == list(range(1, 31))


def test_a_command_waits_alone(in_client):
    def body(company, client):
        waiting = company.waits(client.blpop("list"))
        await_(client.rpush("list", "first"))
        assert result(waiting) == (b"list", b"first")

    in_client(body)


def test_a_command_that_is_cut_off_leaves_its_reply_to_nobody(in_client, redis_port):
    """There is one connection: what comes next must not be given the answer of what was cut off."""

    def blocked():
        return observer.info("clients")["blocked_clients"] == 1

    def body(company, client):
        await_(client.set("key", "value"))
        for _ in range(3):
            company.cut_off(client.blpop("list"), blocked)
            assert await_(client.get("key")) == b"value"
        await_(client.rpush("list", "kept"))  # and what was cut off takes nothing any more
        assert await_(client.lrange("list", 0, -1)) == [b"kept"]

    with redis_client(redis_port) as observer:
        in_client(body, connections=1)


def test_messages_reach_tasks(in_client):
    def listen(channel, ready, number):
        await_(channel.subscribe("news"))
        found = []
        while len(found) < number:
            message = await_(channel.get_message(timeout=None))
            if message["type"] == "subscribe":
                ready.release()
            else:
                found.append(message["data"])
        return found

    def body(company, client):
        ready = d.Semaphore(0)
        channels = [await_(made(client.pubsub)) for _ in range(2)]
        listeners = [d.spawn(listen, channel, ready, 10) for channel in channels]
        for _ in channels:
            ready.acquire()
        company.go_on()
        for n in range(10):
            assert await_(client.publish("news", n)) == 2
        for channel, listener in zip(channels, listeners, strict=True):
            assert result(listener) == [b"%d" % n for n in range(10)]
            await_(channel.aclose())

    in_client(body)


def test_a_wait_for_a_message_that_is_cut_off_loses_none(in_client):
    def body(company, client):
        channel = await_(made(client.pubsub, ignore_subscribe_messages=True))
        await_(channel.subscribe("news"))
        assert await_(channel.get_message(timeout=None)) is None  # that it has subscribed
        for n in range(5):
            company.cut_off(channel.get_message(timeout=None))
            await_(client.publish("news", n))
            assert await_(channel.get_message(timeout=None))["data"] == b"%d" % n
        await_(channel.aclose())

    in_client(body)


def test_transactions_of_tasks_see_each_other(in_client):
    """Each of them watches the key, and tries again when another was first."""

    def increment(client):
        async def change():
            async with client.pipeline() as pipe:
                await pipe.watch("n")
                n = int(await pipe.get("n") or 0)
                pipe.multi()
                pipe.set("n", n + 1)
                await pipe.execute()

        while True:
            try:
                return await_(change())
            except redis.WatchError:
                d.sleep(0)

    def body(_company, client):
        results([d.spawn(increment, client) for _ in range(8)])
        return int(await_(client.get("n")))

    assert in_client(body) == 8
