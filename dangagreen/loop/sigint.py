"""Ctrl-C, while a loop runs: raised at once in the program's own code, and in ours when nothing is half done.

Rules: only in the main thread, and only where nobody else handles SIGINT; what was there is put back. The innermost
code that is neither C nor of the standard library decides whose code it is. Where it is ours, Ctrl-C is noted, and
acted upon by the loop, or when our code returns to the program's, whichever comes first. A second Ctrl-C before the
first was acted upon raises KeyboardInterrupt where it strikes, so that a program that hangs can be ended. What does not
belong here: other signals.
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
# What is raised there, in a loop of one line, neither `except` nor `finally` around it would see (CPython 3.13).
_LOOK_SECONDS = 0.005  # between the looks of a noted one whether our code has returned


class Looks:
    """Has the handler of SIGINT called time and again, so that it can look where the program is by then.

    `wanted` is True for as long as that is of use; `own` is True where the next signal is one of these. A program that
    calls us again and again is met in its own code by hardly any of them: `trace` has it met there at its next line,
    unless somebody else traces it.
    """

    __slots__ = ("_lock", "_on_line", "_traced", "own", "wanted")

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self.own = self.wanted = False
        self._traced: list[FrameType] = []

    def trace(self, frames: list[FrameType], on_line: Callable[[FrameType], object]) -> None:
        """Until `trace_no_more` call `on_line(frame)` at each line of these frames. It may raise KeyboardInterrupt."""
        self.trace_no_more()
        if frames and sys.gettrace() is None:
            self._traced, self._on_line = frames, on_line
            for frame in frames:
                frame.f_trace = self._trace
            sys.settrace(_trace_no_call)

    def _trace(self, frame: FrameType, event: str, _argument: object) -> Any:
        if self._traced and event in ("line", "opcode"):
            if frame.f_code.co_code[frame.f_lasti] in _JUMPS_BACK:
                frame.f_trace_opcodes = True  # the next one will do
            else:
                self._on_line(frame)
        return self._trace

    def trace_no_more(self) -> None:
        traced, self._traced = self._traced, []
        if traced:
            if sys.gettrace() is _trace_no_call:
                sys.settrace(None)
            for frame in traced:
                frame.f_trace = None
                frame.f_trace_opcodes = False
            del self._on_line

    def begin(self, seconds: float = _LOOK_SECONDS) -> None:
        """The first look comes after so many seconds."""
        self.wanted = True
        with contextlib.suppress(RuntimeError):  # no thread can be had: then the loop or a second Ctrl-C must do
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
        """None is on its way any more once the handler is changed. Not for the handler, which may strike here."""
        with self._lock:
            self.wanted = False


class Interrupts:
    """Raises KeyboardInterrupt in the program's own code. In ours it calls `notify`, once for as long as `pending` is
    True, and raises it if our code returns meanwhile."""

    __slots__ = ("_callers", "_looks", "_notify", "installed", "pending")

    def __init__(self, notify: Callable[[], object]) -> None:
        self._notify = notify
        self.pending = False
        self._callers: list[FrameType] = []  # of the program, to which our code will return
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
        """Has our code returned to the program's?"""
        strikes = self.pending and may_strike(frame) and any(_innermost(frame) is caller for caller in self._callers)
        if strikes or not self.pending:  # or the loop was faster
            self.acted_upon()
        elif self._callers:
            self._looks.trace(callers(frame), self._on_line)
        if strikes:
            raise KeyboardInterrupt

    def _on_line(self, frame: FrameType) -> None:
        """It has, to this frame."""
        pending = self.pending
        self.acted_upon()
        if pending:
            raise KeyboardInterrupt

    def acted_upon(self) -> None:
        """It was, or is going to be at once: the next one is a first one, and nobody need look any more."""
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
        self._notify = _interrupt  # what was there keeps whoever was to be told


def _trace_no_call(_frame: FrameType, _event: str, _argument: object) -> None:
    """Only frames that have a function of their own for it are traced."""


def may_strike(frame: FrameType | None) -> bool:
    """Is this frame, or whoever has called the standard library in it, the program's own code?

    Not where a `__del__` is under way: what it raises is lost.
    """
    frame = _innermost(frame)
    return frame is not None and not (is_ours(frame) or frame in LOOPS) and not _in_del(frame)


def piece_at_work(frame: FrameType | None) -> FrameType | None:
    """The outermost frame of the program that has not returned to the loop: of a callback, or a task; None if there is
    none, as in the loop itself."""
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
    """The frames of the program that wait for our code to return, the innermost first; none if it is the loop."""
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
    """Nobody is there to be told."""
    raise KeyboardInterrupt
