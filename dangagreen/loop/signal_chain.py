"""Handlers of signals, in Python, that take the place of others for a while, and put those back.

Rules: a handler is put back by the one that has replaced it, in whatever order these end; none is put in the place of
one that other code has installed meanwhile. What does not belong here: what a handler does.
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

    def _former(self, number: int) -> Any:
        """The handler before this one that is still in use."""
        former = self._before.get(number)
        while isinstance(former, ChainedHandler) and not former.installed:
            former = former._before.get(number)
        return former
