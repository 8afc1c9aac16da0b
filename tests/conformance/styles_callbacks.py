"""Callback style: each operation is done by the hooks of the socket."""

from __future__ import annotations

from functools import partial

from tests.conformance.styles import CHUNK, Style, end_by


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
