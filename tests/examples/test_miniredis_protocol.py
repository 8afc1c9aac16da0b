"""Redis's protocol: words, lengths and replies. Requests on the wire: test_miniredis_server.py."""

from __future__ import annotations

import pytest

from miniredis.protocol import (
    PIECE,
    NoArray,
    Refusal,
    Reply,
    Several,
    Text,
    encode,
    length,
    number,
    pieces,
    split,
)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"", []),
        (b" \r\n", []),
        (b"a  b\r\n", [b"a", b"b"]),
        (b"'a b' \"c d\"\n", [b"a b", b"c d"]),
        (b'"\\x41\\n\\"\\q"', [b'A\n"q']),
        (b"'\\n\\''", [b"\\n'"]),
        (b"a\"b\" '' c'd'", [b"ab", b"", b"cd"]),
        (b"\\x41 \\", [b"\\x41", b"\\"]),
        (b"'a' \0 'b'", [b"a"]),
        (b"'a' \v", [b"a"]),
    ],
)
def test_words_as_humans_type_them(line: bytes, words: list[bytes]) -> None:
    assert split(line) == words


@pytest.mark.parametrize("line", [b"'a", b'"a', b"'a'b", b'"a"b', b'"a\\"', b"a'b'c", b"'a''b'"])
def test_quotes_without_an_end(line: bytes) -> None:
    with pytest.raises(Refusal, match="unbalanced quotes"):
        split(line)


@pytest.mark.parametrize(("line", "number"), [(b"$0\r\n", 0), (b"$5\r\n", 5), (b"$5\rx\r\n", None), (b"$5\n", None)])
def test_lengths(line: bytes, number: int | None) -> None:
    assert length(line) == number


@pytest.mark.parametrize(
    "text", [b"", b"x", b"+1", b"01", b"-0", b"1.0", b" 1", b"1\n", b"9223372036854775808", b"9" * 99]
)
def test_what_is_no_number(text: bytes) -> None:
    with pytest.raises(Refusal, match="not an integer"):
        number(text)


@pytest.mark.parametrize(
    ("reply", "resp2", "resp3"),
    [
        (b"a\r\n", b"$3\r\na\r\n\r\n", b"$3\r\na\r\n\r\n"),
        ("OK", b"+OK\r\n", b"+OK\r\n"),
        (-1, b":-1\r\n", b":-1\r\n"),
        (True, b":1\r\n", b":1\r\n"),
        (None, b"$-1\r\n", b"_\r\n"),
        (Refusal(b"ERR a\r\nb"), b"-ERR a  b\r\n", b"-ERR a  b\r\n"),
        ([b"a", [], None], b"*3\r\n$1\r\na\r\n*0\r\n$-1\r\n", b"*3\r\n$1\r\na\r\n*0\r\n_\r\n"),
        ((b"a", 1), b"*2\r\n$1\r\na\r\n:1\r\n", b">2\r\n$1\r\na\r\n:1\r\n"),
        ({b"a": 1}, b"*2\r\n$1\r\na\r\n:1\r\n", b"%1\r\n$1\r\na\r\n:1\r\n"),
        (Several([1, 2]), b":1\r\n:2\r\n", b":1\r\n:2\r\n"),
        (Several(), b"", b""),
        (NoArray(), b"*-1\r\n", b"_\r\n"),
        (Text(b"a"), b"$1\r\na\r\n", b"=5\r\ntxt:a\r\n"),
    ],
    ids=lambda value: value.text.decode() if isinstance(value, Text) else repr(value),
)
def test_replies(reply: Reply, resp2: bytes, resp3: bytes) -> None:
    for protocol, expected in (2, resp2), (3, resp3):
        assert encode(reply, protocol) == expected
        assert b"".join(pieces(reply, protocol)) == expected


def test_a_long_reply_comes_in_pieces() -> None:
    value = bytes(range(256)) * 1000
    reply: Reply = [b"small", value, [value[:100]] * 5000, value]
    cut = list(pieces(reply, 2))
    assert b"".join(cut) == encode(reply, 2)
    assert max(map(len, cut)) <= 2 * PIECE
    assert len(cut) > 10
