"""Clients of miniredis in this process, without a server, and who watches its keys."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import dangagreen as d
from miniredis.clients import Client
from miniredis.commands import keys, strings
from miniredis.dispatch import execute
from miniredis.portions import in_portions


class Peer:
    """The two ends of a connection: a client of miniredis, and the socket of whoever it is."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        ours, self.sock = socket.socketpair()
        self.client = Client(ours)
        stack.enter_context(self.sock)
        stack.callback(self.client.close)

    def do(self, *words: bytes) -> Any:
        return execute(self.client, list(words))

    def heard(self) -> bytes:
        d.sleep(0)
        self.sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            return self.sock.recv(1_000_000)
        return b""


def do(*words: bytes) -> Any:
    """A command about strings or keys, of no client."""
    reply = (strings.COMMANDS | keys.COMMANDS)[words[0]][2](None, *words[1:])
    return in_portions(reply) if hasattr(reply, "send") else reply


class Watcher:
    changed = False
