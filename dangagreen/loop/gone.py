"""What is over, as long as the program still refers to it: closed connections that a table keeps are a leak of memory.

Rules: nothing is kept alive, and nobody pays who does not look on; it may be read in any thread. What does not belong
here: what is made of it (introspect, metrics).
"""

from __future__ import annotations

from typing import Any
from weakref import ref


class Gone:
    """Objects that are over and not freed yet."""

    __slots__ = {"_refs": "A weak reference to each."}

    def __init__(self) -> None:
        self._refs: set[ref[Any]] = set()

    def add(self, thing: Any) -> None:
        self._refs.add(ref(thing, self._refs.discard))

    def left(self) -> list[Any]:
        """What something still refers to, or what waits for the garbage collector."""
        return [thing for one in self._refs.copy() if (thing := one()) is not None]
