"""The keys of miniredis and their values, when they expire, and the commands about them.

Keys are spread over buckets, so that whoever looks at all of them does so a bucket at a time: between two of them
others have their turn, and SCAN's cursor is the number of a bucket. A time to live is in milliseconds of the loop's
clock, which nobody sets; a timer of the loop removes a key whose time is up.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeAlias

from dangagreen import Timer, current_loop
from miniredis_glob import Glob, glob
from miniredis_protocol import LONGEST_BULK, MANY, SYNTAX, Refusal, Reply, Work, batches, number

BUCKETS = 4096
LARGE = 64 * 1024  # bytes: from here on what is appended grows in place
FAR_AWAY = 10 * 365 * 86_400_000  # milliseconds: nobody will be there to see it expire
MOST = 2**63 - 1  # of a number, and of milliseconds
UNITS = {b"EX": (1000, False), b"PX": (1, False), b"EXAT": (1000, True), b"PXAT": (1, True)}  # and is it a date?


class Watcher(Protocol):
    """Who watches keys: it is told that one has changed."""

    changed: bool


def now() -> int:
    return int(current_loop().time() * 1000)


class Keys:
    """The keys, their values, and the times of those that expire."""

    def __init__(self) -> None:
        self.buckets: list[dict[bytes, bytes | bytearray]] = [{} for _ in range(BUCKETS)]
        self.deadlines: dict[bytes, int] = {}
        self.timers: dict[bytes, Timer] = {}
        self.count = 0
        self.watchers: dict[bytes, set[Watcher]] = {}

    def value(self, key: bytes) -> bytes | bytearray | None:
        if self.deadlines and self.deadlines.get(key, MOST) <= now():
            self.remove(key)
            return None
        return self.buckets[hash(key) % BUCKETS].get(key)

    def get(self, key: bytes) -> bytes | None:
        value = self.value(key)
        if isinstance(value, bytearray):
            value = self.buckets[hash(key) % BUCKETS][key] = bytes(value)
        return value

    def __contains__(self, key: bytes) -> bool:
        return self.value(key) is not None

    def put(self, key: bytes, value: bytes | bytearray, keep_time: bool = False) -> None:
        bucket = self.buckets[hash(key) % BUCKETS]
        self.count += key not in bucket
        bucket[key] = value
        if self.deadlines and not keep_time:
            self.persist(key)
        if self.watchers:
            self.touch(key)

    def remove(self, key: bytes) -> bool:
        if self.deadlines:
            self.persist(key)
        if self.buckets[hash(key) % BUCKETS].pop(key, None) is None:
            return False
        self.count -= 1
        if self.watchers:
            self.touch(key)
        return True

    def touch(self, key: bytes) -> None:
        for watcher in self.watchers.get(key, ()):
            watcher.changed = True

    def expire(self, key: bytes, deadline: int) -> None:
        """Of a key that there is."""
        self.persist(key)
        left = deadline - now()
        if left <= 0:
            self.remove(key)
            return
        self.deadlines[key] = deadline
        if left < FAR_AWAY:
            self.timers[key] = current_loop().add_timer((left + 1) / 1000, partial(self.value, key))
        self.touch(key)

    def persist(self, key: bytes) -> bool:
        if (timer := self.timers.pop(key, None)) is not None:
            timer.cancel()
        return self.deadlines.pop(key, None) is not None

    def clear(self) -> Work[str]:
        """They are gone at once; to give back what they took is long work."""
        for key in self.watchers:
            if key in self:
                self.touch(key)
        buckets, timers = self.buckets, self.timers
        self.buckets, self.timers, self.deadlines, self.count = [{} for _ in range(BUCKETS)], {}, {}, 0
        for bucket in buckets:
            bucket.clear()
            yield
        while timers:
            timers.popitem()[1].cancel()
            yield
        return "OK"

    def watch(self, watcher: Watcher, key: bytes) -> None:
        self.value(key)  # if its time is up already, that is no change
        self.watchers.setdefault(key, set()).add(watcher)

    def unwatch(self, watcher: Watcher, key: bytes) -> None:
        watchers = self.watchers.get(key, set())
        watchers.discard(watcher)
        if not watchers:
            self.watchers.pop(key, None)


keys = Keys()


# -- strings


def set_value(_client: object, key: bytes, value: bytes, *options: bytes) -> Reply:
    if not options:
        keys.put(key, value)
        return "OK"
    flags: set[bytes] = set()
    amount, words = b"", iter(options)
    for word in map(bytes.upper, words):
        if word in UNITS and not flags & ({b"KEEPTTL", *UNITS} - {word}):
            if (after := next(words, None)) is None:
                raise Refusal(SYNTAX)
            amount = after
        elif word not in {b"NX", b"XX", b"GET", b"KEEPTTL"} or (word == b"KEEPTTL" and flags & UNITS.keys()):
            raise Refusal(SYNTAX)
        flags.add(word)
    if {b"NX", b"XX"} <= flags:
        raise Refusal(SYNTAX)
    unit = next(iter(flags & UNITS.keys()), None)
    deadline = None if unit is None else due(unit, amount, b"set")
    before = keys.get(key)
    if (b"NX" if before is not None else b"XX") in flags:
        return before if b"GET" in flags else None
    keys.put(key, value, keep_time=b"KEEPTTL" in flags)
    if deadline is not None:
        keys.expire(key, deadline)
    return before if b"GET" in flags else "OK"


def due(unit: bytes, amount: bytes, command: bytes) -> int:
    """When that is, in milliseconds of the loop's clock. Raises Refusal for what has been, or is no time."""
    size, is_date = UNITS[unit]
    milliseconds = number(amount) * size
    if not 0 < milliseconds <= MOST - (0 if is_date else wall_clock()):
        raise Refusal(b"ERR invalid expire time in '%b' command" % command)
    return now() + milliseconds - (wall_clock() if is_date else 0)


def wall_clock() -> int:
    return time.time_ns() // 1_000_000


def set_for(unit: bytes, command: bytes, _client: object, key: bytes, amount: bytes, value: bytes) -> Reply:
    deadline = due(unit, amount, command)
    keys.put(key, value)
    keys.expire(key, deadline)
    return "OK"


def set_if_new(_client: object, key: bytes, value: bytes) -> Reply:
    if key in keys:
        return 0
    keys.put(key, value)
    return 1


def set_several(_client: object, *words: bytes) -> Work[Reply]:
    if len(words) % 2:
        raise Refusal(b"ERR wrong number of arguments for 'mset' command")
    for batch in batches(words):
        for key, value in zip(batch[::2], batch[1::2], strict=True):
            keys.put(key, value)
        yield
    return "OK"


def get_several(_client: object, *names: bytes) -> Work[Reply]:
    values: list[Reply] = []
    for batch in batches(names):
        values += map(keys.get, batch)
        yield
    return values


def append(_client: object, key: bytes, tail: bytes) -> int:
    value = keys.value(key) or b""
    size = len(value) + len(tail)
    if size > LONGEST_BULK:
        raise Refusal(b"ERR string exceeds maximum allowed size (proto-max-bulk-len)")
    if size > LARGE and not isinstance(value, bytearray):
        value = bytearray(value)
    value += tail
    keys.put(key, value, keep_time=True)
    return size


def add(key: bytes, amount: int) -> int:
    before = keys.get(key)
    value = 0 if before is None else number(before)
    if not -(2**63) <= value + amount <= MOST:
        raise Refusal(b"ERR increment or decrement would overflow")
    keys.put(key, b"%d" % (value + amount), keep_time=True)
    return value + amount


def subtract(key: bytes, amount: int) -> int:
    if amount == -(2**63):
        raise Refusal(b"ERR decrement would overflow")
    return add(key, -amount)


# -- keys


def count_those(which: Callable[[bytes], object], _client: object, *names: bytes) -> Work[Reply]:
    count = 0
    for batch in batches(names):
        count += sum(bool(which(name)) for name in batch)
        yield
    return count


def remove_live(key: bytes) -> bool:
    return key in keys and keys.remove(key)


def get_and_remove(_client: object, key: bytes) -> Reply:
    value = keys.get(key)
    keys.remove(key)
    return value


def expire(
    size: int, is_date: bool, command: bytes, _client: object, key: bytes, amount: bytes, *options: bytes
) -> Reply:
    flags = set(map(bytes.upper, options))
    if unknown := flags - {b"NX", b"XX", b"GT", b"LT"}:
        raise Refusal(b"ERR Unsupported option %b" % unknown.pop()[:128])
    if (b"NX" in flags and len(flags) > 1) or {b"GT", b"LT"} <= flags:
        raise Refusal(b"ERR NX and XX, GT or LT options at the same time are not compatible")
    milliseconds = number(amount) * size
    if not -(2**63) <= milliseconds <= MOST - (0 if is_date else wall_clock()):
        raise Refusal(b"ERR invalid expire time in '%b' command" % command)
    if key not in keys:
        return 0
    deadline, before = now() + milliseconds - (wall_clock() if is_date else 0), keys.deadlines.get(key)
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


Command: TypeAlias = "tuple[int, int, Callable[..., Reply | Work[Reply]]]"
COMMANDS: dict[bytes, Command] = {  # the fewest words of a request, its name included, the most, and what to call
    b"GET": (2, 2, lambda _, key: keys.get(key)),
    b"SET": (3, MANY, set_value),
    b"SETEX": (4, 4, partial(set_for, b"EX", b"setex")),
    b"PSETEX": (4, 4, partial(set_for, b"PX", b"psetex")),
    b"SETNX": (3, 3, set_if_new),
    b"MSET": (3, MANY, set_several),
    b"MGET": (2, MANY, get_several),
    b"GETDEL": (2, 2, get_and_remove),
    b"APPEND": (3, 3, append),
    b"STRLEN": (2, 2, lambda _, key: len(keys.value(key) or b"")),
    b"INCR": (2, 2, lambda _, key: add(key, 1)),
    b"DECR": (2, 2, lambda _, key: add(key, -1)),
    b"INCRBY": (3, 3, lambda _, key, amount: add(key, number(amount))),
    b"DECRBY": (3, 3, lambda _, key, amount: subtract(key, number(amount))),
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
