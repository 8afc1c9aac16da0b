"""Random servers, handlers, peers and ends, the garbage collector off: nothing that has closed is alive at the end."""

from __future__ import annotations

import contextlib
import gc
import socket
import struct
from random import Random

import pytest

import dangagreen as d
from dangagreen.sockets.descriptor import Descriptor

pytestmark = pytest.mark.usefixtures("uncollected")

LOCAL = ("127.0.0.1", 0)
DEPTH = 3


class Program:
    """What handlers and callbacks do, by chance."""

    def __init__(self, random):
        self.random = random

    def act(self, sock, depth=0):
        """A handler: some steps, each of which may wait, fail, or call this again."""
        for _ in range(self.random.randrange(1, 6)):
            step = self.random.choice(STEPS)
            if depth < DEPTH or step not in DEEPER:
                step(self, sock, depth + 1)

    def read(self, sock, _depth):
        self.random.choice([sock.read_some, sock.read_line, sock.read_to_end, lambda: sock.read_exactly(9)])()

    def write(self, sock, _depth):
        data = bytes(self.random.choice([1, 1000, 200_000]))
        self.random.choice([sock.write_all, sock.write, sock.write_soon, sock.push_back_read])(data)

    def wait(self, sock, _depth):
        task = d.spawn(d.sleep, self.random.choice([0, 0.01]))
        self.random.choice([task.join, sock.drain, lambda: d.select(sock, task)])()

    def limit(self, sock, depth):
        with self.random.choice([d.timeout, d.move_on_after])(self.random.choice([0, 0.02])):
            self.act(sock, depth)

    def group(self, sock, depth):
        with d.TaskGroup() as group:
            for _ in range(self.random.randrange(1, 4)):
                group.spawn(self.act, sock, depth)
            if self.random.random() < 0.3:
                group.cancel()

    def task(self, sock, depth):
        task = d.spawn(self.act, sock, depth)
        try:
            task.join(0.05)
        except TimeoutError:
            task.cancel()
        task.join()
        task.result()

    def fail(self, sock, _depth):
        raise self.random.choice([KeyError, ValueError, OSError])("mine", sock)

    def fail_again(self, sock, depth):
        try:
            self.act(sock, depth)
        except Exception as error:
            raise RuntimeError("again") from (error if self.random.random() < 0.5 else None)

    def end(self, sock, _depth):
        self.random.choice([sock.close, sock.finish, sock.write_eof, lambda: sock.close(KeyError(sock))])()

    def callbacks(self):
        """A class of callback style."""
        program = self

        class Callbacks(d.Socket):
            __slots__ = ()
            idle_timeout = program.random.choice([None, 0.5])
            lifetime = program.random.choice([None, 1.0])
            max_unsent = program.random.choice([None, 150_000])

            def event_read(self):
                data = self.read(1000)
                if data is None:
                    return program.random.choice([self.finish, self.close])()
                step = program.random.randrange(6)
                if step == 0:
                    raise KeyError(self)
                if step == 1:
                    self.write(bytes(100_000))
                elif step == 2:
                    self.write(self.close)
                elif step == 3:
                    self.push_back_read(data[1:])
                elif step == 4:
                    d.spawn(program.act, self)
                return None

        return Callbacks

    def serve(self):
        server, handler = self.random.choice([(d.serve, self.act), (d.serve_requests, self.act), (d.serve, None)])
        return server(LOCAL, handler or self.callbacks())


DEEPER = (Program.limit, Program.group, Program.task, Program.fail_again)
STEPS = (*DEEPER, Program.read, Program.write, Program.wait, Program.fail, Program.end, Program.read, Program.write)


def disturb(random, peers):
    """One of the peers does something."""
    peer, step = random.choice(peers), random.randrange(6)
    with contextlib.suppress(OSError):
        if step < 2:
            peer.send(random.choice([b"one\n", bytes(3000), b"a\nb\nc"]))
        elif step == 2:
            peer.recv(100_000)
        elif step == 3:
            peer.shutdown(socket.SHUT_WR)
        elif step == 4:
            if random.random() < 0.5:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()


def closed_ones():
    return [one for one in gc.get_objects() if isinstance(one, Descriptor) and one.closed]


def lead_a_life(random, loop, run_turns):
    """A server, from its beginning to its end."""
    listener, peers = Program(random).serve(), []
    for _ in range(random.randrange(1, 5)):
        peers.append(socket.create_connection(listener.address))
        peers[-1].setblocking(False)
    for _ in range(30):
        disturb(random, peers)
        run_turns(3)
        loop.clock.jump(random.choice([0, 0.01, 0.3]))
    for peer in peers:
        peer.close()
    random.choice([listener.close, lambda: listener.drain(0.1), loop.reset])()
    for _ in range(40):
        run_turns(3)
        loop.clock.jump(0.3)
    loop.reset()  # some handlers wait for ever
    run_turns(1)


@pytest.mark.parametrize("seed", range(25))
def test_nothing_that_has_closed_is_alive(loop, run_turns, seed):
    before = closed_ones()  # which something else in this process holds
    loop.on_error = lambda context: None
    lead_a_life(Random(seed), loop, run_turns)
    alive = len(closed_ones()) - len(before)
    assert alive == 0
