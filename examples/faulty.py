"""A server with four faults, to be found by looking into it while it runs. The guide's page "Seeing inside" does that.

    python examples/faulty.py --port 7780
    python -m dangagreen dump PID

It answers lines in capitals, and brings its clients along; with --lint, lints are on. It needs no other file. Do not
read on before you have looked.

The handler of a line is sequential, and has no fault. `Report`, in callback style, computes too long. `transfer` takes
two locks, in an order that depends on its arguments. `look_up` forgets a connection whenever it is called. `Feed` sends
to whoever has connected, and does not ask whether they read.
"""

import itertools
import os
import sys
import time
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser
from typing import ClassVar

from dangagreen import Listener, Lock, Socket, SocketLike, connect, introspect, serve, serve_forever, sleep, spawn

SECONDS = 0.3  # how long a report takes
forgotten: list[Socket] = []


class Report(Socket):
    """Answers each line by a report, in callback style."""

    __slots__ = ()

    def event_read(self) -> None:
        if self.read(4096) is None:
            return self.finish()
        time.sleep(SECONDS)  # as a computation would
        self.write(b"all is well\n")
        return None


class Feed(Socket):
    """Sends a line of numbers to its peer for as long as it is connected."""

    __slots__ = ()
    subscribers: ClassVar[list[Socket]] = []

    def __init__(self, sock: SocketLike) -> None:
        super().__init__(sock)
        self.subscribers.append(self)

    def event_read(self) -> None:
        if self.read(4096) is None:
            self.finish()

    @classmethod
    def publish(cls) -> None:
        for number in itertools.count():
            for sock in cls.subscribers:
                sock.write_soon(b"%d\n" % number * 4000)
            sleep(0.01)


def answer(sock: Socket) -> None:
    for line in sock:
        sock.write_all(line.upper())


def transfer(source: Lock, target: Lock) -> None:
    with source:
        sleep(0.01)  # the withdrawal
        with target:
            sleep(0.01)  # the deposit


def look_up(server: Listener) -> None:
    sock = connect(server.address)
    forgotten.append(sock)
    sock.write_all(b"hello\n")
    sock.read_line()


def client(server: Listener, seconds: float) -> None:
    """Asks for a report now and then."""
    with connect(server.address) as sock:
        while True:
            sock.write_all(b"report\n")
            sock.read_line()
            sleep(seconds)


def slow_reader(server: Listener) -> None:
    with connect(server.address) as sock:
        while True:
            sock.read_some(100)
            sleep(1)


def main() -> None:
    parser = ArgumentParser(description="A faulty server.", formatter_class=ArgumentDefaultsHelpFormatter)
    parser.add_argument("--port", type=int, default=7780, help="0 picks one")
    parser.add_argument("--lint", action="store_true", help="have lints tell of mistakes")
    options = parser.parse_args()
    if options.lint:
        introspect.lint()
    try:
        lines = serve(("127.0.0.1", options.port), answer)
    except (OSError, ValueError) as error:
        sys.exit(f"faulty: {error}")
    reports, feeds = serve(("127.0.0.1", 0), Report), serve(("127.0.0.1", 0), Feed)
    introspect.dump_on_signal()
    mine, yours = Lock(), Lock()
    spawn(transfer, mine, yours)
    spawn(transfer, yours, mine)
    spawn(Feed.publish)
    spawn(client, reports, 2.0)
    spawn(slow_reader, feeds)

    def look_up_now_and_then() -> None:
        while True:
            look_up(lines)
            sleep(0.1)

    spawn(look_up_now_and_then)
    print(f"faulty has the process id {os.getpid()}")
    print("faulty listens on {}:{}".format(*lines.address), flush=True)
    serve_forever(lines, reports, feeds, grace=0.0)
    print("bye")


if __name__ == "__main__":
    main()
