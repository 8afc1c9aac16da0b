"""A waiter that rests, and whose greenlet others borrow meanwhile."""

from __future__ import annotations

import contextvars
from functools import partial

import greenlet

import dangagreen as d
from dangagreen.green.lender import Lender
from dangagreen.green.waiters import WaitKind, wake


class Borrowed(Lender):
    """Parks until it is woken, and notes in which greenlets it was."""

    __slots__ = ("own", "sides", "woken")

    def __init__(self, loop):
        super().__init__(loop)
        self.context = contextvars.copy_context()
        self.sides = []
        self.come, self.leave = (partial(self.sides.append, side) for side in ("come", "leave"))
        loop.runnable.append(self.start)

    def run(self):
        self.set_hub(self.to_hub)
        self.own = greenlet.getcurrent()
        self.woken = False
        self.rest(WaitKind("borrowed", lambda subject, waiter: subject.append("undone")), self.sides)
        self.woken = True
        self.done = True
        self.worker = None

    def lend(self, what):
        self.sides.append("lends")
        return what, greenlet.getcurrent()


def test_a_parked_lender_has_calls_made_in_its_greenlet_and_stays_parked(loop):
    lender = Borrowed(loop)

    def work():
        d.sleep(0)
        assert [lender.borrow(n) for n in range(2)] == [(n, lender.own) for n in range(2)]
        assert not lender.woken
        assert d.current_loop().current is not lender
        wake(lender)
        d.sleep(0)

    d.run(work)
    assert lender.woken
    assert lender.sides == ["leave", *["come", "lends", "leave"] * 2, "undone", "come"]


def test_a_reset_ends_a_parked_lender_and_takes_back_what_was_to_wake_it(loop):
    lender = Borrowed(loop)
    d.run(d.sleep, 0)
    loop.reset()
    assert lender.sides == ["leave", "undone", "come"]
    assert not lender.woken
