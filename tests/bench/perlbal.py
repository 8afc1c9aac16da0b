"""What a request costs the server in processor time: examples/perlbal, the Perl original, and nginx, in one run.

    python -m tests.bench.perlbal [--rounds 5] [--seconds 2] [--rows web,proxy] [--only ours,nginx]

Rules: every contestant in each round, one after the other, so that all meet the same noise; what is printed are
medians. The server has the first processor that we may use; the load, and the backend of the proxies, which is nginx,
the last one. The original and ours are given the same configuration. What is not installed is named, and left out.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.running import ROOT, Failed, processor_time, resident

IDLE = 4000
SIZES = {"1k": 1024, "100k": 102_400}
NINE = {  # beside Host, what a browser sends
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8",
    "Accept-Language": "en-US,en;q=0.5",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Cookie": "session=0123456789abcdef0123456789abcdef; theme=light",
    "Upgrade-Insecure-Requests": "1",
    "Sec-Fetch-Dest": "document",
    "Priority": "u=0, i",
}
NGINX = """
worker_processes 1; master_process off; daemon off; pid {directory}/nginx.pid; error_log /dev/null crit;
events {{ worker_connections 8192; }}
http {{ access_log off; sendfile on; keepalive_requests 100000000; types {{ text/plain txt; }}
  client_body_temp_path {directory}; proxy_temp_path {directory}; fastcgi_temp_path {directory};
  uwsgi_temp_path {directory}; scgi_temp_path {directory};
  {more}
}}
"""
NGINX_WEB = "server {{ listen 127.0.0.1:{port} backlog=4096; root {directory}; keepalive_timeout 600; }}"
NGINX_PROXY = """upstream back {{ server 127.0.0.1:{backend}; keepalive 64; keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:{port} backlog=4096; keepalive_timeout 600; location / {{ proxy_pass http://back;
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header X-Forwarded-For $remote_addr; }} }}"""
PERLBAL = "{first}\nSERVER aio_mode = {aio}\n{more}\nENABLE bench\n"
PERLBAL_WEB = """CREATE SERVICE bench
  SET role = web_server
  SET listen = 127.0.0.1:{port}
  SET docroot = {directory}
  SET persist_client = on
  SET persist_client_idle_timeout = 600"""
PERLBAL_PROXY = """CREATE POOL back
  POOL back ADD 127.0.0.1:{backend}
CREATE SERVICE bench
  SET role = reverse_proxy
  SET listen = 127.0.0.1:{port}
  SET pool = back
  SET persist_client = on
  SET persist_backend = on
  SET backend_persist_cache = 50
  SET persist_client_idle_timeout = 600"""


@dataclass(frozen=True)
class Contestant:
    """`command` starts it with the name of its configuration file, whose first line is `first`."""

    key: str
    label: str
    command: tuple[str, ...]
    first: str = ""

    def missing(self) -> str | None:
        return None if shutil.which(self.command[0]) else f"{self.command[0]} is not installed"

    def configuration(self, row: Row, directory: Path, port: int, backend: int) -> str:
        values = {"directory": directory, "port": port, "backend": backend}
        if self.key == "nginx":
            more = (NGINX_PROXY if row.proxies else NGINX_WEB).format(**values)
            return NGINX.format(more=more, **values)
        more = (PERLBAL_PROXY if row.proxies else PERLBAL_WEB).format(**values)
        return PERLBAL.format(first=self.first, aio=row.aio, more=more)


OURS = (sys.executable, str(ROOT / "examples" / "perlbal"), "-c")
CONTESTANTS = (
    Contestant("nginx", "nginx, one worker", ("nginx", "-c")),
    Contestant("xs", "Perlbal, XS headers", ("perlbal", "-c"), "xs enable headers"),
    Contestant("perlbal", "Perlbal", ("perlbal", "-c")),
    Contestant("ours", "examples/perlbal", OURS),
)


@dataclass(frozen=True)
class Row:
    """`load` returns how many requests it has made of a port, with the seconds to spend and the processor to use.

    What is measured is the processor time for each of them; with `memory` bytes for each idle client; with `latency`
    the 99th percentile of what they take, in microseconds, at half the rate at which the original saturates.
    """

    key: str
    label: str
    load: Callable[[int, float, int | None], tuple[int, str]]
    proxies: bool = False
    aio: str = "none"
    memory: bool = False
    latency: bool = False


def pinned(cpu: int | None) -> Callable[[], None]:
    def pin() -> None:
        if cpu is not None:
            os.sched_setaffinity(0, {cpu})

    return pin


def output_of(command: list[str], cpu: int | None, seconds: float) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=seconds + 60, preexec_fn=pinned(cpu), check=False
    )
    if done.returncode:
        raise Failed(f"{command[0]}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise Failed(f"the load has said nothing of {pattern}: {text}")
    return match[1]


def wrk(size: str, headers: dict[str, str] | None = None) -> Callable[[int, float, int | None], tuple[int, str]]:
    """50 kept-alive connections."""
    extra = [part for name, value in (headers or {}).items() for part in ("-H", f"{name}: {value}")]

    def load(port: int, seconds: float, cpu: int | None) -> tuple[int, str]:
        url = f"http://127.0.0.1:{port}/{size}.txt"
        text = output_of(["wrk", "-t1", "-c50", f"-d{seconds:.0f}s", "--latency", *extra, url], cpu, seconds)
        if "Non-2xx" in text or "Socket errors" in text:
            raise Failed(f"wrk: {text}")
        per_second, late = found(r"Requests/sec: *([\d.]+)", text), found(r"99% *(\S+)", text)
        return int(found(r"(\d+) requests in", text)), f"{float(per_second):.0f}/s, p99 {late}"

    return load


DELAY = """
local most = tonumber(os.getenv("DELAY_MS"))
function delay() return math.random(0, most) end
"""
MICROSECONDS = {"us": 1.0, "ms": 1e3, "s": 1e6}


def p99(port: int, seconds: float, cpu: int | None, directory: Path, per_second: float) -> float:
    """The 99th percentile of latency, in microseconds, at about this rate: each of 50 connections pauses at random."""
    script = directory / "delay.lua"
    script.write_text(DELAY)
    os.environ["DELAY_MS"] = f"{2 * 50 / per_second * 1000:.0f}"
    url = f"http://127.0.0.1:{port}/1k.txt"
    command = ["wrk", "-t1", "-c50", f"-d{seconds:.0f}s", "--latency", "-s", str(script), url]
    match = re.fullmatch(r"([\d.]+)(\w+)", found(r"99% *(\S+)", output_of(command, cpu, seconds)))
    assert match is not None
    return float(match[1]) * MICROSECONDS[match[2]]


def ab(size: str) -> Callable[[int, float, int | None], tuple[int, str]]:
    """A new connection for each request, 20 at a time."""

    def load(port: int, seconds: float, cpu: int | None) -> tuple[int, str]:
        url = f"http://127.0.0.1:{port}/{size}.txt"
        text = output_of(["ab", "-q", "-t", f"{seconds:.0f}", "-n", "1000000", "-c", "20", url], cpu, seconds)
        if found(r"Failed requests: *(\d+)", text) != "0":
            raise Failed(f"ab: {text}")
        return int(found(r"Complete requests: *(\d+)", text)), ""

    return load


def idle(port: int, _seconds: float, _cpu: int | None) -> tuple[int, str]:
    raise Failed("idle clients are measured otherwise")


ROWS = (
    Row("web-1k", "web, 1 KB, aio_mode none", wrk("1k")),
    Row("web-1k-aio", "web, 1 KB, aio_mode ioaio", wrk("1k"), aio="ioaio"),
    Row("web-100k", "web, 100 KB, aio_mode none", wrk("100k")),
    Row("web-100k-aio", "web, 100 KB, aio_mode ioaio", wrk("100k"), aio="ioaio"),
    Row("web-idle", f"web, {IDLE} idle clients, bytes each", idle, memory=True),
    Row("web-p99", "web, 1 KB, ioaio, p99 at half load", wrk("1k"), aio="ioaio", latency=True),
    Row("proxy-1k", "proxy, 1 KB", wrk("1k"), proxies=True),
    Row("proxy-1k-nine", "proxy, 1 KB, nine browser headers", wrk("1k", NINE), proxies=True),
    Row("proxy-p99", "proxy, 1 KB, p99 at half load", wrk("1k"), proxies=True, latency=True),
    Row("proxy-100k", "proxy, 100 KB", wrk("100k"), proxies=True),
    Row("proxy-new", "proxy, new connection each", ab("1k"), proxies=True),
    Row("proxy-idle", f"proxy, {IDLE} idle clients, bytes each", idle, proxies=True, memory=True),
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], port: int, cpu: int | None) -> Iterator[int]:
    """A server, which listens: its process."""
    server = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT, preexec_fn=pinned(cpu)
    )
    try:
        until = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > until:
                    server.kill()
                    raise Failed(f"{command[0]} does not listen: {server.communicate(timeout=10)[1].strip()}") from None
                time.sleep(0.05)
        yield server.pid
    finally:
        server.kill()
        server.communicate(timeout=10)


def idle_bytes(pid: int, port: int) -> float:
    """What a client adds to the server's memory that has made a request, and keeps its connection."""
    request = b"GET /1k.txt HTTP/1.1\r\nHost: localhost\r\n\r\n"

    def clients(count: int) -> list[socket.socket]:
        opened = []
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", port), 20)
            client.sendall(request)
            got = b""
            while len(got.partition(b"\r\n\r\n")[2]) < SIZES["1k"]:
                got += client.recv(65536)
            opened.append(client)
        return opened

    for client in clients(100):
        client.close()
    time.sleep(0.3)
    before, opened = resident(pid), clients(IDLE)
    time.sleep(0.3)
    added = (resident(pid) - before) / IDLE
    for client in opened:
        client.close()
    return added


def measure(
    contestant: Contestant, row: Row, directory: Path, backend: int, seconds: float, rate: float
) -> tuple[float, str]:
    """What the row asks for, at this rate if it is latency; and a remark."""
    processors = sorted(os.sched_getaffinity(0))
    port = free_port()
    file = directory / f"{contestant.key}.conf"
    file.write_text(contestant.configuration(row, directory, port, backend))
    with running([*contestant.command, str(file)], port, processors[0]) as pid:
        if row.memory:
            return idle_bytes(pid, port), ""
        row.load(port, 1, processors[-1])
        if rate:
            return p99(port, seconds, processors[-1], directory, rate), ""
        before = processor_time(pid)
        requests, remark = row.load(port, seconds, processors[-1])
        return (processor_time(pid) - before) / requests * 1e6, remark


@contextlib.contextmanager
def prepared() -> Iterator[tuple[Path, int]]:
    """The files, and a backend that serves them: (directory, its port)."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory, port = Path(name), free_port()
        directory.chmod(0o755)
        for key, size in SIZES.items():
            (directory / f"{key}.txt").write_bytes(b"x" * size)
        values = {"directory": directory, "port": port}
        file = directory / "backend.conf"
        file.write_text(NGINX.format(more=NGINX_WEB.format(**values), **values))
        with running(["nginx", "-c", str(file)], port, sorted(os.sched_getaffinity(0))[-1]):
            yield directory, port


def half_load(row: Row, directory: Path, backend: int, seconds: float) -> float:
    """Half the requests per second at which the original saturates; ours, where that is not installed."""
    if not row.latency:
        return 0.0
    one = next(one for one in (CONTESTANTS[1], CONTESTANTS[-1]) if one.missing() is None)
    _, remark = measure(one, row, directory, backend, seconds, 0.0)
    return float(found(r"(\d+)/s", remark)) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2, help="of load, for each measurement")
    parser.add_argument("--rows", default="", help="those whose names begin so, at commas")
    parser.add_argument("--only", default="", help="contestants, at commas")
    options = parser.parse_args()
    rows = [row for row in ROWS if row.key.startswith(tuple(options.rows.split(",")))]
    contestants = []
    for one in CONTESTANTS:
        if (why := one.missing()) is not None:
            print(f"{one.label}: {why}")
        elif not options.only or one.key in options.only.split(","):
            contestants.append(one)
    print(f"{'':36}" + "".join(f"{one.label:>20}" for one in contestants))
    with prepared() as (directory, backend):
        for row in rows:
            figures: dict[str, list[float]] = {one.key: [] for one in contestants}
            remarks: dict[str, str] = {}
            rate = half_load(row, directory, backend, options.seconds)
            for _ in range(options.rounds):
                for one in contestants:
                    figure, remarks[one.label] = measure(one, row, directory, backend, options.seconds, rate)
                    figures[one.key].append(figure)
            medians = [statistics.median(found) for found in figures.values()]
            print(f"{row.label:36}" + "".join(f"{median:20.1f}" for median in medians), flush=True)
            print("".join(f"    {label}: {remark}" for label, remark in remarks.items() if remark), flush=True)


if __name__ == "__main__":
    main()
