"""No work grows faster than its amount: the rows of the benchmark `growth`, at sizes that take a moment."""

import pytest

from tests.bench.growth import FLAT, ROWS, exponent, measured

SIZES = (600, 9600)
TRIES = 4  # what is measured is the processor time of a machine that may do other things


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_the_work_grows_no_faster_than_its_amount(name):
    bound = 0.6 if name in FLAT else 1.4
    found = []
    for _ in range(TRIES):
        found.append(exponent(measured(name, SIZES)))
        if found[-1] <= bound:
            return
    assert min(found) <= bound
