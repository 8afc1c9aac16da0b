"""What is over and not freed: nothing is kept alive by being noted."""

from __future__ import annotations

from dangagreen.loop.gone import Gone
from tests.helpers import Thing


def test_it_is_there_as_long_as_something_refers_to_it():
    gone, one, other = Gone(), Thing(), Thing()
    gone.add(one)
    gone.add(other)
    gone.add(other)
    assert {id(thing) for thing in gone.left()} == {id(one), id(other)}
    del other
    assert gone.left() == [one]
    del one
    assert gone.left() == []
