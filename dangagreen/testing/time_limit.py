"""A limit of real time for a test: what its loop is doing then is noted, and the test is failed where it waits.

Rules: first the loop is asked to do that, in its own thread; if it does not answer, since code blocks it, the stack of
that code is noted, and a SIGINT ends it, as Ctrl-C does. The thread that watches wakes nobody, and is no reason to hope
in a deadlock. Where not even that ends it, since a task swallows it, the process ends, with words. What does not belong
here: what a test is.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Self

from dangagreen.green.sched import scheduler
from dangagreen.green.stacks import frames
from dangagreen.green.waiters import Waiter, wake
from dangagreen.loop.deadlock import WATCHING_THREADS
from dangagreen.loop.loop import Loop
from dangagreen.testing.leaks import spawned
from dangagreen.testing.trial import Trial

_GRACE = 1.0  # seconds that the test is given to end, after each attempt to end it
_ATTEMPTS = 3
_LAST_GRACE = 5.0  # seconds that are given after all attempts, before the process is ended
WIDER = 10  # times as long may take what is done for several tests


class TimeLimitError(AssertionError):
    """A test, or what its fixtures do, has taken longer than its time limit."""


class TimeLimit:
    """A block that is to end within so many seconds; `dump` is what its loop was doing when they were over, or None.

    `trial` returns the trial of the moment, if there is one; an exception of class `thrown` is raised where its test
    waits. A block that ends by it, by the KeyboardInterrupt of `interrupt`, or all the same by itself, raises
    TimeLimitError. If nothing of that ends it, `tell` is called with words, and the process is ended. `what` is to end.
    Without `interrupts` no SIGINT is sent: pytest would forget the fixtures that are left to be torn down.
    """

    def __init__(
        self,
        seconds: float,
        trial: Callable[[], Trial | None],
        thrown: Callable[[str], BaseException],
        tell: Callable[[str], object] = print,
        *,
        what: str = "the test",
        interrupts: bool = True,
    ) -> None:
        self.dump: str | None = None
        self._seconds = seconds
        self._trial = trial
        self._thrown = thrown
        self._tell_last = tell
        self._what = what
        self._over = threading.Event()
        self._from = time.monotonic()
        self._wider: list[str] = []  # what is done in the `extended` blocks that are open
        self._words = ""  # what has taken too long
        self._lock = threading.Lock()
        self._interrupted = False
        self._tested = threading.current_thread()
        self._attempts = _ATTEMPTS if interrupts and self._tested is threading.main_thread() else 0
        self._watcher = threading.Thread(target=self._watch, name="dangagreen, time limit of a test", daemon=True)

    def __enter__(self) -> Self:
        WATCHING_THREADS.append(self._watcher)
        self._watcher.start()
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        try:
            self.lift()
            self._watcher.join()
            WATCHING_THREADS.remove(self._watcher)
        except KeyboardInterrupt:  # ours, and late
            if not self._interrupted:
                raise
        if self.dump is not None and (error is None or isinstance(error, KeyboardInterrupt)):
            raise TimeLimitError(self._words) from None

    def lift(self) -> None:
        """There is no limit any more."""
        with self._lock:
            self._over.set()

    @contextlib.contextmanager
    def extended(self, what: str) -> Iterator[None]:
        """A block that may take ten times as long: the time begins anew with it, and after it."""
        self._from = time.monotonic()
        self._wider.append(what)
        try:
            yield
        finally:
            self._from = time.monotonic()
            self._wider.pop()

    # -- in the thread that watches

    def _watch(self) -> None:
        while (left := self._from + self._allowed() - time.monotonic()) > 0:
            if self._over.wait(min(left, self._seconds)):  # it may be extended meanwhile, and that may end
                return
        self._words = f"{self._wider[-1] if self._wider else self._what} took longer than {self._allowed():g} s"
        if (trial := self._trial()) is not None:
            with contextlib.suppress(RuntimeError):  # the loop was closed
                trial.loop.call_soon_threadsafe(self._tell)
        attempts = self._attempts
        while attempts and not self._over.wait(_GRACE):
            attempts -= 1
            self._interrupt()
        if not self._over.wait(_LAST_GRACE):
            trial = self._trial()
            loop = None if trial is None else trial.loop
            _end_process(loop, self._tested, f"{self._words}, and nothing ends it", self._tell_last)

    def _allowed(self) -> float:
        return self._seconds * (WIDER if self._wider else 1)

    def _interrupt(self) -> None:
        if self.dump is None:
            frame = sys._current_frames().get(self._tested.ident or 0)
            self.dump = f"the loop does not answer, it is in\n{''.join(traceback.format_stack(frame))}"
        with self._lock:
            if not self._over.is_set():
                self._interrupted = True
                signal.pthread_kill(self._tested.ident or 0, signal.SIGINT)

    # -- in the thread of the loop

    def _tell(self) -> None:
        if self._over.is_set() or (trial := self._trial()) is None:
            return
        from dangagreen.introspect import snapshot  # not before: from its import on it takes notes, which cost
        from dangagreen.introspect.text import MOST, as_text

        self.dump = as_text(snapshot(trial.loop, MOST))
        trial.thrown.append(self._thrown(self._words))
        self._throw(trial, trial.thrown[-1])

    def _throw(self, trial: Trial, error: BaseException) -> None:
        """Raise the error where the test waits; if it is about to go on, where it waits next."""
        waiter = trial.task or scheduler(trial.loop).top_level
        if not self._over.is_set() and (waiter is None or not wake(waiter, error)):
            trial.loop.call_soon(self._throw, trial, error)


class EndLimit:
    """A block that ends what is on a loop, or `what`: if it takes so many seconds, `tell` gets words, and the process
    is ended.

    Nothing else would end a task that swallows all errors: it would never leave the thread again.
    """

    def __init__(
        self, seconds: float, loop: Loop | None, tell: Callable[[str], object], what: str = "the end of a test's loop"
    ) -> None:
        self._seconds = seconds + _LAST_GRACE
        self._loop = loop
        self._tell = tell
        self._what = what
        self._over = threading.Event()
        self._tested = threading.current_thread()
        self._watcher = threading.Thread(target=self._watch, name="dangagreen, time limit of an end", daemon=True)

    def __enter__(self) -> Self:
        WATCHING_THREADS.append(self._watcher)
        self._watcher.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.lift()
        self._watcher.join()
        WATCHING_THREADS.remove(self._watcher)

    def lift(self) -> None:
        """There is no limit any more."""
        self._over.set()

    def _watch(self) -> None:
        if not self._over.wait(self._seconds):
            words = f"{self._what} takes longer than {self._seconds:g} s"
            _end_process(self._loop, self._tested, words, self._tell)


def _tasks_of(loop: Loop) -> list[Waiter]:
    return list(scheduler(loop).tasks) if loop.green is not None else []


def _end_process(loop: Loop | None, thread: threading.Thread, words: str, tell: Callable[[str], object]) -> None:
    """Tell what a thread, and a loop there, does that does not end, and end the process. In another thread."""
    task = None
    if loop is not None:
        task = loop.current or next((task for task in _tasks_of(loop) if task.wait is not None and task.wait.due), None)
    frame = None if task is None else next(frames(task), None)  # where it yields just now
    stack = "".join(traceback.format_stack(frame or sys._current_frames().get(thread.ident or 0)))
    culprit = "" if task is None else f", while {task!r}{spawned(task)} runs, which may swallow what ends it"
    try:
        tell(f"{words}{culprit}; the process of the tests ends here. It is in\n{stack}")
    finally:
        os._exit(1)
