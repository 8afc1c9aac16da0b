"""Exceptions that objects keep: a socket its close reason, a task its failure.

A traceback refers to frames, and these to the locals of each function that the exception has passed: the socket, the
data being written, the whole write queue. Kept by the socket, that is a reference cycle, whose memory only the garbage
collector frees. Rules: a socket keeps, and raises, copies that have no traceback; a failed task's exception keeps its
traceback, without the locals of this package's frames. What does not belong here: when an error is reported.
"""

from __future__ import annotations

import builtins
import contextlib
import weakref
from typing import Any, TypeVar

from dangagreen.frames import is_ours

_IN_PYTHON = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class whose __new__ and __init__ may be Python code

_OS_ERRORS = {kind for kind in vars(builtins).values() if isinstance(kind, type) and issubclass(kind, OSError)}

Error = TypeVar("Error", bound=BaseException)


def without_traceback(error: Error, owner: object = None) -> Error:
    """An equal exception: the same type, arguments and attributes, without traceback, context and cause.

    A reference to `owner`, the object that keeps it, becomes a weak proxy. Returns the exception itself if its type
    cannot be copied.
    """
    if type(error) in _OS_ERRORS and not error.__dict__ and error.filename is None:  # type: ignore[attr-defined]
        args = error.args
        if len(args) == 2 and type(args[0]) is int and type(args[1]) is str:  # the usual case: of a system call
            return type(error)(*args)
    known: dict[int, Any] = {} if owner is None else {id(owner): weakref.proxy(owner)}
    return _copy(error, known)  # type: ignore[no-any-return]


def is_like(error: BaseException, kept: BaseException | None) -> bool:
    """Whether the error is a copy of the one that is kept."""
    return type(error) is type(kept) and error.args == kept.args


def _copy(error: Any, known: dict[int, Any]) -> Any:
    known[id(error)] = None  # in case it refers to itself
    try:
        copy = _blank(type(error), [_part(value, known) for value in _arguments(error)])
    except Exception:  # some type of an extension module
        return error
    state: Any = object.__getstate__(error)  # not a __getstate__ of its class
    attributes, slots = state if isinstance(state, tuple) else (state, {})
    copy.__dict__.update({name: _part(value, known) for name, value in (attributes or {}).items()})
    for name, value in slots.items():
        object.__setattr__(copy, name, _part(value, known))
    if isinstance(error, OSError):
        for name in ("filename", "filename2"):  # which are not among the arguments
            if (value := getattr(error, name)) is not None:
                setattr(copy, name, _part(value, known))
    known[id(error)] = copy
    return copy


def _arguments(error: BaseException) -> tuple[Any, ...]:
    if isinstance(error, BaseExceptionGroup):
        return error.message, list(error.exceptions)
    return error.args


def _part(value: Any, known: dict[int, Any]) -> Any:
    """A copy of an argument or attribute of an error that is copied."""
    if id(value) in known:
        return known[id(value)]
    if isinstance(value, BaseException):
        return _copy(value, known)
    return [_part(one, known) for one in value] if type(value) is list else value


def _blank(kind: type[BaseException], arguments: list[Any]) -> Any:
    """An instance made without any Python code of its class: its constructor may take other arguments, or do things."""
    for base in kind.__mro__:
        if not base.__flags__ & _IN_PYTHON:
            try:
                made: Any = base.__new__(kind, *arguments)
                base.__init__(made, *arguments)  # type: ignore[misc]
                return made
            except TypeError:  # with two bases of the interpreter's own, one of them may be refused
                continue
    raise TypeError(f"{kind.__name__} cannot be copied")


def forget_locals(error: BaseException, all_frames: bool = False) -> None:
    """Clear the locals of ended frames in the tracebacks of an exception, its context and cause.

    Of this package's frames, or of `all_frames`. The tracebacks print as before.
    """
    told, seen = [error], {id(error)}
    for one in told:
        step = one.__traceback__
        while step is not None:
            frame, step = step.tb_frame, step.tb_next
            if all_frames or is_ours(frame):
                with contextlib.suppress(RuntimeError):  # it is still running
                    frame.clear()
                    _ = frame.f_locals  # up to Python 3.12 an earlier read has left a copy there, which this updates
        for other in (one.__context__, one.__cause__, *getattr(one, "exceptions", ())):
            if isinstance(other, BaseException) and id(other) not in seen:
                seen.add(id(other))
                told.append(other)
