"""A conversation: our socket in some style, its peer, and the loop that both go on with.

Rules: a case runs outside the loop; what it has begun goes on while it waits here. Nothing sleeps: a turn waits a
millisecond at most for events, since those of the peer wake nobody. What does not belong here: what a case asserts.
"""

from __future__ import annotations

import time

TURNS = 20_000
SECONDS = 30.0
PAUSE = 0.001  # of a turn in which the peer had nothing to do
REST = 10  # turns without any progress, after which both sides are at rest, but for timers of the kernel (delayed ACKs)


class Conversation:
    """`near` is the style, `sock` its socket, `far` the peer, `rng` random numbers of the case's own."""

    def __init__(self, loop, transport, style, rng):
        self.loop, self.transport, self.rng = loop, transport, rng
        self.far = self.near = self.sock = None
        self._closing, self._errors = [], []
        self._on_error, loop.on_error = loop.on_error, self._errors.append
        style.rng = rng
        self.sock, self.far = transport.open(self, style.socket_class)
        self.near = style
        style.attach(self.sock)

    # -- time

    def until(self, condition, pause=PAUSE):
        """Run turns, and the peer's steps, until the condition is true; a turn without a step waits for so long."""
        if condition():
            return
        turns, end = iter(range(TURNS)), time.monotonic() + SECONDS

        def until():
            moved = self.far is not None and self.far.step()
            self.loop.loop_timeout = 0 if moved else pause
            if self._errors:
                raise self._errors[0].exception
            if condition():
                return True
            assert next(turns, None) is not None, f"not there after {TURNS} turns: {self}"
            assert time.monotonic() < end, f"not there after {SECONDS} s: {self}"
            return False

        before, self.loop.loop_timeout = self.loop.loop_timeout, 0
        try:
            self.loop.run(until)
        finally:
            self.loop.loop_timeout = before

    def turns(self, n=5):
        """Run so many turns."""
        numbers = iter(range(n))
        self.until(lambda: next(numbers, None) is None)

    def progress(self):
        """How far both sides have come: equal to what it was, if nothing has moved."""
        return len(self.far.got), self.far.unsent, self.far.ended, self.sock.unsent, self.sock.buffered

    def rest(self):
        """Run turns until nothing happens any more: the far side has sent and read what it can."""
        last, quiet = None, 0

        def at_rest():
            nonlocal last, quiet
            now = self.progress()
            last, quiet = now, quiet + 1 if now == last else 0
            return quiet >= REST

        self.until(at_rest)

    def wait(self, *ops):
        """Run turns until these operations are done. Returns the (last) one."""
        self.until(lambda: all(op.done for op in ops))
        return ops[-1]

    # -- the words of the cases

    def bytes(self, n):
        """Random bytes: none of them can be taken for others."""
        return self.rng.randbytes(n)

    def pieces(self, data, most):
        """Cut data into random pieces of 1 to `most` bytes."""
        cut, at = [], 0
        while at < len(data):
            size = self.rng.randint(1, most)
            cut.append(data[at : at + size])
            at += size
        return cut

    def reads(self, n):
        """Wait until n bytes are read; return them."""
        op = self.wait(self.near.read(n))
        assert op.end is None, op
        return op.data

    def reads_to_end(self):
        """Wait until the end is read; return the bytes and how it has ended."""
        op = self.wait(self.near.read_to_end())
        return op.data, op.end

    def writes(self, data):
        """Wait until the data is taken."""
        op = self.wait(self.near.write(data))
        assert op.end is None, op

    def flushes(self):
        """Wait until the kernel has all that was written."""
        op = self.wait(self.near.flush())
        assert op.end is None, op

    def far_gets(self, n):
        """Wait until the peer has received so many bytes in all; return all of them."""
        self.until(lambda: len(self.far.got) >= n or self.far.ended)
        return bytes(self.far.got)

    def far_ends(self):
        """Wait until the peer's input has ended; return the bytes and how it has ended."""
        self.until(lambda: self.far.ended)
        return bytes(self.far.got), self.far.ended

    # -- the end

    def closing(self, peer):
        """Have the peer closed with the conversation."""
        self._closing.append(peer)

    def end(self):
        """Close both sides."""
        if self.sock is not None and not self.sock.closed:
            self.sock.close("the test is over")
        for peer in self._closing:
            peer.end()
        self.far, self.loop.on_error = None, self._on_error
        self._errors.clear()
        numbers = iter(range(5))
        self.until(lambda: next(numbers, None) is None, pause=0)

    def __repr__(self):
        far = self.far
        ops = self.near and self.near.pending
        return (
            f"near {self.sock!r} unsent {self.sock and self.sock.unsent} buffered {self.sock and self.sock.buffered}"
            f" pending {ops}; far got {far and len(far.got)} unsent {far and far.unsent} ended {far and far.ended}"
        )
