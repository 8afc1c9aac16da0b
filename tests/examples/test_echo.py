"""examples/echo.py: the three styles answer alike."""

from __future__ import annotations

from typing import Any

import pytest

from programs import answer, connected


@pytest.mark.parametrize("style", ["callback", "sequential", "requests"])
def test_echo(start: Any, style: str) -> None:
    (port,) = start("echo", "--style", style, "--port", "0")
    with connected(port) as (one, _), connected(port) as (other, _):
        for sock, word in (one, b"one\n"), (other, b"two, without an end of line"), (one, b"three\0\xff"):
            sock.sendall(word)
            assert sock.recv(100) == word
    assert answer(port, b"") == b""
    much = bytes(range(256)) * 100
    assert answer(port, much) == much
