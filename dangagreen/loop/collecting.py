"""Whether a garbage collection is in progress, inside which nothing may park.

Rules: a greenlet that is suspended inside a collection, by a `__del__` or a weakref callback, would leave the collector
off, for the whole process, until it is resumed. What does not belong here: how a call that would park is refused (that
is the scheduler's Collector).
"""

from __future__ import annotations

import gc
from _thread import get_ident
from collections.abc import Callable

_NOBODY = 0
_collector = _NOBODY  # the identifier of the thread in which a collection is in progress


def is_collecting() -> bool:
    """Whether this code is called by the garbage collector."""
    return _collector == get_ident()


def watch_collections(notify: Callable[[bool], object]) -> None:
    """Call `notify(True)` in the thread that begins a collection, before it, and `notify(False)` after it."""

    def hear(phase: str, _info: object) -> None:
        global _collector
        begins = phase == "start"
        _collector = get_ident() if begins else _NOBODY
        notify(begins)

    gc.callbacks.append(hear)
