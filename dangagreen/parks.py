"""Which functions may park: a list, for the tests, the documentation and error messages to read.

Rules: what is listed is the function as it is written, by its module and its qualified name; nothing is wrapped. What
does not belong here: how one parks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Function = TypeVar("Function", bound=Callable[..., object])

PARKING: dict[tuple[str, str], None] = {}  # (module, qualified name), in the order of their definition


def parks(function: Function) -> Function:
    """Decorator: list a function as one that may park, and set `function.__parks__` to True."""
    owner = getattr(function, "__objclass__", None)  # of a special method that was compiled: it has no attributes
    if owner is None:
        function.__parks__ = True  # type: ignore[attr-defined]
    PARKING[(owner or function).__module__, function.__qualname__] = None
    return function
