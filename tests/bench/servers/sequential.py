"""dangagreen in sequential style. Second argument: `task`, a task for each connection; `requests`, `serve_requests`;
`split`, a task which splits what it reads into lines itself, as the servers of the peers do where that is faster;
`iteration`, one that says `for line in sock`; `timeouts`, one with a timeout around every read; `idle`, one whose
sockets have an `idle_timeout`."""

import sys

from dangagreen import Socket, serve, serve_requests, timeout
from tests.bench.protocol import (
    ANSWERS,
    BACKLOG,
    BLOCK,
    CHUNK,
    END,
    LARGE,
    REPLY,
    blocks,
    handle,
    handle_http,
    many_files,
    serving_on,
)


def lines(sock):
    while line := sock.read_line():
        sock.write_all(handle(line))


def lines_iteration(sock):
    for line in sock:
        sock.write_all(handle(line))


def lines_split(sock):
    rest, answer = b"", ANSWERS["lines"]
    while data := sock.read_some(CHUNK):
        replies, rest = answer(rest + data if rest else data)
        if replies:
            sock.write_all(replies)


def lines_timeouts(sock):
    while True:
        with timeout(30):
            line = sock.read_line()
        if not line:
            return
        sock.write_all(handle(line))


class Bounded(Socket):
    __slots__ = ()
    idle_timeout = 30


lines_idle = lines


def lines_requests(sock):
    while line := sock.read_line():
        sock.write_all(handle(line))
        if not sock.buffered:  # idle again: give the greenlet back
            break


def http(sock):
    while head := sock.read_until(END):
        sock.write_all(handle_http(head))


def http_requests(sock):
    head = sock.read_until(END)
    if head:
        sock.write_all(handle_http(head))


scratch = bytearray(LARGE)


def receive(sock):
    count = 0
    while size := sock.read_some_into(scratch):
        count += size
    sock.write_all(b"%d\n" % count)


def send(sock):
    while line := sock.read_line():
        count, rest = blocks(int(line))
        for _ in range(count):
            sock.write_all(BLOCK)
        sock.write_all(rest)


everybody: dict[Socket, None] = {}


def broadcast(sock):
    sock.write(REPLY)
    everybody[sock] = None
    try:
        while line := sock.read_line():
            for peer in everybody:
                peer.write(line)
    finally:
        del everybody[sock]


def main(mode, variant):
    handler = globals()[mode if variant == "task" else f"{mode}_{variant}"]
    start = serve_requests if variant == "requests" else serve
    kind = Bounded if variant == "idle" else Socket
    serving_on(start(("127.0.0.1", 0), handler, backlog=BACKLOG, socket_class=kind).address[1])
    Socket.event_loop()


if __name__ == "__main__":
    many_files()
    main(*sys.argv[1:])
