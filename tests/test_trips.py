"""How far it is from one end of the library to the other, as `tests/trips.py` counts it: it does not grow."""

from __future__ import annotations

import pytest

import dangagreen
from tests.trips import WAYS, measure

MOST = {  # calls, files, changes of file
    "line": (1, 3, 2),
    "write": (19, 7, 14),
    "timeout": (20, 8, 18),
    "accept": (17, 10, 19),  # what is hot of a task is compiled, what lies beneath its code is not: two modules
    "close": (14, 11, 16),
}


pytestmark = pytest.mark.skipif(dangagreen.compiled, reason="no profiler sees the calls of what is compiled")


@pytest.mark.parametrize("way", WAYS)
def test_no_way_is_longer_than_it_was(way):
    trip = measure(WAYS[way])
    assert all(one <= most for one, most in zip(trip[:3], MOST[way], strict=True)), trip


def test_what_is_counted_is_the_same_each_time():
    assert measure(WAYS["write"]) == measure(WAYS["write"])


def test_the_way_of_a_line_is_known():
    assert measure(WAYS["line"]).steps == ("loop.turn._dispatch",)
