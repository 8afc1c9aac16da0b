"""The workloads: what is done, how much of it, and which load does it.

Rules: the work is the same for every contestant; `scale` makes all of it less, for a quick look.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.protocol import HTTP_REPLY, HTTP_REQUEST, MESSAGE, REPLY, REQUEST


@dataclass(frozen=True)
class Workload:
    """`kind` is "server" (a load works on it), "memory", "micro" (one process) or "startup".

    `load` makes the load's arguments after the port from the amount of work and of warm-up. `reference` is the
    contestant that the ratios are to.
    """

    key: str
    title: str
    meaning: str
    unit: str
    amount: int
    kind: str = "server"
    mode: str = ""
    load: Callable[[int, int], list[str]] | None = None
    smallest: int = 1
    reference: str = "c"
    per: str = "us"

    @property
    def plural(self) -> str:
        return {"delivery": "deliveries", "switch": "switches", "MiB": "MiB"}.get(self.unit, f"{self.unit}s")

    def work(self, scale: float) -> int:
        """The amount, in round numbers."""
        return max(self.smallest, int(self.amount * scale) // self.smallest * self.smallest)


def _talk(connections: int, in_flight: int, request: bytes, reply: bytes) -> Callable[[int, int], list[str]]:
    words = [str(in_flight), request.decode(), reply.decode()]
    return lambda work, warmup: ["talk", str(connections), str(work), str(warmup), *words]


def _locks(connections: int) -> Callable[[int, int], list[str]]:
    return lambda work, warmup: ["locks", str(connections), str(work), str(warmup)]


IDLE = 5000  # connections of the memory workload

WORKLOADS = (
    Workload(
        "request", "Request and reply",
        "50 connections, one request at a time on each: a line of 14 bytes, a reply of 7. What the library costs"
        " when there is nothing else to do.",
        "request", 100_000, mode="lines", load=_talk(50, 1, REQUEST, REPLY), smallest=50,
    ),
    Workload(
        "pipelined", "Pipelined lines",
        "The same with 16 lines in flight on each connection, each handled by a function call: parsing and handling"
        " dominate, system calls are shared.",
        "line", 400_000, mode="lines", load=_talk(50, 16, REQUEST, REPLY), smallest=800,
    ),
    Workload(
        "churn", "Connection churn",
        "Connect, one request, close; 50 at a time: clients without keep-alive, health checks.",
        "connection", 20_000, mode="lines", smallest=50,
        load=lambda work, warmup: ["churn", "50", str(work), str(warmup), REQUEST.decode(), REPLY.decode()],
    ),
    Workload(
        "receive", "Bulk receive",
        "4 connections send as fast as they can; the server counts: uploads.",
        "MiB", 256, mode="receive", smallest=16, load=lambda work, _: ["bulk", "4", str(work), "16", "receive"],
    ),
    Workload(
        "send", "Bulk send",
        "4 connections ask for a large reply, written in blocks of 256 KiB: downloads.",
        "MiB", 256, mode="send", smallest=16, load=lambda work, _: ["bulk", "4", str(work), "16", "send"],
    ),
    Workload(
        "active", "5,000 active connections",
        "Request and reply as above on 5,000 connections at once.",
        "request", 100_000, mode="lines", load=_talk(5000, 1, REQUEST, REPLY), smallest=5000,
    ),
    Workload(
        "memory", "Memory per idle connection",
        "5,000 connections that have been served once and are idle now: what each adds to the process, without the"
        " kernel's buffers.",
        "connection", IDLE, "memory", "lines", reference="", per="bytes", smallest=IDLE,
        load=lambda work, _: ["talk", str(work), "0", "0", "1", REQUEST.decode(), REPLY.decode()],
    ),
    Workload(
        "http", "HTTP-like requests",
        f"50 connections, requests of {len(HTTP_REQUEST)} bytes whose headers are split into a dict.",
        "request", 50_000, mode="http", load=_talk(50, 1, HTTP_REQUEST, HTTP_REPLY), smallest=50,
    ),
    Workload(
        "broadcast", "Broadcast",
        "One message of 65 bytes to 1,000 connections: chat rooms, tickers. Latency is until the last has it.",
        "delivery", 100, mode="broadcast",
        load=lambda work, warmup: ["broadcast", "1000", str(work), str(warmup), REPLY.decode(), MESSAGE.decode()],
    ),
    *(
        Workload(
            f"locks{count}", f"Locks, {count} connection{'s' if count > 1 else ''}",
            "examples/ddlockd beside the original in Perl: on each connection a lock is taken, then freed.",
            "pair", 50_000, mode="locks", load=_locks(count), smallest=500, reference="ddlockd-perl",
        )
        for count in (1, 50, 500)
    ),
    Workload(
        "spawn", "Spawn and join",
        "Start a task that does nothing and wait for it, one after the other.",
        "task", 100_000, "micro", smallest=1000, reference="asyncio",
    ),
    Workload(
        "spawn_many", "Spawn 100 and join them",
        "The same with 100 tasks started at once: fan-out.",
        "task", 100_000, "micro", smallest=1000, reference="asyncio",
    ),
    Workload(
        "switch", "Task switch",
        "100 tasks that take turns with sleep(0).",
        "switch", 200_000, "micro", smallest=1000, reference="asyncio",
    ),
    Workload(
        "timer_cancel", "Timers, added and cancelled",
        "1,000 timers added, then cancelled, with 100,000 others pending: timeouts that are not reached. trio and"
        " curio have scopes instead. With the long-term share of the garbage collector, which walks over all of them"
        " now and then.",
        "timer", 2_500_000, "micro", smallest=1000, reference="asyncio",
    ),
    Workload(
        "timer_fire", "Timers, added and fired",
        "1,000 timers due within 5 ms, with 100,000 others pending. trio and curio have sleeping tasks instead."
        " With the garbage collector's share, likewise.",
        "timer", 1_000_000, "micro", smallest=1000, reference="asyncio",
    ),
    Workload(
        "startup", "Start-up",
        "A process that imports the library and ends; a bare Python with sockets for comparison.",
        "process", 10, "startup", reference="bare", per="ms",
    ),
)  # fmt: skip

BY_KEY = {workload.key: workload for workload in WORKLOADS}
