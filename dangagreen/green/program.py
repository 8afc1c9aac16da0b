"""The whole program: run.

Rules: what main leaves behind is ended in order: listeners, tasks, sockets; the signal handler is put back. What does
not belong here: anything that a program could want to do otherwise.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, TypeVar, cast

from dangagreen.core.descriptor import Descriptor
from dangagreen.core.listener import Listener
from dangagreen.core.loop import Loop, current_loop
from dangagreen.green.sched import scheduler, wake
from dangagreen.green.tasks import Task

Result = TypeVar("Result")


def run(main: Callable[..., Result], /, *args: Any) -> Result:
    """Run `main(*args)` in a task, with a loop; return its result or raise its exception.

    When it has ended, listeners are closed, the remaining tasks cancelled and waited for, and sockets closed. In the
    main thread Ctrl-C raises KeyboardInterrupt in `main`, at its wait; a second one, meanwhile, raises it at once.
    """
    loop = current_loop()
    if loop.running:
        raise RuntimeError(
            "run() was called while this thread's loop is running: call the function itself, or spawn it"
        )
    task = Task(loop, main, args, {}, copy_context())
    task.owned = True
    loop._ready.append((task.start, ()))
    signals = _Interrupts(task)
    try:
        while not task.done:
            loop.run(lambda: task.done)
    finally:
        try:
            _wind_up(loop)
        finally:
            signals.restore()
    if signals.pending or isinstance(
        task.interrupt, KeyboardInterrupt
    ):  # it came when main had its last wait behind it
        raise KeyboardInterrupt
    if task._error is not None:
        task.result()
    return task._result  # type: ignore[no-any-return]


def _wind_up(loop: Loop) -> None:
    """What is left when main has ended: close listeners, end tasks, close sockets."""
    for handler in list(loop.handlers.values()):
        if isinstance(handler, Listener):
            handler.close("run() ended")
    while rest := cast("list[Task]", list(scheduler(loop).tasks)):
        for task in rest:
            task.cancel("run() ended")
        loop.run(lambda: all(task.done for task in rest))
    for handler in list(loop.handlers.values()):
        if isinstance(handler, Descriptor):
            handler.close("run() ended")


class _Interrupts:
    """Has SIGINT raise KeyboardInterrupt in a task, in the main thread and where nobody else handles it."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.pending = False
        self.installed = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if self.installed:
            signal.signal(signal.SIGINT, self._on_signal)

    def restore(self) -> None:
        if self.installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _on_signal(self, _number: int, _frame: object) -> None:
        if self.pending or self.task.done:
            raise KeyboardInterrupt
        self.pending = True
        self.task.loop.call_soon_threadsafe(self._interrupt)

    def _interrupt(self) -> None:
        if not self.task.done:
            self.pending = False
            if not wake(self.task, KeyboardInterrupt()):
                self.task.interrupt = KeyboardInterrupt()
