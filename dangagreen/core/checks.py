"""What a call is given is checked here, at its entry and before anything is registered: times and counts.

Rules: one function for each kind, so that all calls take and refuse alike; what is refused is refused with what was
expected, as TypeError for another kind of thing, ValueError for one that makes no sense, OverflowError for one that is
too large. What does not belong here: addresses, and the meaning of what is checked.
"""

from __future__ import annotations

import sys
from operator import index
from typing import Any


def seconds(what: str, value: Any) -> float:
    """A time as a float: of a float, an int, or what else has `__float__` or `__index__`, as Decimal and Fraction have.

    A bool is an int, as everywhere in Python; infinity is never. Raises ValueError for NaN, which would be neither
    early nor late.
    """
    if type(value) is not float:
        kind = type(value)
        if not (hasattr(kind, "__float__") or hasattr(kind, "__index__")):
            hint = ": write its .total_seconds()" if hasattr(kind, "total_seconds") else ""
            raise TypeError(f"{what} is a number of seconds, not {shown(value)}{hint}")
        try:
            value = float(value)
        except OverflowError:
            raise OverflowError(f"{what} is a number of seconds, and a float cannot hold {shown(value)}") from None
    if value != value:
        raise ValueError(f"{what} is a number of seconds: NaN is not a number")
    return value  # type: ignore[no-any-return]


def count(what: str, value: Any, least: int | None = 0) -> int:
    """How many: an int, or what else has `__index__`, from `least` (None: any number) up to `sys.maxsize`."""
    try:
        number = index(value)
    except TypeError:
        raise TypeError(f"{what} is no int: {shown(value)}") from None
    if least is not None and number < least:
        raise ValueError(f"{what} is {least} or more, not {shown(number)}")
    if number > sys.maxsize:
        raise OverflowError(f"{what} is at most {sys.maxsize}, not {shown(number)}")
    return number


def shown(value: object) -> str:
    """Its `repr`, in an error message: cut short, and whatever that `repr` does."""
    try:
        words = repr(value)
    except Exception:  # an int of very many digits, or somebody's own
        return f"{type(value).__name__} of a repr that fails"
    return words if len(words) <= 100 else f"{words[:97]}..."
