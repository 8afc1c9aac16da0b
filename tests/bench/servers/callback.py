"""dangagreen in callback style."""

import sys

from dangagreen import Socket, serve
from tests.bench.protocol import ANSWERS, BACKLOG, BLOCK, CHUNK, LARGE, REPLY, blocks, handle, many_files, serving_on


class Lines(Socket):
    __slots__ = ("rest",)

    def __init__(self, sock):
        super().__init__(sock)
        self.rest = b""

    def event_read(self):
        data = self.read(CHUNK)
        if data is None:
            return self.finish()
        if self.rest:
            data = self.rest + data
        lines = data.split(b"\n")
        self.rest = lines.pop()
        if len(lines) == 1:
            self.write(handle(lines[0]))
        elif lines:
            self.write(b"".join([handle(line) for line in lines]))
        return None


class Http(Lines):
    __slots__ = ()
    answer = staticmethod(ANSWERS["http"])

    def event_read(self):
        data = self.read(CHUNK)
        if data is None:
            return self.finish()
        replies, self.rest = self.answer(self.rest + data if self.rest else data)
        if replies:
            self.write(replies)
        return None


class Receive(Socket):
    __slots__ = ("count",)
    scratch = bytearray(LARGE)

    def __init__(self, sock):
        super().__init__(sock)
        self.count = 0

    def event_read(self):
        for _ in range(8):
            size = self.read_into(self.scratch)
            if size is None:
                self.write(b"%d\n" % self.count)
                return self.finish()
            self.count += size
            if size < LARGE:
                break
        return None


class Send(Lines):
    __slots__ = ("left", "tail")

    def __init__(self, sock):
        super().__init__(sock)
        self.left, self.tail = 0, b""

    def event_read(self):
        data = self.read(CHUNK)
        if data is None:
            return self.finish()
        self.rest += data
        if self.rest.endswith(b"\n"):
            self.left, self.tail = blocks(int(self.rest))
            self.rest = b""
            self.on_low_water()
        return None

    def on_low_water(self):
        most = self.high_water
        while self.left and self.unsent <= most:
            self.left -= 1
            self.write(BLOCK)
        if not self.left and self.tail:
            tail, self.tail = self.tail, b""
            self.write(tail)


class Broadcast(Lines):
    __slots__ = ()
    everybody = {}  # noqa: RUF012

    def __init__(self, sock):
        super().__init__(sock)
        self.everybody[self] = None
        self.write(REPLY)

    def event_read(self):
        data = self.read(CHUNK)
        if data is None:
            return self.finish()
        head, newline, self.rest = (self.rest + data).rpartition(b"\n")
        if newline:
            message = head + newline
            for peer in self.everybody:
                peer.write(message)
        return None

    def close(self, reason=None):
        self.everybody.pop(self, None)
        super().close(reason)


CLASSES = {"lines": Lines, "http": Http, "receive": Receive, "send": Send, "broadcast": Broadcast}

if __name__ == "__main__":
    many_files()
    serving_on(serve(("127.0.0.1", 0), CLASSES[sys.argv[1]], backlog=BACKLOG).address[1])
    Socket.event_loop()
