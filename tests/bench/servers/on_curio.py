"""curio: `tcp_server`, `recv` with a buffer of one's own."""

import socket
import sys

import curio

from tests.bench.protocol import ANSWERS, BACKLOG, BLOCK, CHUNK, LARGE, REPLY, blocks, many_files, serving_on


async def talk(sock, answer):
    rest = b""
    while data := await sock.recv(CHUNK):
        replies, rest = answer(rest + data if rest else data)
        if replies:
            await sock.sendall(replies)


async def lines(sock, _address):
    await talk(sock, ANSWERS["lines"])


async def http(sock, _address):
    await talk(sock, ANSWERS["http"])


async def receive(sock, _address):
    count, scratch = 0, bytearray(LARGE)
    while size := await sock.recv_into(scratch):
        count += size
    await sock.sendall(b"%d\n" % count)


async def send(sock, _address):
    rest = b""
    while data := await sock.recv(CHUNK):
        rest += data
        if rest.endswith(b"\n"):
            count, tail = blocks(int(rest))
            rest = b""
            for _ in range(count):
                await sock.sendall(BLOCK)
            await sock.sendall(tail)


everybody: dict[object, None] = {}


async def broadcast(sock, _address):
    everybody[sock] = None
    await sock.sendall(REPLY)
    rest = b""
    try:
        while data := await sock.recv(CHUNK):
            head, newline, rest = (rest + data).rpartition(b"\n")
            if newline:
                for peer in list(everybody):
                    await peer.sendall(head + newline)
    finally:
        del everybody[sock]


async def main(handler):
    sock = curio.network.tcp_server_socket("127.0.0.1", 0, backlog=BACKLOG)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    serving_on(sock.getsockname()[1])
    await curio.network.run_server(sock, handler)


if __name__ == "__main__":
    many_files()
    curio.run(main, globals()[sys.argv[1]])
