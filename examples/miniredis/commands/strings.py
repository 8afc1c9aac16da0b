"""The commands about strings: values, parts of them, and numbers."""

from __future__ import annotations

from functools import partial

from miniredis.keys import MOST, due, keys
from miniredis.portions import Work, batches
from miniredis.protocol import LONGEST_BULK, MANY, SYNTAX, Command, Refusal, Reply, number

LARGE = 64 * 1024  # bytes: from here on what is appended grows in place
UNITS = {b"EX": (1000, False), b"PX": (1, False), b"EXAT": (1000, True), b"PXAT": (1, True)}  # and is it a date?


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
    deadline = None if unit is None else due(amount, *UNITS[unit], b"set")
    before = keys.get(key)
    if (b"NX" if before is not None else b"XX") in flags:
        return before if b"GET" in flags else None
    keys.put(key, value, keep_time=b"KEEPTTL" in flags)
    if deadline is not None:
        keys.expire(key, deadline)
    return before if b"GET" in flags else "OK"


def set_for(unit: bytes, command: bytes, _client: object, key: bytes, amount: bytes, value: bytes) -> Reply:
    deadline = due(amount, *UNITS[unit], command)
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


def get_and_remove(_client: object, key: bytes) -> Reply:
    value = keys.get(key)
    keys.remove(key)
    return value


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


COMMANDS: dict[bytes, Command] = {
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
}
