"""The keys of miniredis, by the clock: what expires, who watches. Commands: test_miniredis_against_redis.py."""

from __future__ import annotations

import pytest

import dangagreen as d
from miniredis.keys import BUCKETS, Keys
from redis_peers import Watcher, do


def test_keys_go_when_their_time_is_up(keys: Keys) -> None:
    do(b"SET", b"k", b"v", b"PX", b"1500")
    do(b"SET", b"long", b"v", b"EX", b"9000000000000")
    assert (do(b"PTTL", b"k"), do(b"TTL", b"k"), do(b"TTL", b"long")) == (1500, 2, 9000000000000)
    assert len(keys.timers) == 1  # nobody will be there at the end of the other
    d.sleep(1.4)
    assert do(b"GET", b"k") == b"v"
    d.sleep(0.2)
    assert (keys.count, do(b"DBSIZE"), do(b"GET", b"k")) == (1, 1, None)
    assert (len(keys.timers), len(keys.deadlines)) == (0, 1)


@pytest.mark.parametrize(
    "words",
    [
        (b"SET", b"k", b"w"), (b"DEL", b"k"), (b"APPEND", b"k", b"1"), (b"INCR", b"k"), (b"EXPIRE", b"k", b"9"),
        (b"EXPIRE", b"k", b"-9"), (b"FLUSHALL",), (b"MSET", b"k", b"1"), (b"GETDEL", b"k"), (b"SET", b"k", b"1", b"XX"),
    ],
    ids=lambda words: b"_".join(words).decode(),
)  # fmt: skip
def test_who_watches_is_told(keys: Keys, words: tuple[bytes, ...]) -> None:
    do(b"SET", b"k", b"1")
    watcher, other = Watcher(), Watcher()
    keys.watch(watcher, b"k")
    keys.watch(other, b"other")
    for question in (b"GET", b"k"), (b"TTL", b"k"), (b"SET", b"k", b"1", b"NX"), (b"PERSIST", b"k"), (b"KEYS", b"*"):
        do(*question)
    assert not watcher.changed
    do(*words)
    assert (watcher.changed, other.changed) == (True, False)
    keys.unwatch(watcher, b"k")
    keys.unwatch(other, b"other")
    assert keys.watchers == {}


def test_who_watches_a_key_is_told_that_its_time_is_up(keys: Keys) -> None:
    do(b"SET", b"k", b"1", b"PX", b"100")
    watcher = Watcher()
    keys.watch(watcher, b"k")
    d.sleep(0.2)
    assert watcher.changed


def test_to_flush_is_at_once_and_takes_its_time_to_give_back(keys: Keys) -> None:
    for number in range(5000):
        do(b"SET", b"%d" % number, b"v", b"EX", b"%d" % (number % 2 + 1))
    timers = keys.timers
    work = keys.clear()
    next(work)
    assert (keys.count, do(b"KEYS", b"*"), do(b"TTL", b"1")) == (0, [], -2)
    do(b"SET", b"1", b"new")
    d.sleep(5)  # timers of those that were there come meanwhile
    assert do(b"GET", b"1") == b"new"
    assert sum(1 for _ in work) > BUCKETS / 2
    assert not timers


def test_keys_are_spread_over_the_buckets(keys: Keys) -> None:
    for number in range(BUCKETS * 4):
        do(b"SET", b"key:%d" % number, b"v")
    assert max(map(len, keys.buckets)) < 40
    assert sum(map(len, keys.buckets)) == keys.count == BUCKETS * 4
