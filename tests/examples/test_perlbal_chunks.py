"""Chunked bodies: what is decoded in whatever pieces it comes, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perlbal.chunks import LAST, LINE_LIMIT, TRAILER_LIMIT, BadChunk, ChunkDecoder, chunk


def decode(data: bytes, step: int = 0) -> tuple[bytes, ChunkDecoder]:
    decoder = ChunkDecoder()
    step = step or max(1, len(data))
    body = b"".join(decoder.feed(data[at : at + step]) for at in range(0, len(data), step))
    return body, decoder


GOOD = [
    (b"0\r\n\r\n", b"", b""),
    (b"3\r\nabc\r\n0\r\n\r\n", b"abc", b""),
    (b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\nGET ", b"abcde", b"GET "),
    (b"A\r\n0123456789\r\n00\r\n\r\n", b"0123456789", b""),
    (b"000000000000000a\r\n0123456789\r\n0\r\n\r\n", b"0123456789", b""),
    (b'3;name=value;quoted="a;b"\r\nabc\r\n0;last\r\n\r\n', b"abc", b""),
    (b"3 ;x\r\nabc\r\n0\r\n\r\n", b"abc", b""),
    (b"3\r\n\r\n\r\r\n0\r\n\r\n", b"\r\n\r", b""),
    (b"1\r\na\r\n0\r\nX-Trailer: 1\r\nY:\r\n\r\nmore", b"a", b"more"),
]


@pytest.mark.parametrize("step", [0, 1, 2, 3])
@pytest.mark.parametrize(("data", "body", "rest"), GOOD)
def test_a_body_is_decoded_in_any_pieces(data: bytes, body: bytes, rest: bytes, step: int) -> None:
    got, decoder = decode(data, step)
    assert (got, decoder.rest, decoder.done, decoder.size) == (body, rest, True, len(body))


BAD = [
    b"\r\n",
    b"x\r\n",
    b"-1\r\n",
    b"+1\r\n",
    b"0x1\r\n",
    b"1_0\r\n",
    b" 1\r\n",
    b"1 \r\n",
    b"1\n",
    b"1;a\n",
    b"1;a\x00\r\n",
    b"1;\r\r\n",
    b"1\r\nab",
    b"1\r\na\n",
    b"1\r\na\rb",
    b"1\r\na\r\r\n",
    b"00000000000000001\r\n",
    b"1" * (LINE_LIMIT + 1),
    b"1;" + b"x" * LINE_LIMIT + b"\r\n",
    b"0\r\nno header\r\n",
    b"0\r\n folded: x\r\n",
    b"0\r\nA: 1\n",
    b"0\r\n" + b"A: 1234567890\r\n" * (TRAILER_LIMIT // 13 + 1),
]


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("data", BAD)
def test_what_could_be_read_in_two_ways_is_refused(data: bytes, step: int) -> None:
    with pytest.raises(BadChunk):
        decode(data, step)


@given(st.lists(st.binary(min_size=1, max_size=50)), st.integers(1, 60))
def test_what_was_encoded_is_decoded(pieces: list[bytes], step: int) -> None:
    body, decoder = decode(b"".join(map(chunk, pieces)) + LAST, step)
    assert (body, decoder.done, decoder.rest) == (b"".join(pieces), True, b"")


@given(st.binary(max_size=200), st.integers(1, 20))
def test_any_bytes_give_a_body_or_are_refused_in_any_pieces_alike(data: bytes, step: int) -> None:
    def outcome(step: int) -> object:
        try:
            body, decoder = decode(data, step)
        except BadChunk:
            return "refused"
        return body, decoder.done, decoder.rest

    assert outcome(step) == outcome(0)


def test_a_chunk_of_nothing_is_not_the_end() -> None:
    assert chunk(b"") == b""
    assert chunk(b"ab") == b"2\r\nab\r\n"
