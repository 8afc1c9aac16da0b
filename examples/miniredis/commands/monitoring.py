"""MONITOR: who has asked for it is shown, in short, what everybody asks for."""

from __future__ import annotations

import time

from miniredis.clients import Client, monitors
from miniredis.protocol import Command, Refusal, Reply, Request

SHOWN = 100  # words, and bytes of each, that MONITOR shows


def monitor(client: Client) -> Reply:
    if client.queue is not None:
        raise Refusal(b"ERR MONITOR isn't allowed in a transaction")
    monitors[client] = None
    return "OK"


def show(client: Client, request: Request) -> None:
    """Tell all monitors of a request, in short."""
    shown = [quoted(word) for word in request[:SHOWN]]
    if len(request) > SHOWN:
        shown.append(b"... (%d more arguments)" % (len(request) - SHOWN))
    who = str(client.peer_addr_string()).encode()
    line = b"+%.6f [0 %b] %b\r\n" % (time.time(), who, b" ".join(shown))
    for monitor in monitors:
        monitor.write_soon(line)


def quoted(word: bytes) -> bytes:
    text = repr(word[:SHOWN])[2:-1].replace('"', '\\"').encode()
    return b'"%b"' % text + (b"... (%d more bytes)" % (len(word) - SHOWN) if len(word) > SHOWN else b"")


COMMANDS: dict[bytes, Command] = {
    b"MONITOR": (1, 1, monitor),
}
