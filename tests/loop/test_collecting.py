"""Whether the garbage collector is at work, in this thread. What may not wait then: green/test_foreign_greenlets."""

from __future__ import annotations

import gc
import threading

import pytest

from dangagreen.loop.collecting import is_collecting, watch_collections
from tests.helpers import Dying


@pytest.fixture
def watched():
    """What `watch_collections` tells of the test's own collections."""
    told = []
    watch_collections(told.append)
    yield told
    gc.callbacks.pop()


def test_code_that_the_collector_calls_is_in_a_collection_and_other_code_is_not(watched):
    seen = []
    Dying(lambda: seen.append(is_collecting()))
    assert not is_collecting()
    gc.collect()
    assert seen == [True]
    assert not is_collecting()


def test_the_code_of_another_thread_is_not(watched):
    seen = []

    def last_words():
        thread = threading.Thread(target=lambda: seen.append(is_collecting()))
        thread.start()
        thread.join()

    Dying(last_words)
    gc.collect()
    assert seen == [False]


def test_the_beginning_is_told_before_what_dies_and_the_end_after_it(watched):
    Dying(lambda: watched.append("dies"))
    gc.collect()
    at = watched.index("dies")
    assert watched[at - 1 : at + 2] == [True, "dies", False]
