"""Bodies of requests that a task of perlbal reads: with a length and chunked, in pieces, and when the client leaves."""

from __future__ import annotations

import socket
from typing import Any

import dangagreen as d
from dangagreen.testing import wire
from perlbal.bodies import read_body
from perlbal.chunks import BadChunk


class Reader(d.Socket):
    """What reading a body needs of a client."""

    __slots__ = ("active", "body_left")


def read(pieces: list[bytes], body_left: int, most: int = 1 << 20) -> tuple[Any, list[bytes], bytes]:
    """Send these pieces, and then the end, to a client whose body is read; its error, the body's pieces, the rest."""
    near, far = wire()
    client = Reader(near)
    client.body_left = body_left

    def send() -> None:
        for piece in pieces:
            far.send(piece)
            d.sleep(1)
        far.shutdown(socket.SHUT_WR)

    sender, got, error = d.spawn(send), [], None
    try:
        got.extend(read_body(client, most))
        sender.join()
        rest = client.read_to_end()
        assert client.body_left == 0
    except Exception as raised:
        error, rest = raised, b""
    sender.join()
    client.close()
    far.close()
    return error, got, rest


def test_a_body_with_a_length_ends_there(loop: Any) -> None:
    assert d.run(read, [b"ab", b"cdGET /"], 4) == (None, [b"ab", b"cd"], b"GET /")


def test_a_chunked_body_ends_with_its_last_chunk(loop: Any) -> None:
    assert d.run(read, [b"2\r\nab\r\n1", b"\r\nc\r\n0\r\n\r\nGET /"], -1) == (None, [b"ab", b"c"], b"GET /")


def test_a_client_that_leaves_before_the_end_is_an_error_and_closed(loop: Any) -> None:
    for data, body_left in ((b"abcd", 5), (b"4\r\nabcd\r\n", -1)):
        error, got, _ = d.run(read, [data], body_left)
        assert isinstance(error, ConnectionError)
        assert got == [b"abcd"]


def test_chunks_that_lie_or_are_too_long_are_refused(loop: Any) -> None:
    for data, most in ((b"x\r\n", 100), (b"5\r\nabcde\r\n0\r\n\r\n", 4)):
        error, _, _ = d.run(read, [data], -1, most)
        assert isinstance(error, BadChunk)


def test_a_body_of_no_bytes_reads_nothing(loop: Any) -> None:
    assert d.run(read, [b"GET /"], 0) == (None, [], b"GET /")
