"""What all styles have in common: a style is how what a case wants ("read n bytes", "write", "end") is said.

Each begins an operation, an `Op`, and returns it at once; the loop goes on with it. Reads of one style are done one
after another. All of it is begun on the loop, as a server's code is. Each style has a module of its own: `styles_*`.
"""

from __future__ import annotations

import dangagreen as d

CHUNK = 65536


class Op:
    """An operation. `done`; `data`: what was read; `end`: None, or how it ended before its time.

    That is "eof", "cut" (the protocol's own end is missing), "reset", or "closed" (on this side).
    """

    def __init__(self, what, want=None):
        self.what, self.want = what, want
        self.done = False
        self.data, self.end = b"", None
        self.then = None  # called when it is done

    def finish(self, end=None):
        if not self.done:
            self.done, self.end = True, end
            if self.then is not None:
                self.then(self)

    def __repr__(self):
        return f"<{self.what} done {self.done} with {len(self.data)} bytes, {self.end}>"


# How many of these bytes a read takes; None: it needs more.


def exactly(n):
    return lambda data: n if len(data) >= n else None


def some(data):
    return len(data) or None


def a_line(data):
    return data.find(b"\n") + 1 or None


def all_of_it(data):
    return None


def end_by(reason):
    """How an exception, or the reason of a close, is called in an `Op`."""
    if isinstance(reason, d.ClosedError):
        return "closed"
    if isinstance(reason, EOFError) or reason == "the peer hung up":
        return "eof"
    if type(reason).__name__ == "TruncatedError":
        return "cut"
    return "reset" if isinstance(reason, ConnectionError) else "closed"


class Side(d.Socket):
    """Our socket. Its hooks go to the part of the style that is in callbacks."""

    __slots__ = ("highs", "lows", "over", "style")
    high_water = 8192
    low_water = 2048

    def __init__(self, sock, loop=None):
        super().__init__(sock, loop)
        self.highs = self.lows = 0  # crossings of the water marks
        self.over = False
        self.style = None

    def event_read(self):
        assert self.style is not None, "event_read in sequential style"
        self.style.readable()

    def on_high_water(self):
        assert not self.over
        self.over = True
        self.highs += 1

    def on_low_water(self):
        assert self.over
        self.over = False
        self.lows += 1
        if self.style is not None:
            self.style.has_room()

    def close(self, reason=None):
        super().close(reason)
        if self.style is not None:
            self.style.was_closed()


class Style:
    """What a style need not say in its own way."""

    socket_class = Side
    whole = True  # a write is one write, which nothing of another write goes between
    parks = False  # whether a task is parked in each read

    def __init__(self, canceller=None):
        self.canceller = canceller
        self.rng = None
        self.left = False  # whether close() or finish() was called
        self.ops = []

    def attach(self, sock):
        self.sock = sock
        self.loop = sock.loop

    @property
    def pending(self):
        return [op for op in self.ops if not op.done]

    def op(self, what, want=None):
        op = Op(what, want)
        self.ops.append(op)
        return op

    # -- reads

    def read(self, n):
        """n bytes, or what there is before an end."""
        return self.begin_read(f"read {n}", exactly(n), n)

    def read_some(self):
        """One byte or more."""
        return self.begin_read("read some", some)

    def read_line(self):
        """Up to and with a newline."""
        return self.begin_read("read a line", a_line)

    def read_to_end(self):
        """Everything; it always has an `end`."""
        return self.begin_read("read to the end", all_of_it)

    # -- writes

    def queue(self, data):
        """Write it as one piece: what is queued is all of it."""
        return self.write(data)

    # -- what is said in the same words in both styles

    def on_the_loop(self, call, *args):
        def on_the_loop():
            call(*args)  # whose result is nobody's: a callback has none

        self.loop.call_soon(on_the_loop)

    def half_close(self):
        self.on_the_loop(self.sock.write_eof)

    def finish(self):
        self.left = True
        self.on_the_loop(self.sock.finish)

    def close(self, reason=None):
        self.left = True
        self.on_the_loop(self.sock.close, reason)

    def push_back(self, data):
        self.on_the_loop(self.sock.push_back_read, data)

    def buffers(self, data):
        """Data as write calls take it: bytes, a bytearray (which is overwritten afterwards), a view."""
        kind = self.rng.randrange(4)
        return bytearray(data) if kind == 0 else memoryview(data) if kind == 1 else data

    def spoil(self, buffer):
        """Overwrite a buffer that was written: the library may not look into it any more."""
        if isinstance(buffer, bytearray):
            buffer[:] = bytes(len(buffer))
