"""A test on a loop of its own: in a task, and judged when it has ended.

Rules: what is there before a test's function begins is not its leak, and what is there after it is, also if a fixture
would close it; a failure is told first, what the test has left is told beside it. What does not belong here: pytest and
unittest, which make trials.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from contextvars import copy_context
from typing import Any, Self, TypeVar

from dangagreen.errors import Deadlock, ErrorContext
from dangagreen.frames import is_ours
from dangagreen.green.tasks import Task
from dangagreen.green.waiters import end_forevers, wake
from dangagreen.loop.loop import Loop
from dangagreen.places import innermost
from dangagreen.testing.leaks import LeakCheck

Result = TypeVar("Result")

_STALLS = 3  # times that a test hears of a deadlock, where it waits: it may wait again while it cleans up


class LeftBehindError(AssertionError):
    """A test that did not fail has left something behind."""


class Trial:
    """A fresh loop, which is this thread's current one in a `with` block, and what is tested on it.

    `left` and `errors` are what a function that failed has left behind, and the tracebacks of what nobody handled.
    """

    def __init__(self, make_loop: Callable[[], Loop]) -> None:
        self.make_loop = make_loop
        self.loop = make_loop()
        self.loop.slow_seconds = None  # another process may hold up a test
        self.task: Task[Any] | None = None  # the test, once it runs in one
        self.left: list[str] = []
        self.errors: list[str] = []
        self.at_end: list[Callable[[], object]] = []  # called before the last judgement
        self.thrown: list[BaseException] = []  # errors that were raised where the test waits
        self.elsewhere: list[Callable[[], list[ErrorContext]]] = []  # errors of other loops, since they were last asked
        self.end_limit: AbstractContextManager[object] = nullcontext()  # around the end of the loop
        self._checks: list[LeakCheck] = []
        self.judged = False  # something was found, or looked for; what follows from it need not be told

    def __enter__(self) -> Self:
        self.loop.__enter__()
        self._checks.append(LeakCheck(self.loop))
        return self

    @property
    def unhandled(self) -> list[ErrorContext]:
        """What has reached `loop.on_error`, and will fail the test unless it is taken out."""
        return self._checks[-1].errors

    def __exit__(self, kind: object, *_error: object) -> None:
        """End the loop. Raises LeftBehindError for what was left by what has run in the block beside functions."""
        (check,) = self._checks
        leaks: list[str] = []
        with self.end_limit:
            try:
                for end in self.at_end:
                    end()
                if kind is None and not self.judged:
                    leaks = check.leaks()
            finally:
                check.finish()
                self.loop.__exit__()
        if leaks:
            raise LeftBehindError(_message(leaks, check.errors))

    @contextmanager
    def exempt(self) -> Iterator[None]:
        """What is opened in this block is no leak."""
        with ExitStack() as checks:
            for check in self._checks:
                checks.enter_context(check.exempt())
            yield

    def run(self, name: str, function: Callable[[], Result], *, in_task: bool = True) -> Result:
        """Call the function, in a task of this name or right here. Returns or raises what it does.

        Raises LeftBehindError if it leaves anything behind.
        """
        __tracebackhide__ = True
        check = LeakCheck(self.loop)
        self._checks.append(check)
        try:
            result = self._in_task(name, function) if in_task else function()
            check.end_closers()
            leaks = [] if self.judged else self._leaks(check)
        except BaseException as error:
            if error in self.thrown:
                _cut(error)
            self.judged = True
            if not isinstance(error, KeyboardInterrupt):
                self._note(check)
            raise
        finally:
            self._checks.remove(check)
            check.finish()
        if leaks:
            self.judged = True
            raise LeftBehindError(_message(leaks, check.errors))
        return result

    def judge(self) -> None:
        """Judge now, in the test's task, and not after it. Raises LeftBehindError."""
        self.judged = True
        if leaks := self._leaks(self._checks[-1]):
            raise LeftBehindError(_message(leaks, self._checks[-1].errors))

    def _leaks(self, check: LeakCheck) -> list[str]:
        for take_errors in self.elsewhere:
            check.errors += take_errors()
        return check.leaks()

    def _note(self, check: LeakCheck) -> None:
        with suppress(Exception):  # the failure is what counts
            self.left += self._leaks(check)
        self.errors += map(traceback_of, check.errors)

    def _in_task(self, name: str, function: Callable[[], Result]) -> Result:
        __tracebackhide__ = True
        raised: list[BaseException] = []

        def main() -> Result | None:
            __tracebackhide__ = True
            try:
                return function()
            except BaseException as error:  # also what pytest raises to skip, and Hypothesis to try another example
                raised.append(error)
                return None

        code = getattr(innermost(function), "__code__", None)
        origin = None if code is None else (code, 0)  # its spawn, here, tells a reader nothing
        task: Task[Any] = Task(self.loop, main, copy_context(), name, origin)
        self.task = task
        task.error_retrieved = True
        self.loop.runnable.append(task.start)
        try:
            self._run_until_done(task)
        finally:
            self.task = None
        if raised:
            raise raised.pop()
        return task.result()  # type: ignore[no-any-return]

    def _run_until_done(self, task: Task[Any]) -> None:
        loop, stalls = self.loop, 0
        while not task.done:
            try:
                loop.run(lambda: task.done)
            except Deadlock as stall:
                stalls += 1
                self.thrown.append(stall.with_traceback(None))
                if stalls > _STALLS or not wake(task, stall):
                    raise
            else:
                if not task.done and not end_forevers(loop):
                    raise RuntimeError("the loop was stopped before the test had ended")


def _cut(error: BaseException) -> None:
    """Let the traceback of an error end where the program waits, without what is ours in that wait."""
    step = last = error.__traceback__
    while step is not None:
        if not is_ours(step.tb_frame):
            last = step
        step = step.tb_next
    if last is not None:
        last.tb_next = None


def traceback_of(context: ErrorContext) -> str:
    """An error that nobody has handled, as text with its traceback."""
    return f"{context.message}\n{''.join(traceback.format_exception(context.exception))}"


def _message(leaks: list[str], errors: list[ErrorContext]) -> str:
    """What was left behind, a line for each, and then the tracebacks."""
    lines = "\n".join(f"  {leak}" for leak in leaks)
    return "\n\n".join([f"left behind:\n{lines}", *map(traceback_of, errors)])
