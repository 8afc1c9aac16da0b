"""The statistics of ddlockd: how often a lock was asked for, and how often it was had."""

from __future__ import annotations

import time
from collections.abc import Callable


class Counters:
    """What `status` and `load` tell, by a clock that nobody sets."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.started = clock()
        self.successes = self.failures = 0
        self.buckets: dict[int, int] = {}  # trylocks in each 3 seconds

    def count(self, taken: bool) -> None:
        if taken:
            self.successes += 1
        else:
            self.failures += 1
        now = int(self.clock()) // 3
        self.buckets[now] = self.buckets.get(now, 0) + 1
        if len(self.buckets) > 200:
            self.buckets = {then: self.buckets[then] for then in range(now - 99, now + 1) if then in self.buckets}

    def load(self) -> int:
        now = int(self.clock()) // 3
        return sum(self.buckets.get(then, 0) for then in range(now - 99, now + 1))

    def status(self) -> bytes:
        told = (self.successes, self.failures, self.clock() - self.started, self.load())
        return b"STATUS: OK\nSUCCESSES: %d\nFAILURES: %d\nRUNTIME: %d\nLOAD: %d\n\n" % told
