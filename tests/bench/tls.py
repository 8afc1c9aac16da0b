"""TLS beside asyncio and uvloop: processor time of the server, side by side, the smallest of several rounds.

`python -m tests.bench.tls [--rounds N] [--scale X] [WORKLOAD ...]`. Each server is a process of its own, its clients
are plain blocking sockets of Python's `ssl` in this one. Counted is what the kernel says that the server has run.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROUNDS = 5
SERVERS = ["dangagreen", "dangagreen tasks", "asyncio", "asyncio streams", "uvloop", "uvloop streams"]
WORKLOADS = ["handshakes", "request/reply", "bulk in", "bulk out", "memory"]
BARS = [  # workload, ours, theirs, the most that ours may be of theirs
    ("handshakes", "dangagreen", ["asyncio", "uvloop"], 1.0),
    ("handshakes", "dangagreen tasks", ["asyncio", "uvloop"], 1.0),
    ("request/reply", "dangagreen", ["asyncio"], 0.8),
    ("request/reply", "dangagreen", ["uvloop"], 1.1),
    ("request/reply", "dangagreen tasks", ["asyncio streams"], 0.8),
    ("bulk in", "dangagreen", ["asyncio"], 0.9),
    ("bulk out", "dangagreen", ["asyncio"], 0.9),
    ("bulk in", "dangagreen tasks", ["asyncio streams"], 0.9),
    ("bulk out", "dangagreen tasks", ["asyncio streams"], 0.9),
    ("memory", "dangagreen", ["asyncio"], 0.7),
]
PIECE = bytes(65536)
MESSAGE = 100  # bytes of a request, and of its reply; one that begins with "G" and a number asks for so many pieces


def server_context(certificate: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


# -- servers: what is sent comes back in messages of 100 bytes; "S" swallows what follows, "G" gives pieces


def dangagreen_callbacks(context: ssl.SSLContext) -> None:
    import dangagreen as d

    class Server(d.Socket):
        __slots__ = ("left", "swallows")

        def __init__(self, sock: Any) -> None:
            super().__init__(sock)
            self.left, self.swallows = 0, False

        def event_read(self) -> None:
            data = self.read(65536)
            if data is None:
                self.finish()
            elif self.swallows:
                pass
            elif data[:1] == b"S":
                self.swallows = True
            elif data[:1] == b"G":
                self.left = int(data[1:10])
                self.on_low_water()
            else:
                self.write(data)

        def on_low_water(self) -> None:
            while self.left and self.unsent <= self.high_water:
                self.left -= 1
                self.write(PIECE)

    listener = d.serve(("127.0.0.1", 0), Server, tls=context)
    print(listener.address[1], flush=True)
    d.serve_forever(listener)


def dangagreen_tasks(context: ssl.SSLContext) -> None:
    import dangagreen as d

    def handler(sock: d.Socket) -> None:
        while data := sock.read_some():
            if data[:1] == b"S":
                while sock.read_some():
                    pass
            elif data[:1] == b"G":
                for _ in range(int(data[1:10])):
                    sock.write_all(PIECE)
            else:
                sock.write_all(data)

    listener = d.serve(("127.0.0.1", 0), handler, tls=context)
    print(listener.address[1], flush=True)
    d.serve_forever(listener)


def protocols(context: ssl.SSLContext) -> Any:
    class Server(asyncio.Protocol):
        left, swallows, paused = 0, False, False

        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            if self.swallows:
                pass
            elif data[:1] == b"S":
                self.swallows = True
            elif data[:1] == b"G":
                self.left = int(data[1:10])
                self.resume_writing()
            else:
                self.transport.write(data)

        def pause_writing(self) -> None:
            self.paused = True

        def resume_writing(self) -> None:
            self.paused = False
            while self.left and not self.paused:
                self.left -= 1
                self.transport.write(PIECE)

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0, ssl=context, backlog=1024)
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.sleep(3600)

    return main()


def streams(context: ssl.SSLContext) -> Any:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if data[:1] == b"S":
                while await reader.read(65536):
                    pass
            elif data[:1] == b"G":
                for _ in range(int(data[1:10])):
                    writer.write(PIECE)
                    await writer.drain()
            else:
                writer.write(data)
                await writer.drain()
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(handler, "127.0.0.1", 0, ssl=context, backlog=1024)
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.sleep(3600)

    return main()


def serve(name: str, certificate: str) -> None:
    context = server_context(certificate)
    library, _, style = name.partition(" ")
    if library == "dangagreen":
        (dangagreen_tasks if style else dangagreen_callbacks)(context)
        return
    main = streams(context) if style else protocols(context)
    if library == "uvloop":
        import uvloop

        uvloop.run(main)
    else:
        asyncio.run(main)


# -- clients


class Server:
    """A server process."""

    def __init__(self, name: str, certificate: str) -> None:
        command = [sys.executable, "-m", "tests.bench.tls", "--serve", name, certificate]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def seconds(self) -> float:
        """Processor time that it has taken so far."""
        tasks = Path(f"/proc/{self.process.pid}/task")
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9

    def memory(self) -> int:
        """Bytes that are in memory."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def connect(self, context: ssl.SSLContext) -> ssl.SSLSocket:
        raw = socket.create_connection(("127.0.0.1", self.port), 20)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return context.wrap_socket(raw)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def ask(sock: ssl.SSLSocket, message: bytes) -> None:
    sock.sendall(message)
    left = len(message)
    while left:
        left -= len(sock.recv(left))


def handshakes(server: Server, context: ssl.SSLContext, scale: float) -> float:
    """Seconds for each connection: handshake, one request, close. Eight clients at a time."""

    def client(number: int) -> None:
        for _ in range(number):
            with server.connect(context) as sock:
                ask(sock, b"x" * MESSAGE)

    number = int(50 * scale)
    client(10)
    before = server.seconds()
    threads = [threading.Thread(target=client, args=(number,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (server.seconds() - before) / number / len(threads)


def requests(server: Server, context: ssl.SSLContext, scale: float) -> float:
    """Seconds for each request, over 20 connections."""
    socks = [server.connect(context) for _ in range(20)]
    for sock in socks:
        ask(sock, b"x" * MESSAGE)
    number = int(200 * scale)
    before = server.seconds()
    for _ in range(number):
        for sock in socks:
            sock.sendall(b"x" * MESSAGE)
        for sock in socks:
            left = MESSAGE
            while left:
                left -= len(sock.recv(left))
    taken = (server.seconds() - before) / number / len(socks)
    for sock in socks:
        sock.close()
    return taken


def bulk_in(server: Server, context: ssl.SSLContext, scale: float) -> float:
    """Seconds for each megabyte that the server receives."""
    with server.connect(context) as sock:
        sock.sendall(b"S")
        time.sleep(0.05)
        megabytes = int(200 * scale)
        before = server.seconds()
        for _ in range(megabytes * 16):
            sock.sendall(PIECE)
        sock.shutdown(socket.SHUT_WR)
        time.sleep(0.1)
        return (server.seconds() - before) / megabytes


def bulk_out(server: Server, context: ssl.SSLContext, scale: float) -> float:
    """Seconds for each megabyte that the server sends."""
    with server.connect(context) as sock:
        megabytes = int(200 * scale)
        before = server.seconds()
        sock.sendall(b"G%09d" % (megabytes * 16))
        left, buffer = megabytes * 16 * len(PIECE), bytearray(65536)
        while left:
            left -= sock.recv_into(buffer)
        return (server.seconds() - before) / megabytes


def memory(server: Server, context: ssl.SSLContext, scale: float) -> float:
    """Bytes for each idle connection that has had one request."""
    socks = [server.connect(context) for _ in range(100)]
    for sock in socks:
        ask(sock, b"x" * MESSAGE)
    before = server.memory()
    number = int(1000 * scale)
    more = [server.connect(context) for _ in range(number)]
    for sock in more:
        ask(sock, b"x" * MESSAGE)
    taken = (server.memory() - before) / number
    for sock in socks + more:
        sock.close()
    return taken


MEASURE = dict(zip(WORKLOADS, [handshakes, requests, bulk_in, bulk_out, memory], strict=True))
UNITS = {"handshakes": (1e6, "us"), "request/reply": (1e6, "us"), "memory": (1 / 1024, "KB")}


def main(workloads: list[str], rounds: int, scale: float) -> dict[tuple[str, str], float]:
    """Measure, and print a table and the bars."""
    import trustme

    authority = trustme.CA()
    context = ssl.create_default_context()
    context.check_hostname = False
    authority.configure_trust(context)
    best: dict[tuple[str, str], float] = {}
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        file.write(authority.issue_cert("localhost").private_key_and_cert_chain_pem.bytes())
        file.flush()
        for number in range(rounds):
            for name in SERVERS[number % len(SERVERS) :] + SERVERS[: number % len(SERVERS)]:
                for workload in workloads:
                    server = Server(name, file.name)
                    try:
                        taken = MEASURE[workload](server, context, scale)
                    finally:
                        server.close()
                    best[workload, name] = min(taken, best.get((workload, name), taken))
    for workload in workloads:
        factor, unit = UNITS.get(workload, (1e6, "us/MB"))
        row = ", ".join(f"{name} {best[workload, name] * factor:.1f}" for name in SERVERS)
        print(f"{workload} ({unit}): {row}")
    for workload, ours, theirs, most in BARS:
        if workload in workloads:
            ratio = best[workload, ours] / min(best[workload, their] for their in theirs)
            met = "met" if ratio <= most else "missed"
            print(f"| {workload} | {ours} | <= {most} x {' or '.join(theirs)} | {ratio:.2f} | {met} |")
    return best


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(*sys.argv[2:])
    else:
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("workloads", nargs="*", default=WORKLOADS)
        parser.add_argument("--rounds", type=int, default=ROUNDS)
        parser.add_argument("--scale", type=float, default=1.0)
        options = parser.parse_args()
        main(options.workloads, options.rounds, options.scale)
