"""Checks of arguments, at the entry of a call and before it has changed anything: times, counts, functions.

Rules: one function for each kind, so that all calls accept and refuse alike; a message says what was expected.
TypeError for another type, ValueError for a value that makes no sense, OverflowError for one that is too large. What
does not belong here: addresses, and the meaning of what is checked.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable
from functools import partial, partialmethod
from operator import index
from types import AsyncGeneratorType, CodeType, CoroutineType, FunctionType, GeneratorType
from typing import Any

Buffer = bytes | bytearray | memoryview

_GENERATORS = 0x20  # code flags, by their numbers since to import inspect takes 10 ms: CO_GENERATOR,
NOT_RUN = _GENERATORS | 0x80 | 0x100 | 0x200  # CO_COROUTINE, CO_ITERABLE_COROUTINE, CO_ASYNC_GENERATOR
RESUMED = ()  # what is left of a call that has resumed a task: nothing to look at
_UNDONE = (CoroutineType, GeneratorType, AsyncGeneratorType)


def seconds(what: str, value: Any, unit: str = "seconds") -> float:
    """A time: an int or a float; the float of anything else with `__float__` or `__index__`, such as Decimal.

    Infinity is a time that never comes. Raises TypeError for anything else, ValueError for NaN, OverflowError beyond
    what a float holds.
    """
    if type(value) is not float:
        kind = type(value)
        if not (hasattr(kind, "__float__") or hasattr(kind, "__index__")):
            hint = ": write its .total_seconds()" if hasattr(kind, "total_seconds") else ""
            raise TypeError(f"{what} is a number of {unit}, not {shown(value)}{hint}")
        try:
            number = float(value)
        except OverflowError:
            raise OverflowError(f"{what} is a number of {unit}, and a float cannot hold {shown(value)}") from None
        value = value if kind is int else number
    if value != value:
        raise ValueError(f"{what} is a number of {unit}: NaN is not a number")
    return value  # type: ignore[no-any-return]


def span(what: str, value: Any) -> float:
    """How long something takes: `seconds`, and ValueError below zero."""
    time = seconds(what, value)
    if time < 0:
        raise ValueError(f"{what} cannot be negative: {shown(time)}")
    return time


def count(what: str, value: Any, least: int | None = 0) -> int:
    """A count: an int, or anything else with `__index__`, from `least` (0, 1, or None: no bound) to `sys.maxsize`.

    Raises TypeError, ValueError below `least`, OverflowError above `sys.maxsize`.
    """
    try:
        number = index(value)
    except TypeError:
        if isinstance(value, float) and value != value:
            raise ValueError(f"{what} is not a number") from None
        hint = " (sys.maxsize is as good as no limit)" if isinstance(value, float) and value == math.inf else ""
        raise TypeError(f"{what} is no int: {shown(value)}{hint}") from None
    if least is not None and number < least:
        bound = "must be one or more" if least else "cannot be negative"
        raise ValueError(f"{what} {bound}: {shown(number)}")
    if number > sys.maxsize:
        raise OverflowError(f"{what} is at most {sys.maxsize}, not {shown(number)}")
    return number


def text(what: str, value: Any) -> str:
    """A str; TypeError for anything else."""
    if not isinstance(value, str):
        raise TypeError(f"{what} is a str, not {shown(value)}")
    return value


def shown(value: object) -> str:
    """The `repr` of a value for an error message: cut to 100 characters, and no error if it raises."""
    try:
        words = repr(value)
    except Exception:  # an int of very many digits, or a `repr` that raises
        return f"{type(value).__name__} of a repr that fails"
    return words if len(words) <= 100 else f"{words[:97]}..."


def function(call: str, given: object, hint: str = "") -> None:
    """Raise TypeError, in the name of `call`, unless `given` is a function that runs when called.

    Not an `async def`, nor a generator function: a call of either runs nothing.
    """
    if type(given) is FunctionType and not given.__code__.co_flags & NOT_RUN:
        return
    if not callable(given):
        raise TypeError(f"{call} needs a function, not {shown(given)}{hint}")
    if (kind := kind_not_run(given)) is not None:
        raise TypeError(f"{call} was given {shown(given)}, {kind}, which would never run: write a plain def")


def kind_not_run(function: object) -> str | None:
    """ "a generator function" or "an async def" if the function is one, or calls one; None otherwise."""
    while isinstance(function, (partial, partialmethod)):
        function = function.func
    for one in (function, type(function).__call__ if callable(function) else None):
        code = getattr(getattr(one, "__func__", one), "__code__", None)
        if isinstance(code, CodeType) and code.co_flags & NOT_RUN:
            return "a generator function" if code.co_flags & _GENERATORS else "an async def"
    return None


def outcome(what: str, value: object) -> None:
    """Raise TypeError if a callback has returned a coroutine or a generator, which would never run.

    A coroutine is closed, so that there is no warning "was never awaited". Called for results that are not None.
    """
    if isinstance(value, _UNDONE):
        if isinstance(value, CoroutineType):
            with contextlib.suppress(ValueError, RuntimeError):  # it is running
                value.close()
        raise TypeError(f"{what} returned {shown(value)}, which nobody runs: write a plain def")


def writer(given: Callable[[Buffer], int]) -> Callable[[Buffer], int]:
    """The function of `set_writer_func`, with a check of what it returns."""
    function("set_writer_func", given)

    def checked(data: Buffer) -> int:
        sent = given(data)
        outcome(f"the writer {given!r}", sent)
        if not 0 <= sent <= len(data):
            raise ValueError(f"the writer {given!r} was given {len(data)} bytes and says that it took {sent}")
        return sent

    return checked


def as_bytes(data: Any) -> bytes:
    """The bytes that a bytes-like object holds now. Anything else raises TypeError."""
    if type(data) is bytes:
        return data
    try:
        return bytes(memoryview(data))
    except TypeError:
        hint = ": give it text.encode()" if isinstance(data, str) else ""
        raise TypeError(f"bytes are needed here, not {type(data).__name__}{hint}") from None


def room(call: str, buffer: Any) -> int:
    """For how many bytes a writable buffer has room. Raises TypeError for another thing, ValueError for one of none."""
    try:
        with memoryview(buffer) as view:
            if view.readonly:
                raise TypeError
            size = view.nbytes
    except TypeError:
        raise TypeError(f"{call} needs a writable buffer, such as a bytearray, not {shown(buffer)}") from None
    if not size:
        raise ValueError(f"{call}: the buffer has no room")
    return size
