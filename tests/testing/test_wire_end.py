"""An end of a wire, whatever its family: scripts, capacity, its number. (What sockets do is in test_wire.)"""

from __future__ import annotations

import socket

import pytest

from dangagreen.testing import BLOCK, wire


def test_capacity_is_what_the_peer_may_have_sent_unread():
    near, far = wire(capacity=5)
    assert near.send(b"1234567") == 5
    with pytest.raises(BlockingIOError):
        near.send(b"67")
    assert far.recv(2) == b"12"
    assert near.send(b"67") == 2
    assert far.recv(10) == b"34567"


def test_reads_follow_their_script_one_step_a_call():
    near, far = wire()
    far.send(b"abcdefgh")
    near.reads.extend([1, BLOCK, 2, OSError(5, "scripted"), 100])
    assert near.recv(10) == b"a"
    with pytest.raises(BlockingIOError):
        near.recv(10)
    assert near.recv(10) == b"bc"
    with pytest.raises(OSError, match="scripted"):
        near.recv(10)
    assert near.recv(3) == b"def"
    assert near.recv(10) == b"gh"
    assert bytes(near.received) == b"abcdefgh"


def test_peeking_takes_no_step_of_the_script():
    near, far = wire()
    far.send(b"abc")
    near.reads.append(1)
    assert near.recv(10, socket.MSG_PEEK) == b"abc"
    assert near.recv(10) == b"a"
    assert near.recv(10) == b"bc"


def test_writes_follow_their_script_one_step_a_call():
    near, far = wire()
    near.writes.extend([2, BLOCK, BrokenPipeError(32, "scripted")])
    assert near.send(b"abcd") == 2
    with pytest.raises(BlockingIOError):
        near.send(b"cd")
    with pytest.raises(BrokenPipeError, match="scripted"):
        near.send(b"cd")
    assert near.send(b"cd") == 2
    assert far.recv(10) == b"abcd"


def test_an_end_does_not_block():
    near, _ = wire()
    near.setblocking(False)
    with pytest.raises(ValueError):
        near.setblocking(True)


def test_no_two_ends_have_one_number():
    numbers = {end.fileno() for _ in range(100) for end in wire()}
    assert len(numbers) == 200
    assert min(numbers) > 1 << 20
