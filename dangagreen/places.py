"""Where the code of a call stands in the sources, as "file:line", for log lines and reports.

Rules: asked after the fact and by who looks, never on the way of the data; it never raises. What does not belong here:
frames, and whose code it is.
"""

from __future__ import annotations

from contextvars import Context
from functools import partial
from types import BuiltinFunctionType, CodeType
from typing import Any

from dangagreen.frames import is_our_code


def place_of(call: object) -> str:
    """ "file:line" of the function that a call comes down to, through partials; of one that is in C, its name.

    Of a class that is its `__init__`, if that is neither in C nor ours; otherwise its name.
    """
    code = code_of(call)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else named(call)


def code_of(call: object) -> CodeType | None:
    """The code of the function that a call comes down to, of a class that of its `__init__`; None where there is none.

    So it is where that is in C, or of a class ours.
    """
    function = innermost(call)
    if isinstance(function, type):
        code: CodeType | None = getattr(getattr(function, "__init__", None), "__code__", None)
        return None if code is None or is_our_code(code) else code
    return getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)


def origin_of(call: object) -> tuple[CodeType, int] | None:
    """The code of a call, with its first instruction, as `place_of_instruction` takes it; None where there is none."""
    code = code_of(call)
    return None if code is None else (code, 0)


def named(call: object) -> str:
    """The qualified name of the function that a call comes down to; its `repr` if it has none.

    Of a function in C with its module, such as `time.sleep`: it has no place that would tell.
    """
    function = innermost(call)
    name = getattr(function, "__qualname__", None) or repr(function)
    if isinstance(function, BuiltinFunctionType) and function.__module__ not in (None, "builtins"):
        return f"{function.__module__}.{name}"
    return name


def with_place(call: object) -> str:
    """ "name (file:line)" of the function that a call comes down to."""
    return f"{named(call)} ({place_of(call)})"


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
    """ "file:line" of an instruction, by its offset in bytes; of one that is in no line that of the function."""
    line = next((line for start, end, line in code.co_lines() if start <= instruction < end), None)
    return f"{code.co_filename}:{line or code.co_firstlineno}"
