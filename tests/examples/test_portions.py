"""The callbacks of the examples do a bounded portion of work each, however much their client has sent."""

from __future__ import annotations

import socket

import pytest

import chat
import dangagreen as d
from ddlockd.client import Client
from ddlockd.commands import COMMANDS
from ddlockd.protocol import OK

LOCAL = ("127.0.0.1", 0)


def most_calls_in_a_turn(run_turns, counted, total):
    """How many of these calls one turn made at most, until there were so many."""
    most = before = 0
    for _ in range(100_000):
        run_turns(1)
        most, before = max(most, len(counted) - before), len(counted)
        if len(counted) >= total:
            return most
    raise AssertionError(f"{len(counted)} of {total}")


@pytest.mark.parametrize("members", [1, 10, 300])
def test_a_flood_of_lines_in_the_chat(loop, run_until, run_turns, monkeypatch, members):
    """What one turn costs does not grow with the number of those who are told."""
    room = chat.Room()
    monkeypatch.setattr(chat, "room", room)
    listener = d.serve(LOCAL, chat.log_in, socket_class=chat.Member)
    socks = [socket.create_connection(listener.address) for _ in range(members)]
    for number, sock in enumerate(socks):
        sock.sendall(b"member%d\n" % number)
    run_until(lambda: len(room.members) == members)
    told = []
    monkeypatch.setattr(chat.Member, "write_soon", lambda self, data: told.append(data))
    lines = 10_000 // members
    socks[0].sendall(b"x\n" * lines)
    most = most_calls_in_a_turn(run_turns, told, lines * members)
    assert most <= 2 * max(chat.TOLD_AT_ONCE, members)
    assert told == [b"<member0> x\n"] * (lines * members)
    for sock in socks:
        sock.close()
    run_until(lambda: not listener.connections)
    listener.close()


def test_lines_of_the_chat_stay_whole_and_in_order(loop, run_until, run_turns, monkeypatch):
    room = chat.Room()
    monkeypatch.setattr(chat, "room", room)
    monkeypatch.setattr(chat, "TOLD_AT_ONCE", 6)
    listener = d.serve(LOCAL, chat.log_in, socket_class=chat.Member)
    with socket.create_connection(listener.address) as sock:
        sock.sendall(b"ann\n")
        run_until(lambda: room.members)
        said = []
        monkeypatch.setattr(room, "say", said.append)
        lines = [b"%d" % number * (number % 7 + 1) for number in range(2000)]
        sock.sendall(b"\n".join(lines) + b"\n/quit\nnever")
        run_until(lambda: not room.members)
    assert [words for words in said if words.startswith(b"<")] == [b"<ann> " + line for line in lines]
    run_until(lambda: not listener.connections)
    listener.close()


def test_a_flood_of_commands_to_ddlockd(loop, run_until, run_turns, monkeypatch):
    listener = d.serve(LOCAL, Client)
    called = []

    def noop(client, _arguments):
        called.append(client)
        return OK

    monkeypatch.setitem(COMMANDS, b"noop", noop)
    with socket.create_connection(listener.address) as sock:
        sock.setblocking(False)
        run_until(lambda: listener.connections)
        sock.send(b"noop\n" * 10_000)
        assert most_calls_in_a_turn(run_turns, called, 10_000) <= 1000
    run_until(lambda: not listener.connections)
    listener.close()
