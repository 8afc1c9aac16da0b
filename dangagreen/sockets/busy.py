"""Work for a connection of which its object shows nothing: `Socket.busy()`.

Rules: what is held is released once, whatever else releases it; one that nobody has any more is released as well, and
complained of. What does not belong here: what a drain or a timeout makes of it.
"""

from __future__ import annotations

import warnings
from types import TracebackType
from typing import Protocol, Self

from dangagreen.loop.loop import Loop

HELD = 2  # what each adds to `Socket._at_work`, whose lowest bit is a handler's


class AtWork(Protocol):
    """What is known here of a socket."""

    loop: Loop

    def _hold(self) -> None: ...
    def _release_hold(self) -> None: ...


class Busy:
    """What `Socket.busy()` returns: a context manager, and `release()` for work that no block of code can hold."""

    __slots__ = ("_sock",)

    def __init__(self, sock: AtWork) -> None:
        self._sock: AtWork | None = None
        sock.loop.check_thread("busy")
        sock._hold()
        self._sock = sock

    def release(self) -> None:
        """The answer has been written. Harmless when it was released before."""
        if self._sock is not None:
            self._sock.loop.check_thread("Busy.release")
            self._release()

    def _release(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            sock._release_hold()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def __del__(self) -> None:
        if self._sock is not None:
            words = repr(self._sock)
            self._release()
            warnings.warn(f"busy() of {words} was dropped and not released", ResourceWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        return f"<busy with {self._sock!r}>" if self._sock is not None else "<busy, released>"
