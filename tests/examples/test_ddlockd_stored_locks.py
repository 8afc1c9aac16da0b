"""Locks in a store that is slow or away at a bad moment."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import dangagreen as d
from ddlockd import stored_locks
from ddlockd.locks import Lease, Locks
from ddlockd.stored_locks import StoredLocks
from ddlockd.stores import StoreError
from lock_clients import Holder


class Keeper:
    """Locks in a dictionary. It waits while the gate is shut, and fails while it is away."""

    kind = "Test"

    def __init__(self) -> None:
        self.rows: dict[bytes, int] = {}
        self.gate = threading.Event()
        self.gate.set()
        self.away = False
        self.asked: list[str] = []
        self.last = 0

    def _answer(self, what: str) -> None:
        self.asked.append(what)
        assert self.gate.wait(10)
        if self.away:
            raise OSError("away")

    def open(self) -> int:
        self._answer("open")
        return 0

    def take(self, name: bytes, connection: int, holder: str, numbered: bool) -> int | None:
        self._answer("take")
        if self.rows.setdefault(name, connection) != connection:
            return None
        self.last += numbered
        return self.last if numbered else 0

    def release(self, name: bytes, connection: int) -> bool:
        self._answer("release")
        if self.rows.get(name) != connection:
            return False
        del self.rows[name]
        return True

    def forget(self, connection: int) -> None:
        self._answer("forget")
        self.rows = {name: holder for name, holder in self.rows.items() if holder != connection}

    def holder(self, name: bytes) -> tuple[str, int] | None:
        self._answer("holder")
        return (f"client {self.rows[name]}", 0) if name in self.rows else None

    def everything(self) -> list[tuple[bytes, str]]:
        self._answer("everything")
        return [(name, f"client {holder}") for name, holder in self.rows.items()]

    def close(self) -> None:
        self._answer("close")


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[StoredLocks, Keeper]]:
    monkeypatch.setattr(stored_locks, "RETRY_SECONDS", 0.01)
    with d.Loop():
        keeper = Keeper()
        locks = StoredLocks(keeper)
        assert locks.open() == 0
        yield locks, keeper
        keeper.gate.set()
        locks.close()


def until(condition: Callable[[], object]) -> None:
    with d.timeout(10):
        while not condition():
            d.sleep(0.001)


def waits_in_line(locks: Locks, client: Holder, name: bytes, order: list[Holder]) -> None:
    """As a dialogue does it."""
    lease, turn = Lease(), locks.join(name)
    try:
        while not locks.take_in_turn(client, name, lease, turn):
            turn.wait(locks.patience(name, turn))
        order.append(client)
    finally:
        locks.leave(name, turn)


def test_a_connection_that_ends_while_it_takes(stored: Any) -> None:
    locks, keeper = stored
    client = Holder()
    keeper.gate.clear()
    task = d.spawn(locks.trylock, client, b"x")
    until(lambda: "take" in keeper.asked)
    client.closed = True
    locks.release_all(client)
    keeper.gate.set()
    d.wait([task])
    assert task.result() is False
    until(lambda: not keeper.rows)
    assert not locks.holders


def test_a_connection_that_had_ended_before_it_took(stored: Any) -> None:
    """Its turn came in the same moment."""
    locks, keeper = stored
    client = Holder()
    locks.release_all(client)
    client.closed = True
    assert not locks.take(client, b"x", Lease())
    until(lambda: keeper.asked[-1] == "release")
    assert not keeper.rows
    assert not locks.holders


def test_a_connection_that_ends_while_it_frees(stored: Any) -> None:
    locks, keeper = stored
    client, other = Holder(), Holder()
    assert locks.trylock(client, b"x")
    keeper.gate.clear()
    task = d.spawn(locks.release, client, b"x")
    until(lambda: "release" in keeper.asked)
    client.closed = True
    locks.release_all(client)
    keeper.gate.set()
    assert locks.trylock(other, b"x")
    d.wait([task])
    assert locks.holders == {b"x": other}
    assert keeper.rows == {b"x": other.number}


def test_a_time_that_is_up_while_it_takes(stored: Any) -> None:
    locks, keeper = stored
    client, other = Holder(), Holder()
    keeper.gate.clear()
    with d.move_on_after(0.01) as scope:
        locks.take(client, b"x", Lease())
    assert scope.cancelled_caught
    keeper.gate.set()
    until(lambda: locks.trylock(other, b"x"))
    assert keeper.rows == {b"x": other.number}


def test_a_time_that_is_up_in_the_moment_of_the_answer(stored: Any) -> None:
    locks, keeper = stored
    loop = d.current_loop()
    client = Holder()
    keeper.gate.clear()

    def time_is_up(scope: d.CancelScope) -> None:
        keeper.gate.set()
        while b"x" not in keeper.rows or not loop.ready:  # until the answer is on its way
            pass
        scope.cancel()

    with d.move_on_after(None) as scope:
        loop.add_timer(0.01, lambda: time_is_up(scope))
        locks.take(client, b"x", Lease())
    assert scope.cancelled_caught
    until(lambda: not keeper.rows)
    assert not locks.holders


def test_who_came_first_is_first_also_while_the_store_answers(stored: Any) -> None:
    locks, keeper = stored
    holder, first, second = Holder(), Holder(), Holder()
    order: list[Holder] = []
    assert locks.trylock(holder, b"x")
    del locks.holders[b"x"]  # as if it were another server's
    keeper.gate.clear()
    tasks = [d.spawn(waits_in_line, locks, first, b"x", order)]
    until(lambda: keeper.asked.count("take") == 2)
    tasks.append(d.spawn(waits_in_line, locks, second, b"x", order))
    d.sleep(0.01)
    keeper.gate.set()
    until(lambda: len(keeper.asked) > 3)
    keeper.rows.clear()
    until(lambda: order)
    locks.release(order[0], b"x")
    d.wait(tasks)
    assert order == [first, second]


def test_a_lease_that_ends_while_it_is_freed(stored: Any) -> None:
    locks, keeper = stored
    client, other = Holder(), Holder()
    assert locks.take(client, b"x", Lease(0.05))
    keeper.gate.clear()
    task = d.spawn(locks.release, client, b"x")
    until(lambda: not client.held)  # its time is up
    keeper.gate.set()
    d.wait([task])
    assert task.result() is True
    assert locks.trylock(other, b"x")
    assert keeper.rows == {b"x": other.number}


def test_what_ends_while_the_store_is_away_is_freed_when_it_is_back(stored: Any, capsys: Any) -> None:
    locks, keeper = stored
    gone, leased, keeps, waiter = (Holder() for _ in range(4))
    order: list[Holder] = []
    assert locks.trylock(gone, b"a")
    assert locks.take(leased, b"b", Lease(0.02))
    assert locks.trylock(keeps, b"c")
    task = d.spawn(waits_in_line, locks, waiter, b"a", order)
    d.sleep(0)
    keeper.away = True
    gone.closed = True
    locks.release_all(gone)
    with pytest.raises(StoreError, match="away"):
        locks.release(keeps, b"c")
    with pytest.raises(StoreError, match="away"):
        locks.trylock(keeps, b"d")
    until(lambda: not leased.held)
    d.wait([task])  # it was told that its turn has come, and could not ask
    with pytest.raises(StoreError):
        task.result()
    keeper.away = False
    until(lambda: set(keeper.rows) == {b"c"})
    assert locks.holders == {b"c": keeps}
    assert locks.release(keeps, b"c")
    assert "ddlockd: Test: OSError('away')" in capsys.readouterr().err


def test_a_take_that_has_failed_may_have_succeeded(stored: Any, capsys: Any) -> None:
    """The store has taken it, and went away before it could say so."""
    locks, keeper = stored
    client, other = Holder(), Holder()
    take = keeper.take

    def fails(*arguments: Any) -> int | None:
        take(*arguments)
        keeper.take = take
        raise OSError("lost")

    keeper.take = fails
    with pytest.raises(StoreError, match="lost"):
        locks.trylock(client, b"x")
    assert locks.trylock(other, b"x")
    assert keeper.rows == {b"x": other.number}
    assert "lost" in capsys.readouterr().err


def test_a_lock_that_the_store_has_lost_can_be_given_up(stored: Any) -> None:
    locks, keeper = stored
    client, other = Holder(), Holder()
    assert locks.trylock(client, b"x")
    keeper.rows.clear()
    assert not locks.release(client, b"x")
    assert locks.trylock(other, b"x")


def test_what_is_owed_at_the_end_is_given_back(stored: Any) -> None:
    locks, keeper = stored
    client = Holder()
    assert locks.trylock(client, b"x")
    locks.release_all(client)
    locks.close()
    assert not keeper.rows
    assert keeper.asked[-1] == "close"


def test_the_end_waits_for_one_call_and_no_more(stored: Any, capsys: Any) -> None:
    locks, keeper = stored
    clients = [Holder() for _ in range(10)]
    keeper.gate.clear()
    tasks = [d.spawn(locks.trylock, client, b"x") for client in clients]
    until(lambda: "take" in keeper.asked)
    for client in clients:
        client.closed = True
        locks.release_all(client)
    keeper.away = True
    threading.Timer(0.05, keeper.gate.set).start()
    locks.close()
    assert keeper.asked == ["open", "take", "forget"]
    assert "away" in capsys.readouterr().err
    for task in tasks:
        task.cancel()
    d.wait(tasks)
    assert "raised" not in capsys.readouterr().err
