"""trio: `serve_listeners`; reads from the socket beneath the stream, which has fewer checks, with a buffer of one's
own."""

import sys

import trio

from tests.bench.protocol import ANSWERS, BACKLOG, BLOCK, CHUNK, LARGE, REPLY, blocks, many_files, serving_on


async def talk(stream, answer):
    rest, recv, send_all = b"", stream.socket.recv, stream.send_all
    while data := await recv(CHUNK):
        replies, rest = answer(rest + data if rest else data)
        if replies:
            await send_all(replies)


async def lines(stream):
    await talk(stream, ANSWERS["lines"])


async def http(stream):
    await talk(stream, ANSWERS["http"])


async def receive(stream):
    count, scratch, recv_into = 0, bytearray(LARGE), stream.socket.recv_into
    while size := await recv_into(scratch):
        count += size
    await stream.send_all(b"%d\n" % count)


async def send(stream):
    rest = b""
    while data := await stream.socket.recv(CHUNK):
        rest += data
        if rest.endswith(b"\n"):
            count, tail = blocks(int(rest))
            rest = b""
            for _ in range(count):
                await stream.send_all(BLOCK)
            await stream.send_all(tail)


everybody: dict[trio.SocketStream, None] = {}


async def broadcast(stream):
    everybody[stream] = None
    await stream.send_all(REPLY)
    rest = b""
    try:
        while data := await stream.socket.recv(CHUNK):
            head, newline, rest = (rest + data).rpartition(b"\n")
            if newline:
                for peer in list(everybody):
                    await peer.send_all(head + newline)
    finally:
        del everybody[stream]


async def main(handler):
    async def serve(stream):
        try:
            await handler(stream)
        except OSError:
            pass
        finally:
            stream.socket.close()

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=BACKLOG)
    serving_on(listener.socket.getsockname()[1])
    await trio.serve_listeners(serve, [listener])


if __name__ == "__main__":
    many_files()
    trio.run(main, globals()[sys.argv[1]])
