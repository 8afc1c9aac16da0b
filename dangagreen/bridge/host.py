"""The greenlet that runs an asyncio loop: a waiter of ours that is no task.

Rules: no scope and no cancellation of a task interrupts it: what ends it is asyncio's affair; the caller that waits for
it is woken at its end. What does not belong here: when it parks (selector), and what it runs (event_loop).
"""

from __future__ import annotations

import asyncio
from contextvars import Context, copy_context
from typing import Any

from dangagreen.green.lender import Lender
from dangagreen.green.sched import scheduler
from dangagreen.green.waiters import Waiter, wake


class Host(Lender):
    """Who runs an asyncio loop. It is no task: nobody joins or cancels it."""

    __slots__ = {
        "aio": "The asyncio loop.",
        "caller": "The waiter that has asked for that; None for the loop that `await_` has made.",
        "error": "What has ended it.",
    }

    def __init__(self, aio: Any, caller: Waiter | None) -> None:
        super().__init__(aio.hosting.ours)
        self.aio, self.caller = aio, caller
        self.come, self.leave = aio.hosting.border.to_asyncio, aio.hosting.border.to_ours
        self.context = copy_context()
        self.error: BaseException | None = None
        self.loop.runnable.append(self.start)

    @property
    def name(self) -> str:
        return repr(self.aio)

    def in_words(self) -> str:
        return f"a coroutine or a callback of {self.aio!r}"

    def run(self) -> None:
        self.loop.current = self
        self.set_hub(self.to_hub)
        try:
            self.aio.run_here(self)
        except BaseException as error:
            self.error = error
        self.loop.current = None
        self.end(self.error)
        if self.error is not None and self.caller is None:
            raise self.error

    def lend(self, what: tuple[Any, Context]) -> asyncio.Task[Any] | BaseException:
        """A task that runs this coroutine in this context, and has already: to its first suspension, or its end.

        Or what ends the program, and no task takes. All steps of a coroutine are made in one greenlet, which some keep
        as the parent of others (SQLAlchemy).
        """
        coroutine, context = what
        try:
            return asyncio.Task(coroutine, loop=self.aio, eager_start=True, context=context)  # type: ignore[call-arg, unused-ignore]
        except BaseException as error:
            return error

    def end(self, error: BaseException | None) -> None:
        self.done, self.error, self.worker = True, error, None
        scheduler(self.loop).note_end(self)
        if self.caller is not None and self.caller.subject is self:
            wake(self.caller)
