"""What the bridge to asyncio costs, in processor time, beside plain asyncio in the same run.

    python -m tests.bench.bridge [--rounds 5]

Each row is a workload that a process of its own does once in plain asyncio (or on our own loop) and once across the
bridge, in turns; the ratio is that of the medians. Servers and their clients are in one thread: a workload's time is
that of both, so that the echo rows are measured against clients that are the same on both sides.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.databases import postgresql_in

ROWS = {  # workload: (what it is compared with, the bar)
    "hosted echo": ("asyncio echo", 1.15),
    "guest of asyncio, callbacks": ("own callbacks", 1.10),
    "guest of asyncio, sequential": ("own sequential", 1.10),
    "guest of uvloop, callbacks": ("own callbacks", 1.20),
    "guest of uvloop, sequential": ("own sequential", 1.20),
    "await_, suspends once": ("asyncio await, suspends once", 1.6),
    "await_, never suspends": ("asyncio await, never suspends", 0.8),
    "await to_task": ("asyncio await, never suspends", 3.0),
    "asyncpg, 10 tasks": ("asyncpg, 10 coroutines", 1.25),
}
COMMON = """
import asyncio, os, select, socket, sys, threading, time
N = int(os.environ.get("BENCH_N", "20000"))
CONNECTIONS = 50
def clients(address, rounds):
    # A bare client in a process of its own: what it costs is not counted.
    pid = os.fork()
    if pid:
        return pid
    socks = [socket.create_connection(address) for _ in range(CONNECTIONS)]
    poll = select.epoll()
    by_fd = {s.fileno(): s for s in socks}
    for s in socks:
        poll.register(s, select.EPOLLIN); s.send(b"x" * 64)
    left = rounds
    while left > 0:
        for fd, _ in poll.poll():
            by_fd[fd].recv(4096); by_fd[fd].send(b"x" * 64); left -= 1
    os._exit(0)
def timed(begin): print(time.process_time() - begin)
class Echo(asyncio.Protocol):
    left = CONNECTIONS
    def connection_made(self, transport): self.transport = transport
    def data_received(self, data): self.transport.write(data)
    def connection_lost(self, error):
        Echo.left -= 1
        if not Echo.left: self.ended.set_result(None)
async def asyncio_echo():
    loop = asyncio.get_running_loop(); Echo.ended = loop.create_future()
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    clients(server.sockets[0].getsockname(), N)
    begin = time.process_time(); await Echo.ended; timed(begin); server.close()
async def once(): await asyncio.sleep(0)
async def never(): pass
async def awaits(f):
    begin = time.process_time()
    for _ in range(N): await asyncio.create_task(f())
    timed(begin)
"""
OURS = """
import dangagreen as d
from dangagreen import bridge
class Callbacks(d.Socket):
    __slots__ = ()
    left = CONNECTIONS
    def event_read(self):
        data = self.read(4096)
        if data is None: self.close()
        else: self.write(data)
    def close(self, reason=None):
        if not self.closed:
            super().close(reason); ended()
def sequential(sock):
    try:
        while data := sock.read_some(): sock.write_all(data)
    finally: ended()
def ended():
    Callbacks.left -= 1
    if not Callbacks.left: done.set()
done = d.Event()
def own(handler):
    listener = d.serve(("127.0.0.1", 0), handler); clients(listener.address, N)
    begin = time.process_time(); done.wait(); timed(begin)
async def as_guest(handler):
    async with bridge.guest(): await bridge.to_task(own, handler)
def crossing(f):
    bridge.await_(f())
    begin = time.process_time()
    for _ in range(N): bridge.await_(f())
    timed(begin)
async def tasks():
    begin = time.process_time()
    for _ in range(N): await bridge.to_task(int)
    timed(begin)
"""
ASYNCPG = """
import asyncpg
async def pool(): return await asyncpg.create_pool(os.environ["BENCH_DSN"])
async def ten_coroutines():
    async def asks():
        for _ in range(N // 10): await connections.fetchval("select 1")
    async with await pool() as connections:
        await connections.fetchval("select 1")
        begin = time.process_time(); await asyncio.gather(*(asks() for _ in range(10))); timed(begin)
def ten_tasks():
    def asks():
        for _ in range(N // 10): bridge.await_(connections.fetchval("select 1"))
    connections = bridge.await_(pool())
    bridge.await_(connections.fetchval("select 1"))
    begin = time.process_time()
    with d.TaskGroup() as group:
        for _ in range(10): group.spawn(asks)
    timed(begin)
    bridge.await_(connections.close())
"""
UVLOOP = "import uvloop; uvloop.new_event_loop().run_until_complete("
PROGRAMS = {
    # With the same imports: what they free decides whether malloc has asyncio's buffers of 256 KiB by mmap(2), which
    # takes four times as long as all the rest of an echo.
    "asyncio echo": OURS + "asyncio.run(asyncio_echo())",
    "hosted echo": OURS + "bridge.run(asyncio_echo())",
    "own callbacks": OURS + "d.run(own, Callbacks)",
    "own sequential": OURS + "d.run(own, sequential)",
    "guest of asyncio, callbacks": OURS + "asyncio.run(as_guest(Callbacks))",
    "guest of asyncio, sequential": OURS + "asyncio.run(as_guest(sequential))",
    "guest of uvloop, callbacks": OURS + UVLOOP + "as_guest(Callbacks))",
    "guest of uvloop, sequential": OURS + UVLOOP + "as_guest(sequential))",
    "asyncio await, suspends once": "asyncio.run(awaits(once))",
    "asyncio await, never suspends": "asyncio.run(awaits(never))",
    "await_, suspends once": OURS + "d.run(crossing, once)",
    "await_, never suspends": OURS + "d.run(crossing, never)",
    "await to_task": OURS + "bridge.run(tasks())",
    "asyncpg, 10 coroutines": OURS + ASYNCPG + "asyncio.run(ten_coroutines())",
    "asyncpg, 10 tasks": OURS + ASYNCPG + "d.run(ten_tasks)",
}


def seconds(workload: str) -> float:
    command = [sys.executable, "-c", COMMON + PROGRAMS[workload]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=os.environ)
    return float(done.stdout)


@contextlib.contextmanager
def database_of(rows: Iterable[str]) -> Iterator[None]:
    """What the rows that need one find in BENCH_DSN: a PostgreSQL of their own, where none is given there."""
    if "BENCH_DSN" in os.environ or not any(row.startswith("asyncpg") for row in rows):
        yield
        return
    with tempfile.TemporaryDirectory() as folder, postgresql_in(Path(folder)) as (dsn, _):
        os.environ["BENCH_DSN"] = dsn
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description="What the bridge to asyncio costs.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("rows", nargs="*")
    options = parser.parse_args()
    rows = options.rows or list(ROWS)
    print(f"{'workload':32}{'ratio':>7}{'bar':>7}   beside")
    with database_of(rows):
        for row in rows:
            beside, bar = ROWS[row]
            pairs = [(seconds(row), seconds(beside)) for _ in range(options.rounds)]
            ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
            print(f"{row:32}{ours / theirs:7.2f}{bar:7.2f}   {beside}", flush=True)


if __name__ == "__main__":
    main()
