"""serve_forever: servers that run until SIGTERM, Ctrl-C or `stop()`, and then shut down gracefully.

Rules: signal handlers are installed in the main thread only, while it waits, and the former ones are put back; a
program that hangs can still be ended. What does not belong here: the graceful shutdown of a listener (draining).
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from dangagreen import checks
from dangagreen.green.parking import checkpoint, park
from dangagreen.green.sched import scheduler
from dangagreen.green.waiters import Waiter, WaitKind, wake
from dangagreen.loop.loop import current_loop
from dangagreen.loop.sigint import Interrupts, Looks, callers, may_strike, piece_at_work
from dangagreen.net.draining import Listener
from dangagreen.parks import parks
from dangagreen.sockets.sock import CallbackSocket
from dangagreen.tracebacks import without_traceback

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_HANGS = 0.25  # seconds for which code of the program may run on after Ctrl-C before KeyboardInterrupt is raised in it


@parks
def serve_forever(*listeners: Listener, grace: float | None = 30.0) -> list[CallbackSocket]:
    """Parks until SIGTERM, Ctrl-C or a listener's `stop()`, then shuts all the listeners down gracefully.

    Returns the connections that were cut off after `grace` seconds (None is no limit). The second signal, or `stop()`,
    ends the grace. The third signal, or the second one of a program that hangs, raises KeyboardInterrupt, SystemExit
    for SIGTERM, wherever the program is. So does a single Ctrl-C in the program's own code, if that runs on for a
    quarter of a second without yielding to the loop. `Loop.stop()`, and a post-loop callback that returns something
    false, begin the shutdown as well. Outside the main thread no signal handlers are installed.

    Raises TypeError without a listener, RuntimeError if one of them, or the main thread, is in another `serve_forever`;
    after the shutdown the error of a listener that could accept no more, or was closed with an exception.
    """
    loop = current_loop()
    me = checkpoint(loop, "serve_forever")
    if grace is not None:
        grace = checks.seconds("the grace of serve_forever", grace)
    if not listeners:
        raise TypeError("serve_forever needs a listener, such as serve(...) returns")
    for listener in listeners:
        if not isinstance(listener, Listener):
            raise TypeError(f"serve_forever needs listeners, such as serve(...) returns, not {listener!r}")
        if listener.loop is not loop:
            raise ValueError(f"{listener!r} belongs to another loop than this thread's")
    with _Forever(me, listeners) as forever:
        if _failure(listeners) is None:
            park(me, _FOREVER, forever)
        for listener in listeners:  # all at the same time
            listener._begin_drain(grace)
        cut_off = [sock for listener in listeners for sock in listener.drain(grace)]
    if (failure := _failure(listeners)) is not None:
        raise without_traceback(failure)
    return cut_off


def _failure(listeners: tuple[Listener, ...]) -> BaseException | None:
    """The error of a listener that can accept no more, if one of them has closed by an exception."""
    reasons = (listener.close_reason for listener in listeners)
    return next((reason for reason in reasons if isinstance(reason, BaseException)), None)


class _Forever:
    """One `serve_forever` that waits: counts signals and calls of `stop()`, and acts upon the first two."""

    __slots__ = {
        "_asked": "How many signals and calls of `stop()` were acted upon.",
        "_before": "Signal to the handler that was installed before.",
        "_listeners": "Its listeners.",
        "_looks": "Calls of the handler by which it watches code that runs on after Ctrl-C.",
        "_piece": "The frame of the program's code that was running when Ctrl-C came, or None.",
        "_signal_pending": "Whether a signal has come that the loop has not acted upon.",
        "_waiter": "The task that waits.",
    }

    def __init__(self, task: Waiter, listeners: tuple[Listener, ...]) -> None:
        self._waiter = task
        self._listeners = listeners
        self._asked = 0
        self._signal_pending = False
        self._looks = Looks()
        self._piece: FrameType | None = None
        self._before: dict[signal.Signals, Any] = {}

    def ask(self) -> None:
        """A signal, or a call of `stop()`: the first wakes the task, later ones end the grace. On the hub only."""
        self._signal_pending = self._looks.wanted = False
        self._looks.trace_no_more()
        self._piece = None
        self._asked += 1
        if self._asked == 1:
            if self._waiter.wait is _FOREVER:  # it may have been cancelled, and wait for something else
                wake(self._waiter)
        else:
            for listener in self._listeners:
                listener._begin_drain(0)

    def listener_failed(self) -> None:
        """A listener can accept no more: wake the task. Unlike a signal it never ends the grace. On the hub only."""
        if self._waiter.wait is _FOREVER:
            wake(self._waiter)

    def end(self) -> None:
        """The loop was stopped, perhaps in each turn: counts as one call of `stop()`. On the hub only."""
        if not self._asked:
            self.ask()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._looks.own:
            self._looks.own = False
            going_on = self._signal_pending and piece_at_work(frame) is self._piece
            if not (going_on and may_strike(frame)):
                self._looks.wanted = self._signal_pending
                if going_on:
                    self._looks.trace(callers(frame), self._on_line)
                return
        if self._signal_pending or self._asked >= 2:
            self._piece = None
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
        self._signal_pending = True
        self._waiter.loop.call_soon_threadsafe(self.ask)
        self._piece = piece_at_work(frame)
        if number == signal.SIGINT and self._piece is not None:
            self._looks.begin(_HANGS)

    def _on_line(self, _frame: FrameType) -> None:
        """Called at the next line of the program's code that runs on: raise KeyboardInterrupt there."""
        self._looks.trace_no_more()
        if self._signal_pending:
            raise KeyboardInterrupt

    def __enter__(self) -> _Forever:
        heard = {}
        if threading.current_thread() is threading.main_thread():
            heard = {number: signal.getsignal(number) for number in _SIGNALS}
        if any(listener._on_stop is not None for listener in self._listeners) or any(
            isinstance(getattr(before, "__self__", None), _Forever) for before in heard.values()
        ):
            raise RuntimeError("another serve_forever has these listeners, or the signals: give all of them to one")
        for listener in self._listeners:
            listener._tell(self.ask, self.listener_failed)
        scheduler(self._waiter.loop).forevers.append(self)
        for number, before in heard.items():
            if before is not None and before is not signal.SIG_IGN:  # ignored by the parent's wish, as under nohup
                self._before[number] = before
                signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_error: object) -> None:
        self._signal_pending = False
        self._piece = None
        self._looks.end()
        self._looks.trace_no_more()
        scheduler(self._waiter.loop).forevers.remove(self)
        for listener in self._listeners:
            listener._tell(None, None)
        for number, before in self._before.items():
            owner = getattr(before, "__self__", None)
            if isinstance(owner, Interrupts) and not owner.installed:  # its run has ended meanwhile
                before = signal.default_int_handler
            if signal.getsignal(number) == self._on_signal:
                signal.signal(number, before)

    def __repr__(self) -> str:
        return ", ".join(map(repr, self._listeners))


_FOREVER = WaitKind("serve_forever", lambda forever, task: None, "{0} of {1}")
