"""A loop in a background thread, for programs that have a main loop of their own: start_in_thread.

Rules: the thread keeps no program from ending: at exit its loop is stopped, which ends its tasks. What does not belong
here: calls into a loop that runs already (from_thread).
"""

from __future__ import annotations

import atexit
import contextlib
import threading
import weakref
from _thread import get_ident
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Self, TypeVar

from dangagreen.green.from_thread import from_thread
from dangagreen.green.parking import checkpoint, park
from dangagreen.green.run import run
from dangagreen.green.waiters import Waiter, WaitKind, wake
from dangagreen.loop.error_log import log
from dangagreen.loop.loop import Loop, current_loop

Result = TypeVar("Result")

_EXIT_SECONDS = 5.0  # how long the end of the program waits for the tasks of such a loop


class LoopThread:
    """A loop that runs in a thread of its own, until `stop()` or the end of a `with` block."""

    __slots__ = {
        "__weakref__": "Weak references to it work.",
        "_background": "The thread.",
        "_waiter": "The task that waits until it is to stop.",
        "loop": "The loop.",
    }

    _waiter: Waiter
    loop: Loop

    def __init__(self) -> None:
        begun: SimpleQueue[BaseException | None] = SimpleQueue()
        self._background = threading.Thread(target=self._run, args=(begun,), name="dangagreen loop", daemon=True)
        self._background.start()
        if (error := begun.get()) is not None:
            try:
                raise error
            finally:
                del error  # its traceback refers to this frame: a cycle

    def _run(self, begun: SimpleQueue[BaseException | None]) -> None:
        try:
            run(self._main, begun)
        except BaseException as error:
            if hasattr(self, "loop"):
                raise
            begun.put(error)

    def _main(self, begun: SimpleQueue[BaseException | None]) -> None:
        self._waiter = checkpoint(current_loop(), "start_in_thread")
        self.loop = self._waiter.loop
        begun.put(None)
        park(self._waiter, _RUNS, self)

    def call(self, function: Callable[..., Result], /, *args: Any) -> Result:
        """Call `function(*args)` in a task of the loop, and block until it has ended: see `from_thread`."""
        return from_thread(function, *args, loop=self.loop)

    def stop(self) -> None:
        """End it as the end of `run` does, cancelling its tasks, and block until it has ended.

        A second call does nothing. In a task or a callback of the loop itself it does not wait.
        """
        with contextlib.suppress(RuntimeError):  # the loop was closed
            self.loop.call_soon_threadsafe(self._stop)
        if get_ident() != self._background.ident:
            self._background.join()

    def _stop(self) -> None:
        wake(self._waiter)

    def stop_at_exit(self) -> None:
        """The program ends: stop it, and say so if its tasks take too long."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._stop)
        self._background.join(_EXIT_SECONDS)
        if self._background.is_alive():
            log().warning("the program ends, and tasks of %r did not end within %s s", self, _EXIT_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        """Stop it: `stop()`."""
        self.stop()

    def __repr__(self) -> str:
        return f"<LoopThread, {'running' if self._background.is_alive() else 'stopped'}>"


def start_in_thread() -> LoopThread:
    """Run a new loop in a thread of its own. Returns when it runs: a handle with `loop`, `call(f, *args)`, `stop()`.

    What is to be made there, servers too, is made by `call`. At the end of the program it is stopped. Raises OSError if
    there is no descriptor for the loop, RuntimeError if no thread can be started.
    """
    handle = LoopThread()
    _handles.add(handle)
    return handle


def _at_exit() -> None:
    for handle in list(_handles):
        handle.stop_at_exit()


_handles: weakref.WeakSet[LoopThread] = weakref.WeakSet()
_RUNS = WaitKind("start_in_thread", lambda _handle, _task: None, "{0}", by_thread=True)
atexit.register(_at_exit)
