"""Random and mutated requests: whatever a client sends, it is answered or refused, and nobody else is disturbed."""

from __future__ import annotations

import os
import re

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from perlbal_talk import Talker, body, get, served

REQUESTS = (
    get("/a.txt"),
    get("/a.txt", "Range: bytes=1-3", "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT"),
    get("/d/??a.txt,b.txt", version="1.0"),
    get("/d/", "Connection: keep-alive", version="1.0"),
    get("/x/y", "Content-Length: 5", method="PUT") + b"hello",
    get("/x/y", "Content-Length: 5", "Content-MD5: XUFAKrxLKna5cZ2REBfFkg==", method="PUT") + b"hello",
    get("/z", "Transfer-Encoding: chunked", "Expect: 100-continue", method="PUT") + b"5;a=b\r\nhello\r\n0\r\n\r\n",
    get("/x/y", method="DELETE"),
    get("http://other.example/a.txt", method="HEAD"),
    get("*", method="OPTIONS"),
)
BITS = (b"\r\n", b"\n", b"\r", b"\0", b" ", b":", b"\xff", b"/../", b"%00", b"-1", b"9" * 30, b"HTTP/3.7", b"\r\n\r\n")
PAGE = re.compile(rb"HTTP/1\.[01] \d{3} [ -~]*\r\n(?:[!-9;-~]+: [ -~]*\r\n)*\r\n")


@st.composite
def mutated(draw):
    """A few requests, one after the other, of which some are damaged; and where they are split."""
    data = b"".join(draw(st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=4)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(("insert", "delete", "replace", "repeat")))
        if kind == "insert":
            data = data[:at] + draw(st.sampled_from(BITS)) + data[at:]
        elif kind == "delete":
            data = data[:at] + data[at + draw(st.integers(1, 20)) :]
        elif kind == "replace":
            data = data[:at] + draw(st.binary(min_size=1, max_size=3)) + data[at + 1 :]
        else:
            data = data[:at] + data[max(0, at - 30) :]
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=4)))
    return [data[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@pytest.fixture
def service(loop, tmp_path):
    (tmp_path / "d").mkdir()
    for name in ("a.txt", "d/a.txt", "d/b.txt"):
        (tmp_path / name).write_bytes(b"content")
    with served(
        persist_client="on",
        docroot=tmp_path,
        enable_put="on",
        enable_delete="on",
        enable_concatenate_get="on",
        dirindexing="on",
    ) as service:
        yield service


@settings(max_examples=300, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.one_of(mutated(), st.lists(st.binary(max_size=60), max_size=4)), leaves=st.booleans())
@example(pieces=[get("/a.txt") * 3], leaves=True)
def test_whatever_comes_is_answered_or_refused(service, wires, run_turns, take_errors, pieces, leaves):
    descriptors = len(os.listdir("/dev/fd"))
    talker, other = Talker(service, wires, run_turns, 1 << 20), Talker(service, wires, run_turns, 1 << 20)
    for piece in pieces:
        if talker.client.closed:
            break
        try:
            talker.say(piece)
        except ConnectionError:  # it was closed after an error
            break
    if leaves and not talker.far.closed:
        talker.far.close()
        run_turns(5)
        assert talker.client.closed
    assert take_errors() == []
    assert talker.got == b"" or PAGE.match(talker.got)
    assert body(other.say(get("/d/b.txt"))) == b"content"
    other.far.close()
    talker.far.close()
    run_turns(5)
    assert (talker.client.closed, other.client.closed) == (True, True)
    assert len(os.listdir("/dev/fd")) == descriptors


@settings(max_examples=100, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 10_000), which=st.sampled_from(REQUESTS), reset=st.booleans())
def test_a_client_may_leave_at_any_point(service, wires, run_turns, take_errors, at, which, reset):
    descriptors = len(os.listdir("/dev/fd"))
    talker = Talker(service, wires, run_turns, 1 << 20)
    talker.say(which[: at % (len(which) + 1)], turns=at % 4)
    talker.far.close()
    run_turns(6)
    assert talker.client.closed
    assert take_errors() == []
    assert len(os.listdir("/dev/fd")) == descriptors
