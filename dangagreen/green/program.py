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
    restore = _interrupt_by_signal(task)
    try:
        while not task.done:
            loop.run(lambda: task.done)
    finally:
        try:
            _wind_up(loop)
        finally:
            restore()
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


def _interrupt_by_signal(task: Task) -> Callable[[], object]:
    """Have SIGINT raise KeyboardInterrupt in the task. Answers what puts the old handler back."""
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return lambda: None
    pending = False

    def interrupt() -> None:
        nonlocal pending
        pending = False
        if not task.done and not wake(task, KeyboardInterrupt()):
            task.interrupt = KeyboardInterrupt()

    def on_sigint(_number: int, _frame: object) -> None:
        nonlocal pending
        if pending or task.done:
            raise KeyboardInterrupt
        pending = True
        task.loop.call_soon_threadsafe(interrupt)

    signal.signal(signal.SIGINT, on_sigint)
    return lambda: signal.signal(signal.SIGINT, signal.default_int_handler)
