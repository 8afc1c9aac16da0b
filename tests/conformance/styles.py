"""Styles: how what a case wants ("read n bytes", "write", "end") is said in callbacks, in tasks, or in both in turn.

Each begins an operation, an `Op`, and returns it at once; the loop goes on with it. Reads of one style are done one
after another. All of it is begun on the loop, as a server's code is. `Canceller` cancels a task at its k-th park.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial

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
    """What both styles have in common."""

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


class Callbacks(Style):
    """event_read, read, push_back_read, write and its callables, on_low_water."""

    def __init__(self, canceller=None):
        super().__init__(canceller)
        self.reads, self.writes, self.flushes = [], [], []
        self.told = False  # whether `read` has returned None: event_read does not come for that again

    def attach(self, sock):
        super().attach(sock)
        sock.style = self

    # -- reading

    def begin_read(self, what, want, n=None):
        op = self.op(what, want)
        self.reads.append(op)
        self.on_the_loop(self._look)
        return op

    def _look(self):
        if self.reads:
            self.sock.watch_read(True)
            if self.sock.closed or self.sock.ready:  # as well without an event: what is there can be read at any time
                self.readable()

    def readable(self):
        assert self.reads, "event_read was called, and reading is off"
        op = self.reads[0]
        data = self._read(self.rng.choice((300, 5000, CHUNK)))
        if data is None:
            self.told = True
            self.sock.watch_read(False)
            self.loop.call_soon(partial(self.loop.call_soon, self._end))  # event_err may follow
            return
        op.data += data
        taken = op.want(op.data)
        if taken is not None:
            self._was_read(op, taken)
        elif self.told and not self.sock.buffered:
            self.readable()

    def _read(self, n):
        """`read`, or `read_into`."""
        if self.rng.randrange(3):
            return self.sock.read(n)
        buffer = bytearray(n)
        size = self.sock.read_into(buffer)
        return None if size is None else bytes(buffer[:size])

    def _was_read(self, op, taken):
        op.data, rest = op.data[:taken], op.data[taken:]
        del self.reads[0]
        if not self.reads:
            self.sock.watch_read(False)
        if rest:
            self.sock.push_back_read(rest)
        op.finish()

    def _end(self):
        """The input has ended: so have all reads."""
        reason = self.sock.close_reason if self.sock.closed else None
        end = "closed" if self.left else "eof" if reason is None else end_by(reason)
        reads, self.reads = self.reads, []
        for op in reads:
            op.finish(end)

    def was_closed(self):
        self.loop.call_soon(self._end)
        self.loop.call_soon(self._end_writing)

    # -- writing

    def write(self, data):
        op = self.op(f"write {len(data)}")
        self.on_the_loop(self._write, op, data)
        return op

    def _write(self, op, data):
        buffer = self.buffers(data)
        if self.rng.randrange(3):
            self.sock.write(buffer)
        else:
            self.sock.write_soon(buffer)
        self.spoil(buffer)
        self.writes.append(op)
        if self.sock.closed:
            self._end_writing()
        elif not self.sock.over:
            self.has_room()

    def has_room(self):
        writes, self.writes = self.writes, []
        for op in writes:
            op.finish()

    def flush(self):
        op = self.op("flush")
        self.flushes.append(op)
        self.on_the_loop(self._flush, op)
        return op

    def _flush(self, op):
        self.sock.write(op.finish)
        if self.sock.closed:
            self._end_writing()

    def _end_writing(self):
        for op in self.writes + self.flushes:
            op.finish("closed" if self.left else end_by(self.sock.close_reason))
        self.writes, self.flushes = [], []


class Tasks(Style):
    """read_exactly, read_some, read_line …, write_all, drain: each operation is a task of its own."""

    parks = True

    def begin_read(self, what, want, n=None):
        op = self.op(what, want)
        d.spawn(self._read, op, n)
        return op

    def _read(self, op, n):
        sock = self.sock
        try:
            if op.want is some:
                op.data = self.attempt(sock.read_some)
            elif op.want is a_line:
                op.data = self.attempt(sock.read_line)
            elif op.want is all_of_it:
                op.data = self.attempt(sock.read_to_end)
            else:
                self._read_exactly(op, n)
        except Handed as handed:
            return handed.over_to(op, n)
        except d.IncompleteReadError as error:
            op.data += error.partial
            return op.finish("eof")
        except ConnectionError as error:
            if sock.buffered:  # what came before an error stays readable
                op.data += sock.read_some(1 << 24)
            return op.finish(end_by(error))
        return op.finish(None if op.data and op.want is not all_of_it else "eof")

    def _read_exactly(self, op, n):
        """Read n bytes into `op.data`, by one of the calls for that."""
        kind, sock = self.rng.randrange(3), self.sock
        if kind == 0:
            op.data = self.attempt(sock.read_exactly, n)
            return
        while (missing := n - len(op.data)) > 0:
            if kind == 1:
                data = self.attempt(sock.read_some, min(missing, self.rng.choice((700, CHUNK, 1 << 20))))
            else:
                buffer = bytearray(min(missing, self.rng.choice((700, CHUNK))))
                data = buffer[: self.attempt(sock.read_some_into, buffer)]
            if not data:
                raise d.IncompleteReadError(sock, b"", "what the case wants")
            op.data += data

    def attempt(self, call, *args):
        """Make a call that may park; anew, as long as it is cancelled."""
        while self.canceller is not None:
            with self.canceller.scope(self.loop):
                return call(*args)
        return call(*args)

    def write(self, data):
        op = self.op(f"write {len(data)}")
        d.spawn(self._write, op, data)
        return op

    def _write(self, op, data):
        buffer = self.buffers(data)
        try:
            self.attempt(self.sock.write_all, buffer)
        except ConnectionError as error:
            return op.finish(end_by(error))
        self.spoil(buffer)
        return op.finish()

    def flush(self):
        op = self.op("flush")
        d.spawn(self._flush, op)
        return op

    def _flush(self, op):
        try:
            self.attempt(self.sock.drain)
        except ConnectionError as error:
            return op.finish(end_by(error))
        return op.finish()


class Handed(Exception):
    """A task was cancelled in its read: callbacks go on with it."""

    def __init__(self, over_to):
        self.over_to = over_to


class _HandingTasks(Tasks):
    """Tasks that, cancelled, leave the rest to callbacks."""

    callbacks = None

    def _read_exactly(self, op, n):
        op.data = self.attempt(self.sock.read_exactly, n)

    def attempt(self, call, *args):
        if self.canceller is None:
            return call(*args)
        with self.canceller.scope(self.loop):
            return call(*args)
        if call in (self.sock.write_all, self.sock.drain):
            return super().attempt(call, *args)
        raise Handed(self._go_on)

    def _go_on(self, op, n):
        rest = self.callbacks.begin_read(op.what, op.want)
        rest.then = partial(_take_over, op)


def _take_over(op, rest):
    op.data = rest.data
    op.finish(rest.end)


class Handover(Style):
    """Each read and write begins in one style and ends in the other; which comes first is random."""

    whole = False

    def attach(self, sock):
        super().attach(sock)
        self.parts = [Callbacks(), _HandingTasks(self.canceller)]
        self.parts[1].callbacks = self.parts[0]
        for part in self.parts:
            part.rng = self.rng
            part.attach(sock)

    def both(self):
        """The two styles, in the order of this operation; what this side has done of itself they have to know."""
        for part in self.parts:
            part.left = self.left
        return self.rng.sample(self.parts, 2)

    def begin_read(self, what, want, n=None):
        first, then = self.both()
        op = self.op(what, want)
        if n is not None:
            half = self.rng.randint(1, n)
            begin = first.read(half)
            go_on = partial(then.read, n - half) if half < n else None
        elif want is all_of_it:
            begin, go_on = first.read_some(), then.read_to_end
        else:  # one looks at what has come, puts it back, and leaves it to the other
            begin, go_on = first.read_some(), partial(then.begin_read, what, want)
        begin.then = partial(self._go_on, op, go_on, put_back=n is None and want is not all_of_it)
        return op

    def _go_on(self, op, go_on, part, put_back=False):
        if put_back and part.data:
            self.sock.push_back_read(part.data)
        else:
            op.data += part.data
        if part.end is not None or go_on is None:
            return op.finish(part.end)
        rest = go_on()
        rest.then = partial(self._go_on, op, None)
        return None

    def write(self, data):
        first, then = self.both()
        op = self.op(f"write {len(data)}")
        half = len(data) // 2
        begin = first.write(data[:half])
        begin.then = partial(self._go_on, op, partial(then.write, data[half:]))
        return op

    def queue(self, data):
        return self.both()[0].write(data)

    def flush(self):
        return self.both()[0].flush()


STYLES = {"callbacks": Callbacks, "tasks": Tasks, "handover": Handover}


class Canceller:
    """Cancels what a task does at the park of this number (the first is 0), so many turns after that began.

    `fired`: whether there was such a park.
    """

    def __init__(self, number, turns):
        self.number, self.turns = number, turns
        self.count = 0
        self.fired = False

    @contextmanager
    def scope(self, loop):
        """A block in which parks count; it ends quietly when it is cancelled."""
        waiter = loop.current
        switch = waiter.to_hub

        def to_hub():
            if self.count == self.number:
                self.fired = True
                self._strike(loop, scope, self.turns)
            self.count += 1
            return switch()

        with d.move_on_after(None) as scope:
            waiter.to_hub = to_hub
            try:
                yield
            finally:
                waiter.to_hub = switch

    def _strike(self, loop, scope, turns):
        if turns:
            loop.call_soon(partial(self._strike, loop, scope, turns - 1))
        else:
            d.spawn(scope.cancel)
