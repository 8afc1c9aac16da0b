"""SIGINT (Ctrl-C) while a loop runs: KeyboardInterrupt at once in the program's code, in ours when that returns.

Rules: only in the main thread, and only if the program has no handler of SIGINT; the former handler is put back. The
innermost frame that is not of the standard library decides whose code it is. In this package's code Ctrl-C is noted,
and acted upon by the loop, or when that code returns to the program's, whichever is first: nothing is left half done. A
second Ctrl-C before that raises KeyboardInterrupt wherever it comes, so that a program that hangs can be ended. What
does not belong here: other signals.
"""

from __future__ import annotations

import _thread
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import cache
from types import FrameType
from typing import Any

from dangagreen.frames import LOOPS, is_library, is_ours
from dangagreen.loop.signal_chain import ChainedHandler, handler_of

_LOOK_SECONDS = 0.005  # between two looks whether this package's code has returned, after Ctrl-C was noted


@cache
def _jumps_back() -> set[int]:
    """What ends a round of a loop: raised there, an exception escapes `except` and `finally` around a loop of one line
    (CPython 3.13).
    """
    from opcode import opmap

    return {opmap[name] for name in ("JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT") if name in opmap}


class Looks:
    """Repeated calls of the SIGINT handler, made by a thread, which look where the program is by then.

    A program that calls this package in a loop is rarely met in its own code by these: `trace` then meets it at its
    next line, unless a debugger or the like traces it already.
    """

    __slots__ = {
        "_lock": "Held while a signal is sent.",
        "_on_line": "Called at the next line of a traced frame.",
        "_traced": "The frames that are traced.",
        "own": "Whether the next SIGINT is one of these calls, and no Ctrl-C.",
        "wanted": "Whether the calls are still needed.",
    }

    def __init__(self) -> None:
        _jumps_back()  # so that the handler imports nothing
        self._lock = _thread.allocate_lock()
        self.own = self.wanted = False
        self._traced: list[FrameType] = []

    def trace(self, frames: list[FrameType], on_line: Callable[[FrameType], object]) -> None:
        """Call `on_line(frame)` at each line of these frames, until `trace_no_more`. It may raise KeyboardInterrupt."""
        self.trace_no_more()
        if frames and sys.gettrace() is None:
            self._traced, self._on_line = frames, on_line
            for frame in frames:
                frame.f_trace = self._trace
            sys.settrace(_trace_no_call)

    def _trace(self, frame: FrameType, event: str, _argument: object) -> Any:
        if self._traced and event in ("line", "opcode"):
            if frame.f_code.co_code[frame.f_lasti] in _jumps_back():
                frame.f_trace_opcodes = True  # wait for the next instruction
            else:
                self._on_line(frame)
        return self._trace

    def trace_no_more(self) -> None:
        """End the tracing."""
        traced, self._traced = self._traced, []
        if traced:
            if sys.gettrace() is _trace_no_call:
                sys.settrace(None)
            for frame in traced:
                frame.f_trace = None
                frame.f_trace_opcodes = False
            del self._on_line

    def begin(self, seconds: float) -> None:
        """Start the calls; the first one comes after so many seconds."""
        self.wanted = True
        with contextlib.suppress(RuntimeError):  # no thread can be started: the loop, or a second Ctrl-C, has to do
            _thread.start_new_thread(self._look, (seconds,))

    def _look(self, seconds: float) -> None:
        while True:
            time.sleep(seconds)
            seconds = _LOOK_SECONDS
            with self._lock:
                if not self.wanted:
                    return
                self.own = True
                _thread.interrupt_main()

    def end(self) -> None:
        """Stop the calls: none is in flight after this. Not to be called by the handler, which may interrupt it."""
        with self._lock:
            self.wanted = False


class SignalHandler(ChainedHandler):
    """A handler of Ctrl-C and the like, which lets the loop act upon a signal, or raises in the program's code.

    The first signal is `pending` until the loop has acted upon it; a second one before that raises where it strikes.
    While one is pending the handler is called anew, in case the program's code runs on and has to be struck after all.
    A subclass says when that is so.
    """

    __slots__ = {
        "_looks": "The calls by which it watches code that runs on.",
        "pending": "Whether a signal has come that was not acted upon.",
    }

    def __init__(self) -> None:
        ChainedHandler.__init__(self)
        self.pending = False
        self._looks = Looks()

    def handle(self, number: int, frame: FrameType | None) -> None:
        looks = self._looks
        if not looks.own:
            self.pass_on(number, frame)
        if looks.own:
            looks.own = False
            if not self.pending:  # the loop was faster
                self.acted_upon()
            elif self._runs_on(frame):
                if may_strike(frame):
                    self._strikes()
                    raise KeyboardInterrupt
                looks.trace(callers(frame), self._on_line)
        elif self.pending or self._is_urgent(frame):
            looks.wanted = False
            self._raises()
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
        else:
            self.pending = True
            self._tell()
            self._note(number, frame)

    def _on_line(self, _frame: FrameType) -> None:
        """Our code has returned to the program's, which has come to its next line."""
        pending = self.pending
        self._strikes()
        if pending:
            raise KeyboardInterrupt

    def _is_urgent(self, frame: FrameType | None) -> bool:
        """Whether a first signal is not for the loop, and raises at once."""
        raise NotImplementedError

    def _tell(self) -> None:
        """Have the loop act upon the signal."""
        raise NotImplementedError

    def _raises(self) -> None:
        """A signal of which the loop is not told is about to raise where it has come."""

    def _note(self, number: int, frame: FrameType | None) -> None:
        """Note whose code is at work at a first signal, and begin to watch it."""
        raise NotImplementedError

    def _runs_on(self, frame: FrameType | None) -> bool:
        """Whether that code is to be struck, now or as soon as ours has returned to it."""
        raise NotImplementedError

    def _watch(self, seconds: float) -> None:
        """Look every few milliseconds where the program is, for the first time after so many seconds."""
        self._looks.begin(seconds)

    def _strikes(self) -> None:
        """Called before KeyboardInterrupt is raised in code that runs on."""
        self._looks.trace_no_more()

    def acted_upon(self) -> None:
        """The loop has acted upon the signal, or is about to: the next one is a first one, and nothing is watched."""
        self._looks.wanted = self.pending = False
        self._looks.trace_no_more()

    def restore(self) -> None:
        """Put the former handlers back, where no other one was installed meanwhile."""
        self._looks.end()
        self._looks.trace_no_more()
        ChainedHandler.restore(self)


class Interrupts(SignalHandler):
    """Ctrl-C while a loop runs: raises KeyboardInterrupt in the program's own code. In ours it calls `notify`, and
    raises if our code returns before the loop has acted upon it. Where it raises without that it calls `raises`."""

    __slots__ = {
        "_callers": "The frames of the program to which our code will return.",
        "_notify": "Has the loop act upon it.",
        "_on_raise": "Called where it raises at once.",
    }

    def __init__(self, notify: Callable[[], object], raises: Callable[[], object] = bool) -> None:
        SignalHandler.__init__(self)
        self._notify = notify
        self._on_raise = raises
        self._callers: list[FrameType] = []
        if threading.current_thread() is threading.main_thread():
            if handler_of(signal.SIGINT) is signal.default_int_handler:
                self.install({signal.SIGINT: signal.default_int_handler})

    def _is_urgent(self, frame: FrameType | None) -> bool:
        return may_strike(frame)

    def _tell(self) -> None:
        self._notify()

    def _raises(self) -> None:
        self._on_raise()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._callers = callers(frame)
        if self._callers:
            self._watch(_LOOK_SECONDS)

    def _runs_on(self, frame: FrameType | None) -> bool:
        return bool(self._callers)

    def _strikes(self) -> None:
        self.acted_upon()

    def acted_upon(self) -> None:
        SignalHandler.acted_upon(self)
        self._callers = []

    def restore(self) -> None:
        SignalHandler.restore(self)
        self._callers = []
        self._notify = self._on_raise = bool  # which does nothing: who keeps this handler keeps nobody else
        if threading.current_thread() is threading.main_thread():
            handler_of(signal.SIGINT)  # that of an earlier run may have been put back meanwhile


def _trace_no_call(_frame: FrameType, _event: str, _argument: object) -> None:
    """The trace function of the thread: calls are not traced, only frames that have an `f_trace` of their own."""


def may_strike(frame: FrameType | None) -> bool:
    """Whether KeyboardInterrupt may be raised here: the frame, or the caller of the standard library, is the program's.

    Not inside a `__del__`: what it raises is lost.
    """
    frame = _innermost(frame)
    return frame is not None and not (is_ours(frame) or frame in LOOPS) and not _in_del(frame)


def piece_at_work(frame: FrameType | None) -> FrameType | None:
    """The outermost frame of the program above the loop, of a callback or a task; None if there is none."""
    piece = None
    while frame is not None and frame not in LOOPS:
        if not (is_ours(frame) or is_library(frame)):
            piece = frame
        frame = frame.f_back
    return piece


def _innermost(frame: FrameType | None) -> FrameType | None:
    while frame is not None and is_library(frame):
        frame = frame.f_back
    return frame


def callers(frame: FrameType | None) -> list[FrameType]:
    """The program's frames that have called this package, the innermost first; none if the loop has called it."""
    frame = _innermost(frame)
    while frame is not None and frame not in LOOPS and (is_ours(frame) or is_library(frame)):
        frame = frame.f_back
    if frame is None or frame in LOOPS or _in_del(frame):
        return []
    callers = []
    while frame is not None and frame not in LOOPS and not is_ours(frame):
        if not is_library(frame):
            callers.append(frame)
        frame = frame.f_back
    return callers


def _in_del(frame: FrameType | None) -> bool:
    while frame is not None and not is_ours(frame):
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False
