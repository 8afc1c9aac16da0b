"""Cases of what goes out: order, parts, a peer that reads slowly, water marks, callables, both directions at once."""

from __future__ import annotations

import tempfile

import dangagreen as d
from tests.conformance.cases import case
from tests.helpers import attempt

BULK = 150_000


@case
def random_writes_are_in_order(c):
    data = c.bytes(40_000)
    for piece in c.pieces(data, c.rng.choice((300, 9000))):
        c.writes(piece)
    c.flushes()
    assert c.far_gets(len(data)) == data
    assert c.sock.unsent == 0


@case
def writes_of_one_turn_are_in_order(c):
    data = c.bytes(6000)
    ops = [c.near.write(piece) for piece in c.pieces(data, 400)]
    c.wait(*ops)
    got = c.far_gets(len(data))
    assert got == data if c.near.whole else sorted(got) == sorted(data)


@case
def nothing_is_written_by_nothing(c):
    c.writes(b"")
    c.writes(b"x")
    c.writes(b"")
    c.flushes()
    assert c.far_gets(1) == b"x"
    c.turns(5)
    assert c.far.got == b"x"


@case
def bulk_to_a_peer_that_reads_little_at_a_time(c):
    data = c.bytes(BULK)
    c.far.most = c.rng.choice((900, 5000))
    c.writes(data)
    c.writes(b"the end")
    assert c.far_gets(len(data) + 7) == data + b"the end"


@case
def a_peer_that_stalls_parks_the_writer(c):
    data = c.bytes(c.transport.capacity)
    c.far.reading = False
    written = 0
    op = None
    while op is None or op.done:
        piece = data[written : written + 20_000]
        assert piece, "the peer has not read, and all of it was taken"
        op = c.near.write(piece)
        written += len(piece)
        c.rest()
    highs = c.sock.highs
    assert highs == c.sock.lows + 1
    assert c.sock.low_water < c.sock.unsent <= c.sock.high_water + 20_000
    c.far.reading = True
    c.wait(op)
    c.flushes()
    assert c.sock.highs == c.sock.lows
    assert c.far_gets(written) == data[:written]


@case
def a_flush_waits_for_the_last_byte(c):
    data = c.bytes(c.transport.capacity)
    c.far.reading = False
    write = c.near.queue(data)
    c.turns(2)
    flush = c.near.flush()
    c.rest()
    assert not flush.done
    assert c.sock.unsent > 0
    c.far.reading = True
    c.wait(write)
    c.flushes()
    assert c.sock.unsent == 0
    assert c.far_gets(len(data)) == data


@case
def callables_run_between_the_bytes(c):
    """Each when everything before it was sent; what it writes comes after what was queued."""
    said = []

    def begin():
        c.sock.write(c_data[:50_000])
        c.sock.write(lambda: said.append(c.sock.unsent))
        c.sock.write(c_data[50_000:])
        c.sock.write(last)

    def last():
        said.append("last")
        c.sock.write(b"!")

    c_data = c.bytes(BULK)
    c.far.reading = False
    c.near.on_the_loop(begin)
    c.rest()
    c.far.reading = True
    assert c.far_gets(BULK + 1) == c_data + b"!"
    assert said[1:] == ["last"]


@case
def a_writer_function_sees_all_of_it(c):
    seen = bytearray()

    def writer(data):
        sent = c.sock.sock.send(data[:1000])
        seen.extend(data[:sent])
        return sent

    data = c.bytes(20_000)
    c.near.on_the_loop(c.sock.set_writer_func, writer)
    c.turns(2)
    c.writes(data)
    assert c.far_gets(len(data)) == data
    assert seen == data


@case
def more_than_max_unsent_closes(c):
    c.sock.max_unsent = 60_000
    c.far.reading = False
    data = c.bytes(c.transport.capacity)
    at = 0
    while not c.sock.closed:
        c.near.on_the_loop(c.sock.write, data[at : at + 10_000])
        at += 10_000
        c.turns(1)
        assert at < len(data)
        assert c.sock.closed or c.sock.unsent <= 60_000
    assert "max_unsent is 60000" in c.sock.close_reason
    c.far.reading = True
    got, _ = c.far_ends()
    assert data.startswith(got)


@case
def one_write_that_is_larger_than_max_unsent_is_refused(c):
    c.sock.max_unsent = 60_000
    task = d.spawn(attempt, c.sock.write_all, bytes(60_001))
    c.until(lambda: task.done)
    assert isinstance(task.result(), d.LimitError)
    c.writes(b"as before")
    assert c.far_gets(9) == b"as before"


@case
def both_directions_at_once(c):
    """Each side writes more than the kernels hold before it reads: neither waits for the other for ever."""
    there, back = c.bytes(c.transport.capacity), c.bytes(c.transport.capacity)
    c.far.send(there)
    c.far.reading = False
    write, read = c.near.write(back), c.near.read(len(there))
    c.until(lambda: c.far.unsent < len(there) // 2)
    c.far.reading = True
    c.wait(write, read)
    assert read.data == there
    assert c.far_gets(len(back)) == back


@case
def request_and_reply(c):
    for _ in range(25):
        request, reply = c.bytes(c.rng.randint(1, 300)), c.bytes(c.rng.randint(1, 3000))
        c.far.send(request)
        assert c.reads(len(request)) == request
        c.far.got.clear()
        c.writes(reply)
        assert c.far_gets(len(reply)) == reply


@case
def several_writers_wait_in_their_order(c):
    data = [bytes([65 + number]) * 30_000 for number in range(6)]
    c.far.reading = False
    c.near.queue(c.bytes(30_000))
    c.rest()
    tasks = [d.spawn(c.sock.write_all, piece) for piece in data]
    c.rest()
    c.far.reading = True
    c.until(lambda: all(task.done for task in tasks))
    assert c.far_gets(30_000 * 7)[30_000:] == b"".join(data)


@case
def writers_that_come_while_others_wait_have_their_turn_after_them(c):
    """Large and small ones, at any time: nobody overtakes, though there may be room for a small one first."""
    sent, tasks = [], []
    c.far.most = 1500
    for number in range(30):
        piece = bytes([65 + number]) * c.rng.choice((10, 3000, 9000, 20_000))
        sent.append(piece)
        tasks.append(d.spawn(c.sock.write_all, piece))
        c.turns(c.rng.choice((0, 0, 1, 4, 20)))
        c.far.reading = bool(c.rng.randrange(4))
    c.far.reading = True
    c.until(lambda: all(task.done for task in tasks))
    assert c.far_gets(sum(map(len, sent))) == b"".join(sent)


@case
def a_file_has_its_turn_among_the_writes(c):
    """By sendfile(2), or in pieces where bytes do not go out as they are; cancelled, it goes on where it was."""
    data = c.bytes(BULK)

    def send():
        sent = 0
        while c.near.canceller is not None:
            with c.near.canceller.scope(c.loop):
                return sent + c.sock.send_file(file, sent)
            sent += c.sock.sent_of_file
        return c.sock.send_file(file)

    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        c.near.queue(b"head")
        c.turns(2)
        task = d.spawn(send)
        c.turns(2)
        other = d.spawn(c.sock.write_all, b"tail") if c.near.canceller is None else task
        size = len(data) + (4 if other is task else 8)
        assert c.far_gets(size) == b"head" + data + b"tail" * (other is not task)
        c.until(lambda: task.done and other.done)
        assert task.result() == len(data)


@case
def a_file_of_a_callback_has_its_turn_among_the_writes(c):
    data = c.bytes(BULK)
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        c.near.queue(b"head")
        c.turns(2)
        c.sock.write_file(file)
        c.sock.write(b"tail")
    assert c.far_gets(len(data) + 8) == b"head" + data + b"tail"
