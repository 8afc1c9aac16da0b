"""examples/ddlockd_locks.py: lines, leases and tokens in memory, and a store that is slow or away at a bad moment."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ddlockd_locks
import pytest
from ddlockd_locks import Counters, Lease, Locks, StoredLocks, Tokens
from ddlockd_stores import StoreError

import dangagreen as d
from dangagreen.testing import virtual_loop


class Client:
    numbers = iter(range(1, 1_000_000))

    def __init__(self) -> None:
        self.number = next(self.numbers)
        self.held: dict[bytes, None] = {}
        self.closed = False

    def has_unread(self) -> bool:
        return False

    def described(self) -> str:
        return f"client {self.number}"


# -- in memory


def test_nobody_overtakes_the_line() -> None:
    with virtual_loop():
        locks, holder, first, second, other = Locks(), Client(), Client(), Client(), Client()
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
        assert not locks.lines


def test_who_leaves_the_line_in_its_turn_calls_the_next() -> None:
    with virtual_loop():
        locks, holder = Locks(), Client()
        locks.trylock(holder, b"x")
        turns = [locks.join(b"x") for _ in range(3)]
        locks.leave(b"x", turns[1])
        locks.release(holder, b"x")
        locks.leave(b"x", turns[0])
        assert turns[2].is_set()


def test_tokens_grow_whatever_the_clock_does(monkeypatch: pytest.MonkeyPatch) -> None:
    with virtual_loop():
        monkeypatch.setattr(ddlockd_locks.time, "time_ns", lambda: 100)
        locks, client = Locks(), Client()
        leases = [Lease() for _ in range(5)]
        for lease, now in zip(leases, [100, 100, 50, 10**30, 200], strict=True):
            monkeypatch.setattr(ddlockd_locks.time, "time_ns", lambda now=now: now)
            assert locks.take(client, b"x", lease)
            locks.release(client, b"x")
        assert [lease.token for lease in leases] == [101, 102, 103, 104, 105]


def test_tokens_grow_over_a_restart_whatever_the_clock_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, tokens = tmp_path / "tokens", []
    for now in 2 * 10**18, 10**18, 3 * 10**18:  # each a run of the server
        monkeypatch.setattr(ddlockd_locks.time, "time_ns", lambda now=now: now)
        kept = Tokens(str(path))
        tokens += [kept.next() for _ in range(3)]
    assert tokens == sorted(set(tokens))
    other = Tokens(str(path))  # of a server beside it
    kept._last = kept._most  # a million later
    tokens += [other.next(), kept.next()]
    assert tokens == sorted(set(tokens))


def test_tokens_that_cannot_be_kept_take_no_lock(tmp_path: Path) -> None:
    with virtual_loop():
        path = tmp_path / "tokens"
        locks, client = Locks(Tokens(str(path))), Client()
        locks._tokens._last = locks._tokens._most
        path.write_text("not a number")
        with pytest.raises(StoreError, match="tokens"):
            locks.take(client, b"x", Lease())
        assert (locks.holders, client.held) == ({}, {})
        assert locks.take(client, b"x")


def test_a_clock_that_is_put_back_harms_no_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    counters = Counters()
    counters.count(True)
    monkeypatch.setattr(ddlockd_locks.time, "time", lambda: 0.0)
    counters.count(True)
    assert counters.status() == b"STATUS: OK\nSUCCESSES: 2\nFAILURES: 0\nRUNTIME: 0\nLOAD: 2\n\n"


def test_a_lease_and_the_end_of_its_connection_at_the_same_moment() -> None:
    with virtual_loop() as loop:
        locks, client, other = Locks(), Client(), Client()
        loop.add_timer(1.0, lambda: locks.release_all(client))
        assert locks.take(client, b"x", Lease(1.0))
        loop.add_timer(1.0, lambda: locks.trylock(other, b"x"))
        d.sleep(2)
        assert locks.holders == {b"x": other}
        assert not locks.leases
        assert len(loop.timers) == 0


def test_renewing_moves_the_end_of_every_lease_and_of_nothing_else() -> None:
    with virtual_loop():
        locks, client = Locks(), Client()
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


def test_load_counts_five_minutes_in_steps_of_three_seconds() -> None:
    now = 3_000_000
    counters = Counters(lambda: now)
    for _ in range(300):
        counters.count(True)
        counters.count(False)
        now += 3
    assert counters.load() == 198  # the step that has just begun is one of the hundred
    assert len(counters.buckets) <= 200
    now += 297
    assert counters.load() == 0
    assert counters.status() == b"STATUS: OK\nSUCCESSES: 300\nFAILURES: 300\nRUNTIME: 1197\nLOAD: 0\n\n"


# -- in a store


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
    monkeypatch.setattr(ddlockd_locks, "RETRY_SECONDS", 0.01)
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


def waits_in_line(locks: Locks, client: Client, name: bytes, order: list[Client]) -> None:
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
    client = Client()
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
    client = Client()
    locks.release_all(client)
    client.closed = True
    assert not locks.take(client, b"x", Lease())
    until(lambda: keeper.asked[-1] == "release")
    assert not keeper.rows
    assert not locks.holders


def test_a_connection_that_ends_while_it_frees(stored: Any) -> None:
    locks, keeper = stored
    client, other = Client(), Client()
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
    client, other = Client(), Client()
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
    client = Client()
    keeper.gate.clear()

    def time_is_up(scope: d.CancelScope) -> None:
        keeper.gate.set()
        while b"x" not in keeper.rows or not loop._ready:  # until the answer is on its way
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
    holder, first, second = Client(), Client(), Client()
    order: list[Client] = []
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
    client, other = Client(), Client()
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
    gone, leased, keeps, waiter = (Client() for _ in range(4))
    order: list[Client] = []
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
    client, other = Client(), Client()
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
    client, other = Client(), Client()
    assert locks.trylock(client, b"x")
    keeper.rows.clear()
    assert not locks.release(client, b"x")
    assert locks.trylock(other, b"x")


def test_what_is_owed_at_the_end_is_given_back(stored: Any) -> None:
    locks, keeper = stored
    client = Client()
    assert locks.trylock(client, b"x")
    locks.release_all(client)
    locks.close()
    assert not keeper.rows
    assert keeper.asked[-1] == "close"


def test_the_end_waits_for_one_call_and_no_more(stored: Any, capsys: Any) -> None:
    locks, keeper = stored
    clients = [Client() for _ in range(10)]
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
