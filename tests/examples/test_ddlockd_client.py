"""How ddlockd answers lines, in memory: whatever pieces they come in, and whatever they are."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dangagreen.testing import BLOCK
from ddlockd.client import Client
from ddlockd.commands import COMMANDS
from ddlockd.connection import Connection
from lock_clients import DIALOGUES, OK, TAKEN, UNKNOWN, Peer, check, in_memory


@pytest.mark.parametrize("dialogue", DIALOGUES)
def test_each_exchange_split_at_every_byte(memory: Any, dialogue: str) -> None:
    peer = Peer()
    peer.client.sock.reads.extend([1] * 10_000)
    check(peer.says(b"".join(line for line, _ in DIALOGUES[dialogue])), [reply for _, reply in DIALOGUES[dialogue]])


@pytest.mark.parametrize("dialogue", DIALOGUES)
def test_each_exchange_in_two_pieces_at_every_place(dialogue: str) -> None:
    lines = b"".join(line for line, _ in DIALOGUES[dialogue])
    for place in range(0, len(lines), 7):
        with in_memory():
            peer = Peer()
            heard = peer.says(lines[:place]) + peer.says(lines[place:])
            check(heard, [reply for _, reply in DIALOGUES[dialogue]])


def test_lines_that_come_together_are_answered_in_one_write(memory: Any) -> None:
    peer = Peer()
    writes = peer.client.sock.writes
    writes.append(5 * len(OK))
    assert peer.says(b"noop\r\nnoop\nnoop\r\nnoop\nnoop\nno") == 5 * OK
    assert not writes
    assert peer.says(b"op\n") == OK


def test_what_is_sent_while_waiting_is_answered_afterwards(memory: Any) -> None:
    holder, other = Peer(), Peer()
    holder.says(b"trylock lock=x\n")
    assert other.says(b"noop\nlock lock=x\ntrylock lock=y\nlock lock=y\nfrob\nlo") == OK
    assert other.says(b"ck lock=z&timeout=1\nnoop\n") == b""
    assert holder.says(b"trylock lock=y\n") == OK
    assert holder.says(b"releaselock lock=x\n") == OK
    check(other.hears(), [re.compile(rb"OK token=\d+\r\n"), TAKEN])  # and waits again, for y
    holder.says(b"releaselock lock=y\n")
    token = re.compile(rb"OK token=\d+\r\n")
    check(other.hears(), [token, UNKNOWN, token, OK])


def test_limits_on_lines(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Client, "line_limit", 50)
    too_long = b"ERR line_too_long A+line+has+at+most+50+bytes\r\n"
    for data in (b"x" * 51, b"x" * 60 + b"\nnoop\n"):
        peer = Peer()
        peer.says(b"trylock lock=x\n")
        assert peer.says(b"noop\n" + data) == OK + too_long
        assert peer.client._finishing
        assert not Connection.locks.holders
        peer.goes()
    peer = Peer()
    assert peer.says(b"trylock lock=" + b"y" * 37 + b"\n" + b"noop\n" * 100) == OK + 100 * OK


def test_a_long_list_is_no_longer_than_its_client_reads(memory: Any) -> None:
    """It may be longer than `max_unsent`, and is not made again before it was read."""
    holder, reader = Peer(), Peer()
    for number in range(20_000):
        Connection.locks.take(holder.client, b"%d" % number)
    reader.client.sock.writes.extend([BLOCK] * 10_000)
    assert reader.says(b"locks\n" * 9 + b"noop\n") == b""
    assert reader.client.unsent < 100_000
    reader.client.sock.writes.clear()
    listed = reader.hears(500)
    assert listed.count(b"LOCKS:\n") == 9
    assert listed.endswith(OK)
    assert len(listed) > 9 * 1_100_000
    assert not reader.client.closed


LINES = st.lists(
    st.one_of(
        st.binary(max_size=60),
        st.sampled_from(sorted(COMMANDS)),
        st.sampled_from([b" lock=", b"lock=theirs", b" lock=th%65irs", b"&", b"=", b"%", b"\r", b"\n", b"&timeout=0"]),
    ),
    max_size=60,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(pieces=LINES, joined=st.booleans())
def test_random_bytes_take_and_free_nothing_of_others(pieces: list[bytes], joined: bool) -> None:
    with in_memory():
        owner, stranger = Peer(), Peer()
        assert owner.says(b"trylock lock=theirs\n") == OK
        for data in [b"".join(pieces)] if joined else pieces:
            stranger.says(data)
        assert Connection.locks.holders[b"theirs"] is owner.client
        assert set(Connection.locks.holders) == set(owner.client.held) | set(stranger.client.held)
        assert owner.says(b"releaselock lock=theirs\n") == OK
