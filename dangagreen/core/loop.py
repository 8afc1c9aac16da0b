"""The event loop: wait, dispatch, due timers, ready calls, pushed-back reads, flush, real closes, post-loop callbacks.

Rules: a turn does a bounded amount; only the loop calls `event_*`; a callback that raises costs its own socket and
nothing else; KeyboardInterrupt and SystemExit leave `run()`. The loop knows its handlers by the `Handler` protocol
alone. What does not belong here: sockets, buffers, greenlets.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import weakref
from _thread import get_ident
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import Context, copy_context
from itertools import islice
from typing import Any

from dangagreen.core.errors import Deadlock, ErrorContext
from dangagreen.core.handlers import UNTOLD, Green, Handler
from dangagreen.core.interrupts import Interrupts
from dangagreen.core.outside import who_might_wake
from dangagreen.core.pollers import READ, Poller, available_pollers
from dangagreen.core.profiling import Profile
from dangagreen.core.registry import Registry, log

_AT_ONCE = 64  # calls, tasks, timers, deliveries of pushed-back input in one turn: more would keep the others waiting
_EVENTS = 16  # that are dispatched before the timers are looked at again
_KEPT = 4 * 1024 * 1024  # bytes: blocks up to this size are taken from, and stay in, the process's own memory
_LONGEST_WAIT = 86400.0  # seconds: epoll and poll take no more than 24 days; to wake for nothing does no harm


class Loop(Registry):
    """An event loop. One per thread is made at first use (`current_loop()`); tests make their own.

    `clock` answers seconds and never goes back; `poller` is one of `available_pollers()` or has the same methods.
    `on_error` may be replaced by a callable that takes an `ErrorContext`. A loop belongs to the thread that made it
    or that last ran it: what changes registrations, queues or the schedule raises ForeignThreadError elsewhere.
    """

    __slots__ = (
        "__weakref__", "_outer", "_stop", "_warned", "closed", "current", "deadlock_seconds",
        "green", "loop_timeout", "measurements", "now", "post_loop_callback", "profile", "unflushed", "unsettled",
    )  # fmt: skip

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, poller: Poller | None = None) -> None:
        super().__init__(clock, poller if poller is not None else available_pollers()[0]())
        # Until a larger block has been freed, glibc asks the kernel for each one above 128 KiB and gives it back, with
        # page faults for all that is written to it. After this, to receive with n = 256 KiB takes 7 us in place of 20.
        bytes(_KEPT)
        self.now = clock()
        self.unflushed: list[Handler] = []
        self.unsettled: list[Handler] = []
        self._outer: Loop | None = None
        self.current: Any = None  # the task that runs now; None while the loop itself does
        self.green: Green | None = None
        self._stop = self.closed = False
        self.loop_timeout: float | None = None
        self.deadlock_seconds: float | None = 5.0
        self._warned = False
        self.post_loop_callback: Callable[..., object] | None = None
        self.measurements = Profile()
        self.profile: Profile | None = None  # the same while profiling is on
        _loops.add(self)

    # -- running

    def run(self, until: Callable[[], bool] | None = None) -> None:
        """Turn until `stop()` is called, a post-loop callback answers false, or `until()` is true after a turn.

        Meanwhile this is the thread's current loop. In the main thread Ctrl-C raises KeyboardInterrupt at the end of
        the turn, unless the program handles SIGINT itself. Raises Deadlock when nothing can happen any more; where
        somebody outside, a thread or a signal, might still wake it, logs one warning after `deadlock_seconds` instead
        (None: looks for neither).
        """
        if self.running:
            raise RuntimeError("this loop is running already: callbacks and tasks need not, and cannot, start it")
        if self.closed:
            raise RuntimeError("this loop was closed: make another one")
        outer = present_loop()
        self._stop = self._warned = False
        interrupts = Interrupts(self.stop)
        with contextlib.ExitStack() as undo:
            undo.callback(self._close_all)
            undo.callback(set_current_loop, outer)
            undo.callback(setattr, self, "running", False)
            undo.callback(interrupts.restore)
            self.thread = get_ident()
            self.running = True
            _local.loop = self
            if self._foreign_ends is None:
                self._listen_for_threads()
            if (woke_before := self._hear_signals()) is not None:
                undo.callback(signal.set_wakeup_fd, woke_before)
            if self.green is not None:
                self.green.adopt()
            while self._turn() and (until is None or not until()):
                pass
        if interrupts.pending:
            raise KeyboardInterrupt

    def stop(self) -> None:
        """End `run()` at the end of this turn."""
        self._stop = True

    def _turn(self) -> bool:
        self._batch = self.poller.wait(self._patience())
        self.now = self.clock()
        if self._batch:
            self._dispatch(self._batch) if len(self._batch) <= _EVENTS else self._dispatch_many()
        if self.timers:
            self._run_timers()
        if self._ready:
            self._run_queued(self._ready, min(len(self._ready), _AT_ONCE))
        if self._runnable:  # also those that tasks start or wake, without asking the kernel in between
            self._run_queued(self._runnable, _AT_ONCE)
        if self.pushed:
            self._run_pushed()
        if self.unflushed:
            self._run_unflushed()
        if self.unsettled:
            self._settle_all()
        if self.to_close:
            self._close_all()
        if self.post_loop_callback is not None or self.object_callbacks:
            self._run_post_loop_callbacks()
        return not self._stop

    def _patience(self) -> float | None:
        """How long this turn may wait for events, in seconds; None is for ever."""
        if (
            self._ready
            or self._runnable
            or self.pushed
            or self.unflushed
            or self.unsettled
            or self.to_close
            or self._stop
        ):
            return 0
        deadline = self.timers.next_deadline()
        patience = None if deadline is None else min(max(0.0, deadline - self.clock()), _LONGEST_WAIT)
        if self.loop_timeout is None or (patience is not None and patience < self.loop_timeout):
            if patience is None and len(self.handlers) <= 1:  # but for the pair of sockets that wakes us
                self._stalled()
            return patience
        return self.loop_timeout

    def _stalled(self) -> None:
        """The next wait has no limit, and no descriptor can end it. A deadlock, unless somebody outside wakes us."""
        if self.deadlock_seconds is None:
            return
        if any(who_might_wake()) and (self._warned or self.poller.wait(self.deadlock_seconds)):
            return  # what has come, the poller will tell again
        table = self.green.table() if self.green is not None else ""
        if outside := ", ".join(who_might_wake()):
            self._warned = bool(table)
            if table:
                log.warning("nobody can run, and only %s might wake the loop:\n%s", outside, table)
        elif not self.poller.wait(0):  # somebody may have woken us, and gone, while we looked
            raise Deadlock("nobody can run, and nothing can wake the loop", table)

    def _dispatch_many(self) -> None:
        """The same for a large batch, with the timers that come due meanwhile."""
        events = iter(self._batch)  # of this very list: `forget` strikes events out of it
        for _ in range(0, len(self._batch), _EVENTS):
            self._dispatch(islice(events, _EVENTS))
            self.now = self.clock()
            if self.timers:
                self._run_timers()

    def _dispatch(self, events: Iterable[tuple[int, int]]) -> None:
        handlers, profile = self.handlers, self.profile
        for fd, mask in events:
            handler = handlers.get(fd)
            if handler is None:
                self._stray(fd)
                continue
            try:
                if mask == READ and profile is None:
                    reader = handler._reader
                    if reader is not None:
                        reader()
                        continue
                    if handler._watch_read:
                        handler._context.run(handler.event_read)
                        continue
                handler._context.run(handler._events, mask)
            except Exception as error:
                self.failed(handler, error)

    def _run_timers(self) -> None:
        mark = self.timers.mark()
        for _ in range(_AT_ONCE):
            if (timer := self.timers.pop_due(self.now, mark)) is None:
                return
            what, context = timer.callback, timer.context
            try:
                timer.fire()
            except Exception as error:
                self._report_in(context, f"a timer's callback raised: {what!r}", error)

    def _run_queued(self, calls: deque[Callable[[], object]], most: int) -> None:
        for _ in range(most):
            if not calls:
                return
            call = calls.popleft()
            try:
                call()
            except Exception as error:
                made_in = getattr(getattr(call, "func", None), "__self__", None)
                self._report_in(made_in, f"a call_soon callback raised: {call!r}", error)

    def _report_in(self, context: object, message: str, error: Exception) -> None:
        """Report in the context of what has failed, if it had one, so that a log line tells whose it was."""
        context = context if isinstance(context, Context) else copy_context()
        context.run(self.report, ErrorContext(message, error))

    def _run_pushed(self) -> None:
        for handler in list(islice(self.pushed, _AT_ONCE)):
            just_now = self.pushed.pop(handler, False)
            try:
                if not handler.closed and handler._context.run(handler._pushed_back, just_now):
                    self.pushed.setdefault(handler, False)
            except Exception as error:
                self.failed(handler, error)
            except BaseException:
                self.pushed[handler] = just_now
                raise

    def _run_unflushed(self) -> None:
        due, self.unflushed = self.unflushed, []
        while due:
            handler = due.pop()
            if handler._queue is None:  # it was sent when the task parked, or dropped
                continue
            try:
                handler._context.run(handler._flush)
            except Exception as error:
                self.failed(handler, error)
            except BaseException:
                self.unflushed += [handler, *due]
                raise

    def _settle_all(self) -> None:
        while self.unsettled:
            handler = self.unsettled.pop()
            try:
                handler._settle()
            except Exception as error:
                self.failed(handler, error)

    def _run_post_loop_callbacks(self) -> None:
        for owner in [*self.object_callbacks, None]:
            callback = self.post_loop_callback if owner is None else self.object_callbacks.get(owner)
            if callback is None:  # there is none, or an earlier one has closed the object
                continue
            try:
                go_on = callback(self.descriptor_map(), self.other_fds())
            except Exception as error:
                self.report(ErrorContext(f"a post-loop callback raised: {callback!r}", error))
                continue
            if not go_on:
                self._stop = True

    def set_loop_timeout(self, milliseconds: float) -> None:
        """The longest that a turn may wait for events: -1 is no limit, 0 does not wait."""
        self.loop_timeout = None if milliseconds < 0 else milliseconds / 1000

    # -- the end, fork

    def reset(self) -> None:
        """Forget everything: close all sockets, end all tasks, cancel all timers. Not while the loop is running."""
        if self.running:
            raise RuntimeError("reset() of a running loop: stop() it first")
        self._abandon_all()
        if self.green is not None:
            self.green.reset()
            self._abandon_all()  # what tasks made while they ended
        self.timers.clear()
        for pending in (
            self._ready,
            self._runnable,
            self.pushed,
            self.unflushed,
            self.unsettled,
            self.object_callbacks,
            self._batch,
        ):
            pending.clear()
        self.loop_timeout = self.post_loop_callback = self.profile = None
        self.measurements = Profile()

    def close(self) -> None:
        """`reset()`, and let go of the poller. The loop cannot run again."""
        if self.closed:
            return
        self.reset()
        ends, self._foreign_ends = self._foreign_ends, None
        if ends is not None:
            ends.close()
        self.poller.close()
        self.closed = True
        _loops.discard(self)
        if present_loop() is self:
            del _local.loop

    def __enter__(self) -> Loop:
        """Make this the thread's current loop for a block, at whose end it is closed."""
        self._outer = present_loop()
        _local.loop = self
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
        set_current_loop(self._outer)

    def _after_fork(self) -> None:
        """In the child: a poller of its own, told everything anew; the parent's keeps its registrations."""
        with contextlib.suppress(OSError):
            self.poller.close()  # first: a kqueue is not inherited, and a new one may get the number of the old
        self.poller = type(self.poller)()
        self.thread = get_ident()
        if self._foreign_ends is not None:
            self.handlers.pop(self._foreign_ends.fd)
            self._foreign_ends._really_close()
            self._listen_for_threads()
            if self.running:
                self._hear_signals()
        for fd, handler in self.handlers.items():
            if handler._told != UNTOLD and handler is not self._foreign_ends:
                self.poller.add(fd, handler._told)


_local = threading.local()
_loops: weakref.WeakSet[Loop] = weakref.WeakSet()


def current_loop() -> Loop:
    """This thread's loop, made at first use."""
    try:
        loop: Loop = _local.loop
    except AttributeError:
        loop = _local.loop = Loop()
    return loop


def present_loop() -> Loop | None:
    """This thread's loop, if it has one."""
    return getattr(_local, "loop", None)


def set_current_loop(loop: Loop | None) -> None:
    """Make `loop` this thread's loop, or with None have a new one made at next use."""
    if loop is None:
        _local.__dict__.pop("loop", None)
    else:
        _local.loop = loop


def _after_fork_in_child() -> None:
    for loop in list(_loops):
        loop._after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
