"""What tells the instruments of a loop of its tasks: the table of tasks, and a queue's resumptions exchanged.

Rules: none of it is in place while nobody listens. What does not belong here: greenlets (sched), and who is told.
"""

from __future__ import annotations

from collections.abc import Callable
from types import BuiltinMethodType, MethodType
from typing import Any

from dangagreen.green.waiters import Waiter
from dangagreen.loop.loop import Loop

Resume = Callable[..., Any]


class ToldTasks(dict[Waiter, None]):
    """The tasks of a loop that have not ended. Instruments are told when one comes, and when it goes."""

    __slots__ = {"loop": "The loop."}

    def __init__(self, loop: Loop) -> None:
        super().__init__()
        self.loop = loop

    def __setitem__(self, task: Waiter, nothing: None) -> None:
        dict.__setitem__(self, task, nothing)
        if (instruments := self.loop.instruments) is not None:
            instruments.tell("task", "task_spawned", task)

    def unique_name(self, _task: Waiter) -> str | None:
        """The name of a task that no other has; None where nobody keeps one."""
        return None

    def __delitem__(self, task: Waiter) -> None:
        dict.__delitem__(self, task)
        if (instruments := self.loop.instruments) is not None:
            instruments.tell("task", "task_ended", task)


def exchange(loop: Loop, resumptions: dict[Resume, Resume]) -> None:
    """Put, where a loop is about to resume a task by a key of this dict, its value in the place of it."""
    for queue in (loop.ready, loop.runnable):
        for place, call in enumerate(list(queue)):
            if isinstance(call, (BuiltinMethodType, MethodType)) and call in resumptions:
                queue[place] = resumptions[call]
    for timer in loop.timers.pending():
        if isinstance(timer.callback, (BuiltinMethodType, MethodType)) and timer.callback in resumptions:
            timer.callback = resumptions[timer.callback]
