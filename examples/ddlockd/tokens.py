"""Numbers that only grow: the fencing tokens of ddlockd, which protect what a lock is for from a late holder."""

from __future__ import annotations

import time
from pathlib import Path

from ddlockd.stores import StoreError, reserve


class Tokens:
    """Fencing tokens: each is larger than any before it, whatever happens to the clock.

    With a file they are larger than those of earlier runs, too. It holds a number that no token has come beyond, and is
    written once in a million tokens. Without one they begin at the time of the start: larger than those of earlier runs
    unless the clock was put back between two of them.
    """

    AT_ONCE = 1_000_000

    def __init__(self, path: str | None = None) -> None:
        self._path = None if path is None else Path(path).absolute()
        self._last = self._most = time.time_ns()
        self._reserve()

    def next(self) -> int:
        """Raises StoreError if the file cannot be written."""
        if self._last >= self._most:
            self._reserve()
        self._last += 1
        return self._last

    def _reserve(self) -> None:
        if self._path is None:
            self._most += self.AT_ONCE
            return
        try:
            self._most = reserve(self._path, self.AT_ONCE)
        except (OSError, ValueError) as error:
            raise StoreError(f"{self._path}: {error}") from None
        self._last = self._most - self.AT_ONCE
