"""Cases of what comes in: order, parts, lines, limits, pushed-back bytes, back-pressure on the peer."""

from __future__ import annotations

from tests.conformance.cases import case

BULK = 150_000


@case
def random_reads_of_random_pieces_are_in_order(c):
    data = c.bytes(30_000)
    got, pieces = b"", iter(c.pieces(data, 3000))
    while len(got) < len(data):
        op = c.near.read(min(c.rng.randint(1, 4000), len(data) - len(got)))
        while not op.done:
            c.far.send(next(pieces, b""))
            c.turns(c.rng.randrange(1, 4))
        got += op.data
    assert got == data


@case
def one_byte_at_a_time(c):
    data = c.bytes(60)
    c.far.most = 1
    c.far.send(data)
    assert c.reads(20) == data[:20]
    for at in range(20, 60, 10):
        assert c.reads(10) == data[at : at + 10]


@case
def some_is_what_is_there(c):
    data = c.bytes(50)
    c.far.send(data)
    got = b""
    while len(got) < 50:
        op = c.wait(c.near.read_some())
        assert op.data
        assert op.end is None
        got += op.data
    assert got == data


@case
def bulk_comes_whole(c):
    data = c.bytes(BULK)
    c.far.send(data)
    c.far.half_close()
    assert c.reads(1000) == data[:1000]
    assert c.reads_to_end() == (data[1000:], "eof")


@case
def lines_whatever_the_pieces(c):
    lines = [c.bytes(c.rng.choice((0, 5, 80, 3000))).replace(b"\n", b"_") + b"\n" for _ in range(30)]
    for piece in c.pieces(b"".join(lines), c.rng.choice((7, 200, 10_000))):
        c.far.send(piece)
        if c.rng.randrange(3) == 0:
            c.turns(1)
    assert [c.wait(c.near.read_line()).data for _ in lines] == lines


@case
def a_line_that_the_end_cuts_off(c):
    c.far.send(b"one\ntwo\nthr")
    c.far.half_close()
    assert [c.wait(c.near.read_line()).data for _ in range(2)] == [b"one\n", b"two\n"]
    op = c.wait(c.near.read_line())
    assert (op.data, op.end) == (b"thr", "eof")
    op = c.wait(c.near.read_line())
    assert (op.data, op.end) == (b"", "eof")


@case
def reads_and_lines_mixed(c):
    for number in range(12):
        body = c.bytes(c.rng.randint(1, 6000))
        c.far.send(b"%d %d\n" % (number, len(body)) + body)
        c.turns(c.rng.randrange(3))
        n, size = c.wait(c.near.read_line()).data.split()
        assert (int(n), int(size)) == (number, len(body))
        assert c.reads(len(body)) == body


@case
def pushed_back_bytes_come_first(c):
    data = c.bytes(3000)
    c.far.send(data)
    got = c.reads(1000)
    c.near.push_back(got[600:])
    c.near.push_back(got[200:600])  # the latest first
    c.turns(c.rng.randrange(4))
    assert c.reads(2800) == data[200:]


@case
def bytes_pushed_back_under_a_read(c):
    data = c.bytes(500)
    op = c.near.read(500)
    c.turns(5)
    assert not op.done
    c.near.push_back(data[:100])
    c.turns(5)
    assert not op.done
    c.far.send(data[100:])
    assert c.wait(op).data == data


@case
def bytes_pushed_back_are_enough(c):
    op = c.near.read(7)
    c.turns(3)
    c.near.push_back(b"enough and more")
    assert c.wait(op).data == b"enough "
    assert c.reads(8) == b"and more"


@case
def bytes_pushed_back_after_the_end(c):
    c.far.send(b"the last")
    c.far.half_close()
    assert c.reads_to_end() == (b"the last", "eof")
    c.near.push_back(b"not quite")
    c.turns(c.rng.randrange(3))
    assert c.reads(3) == b"not"
    assert c.reads_to_end() == (b" quite", "eof")


@case
def who_does_not_read_stops_the_peer(c):
    """The peer's bytes stay in the kernels: how many that are is bounded, and none is lost."""
    data = c.bytes(c.transport.capacity)
    c.far.send(data)
    assert c.reads(10) == data[:10]
    c.rest()
    assert c.far.unsent > 0
    assert c.sock.buffered <= 2 * 65536
    c.far.half_close()
    assert c.reads_to_end() == (data[10:], "eof")


@case
def ready_says_what_a_read_will_find(c):
    assert not c.sock.ready
    c.far.send(b"x" * 100)
    c.until(lambda: c.sock.ready)
    assert c.reads(60) == b"x" * 60
    assert c.sock.ready
    assert c.reads(40) == b"x" * 40
    assert not c.sock.ready
    c.far.half_close()
    c.until(lambda: c.sock.ready)
    assert c.reads_to_end() == (b"", "eof")
    assert c.sock.ready
