"""The conformance suite: a sample of all combinations, chosen anew in each run; `--matrix=all` runs every one of them.

`--matrix-seed=N`, which each run prints, repeats a sample and its random numbers.
"""

from __future__ import annotations

from random import Random

import pytest

from tests.conformance.conversation import Conversation
from tests.conformance.matrix import CASES, STYLES, combinations, sample
from tests.conformance.styles_tasks import Canceller
from tests.conformance.transports import TRANSPORTS, Tls


def pytest_generate_tests(metafunc):
    if "combination" in metafunc.fixturenames:
        config = metafunc.config
        chosen = combinations() if config.getoption("--matrix") == "all" else sample(config.getoption("--matrix-seed"))
        metafunc.parametrize("combination", [pytest.param(one, id=one.id, marks=slow(one)) for one in chosen])


def slow(one):
    """Whether to mark it as slow: at each park a connection of its own, in the kernel, or with a handshake."""
    costly = one.poller is not None or isinstance(TRANSPORTS[one.transport], Tls)
    return [pytest.mark.slow] if one.cancelled and costly else []


@pytest.fixture
def poller_class(combination):
    """That of the combination, for `real_loop`."""
    return combination.poller


@pytest.fixture
def case_loop(request, combination):
    """The loop of a combination: a real one over its poller, or the virtual one."""
    return request.getfixturevalue("loop" if combination.poller is None else "real_loop")


def holds(loop, combination, seed, canceller=None):
    """Run a case once."""
    rng = Random(f"{seed} {combination.id}")
    style = STYLES[combination.style](canceller)
    conversation = Conversation(loop, TRANSPORTS[combination.transport], style, rng)
    try:
        CASES[combination.case](conversation)
    finally:
        conversation.end()


def test_a_case_holds(combination, case_loop, pytestconfig):
    seed = pytestconfig.getoption("--matrix-seed")
    if not combination.cancelled:
        return holds(case_loop, combination, seed)
    number = 0
    while True:
        canceller = Canceller(number, Random(f"{seed} {number}").randrange(4))
        try:
            holds(case_loop, combination, seed, canceller)
        except BaseException as error:
            error.add_note(f"cancelled at park {number}, {canceller.turns} turns later")
            raise
        if not canceller.fired:
            break
        number += 1 + number // 8  # not each of hundreds
    return None
