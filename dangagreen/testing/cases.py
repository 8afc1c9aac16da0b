"""unittest: a TestCase whose tests run as tasks.

Rules: `setUp`, the test, `tearDown` and the cleanups run in one task; what is left behind is judged after the last
cleanup, unless the test has failed already. What does not belong here: how a test is run and judged (trial).
"""

from __future__ import annotations

import functools
import inspect
import unittest
from collections.abc import Callable
from typing import Any

from dangagreen.loop.loop import Loop
from dangagreen.testing.trial import Trial

_FAILURES = {"addError", "addFailure", "addSkip", "addSubTest"}


class TestCase(unittest.TestCase):
    """A `unittest.TestCase` whose tests run as tasks, each on a fresh loop, `loop`, with `setUp` and `tearDown`.

    A test that leaves a task, a timer, a socket, another descriptor or an unhandled error behind fails. Override
    `make_loop` for a virtual clock or a random order.
    """

    loop: Loop

    def make_loop(self) -> Loop:
        """The loop of one test: on the real clock."""
        return Loop()

    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult:
        """Run the test in a task, and note in `result` how it ended. Returns the result."""
        if result is None:
            result = self.defaultTestResult()
        noting: Any = _Noting(result)
        self._as_task(functools.partial(super().run, noting), lambda: noting.failed)
        return result

    def debug(self) -> None:
        """Run the test in a task, and raise what it raises."""
        self._as_task(super().debug, lambda: False)

    def _as_task(self, run: Callable[[], object], has_failed: Callable[[], bool]) -> None:
        name = self._testMethodName
        if inspect.iscoroutinefunction(getattr(self, name)):
            setattr(self, name, functools.partial(_refuse, name))
        with Trial(self.make_loop) as trial:
            self.loop = trial.loop
            self.addCleanup(_judge, trial, has_failed)  # the last one
            trial.run(name, run)


class _Noting:
    """A test result that notes whether a failure, an error or a skip was added."""

    def __init__(self, result: unittest.TestResult) -> None:
        self.failed = False
        self._result = result

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._result, name)
        return functools.partial(self._told, found) if name in _FAILURES else found

    def _told(self, add: Callable[..., object], *args: Any) -> object:
        self.failed = self.failed or args[-1] is not None  # `addSubTest` is told None for a success
        return add(*args)


def _judge(trial: Trial, has_failed: Callable[[], bool]) -> None:
    if has_failed():
        trial.judged = True
    else:
        trial.judge()


def _refuse(name: str) -> None:
    raise TypeError(f"{name} is an async def, and a test of this TestCase is a plain function")
