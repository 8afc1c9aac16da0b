"""The time limit of a test: it ends the test where it waits, and says what the loop was doing."""

from __future__ import annotations

import re
import signal
import time
import traceback

import pytest

import dangagreen as d
from dangagreen.loop.deadlock import WATCHING_THREADS
from dangagreen.testing import virtual_loop
from dangagreen.testing.time_limit import TimeLimit, TimeLimitError
from dangagreen.testing.trial import Trial

LONG = 20


class TooLong(BaseException):
    pass


@pytest.fixture(params=[d.Loop, virtual_loop], ids=["real", "virtual"])
def trial(request):
    with Trial(request.param) as trial:
        trial.judged = True
        yield trial


def limited(trial, function, seconds=0.3, in_task=True):
    """The TimeLimit, and what came out of it."""
    limit = TimeLimit(seconds, lambda: trial, TooLong)
    try:
        with limit:
            trial.run("", function, in_task=in_task)
    except (TooLong, TimeLimitError, KeyboardInterrupt) as error:
        return limit, error
    finally:
        assert not WATCHING_THREADS
    return limit, None


def ever():
    while True:
        d.sleep(0.001)


def test_what_ends_in_time_is_not_touched(trial):
    limit, error = limited(trial, lambda: d.sleep(0.01), seconds=LONG)
    assert error is None
    assert limit.dump is None


@pytest.mark.parametrize("in_task", [True, False], ids=["task", "top-level code"])
def test_a_test_that_waits_gets_the_error_at_its_wait(trial, in_task):
    limit, error = limited(trial, ever, in_task=in_task)
    assert isinstance(error, TooLong)
    assert str(error) == "the test took longer than 0.3 s"
    assert limit.dump.startswith("loop of thread 'MainThread': running")
    if in_task:
        assert re.search(r"test_time_limit.py:\d+ ever", limit.dump)
    assert [step.name for step in traceback.extract_tb(error.__traceback__)].count("ever") == 1


def test_a_test_that_takes_no_notice_fails_all_the_same(trial):
    def function():
        try:
            ever()
        except TooLong:
            pass

    _, error = limited(trial, function)
    assert isinstance(error, TimeLimitError)


def test_a_test_that_blocks_the_loop_is_interrupted_and_the_stack_is_told():
    def block():
        time.sleep(LONG)

    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    began = time.monotonic()
    with Trial(d.Loop) as trial:
        trial.judged = True
        limit, error = limited(trial, block)
        assert isinstance(error, TimeLimitError)
        assert "in block\n    time.sleep(LONG)" in limit.dump
    assert time.monotonic() - began < LONG


def test_ctrl_c_is_no_time_limit(trial):
    limit, error = limited(trial, lambda: signal.raise_signal(signal.SIGINT), seconds=LONG)
    assert isinstance(error, KeyboardInterrupt)
    assert limit.dump is None


def test_it_can_be_lifted(trial):
    limit = TimeLimit(0.01, lambda: trial, TooLong)
    with limit:
        limit.lift()
        WATCHING_THREADS[-1].join(LONG)
    assert limit.dump is None
