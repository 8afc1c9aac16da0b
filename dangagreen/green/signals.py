"""Signals: callbacks that the loop makes, and an iteration in which a task waits for the next one.

Rules: main thread only; the handler that Python calls, between two instructions of whatever runs, notes the signal and
wakes the loop, no more; what was installed before is put back. What does not belong here: Ctrl-C as an exception
(loop/sigint), and what a signal does to a server (serve_forever).
"""

from __future__ import annotations

import signal
import threading
import weakref
from _thread import get_ident
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import partial
from types import FrameType
from typing import Any, Self

from dangagreen import checks
from dangagreen.errors import BusyError, ErrorContext
from dangagreen.green.parking import checkpoint, park
from dangagreen.green.sched import scheduler
from dangagreen.green.waiters import Waiter, WaitKind, wake
from dangagreen.loop.loop import Loop, current_loop
from dangagreen.loop.schedule import OrderedCall
from dangagreen.loop.signal_chain import ChainedHandler, handler_of
from dangagreen.parks import parks


class SignalHandle:
    """A callback of `on_signal`. `cancel()` ends it; `active` is whether it is called still."""

    __slots__ = {
        "_callback": "The callback.",
        "_context": "The context (contextvars) that it runs in.",
        "_of": "What calls it; None once it was cancelled.",
    }

    def __init__(self, of: _LoopSignal, callback: Callable[[int], object]) -> None:
        self._of: _LoopSignal | None = of
        self._callback = callback
        self._context: Context = copy_context()

    @property
    def active(self) -> bool:
        """Whether the callback is called when the signal comes."""
        return self._of is not None

    def cancel(self) -> None:
        """Call it no more. The last one of a signal puts back what was installed. A second call does nothing."""
        of, self._of = self._of, None
        if of is not None:
            of.loop.check_thread("SignalHandle.cancel")
            of.remove(self)

    def call(self, signum: int) -> None:
        """Make the call, unless it was cancelled meanwhile. Only the loop does this."""
        if self._of is not None:
            loop = self._of.loop
            try:
                checks.outcome("the callback of a signal", self._context.run(self._callback, signum))
            except Exception as error:
                words = f"a callback of {_name(signum)} raised: {self._callback!r}"
                self._context.run(loop.report, ErrorContext(words, error))

    def __repr__(self) -> str:
        of = self._of
        return f"<SignalHandle of {_name(of.number)}: {self._callback!r}>" if of else "<SignalHandle, cancelled>"


class _LoopSignal(ChainedHandler):
    """The handler of one signal for one loop, in place while there is a callback."""

    __slots__ = {
        "_is_queued": "Whether the calls are queued already: signals may coalesce.",
        "handles": "The callbacks, in order.",
        "loop": "The loop that calls them.",
        "number": "The signal.",
    }

    shares = True

    def __init__(self, loop: Loop, number: int) -> None:
        ChainedHandler.__init__(self)
        self.loop, self.number = loop, number
        self.handles: dict[SignalHandle, None] = {}
        self._is_queued = False
        self.install({number: _replaceable(number)})

    def handle(self, number: int, frame: FrameType | None) -> None:
        if not self._is_queued:
            self._is_queued = True
            self.loop._queue_from_outside(OrderedCall(self._call_all))
        self.pass_on(number, frame)

    def _call_all(self) -> None:
        self._is_queued = False
        for handle in list(self.handles):
            handle.call(self.number)

    def remove(self, handle: SignalHandle) -> None:
        """Call this one no more; after the last one, put back what was installed before."""
        self.handles.pop(handle, None)
        if not self.handles:
            _of_loop(self.loop).by_number.pop(self.number, None)
            self.restore()


class _LoopSignals:
    """The signals of one loop: `Scheduler.signals`."""

    __slots__ = {"by_number": "Signal to its handler."}

    def __init__(self, closers: list[Callable[[], object]]) -> None:
        self.by_number: dict[int, _LoopSignal] = {}
        closers.append(self.close)

    def handler_of(self, loop: Loop, number: int) -> _LoopSignal:
        """The handler of a signal, installed if it is not. Raises what `signal.signal` raises."""
        if number not in self.by_number:
            self.by_number[number] = _LoopSignal(loop, number)
        return self.by_number[number]

    def close(self) -> None:
        """Cancel all: the loop ends, or `run` does, or this is a forked child."""
        for of in list(self.by_number.values()):
            for handle in list(of.handles):
                handle.cancel()


def _of_loop(loop: Loop) -> _LoopSignals:
    """The signals of a loop, made at first use."""
    sched = scheduler(loop)
    if sched.signals is None:
        sched.signals = _LoopSignals(sched.closers)
    found: _LoopSignals = sched.signals
    return found


def on_signal(signum: int, callback: Callable[[int], object]) -> SignalHandle:
    """Have the loop call `callback(signum)` whenever the signal has come. Never parks.

    Several callbacks of one signal are all called, in order; signals that come in quick succession may be one call. It
    runs in a copy of this context. `cancel()` of the handle ends it, as do the end of `run`, and the loop's: then
    what was installed before is put back. Raises RuntimeError outside the main thread, and where C code has installed a
    handler; ValueError or OSError for what is no signal, or can have no handler (SIGKILL).
    """
    loop = current_loop()
    signum = checks.count("the signal of on_signal", signum)
    checks.function("on_signal", callback)
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("on_signal was called outside the main thread, which alone hears of signals")
    loop.check_thread("on_signal")
    of = _of_loop(loop).handler_of(loop, signum)
    handle = SignalHandle(of, callback)
    of.handles[handle] = None
    return handle


class signals:  # noqa: N801  # an iteration, named for what it yields, as `range` is
    """`for signum in signals(SIGHUP, SIGTERM):` waits for the next of these signals, in each step.

    They count from the call of `signals` on; each that has come meanwhile is yielded once. What was installed before is
    put back at the end of the `for` loop, of a `with` block, by `close()`, and as with `on_signal`, which says what is
    raised; the iteration ends then. BusyError if two tasks are in a step.
    """

    __slots__ = {
        "__weakref__": "Weak references to it work.",
        "_came": "The signals that have come and were not yielded, in order.",
        "_handles": "Its callbacks.",
        "_loop": "The loop.",
        "_signums": "The signals.",
        "_waiter": "The task that is parked in a step, or None.",
    }

    def __init__(self, *signums: int) -> None:
        self._loop = current_loop()
        self._signums = signums
        self._came: dict[int, None] = {}
        self._waiter: Waiter | None = None
        self._handles: list[SignalHandle] = []
        if not signums:
            raise TypeError("signals needs a signal")
        try:
            for signum in signums:  # by a weak reference, so that the end of the `for` loop ends them
                self._handles.append(on_signal(signum, partial(_note, weakref.ref(self))))
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Self:
        return self

    @parks
    def __next__(self) -> int:
        """Parks until one of the signals has come, and returns its number."""
        task = checkpoint(self._loop, "signals")
        if not self._came and any(handle.active for handle in self._handles):
            if self._waiter is not None:
                raise BusyError(f"{task.name!r} cannot wait for {self!r}: {self._waiter.name!r} does already")
            self._waiter = task
            park(task, _SIGNALS, self)
        if not self._came:
            raise StopIteration
        signum = next(iter(self._came))
        del self._came[signum]
        return signum

    def close(self) -> None:
        """End the iteration, and put back what was installed before. Never parks."""
        for handle in self._handles:
            handle.cancel()
        if self._waiter is not None:
            wake(self._waiter)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __del__(self) -> None:
        if get_ident() == self._loop.thread:  # of a closed loop nothing is installed any more
            self.close()

    def __repr__(self) -> str:
        return ", ".join(_name(number) for number in self._signums)


def _note(reference: weakref.ref[signals], signum: int) -> None:
    """A signal of an iteration has come."""
    iteration = reference()
    if iteration is not None:
        iteration._came[signum] = None
        if iteration._waiter is not None:
            wake(iteration._waiter)


def _replaceable(number: int) -> Any:
    """The handler that is installed, which can be put back. Raises RuntimeError if it is none of Python's."""
    handler = handler_of(number)
    if handler is None:
        raise RuntimeError(f"the handler of {_name(number)} was installed by C code, and could not be put back")
    return handler


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no names
        return f"signal {number}"


def _forget_waiter(iteration: signals, _task: Waiter) -> None:
    """Undo what a step has arranged."""
    iteration._waiter = None


_SIGNALS = WaitKind("signals", _forget_waiter, "{0} of {1!r}", by_thread=True)
