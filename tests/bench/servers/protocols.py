"""asyncio as Protocol. Second argument: `asyncio` or `uvloop`."""

import asyncio
import sys

from tests.bench.protocol import (
    ANSWERS,
    BACKLOG,
    BLOCK,
    LARGE,
    REPLY,
    blocks,
    handle,
    many_files,
    serving_on,
    small_reads,
)


class Lines(asyncio.Protocol):
    __slots__ = ("rest", "transport")

    def connection_made(self, transport):
        self.transport = transport
        self.rest = b""
        small_reads(transport)

    def data_received(self, data):
        if self.rest:
            data = self.rest + data
        lines = data.split(b"\n")
        self.rest = lines.pop()
        if len(lines) == 1:
            self.transport.write(handle(lines[0]))
        elif lines:
            self.transport.write(b"".join([handle(line) for line in lines]))


class Http(Lines):
    __slots__ = ()
    answer = staticmethod(ANSWERS["http"])

    def data_received(self, data):
        replies, self.rest = self.answer(self.rest + data if self.rest else data)
        if replies:
            self.transport.write(replies)


class Receive(asyncio.BufferedProtocol):
    __slots__ = ("count", "transport")
    scratch = memoryview(bytearray(LARGE))

    def connection_made(self, transport):
        self.transport = transport
        self.count = 0

    def get_buffer(self, _sizehint):
        return self.scratch

    def buffer_updated(self, size):
        self.count += size

    def eof_received(self):
        self.transport.write(b"%d\n" % self.count)


class Send(Lines):
    __slots__ = ("left", "paused", "tail")

    def connection_made(self, transport):
        super().connection_made(transport)
        self.paused, self.left, self.tail = False, 0, b""

    def data_received(self, data):
        self.rest += data
        if self.rest.endswith(b"\n"):
            self.left, self.tail = blocks(int(self.rest))
            self.rest = b""
            self.pump()

    def pump(self):
        while self.left and not self.paused:
            self.left -= 1
            self.transport.write(BLOCK)
        if not self.left and self.tail:
            self.transport.write(self.tail)
            self.tail = b""

    def pause_writing(self):
        self.paused = True

    def resume_writing(self):
        self.paused = False
        self.pump()


class Broadcast(Lines):
    __slots__ = ()
    everybody = {}  # noqa: RUF012

    def connection_made(self, transport):
        super().connection_made(transport)
        self.everybody[self] = transport
        transport.write(REPLY)

    def connection_lost(self, _error):
        del self.everybody[self]

    def data_received(self, data):
        head, newline, self.rest = (self.rest + data).rpartition(b"\n")
        if newline:
            message = head + newline
            for transport in self.everybody.values():
                transport.write(message)


CLASSES = {"lines": Lines, "http": Http, "receive": Receive, "send": Send, "broadcast": Broadcast}


async def main(mode):
    server = await asyncio.get_running_loop().create_server(CLASSES[mode], "127.0.0.1", 0, backlog=BACKLOG)
    serving_on(server.sockets[0].getsockname()[1])
    await server.serve_forever()


if __name__ == "__main__":
    many_files()
    if sys.argv[2] == "uvloop":
        import uvloop

        uvloop.run(main(sys.argv[1]))
    else:
        asyncio.run(main(sys.argv[1]))
