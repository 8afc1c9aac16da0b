"""serve_forever: servers that run until SIGTERM, Ctrl-C or `stop()`, and then shut down gracefully.

Rules: signal handlers are installed in the main thread only, while it waits, and the former ones are put back; a
program that hangs can still be ended. What does not belong here: the graceful shutdown of a listener (draining).
"""

from __future__ import annotations

import signal
import threading
from types import FrameType

from dangagreen import checks
from dangagreen.green.parking import checkpoint, park
from dangagreen.green.sched import scheduler
from dangagreen.green.waiters import Waiter, WaitKind, wake
from dangagreen.loop.loop import current_loop
from dangagreen.loop.sigint import SignalHandler, piece_at_work
from dangagreen.loop.signal_chain import handler_of
from dangagreen.net.listener import Listener
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
        listener._watch_again()
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


class _Forever(SignalHandler):
    """One `serve_forever` that waits: counts signals and calls of `stop()`, and acts upon the first two."""

    __slots__ = {
        "_asked": "How many signals and calls of `stop()` were acted upon.",
        "_listeners": "Its listeners.",
        "_piece": "The frame of the program's code that was running when Ctrl-C came, or None.",
        "_waiter": "The task that waits.",
    }

    shares = True  # callbacks of `on_signal` are called as well

    def __init__(self, task: Waiter, listeners: tuple[Listener, ...]) -> None:
        SignalHandler.__init__(self)
        self._waiter = task
        self._listeners = listeners
        self._asked = 0
        self._piece: FrameType | None = None

    def ask(self) -> None:
        """A signal, or a call of `stop()`: the first wakes the task, later ones end the grace. On the hub only."""
        self.acted_upon()
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

    def _is_urgent(self, frame: FrameType | None) -> bool:
        return self._asked >= 2

    def _tell(self) -> None:
        self._waiter.loop.call_soon_threadsafe(self.ask)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._piece = piece_at_work(frame)
        if number == signal.SIGINT and self._piece is not None:
            self._watch(_HANGS)

    def _runs_on(self, frame: FrameType | None) -> bool:
        return self._piece is not None and piece_at_work(frame) is self._piece

    def _strikes(self) -> None:
        SignalHandler._strikes(self)
        self._piece = None  # once; it stays pending, since the loop has still to begin the graceful shutdown

    def __enter__(self) -> _Forever:
        heard = {}
        if threading.current_thread() is threading.main_thread():
            heard = {number: handler_of(number) for number in _SIGNALS}
        if any(listener._on_stop is not None for listener in self._listeners) or any(
            isinstance(before, _Forever) for before in heard.values()
        ):
            raise RuntimeError("another serve_forever has these listeners, or the signals: give all of them to one")
        for listener in self._listeners:
            listener._tell(self.ask, self.listener_failed)
        scheduler(self._waiter.loop).forevers.append(self)
        # Not in the place of one that is no Python code, nor of a signal that is ignored by the parent's wish (nohup).
        self.install(
            {number: before for number, before in heard.items() if before is not None and before is not signal.SIG_IGN}
        )
        return self

    def __exit__(self, *_error: object) -> None:
        self.pending = False
        self._piece = None
        scheduler(self._waiter.loop).forevers.remove(self)
        for listener in self._listeners:
            listener._tell(None, None)
        self.restore()

    def __repr__(self) -> str:
        return ", ".join(map(repr, self._listeners))


_FOREVER = WaitKind("serve_forever", lambda forever, task: None, "{0} of {1}")
