"""FlvStreaming: what a backend is asked for, and what a player gets."""

from __future__ import annotations

import re

import pytest

import dangagreen as d
from perlbal_worlds import address, ask, configured, exchange, get, serving

BODY = b"0123456789abcdefghij"
HEAD = b"FLV\x01\x01\0\0\0\x09\0\0\0\x09"


class Backend:
    """It has one file of 20 bytes. `ranges`: whether it knows ranges; `framing`: how a length is told."""

    def __init__(self):
        self.ranges, self.framing = True, "length"
        self.asked = []
        self.listener = d.serve_requests(("127.0.0.1", 0), self.answer)

    def answer(self, sock):
        head = sock.read_until(b"\r\n\r\n").decode("latin-1")
        found = re.search(r"\r\nRange: (.*?)\r\n", head, re.IGNORECASE)
        self.asked.append(found and found[1])
        match = re.fullmatch(r"bytes=(\d+)-", found[1]) if found and self.ranges else None
        code, start = ("206 Partial Content", int(match[1])) if match else ("200 OK", 0)
        fields = [f"Content-Range: bytes {start}-19/20"] if match else []
        body = BODY[start:]
        if start >= len(BODY):
            code, fields, body = "416 Range Not Satisfiable", ["Content-Range: bytes */20"], b""
        if self.framing == "length":
            fields += [f"Content-Length: {len(body)}", "Connection: keep-alive"]
        elif self.framing == "chunks":
            fields += ["Transfer-Encoding: chunked"]
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        if head.startswith("HEAD"):
            body = b""
        version = "1.1" if self.framing == "chunks" else "1.0"
        sock.write_all("\r\n".join([f"HTTP/{version} {code}", *fields, "", ""]).encode() + body)
        if self.framing == "end":
            sock.finish()


@pytest.fixture
def world():
    text = """
LOAD flvstreaming
CREATE POOL p
CREATE SERVICE rp
SET role = reverse_proxy
SET listen = 127.0.0.1:0
SET pool = p
SET persist_backend = on
SET persist_client = on
SET plugins = flvstreaming
ENABLE rp
"""
    with serving(text) as world:
        yield world


@pytest.fixture
def backend(world):
    backend = Backend()
    configured(f"POOL p ADD 127.0.0.1:{backend.listener.address[1]}", world)
    return backend


@pytest.mark.parametrize(
    "uri",
    ["/a.flv?start=13", "/a.flv?x=1&start=13", "/b/a.flv?start=13&x=1", "/a.flv?start=0013", "/a.flv?a?&start=13"],
)
def test_a_player_that_seeks(world, backend, uri):
    code, fields, body = get(world, "rp", uri)
    assert (code, body) == (200, HEAD + BODY[13:])
    assert fields["Content-Length"] == str(len(body))
    assert "Content-Range" not in fields
    assert backend.asked == ["bytes=13-"]


@pytest.mark.parametrize(
    "uri",
    [
        *("/a.flv", "/a.flv?start=0", "/a.flv?start=", "/a.flv?start=-3", "/a.flv?start=abc", "/a.flv?start=3x"),
        *("/a.txt?start=13", "/A.FLV?start=13", "/a.flv?restart=13", "/a.flvx?start=13", "/a?b.flv?start"),
    ],
)
def test_any_other_request_is_left_as_it_is(world, backend, uri):
    code, fields, body = get(world, "rp", uri)
    assert (code, fields["Content-Length"], body) == (200, "20", BODY)
    assert backend.asked == [None]


def test_a_range_that_the_client_asks_for_itself_gives_way(world, backend):
    assert get(world, "rp", "/a.flv?start=13", "Range: bytes=2-4", "If-Range: x")[::2] == (200, HEAD + BODY[13:])
    assert get(world, "rp", "/a.flv", "Range: bytes=2-")[::2] == (206, BODY[2:])
    assert backend.asked == ["bytes=13-", "bytes=2-"]


def test_a_head_has_no_body(world, backend):
    answer = exchange(world, "rp", "HEAD /a.flv?start=13 HTTP/1.0\r\n\r\n")
    assert b"\r\nContent-Length: 20\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


def test_a_start_behind_the_end_and_a_backend_without_ranges_are_passed_on(world, backend):
    assert get(world, "rp", "/a.flv?start=99")[0] == 416
    backend.ranges = False
    code, fields, body = get(world, "rp", "/a.flv?start=13")
    assert (code, fields["Content-Length"], body) == (200, "20", BODY)


def test_a_body_without_a_length(world, backend):
    backend.framing = "end"
    code, fields, body = get(world, "rp", "/a.flv?start=13")
    assert (code, body) == (200, HEAD + BODY[13:])
    assert "Content-Length" not in fields


def test_a_body_in_chunks(world, backend):
    backend.framing = "chunks"
    assert ask(world, "SET rp.backend_http_version = 1.1") == ["OK"]
    assert get(world, "rp", "/a.flv?start=13")[::2] == (200, HEAD + BODY[13:])
    request = "GET /a.flv?start=13 HTTP/1.1\r\nHost: example\r\nConnection: close\r\n\r\n"
    head, _, body = exchange(world, "rp", request).partition(b"\r\n\r\n")
    assert b"ransfer-" in head
    assert body == b"d\r\n%b\r\n7\r\n%b\r\n0\r\n\r\n" % (HEAD, BODY[13:])


def test_connections_are_kept(world, backend):
    with d.connect(address(world, "rp")) as sock, d.timeout(10):
        for _ in range(2):
            sock.write_all(b"GET /a.flv?start=13 HTTP/1.1\r\nHost: example\r\n\r\n")
            assert b"\r\nConnection: keep-alive\r\n" in sock.read_until(b"\r\n\r\n")
            assert sock.read_exactly(20) == HEAD + BODY[13:]
    assert backend.listener.accepted == 1


def test_it_is_for_proxies(world):
    assert ask(world, "CREATE SERVICE w", "SET w.role = web_server", "SET w.plugins = flvstreaming")[-1] == (
        "ERROR: You can't load the flvstreaming plugin on a service not of role reverse_proxy."
    )
