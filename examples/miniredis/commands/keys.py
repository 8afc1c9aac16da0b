"""The commands about keys: what there is, and until when."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from miniredis.keys import BUCKETS, due, keys, now
from miniredis.patterns import Glob, glob
from miniredis.portions import Work, batches
from miniredis.protocol import MANY, SYNTAX, Command, Refusal, Reply, number


def count_those(which: Callable[[bytes], object], _client: object, *names: bytes) -> Work[Reply]:
    count = 0
    for batch in batches(names):
        count += sum(bool(which(name)) for name in batch)
        yield
    return count


def remove_live(key: bytes) -> bool:
    return key in keys and keys.remove(key)


def expire(
    size: int, is_date: bool, command: bytes, _client: object, key: bytes, amount: bytes, *options: bytes
) -> Reply:
    flags = set(map(bytes.upper, options))
    if unknown := flags - {b"NX", b"XX", b"GT", b"LT"}:
        raise Refusal(b"ERR Unsupported option %b" % unknown.pop()[:128])
    if (b"NX" in flags and len(flags) > 1) or {b"GT", b"LT"} <= flags:
        raise Refusal(b"ERR NX and XX, GT or LT options at the same time are not compatible")
    deadline = due(amount, size, is_date, command, least=-(2**63))
    if key not in keys:
        return 0
    before = keys.deadlines.get(key)
    if (b"NX" if before is not None else b"XX") in flags:
        return 0
    if (b"GT" in flags and (before is None or deadline <= before)) or (
        b"LT" in flags and before is not None and deadline >= before
    ):
        return 0
    keys.expire(key, deadline)
    return 1


def time_left(size: int, _client: object, key: bytes) -> int:
    if key not in keys:
        return -2
    deadline = keys.deadlines.get(key)
    return -1 if deadline is None else max(0, deadline - now() + size // 2) // size


def persist(_client: object, key: bytes) -> int:
    done = key in keys and keys.persist(key)
    if done:
        keys.touch(key)
    return done


def bucket_keys(index: int, pattern: Glob | None) -> Work[list[Reply]]:
    found: list[Reply] = []
    for key in list(keys.buckets[index]):
        if (pattern is None or (yield from pattern.matches(key))) and key in keys:
            found.append(key)
    return found


def list_keys(_client: object, pattern: bytes) -> Work[Reply]:
    found: list[Reply] = []
    for index in range(BUCKETS):
        if keys.buckets[index]:
            found += yield from bucket_keys(index, None if pattern == b"*" else glob(pattern))
            yield
    return found


def scan(_client: object, cursor: bytes, *options: bytes) -> Work[Reply]:
    """A part of the keys, and where the next part begins. Who is there all the time is in exactly one part."""
    if (cursor and not re.fullmatch(rb"[+-]?\d+", cursor)) or abs(int(cursor or b"0")) >= 2**64:
        raise Refusal(b"ERR invalid cursor")
    if len(options) % 2:
        raise Refusal(SYNTAX)
    pattern, count, kind = None, 10, b"string"
    for word, value in zip(options[::2], options[1::2], strict=True):
        match word.upper():
            case b"MATCH":
                pattern = None if value == b"*" else glob(value)
            case b"COUNT":
                count = number(value)
                if count < 1:
                    raise Refusal(SYNTAX)
            case b"TYPE":
                kind = value.lower()
            case _:
                raise Refusal(SYNTAX)
    found: list[Reply] = []
    index, seen = int(cursor or b"0") % 2**64, 0
    while index < BUCKETS and seen < count:
        seen += len(keys.buckets[index])
        if keys.buckets[index]:
            found += yield from bucket_keys(index, pattern)
            yield
        index += 1
    return [b"%d" % (index if index < BUCKETS else 0), found if kind == b"string" else []]


def clear(_client: object, *how: bytes) -> Work[str]:
    if len(how) > 1 or (how and how[0].upper() not in (b"ASYNC", b"SYNC")):
        raise Refusal(SYNTAX)
    return keys.clear()


COMMANDS: dict[bytes, Command] = {
    b"DEL": (2, MANY, partial(count_those, remove_live)),
    b"UNLINK": (2, MANY, partial(count_those, remove_live)),
    b"EXISTS": (2, MANY, partial(count_those, lambda name: name in keys)),
    b"TYPE": (2, 2, lambda _, key: "string" if key in keys else "none"),
    b"KEYS": (2, 2, list_keys),
    b"SCAN": (2, MANY, scan),
    b"DBSIZE": (1, 1, lambda _: keys.count),
    b"FLUSHALL": (1, MANY, clear),
    b"FLUSHDB": (1, MANY, clear),
    b"EXPIRE": (3, MANY, partial(expire, 1000, False, b"expire")),
    b"PEXPIRE": (3, MANY, partial(expire, 1, False, b"pexpire")),
    b"EXPIREAT": (3, MANY, partial(expire, 1000, True, b"expireat")),
    b"PEXPIREAT": (3, MANY, partial(expire, 1, True, b"pexpireat")),
    b"TTL": (2, 2, partial(time_left, 1000)),
    b"PTTL": (2, 2, partial(time_left, 1)),
    b"PERSIST": (2, 2, persist),
}
