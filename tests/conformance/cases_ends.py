"""Cases of how a connection ends: half-close, end of file, reset, close, lingering close, whoever begins."""

from __future__ import annotations

from tests.conformance.cases import case

BULK = 150_000


@case
def the_end_of_file(c):
    c.far.half_close()
    assert c.reads_to_end() == (b"", "eof")
    assert c.reads_to_end() == (b"", "eof")
    op = c.wait(c.near.read_some())
    assert (op.data, op.end) == (b"", "eof")


@case
def the_end_within_a_read(c):
    c.far.send(b"1234")
    c.far.half_close()
    op = c.wait(c.near.read(10))
    assert (op.data, op.end) == (b"1234", "eof")


@case
def the_end_comes_to_a_parked_read(c):
    op = c.near.read(10)
    c.turns(4)
    c.far.send(b"123")
    c.rest()
    assert not op.done
    c.far.half_close()
    c.wait(op)
    assert (op.data, op.end) == (b"123", "eof")


@case
def the_peer_ends_its_side_and_hears_the_answer(c):
    data, answer = c.bytes(5000), c.bytes(BULK)
    c.far.send(data)
    c.far.half_close()
    assert c.reads_to_end() == (data, "eof")
    c.writes(answer)
    c.near.finish()
    assert c.far_ends() == (answer, "eof")
    c.far.close()
    c.until(lambda: c.sock.closed)


@case
def our_side_ends_and_hears_the_answer(c):
    data, answer = c.bytes(BULK), c.bytes(BULK)
    c.writes(data)
    c.near.half_close()
    assert c.far_ends() == (data, "eof")
    c.far.send(answer)
    c.far.half_close()
    assert c.reads_to_end() == (answer, "eof")


@case
def the_end_waits_for_what_is_queued(c):
    data = c.bytes(c.transport.capacity)
    c.far.reading = False
    c.near.queue(data)
    c.rest()
    assert c.sock.unsent > 0
    c.near.half_close()
    c.rest()
    c.far.reading = True
    assert c.far_ends() == (data, "eof")
    c.far.send(b"thanks")
    assert c.reads(6) == b"thanks"


@case
def writing_after_our_own_end(c):
    """In callbacks it is discarded; in a task it is an error; either way the peer hears nothing of it."""
    c.writes(b"all")
    c.near.half_close()
    c.turns(3)
    c.wait(c.near.write(b"too late"))
    assert c.far_ends() == (b"all", "eof")
    c.far.send(b"heard")
    assert c.reads(5) == b"heard"


@case
def the_peer_closes_behind_what_it_has_sent(c):
    data = c.bytes(BULK)
    c.far.send(data)
    c.far.close()
    assert c.reads(100) == data[:100]
    c.rest()
    assert c.reads_to_end() == (data[100:], "eof")


@case
def writing_to_a_peer_that_has_gone(c):
    c.far.close()
    assert c.reads_to_end() == (b"", "eof")
    c.until(lambda: c.far.closed)
    for _ in range(100):
        if c.wait(c.near.write(b"x" * 1000)).end is not None or c.sock.closed:
            break
        c.turns(2)
    else:
        raise AssertionError("a hundred writes to nobody, and nobody was told")


@case
def the_peer_is_cut_off(c):
    """The stream ends below the protocol: over TLS that is no end of file."""
    data = c.bytes(2000)
    c.far.send(data)
    c.far.cut()
    assert c.reads(1500) == data[:1500]
    assert c.reads_to_end() == (data[1500:], c.transport.cut)


@case
def the_peer_is_cut_off_within_a_read(c):
    c.far.send(b"1234")
    op = c.near.read(10)
    c.turns(4)
    c.far.cut()
    c.wait(op)
    assert (op.data, op.end) == (b"1234", c.transport.cut)


@case
def a_reset_behind_data(c):
    """What has come before it is read first; then it is no end of file."""
    c.far.reading = False
    c.writes(b"unread: a Unix socket has no other way to reset")
    c.flushes()
    data = c.bytes(900)
    c.far.send(data)
    c.until(lambda: c.sock.ready and not c.far.unsent)
    c.far.reset()
    assert c.reads_to_end() == (data, "reset")


@case
def a_reset_under_a_parked_read(c):
    c.far.reading = False
    c.writes(b"unread")
    c.flushes()
    op = c.near.read(5)
    c.turns(4)
    c.far.reset()
    assert c.wait(op).end == "reset"
    op = c.wait(c.near.read_to_end())
    assert op.end in ("reset", "closed")


@case
def a_reset_under_a_parked_writer(c):
    c.far.reading = False
    ops = [c.near.write(c.bytes(c.transport.capacity)) for _ in range(2)]
    c.rest()
    assert c.sock.unsent
    c.far.reset()
    c.until(lambda: c.far.closed)
    read = c.near.read_to_end()
    c.wait(read)
    assert read.end == "reset"
    c.near.close()
    c.wait(*ops)
    assert c.sock.unsent == 0


@case
def close_wakes_a_parked_reader(c):
    op = c.near.read(10)
    c.far.send(b"123")
    c.rest()
    c.near.close("enough")
    assert c.wait(op).end == "closed"
    assert c.sock.closed
    assert c.sock.close_reason == "enough"
    assert c.sock.read(1) is None
    assert c.wait(c.near.read(1)).end == "closed"
    assert c.far_ends()[0] == b""


@case
def close_wakes_parked_writers(c):
    c.far.reading = False
    data = c.bytes(c.transport.capacity)
    ops = [c.near.queue(data)]
    c.turns(2)
    ops.append(c.near.write(b"more"))
    c.rest()
    ops.append(c.near.flush())
    c.rest()
    assert not ops[-1].done
    c.near.close("enough")
    c.wait(*ops)
    assert ops[-1].end == "closed"
    assert c.sock.unsent == 0
    c.far.reading = True
    got, _ = c.far_ends()
    assert data.startswith(got)
    assert len(got) < len(data)


@case
def a_close_with_nothing_to_send_is_an_end(c):
    c.writes(b"bye")
    c.flushes()
    c.near.close()
    assert c.far_ends() == (b"bye", "eof")


@case
def finish_sends_what_is_queued(c):
    data = c.bytes(c.transport.capacity)
    c.far.reading = False
    c.near.queue(data)
    c.rest()
    c.near.finish()
    c.rest()
    assert not c.sock.closed
    c.far.reading = True
    assert c.far_ends() == (data, "eof")
    assert not c.sock.closed
    c.far.close()
    c.until(lambda: c.sock.closed)


@case
def finish_costs_no_reply_whatever_is_unread(c):
    """A close with input unread would send a reset, which may overtake the reply."""
    reply = c.bytes(BULK)
    c.far.send(c.bytes(20_000))
    assert c.reads(10)
    c.far.reading = False
    c.near.queue(reply)
    c.turns(2)
    c.near.finish()
    c.far.send(c.bytes(20_000))
    c.rest()
    c.far.reading = True
    assert c.far_ends() == (reply, "eof")
    c.far.close()
    c.until(lambda: c.sock.closed)


@case
def finish_under_a_parked_reader(c):
    c.sock.linger_seconds = 0.05  # after which callbacks hear of their own end, while the peer stays
    op = c.near.read(10)
    c.turns(3)
    c.near.finish()
    assert c.wait(op).end == "closed"
    assert c.far_ends() == (b"", "eof")
    c.far.close()
    c.until(lambda: c.sock.closed)


@case
def finish_does_not_wait_for_ever(c):
    c.sock.linger_seconds = 0.05
    c.writes(b"bye")
    c.near.finish()
    assert c.far_ends() == (b"bye", "eof")
    c.until(lambda: c.sock.closed)
    assert "after finish()" in c.sock.close_reason


@case
def finish_bounds_late_input(c):
    c.sock.linger_bytes = 10_000
    c.near.finish()
    c.far.send(c.bytes(c.transport.capacity))
    c.until(lambda: c.sock.closed)
    assert "after finish()" in c.sock.close_reason


@case
def both_sides_end_at_once(c):
    data, back = c.bytes(9000), c.bytes(9000)
    c.far.send(back)
    c.far.half_close()
    c.writes(data)
    c.near.half_close()
    assert c.far_ends() == (data, "eof")
    assert c.reads_to_end() == (back, "eof")
