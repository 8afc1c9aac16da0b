"""Heads of perlbal: what is handed on as it came, what is refused and by which status code."""

from __future__ import annotations

import pytest

from perlbal.heads import (
    HEAD_LIMIT,
    REFUSALS,
    BadHead,
    RequestHead,
    ResponseHead,
    head_end,
    parse_request,
    parse_response,
)


def request(*lines: str, first: str = "GET / HTTP/1.0") -> RequestHead:
    return parse_request("".join(f"{line}\r\n" for line in (first, *lines, "")).encode("latin-1"))


def response(*lines: str, first: str = "HTTP/1.1 200 OK") -> ResponseHead:
    return parse_response("".join(f"{line}\r\n" for line in (first, *lines, "")).encode("latin-1"))


def test_a_head_is_written_as_it_came():
    data = b"GeT /a%20b?c=\xe9 HTTP/1.0\r\nhOST: A\r\nX-b: 1\r\naccept: */*\r\nx-B: 2\r\n\r\n"
    head = parse_request(data)
    assert (head.method, head.uri, head.version, head.host) == ("GeT", "/a%20b?c=\xe9", 10, "A")
    assert head.to_bytes() == data.replace(b"\r\nx-B: 2", b"").replace(b"X-b: 1", b"X-b: 1, 2")
    assert list(head.items()) == [("hOST", "A"), ("X-b", "1, 2"), ("accept", "*/*")]


def test_a_response_is_written_as_http_1_0():
    head = response("Content-Length: 3", "Set-Cookie: a=1", "set-cookie: b=2, c", "X: y", first="HTTP/1.1 200 Fine, so")
    assert (head.code, head.reason, head.version, head.content_length) == (200, "Fine, so", 11, 3)
    assert head.to_bytes() == (
        b"HTTP/1.0 200 Fine, so\r\nContent-Length: 3\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2, c\r\nX: y\r\n\r\n"
    )
    assert list(head.items())[1:3] == [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2, c")]
    head.sent_version = 11
    assert head.to_bytes().startswith(b"HTTP/1.1 200 Fine")


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A:1", "1"),
        ("A: 1 ", "1"),
        ("A:\t 1\t", "1"),
        ("A:", ""),
        ("A: ", ""),
        ("A: b: c", "b: c"),
        ("A: \xe9", "\xe9"),
    ],
)
def test_blanks_around_a_value_are_dropped(line, value):
    head = request(line)
    assert head.get("a") == value
    assert head.to_bytes() == f"GET / HTTP/1.0\r\nA: {value}\r\n\r\n".encode("latin-1")


def test_a_line_that_begins_with_a_blank_continues_the_one_before():
    assert request("A: 1", "  2 ", "B: 3", "\t4").to_bytes() == b"GET / HTTP/1.0\r\nA: 1  2\r\nB: 3\t4\r\n\r\n"
    assert request(" lost", "A: 1").to_bytes() == b"GET / HTTP/1.0\r\nA: 1\r\n\r\n"


def test_a_bare_lf_ends_a_line():
    head = parse_request(b"GET / HTTP/1.1\nHost: a\nB: c\n\n")
    assert head.to_bytes() == b"GET / HTTP/1.1\r\nHost: a\r\nB: c\r\n\r\n"
    assert parse_request(b"GET / HTTP/1.0\r\nA: b\nC: d\r\n\r\n").get("c") == "d"


def test_fields_are_set_in_place_and_removed():
    head = request("hOST: a", "B: c")
    head.set("Host", "b")
    head.set("New", "d")
    head.remove("b")
    head.remove("none")
    assert head.to_bytes() == b"GET / HTTP/1.0\r\nhOST: b\r\nNew: d\r\n\r\n"
    assert "new" in head
    assert "b" not in head
    assert head.get("b", "?") == "?"


def test_a_copy_is_another_head():
    head = request("Content-Length: 5", "A: b")
    copied = head.copy()
    copied.set("A", "c")
    copied.version = 11
    assert (head.get("a"), head.version, copied.content_length) == ("b", 10, 5)


@pytest.mark.parametrize(
    ("uri", "path", "host"),
    [
        ("http://Www.A.com/x?y", "/x?y", "www.a.com"),
        ("http://a:81", "/", "a"),
        ("http://[::1]:81/x", "/x", "[::1]"),
        ("*", "*", "given"),
        ("ftp://a/x", "ftp://a/x", "given"),
    ],
)
def test_an_absolute_uri_becomes_path_and_host(uri, path, host):
    head = request("Host: given", first=f"GET {uri} HTTP/1.1")
    assert (head.uri, head.host) == (path, host)


@pytest.mark.parametrize(
    ("version", "connection", "wanted"),
    [
        ("1.0", None, False),
        ("1.0", "keep-alive", True),
        ("1.0", "TE, Keep-Alive", True),
        ("1.0", "keep-alive, close", False),
        ("1.0", "x-keep-alived", False),
        ("1.1", None, True),
        ("1.1", "close", False),
        ("1.1", "Close, TE", False),
        ("1.1", "TE", True),
        ("2.0", None, True),
        ("1.7", None, True),
    ],
)
def test_whether_a_client_wants_to_keep_its_connection(version, connection, wanted):
    lines = [] if connection is None else [f"Connection: {connection}"]
    assert request("Host: a", *lines, first=f"GET / HTTP/{version}").wants_keep_alive is wanted


def test_how_the_body_is_framed():
    assert (request().content_length, request().chunked) == (None, False)
    assert request("Content-Length: 007").content_length == 7
    assert request("transfer-encoding: Chunked").chunked
    assert not request("Transfer-Encoding: identity").chunked
    head = response("Content-Length: 5", "Transfer-Encoding: gzip, chunked")
    assert (head.content_length, head.chunked) == (None, True)
    head = response("Content-Length: 5", "Transfer-Encoding: identity")
    assert (head.content_length, head.chunked) == (5, False)


HOST = "Host: a"
REFUSED = [
    ("first line", "GET /"),
    ("first line", "GET"),
    ("first line", "get / http/1.0"),
    ("first line", "GET  / HTTP/1.0"),
    ("first line", "GET / HTTP/1.0 "),
    ("first line", "GET /a b HTTP/1.0"),
    ("first line", "GET /a\tb HTTP/1.0"),
    ("first line", "GET /\x7f HTTP/1.0"),
    ("first line", "G-T / HTTP/1.0"),
    ("first line", " GET / HTTP/1.0"),
    ("first line", "GET / HTTP/1"),
    ("first line", ""),
    ("version", "GET / HTTP/3.7"),
    ("version", "GET / HTTP/0.9"),
    ("version", "GET / HTTP/11.1"),
    ("header line", "GET / HTTP/1.0", "Name : b"),
    ("header line", "GET / HTTP/1.0", "N@me: b"),
    ("header line", "GET / HTTP/1.0", "N\xe4me: b"),
    ("header line", "GET / HTTP/1.0", ": b"),
    ("header line", "GET / HTTP/1.0", "name"),
    ("header line", "GET / HTTP/1.0", "A: b", "name"),
    ("control", "GET / HTTP/1.0", "A: \0"),
    ("control", "GET / HTTP/1.0", "A: b\rC: d"),
    ("host", "GET / HTTP/1.1"),
    ("host", "GET / HTTP/1.1", "Host:"),
    ("host", "GET / HTTP/1.1", "Host: "),
    ("host", "GET / HTTP/2.0"),
    ("length", "GET / HTTP/1.0", "Content-Length: abc"),
    ("length", "GET / HTTP/1.0", "Content-Length:"),
    ("length", "GET / HTTP/1.0", "Content-Length: +5"),
    ("length", "GET / HTTP/1.0", "Content-Length: \xb2"),
    ("length", "GET / HTTP/1.0", "Content-Length: 5", "Content-Length: 5"),
    ("length", "GET / HTTP/1.0", "Content-Length: 5, 6"),
    ("length", "GET / HTTP/1.0", "Content-Length: " + "9" * 19),
    ("negative", "GET / HTTP/1.0", "Content-Length: -5"),
    ("length and coding", "GET / HTTP/1.0", "Content-Length: 5", "Transfer-Encoding: chunked"),
    ("coding", "GET / HTTP/1.0", "Transfer-Encoding: gzip"),
    ("coding", "GET / HTTP/1.0", "Transfer-Encoding: chunked, chunked"),
]


@pytest.mark.parametrize(("rule", "first", "lines"), [(rule, first, lines) for rule, first, *lines in REFUSED])
def test_what_is_refused(rule, first, lines):
    with pytest.raises(BadHead) as refusal:
        request(*lines, first=first)
    assert refusal.value.rule == rule
    assert (refusal.value.code, refusal.value.text) == REFUSALS[rule]


@pytest.mark.parametrize(
    "first", ["", "HTTP/1.1", "HTTP/1.1 200", "HTTP/1.1 20 OK", "ICY 200 OK", "HTTP/1.1 2000 OK", "<html>"]
)
def test_what_is_no_status_line(first):
    with pytest.raises(BadHead) as refusal:
        response(first=first)
    assert refusal.value.rule == "status line"


@pytest.mark.parametrize("first", ["HTTP/1.0 404 Not Found", "HTTP/1.0  404\tNot Found ", "HTTP/0.9 404 Not Found"])
def test_a_status_line(first):
    head = response(first=first)
    assert (head.code, head.reason, head.version) == (404, "Not Found", 10)
    assert response(first="HTTP/1.1 200 ").reason == ""
    assert response(first="HTTP/2 200 OK".replace("2 ", "2.0 ", 1)).version == 11


@pytest.mark.parametrize("line", ["Content-Length: 5, 5", "Content-Length: x", "bad line", "A: \0"])
def test_a_response_that_is_refused(line):
    with pytest.raises(BadHead):
        response(line)


def test_where_a_head_ends():
    assert head_end(b"") == head_end(b"GET / HTTP/1.0\r\nA: b\r\n") == -1
    assert head_end(b"GET / HTTP/1.0\r\n\r\nbody\r\n\r\n") == 18
    assert head_end(b"GET / HTTP/1.0\n\nbody\r\n\r\n") == 16
    assert head_end(bytearray(b"GET / HTTP/1.0\r\n\r\n\n\n")) == 18
    assert head_end(b"\r\n\r\n") == 4


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"GET /" + b"a" * HEAD_LIMIT, "long line"),
        (b"GET / HTTP/1.0\r\nA: " + b"a" * HEAD_LIMIT, "long head"),
        (b"GET / HTTP/1.0\r\nA: " + b"a" * HEAD_LIMIT + b"\r\n\r\n", "long head"),
    ],
)
def test_a_head_that_is_too_long(data, rule):
    with pytest.raises(BadHead) as refusal:
        head_end(data)
    assert refusal.value.rule == rule


def test_the_longest_head_that_is_taken():
    data = b"GET / HTTP/1.0\r\nA: " + b"a" * (HEAD_LIMIT - 23) + b"\r\n\r\n"
    assert head_end(data) == len(data) == HEAD_LIMIT
