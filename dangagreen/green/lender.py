"""Lender: a waiter whose greenlet others may borrow, while it is parked. The bridge runs asyncio's loops in such.

Rules: what is called in a borrowed greenlet neither parks nor raises. What does not belong here: asyncio.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from greenlet import getcurrent

from dangagreen.green.life import Runnable
from dangagreen.green.sched import Switch, scheduler
from dangagreen.green.waiters import WaitKind
from dangagreen.parks import parks


class Lender(Runnable):
    """A waiter whose greenlet others may borrow while it is parked, for a call that does not park.

    Who borrows it switches to it from deep within a call, and it parks from deep within one: since Python 3.12 greenlet
    makes an object of each frame between, which takes three times as long as the call. So these are few.
    """

    __slots__ = {
        "come": "Called when it, or who borrows it, goes on in its greenlet;",
        "leave": "and when others do.",
    }

    come: Callable[[], object]
    leave: Callable[[], object]

    def set_hub(self, _to_hub: Switch) -> None:
        self.to_hub = scheduler(self.loop).to_hub  # its parking needs no guard

    @parks
    def rest(self, wait: WaitKind, subject: Any) -> None:
        """Parks until it is woken: `park` for who is no task, so that nothing but a reset interrupts it."""
        loop = self.loop
        self.wait, self.subject = wait, subject
        to_hub: Callable[[], Any] = self.to_hub
        self.leave()
        loop.current = None
        try:
            loan = to_hub()
            while loan:
                borrower, what = loan
                self.come()
                lent = self.lend(what)
                self.leave()
                loan = borrower(lent)
        finally:
            if self.wait is not None:
                wait.undo(subject, self)
            self.wait = self.subject = None
            loop.current = self
            self.come()

    def lend(self, what: Any) -> Any:
        """Called in its greenlet with what `borrow` is given; returns what that returns. Must not raise, nor park."""
        raise NotImplementedError

    def borrow(self, what: Any) -> Any:
        """Have `lend(what)` called in its greenlet, now. Only while it is parked."""
        return self.worker.resume(getcurrent().switch, what)
