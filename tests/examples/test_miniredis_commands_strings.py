"""miniredis's commands about strings, by the redis package, and that a value grows in place."""

from __future__ import annotations

import pytest
import redis

from miniredis.keys import Keys
from redis_peers import do


def test_numbers(client: redis.Redis) -> None:
    assert [client.incr("n"), client.incr("n", 41), client.decr("n"), client.decrby("n", 50)] == [1, 42, 41, -9]
    client.set("n", 2**63 - 1)
    with pytest.raises(redis.ResponseError, match="overflow"):
        client.incr("n")
    for wrong in b"x", b" 1", b"1.5", b"+1", b"01", b"9" * 40:
        client.set("n", wrong)
        with pytest.raises(redis.ResponseError, match="not an integer"):
            client.incr("n")


@pytest.mark.parametrize(
    "words",
    ["EX", "EX 0", "PX -5", "EX x", "EX 1 PX 1", "NX XX", "EX 1 KEEPTTL", "SOMETHING", "EX 999999999999999999"],
)
def test_set_with_wrong_options(client: redis.Redis, words: str) -> None:
    with pytest.raises(redis.ResponseError, match=r"syntax error|invalid expire time|not an integer"):
        client.execute_command("SET", "k", "v", *words.split())
    assert client.exists("k") == 0


def test_what_is_appended_grows_in_place(keys: Keys) -> None:
    do(b"SET", b"k", b"x" * 100_000)
    do(b"APPEND", b"k", b"y")
    value = keys.value(b"k")
    for _ in range(100):
        assert do(b"APPEND", b"k", b"z")
        assert do(b"STRLEN", b"k") == len(value)
    assert keys.value(b"k") is value  # no copy of it was made
    assert do(b"GET", b"k") == b"x" * 100_000 + b"y" + b"z" * 100
