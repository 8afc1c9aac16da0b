"""gevent. `recv` with a buffer of one's own, which is faster than `makefile`; second argument `readline` for that."""

import socket
import sys

from gevent.server import StreamServer

from tests.bench.protocol import ANSWERS, BACKLOG, BLOCK, CHUNK, LARGE, REPLY, blocks, handle, many_files, serving_on


def talk(sock, answer):
    rest, recv, sendall = b"", sock.recv, sock.sendall
    while data := recv(CHUNK):
        replies, rest = answer(rest + data if rest else data)
        if replies:
            sendall(replies)


def lines(sock, _address):
    talk(sock, ANSWERS["lines"])


def http(sock, _address):
    talk(sock, ANSWERS["http"])


def lines_readline(sock, _address):
    sendall = sock.sendall
    for line in sock.makefile("rb"):
        sendall(handle(line))


def receive(sock, _address):
    count, scratch = 0, bytearray(LARGE)
    while size := sock.recv_into(scratch):
        count += size
    sock.sendall(b"%d\n" % count)


def send(sock, _address):
    for line in sock.makefile("rb"):
        count, rest = blocks(int(line))
        for _ in range(count):
            sock.sendall(BLOCK)
        sock.sendall(rest)


everybody: dict[object, None] = {}


def broadcast(sock, _address):
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


if __name__ == "__main__":
    many_files()
    server = StreamServer(("127.0.0.1", 0), globals()["_".join(sys.argv[1:])], backlog=BACKLOG)
    server.start()
    server.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted connections inherit it
    serving_on(server.server_port)
    server.serve_forever()
