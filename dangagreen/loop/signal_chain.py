"""Handlers of signals, in Python, that take the place of others for a while, and put those back.

Rules: a handler is put back by the one that has replaced it, in whatever order these end; none is put in the place of
one that other code has installed meanwhile. Other code may save a handler while it is in use, and put it back when
that is over, as uvicorn does: it then gives way to the one before it. What does not belong here: what a handler does.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any


class ChainedHandler:
    """A handler of one signal or several: it remembers what was installed before it."""

    __slots__ = {
        "_before": "Signal to the handler that was installed before this one.",
        "installed": "Whether it stands in the place of another handler, which may have been replaced meanwhile.",
    }

    shares = False  # whether it is called as well when another one of these stands in its place

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self.installed = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Called by the interpreter, between two instructions of whatever runs in the main thread."""
        if self.installed:
            self.handle(number, frame)
        else:
            self.give_way(number)
            signal.raise_signal(number)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """A signal has come while it is in use."""
        raise NotImplementedError

    def install(self, before: dict[int, Any]) -> None:
        """Take the place of these handlers."""
        self._before, self.installed = before, True
        for number in before:
            signal.signal(number, self)

    def restore(self) -> None:
        """Put the former handlers back, where no other one was installed meanwhile."""
        self.installed = False
        for number in self._before:
            now: Any = signal.getsignal(number)
            if now is self:
                signal.signal(number, self._former(number))

    def pass_on(self, number: int, frame: FrameType | None) -> None:
        """Call the handler before this one, if that is one of ours, and shares."""
        former = self._former(number)
        if isinstance(former, ChainedHandler) and former.shares:
            former(number, frame)

    def give_way(self, number: int) -> None:
        """Put the handler before it in its place: it is over, and other code has put it back."""
        former = self._former(number)
        signal.signal(number, signal.SIG_DFL if former is None else former)

    def _former(self, number: int) -> Any:
        """The handler before this one that is still in use."""
        former = self._before.get(number)
        while isinstance(former, ChainedHandler) and not former.installed:
            former = former._before.get(number)
        return former


def handler_of(number: int) -> Any:
    """The handler of a signal, as `signal.getsignal`; one of these that is not in use any more gives way.

    For the main thread.
    """
    handler: Any = signal.getsignal(number)
    if isinstance(handler, ChainedHandler) and not handler.installed:
        handler.give_way(number)
        return signal.getsignal(number)
    return handler
