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
from opcode import opmap
from types import FrameType
from typing import Any

from dangagreen.frames import LOOPS, is_library, is_ours

_JUMPS_BACK = {opmap[name] for name in ("JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT") if name in opmap}
# An exception raised at these, in a loop of one line, escapes `except` and `finally` around it (CPython 3.13).
_LOOK_SECONDS = 0.005  # between two looks whether this package's code has returned, after Ctrl-C was noted


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
            if frame.f_code.co_code[frame.f_lasti] in _JUMPS_BACK:
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

    def begin(self, seconds: float = _LOOK_SECONDS) -> None:
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


class Interrupts:
    """A handler of SIGINT: raises KeyboardInterrupt in the program's code; in this package's code calls `notify`.

    Then it is `pending` until it is acted upon: by the loop, or by KeyboardInterrupt when this package's code returns.
    """

    __slots__ = {
        "_callers": "The frames of the program to which this package's code will return.",
        "_looks": "Repeated calls of the handler, while Ctrl-C is pending.",
        "_notify": "Called once when Ctrl-C is noted.",
        "installed": "Whether it is installed.",
        "pending": "Whether a Ctrl-C was noted that was not acted upon.",
    }

    def __init__(self, notify: Callable[[], object]) -> None:
        self._notify = notify
        self.pending = False
        self._callers: list[FrameType] = []
        self._looks = Looks()
        self.installed = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if self.installed:
            signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, _number: int, frame: FrameType | None) -> None:
        if self._looks.own:
            self._looks.own = False
            return self._look(frame)
        if self.pending or may_strike(frame):
            raise KeyboardInterrupt
        self.pending = True
        self._notify()
        self._callers = callers(frame)
        if self._callers:
            self._looks.begin()
        return None

    def _look(self, frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt if this package's code has returned to the program's; otherwise look again later."""
        strikes = self.pending and may_strike(frame) and any(_innermost(frame) is caller for caller in self._callers)
        if strikes or not self.pending:  # not pending: the loop has acted
            self.acted_upon()
        elif self._callers:
            self._looks.trace(callers(frame), self._on_line)
        if strikes:
            raise KeyboardInterrupt

    def _on_line(self, frame: FrameType) -> None:
        """This package's code has returned to this frame of the program: raise KeyboardInterrupt there."""
        pending = self.pending
        self.acted_upon()
        if pending:
            raise KeyboardInterrupt

    def acted_upon(self) -> None:
        """Note that the pending Ctrl-C was acted upon, or will be at once: the next one is a first one again."""
        self._looks.wanted = self.pending = False
        self._looks.trace_no_more()
        self._callers = []

    def restore(self) -> None:
        """Put the interpreter's own handler back, unless the program has installed one of its own meanwhile."""
        self._looks.end()
        self._looks.trace_no_more()
        if self.installed and signal.getsignal(signal.SIGINT) == self._on_signal:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self.installed = False
        self._callers = []
        self._notify = _interrupt  # drops the reference to what was to be notified


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


def _interrupt() -> None:
    """The `notify` of a handler that is not installed any more."""
    raise KeyboardInterrupt
