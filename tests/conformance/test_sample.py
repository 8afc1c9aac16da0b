"""The sample of the conformance suite: what is in it, whatever the seed; and that a case can fail."""

from __future__ import annotations

import pytest

import dangagreen as d
from dangagreen.testing import WireEnd
from tests.conformance.matrix import CANCELLED, CASES, SAMPLE, STYLES, Combination, combinations, sample
from tests.conformance.test_matrix import holds
from tests.conformance.transports import TRANSPORTS

WIRE = next(number for number, transport in enumerate(TRANSPORTS) if transport.virtual)


def test_a_seed_repeats_its_sample_and_another_has_another():
    assert sample(1) == sample(1) != sample(2)


@pytest.mark.parametrize("seed", range(3))
def test_a_sample_has_each_case_and_each_transport_in_each_style_and_over_each_poller(seed):
    chosen, everything = sample(seed), combinations()
    for part in (
        lambda one: (one.case, one.cancelled),
        lambda one: (one.style, one.transport),
        lambda one: (one.transport, one.poller),
    ):
        assert {part(one) for one in chosen} == {part(one) for one in everything if part(one) is not None}
    assert SAMPLE <= len(chosen) <= SAMPLE + 20
    assert sum(one.cancelled for one in chosen) <= CANCELLED + len(CASES)


def loses(monkeypatch):
    """recv loses a byte of each piece of more than a hundred."""
    recv = WireEnd.recv
    monkeypatch.setattr(
        WireEnd, "recv", lambda end, n, flags=0: data[:-1] if len(data := recv(end, n, flags)) > 100 else data
    )


def swaps(monkeypatch):
    """What is pushed back goes behind what is unread."""

    def push_back_read(sock, data):
        rest = sock.read(65536) or b""
        push(sock, rest + bytes(data))

    push = d.Socket.push_back_read
    monkeypatch.setattr(d.Socket, "push_back_read", push_back_read)


def forgets(monkeypatch):
    """finish() closes."""
    monkeypatch.setattr(d.Socket, "finish", lambda sock: sock.close())


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    ("fault", "case"),
    [
        (loses, "bulk_comes_whole"),
        (swaps, "pushed_back_bytes_come_first"),
        (forgets, "finish_sends_what_is_queued"),
    ],
    ids=lambda argument: getattr(argument, "__name__", None),
)
def test_a_fault_of_the_library_fails_a_case(fault, case, style, loop, monkeypatch):
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        holds(loop, Combination(case, style, WIRE, None, False), 1)
