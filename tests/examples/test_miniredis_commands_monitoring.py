"""MONITOR shows what everybody asks for, in short."""

from __future__ import annotations

import contextlib
import re

from redis_peers import Peer


def test_what_is_asked_for_is_shown_in_short(stack: contextlib.ExitStack) -> None:
    watching, other = Peer(stack), Peer(stack)
    assert watching.do(b"MONITOR") == "OK"
    other.do(b"ECHO", b'a "b"\r\n\xff')
    other.do(b"AUTH", b"secret")
    other.do(b"PING", b"x" * 150)
    other.do(b"MGET", *[b"k"] * 150)
    shown = watching.heard().splitlines(keepends=True)
    assert len(shown) == 3
    assert all(re.match(rb"\+\d+\.\d{6} \[0 [^]]*\] ", line) for line in shown)
    words = [line.split(b"] ", 1)[1] for line in shown]
    assert words[0] == b'"ECHO" "a \\"b\\"\\r\\n\\xff"\r\n'
    assert words[1] == b'"PING" "' + b"x" * 100 + b'"... (50 more bytes)\r\n'
    assert words[2] == b'"MGET" ' + b'"k" ' * 99 + b"... (51 more arguments)\r\n"


def test_who_monitors_may_not_ask_for_keys(stack: contextlib.ExitStack) -> None:
    watching = Peer(stack)
    watching.do(b"MONITOR")
    assert watching.do(b"GET", b"none").args == (b"ERR Replica can't interact with the keyspace",)
    assert watching.do(b"RESET") == "RESET"
    assert watching.do(b"GET", b"none") is None
