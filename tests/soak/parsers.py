"""Hostile input for the four parsers of the examples, beside an honest client that must be served undisturbed.

The three servers run as programs. What is sent to them, and what the crawler is answered, is well-formed requests that
were mutilated: bytes changed, cut out and doubled, numbers made huge or negative, requests cut short, in pieces of any
size, with any end. The honest client gets each of its answers, in time; no program complains, and each ends well.
"""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import dangagreen as d
from tests.soak import Budget, describe

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
ANSWER = 30.0  # seconds in which the honest client is answered
HOSTILE = 6  # connections at a time
NUMBERS = [b"0", b"-1", b"1", b"65536", b"99999999999999999999", b"1e400", b"nan", b"0x10", b"\xd9\xa1", b""]
JUNK = [
    b"\0",
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\xff\xfe",
    b"%",
    b"%zz",
    b"*",
    b"$",
    b"<",
    b">",
    b"'",
    b'"',
    b"\\",
    b"A" * 5000,
]

REDIS = [
    b"PING\r\n",
    b"*1\r\n$4\r\nPING\r\n",
    b"*2\r\n$4\r\nECHO\r\n$5\r\nhello\r\n",
    b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n",
    b"*5\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n$2\r\nEX\r\n$2\r\n10\r\n",
    b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
    b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n",
    b"*3\r\n$6\r\nINCRBY\r\n$1\r\nn\r\n$20\r\n99999999999999999999\r\n",
    b"*3\r\n$6\r\nEXPIRE\r\n$1\r\nk\r\n$19\r\n9223372036854775807\r\n",
    b"*2\r\n$4\r\nKEYS\r\n$7\r\n[a-z]*?\r\n",
    b"*1\r\n$5\r\nMULTI\r\n*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nEXEC\r\n",
    b"*2\r\n$9\r\nSUBSCRIBE\r\n$4\r\nnews\r\n",
    b"*2\r\n$10\r\nPSUBSCRIBE\r\n$2\r\nn*\r\n",
    b"*3\r\n$7\r\nPUBLISH\r\n$4\r\nnews\r\n$2\r\nhi\r\n",
    b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n",
    b"SET \"quoted key\" 'and \\x41'\r\n",
    b"*-1\r\n",
    b"*0\r\n",
    b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"*1\r\n$4\r\nINFO\r\n",
    b"*1\r\n$4\r\nQUIT\r\n",
]
LOCKS = [
    b"trylock lock=some%3Athing\r\n",
    b"releaselock lock=some%3Athing\r\n",
    b"lock lock=busy&wait=0.01\r\n",
    b"lock lock=busy wait=0.01 ttl=1\r\n",
    b"trylock lock=other&ttl=0.1\r\n",
    b"holder lock=busy\r\n",
    b"waiters lock=busy\r\n",
    b"locks\r\n",
    b"noop\r\n",
    b"status\r\n",
    b"nonsense a=b&c=%ff\r\n",
]
CHAT = [
    b"nobody\n",
    b"member-%d\n",
    b"hello everybody\n",
    b"/help\n",
    b"/names\n",
    b"/nick other\n",
    b"/msg nobody hi\n",
    b"/quit\n",
]
PAGE = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n"
HTTP = [
    PAGE + b"Content-Length: 26\r\n\r\n<a href='one.html'>one</a>",
    b"HTTP/1.1 200 OK\r\nContent-Type: TEXT/HTML\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\n<base\r\n0\r\n\r\n",
    b"HTTP/1.0 301 Moved\r\nLocation: /elsewhere?a=b#c\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" + PAGE + b"\r\n<!-- <a href=x> --><script>'<a'</script>",
    PAGE + b"\r\n<base href=//[::1]/><a href='http://[' href=?x&amp;y><![CDATA[<a",
    b"HTTP/1.1 204 No Content\r\n\r\n",
]


class Disturbed(AssertionError):
    """The honest client was not served as it should be."""


def mutilated(random: Random, corpus: list[bytes]) -> bytes:
    """Some requests, most of them damaged."""
    data = bytearray(b"".join(random.choice(corpus) for _ in range(random.randrange(1, 8))))
    for _ in range(random.choice([0, 1, 1, 2, 5, 30])):
        at = random.randrange(len(data) + 1)
        kind = random.randrange(6)
        if kind == 0 and at < len(data):
            data[at] = random.randrange(256)
        elif kind == 1:
            del data[at : at + random.choice([1, 2, 10, 100])]
        elif kind == 2:
            data[at:at] = random.choice(JUNK)
        elif kind == 3:
            data[at:at] = data[at : at + random.randrange(50)] * random.choice([1, 2, 50])
        elif kind == 4 and (numbers := list(re.finditer(rb"\d+", data))):
            number = random.choice(numbers)
            data[number.start() : number.end()] = random.choice(NUMBERS)
        else:
            data[at:at] = random.randbytes(random.choice([1, 3, 1000]))
    return bytes(data)


def attack(random: Random, address: tuple[str, int], corpus: list[bytes]) -> None:
    """One hostile connection."""
    data = mutilated(random, corpus)
    with contextlib.suppress(OSError, d.LimitError), d.move_on_after(1):
        sock = d.connect(address)
        try:
            while data:
                size = random.choice([1, 5, 100, 10_000])
                sock.write_all(data[:size])
                data = data[size:]
                if random.random() < 0.3:
                    d.sleep(random.choice([0, 0.001]))
                if random.random() < 0.3:
                    with d.move_on_after(0.001):
                        sock.read_some()
            sock.drain()
            if random.random() < 0.4:
                sock.write_eof()
                with d.move_on_after(0.05):
                    sock.read_to_end(1 << 20)
            elif random.random() < 0.3:
                sock.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        finally:
            sock.close()


# -- the honest clients


def talk_redis(address: tuple[str, int], over: Callable[[], bool]) -> int:
    rounds = 0
    with d.connect(address) as sock:
        while not (rounds and over()):
            rounds += 1
            key = b"the honest client's own key %d" % rounds
            with d.timeout(ANSWER):
                sock.write_all(b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$2\r\nhi\r\n" % (len(key), key))
                sock.write_all(b"*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n" % (len(key), key))
                sock.write_all(b"*2\r\n$3\r\nDEL\r\n$%d\r\n%s\r\n" % (len(key), key))
                expect(sock.read_exactly(17), b"+OK\r\n$2\r\nhi\r\n:1\r\n"[:17])
            d.sleep(0.002)
    return rounds


def talk_locks(address: tuple[str, int], over: Callable[[], bool]) -> int:
    rounds = 0
    with d.connect(address) as sock:
        while not (rounds and over()):
            rounds += 1
            for command in (b"trylock", b"releaselock"):
                with d.timeout(ANSWER):
                    sock.write_all(command + b" lock=the-honest-clients-own-%d\r\n" % rounds)
                    answer = sock.read_line()
                    expect(answer[:2] + answer[-2:], b"OK\r\n")
            d.sleep(0.002)
    return rounds


def talk_chat(address: tuple[str, int], over: Callable[[], bool]) -> int:
    rounds = 0
    with d.connect(address) as sock:
        with d.timeout(ANSWER):
            sock.write_all(b"the-honest-one\n")
        while not (rounds and over()):
            rounds += 1
            words = b"<the-honest-one> round %d\n" % rounds
            with d.timeout(ANSWER):
                sock.write_all(words.partition(b" ")[2])
                while (line := sock.read_line()) != words:
                    expect(bool(line), True)
            d.sleep(0.002)
    return rounds


def expect(got: object, wanted: object) -> None:
    if got != wanted:
        raise Disturbed(f"{got!r} came for {wanted!r}")


# -- a server and its clients


def path_of(name: str) -> str:
    """The path that the interpreter is given: an example is a package or a module."""
    package = EXAMPLES / name
    return str(package if package.is_dir() else f"{package}.py")


@contextlib.contextmanager
def running(name: str, *options: str) -> Iterator[tuple[str, int]]:
    """The example as a program: the address of its first port. It must not complain, and end well."""
    with tempfile.TemporaryFile() as complaints:
        command = [sys.executable, "-W", "error", path_of(name), "--port", "0", *options]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints, text=True) as program:
            try:
                assert program.stdout is not None
                port = re.search(r":(\d+)$", program.stdout.readline())
                assert port, f"{name} tells no port"
                yield "127.0.0.1", int(port[1])
                program.send_signal(signal.SIGTERM)
                program.communicate(timeout=2 * ANSWER)
                complaints.seek(0)
                said = complaints.read().decode(errors="replace")
                if program.returncode or "Traceback" in said:
                    raise Disturbed(f"{name} ended with {program.returncode}: {said[-2000:]}")
            finally:
                program.kill()


def siege(random: Random, name: str, seconds: float) -> int:
    """Attack a server for so long, beside its honest client: how many attacks there were."""
    corpus, talk, options = SERVERS[name]
    attacks = 0

    def attacker() -> None:
        nonlocal attacks
        while not over():
            attacks += 1
            attack(random, address, corpus)

    def main() -> None:
        with d.TaskGroup() as group:
            group.spawn(talk, address, over)
            for _ in range(HOSTILE):
                group.spawn(attacker)

    with running(name, *options) as address:
        over = Budget(seconds)
        d.run(main)
    return attacks


SERVERS: dict[str, tuple[list[bytes], Callable[..., int], tuple[str, ...]]] = {
    "miniredis": (REDIS, talk_redis, ("--status-port", "0")),
    "ddlockd": (LOCKS, talk_locks, ()),
    "chat": (CHAT, talk_chat, ()),
}


def crawl(random: Random, pages: int = 60) -> int:
    """Have the crawler fetch a site of which every other page is a hostile answer: it fetches all the honest ones."""
    fetched = set()

    def page(sock: d.Socket) -> None:
        path = sock.read_until(b"\r\n\r\n").split(b" ", 2)[1]
        if path == b"/":
            body = b"".join(b"<a href='/%s/%d'>" % (kind, n) for n in range(pages) for kind in (b"good", b"bad"))
        elif path.startswith(b"/good/"):
            fetched.add(path)
            body = b"well"
        else:
            sock.write_all(mutilated(random, HTTP))
            return
        sock.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    def main() -> subprocess.CompletedProcess[str]:
        with d.serve(("127.0.0.1", 0), page) as listener:
            command = [sys.executable, "-W", "error", path_of("crawler"), "--page-seconds", "2"]
            command.append("http://127.0.0.1:{}/".format(*listener.address[1:]))
            done: d.Future[subprocess.CompletedProcess[str]] = d.Future()
            loop = d.current_loop()
            thread = _in_thread(lambda: subprocess.run(command, capture_output=True, text=True, timeout=60), loop, done)
            try:
                return done.wait(70)
            finally:
                thread.join()

    ended = d.run(main)
    if ended.returncode or "Traceback" in ended.stderr:
        raise Disturbed(f"the crawler ended with {ended.returncode}: {ended.stderr[-2000:]}")
    expect(len(fetched), pages)
    return pages


def crawl_for(random: Random, seconds: float) -> int:
    """Crawl, once at least, until the time is up: how many hostile pages there were."""
    over = Budget(seconds)
    pages = crawl(random)
    while not over():
        pages += crawl(random)
    return pages


def _in_thread(function: Callable[[], object], loop: d.Loop, done: d.Future[Any]) -> threading.Thread:
    def body() -> None:
        try:
            answer = function()
        except BaseException as error:
            loop.call_soon_threadsafe(done.set_exception, error)
        else:
            loop.call_soon_threadsafe(done.set_result, answer)

    thread = threading.Thread(target=body)
    thread.start()
    return thread


def soak(random: Random, seconds: float) -> tuple[int, list[str]]:
    """Besiege each server for a quarter of the time, and the crawler too: how many attacks, and what was wrong."""
    attacks = 0
    found = []
    for name in (*SERVERS, "crawler"):
        share = seconds / (len(SERVERS) + 1)
        try:
            if name in SERVERS:
                attacks += siege(random, name, share)
            else:
                attacks += crawl_for(random, share)
        except Exception as error:
            found.append(f"{name}: {describe(error)}")
    return attacks, found
