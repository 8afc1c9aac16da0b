"""Sequential style: each operation is a task of its own, which `Canceller` cancels at its k-th park."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial

import dangagreen as d
from tests.conformance.styles import CHUNK, Style, a_line, all_of_it, end_by, some


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
