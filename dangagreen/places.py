"""Where the code of a call stands in the sources, as "file:line", for log lines and reports.

Rules: asked after the fact and by who looks, never on the way of the data; it never raises. What does not belong here:
frames, and whose code it is.
"""

from __future__ import annotations

from contextvars import Context
from functools import partial
from types import CodeType
from typing import Any


def place_of(call: object) -> str:
    """ "file:line" of the function that a call comes down to, through partials; of one that is in C, its name."""
    function = innermost(call)
    code = getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else named(function)


def named(call: object) -> str:
    """The qualified name of the function that a call comes down to; its `repr` if it has none."""
    function = innermost(call)
    return getattr(function, "__qualname__", None) or repr(function)


def innermost(call: Any) -> Any:
    """The function that a `functools.partial` calls in the end, also by way of `Context.run`; anything else itself."""
    call = unwrapped(call)
    return getattr(call, "__func__", call)


def unwrapped(call: Any) -> Any:
    """What a `functools.partial` calls in the end, a function or a method; anything else itself."""
    while isinstance(call, partial):
        by_context = bool(call.args) and isinstance(getattr(call.func, "__self__", None), Context)
        call = call.args[0] if by_context else call.func
    return call


def owner_of(call: object) -> object:
    """The object whose method this is; None if it is no method."""
    return getattr(call, "__self__", None)


def place_of_instruction(code: CodeType, instruction: int) -> str:
    """ "file:line" of an instruction, by its offset in bytes."""
    line = next((line for start, end, line in code.co_lines() if start <= instruction < end), None)
    return f"{code.co_filename}:{line}"
