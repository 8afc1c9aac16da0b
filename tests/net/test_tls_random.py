"""TLS by random programs: two ends write and read at random, are cut off at parks, and lose and repeat no byte."""

from __future__ import annotations

from functools import cache
from random import Random

import pytest

import dangagreen as d
from tests.certificates import client_context, server_context, versions
from tests.helpers import first_quick

contexts = cache(lambda version: (client_context(version), server_context(version=version)))


def pieces(rng, *sizes):
    return [rng.randbytes(rng.choice(sizes)) for _ in range(rng.randrange(6))]


def write(sock, rng, data):
    """Write all pieces, each until it was queued: a `write_all` that is cut off has queued nothing."""
    for piece in data:
        queued = False
        while not queued:
            with d.move_on_after(rng.random() * 0.3):
                sock.write_all(piece)
                queued = True
        if rng.random() < 0.3:
            d.sleep(rng.random() * 0.1)
        if rng.random() < 0.2:
            with d.move_on_after(0.05):
                sock.drain()
    sock.write_eof()


def read_a_piece(sock, rng):
    match rng.randrange(4):
        case 0:
            return sock.read_some(rng.choice([1, 10, 1000, 65536]))
        case 1:
            return sock.read_some()
        case 2:
            try:
                return sock.read_exactly(rng.randrange(1, 2000))
            except d.IncompleteReadError as error:
                return error.partial
        case _:
            buffer = bytearray(rng.randrange(1, 30000))
            return bytes(buffer[: sock.read_some_into(buffer)])


def read(sock, rng, wanted):
    got, piece = b"", b"begin"
    while piece:
        with d.move_on_after(rng.random() * 0.2):
            piece = read_a_piece(sock, rng)
            got += piece
        if rng.random() < 0.1:
            d.sleep(rng.random() * 0.05)
    assert got == wanted


@pytest.mark.parametrize("seed", first_quick(range(30), 10))
def test_what_is_cut_off_at_random_is_whole(loop, wires, seed):
    rng = Random(seed)
    client, server = contexts(rng.choice(versions()))
    one, two = (d.Socket(end) for end in wires(capacity=rng.choice([7, 100, 1000, 16384, 70000])))
    there, back = pieces(rng, 0, 1, 100, 5000, 20000, 70000), pieces(rng, 0, 1, 100, 5000, 20000)

    def main():
        with d.TaskGroup() as group:
            group.spawn(one.start_tls, client, "localhost", timeout=None)
            group.spawn(two.start_tls, server, timeout=None)
        with d.TaskGroup() as group:
            group.spawn(write, one, rng, there)
            group.spawn(write, two, rng, back)
            group.spawn(read, two, rng, b"".join(there))
            group.spawn(read, one, rng, b"".join(back))
        one.finish()
        two.finish()
        d.sleep(10)
        assert one.closed
        assert two.closed

    d.run(main)
