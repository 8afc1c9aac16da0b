"""What a loop has done and is doing, counted for exporters of metrics: an instrument, and what is read when one asks.

Rules: a family of metrics is named and explained here once, for all exporters; what can be looked up is looked up when
one asks, in any thread, in a few microseconds for each connection; what leaves no trace is counted by hooks. What does
not belong here: the libraries of exporters, and whatever costs something for each callback.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import pairwise, product
from math import inf
from threading import current_thread
from typing import Any, NamedTuple

from dangagreen import checks
from dangagreen.errors import Cancelled
from dangagreen.green.sched import scheduler
from dangagreen.loop.gone import Gone
from dangagreen.loop.instruments import Instrument
from dangagreen.loop.loop import Loop, loop_or_current
from dangagreen.sockets.acceptor import Acceptor
from dangagreen.sockets.kernel import traffic
from dangagreen.sockets.sock import CallbackSocket

# Seconds, of turns: most take some 100 us, one that takes 100 ms is reported as slow.
BUCKETS = 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5
_OUTCOMES = "returned", "raised", "cancelled"
_TASK_STATES = "new", "ready", "parked"
_SOCKET_STATES = "open", "finishing", "closed"

Labels = tuple[str, ...]


class Family(NamedTuple):
    """Metrics of one name, and how their values are read."""

    name: str  # with underscores, without the prefix, the unit and "_total"
    kind: str  # "counter" or "gauge"
    unit: str  # "seconds", "bytes", or "" for what is counted
    words: str  # what it says
    labels: Labels  # the names of the labels
    read: Callable[[LoopMetrics], dict[Labels, float]]  # the values by their labels, at this moment; in any thread


class LoopMetrics(Instrument):
    """Counts what a loop, by default this thread's, does from now on, until `cancel()`. For exporters.

    `name` tells it from other loops; by default it is that of its thread. `buckets` are upper bounds, in seconds, for
    the histogram of turns. Raises ForeignThreadError in another thread than the loop's, ValueError unless they grow.
    """

    __slots__ = {
        "_began": "When the turn in progress has begun; None while there is none.",
        "_bytes": "Bytes by class that were told for (received, sent): they never go down.",
        "accepted": "Connections that were accepted, by class.",
        "bounds": "The upper bounds of the histogram of turns, in seconds.",
        "buckets": "How many turns took at most as long as each of these, and longer, not cumulated.",
        "closed": "Connections that have closed, by class.",
        "gone": "Bytes, by class, that have passed through those: (received, sent).",
        "ended": "Tasks that have ended, by outcome.",
        "loop": "The loop.",
        "name": "What the loop is called.",
        "not_freed": "Those that the program still refers to.",
        "spawned": "How many tasks were made.",
        "waited": "How many seconds the loop has waited for events.",
        "worked": "How many seconds all turns took, without that.",
    }

    def __init__(
        self, loop: Loop | None = None, name: str | None = None, *, buckets: Iterable[float] = BUCKETS
    ) -> None:
        if not isinstance(buckets, Iterable):
            raise TypeError(f"buckets are upper bounds, in seconds, not {checks.shown(buckets)}")
        self.bounds = tuple(checks.seconds("buckets", bound) for bound in buckets)
        if not self.bounds or any(here >= after for here, after in pairwise((*self.bounds, inf))):
            raise ValueError(f"buckets are upper bounds that grow, and end before infinity, not {self.bounds}")
        self.loop = loop_or_current(loop)
        self.name = current_thread().name if name is None else checks.text("the name of a loop", name)
        self._began: float | None = None
        self.buckets = [0] * (len(self.bounds) + 1)
        self.waited = self.worked = 0.0
        self.spawned = 0
        self.accepted: Counter[str] = Counter()
        self.closed: Counter[str] = Counter()
        self.ended: Counter[str] = Counter(dict.fromkeys(_OUTCOMES, 0))
        self.gone: tuple[Counter[str], Counter[str]] = Counter(), Counter()
        self.not_freed = Gone()
        self._bytes: tuple[Counter[str], Counter[str]] = Counter(), Counter()
        self.loop.add_instrument(self)

    def cancel(self) -> None:
        """Count no more; what was counted stays. In the loop's thread."""
        self.loop.remove_instrument(self)

    # -- what leaves no trace

    def turn_began(self, waited: float, events: int) -> None:
        self.waited += waited
        self._began = self.loop.clock()

    def turn_ended(self) -> None:
        if self._began is not None:
            seconds, self._began = self.loop.clock() - self._began, None
            self.add_turn(seconds)

    def add_turn(self, seconds: float) -> None:
        """Count a turn that took so long."""
        self.worked += seconds
        self.buckets[bisect_left(self.bounds, seconds)] += 1

    def task_spawned(self, task: Any) -> None:
        self.spawned += 1

    def task_ended(self, task: Any) -> None:
        error = task.ended_by()
        cancelled = isinstance(error, Cancelled)
        self.ended["returned" if error is None else "cancelled" if cancelled else "raised"] += 1

    def connection_accepted(self, sock: Any, listener: Any) -> None:
        self.accepted[type(sock).__name__] += 1
        self.closed[type(sock).__name__] += 0  # shown before the first has closed

    def connection_closed(self, sock: Any) -> None:
        self.closed[type(sock).__name__] += 1
        self.not_freed.add(sock)
        if (passed := traffic(sock)) is not None:
            self.gone[0][type(sock).__name__] += passed.received
            self.gone[1][type(sock).__name__] += passed.sent

    def connections(self) -> list[CallbackSocket]:
        """All connections of the loop."""
        return [one for one in list(self.loop.handlers.values()) if isinstance(one, CallbackSocket)]

    def bytes_of(self, way: int) -> dict[Labels, float]:
        """Bytes by class that were received (0) or sent (1), by connections that have closed since and open ones."""
        now, told = self.gone[way].copy(), self._bytes[way]
        for sock in self.connections():
            if not sock.closed and (passed := traffic(sock)) is not None:
                now[type(sock).__name__] += passed.sent if way else passed.received
        for name, number in now.items():  # in another thread a connection may have closed just now, and be missed
            told[name] = max(told[name], number)
        return {(name,): number for name, number in told.items()}


def _states_of_connections(metrics: LoopMetrics) -> dict[Labels, float]:
    seen = [
        (type(sock).__name__, "closed" if sock.closed else "finishing" if sock._is_over() else "open")
        for sock in {*metrics.connections(), *metrics.not_freed.left()}
    ]
    classes = {*metrics.closed, *(name for name, _ in seen)}
    none: dict[Labels, float] = dict.fromkeys(product(classes, _SOCKET_STATES), 0)
    return none | Counter(seen)


def _states_of_tasks(metrics: LoopMetrics) -> dict[Labels, float]:
    states: dict[Labels, float] = dict.fromkeys(product(_TASK_STATES), 0)
    loop = metrics.loop
    for task in list(scheduler(loop).tasks) if loop.green is not None else ():
        states[("parked" if task.wait is not None else "new" if task.worker is None else "ready",)] += 1
    return states


def _alone(value: Callable[[LoopMetrics], float]) -> Callable[[LoopMetrics], dict[Labels, float]]:
    return lambda metrics: {(): value(metrics)}


def _counted(counts: Callable[[LoopMetrics], Counter[str]]) -> Callable[[LoopMetrics], dict[Labels, float]]:
    return lambda metrics: {(label,): number for label, number in counts(metrics).copy().items()}


def _of_listeners(value: Callable[[Any], float | None]) -> Callable[[LoopMetrics], dict[Labels, float]]:
    def read(metrics: LoopMetrics) -> dict[Labels, float]:
        servers: set[Any] = {one.server for one in list(metrics.loop.handlers.values()) if isinstance(one, Acceptor)}
        values = {(", ".join(map(_in_words, server.addresses)),): value(server) for server in servers}
        return {label: number for label, number in values.items() if number is not None}

    return read


def _in_words(address: Any) -> str:
    """An address as a label: "127.0.0.1:80", a path."""
    if not isinstance(address, tuple):
        return str(address)
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


FAMILIES = tuple(
    Family(*row)
    for row in (
        ("turns", "counter", "", "Turns of the loop.", (), _alone(lambda of: of.loop.turns)),
        ("wait", "counter", "seconds", "How long the loop has waited for events.", (), _alone(lambda of: of.waited)),
        (
            "slow",
            "counter",
            "",
            "Callbacks, and runs of tasks, that took longer than slow_seconds.",
            (),
            _alone(lambda of: of.loop.slow_count),
        ),
        ("errors", "counter", "", "Exceptions that reached no caller.", (), _alone(lambda of: of.loop.error_count)),
        ("queued_calls", "gauge", "", "Calls that wait for their turn.", (), _alone(lambda of: len(of.loop.ready))),
        ("queued_tasks", "gauge", "", "Tasks that wait for their turn.", (), _alone(lambda of: len(of.loop.runnable))),
        ("timers", "gauge", "", "Timers that are to fire.", (), _alone(lambda of: len(of.loop.timers))),
        ("tasks", "gauge", "", "Tasks that have not ended.", ("state",), _states_of_tasks),
        ("tasks_spawned", "counter", "", "Tasks that were made.", (), _alone(lambda of: of.spawned)),
        ("tasks_ended", "counter", "", "Tasks that have ended.", ("outcome",), _counted(lambda of: of.ended)),
        ("connections", "gauge", "", "Connections that are not freed.", ("class", "state"), _states_of_connections),
        (
            "connections_accepted",
            "counter",
            "",
            "Connections that were accepted.",
            ("class",),
            _counted(lambda of: of.accepted),
        ),
        (
            "connections_closed",
            "counter",
            "",
            "Connections that have closed.",
            ("class",),
            _counted(lambda of: of.closed),
        ),
        (
            "received",
            "counter",
            "bytes",
            "Input of TCP connections, as the kernel counts it.",
            ("class",),
            lambda of: of.bytes_of(0),
        ),
        (
            "sent",
            "counter",
            "bytes",
            "Output of TCP connections that the kernel has taken.",
            ("class",),
            lambda of: of.bytes_of(1),
        ),
        (
            "unsent",
            "gauge",
            "bytes",
            "Output that the kernel has not taken.",
            (),
            _alone(lambda of: sum(sock.unsent for sock in of.connections())),
        ),
        (
            "unread",
            "gauge",
            "bytes",
            "Input that was received and that nothing has read.",
            (),
            _alone(lambda of: sum(sock.buffered for sock in of.connections())),
        ),
        (
            "listener_accepted",
            "counter",
            "",
            "Connections that a listener has accepted.",
            ("listener",),
            _of_listeners(lambda server: server.accepted),
        ),
        (
            "listener_refused",
            "counter",
            "",
            "Connections whose TLS handshake, or PROXY header, has failed.",
            ("listener",),
            _of_listeners(lambda server: getattr(server, "failed_handshakes", None)),
        ),
        (
            "listener_connections",
            "gauge",
            "",
            "Connections of a listener that are open.",
            ("listener",),
            _of_listeners(lambda server: server.connections),
        ),
        (
            "listener_limit",
            "gauge",
            "",
            "How many connections of a listener may be open.",
            ("listener",),
            _of_listeners(lambda server: server.limit),
        ),
    )
)
