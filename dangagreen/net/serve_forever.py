"""Servers that run until they are told to end: serve_forever, SIGTERM and Ctrl-C.

Rules: signal handlers are installed in the main thread only, for as long as it waits, and what was there is put back;
a program that hangs can still be ended. What does not belong here: what a listener does to end (that is draining).
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from dangagreen import checks
from dangagreen.green.parking import checkpoint, park
from dangagreen.green.sched import Waiter, WaitKind, scheduler, wake
from dangagreen.loop.loop import current_loop
from dangagreen.loop.sigint import Interrupts, Looks, callers, may_strike, piece_at_work
from dangagreen.net.draining import Listener
from dangagreen.parks import parks
from dangagreen.sockets.sock import CallbackSocket
from dangagreen.tracebacks import without_traceback

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_HANGS = 0.25  # seconds for which a piece of the program's code may go on after Ctrl-C before it is struck


@parks
def serve_forever(*listeners: Listener, grace: float | None = 30.0) -> list[CallbackSocket]:
    """Parks until SIGTERM, Ctrl-C or a listener's `stop()`, drains all the listeners, returns who was cut off.

    The second signal, or `stop()`, ends the grace. The third signal, or the second of a program that hangs, raises
    KeyboardInterrupt, SystemExit for SIGTERM, wherever the program is. So does Ctrl-C alone in the program's own code,
    if that goes on for a quarter of a second without the loop's having its turn. `Loop.stop()`, and a post-loop
    callback that answers false, drain as well. Outside the main thread no signal is heard.

    Raises RuntimeError if one of the listeners, or the main thread, is in another `serve_forever`; after the drain the
    error of a listener that could accept no more, or was closed with an exception as the reason.
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
        for listener in listeners:  # all at once
            listener._begin_drain(grace)
        cut_off = [sock for listener in listeners for sock in listener.drain(grace)]
    if (failure := _failure(listeners)) is not None:
        raise without_traceback(failure)
    return cut_off


def _failure(listeners: tuple[Listener, ...]) -> BaseException | None:
    """Why one of them accepts no more, if it was not meant to end."""
    reasons = (listener.close_reason for listener in listeners)
    return next((reason for reason in reasons if isinstance(reason, BaseException)), None)


class _Forever:
    """Counts how often it was asked to end, and has the first two times done what is due."""

    __slots__ = ("_asked", "_before", "_listeners", "_looks", "_pending", "_piece", "_task")

    def __init__(self, task: Waiter, listeners: tuple[Listener, ...]) -> None:
        self._task = task
        self._listeners = listeners
        self._asked = 0
        self._pending = False  # a signal has come that the loop has not acted upon
        self._looks = Looks()
        self._piece: FrameType | None = None  # of the program, which was at work when Ctrl-C came
        self._before: dict[signal.Signals, Any] = {}  # the handlers that were there

    def ask(self) -> None:
        """Only on the hub."""
        self._pending = self._looks.wanted = False
        self._looks.trace_no_more()
        self._piece = None
        self._asked += 1
        if self._asked == 1:
            if self._task.wait is _FOREVER:  # or it was cancelled meanwhile, and waits for something else
                wake(self._task)
        else:
            for listener in self._listeners:
                listener._begin_drain(0)

    def listener_failed(self) -> None:
        """Only on the hub. It is no request to hurry, however many of them fail."""
        if self._task.wait is _FOREVER:
            wake(self._task)

    def end(self) -> None:
        """Only on the hub. The loop was stopped, and may be so at the end of each turn: that counts once."""
        if not self._asked:
            self.ask()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._looks.own:
            self._looks.own = False
            going_on = self._pending and piece_at_work(frame) is self._piece
            if not (going_on and may_strike(frame)):
                self._looks.wanted = self._pending
                if going_on:
                    self._looks.trace(callers(frame), self._on_line)
                return
        if self._pending or self._asked >= 2:
            self._piece = None
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
        self._pending = True
        self._task.loop.call_soon_threadsafe(self.ask)
        self._piece = piece_at_work(frame)
        if number == signal.SIGINT and self._piece is not None:
            self._looks.begin(_HANGS)

    def _on_line(self, _frame: FrameType) -> None:
        """The library has returned to the piece that goes on."""
        self._looks.trace_no_more()
        if self._pending:
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
            listener._on_stop = self.ask
            listener._on_failure = self.listener_failed
            self._task.loop.ready.extend([self.ask] * listener._stops)
            listener._stops = 0
        scheduler(self._task.loop).forevers.append(self)
        for number, before in heard.items():
            if before is not None and before is not signal.SIG_IGN:  # who started us wants it ignored
                self._before[number] = before
                signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_error: object) -> None:
        self._pending = False
        self._piece = None
        self._looks.end()
        self._looks.trace_no_more()
        scheduler(self._task.loop).forevers.remove(self)
        for listener in self._listeners:
            listener._on_stop = listener._on_failure = None
        for number, before in self._before.items():
            owner = getattr(before, "__self__", None)
            if isinstance(owner, Interrupts) and not owner.installed:  # it was put back while ours was in its place
                before = signal.default_int_handler
            if signal.getsignal(number) == self._on_signal:
                signal.signal(number, before)

    def __repr__(self) -> str:
        return ", ".join(map(repr, self._listeners))


_FOREVER = WaitKind("serve_forever", lambda forever, task: None, "{0} of {1}")
