"""The way of a request to its command: what is refused on it, and many requests at once."""

from __future__ import annotations

import pytest
import redis


def test_errors_leave_the_connection_as_it_was(client: redis.Redis) -> None:
    for words, message in [
        (("NOSUCH", "a\r\nb"), "unknown command 'NOSUCH'"),
        (("GET",), "wrong number of arguments for 'get' command"),
        (("PING", "a", "b"), "wrong number of arguments for 'ping' command"),
        (("CLIENT", "NO\r\nSUCH"), "unknown command 'CLIENT'"),
        (("SELECT", "1"), "DB index is out of range"),
        (("EXEC",), "EXEC without MULTI"),
        (("DISCARD",), "DISCARD without MULTI"),
        (("HELLO", "4"), "unsupported protocol version"),
    ]:
        with pytest.raises(redis.ResponseError, match=message):
            client.execute_command(*words)
        assert client.ping() is True


@pytest.mark.parametrize("transaction", [True, False])
def test_pipelines(client: redis.Redis, transaction: bool) -> None:
    with client.pipeline(transaction=transaction) as pipe:
        for n in range(500):
            pipe.set(f"key{n}", n).incr("sum", n).get(f"key{n}")
        replies = pipe.execute()
    assert replies[::3] == [True] * 500
    assert replies[1::3] == [n * (n + 1) // 2 for n in range(500)]
    assert replies[2::3] == [b"%d" % n for n in range(500)]
    with client.pipeline(transaction=transaction) as pipe:
        replies = pipe.set("word", "x").incr("word").get("word").execute(raise_on_error=False)
    assert [replies[0], replies[2]] == [True, b"x"]
    assert isinstance(replies[1], redis.ResponseError)
