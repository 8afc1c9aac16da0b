"""Fencing tokens of ddlockd grow, whatever the clock does, and over restarts."""

from __future__ import annotations

from pathlib import Path

import pytest

from dangagreen.testing import virtual_loop
from ddlockd import tokens
from ddlockd.locks import Lease, Locks
from ddlockd.stores import StoreError
from ddlockd.tokens import Tokens
from lock_clients import Holder


def test_tokens_grow_whatever_the_clock_does(monkeypatch: pytest.MonkeyPatch) -> None:
    with virtual_loop():
        monkeypatch.setattr(tokens.time, "time_ns", lambda: 100)
        locks, client = Locks(), Holder()
        leases = [Lease() for _ in range(5)]
        for lease, now in zip(leases, [100, 100, 50, 10**30, 200], strict=True):
            monkeypatch.setattr(tokens.time, "time_ns", lambda now=now: now)
            assert locks.take(client, b"x", lease)
            locks.release(client, b"x")
        assert [lease.token for lease in leases] == [101, 102, 103, 104, 105]


def test_tokens_grow_over_a_restart_whatever_the_clock_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, given = tmp_path / "tokens", []
    for now in 2 * 10**18, 10**18, 3 * 10**18:  # each a run of the server
        monkeypatch.setattr(tokens.time, "time_ns", lambda now=now: now)
        kept = Tokens(str(path))
        given += [kept.next() for _ in range(3)]
    assert given == sorted(set(given))
    other = Tokens(str(path))  # of a server beside it
    kept._last = kept._most  # a million later
    given += [other.next(), kept.next()]
    assert given == sorted(set(given))


def test_tokens_that_cannot_be_kept_take_no_lock(tmp_path: Path) -> None:
    with virtual_loop():
        path = tmp_path / "tokens"
        locks, client = Locks(Tokens(str(path))), Holder()
        locks._tokens._last = locks._tokens._most
        path.write_text("not a number")
        with pytest.raises(StoreError, match="tokens"):
            locks.take(client, b"x", Lease())
        assert (locks.holders, client.held) == ({}, {})
        assert locks.take(client, b"x")
