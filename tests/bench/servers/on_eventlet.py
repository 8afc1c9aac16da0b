"""eventlet: `spawn_n` for each connection, `recv` with a buffer of one's own."""

import socket
import sys
import warnings

warnings.simplefilter("ignore")  # eventlet deprecates itself at import

import eventlet  # noqa: E402

from tests.bench.protocol import ANSWERS, BACKLOG, BLOCK, CHUNK, LARGE, REPLY, blocks, many_files, serving_on  # noqa: E402


def talk(sock, answer):
    rest = b""
    while data := sock.recv(CHUNK):
        replies, rest = answer(rest + data if rest else data)
        if replies:
            sock.sendall(replies)


def lines(sock):
    talk(sock, ANSWERS["lines"])


def http(sock):
    talk(sock, ANSWERS["http"])


def receive(sock):
    count, scratch = 0, bytearray(LARGE)
    while size := sock.recv_into(scratch):
        count += size
    sock.sendall(b"%d\n" % count)


def send(sock):
    rest = b""
    while data := sock.recv(CHUNK):
        rest += data
        if rest.endswith(b"\n"):
            count, tail = blocks(int(rest))
            rest = b""
            for _ in range(count):
                sock.sendall(BLOCK)
            sock.sendall(tail)


everybody: dict[object, None] = {}


def broadcast(sock):
    everybody[sock] = None
    sock.sendall(REPLY)
    rest = b""
    try:
        while data := sock.recv(CHUNK):
            head, newline, rest = (rest + data).rpartition(b"\n")
            if newline:
                for peer in list(everybody):
                    peer.sendall(head + newline)
    finally:
        del everybody[sock]


def serve(sock, handler):
    try:
        handler(sock)
    finally:
        sock.close()


if __name__ == "__main__":
    many_files()
    listener = eventlet.listen(("127.0.0.1", 0), backlog=BACKLOG)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    serving_on(listener.getsockname()[1])
    handler = globals()[sys.argv[1]]
    while True:
        eventlet.spawn_n(serve, listener.accept()[0], handler)
