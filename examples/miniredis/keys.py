"""The keys and their values, when they expire, and who watches them.

Keys are spread over buckets, so that whoever looks at all of them does so a bucket at a time: between two of them
others have their turn, and SCAN's cursor is the number of a bucket. A time to live is in milliseconds of the loop's
clock, which nobody sets; a timer of the loop removes a key whose time is up.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Protocol

from dangagreen import Timer, current_loop
from miniredis.portions import Work
from miniredis.protocol import Refusal, number

BUCKETS = 4096
FAR_AWAY = 10 * 365 * 86_400_000  # milliseconds: nobody will be there to see it expire
MOST = 2**63 - 1  # of a number, and of milliseconds


class Watcher(Protocol):
    """Who watches keys: it is told that one has changed."""

    changed: bool


def now() -> int:
    return int(current_loop().time() * 1000)


def wall_clock() -> int:
    return time.time_ns() // 1_000_000


def due(amount: bytes, size: int, is_date: bool, command: bytes, least: int = 1) -> int:
    """So many times `size` milliseconds from now, or that date, in milliseconds of the loop's clock. Raises Refusal for
    what is no number, less than `least`, or beyond all numbers."""
    milliseconds = number(amount) * size
    if not least <= milliseconds <= MOST - (0 if is_date else wall_clock()):
        raise Refusal(b"ERR invalid expire time in '%b' command" % command)
    return now() + milliseconds - (wall_clock() if is_date else 0)


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
