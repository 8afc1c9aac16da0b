"""Sockets and servers in snapshots: their state, who is parked on them, what has passed through them."""

from __future__ import annotations

import pytest

from tests.introspect.seeing import answers

pytestmark = pytest.mark.slow_but_first  # each starts a program


def test_sockets_of_both_styles_and_who_reads_them():
    answers("""
loop = virtual_loop()
class Echo(d.Socket):
    __slots__ = ()
    def event_read(self): pass
with loop:
    ours, theirs = wire()
    echo, other = Echo(ours), d.Socket(theirs)
    echo.watch_read(True)
    def reader():
        other.read_exactly(5)
    task = d.spawn(reader)
    d.sleep(2)
    echo.write(b"abc")
    d.sleep(1)
    seen = {sock.kind: sock for sock in introspect.snapshot().sockets}
    a, b = seen["Echo"], seen["Socket"]
    assert (a.style, a.state, a.interest, a.buffered, a.queued, a.reader) == ("callbacks", "open", "R", 0, 0, None), a
    assert (b.interest, b.buffered) == ("R", 3), b
    assert (a.bytes_in, a.bytes_out, b.bytes_in, b.bytes_out) == (0, 3, 3, 0) and a.tls is None, (a, b)
    assert (a.idle, b.idle) == (3.0, 1.0), (a, b)
    total = introspect.snapshot().loop
    assert (total.bytes_in, total.bytes_out) == (3, 3), total
    assert introspect.snapshot(most=1).loop.bytes_in is None
    assert b.reader.startswith("reader#"), b
    assert (a.age, b.age) == (3.0, 3.0) and a.peer == echo.peer_addr_string() and a.local == echo.local_addr_string()
    task.cancel(); task.join()
    echo.close(); other.close()
    d.sleep(1)
    total = introspect.snapshot().loop
    assert (total.bytes_in, total.bytes_out) == (3, 3), total
""")


def test_where_and_by_which_task_a_connection_was_opened():
    answers("""
kept = []
def look_up(address):
    kept.append(d.connect(address))
def main():
    listener = d.serve(("127.0.0.1", 0), lambda sock: sock.read_some())
    d.spawn(look_up, listener.address).join()
    d.sleep(0.01)
    seen = {sock.reader is not None: sock for sock in introspect.snapshot().sockets if sock.peer}
    accepted, opened = seen[True], seen[False]
    assert (accepted.opened_at, accepted.opened_by) == (None, None), accepted
    assert opened.opened_at.endswith(f":{look_up.__code__.co_firstlineno + 1}"), opened
    assert opened.opened_by.startswith("look_up#"), opened
    assert f"opened at {opened.opened_at} by {opened.opened_by}," in introspect.text.as_text(introspect.snapshot())
    kept.pop().close()
    listener.close()
d.run(main)
""")


def test_a_connection_and_its_handler_are_named_with_each_other():
    answers("""
event = d.Event()
def handler(sock):
    sock.read_line()
    event.wait()
def main():
    listener = d.serve(("127.0.0.1", 0), handler)
    with d.connect(listener.address) as client:
        client.write_all(b"x\\n")
        d.sleep(0.05)
        seen = introspect.snapshot()
        (served,) = [sock for sock in seen.sockets if sock.opened_at is None]
        (task,) = [task for task in seen.tasks if task.name.startswith("handler#")]
        assert (served.handler, task.serves) == (task.name, served.fd), (served, task)
        text = introspect.text.as_text(seen)
        (line,) = [line for line in text.splitlines() if line.startswith(f"fd {served.fd} ")]
        assert f", handler {task.name}, " in line and "nobody reads it" not in line, line
        (line,) = [line for line in text.splitlines() if line.startswith(f"task {task.name}:")]
        assert f", serves fd {served.fd}" in line, line
        (line,) = [line for line in text.splitlines() if line.startswith(f"fd {client.fd} ")]
        assert "nobody reads it" in line and "handler" not in line, line
    event.set()
    d.sleep(0.05)
d.run(main)
""")


def test_an_end_of_the_peer_that_nobody_has_read_is_told():
    answers("""
def main():
    listener = d.serve(("127.0.0.1", 0), d.Socket.finish)
    with d.connect(listener.address) as idle, d.connect(listener.address) as read:
        d.sleep(0.05)
        assert read.read_line() == b""
        ended = {sock.fd: sock.peer_ended for sock in introspect.snapshot().sockets}
        assert ended[read.fd] and (ended[idle.fd] or sys.platform != "linux"), ended
        text = introspect.text.as_text(introspect.snapshot())
        (line,) = [line for line in text.splitlines() if line.startswith(f"fd {read.fd} ")]
        assert "tasks, open, its peer has ended, nobody reads it" in line, line
    with d.connect(d.serve(("127.0.0.1", 0), d.Socket.read_line).address) as sock:
        d.sleep(0.05)
        assert not any(one.peer_ended for one in introspect.snapshot().sockets if one.fd == sock.fd)
d.run(main)
""")


def test_a_handler_that_has_ended_with_its_connection_does_not_count_as_returned():
    answers("""
def handler(sock):
    sock.read_exactly(5)
def main():
    listener = d.serve(("127.0.0.1", 0), handler)
    for data in (b"12345", b"123"):
        with d.connect(listener.address) as sock:
            sock.write_all(data)
        d.sleep(0.05)
    last, first = [ended.outcome for ended in introspect.snapshot().ended]
    assert first == "returned" and last.startswith("ended with IncompleteReadError("), (first, last)
d.run(main)
""")


def test_closed_connections_that_a_table_keeps_are_counted_by_class():
    answers("""
loop = virtual_loop()
class Listed(d.Socket):
    __slots__ = ()
table = []
with loop:
    for _ in range(3):
        ours, theirs = wire()
        table += [Listed(ours), d.Socket(theirs)]
    free = [sock for sock in wire()]
    d.Socket(free.pop()).close()
    assert introspect.snapshot().loop.not_freed == ()
    for sock in table[:5]:
        sock.close()
    d.sleep(1)
    del sock
    seen = introspect.snapshot()
    assert seen.loop.not_freed == (("Listed", 3), ("Socket", 2)), seen.loop
    assert "  closed connections that are not freed: 3 Listed, 2 Socket\\n" in introspect.text.as_text(seen)
    table.pop().close()
    table.clear()
    d.sleep(1)
    assert introspect.snapshot().loop.not_freed == ()
""")


def test_servers_with_their_limits():
    answers("""
def main():
    listener = d.serve(("127.0.0.1", 0), lambda sock: sock.read_some(), max_connections=2)
    socks = [d.connect(listener.address) for _ in range(2)]
    d.sleep(0.01)
    waits = d.connect(listener.address)
    (seen,) = introspect.snapshot().listeners
    assert (seen.state, seen.accepted, seen.current, seen.limit) == ("full", 2, 2, 2), seen
    assert (seen.refused, seen.opening) == (0, 0) and seen.waiting in (1, None), seen
    waits.close()
    assert seen.addresses == (str(listener.address),)
    socks[0].close()
    while listener.accepted == 2 or listener.connections == 2:
        d.sleep(0.001)
    (seen,) = introspect.snapshot().listeners
    assert (seen.state, seen.accepted, seen.current) == ("accepting", 3, 1) and not seen.waiting, seen
    socks[1].close()
    listener.drain()
d.run(main)
""")


def test_everybody_who_is_parked_on_a_socket():
    answers("""
loop = virtual_loop()
def writes(sock):
    sock.write_all(b"x")
def drains(sock):
    with sock:
        pass
def selects(sock):
    d.select(sock)
with loop:
    ours, theirs = wire(capacity=10)
    sock, other = d.Socket(ours), d.Socket(theirs)
    sock.low_water, sock.high_water = 0, 5
    sock.write(b"y" * 30)
    reader = d.spawn(sock.read_some)
    tasks = [d.spawn(writes, sock), d.spawn(writes, sock), d.spawn(sock.drain), d.spawn(drains, sock)]
    d.sleep(1)
    seen = next(one for one in introspect.snapshot().sockets if one.fd == sock.fd)
    names = lambda those: [name.partition("#")[0].rpartition(".")[2] for name in those]
    assert names([seen.reader]) == ["read_some"] and names(seen.writers) == ["writes", "writes"], seen
    assert names(seen.drainers) == ["drain", "drains"] and seen.queued == 20, seen
    assert seen.writers[0] != seen.writers[1]
    out = io.StringIO()
    introspect.dump(out)
    (line,) = [line for line in out.getvalue().splitlines() if line.startswith(f"fd {sock.fd} ")]
    for words in ("read by ", "written by writes#", "drained by ", "queued 20", "idle 1.0 s"):
        assert words in line, line
    reader.cancel()
    reader.join()
    selector = d.spawn(selects, sock)
    d.sleep(1)
    seen = next(one for one in introspect.snapshot().sockets if one.fd == sock.fd)
    assert names([seen.reader]) == ["selects"], seen
    for task in (*tasks, selector):
        task.cancel()
        task.join()
    sock.close(); other.close()
""")


def test_a_handshake_is_under_way_and_refused_and_then_tls_is_told():
    answers("""
import ssl
from tests.certificates import client_context, server_context
def main():
    listener = d.serve(("127.0.0.1", 0), lambda sock: sock.read_some(), tls=server_context())
    silent = d.connect(listener.address)
    d.sleep(0.01)
    while not listener.openings.under_way:
        d.sleep(0.001)
    seen = introspect.snapshot()
    (opening,) = [sock for sock in seen.sockets if sock.state == "opening"]
    assert opening.peer == silent.local_addr_string() and seen.listeners[0].opening == 1, opening
    silent.write_all(b"this is no TLS at all, is it?")
    while not listener.failed_handshakes:
        d.sleep(0.001)
    silent.close()
    while listener.connections:
        d.sleep(0.001)
    with d.connect(listener.address, tls=client_context()) as sock:
        sock.write_all(b"x")
        d.sleep(0.01)
        seen = introspect.snapshot()
        assert (seen.listeners[0].refused, seen.listeners[0].current) == (1, 1), seen.listeners
        (tls,) = {one.tls for one in seen.sockets if one.tls is not None}
        assert tls.startswith("TLSv1.3 TLS_"), tls
    listener.close()
d.run(main)
""")
