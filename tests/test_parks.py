"""The list of the functions that may park."""

import pytest

from dangagreen.parks import PARKING, parks


@pytest.fixture
def listed():
    before = dict(PARKING)
    yield lambda: [name for name in PARKING if name not in before]
    PARKING.clear()
    PARKING.update(before)


def test_a_function_is_listed_as_it_is_written_and_not_wrapped(listed):
    def wait():
        pass

    assert parks(wait) is wait
    assert wait.__parks__ is True
    assert listed() == [(__name__, wait.__qualname__)]


def test_a_method_is_listed_with_its_class(listed):
    class Thing:
        @parks
        def wait(self):
            pass

    assert listed() == [(__name__, f"{Thing.__qualname__}.wait")]


def test_what_is_public_is_listed_by_the_module_that_it_is_written_in():
    assert ("dangagreen.green.sleep", "sleep") in PARKING
    assert ("dangagreen.streams.writing", "StreamSocket.drain") in PARKING
