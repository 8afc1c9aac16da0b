"""What the commands of ddlockd do, in memory: those that wait for a lock, and leases."""

from __future__ import annotations

import re
import socket
from typing import Any

import pytest

import dangagreen as d
from ddlockd.client import Client
from ddlockd.connection import Connection
from lock_clients import DIDNT_HAVE, OK, TAKEN, Peer, check


def test_a_lock_is_waited_for_in_turn(memory: Any) -> None:
    holder, *others = (Peer() for _ in range(4))
    assert holder.says(b"trylock lock=x\n") == OK
    for number, other in enumerate(others):
        assert other.says(b"lock lock=x&timeout=60\n") == b""
        assert holder.says(b"waiters lock=x\n") == b"OK waiters=%d\r\n" % (number + 1)
    tokens = []
    for before, after in zip([holder, *others], others, strict=False):
        assert before.says(b"releaselock lock=x\ntrylock lock=x\n") == OK + TAKEN  # nobody overtakes
        tokens.append(int(after.hears().split(b"=")[1]))
        assert all(other.hears() == b"" for other in others)
    assert tokens == sorted(set(tokens))
    others[-1].goes()
    assert holder.says(b"trylock lock=x\n") == OK
    assert not Connection.locks.queues


def test_the_time_is_up(memory: Any) -> None:
    holder, other = Peer(), Peer()
    holder.says(b"trylock lock=x\n")
    start = memory.time()
    assert other.says(b"lock lock=x&timeout=0\n").startswith(b"ERR timeout ")
    assert other.says(b"lock lock=x&timeout=2.5\nnoop\n") == b""
    d.sleep(2.4)
    assert other.hears() == b""
    d.sleep(0.2)
    assert other.hears() == b"ERR timeout The+lock+was+not+free+in+time\r\n" + OK
    assert memory.time() - start == pytest.approx(2.6)
    assert not Connection.locks.queues
    assert len(memory.timers) == 0


def test_what_is_sent_while_waiting_has_a_limit(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Client, "line_limit", 50)
    holder, other, last = Peer(), Peer(), Peer()
    holder.says(b"trylock lock=x\n")
    other.says(b"trylock lock=y\nlock lock=x\n")
    last.says(b"lock lock=x\n")
    assert other.says(b"noop\n" * 10) == b""
    assert other.says(b"noop\n") == b"ERR line_too_long Too+much+was+sent+while+it+waited+for+a+lock\r\n"
    assert other.client._finishing
    assert holder.says(b"waiters lock=x\ntrylock lock=y\n") == b"OK waiters=1\r\n" + OK
    holder.says(b"releaselock lock=x\n")
    assert last.hears().startswith(b"OK token=")


@pytest.mark.parametrize("command", [b"lock lock=x\n", b"trylock lock=x\nlocks\nlock lock=y\ntrylock lock=z\n"])
def test_one_who_goes_before_it_is_answered(memory: Any, command: bytes) -> None:
    """What it has sent and its end come in one event."""
    other = Peer()
    for end in ("reset", "close"):
        peer = Peer()
        peer.end.send(command)
        getattr(peer.end, end)()
        peer.hears_nothing()
        assert other.says(b"trylock lock=x\nreleaselock lock=x\n") == OK + OK
        assert not Connection.locks.holders
        assert Connection.open == 1


@pytest.mark.parametrize("leaving", ["close", "reset", "end", "end with lines behind"])
def test_one_who_goes_while_it_waits_has_left_the_line(memory: Any, leaving: str) -> None:
    holder, other, last = Peer(), Peer(), Peer()
    holder.says(b"trylock lock=x\n")
    other.says(b"trylock lock=y\nlock lock=x\n")
    last.says(b"lock lock=x\n")
    if leaving == "end with lines behind":
        other.end.send(b"noop\n" * 100)
    {"close": other.end.close, "reset": other.end.reset}.get(leaving, lambda: other.end.shutdown(socket.SHUT_WR))()
    assert last.hears() == b""
    assert holder.says(b"waiters lock=x\n") == b"OK waiters=1\r\n"
    assert holder.says(b"trylock lock=y\n") == OK  # what it held is free
    holder.says(b"releaselock lock=x\n")
    assert last.hears().startswith(b"OK token=")


def test_one_who_goes_at_the_moment_of_its_turn(memory: Any) -> None:
    holder, other, last = Peer(), Peer(), Peer()
    holder.says(b"trylock lock=x\n")
    other.says(b"lock lock=x\n")
    last.says(b"lock lock=x\n")
    holder.end.send(b"releaselock lock=x\n")
    other.end.close()
    assert holder.hears() == OK
    assert last.hears().startswith(b"OK token=")


def test_a_lease_ends_unless_it_is_renewed(memory: Any) -> None:
    holder, other = Peer(), Peer()
    token = re.compile(rb"OK token=\d+\r\n")
    check(holder.says(b"lock lock=x&ttl=10\n"), [token])
    holder.says(b"trylock lock=kept\n")
    for _ in range(5):
        d.sleep(8)
        assert holder.says(b"noop\n") == OK
    assert other.says(b"lock lock=x\n") == b""
    d.sleep(9.9)
    assert other.hears() == b""
    d.sleep(0.2)
    check(other.hears(), [token])
    assert holder.says(b"releaselock lock=x\nreleaselock lock=kept\n") == DIDNT_HAVE + OK
    assert holder.says(b"noop\n") == OK
    assert other.says(b"releaselock lock=x\n") == OK
    check(holder.says(b"lock lock=x&ttl=1\nreleaselock lock=x\nlock lock=x\n"), [token, OK, token])
    d.sleep(5)  # the first lease's time ends nothing any more
    assert other.says(b"trylock lock=x\n") == TAKEN


def test_a_lease_that_was_renewed_before_a_stall_of_the_server_goes_on(memory: Any) -> None:
    """Of many events at once most are dispatched after timers have been looked at."""
    holders = [Peer() for _ in range(40)]
    for n, holder in enumerate(holders):
        assert holder.says(b"lock lock=%d&ttl=10\n" % n).startswith(b"OK token=")
    silent = Peer()
    assert silent.says(b"lock lock=silent&ttl=10\n").startswith(b"OK token=")
    for holder in holders:
        holder.end.send(b"noop\n")
    memory.clock.jump(20)
    assert [holder.hears() for holder in holders] == [OK] * 40
    assert [holder.says(b"releaselock lock=%d\n" % n) for n, holder in enumerate(holders)] == [OK] * 40
    assert silent.says(b"releaselock lock=silent\n") == DIDNT_HAVE


def test_what_is_sent_after_all_renews_no_lease(memory: Any) -> None:
    holder, other = Peer(), Peer()
    assert holder.says(b"lock lock=x&ttl=10\n").startswith(b"OK token=")
    assert other.says(b"lock lock=x\n") == b""
    for _ in range(11):
        d.sleep(1)
        holder.says(b"trylock lock=x\n")
    assert other.hears().startswith(b"OK token=")
