"""asyncio as streams. Second argument: `asyncio` or `uvloop`; third, for modes that have both: `readline` (the calls
that streams are there for), otherwise `read` with a buffer of one's own, which is faster."""

import asyncio
import sys

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
    small_reads,
)


async def talk(reader, writer, answer):
    small_reads(writer.transport)
    rest = b""
    while data := await reader.read(CHUNK):
        replies, rest = answer(rest + data if rest else data)
        if replies:
            writer.write(replies)
            await writer.drain()
    writer.close()


async def lines(reader, writer):
    await talk(reader, writer, ANSWERS["lines"])


async def http(reader, writer):
    await talk(reader, writer, ANSWERS["http"])


async def lines_readline(reader, writer):
    small_reads(writer.transport)
    while line := await reader.readline():
        writer.write(handle(line))
        await writer.drain()
    writer.close()


async def http_readline(reader, writer):
    small_reads(writer.transport)
    try:
        while True:
            writer.write(handle_http(await reader.readuntil(END)))
            await writer.drain()
    except asyncio.IncompleteReadError:
        writer.close()


async def receive(reader, writer):
    small_reads(writer.transport)
    count = 0
    while size := len(await reader.read(LARGE)):  # what is not kept, the next chunk goes into
        count += size
    writer.write(b"%d\n" % count)
    writer.close()


async def send(reader, writer):
    while line := await reader.readline():
        count, rest = blocks(int(line))
        for _ in range(count):
            writer.write(BLOCK)
            await writer.drain()
        writer.write(rest)
        await writer.drain()
    writer.close()


everybody: dict[asyncio.StreamWriter, None] = {}


async def broadcast(reader, writer):
    small_reads(writer.transport)
    everybody[writer] = None
    writer.write(REPLY)
    while line := await reader.readline():
        for peer in everybody:
            peer.write(line)
    del everybody[writer]
    writer.close()


async def main(mode, variant=""):
    server = await asyncio.start_server(
        globals()[f"{mode}_{variant}" if variant else mode], "127.0.0.1", 0, backlog=BACKLOG
    )
    serving_on(server.sockets[0].getsockname()[1])
    await server.serve_forever()


if __name__ == "__main__":
    many_files()
    arguments = [sys.argv[1], *sys.argv[3:]]
    if sys.argv[2] == "uvloop":
        import uvloop

        uvloop.run(main(*arguments))
    else:
        asyncio.run(main(*arguments))
