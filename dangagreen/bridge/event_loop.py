"""`EventLoop`, asyncio's event loop as a task of ours: what it waits for, it waits for as a task does.

Rules: it runs in a host of its own, for which the caller waits; a cancelled caller cancels what it runs, once, and goes
on when that has ended. What does not belong here: the loop that `await_` makes (home), and who waits for what across
the border (crossing).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import weakref
from _thread import get_ident
from asyncio import _set_running_loop
from collections.abc import Coroutine
from contextvars import Context
from functools import partial
from inspect import isawaitable, iscoroutine
from types import FrameType
from typing import Any, ClassVar, TypeVar

from dangagreen import checks
from dangagreen.bridge.host import Host
from dangagreen.bridge.selector import ParkingSelector
from dangagreen.bridge.sides import AWAIT, HOSTING, Border, Coroutines, home_of_context, neighbours, refuses_to_end
from dangagreen.green.parking import checkpoint, interrupted, park, require_waiter
from dangagreen.green.sched import LoopReset, scheduler
from dangagreen.green.scopes import shield
from dangagreen.green.waiters import Waiter
from dangagreen.loop.deadlock import ENDING
from dangagreen.loop.loop import Loop, current_loop, here
from dangagreen.loop.signal_chain import ChainedHandler, handler_of
from dangagreen.parks import parks

Result = TypeVar("Result")
Handle = TypeVar("Handle", bound=asyncio.Handle)


class Hosting:
    """What an `EventLoop` has beside what is asyncio's.

    In an object of its own: with more than 30 attributes in a dict the interpreter looks up each of them the slow way,
    which takes a tenth of what asyncio takes, and asyncio has 26.
    """

    __slots__ = {
        "border": "The way from our side to the loop's, and back.",
        "cleans_up": "It waits for asyncio's own clean-up, which nothing interrupts.",
        "ends": "A loop that `await_` has made is to end.",
        "in_place": "By signal, what stands in the place of asyncio's handler.",
        "main": "What run_until_complete waits for, or None.",
        "ours": "The loop of ours that it runs on.",
        "parking": "Its selector.",
        "process": "The id of the process that has made it.",
        "signals_woke": "The descriptor that signals woke before this loop had handlers, or -1.",
    }

    def __init__(self, ours: Loop, parking: ParkingSelector, border: Border) -> None:
        self.ours, self.parking, self.border = ours, parking, border
        self.process = os.getpid()
        self.main: asyncio.Future[Any] | None = None
        self.cleans_up = self.ends = False
        self.in_place: dict[int, _InPlace] = {}
        self.signals_woke = -1


class EventLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop that runs on this thread's dangagreen loop, whose other tasks run meanwhile.

    For `asyncio.run(main(), loop_factory=EventLoop)`, or before Python 3.12 `asyncio.Runner(loop_factory=EventLoop)`.
    """

    clean_up_seconds: ClassVar[float] = 5.0  # for coroutines to end, when our loop ends; what is left is reported

    def __init__(self) -> None:
        ours = current_loop()
        self.time = ours.clock  # type: ignore[method-assign]  # read in each pass
        parking = ParkingSelector(ours)
        super().__init__(parking)
        self.hosting = Hosting(ours, parking, Border(ours, self, sys.get_asyncgen_hooks()))
        parking.aio, parking.call_soon, parking.kick_and_call_soon = self, self.call_soon, self._kick_and_call_soon
        home_of_context.set(self)
        _loops.add(self)

    # -- running

    @parks
    def run_forever(self) -> None:
        """Parks until the loop is stopped: it runs in a greenlet of its own, and the caller waits for that."""
        self._check_usable()
        if neighbours(self.hosting.ours).over:
            return self._run_without_waiting()
        caller = require_waiter(self.hosting.ours, "run_forever")
        if self.hosting.cleans_up:
            host = Host(self, caller)
            self._wait_for(host, caller)
        else:
            if caller.interrupt is not None:
                raise interrupted(caller)
            host = Host(self, caller)
            try:
                park(caller, HOSTING, host)
            except BaseException:
                if not host.done:
                    self._end_main()
                    self._wait_for(host, caller)
                raise
        if host.error is not None:
            raise host.error
        return None

    @parks
    def run_until_complete(self, future: Any) -> Any:
        """Parks until the future is done, or the coroutine has ended; returns or raises its result.

        If the caller is cancelled, the coroutine gets CancelledError, once, and the caller goes on when it has ended.
        """
        self._check_usable()
        self.hosting.cleans_up = _is_clean_up(future)
        is_new = not asyncio.isfuture(future)
        if iscoroutine(future) and not self.hosting.cleans_up:
            try:
                checkpoint(self.hosting.ours, "run_until_complete")
            except BaseException:
                future.close()
                raise
        self.hosting.main = main = asyncio.ensure_future(future, loop=self)
        if is_new:
            main._log_destroy_pending = False  # whatever ends this loop tells of it
        try:
            return super().run_until_complete(main)
        except BaseException:
            if is_new and main.done() and not main.cancelled():
                main.exception()  # it is raised by this call, or comes second
            raise
        finally:
            self.hosting.main = None
            self.hosting.cleans_up = False

    def _end_main(self) -> None:
        if self.hosting.main is not None:
            self.hosting.main.cancel()
        else:
            self.stop()
        self.hosting.parking.kick()

    def _wait_for(self, host: Host, caller: Waiter) -> None:
        """Parks until it has ended, be the caller cancelled or not. Ctrl-C ends it where it is."""
        near, interrupt = neighbours(self.hosting.ours), None
        with shield():
            while True:
                try:
                    park(caller, HOSTING, host)
                except LoopReset:
                    raise
                except BaseException as error:
                    interrupt = error
                if host.done:
                    break  # to stop it would stop its next run
                if near.given_up:
                    for task in asyncio.all_tasks(self):
                        refuses_to_end(task)
                if interrupt is not None or near.given_up:
                    self.stop()
                    self.hosting.parking.kick()
        if interrupt is not None:
            raise interrupt

    @parks
    def close(self) -> None:
        """Parks until what tasks of ours still await in it has ended: it is cancelled first."""
        try:
            if not self.is_closed() and not self.is_running():
                while awaited := self._awaited():
                    for future in awaited:
                        future.cancel()
                    with shield():
                        self.run_until_complete(asyncio.wait(awaited))
        finally:
            super().close()

    def _awaited(self) -> list[asyncio.Future[Any]]:
        waiting = (task.subject for task in scheduler(self.hosting.ours).tasks if task.wait is AWAIT)
        return [future for future in waiting if future.get_loop() is self]

    def _run_without_waiting(self) -> None:
        """Raises LoopReset where it would wait: what has not ended by then is given up."""
        try:
            self.run_here(None)
        except LoopReset:
            for task in asyncio.all_tasks(self):
                task._log_destroy_pending = False  # type: ignore[attr-defined]
            raise

    def run_here(self, host: Host | None) -> None:
        """Run in this very greenlet, until the loop is stopped."""
        self.hosting.parking.begin(host)
        hosted = neighbours(self.hosting.ours).borders
        hosted[self] = self.hosting.border
        self.hosting.border.to_asyncio()
        try:
            if self._signal_handlers:  # type: ignore[attr-defined]  # of an earlier run
                fd = self._csock.fileno()  # type: ignore[attr-defined]
                if (before := signal.set_wakeup_fd(fd)) != fd:
                    self.hosting.signals_woke = before
            _set_running_loop(None)  # asyncio's own sets it
            super().run_forever()
        finally:
            _set_running_loop(self)
            self.hosting.border.to_ours()
            self.hosting.parking.host = None
            hosted.pop(self, None)

    def _check_usable(self) -> None:
        """Raise RuntimeError where it cannot run: closed, running already, of another thread or process."""
        self._check_closed()  # type: ignore[attr-defined]
        self._check_running()  # type: ignore[attr-defined]
        if self.hosting.process != os.getpid():
            raise RuntimeError(f"{self!r} was made before the fork, and belongs to the parent: make another one")
        if here.loop is not self.hosting.ours or get_ident() != self.hosting.ours.thread:
            if self.hosting.ours.running or here.loop is not None:
                raise RuntimeError(
                    f"{self!r} runs on the dangagreen loop of the thread in which it was made, and only there"
                )

    # -- what is put on its schedule by others has to wake it

    def _kick_and_call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> asyncio.Handle:
        """The `call_soon` of this loop while it is parked, and so not closed."""
        if self._debug:  # type: ignore[attr-defined]
            handle: asyncio.Handle = self.hosting.parking.call_soon(callback, *args, context=context)
            self.hosting.parking.kick()  # after it: it raises in another thread
            return _without_our_frame(handle)
        handle = self._call_soon(callback, args, context)  # type: ignore[attr-defined]
        self.hosting.parking.kick()
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = super().call_at(when, callback, *args, context=context)
        self.hosting.parking.kick()
        return _without_our_frame(handle) if self._debug else handle  # type: ignore[attr-defined]

    # -- signals

    def add_signal_handler(self, sig: int, callback: Any, *args: Any) -> None:  # type: ignore[override]
        woke, before = -1 if self._signal_handlers else _signals_wake(), handler_of(sig)  # type: ignore[attr-defined]
        super().add_signal_handler(sig, callback, *args)
        if sig in self.hosting.in_place:
            signal.signal(sig, before)
        elif before is not None:
            self.hosting.in_place[sig] = _InPlace()
            self.hosting.in_place[sig].install({sig: before})
            signal.siginterrupt(sig, False)
        if woke != -1:
            self.hosting.signals_woke = woke

    def remove_signal_handler(self, sig: int) -> bool:
        now, handler = signal.getsignal(sig), self.hosting.in_place.pop(sig, None)
        try:
            removed = super().remove_signal_handler(sig)
        finally:
            if handler is not None:
                signal.signal(sig, now)  # asyncio leaves the default
                handler.restore()
        if removed and not self._signal_handlers and self.hosting.signals_woke != -1:  # type: ignore[attr-defined]
            fd, self.hosting.signals_woke = self.hosting.signals_woke, -1
            if self.hosting.ours.running:
                signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
        return removed


class _InPlace(ChainedHandler):
    """Stands in the place of asyncio's handler, which does nothing either: asyncio is told by its descriptor."""

    __slots__ = ()

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        pass


@parks
def run(main: Coroutine[Any, Any, Result], *, debug: bool | None = None) -> Result:
    """Parks until the coroutine has ended, in an asyncio loop of its own: `asyncio.run` on an `EventLoop`."""
    _check_coroutine(main)
    try:
        checkpoint(current_loop(), "bridge.run")
    except BaseException:
        if asyncio.iscoroutine(main):
            main.close()
        raise
    with asyncio.Runner(debug=debug, loop_factory=EventLoop) as runner:
        return runner.run(main)


def _check_coroutine(given: object) -> None:
    """What is awaitable and no coroutine asyncio refuses itself, or takes, since Python 3.14."""
    if not isawaitable(given):
        hint = ": call it" if asyncio.iscoroutinefunction(given) else ""
        raise TypeError(f"bridge.run needs a coroutine, not {checks.shown(given)}{hint}")


def _is_clean_up(awaitable: Any) -> bool:
    """Whether it is part of what asyncio does at the end of a loop: all tasks, cancelled already, or a shutdown."""
    children = getattr(awaitable, "_children", ())  # of gather
    return getattr(awaitable, "cr_code", None) in _CLEAN_UP or (
        bool(children) and all(isinstance(child, asyncio.Task) and child.cancelling() for child in children)
    )


def _without_our_frame(handle: Handle) -> Handle:
    """In asyncio's debug mode a handle tells where it was made."""
    if handle._source_traceback:  # type: ignore[attr-defined]
        del handle._source_traceback[-1]  # type: ignore[attr-defined]
    return handle


def _signals_wake() -> int:
    """The descriptor to which signals are written now."""
    fd = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
    return fd


def _is_of_a_runner(handler: Any) -> bool:
    """Whether a handler of SIGINT is that of asyncio.Runner, which ends the program."""
    return isinstance(handler, partial) and isinstance(getattr(handler.func, "__self__", None), asyncio.Runner)


def _after_fork_in_child() -> None:
    """The parent's loops are its own; who was in the middle of one begins anew, with a loop of ours as well."""
    for loop in list(_loops):
        if not loop.is_closed():
            loop.hosting.parking.forked = True
            loop.hosting.parking.handler.forget()
        near = neighbours(loop.hosting.ours)
        near.home = None
        near.borders.pop(loop, None)
    if here.loop is not None and isinstance(scheduler(here.loop).no_parking, Coroutines):
        here.loop = None


_CLEAN_UP = (
    asyncio.BaseEventLoop.shutdown_asyncgens.__code__,
    asyncio.BaseEventLoop.shutdown_default_executor.__code__,
)
_loops: weakref.WeakSet[EventLoop] = weakref.WeakSet()
os.register_at_fork(after_in_child=_after_fork_in_child)
ENDING.append(_is_of_a_runner)
