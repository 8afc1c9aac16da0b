"""The TestCase for unittest: its tests are tasks, and are judged after the last cleanup."""

from __future__ import annotations

import asyncio
import re
import unittest

import pytest

import dangagreen as d
from dangagreen import bridge
from dangagreen.testing import TestCase, virtual_loop, wire

NOTED = []


class Case(TestCase):
    """Run by the tests below, and not by pytest."""

    __test__ = False

    def setUp(self):
        d.sleep(0)
        self.task = d.current_task()
        NOTED.append(self.loop)

    def tearDown(self):
        d.sleep(0)
        assert d.current_task() is self.task

    def task_of_its_name(self):
        assert self.task is d.current_task()
        assert self.task.name == "task_of_its_name"
        assert d.current_loop() is self.loop

    def fails_and_leaks(self):
        d.spawn(d.sleep, 100)
        raise AssertionError("this is the main thing")

    def leaks(self):
        d.spawn(d.sleep, 100)

    def unhandled(self):
        d.spawn(lambda: 1 / 0)

    def cleaned_up(self):
        task = d.spawn(d.sleep, 100)
        self.addCleanup(task.join)
        self.addCleanup(task.cancel)

    def skips(self):
        d.spawn(d.sleep, 100)
        self.skipTest("because")

    async def coroutine(self):
        pass

    def waits_for_asyncio(self):
        assert bridge.await_(asyncio.sleep(0, 1)) == 1

    def subtests(self):
        for n in range(3):
            with self.subTest(n=n):
                assert n != 1


class VirtualCase(TestCase):
    __test__ = False

    def make_loop(self):
        loop = virtual_loop()
        loop.poller.patience = 0
        return loop

    def an_hour(self):
        d.sleep(3600)

    def stalls(self):
        with d.Socket(wire()[0]) as sock:
            sock.read_line()


def outcome(name, case=Case):
    """("passed", "failure", "error" or "skipped", the text)."""
    result = unittest.TestResult()
    case(name).run(result)
    assert result.testsRun == 1
    for kind in ("failures", "errors", "skipped"):
        if listed := getattr(result, kind):
            ((_, words),) = listed
            return kind, words
    return "passed", ""


@pytest.mark.parametrize("name", ["task_of_its_name", "cleaned_up", "waits_for_asyncio"])
def test_a_test_with_its_set_up_and_its_tear_down_is_a_task_on_a_fresh_loop(name):
    NOTED.clear()
    assert outcome(name) == ("passed", "")
    (loop,) = NOTED
    assert loop.closed


def test_a_failure_is_told_and_not_what_is_left_because_of_it():
    kind, words = outcome("fails_and_leaks")
    assert kind == "failures"
    assert "this is the main thing" in words
    assert "left behind" not in words


def test_what_is_left_behind_is_a_failure_that_names_it():
    kind, words = outcome("leaks")
    assert kind == "failures"
    assert re.search(r"left behind:\n  task: <Task sleep, parked in sleep .*test_cases.py:\d+", words)


def test_an_unhandled_error_is_a_failure_with_its_traceback():
    kind, words = outcome("unhandled")
    assert kind == "failures"
    assert "unhandled error: task 'Case.unhandled.<locals>.<lambda>'" in words
    assert "ZeroDivisionError: division by zero" in words


def test_a_skipped_test_is_skipped():
    assert outcome("skips") == ("skipped", "because")


def test_an_async_def_is_refused_in_words():
    kind, words = outcome("coroutine")
    assert kind == "errors"
    assert "coroutine is an async def" in words


def test_subtests_fail_one_by_one():
    assert outcome("subtests")[0] == "failures"


def test_the_loop_is_what_make_loop_makes():
    assert outcome("an_hour", VirtualCase) == ("passed", "")
    kind, words = outcome("stalls", VirtualCase)
    assert kind == "errors"
    assert "StalledError" in words
    assert "in stalls" in words


def test_debug_raises_what_the_test_raises():
    with pytest.raises(AssertionError, match="the main thing"):
        Case("fails_and_leaks").debug()
    with pytest.raises(AssertionError, match="left behind"):
        Case("leaks").debug()
    Case("task_of_its_name").debug()


def test_pytest_runs_them_too(tried):
    result = tried("""
from dangagreen.testing import TestCase

class TestIt(TestCase):
    def setUp(self):
        sleep(0)

    def test_it(self):
        self.assertEqual(d.current_task().name, "test_it")

    def test_leak(self):
        spawn(sleep, 100)

    @pytest.mark.dangagreen
    def test_marked(self):
        self.assertEqual(d.current_task().name, "test_marked")
""")
    result.assert_outcomes(passed=2, failed=1)
    assert "left behind:" in result.stdout.str()
