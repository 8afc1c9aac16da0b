"""How far it is from one end of the library to the other: `python -m tests.trips` in a checkout.

For each of five ways, from what happens to the first line of the program's code that goes on because of it: how many
Python functions of the library are called, in how many of its files code runs, and how often the way changes from one
file to another, which is what a reader who follows it has to do. `-v` lists the calls. Nothing is timed: the clock is
virtual, connections are in memory (but for what is accepted), and each way is gone once before it is counted, so
that the figures are the same each time.

  line     an fd is readable: to the return of the parked `read_line`
  write    `write_all` of 1 MB, beside as much that is queued: it parks, the peer reads, to its return
  timeout  the time of a block is up: to the `except TimeoutError` behind its parked read
  accept   a listener is readable: to the first line of the handler
  close    `close()` beneath a parked reader: to the `except ClosedError` of that reader
"""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

from greenlet import getcurrent, greenlet

import dangagreen as d
from dangagreen.testing import virtual_loop, wire

PACKAGE = Path(d.__file__).parent
KERNEL = PACKAGE / "system_calls.py"  # stands for calls of C, which it is in a compiled build: the way ends there
INLINED = ("<listcomp>", "<dictcomp>", "<setcomp>")  # which are no functions since Python 3.12
MB = 1 << 20


class Trip(NamedTuple):
    """What was counted on one way, and its calls in order, as "module.function"."""

    calls: int
    files: int
    changes: int
    steps: tuple[str, ...]


class Recorder:
    """Counts from `begin()` to `end()`, but for the time from `until_parked()`, when its greenlet is left, to the next
    `begin()`. It is to be installed before what it counts is called, since Python 3.12 tells it only of such frames."""

    def __init__(self) -> None:
        self._places: dict[CodeType, str | None] = {}
        self._calls: list[str] = []
        self._files: list[str] = []  # in the order of the way, each anew when it is come to from another one
        self._counts = False
        self._greenlet: greenlet | None = None  # that is not to be left

    def __enter__(self) -> Recorder:
        sys.setprofile(self._on_event)
        return self

    def __exit__(self, *_error: object) -> None:
        sys.setprofile(None)

    def clear(self) -> None:
        self._calls.clear()
        self._files.clear()

    def begin(self) -> None:
        self._counts = True
        self._greenlet = None

    def until_parked(self) -> None:
        self._counts = True
        self._greenlet = getcurrent()

    def end(self) -> None:
        self._counts = False

    def trip(self) -> Trip:
        return Trip(len(self._calls), len(set(self._files)), len(self._files) - 1, tuple(self._calls))

    def _on_event(self, frame: FrameType, event: str, _argument: object) -> None:
        if not self._counts:
            return
        if self._greenlet is not None and getcurrent() is not self._greenlet:
            self._counts = False
            return
        code = frame.f_code
        if code not in self._places:
            self._places[code] = self._place(code)
        place = self._places[code]
        if place is None:
            return
        if event == "call":
            self._calls.append(f"{place}.{code.co_name}")
        if not self._files or self._files[-1] != place:
            self._files.append(place)

    @staticmethod
    def _place(code: CodeType) -> str | None:
        """The module that the code stands in, if it is one of those that are counted."""
        path = Path(code.co_filename)
        if (
            PACKAGE not in path.parents
            or path == KERNEL
            or path.parent.name in ("testing", "bridge")
            or code.co_name in INLINED
        ):
            return None
        return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def at_next_event(recorder: Recorder, before: Callable[[], object] | None = None) -> None:
    """Count from when the poller returns next, with events or because a time has come. `before` it is called."""
    loop = d.current_loop()
    poller: Any = loop.poller
    wait = poller.wait

    def waited(timeout: float | None) -> Any:
        if before is not None:
            before()
        then = loop.clock()
        events = wait(timeout)
        if events or loop.clock() > then:
            del poller.wait
            recorder.begin()
        return events

    poller.wait = waited


def line(recorder: Recorder) -> None:
    near, far = wire()
    with d.Socket(near) as sock:
        at_next_event(recorder, lambda: far.send(b"hello\n"))
        sock.read_line()
        recorder.end()
    far.close()


def write(recorder: Recorder) -> None:
    near, far = wire(65536)
    with d.Socket(near) as sock:
        sock.write_all(bytes(MB))
        d.sleep(0)  # as much of it leaves as the kernel takes

        def read() -> None:
            far.capacity = 4 * MB
            far.recv(65536)

        at_next_event(recorder, read)
        recorder.until_parked()
        sock.write_all(bytes(MB))
        recorder.end()
    far.close()


def timeout(recorder: Recorder) -> None:
    near, far = wire()
    with d.Socket(near) as sock:
        at_next_event(recorder)
        try:
            with d.timeout(1):
                sock.read_line()
        except TimeoutError:
            recorder.end()
    far.close()


def accept(recorder: Recorder) -> None:
    def handler(_sock: d.Socket) -> None:
        recorder.end()

    with d.serve(("127.0.0.1", 0), handler) as listener:
        client = socket.create_connection(listener.address)
        at_next_event(recorder)
        d.sleep(1)
        client.close()
        d.sleep(1)  # it is over before another one is counted
        assert not listener.connections


def close(recorder: Recorder) -> None:
    near, far = wire()
    sock = d.Socket(near)

    def strike() -> None:
        recorder.begin()
        sock.close()

    d.current_loop().call_soon(strike)
    try:
        sock.read_line()
    except d.ClosedError:
        recorder.end()
    far.close()


WAYS: dict[str, Callable[[Recorder], None]] = {way.__name__: way for way in (line, write, timeout, accept, close)}


def measure(way: Callable[[Recorder], None]) -> Trip:
    """Go it twice, with what the first time has made, and count the second time."""

    def both_times() -> Trip:
        with Recorder() as recorder:
            way(recorder)
            recorder.clear()
            way(recorder)
            return recorder.trip()

    with virtual_loop():
        return d.run(both_times)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.trips", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="list the calls as well")
    parser.add_argument("ways", nargs="*", metavar="WAY", help=f"of {', '.join(WAYS)} (default: all)")
    chosen = parser.parse_args()
    print(f"{'way':10}{'calls':>8}{'files':>8}{'changes of file':>18}")
    for name in chosen.ways or WAYS:
        trip = measure(WAYS[name])
        print(f"{name:10}{trip.calls:8}{trip.files:8}{trip.changes:18}")
        if chosen.verbose:
            print(*(f"    {step}" for step in trip.steps), sep="\n")


if __name__ == "__main__":
    main()
