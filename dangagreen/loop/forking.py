"""A loop in a forked child, which has none of its parent's threads, and shares its descriptors.

Rules: a child has a poller of its own, and the parent notices nothing; forked while the loop runs, the code that has
forked goes on there alone; the parent's frames are not left twice. What is dropped then is what a reset drops as well.
What does not belong here: how the child ends by itself (green/forking).
"""

from __future__ import annotations

import contextlib
import os
import sys
from _thread import get_ident
from collections.abc import Callable
from typing import Any, Protocol

from dangagreen.loop.pollers import Poller
from dangagreen.loop.turn import Turning
from dangagreen.loop.wakeup import WakeupPair


class ThreadCalling(Protocol):
    """A call for which another thread waits."""

    def fail(self, why: str) -> None: ...  # it is not made, or not to its end


class Forking(Turning):
    """What a loop drops, in a forked child and by a reset: base class of `Loop`."""

    __slots__ = {
        "_ends_child": "In a child forked while this ran, which ends with it: its exit status. None elsewhere.",
        "_thread_calls": "Calls from other threads that were not answered: objects with a method `fail`.",
    }

    def __init__(self, clock: Callable[[], float], poller: Poller) -> None:
        super().__init__(clock, poller)
        self._thread_calls: dict[ThreadCalling, None] = {}
        self._ends_child: Callable[[], int] | None = None

    # -- what is dropped

    def _expect(self, call: ThreadCalling) -> None:
        """A thread is about to wait for this call."""
        self._thread_calls[call] = None

    def _no_longer_expect(self, call: ThreadCalling) -> None:
        self._thread_calls.pop(call, None)

    def _fail_thread_calls(self, why: str) -> None:
        """Answer the threads that wait for calls: the loop does not come to these."""
        for call in list(self._thread_calls):
            call.fail(why)

    def _drop_pending(self) -> None:
        """Forget what is queued for this turn and the next one."""
        for pending in (
            self.ready,
            self.runnable,
            self.pending_reads,
            self.to_flush,
            self.interest_changed,
            self.object_callbacks,
            self.batch,
        ):
            pending.clear()

    # -- a forked child

    def _after_fork(self) -> None:
        """In the child: make a poller of its own. The parent's, which the two may share, is not touched.

        While the loop runs, the code that has forked goes on alone, and nothing is watched. Otherwise all is watched
        that the parent watches: servers that listen first and fork then go on so.
        """
        if self.running and self.thread != get_ident():
            return self._lose_thread()
        with contextlib.suppress(OSError):
            self.poller.close()  # first: a kqueue is not inherited, and a new one may get the number of the old
        self.poller = type(self.poller)()
        self.thread = get_ident()
        self._thread_calls.clear()
        inherited = [handler for handler in self.handlers.values() if handler is not self.wakeup_pair]
        if self.wakeup_pair is not None:
            self.handlers.pop(self.wakeup_pair.fd)
            self.wakeup_pair._close_fd()
        if self.running:
            for handler in inherited:
                handler._leave_to_parent()
                handler._forget_registration()
            self._go_on_alone()
        if self.wakeup_pair is not None:
            self.wakeup_pair = WakeupPair(self)
            if self.running:
                self.wakeup_pair.wake_at_signals()
                return None
        for handler in inherited:
            try:
                handler._register_again(self.poller)
            except Exception as error:
                self.handler_failed(handler, error)
        if self.look_ups is not None:
            self.look_ups.after_fork()
        return None

    def _go_on_alone(self) -> None:
        """Forget what the parent has to do: its descriptors, timers, calls and tasks."""
        self.handlers.clear()
        self.other_fds({})
        self.timers.clear()
        self.onlookers.clear()
        self._drop_pending()
        self.post_loop_callback = self.look_ups = None
        self._ends_child = int
        self.object_callbacks[self] = self._end_if_idle

    def _go_on_after_run(self) -> None:
        """In a forked child: what has called `run` is to go on there as well."""
        self._ends_child = None
        del self.object_callbacks[self]

    def _end_child_with(self, status: Callable[[], int]) -> None:
        """In a forked child: what to call for its exit status."""
        self._ends_child = status

    def _end_if_idle(self) -> bool:
        """In a forked child, at the end of each turn: end the process when nothing is left to do."""
        left = self.handlers.keys() - ({self.wakeup_pair.fd} if self.wakeup_pair is not None else ())
        if not (left or self.timers or self.ready or self.runnable or (self.green and self.green.has_waiters())):
            self._end_child(None, None, None)
        return True

    def _end_child(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        """In a forked child: end the process where the loop is left. The frames further out are the parent's.

        Their `finally` blocks, and functions of `atexit`, would clean up what is in use there.
        """
        if self._ends_child is not None:
            status = self._ends_child()
            if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
                status = error.code or 0
            elif error is not None:
                status = 1
                sys.excepthook(kind, error, traceback)
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):
                    stream.flush()
            os._exit(status & 0xFF)

    def _lose_thread(self) -> None:
        """In a child that does not have the thread in which this loop was running: nobody can use it any more."""
        _lost.append(self)  # greenlets of a thread that is gone can never be freed
        with contextlib.suppress(OSError):
            self.poller.close()
        if self.wakeup_pair is not None:
            self.wakeup_pair._close_fd()
        self._close_schedule()


_lost: list[Forking] = []  # in a forked child: loops of threads that it does not have
