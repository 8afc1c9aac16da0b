"""Metrics and traces of loops by OpenTelemetry: observable instruments for a meter, spans around handlers and tasks.

Rules: only its API is used, so that without an SDK nothing is exported and next to nothing done; the current span is a
context variable, which tasks, callbacks, timers and threads of `in_thread` inherit, so that nothing is passed on here.
What does not belong here: what is counted (counts), and exporters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, ParamSpec, TypeVar

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, Meter, Observation

from dangagreen import checks
from dangagreen.green.life import name_of
from dangagreen.loop.loop import Loop
from dangagreen.metrics.counts import BUCKETS, FAMILIES, Family, LoopMetrics
from dangagreen.net.handler_task import is_own_end
from dangagreen.streams.writing import StreamSocket

Params = ParamSpec("Params")
Result = TypeVar("Result")

_UNITS = {"seconds": "s", "bytes": "By", "": "1"}


class MeteredLoop(LoopMetrics):
    """Metrics of a loop, by default this thread's, for a meter, by default that of the global provider.

    Each has the attribute `loop`, its name. May be read in any thread. `cancel()` ends the counting.
    """

    __slots__ = {"_histogram": "The histogram of how long turns take."}

    def __init__(
        self,
        loop: Loop | None = None,
        name: str | None = None,
        *,
        buckets: Iterable[float] = BUCKETS,
        meter: Meter | None = None,
    ) -> None:
        super().__init__(loop, name, buckets=buckets)
        meter = metrics.get_meter("dangagreen") if meter is None else meter
        self._histogram = meter.create_histogram(
            "dangagreen.turn.duration",
            "s",
            "How long the loop was at work, from one wait to the next.",
            explicit_bucket_boundaries_advisory=self.bounds,
        )
        for family in FAMILIES:
            name = "dangagreen." + family.name
            read = [partial(self._observe, family)]
            if family.kind == "counter":
                meter.create_observable_counter(name, read, _UNITS[family.unit], family.words)
            else:
                meter.create_observable_up_down_counter(name, read, _UNITS[family.unit], family.words)

    def add_turn(self, seconds: float) -> None:
        super().add_turn(seconds)
        self._histogram.record(seconds, {"loop": self.name})

    def _observe(self, family: Family, _options: CallbackOptions) -> Iterator[Observation]:
        for labels, value in family.read(self).items():
            yield Observation(value, {"loop": self.name, **dict(zip(family.labels, labels, strict=True))})


class _Traced(partial[Any]):
    """A function that makes its calls in a span. To others it looks like that function.

    Without `__slots__`: since Python 3.13 a `partial` of a partial calls the function of that one, and not its
    `__call__`, unless it has attributes in a dict.
    """

    traced: Callable[..., Any]
    name: str
    tracer: trace.Tracer | None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        sock = args[0] if args and isinstance(args[0], StreamSocket) else None
        tracer = trace.get_tracer("dangagreen") if self.tracer is None else self.tracer
        kind = trace.SpanKind.INTERNAL if sock is None else trace.SpanKind.SERVER
        attributes = None if sock is None else dict(_attributes(sock))
        with tracer.start_as_current_span(
            self.name, kind=kind, attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                return self.traced(*args, **kwargs)
            except Exception as error:
                if sock is None or not is_own_end(sock, error):
                    span.record_exception(error)
                    span.set_status(trace.StatusCode.ERROR, f"{type(error).__name__}: {error}")
                raise


def traced(
    function: Callable[Params, Result], name: str | None = None, tracer: trace.Tracer | None = None
) -> Callable[Params, Result]:
    """A function that calls this one in a span of its own, of the current tracer provider by default: for `serve`,
    `serve_requests` (a span for each request), `spawn`, `call_soon`.

    What is spawned or called from within belongs to that span. Where the first argument is a connection, the span is of
    kind SERVER, with the peer's address; then the end of that connection, by its peer, is no error.
    """
    checks.function("traced", function)
    call = _Traced(function)
    call.traced, call.tracer = function, tracer
    call.name = name_of(function) if name is None else checks.text("the name of a span", name)
    return call


def _attributes(sock: StreamSocket) -> Iterator[tuple[str, str | int]]:
    """The peer, by OpenTelemetry's semantic conventions."""
    address, ip = sock.peer_addr_string(), sock.peer_ip_string()
    if ip is not None and address is not None:
        yield "network.transport", "tcp"
        yield "network.peer.address", ip
        yield "network.peer.port", int(address.rpartition(":")[2])
    else:
        yield "network.transport", "unix"
