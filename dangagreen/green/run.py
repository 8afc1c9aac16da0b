"""The program: run, and the end of programs without it.

Rules: what main leaves is ended in order: listeners, tasks, sockets; the handler of SIGINT is put back. What does not
belong here: graceful shutdown (draining), and policy that a program could want to differ.
"""

from __future__ import annotations

import atexit
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, cast

from dangagreen.errors import TaskCancelledError
from dangagreen.frames import CALLER
from dangagreen.green.sched import scheduler
from dangagreen.green.tasks import Params, Result, Task, check_function, make_task
from dangagreen.green.waiters import end_forevers, wake
from dangagreen.loop.error_log import log
from dangagreen.loop.handlers import FdHandler
from dangagreen.loop.loop import Loop, current_loop, here
from dangagreen.loop.sigint import Interrupts
from dangagreen.sockets.acceptor import Acceptor
from dangagreen.sockets.descriptor import Descriptor

_CLEAN_UP_SECONDS = 5.0  # for which tasks may clean up before the log tells which of them are not done
_STOPPED = "the loop was stopped"


def run(main: Callable[Params, Result], /, *args: Params.args, **kwargs: Params.kwargs) -> Result:
    """Run `main(*args, **kwargs)` in a task on this thread's loop. Returns its result or raises its exception.

    When main has ended, listeners are closed, the remaining tasks cancelled and waited for, and sockets closed. In the
    main thread Ctrl-C raises KeyboardInterrupt: at once in the program's own code, in main, a task or a callback;
    otherwise in main, at its wait; a second one before that wherever the program is. When main has ended Ctrl-C ends
    the wait for the other tasks, even if they swallow it. When the loop is stopped, by
    `stop()` or a post-loop callback, `serve_forever` shuts down gracefully as at SIGTERM; any other main gets Cancelled
    where it waits, and None is returned. Raises RuntimeError if the loop is running.
    """
    named = check_function("run", main)
    loop = current_loop()
    if loop.running:
        raise RuntimeError(
            "run() was called while this thread's loop is running: call the function itself, or spawn it"
        )
    task = make_task(loop, main, args, kwargs, named, sys._getframe(CALLER))
    task.error_retrieved = True
    sched = scheduler(loop)
    sched.main, sched.given_up = task, False
    loop.runnable.append(task.start)

    def interrupt() -> None:
        if signals.pending and not task.done:
            signals.acted_upon()
            if not wake(task, KeyboardInterrupt()):
                task.interrupt = KeyboardInterrupt()

    def notify() -> None:
        if task.done:
            _give_up(loop)
        else:
            loop.call_soon_threadsafe(interrupt)

    def raised() -> None:
        if task.done:
            _give_up(loop)

    signals = Interrupts(notify, raised)
    try:
        while not task.done:
            loop.run(lambda: task.done)
            if not task.done and not end_forevers(loop):
                task.cancel(_STOPPED)
    finally:
        try:
            _wind_up(loop, "run() ended")
        finally:
            sched.main = None
            signals.restore()
    if signals.pending or isinstance(task.interrupt, KeyboardInterrupt):  # it came after the last wait of main
        raise KeyboardInterrupt
    try:
        return task.result()
    except TaskCancelledError as error:
        if error.reason is not _STOPPED:
            raise
    return None  # type: ignore[return-value]


def _give_up(loop: Loop) -> None:
    """Ctrl-C has come while tasks are ended: wait for them no longer. They may swallow what is raised in their code."""
    scheduler(loop).given_up = True
    loop.call_soon_threadsafe(bool)  # wake it


def _wind_up(loop: Loop, reason: str) -> None:
    """End what main has left: close listeners, end tasks, close sockets."""
    close_listeners(loop, reason)
    struck = loop.take_struck()
    if (
        struck is not None
        and struck is not loop.wakeup_pair
        and (isinstance(struck, FdHandler) or struck._is_watched())
    ):
        loop.call(struck, partial(struck.close, reason))  # it may raise in each turn again, before any task runs
    try:
        _end_tasks_and_closers(loop, reason)
    finally:
        loop._fail_thread_calls(reason)
        close_descriptors(loop, reason)


def close_listeners(loop: Loop, reason: str) -> None:
    """Close all listeners of a loop."""
    for handler in list(loop.handlers.values()):
        if isinstance(handler, Acceptor):
            handler.close(reason)


def close_descriptors(loop: Loop, reason: str) -> None:
    """Close all listeners and sockets of a loop."""
    for handler in list(loop.handlers.values()):
        if isinstance(handler, Descriptor):
            loop.call(handler, partial(handler.close, reason))


def _end_tasks_and_closers(loop: Loop, reason: str) -> None:
    sched = scheduler(loop)
    try:
        with nullcontext() if sched.bridge is None else sched.bridge.limit_clean_up(loop):
            _end_tasks(loop, reason)
    finally:
        end_closers(loop)


def end_closers(loop: Loop) -> None:
    """All tasks of a loop have ended: end what they used."""
    for close in list(scheduler(loop).closers):
        close()


def _end_tasks(loop: Loop, reason: str) -> None:
    """Cancel all tasks and run the loop until they have ended; a SystemExit of one is raised after that.

    Raises KeyboardInterrupt after Ctrl-C, though they may not have ended.
    """
    kept: SystemExit | None = None
    sched = scheduler(loop)
    with _telling_who_is_late(loop, reason) if sched.tasks else nullcontext():
        while rest := cast("list[Task[Any]]", list(sched.tasks)):
            for task in rest:
                task.cancel(reason)
            try:
                loop.run(lambda: sched.given_up or all(task.done for task in rest))
            except SystemExit as error:
                kept = kept or error
                if not any(task.done for task in rest):  # raised by a callback, which may raise it in each turn
                    close_descriptors(loop, reason)
            if sched.given_up:
                raise KeyboardInterrupt
    if kept is not None:
        try:
            raise kept
        finally:
            del kept  # its traceback refers to this frame: a cycle


@contextmanager
def _telling_who_is_late(loop: Loop, reason: str) -> Iterator[None]:
    """If the block takes long, have the log tell which tasks it waits for: nothing else would say why nothing ends."""

    def tell() -> None:
        loop.onlookers.discard(timer)
        log().warning("%s, and waits for tasks that it has cancelled:\n%s", reason, scheduler(loop).table(most=50))

    timer = loop.timers.add(loop.clock() + _CLEAN_UP_SECONDS, tell)
    loop.onlookers.add(timer)  # it ends no wait
    try:
        yield
    finally:
        loop.onlookers.discard(timer)
        timer.cancel()


def _at_exit() -> None:
    """At the end of a script without `run`: end its tasks, so that their `finally` blocks run.

    Not those that Ctrl-C has ended the wait for already.
    """
    loop = here.loop
    if loop is not None:
        loop.error_log.tell_left_out()
    if loop is not None and not loop.running and loop.green is not None:
        sched = scheduler(loop)
        if not sched.given_up and (sched.tasks or sched.closers):
            signals = Interrupts(partial(_give_up, loop), partial(_give_up, loop))
            try:
                _wind_up(loop, "the program ended")
            finally:
                signals.restore()


atexit.register(_at_exit)
