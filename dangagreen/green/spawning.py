"""spawn: the one call by which most tasks are made.

Rules: compiled where the hot modules are, and so apart from `Task`, whose `run` must not be. What does not belong here:
what becomes of the task.
"""

from __future__ import annotations

import sys
from _thread import get_ident
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from types import FunctionType
from typing import Any

from dangagreen.checks import NOT_RUN
from dangagreen.frames import CALLER
from dangagreen.green.tasks import Params, Result, Task, check_function
from dangagreen.loop.loop import current_loop, here
from dangagreen.loop.turn import latest


def _frames() -> int:
    """How many frames a call of a function of this module has: compiled to C it has none."""
    return int(sys._getframe().f_code is _frames.__code__)


_TO_CALLER = CALLER * _frames()  # what `spawn` gives `sys._getframe` for the frame of its caller


def spawn(function: Callable[Params, Result], /, *args: Params.args, **kwargs: Params.kwargs) -> Task[Result]:
    """Start `function(*args, **kwargs)` in a task of its own, soon, in a copy of the current context. Never parks.

    Raises TypeError for what is no function, and for an `async def` or a generator function.
    """
    named: Callable[..., Any] | str = function
    if type(function) is not FunctionType or function.__code__.co_flags & NOT_RUN:  # a quick test that most pass
        named = check_function("spawn", function)
    recent = latest.loop
    loop: Any = recent if recent is not None and recent.thread == get_ident() else here.loop or current_loop()
    frame = sys._getframe(_TO_CALLER)
    call = partial(function, *args, **kwargs) if args or kwargs else function
    origin = frame.f_code, frame.f_lasti
    task: Task[Result] = Task(loop, call, copy_context(), named, origin)  # `make_task`, in line: 1 percent
    loop.runnable.append(task.start)
    return task
