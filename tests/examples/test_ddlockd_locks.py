"""The locks of ddlockd in memory: turns and leases."""

from __future__ import annotations

import dangagreen as d
from dangagreen.testing import virtual_loop
from ddlockd.locks import Lease, Locks
from lock_clients import Holder


def test_nobody_overtakes_the_line() -> None:
    with virtual_loop():
        locks, holder, first, second, other = Locks(), Holder(), Holder(), Holder(), Holder()
        assert locks.trylock(holder, b"x")
        turns = [locks.join(b"x"), locks.join(b"x")]
        assert locks.waiters(b"x") == 2
        assert locks.release(holder, b"x")
        assert [turn.is_set() for turn in turns] == [True, False]
        assert not locks.trylock(other, b"x")  # it is free, but not for this one
        assert not locks.take_in_turn(second, b"x", Lease(), turns[1])
        assert locks.take_in_turn(first, b"x", Lease(), turns[0])
        locks.leave(b"x", turns[0])
        assert not turns[1].is_set()
        locks.release_all(first)
        assert turns[1].is_set()
        assert locks.take_in_turn(second, b"x", Lease(), turns[1])
        locks.leave(b"x", turns[1])
        assert not locks.queues


def test_who_leaves_the_line_in_its_turn_calls_the_next() -> None:
    with virtual_loop():
        locks, holder = Locks(), Holder()
        locks.trylock(holder, b"x")
        turns = [locks.join(b"x") for _ in range(3)]
        locks.leave(b"x", turns[1])
        locks.release(holder, b"x")
        locks.leave(b"x", turns[0])
        assert turns[2].is_set()


def test_a_lease_and_the_end_of_its_connection_at_the_same_moment() -> None:
    with virtual_loop() as loop:
        locks, client, other = Locks(), Holder(), Holder()
        loop.add_timer(1.0, lambda: locks.release_all(client))
        assert locks.take(client, b"x", Lease(1.0))
        loop.add_timer(1.0, lambda: locks.trylock(other, b"x"))
        d.sleep(2)
        assert locks.holders == {b"x": other}
        assert not locks.leases
        assert len(loop.timers) == 0


def test_renewing_moves_the_end_of_every_lease_and_of_nothing_else() -> None:
    with virtual_loop():
        locks, client = Locks(), Holder()
        locks.take(client, b"short", Lease(1.0))
        locks.take(client, b"long", Lease(3.0))
        locks.take(client, b"endless", Lease())
        locks.take(client, b"plain")
        d.sleep(0.9)
        locks.renew(client)
        d.sleep(0.9)
        assert len(client.held) == 4
        d.sleep(0.2)
        assert set(client.held) == {b"long", b"endless", b"plain"}
        d.sleep(2)
        assert set(client.held) == {b"endless", b"plain"} == set(locks.holders)
