"""The statistics of ddlockd, by a clock of their own."""

from __future__ import annotations

import pytest

from ddlockd import counters
from ddlockd.counters import Counters


def test_a_clock_that_is_put_back_harms_no_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counters()
    counted.count(True)
    monkeypatch.setattr(counters.time, "time", lambda: 0.0)
    counted.count(True)
    assert counted.status() == b"STATUS: OK\nSUCCESSES: 2\nFAILURES: 0\nRUNTIME: 0\nLOAD: 2\n\n"


def test_load_counts_five_minutes_in_steps_of_three_seconds() -> None:
    now = 3_000_000
    counted = Counters(lambda: now)
    for _ in range(300):
        counted.count(True)
        counted.count(False)
        now += 3
    assert counted.load() == 198  # the step that has just begun is one of the hundred
    assert len(counted.buckets) <= 200
    now += 297
    assert counted.load() == 0
    assert counted.status() == b"STATUS: OK\nSUCCESSES: 300\nFAILURES: 300\nRUNTIME: 1197\nLOAD: 0\n\n"
