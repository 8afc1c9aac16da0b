"""All combinations of a case, a style, a transport and a poller, and a random sample of them.

Rules: the sample, and all random numbers of the cases, follow from one seed, which is printed; `--matrix-seed` repeats
them.
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from dangagreen.loop.pollers import available_pollers
from tests.conformance import cases_ends, cases_handover, cases_reading, cases_writing
from tests.conformance.styles_callbacks import Callbacks
from tests.conformance.styles_handover import Handover
from tests.conformance.styles_tasks import Tasks
from tests.conformance.transports import TRANSPORTS

SAMPLE = 400  # combinations, with some cases in each style that are cancelled at each of their parks
CANCELLED = 60  # of these

STYLES = {"callbacks": Callbacks, "tasks": Tasks, "handover": Handover}
CASES = {
    name: case
    for module in (cases_reading, cases_writing, cases_ends, cases_handover)
    for name, case in vars(module).items()
    if getattr(case, "is_case", False)
}


class Combination(NamedTuple):
    """One test. `poller` is a class, None for the virtual one; `cancelled`: at each park in turn."""

    case: str
    style: str
    transport: int
    poller: type | None
    cancelled: bool

    @property
    def id(self):
        poller = self.poller.__name__.removesuffix("Poller").lower() if self.poller is not None else "virtual"
        name = f"{self.case}-{self.style}-{TRANSPORTS[self.transport].name}-{poller}"
        return f"{name}-cancelled" if self.cancelled else name


def combinations():
    """All of them, in an order that never changes."""
    return [
        Combination(case, style, number, poller, cancelled)
        for case in CASES
        for style in STYLES
        for number, transport in enumerate(TRANSPORTS)
        for poller in ([None] if transport.virtual else available_pollers())
        for cancelled in ([False] if style == "callbacks" else [False, True])
    ]


def sample(seed):
    """A random sample: each case, style, transport and poller is in it, wherever the seed leads."""
    random = Random(seed)
    everything = combinations()
    random.shuffle(everything)
    chosen, met, cancelled = [], set(), 0
    for one in everything:
        news = {(one.case, one.cancelled), (one.style, one.transport), (one.transport, one.poller)} - met
        if not news and (len(chosen) >= SAMPLE or (one.cancelled and cancelled >= CANCELLED)):
            continue
        met |= news
        cancelled += one.cancelled
        chosen.append(one)
    return sorted(chosen, key=lambda one: one.id)
