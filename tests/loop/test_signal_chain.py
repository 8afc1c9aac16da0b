"""Handlers that take the place of others: put back in any order, and called together where they share."""

from __future__ import annotations

import itertools
import signal

import pytest

from dangagreen.loop.signal_chain import ChainedHandler, handler_of

NUMBER = signal.SIGUSR1


class Noting(ChainedHandler):
    __slots__ = ("heard", "name")

    def __init__(self, name, heard):
        ChainedHandler.__init__(self)
        self.name, self.heard = name, heard
        self.install({NUMBER: signal.getsignal(NUMBER)})

    def handle(self, number, frame):
        self.heard.append(self.name)
        self.pass_on(number, frame)


class Sharing(Noting):
    shares = True


@pytest.fixture(autouse=True)
def as_before():
    def other(number, frame):
        """What was installed before."""

    before = signal.signal(NUMBER, other)
    yield other
    assert signal.getsignal(NUMBER) is other
    signal.signal(NUMBER, before)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_what_was_there_is_put_back_in_whatever_order_they_end(order):
    handlers = [Noting(name, []) for name in range(3)]
    left = set(range(3))
    for name in order:
        handlers[name].restore()
        left.discard(name)
        if left:
            assert signal.getsignal(NUMBER) is handlers[max(left)]


def test_one_that_other_code_has_installed_meanwhile_stays(as_before):
    one = Noting("one", [])
    signal.signal(NUMBER, signal.SIG_IGN)
    one.restore()
    assert signal.getsignal(NUMBER) is signal.SIG_IGN
    signal.signal(NUMBER, as_before)


def test_those_that_share_are_called_too_the_latest_first():
    heard = []
    handlers = [kind(name, heard) for name, kind in enumerate((Sharing, Sharing, Noting, Sharing))]
    signal.raise_signal(NUMBER)
    assert heard == [3]  # the one before it shares nothing, and hears of nothing behind it
    handlers[2].restore()
    signal.raise_signal(NUMBER)
    assert heard == [3, 3, 1, 0]
    handlers[1].restore()
    signal.raise_signal(NUMBER)
    assert heard == [3, 3, 1, 0, 3, 0]
    for one in handlers:
        one.restore()


def test_one_that_other_code_puts_back_when_it_is_over_gives_way_when_it_is_looked_for(as_before):
    heard = []
    first, second = Noting("first", heard), Noting("second", heard)
    saved = signal.getsignal(NUMBER)
    first.restore()
    second.restore()
    signal.signal(NUMBER, saved)
    assert handler_of(NUMBER) is as_before
    assert signal.getsignal(NUMBER) is as_before


def test_one_that_other_code_puts_back_when_it_is_over_gives_way_to_a_signal(as_before):
    heard, others = [], []
    one = Noting("one", heard)
    one.restore()
    signal.signal(NUMBER, lambda number, frame: others.append(number))
    two = Noting("two", heard)
    saved = signal.getsignal(NUMBER)
    two.restore()
    signal.signal(NUMBER, saved)
    signal.raise_signal(NUMBER)
    assert (heard, others) == ([], [NUMBER])
    signal.signal(NUMBER, as_before)


def test_one_that_is_in_use_is_the_handler(as_before):
    one = Noting("one", [])
    assert handler_of(NUMBER) is one
    one.restore()
    assert handler_of(NUMBER) is as_before
