"""Metrics and spans as the SDK of OpenTelemetry exports them; and whose spans are whose, across tasks and callbacks."""

import pytest

import dangagreen as d
from tests.connections import Echo

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from dangagreen.metrics.otel import MeteredLoop, traced

# -- metrics


@pytest.fixture
def reader():
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    reader.meter = provider.get_meter("test")
    yield reader
    provider.shutdown()


def points(reader):
    """{name: [(attributes, point)]} of what is exported now."""
    data = reader.get_metrics_data()
    return {
        metric.name: [(dict(point.attributes), point) for point in metric.data.data_points]
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def test_counters_gauges_and_the_histogram(loop, reader, advance):
    metered = MeteredLoop(meter=reader.meter)
    d.spawn(d.sleep, 1)
    loop.add_timer(1, lambda: loop.clock.jump(0.02))
    advance(2)
    seen = points(reader)
    ((attributes, point),) = seen["dangagreen.tasks_spawned"]
    assert attributes == {"loop": "MainThread"}
    assert point.value == 1
    assert {attributes["outcome"]: point.value for attributes, point in seen["dangagreen.tasks_ended"]} == {
        "returned": 1,
        "raised": 0,
        "cancelled": 0,
    }
    ((_, turns),) = seen["dangagreen.turn.duration"]
    assert turns.count == sum(metered.buckets)
    assert list(turns.bucket_counts) == metered.buckets
    assert turns.sum == pytest.approx(0.02)


def test_units_and_monotony(loop, reader):
    MeteredLoop(meter=reader.meter)
    data = reader.get_metrics_data()
    (scope,) = data.resource_metrics[0].scope_metrics
    metrics = {metric.name: metric for metric in scope.metrics}
    assert metrics["dangagreen.wait"].unit == "s"
    assert metrics["dangagreen.wait"].data.is_monotonic
    assert metrics["dangagreen.unsent"].unit == "By"
    assert not metrics["dangagreen.unsent"].data.is_monotonic


def test_after_cancel_the_loop_pays_nothing(loop, reader, advance):
    metered = MeteredLoop(meter=reader.meter)
    metered.cancel()
    assert loop.instruments is None


# -- traces


@pytest.fixture
def spans():
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    exporter.tracer = provider.get_tracer("test")
    yield exporter
    provider.shutdown()


def finished(spans):
    """{name: span}."""
    return {span.name: span for span in spans.get_finished_spans()}


def parent_of(span, seen):
    """The name of the parent of a span; None if it has none."""
    if span.parent is None:
        return None
    (name,) = (other.name for other in seen.values() if other.context.span_id == span.parent.span_id)
    return name


def served(serve, handler, *requests):
    """Serve with this handler, send each request, and return the replies, of one line each."""

    def main():
        server = serve(("127.0.0.1", 0), handler)
        with d.connect(server.address) as sock:
            replies = []
            for request in requests:
                sock.write_all(request)
                replies.append(sock.read_line())
            port = sock.local_addr_string().rpartition(":")[2]
        d.sleep(0.01)
        return replies, int(port)

    return d.run(main)


def test_a_connection_is_a_span_of_its_server(real_loop, spans):
    def handler(sock):
        for line in sock:
            d.sleep(0.001)
            sock.write_all(line)

    replies, port = served(d.serve, traced(handler, tracer=spans.tracer), b"a\n", b"b\n")
    assert replies == [b"a\n", b"b\n"]
    (span,) = spans.get_finished_spans()
    assert span.name.endswith("handler")
    assert span.kind is SpanKind.SERVER
    assert dict(span.attributes) == {
        "network.transport": "tcp",
        "network.peer.address": "127.0.0.1",
        "network.peer.port": port,
    }
    assert span.status.status_code is StatusCode.UNSET


def test_a_request_is_a_span_each(real_loop, spans):
    def request(sock):
        sock.write_all(sock.read_line())

    served(d.serve_requests, traced(request, "request", spans.tracer), b"a\n", b"b\n", b"c\n")
    assert [span.name for span in spans.get_finished_spans()] == ["request"] * 3
    assert len({span.context.trace_id for span in spans.get_finished_spans()}) == 3


def test_a_failure_is_an_error_of_the_span(real_loop, spans, take_errors):
    def handler(sock):
        sock.write_all(sock.read_line())
        raise ZeroDivisionError("no")

    served(d.serve, traced(handler, "handler", spans.tracer), b"a\n")
    (span,) = spans.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "ZeroDivisionError: no"
    assert [event.name for event in span.events] == ["exception"]
    assert [type(one.exception) for one in take_errors()] == [ZeroDivisionError]


def test_the_end_of_the_peer_is_no_error(real_loop, spans):
    def handler(sock):
        sock.write_all(sock.read_line())
        sock.read_exactly(5)

    served(d.serve, traced(handler, "handler", spans.tracer), b"a\n")
    (span,) = spans.get_finished_spans()
    assert span.status.status_code is StatusCode.UNSET
    assert span.events == ()


def test_a_cancelled_task_ends_its_span(loop, spans, run_turns):
    task = d.spawn(traced(d.sleep, "sleeps", spans.tracer), 100)
    run_turns(1)
    assert spans.get_finished_spans() == ()
    task.cancel()
    run_turns(1)
    (span,) = spans.get_finished_spans()
    assert span.status.status_code is StatusCode.UNSET
    assert span.kind is SpanKind.INTERNAL


def test_it_looks_like_the_function(loop, spans):
    def work():
        return 5

    assert d.spawn(work).name == d.spawn(traced(work, tracer=spans.tracer)).name
    with pytest.raises(TypeError, match="traced"):
        traced(5)
    loop.reset()


def test_slow_code_is_named_by_the_function(loop, spans, run_turns):
    def work():
        loop.clock.jump(1)

    reports = []
    loop.slow_seconds, loop.on_slow = 0.5, reports.append
    for function in (work, traced(work, tracer=spans.tracer)):
        loop.call_soon(function)
        run_turns(1)
    assert reports[0] == reports[1]


def test_without_a_provider_nothing_happens(loop, run_turns):
    task = d.spawn(traced(int))
    run_turns(1)
    assert task.result() == 0


def test_what_a_span_causes_belongs_to_it(loop, spans):
    """Tasks, groups, calls, timers, threads, and the way back from them."""

    def span(name):
        with spans.tracer.start_as_current_span(name):
            pass

    def in_group():
        with d.TaskGroup() as group:
            group.spawn(span, "of a group")

    def work():
        d.sleep(1)
        d.spawn(span, "of a task").join()
        loop.call_soon(span, "of a call")
        loop.add_timer(0.5, lambda: span("of a timer"))
        in_group()
        d.in_thread(span, "of a thread")
        d.in_thread(lambda: d.from_thread(span, "from a thread"))
        d.sleep(1)

    def main():
        with d.TaskGroup() as group:
            group.spawn(traced(work, "one", spans.tracer))
            group.spawn(traced(d.sleep, "two", spans.tracer), 1.5)

    d.run(main)
    seen = finished(spans)
    parents = {name: parent_of(one, seen) for name, one in seen.items()}
    assert parents == {
        "one": None,
        "two": None,
        **dict.fromkeys(["of a task", "of a call", "of a timer", "of a group", "of a thread", "from a thread"], "one"),
    }


def test_the_span_of_a_connection_reaches_its_callbacks(real_loop, spans):
    """A handler goes on in callback style: what its hooks do later is no child of the span that has ended."""

    class Later(Echo):
        __slots__ = ()

        def event_read(self):
            with spans.tracer.start_as_current_span("callback"):
                super().event_read()

    def handler(sock):
        with spans.tracer.start_as_current_span("within"):
            sock.write_all(sock.read_line())
        sock.watch_read(True)

    def main():
        server = d.serve(("127.0.0.1", 0), traced(handler, "handler", spans.tracer), socket_class=Later)
        with d.connect(server.address) as sock:
            for line in (b"a\n", b"b\n"):
                sock.write_all(line)
                sock.read_line()

    d.run(main)
    seen = finished(spans)
    assert parent_of(seen["within"], seen) == "handler"
    assert parent_of(seen["callback"], seen) is None


def test_an_instrument_sees_the_span_of_the_callback(loop, spans, advance):
    """Metrics with exemplars, and logs of an instrument, find the trace that the work belongs to."""

    class Notes(d.Instrument):
        def callback_began(self, subject, event):
            if event == "timer":
                noted.append(trace.get_current_span().get_span_context().span_id)

    noted = []
    loop.add_instrument(Notes())
    with spans.tracer.start_as_current_span("sets a timer") as span:
        loop.add_timer(1, lambda: None)
    advance(2)
    assert noted[0] == span.get_span_context().span_id
