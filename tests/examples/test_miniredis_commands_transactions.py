"""miniredis's transactions, by the redis package, and their limit."""

from __future__ import annotations

import contextlib

import pytest
import redis

from miniredis.protocol import Refusal
from redis_peers import Peer


def test_transactions(client: redis.Redis) -> None:
    with client.client() as one:
        say = one.execute_command
        assert say("MULTI") in (b"OK", "OK", True)
        assert say("INCR", "n") in (b"QUEUED", "QUEUED")
        assert client.get("n") is None
        with pytest.raises(redis.ResponseError, match="nested"):
            say("MULTI")
        with pytest.raises(redis.ResponseError, match="inside MULTI"):
            say("WATCH", "n")
        assert one.connection.send_command("EXEC") is None
        assert one.connection.read_response() == [1]
        say("MULTI")
        say("INCR", "n")
        say("DISCARD")
        assert client.get("n") == b"1"
        for wrong in ("GET",), ("NOSUCH",):
            say("MULTI")
            say("INCR", "n")
            with pytest.raises(redis.ResponseError):
                say(*wrong)
            with pytest.raises(redis.exceptions.ExecAbortError):
                say("EXEC")
            assert client.get("n") == b"1"


def test_a_transaction_has_a_limit(stack: contextlib.ExitStack) -> None:
    one = Peer(stack)
    one.do(b"MULTI")
    assert [one.do(b"SET", b"k", b"x" * 10_000_000) for _ in range(3)] == ["QUEUED"] * 3
    assert isinstance(one.do(b"SET", b"k", b"x" * 10_000_000), Refusal)
    assert one.do(b"EXEC").args[0].startswith(b"EXECABORT")
    assert one.client.queued == 0
