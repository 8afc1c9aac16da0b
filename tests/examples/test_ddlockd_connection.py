"""A connection of ddlockd: its socket options, and its end when it does not read."""

from __future__ import annotations

import contextlib
import re
import socket
from typing import Any

import pytest

import dangagreen as d
from dangagreen.testing import BLOCK
from ddlockd.client import Client
from ddlockd.connection import Connection
from lock_clients import OK, Peer
from programs import connected


def test_one_who_does_not_read_is_closed(memory: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    peer, other = Peer(), Peer()
    peer.client.sock.writes.extend([BLOCK] * 10_000)
    peer.says(b"trylock lock=x\n")
    for _ in range(300):
        if peer.client.closed:
            break
        peer.end.send(b"frob\n" * 1000)
        with contextlib.suppress(ConnectionResetError):  # it was closed with some of these unread
            peer.hears()
    assert "reads too slowly" in str(peer.client.close_reason)
    assert re.fullmatch(r"ddlockd: connection \d+ from 127.0.0.1:1234: \d+ bytes are .*\n", capsys.readouterr().err)
    assert other.says(b"trylock lock=x\n") == OK


@pytest.mark.parametrize("on", [True, False])
def test_keep_alive(on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Client, "keep_alive", on)
    monkeypatch.setattr(Connection, "open", 0)
    with d.Loop(), d.serve(("127.0.0.1", 0), Client) as listener, connected(listener.address[1]) as (sock, _):
        while not Connection.open:
            d.sleep(0)
        (client,) = (one for one in d.current_loop().handlers.values() if isinstance(one, Client))
        assert client.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert bool(client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)) is on
        idle = getattr(socket, "TCP_KEEPIDLE", None) or socket.TCP_KEEPALIVE  # type: ignore[attr-defined]
        for option, value in ((idle, 30), (socket.TCP_KEEPCNT, 10), (socket.TCP_KEEPINTVL, 30)):
            assert (client.sock.getsockopt(socket.IPPROTO_TCP, option) == value) is on
        sock.close()
