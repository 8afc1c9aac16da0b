"""What was pushed back or read ahead: its order, and a model of it."""

from random import Random

import pytest

from dangagreen import Socket
from tests.connections import Reader

# -- push_back_read


def test_pushed_back_bytes_come_before_everything_unread(loop, wires):
    sock, peer = wires()
    one = Reader(sock)
    peer.send(b"kernel")
    one.push_back_read(b"pushed ")
    assert one.read(3) == b"pus"
    received = b"pus"
    while piece := one.read(3):
        received += piece
    assert received == b"pushed kernel"


def test_of_several_pieces_the_latest_comes_first(loop, wires):
    one = Reader(wires()[0])
    one.push_back_read(b"third")
    one.push_back_read(b"second")
    assert one.read(3) == b"sec"
    one.push_back_read(b"first")
    received = b""
    while piece := one.read(2):
        assert len(piece) <= 2
        received += piece
    assert received == b"firstondthird"


def test_a_pushed_back_buffer_that_changes_afterwards_is_read_as_it_was(loop, wires):
    one = Reader(wires()[0])
    buffer = bytearray(b"abc")
    one.push_back_read(buffer)
    one.push_back_read(memoryview(buffer)[1:])
    buffer[:] = b"###"
    assert one.read(10) == b"bcabc"


def test_pushing_back_nothing_or_a_str(loop, wires, run_turns):
    one = Reader(wires()[0])
    one.watch_read(True)
    one.push_back_read(b"")
    with pytest.raises(TypeError):
        one.push_back_read("text")
    run_turns(3)
    assert one.calls == []


def test_pushing_back_to_a_closed_socket_does_nothing(loop, wires, run_turns):
    one = Reader(wires()[0])
    one.watch_read(True)
    one.close()
    one.push_back_read(b"x")
    assert one.read(1) is None
    run_turns(2)
    assert one.calls == []


@pytest.mark.parametrize("seed", range(10))
def test_what_is_pushed_back_and_read_agrees_with_a_model(loop, wires, seed):
    random = Random(seed)
    sock, _peer = wires(1 << 20)
    one = Socket(sock)
    model = b""
    for _ in range(400):
        step = random.random()
        if step < 0.45:
            piece = random.randbytes(random.choice([1, 5, 100, 5000, 70_000]))
            one.push_back_read(piece)
            model = piece + model
        elif model:
            size = random.choice([1, 4, 100, 9000, 100_000, len(model)])
            if step < 0.7:
                read = one.read(size)
            else:
                into = bytearray(size)
                read = bytes(into[: one.read_into(into)])
            assert read == model[: len(read)]
            assert read
            model = model[len(read) :]
        assert one.buffered == len(model)
        assert not one._buffer or len(one._buffer) <= 4 * len(model) + 65536
    assert one.steal_socket() == (sock, model)
    sock.close()
