"""Both styles in turn: each operation begins in one of them and ends in the other."""

from __future__ import annotations

from functools import partial

from tests.conformance.styles import Style, all_of_it
from tests.conformance.styles_callbacks import Callbacks
from tests.conformance.styles_tasks import Tasks


class _Handed(Exception):
    """A task was cancelled in its read: callbacks go on with it."""


class _HandingTasks(Tasks):
    """Tasks that, cancelled, leave the rest to callbacks."""

    callbacks = None

    def _read(self, op, n):
        try:
            super()._read(op, n)
        except _Handed:
            rest = self.callbacks.begin_read(op.what, op.want)
            rest.then = partial(_take_over, op)

    def _read_exactly(self, op, n):
        op.data = self.attempt(self.sock.read_exactly, n)

    def attempt(self, call, *args):
        if self.canceller is None:
            return call(*args)
        with self.canceller.scope(self.loop):
            return call(*args)
        if call in (self.sock.write_all, self.sock.drain):
            return super().attempt(call, *args)
        raise _Handed


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
