"""miniredis's commands about keys, by the redis package, and dates and times by the clock."""

from __future__ import annotations

import pytest
import redis

from miniredis import keys as keys_module
from miniredis.keys import Keys
from programs import expect
from redis_peers import do


def test_strings_and_keys(client: redis.Redis) -> None:
    assert client.ping() is True
    assert client.echo("hello") == b"hello"
    assert client.set("a", b"\r\n$\0") is True
    assert client.get("a") == b"\r\n$\0"
    assert client.get("none") is None
    assert client.mget("a", "none", "a") == [b"\r\n$\0", None, b"\r\n$\0"]
    assert client.set("a", "2", nx=True) is None
    assert client.set("b", "2", xx=True) is None
    assert client.set("b", "2", nx=True) is True
    assert client.set("b", "3", xx=True) is True
    assert client.set("c", "3") is True
    assert client.set("", "") is True
    assert (client.exists(""), client.delete("")) == (1, 1)
    assert client.append("c", "45") == 3
    assert client.append("d", "x") == 1
    assert (client.strlen("c"), client.strlen("none")) == (3, 0)
    assert client.exists("a", "a", "none") == 2
    assert (client.type("a"), client.type("none")) == (b"string", b"none")
    assert sorted(client.keys("*")) == [b"a", b"b", b"c", b"d"]
    assert sorted(client.keys("[^ab]")) == [b"c", b"d"]
    assert client.dbsize() == 4
    assert client.delete("a", "a", "none", "b") == 2
    assert client.flushall() is True
    assert client.keys() == []


@pytest.mark.parametrize(
    ("pattern", "names"),
    [("h?llo", "hello hallo"), ("h[ae]llo", "hello hallo"), ("h[^e]llo", "hallo"), ("h[a-b]*", "hallo"), (r"\*", "*")],
)
def test_patterns(client: redis.Redis, pattern: str, names: str) -> None:
    for name in "hello", "hallo", "heello", "*":
        client.set(name, 1)
    assert sorted(client.keys(pattern)) == sorted(names.encode().split())


def test_expiry(client: redis.Redis) -> None:
    assert (client.ttl("k"), client.pttl("k"), client.persist("k"), client.expire("k", 9)) == (-2, -2, False, False)
    client.set("k", "v")
    assert (client.ttl("k"), client.persist("k")) == (-1, False)
    assert client.expire("k", 100) is True
    assert 0 < client.ttl("k") <= 100
    assert client.persist("k") is True
    assert client.ttl("k") == -1
    assert client.set("k", "v", px=100_000)
    assert 90_000 < client.pttl("k") <= 100_000
    client.set("k", "w", keepttl=True)
    client.append("k", "x")
    assert 90_000 < client.pttl("k") <= 100_000
    client.set("k", "v")
    assert client.ttl("k") == -1
    client.set("k", "v", ex=2**31)
    assert client.ttl("k") == 2**31
    assert client.pexpire("k", 50) is True
    expect(lambda: client.pttl("k") == -2)
    client.set("k", "1", px=20)
    client.set("long", "1", ex=100)
    expect(lambda: client.dbsize() == 1)  # by the timer: nobody has asked for it
    assert client.get("k") is None
    assert client.expire("long", -1) is True
    assert client.exists("long") == 0


def test_times_are_compared(keys: Keys) -> None:
    do(b"SET", b"k", b"v")
    replies = [
        do(b"EXPIRE", b"k", seconds, *options)
        for seconds, *options in (
            (b"10", b"XX"), (b"10", b"GT"), (b"10", b"LT"), (b"10", b"NX"), (b"5", b"GT"), (b"20", b"GT"),
            (b"30", b"LT"), (b"5", b"LT", b"XX"), (b"-1", b"GT"),
        )
    ]  # fmt: skip
    assert replies == [0, 0, 1, 0, 0, 1, 0, 1, 0]
    assert do(b"TTL", b"k") == 5


def test_a_date_is_that_of_the_wall_clock(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_module, "wall_clock", lambda: 1_000_000)
    do(b"SET", b"k", b"v", b"EXAT", b"1010")
    assert do(b"TTL", b"k") == 10
    assert do(b"PEXPIREAT", b"k", b"1003000") == 1
    assert do(b"TTL", b"k") == 3
    monkeypatch.setattr(keys_module, "wall_clock", lambda: 0)  # it is put back, and nothing follows from that
    assert do(b"TTL", b"k") == 3
    assert do(b"EXPIREAT", b"k", b"-1") == 1
    assert do(b"EXISTS", b"k") == 0
