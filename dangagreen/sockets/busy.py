"""`Socket.busy()`: work for a connection that its object does not show.

Rules: each is released once, however often `release` is called; one that is freed unreleased is released, with a
ResourceWarning. What does not belong here: its effect on a drain and on idle timeouts.
"""

from __future__ import annotations

import warnings
from _thread import get_ident
from contextlib import suppress
from types import TracebackType
from typing import Protocol, Self

from dangagreen.loop.loop import Loop

HELD = 2  # what each adds to `Socket._at_work`, whose lowest bit is that of a handler


class AtWork(Protocol):
    """A socket, as `Busy` needs it."""

    loop: Loop

    def _hold(self) -> None: ...
    def _release_hold(self) -> None: ...


class Busy:
    """The result of `Socket.busy()`: a context manager; `release()` is for work that is no block of code."""

    __slots__ = {"_sock": "The socket, until it is released; None after that."}

    def __init__(self, sock: AtWork) -> None:
        self._sock: AtWork | None = None
        sock.loop.check_thread("busy")
        sock._hold()
        self._sock = sock

    def release(self) -> None:
        """End the work: the connection may be idle again. Does nothing when it was released before."""
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
            words, loop = repr(self._sock), self._sock.loop
            if get_ident() == loop.thread or loop.closed:
                self._release()
            else:  # the last reference to it went in another thread
                with suppress(RuntimeError):  # the loop was closed meanwhile
                    loop.call_soon_threadsafe(self._sock._release_hold)
            warnings.warn(f"busy() of {words} was dropped and not released", ResourceWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        return f"<busy with {self._sock!r}>" if self._sock is not None else "<busy, released>"
