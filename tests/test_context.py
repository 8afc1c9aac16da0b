"""Context variables: a connection has one context for all that it does, a task has a copy of its spawner's.

So a log line or a span knows its request in both styles, after every wait, and never another's. Shown with the standard
`logging` (a filter that adds a variable) and with the SDK of OpenTelemetry.
"""

from __future__ import annotations

import itertools
import logging
from contextvars import ContextVar

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import dangagreen as d

request_id: ContextVar[str] = ContextVar("request_id", default="-")


# -- logging


@pytest.fixture
def logged():
    """A list of (logger, request, message), of all that is logged."""

    class Collect(logging.Handler):
        def emit(self, record):
            lines.append((record.name, record.request, record.getMessage()))

    def add_request(record):
        record.request = request_id.get()
        return True

    lines = []
    handler = Collect()
    handler.addFilter(add_request)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield lines
    root.setLevel(level)
    root.removeHandler(handler)


log = logging.getLogger("shop")


def ask(address, *requests):
    """Send each, and answer the replies."""
    with d.connect(address) as sock:
        replies = []
        for request in requests:
            sock.write_all(request)
            replies.append(sock.read_line())
        return replies


def lines_of(logged, request):
    return [message for name, who, message in logged if name == "shop" and who == request]


class Shop(d.Socket):
    """Callback style: the first line names the request, the rest is done in as many ways as there are."""

    __slots__ = ()

    def event_read(self):
        data = self.read(1000)
        if data is None:
            self.finish()
            return
        if request_id.get() == "-":
            request_id.set(data.strip().decode())
        log.info("read")
        self.loop.call_soon(log.info, "soon")
        self.loop.add_timer(0.01, lambda: log.info("timer"))
        d.spawn(self.work)

    def work(self):
        log.info("task")
        d.sleep(0.02)
        log.info("task, later")
        self.write_all(request_id.get().encode() + b"\n")

    def close(self, reason=None):
        if not self.closed:
            log.info("close")
        super().close(reason)


def test_every_line_of_a_connection_in_callback_style_names_its_request(loop, logged):
    address = d.serve(("127.0.0.1", 0), Shop).address

    def main():
        with d.TaskGroup() as group:
            tasks = [group.spawn(ask, address, b"%s\n" % name) for name in (b"ann", b"bob", b"cleo")]
        d.sleep(1)
        return [task.result() for task in tasks]

    assert d.run(main) == [[b"ann\n"], [b"bob\n"], [b"cleo\n"]]
    for name in ("ann", "bob", "cleo"):
        assert sorted(lines_of(logged, name)) == ["close", "read", "soon", "task", "task, later", "timer"]
    assert lines_of(logged, "-") == []


def test_every_line_of_a_task_names_its_request_and_so_do_the_callbacks_after_it(loop, logged):
    class Chat(d.Socket):
        __slots__ = ()
        idle_timeout = 5

        def event_read(self):
            log.info("callback")
            self.write(self.read(100) or b"")

        def close(self, reason=None):
            if not self.closed:
                log.info("close: %s", reason)
            super().close(reason)

    def log_in(sock):
        request_id.set(sock.read_line().strip().decode())
        log.info("task")
        d.sleep(0.01)
        sock.write_all(b"hello\n")
        sock.watch_read(True)

    address = d.serve(("127.0.0.1", 0), log_in, socket_class=Chat).address

    def client(name):
        with d.connect(address) as sock:
            sock.write_all(name + b"\n")
            sock.read_line()
            d.sleep(0.01)
            sock.write_all(b"again\n")
            sock.read_line()
            assert sock.read_line() == b""

    def main():
        with d.TaskGroup() as group:
            for name in (b"ann", b"bob"):
                group.spawn(client, name)

    d.run(main)
    for name in ("ann", "bob"):
        assert lines_of(logged, name) == ["task", "callback", "close: the peer was idle for 5 s"]


def test_what_the_handler_of_a_request_sets_is_there_for_the_next_one(loop, logged):
    def handler(sock):
        line = sock.read_line()
        if not line:
            return
        if request_id.get() == "-":
            request_id.set(line.strip().decode())
        log.info("request")
        d.sleep(0.01)
        sock.write_all(request_id.get().encode() + b"\n")

    address = d.serve_requests(("127.0.0.1", 0), handler).address

    def main():
        with d.TaskGroup() as group:
            tasks = [group.spawn(ask, address, name, b"x\n", b"y\n") for name in (b"ann\n", b"bob\n")]
        return [task.result() for task in tasks]

    assert d.run(main) == [[b"ann\n"] * 3, [b"bob\n"] * 3]
    assert len(lines_of(logged, "ann")) == len(lines_of(logged, "bob")) == 3


@pytest.mark.parametrize("style", ["class", "function", "requests"])
def test_what_the_class_sets_while_it_is_made_is_for_this_connection_alone(loop, style):
    numbers = itertools.count(1)

    class Numbered(d.Socket):
        __slots__ = ()
        lifetime = 60

        def __init__(self, sock):
            assert request_id.get() == "-"
            super().__init__(sock)
            request_id.set(str(next(numbers)))

        def event_read(self):
            if style == "requests":
                return super().event_read()
            data = self.read(100)
            if data is None:
                return self.finish()
            return self.answer()

        def answer(self):
            self.write(request_id.get().encode() + b"\n")

        def close(self, reason=None):
            if not self.closed:
                ended.append((request_id.get(), reason))
            super().close(reason)

    def handler(sock):
        if sock.read_line():
            sock.answer()
            if style == "function":
                sock.read_line()

    ended = []
    if style == "requests":
        listener = d.serve_requests(("127.0.0.1", 0), handler, socket_class=Numbered)
    else:
        listener = d.serve(
            ("127.0.0.1", 0),
            Numbered if style == "class" else handler,
            **({} if style == "class" else {"socket_class": Numbered}),
        )

    def main():
        socks = [d.connect(listener.address) for _ in range(3)]
        replies = []
        for sock in socks:
            sock.write_all(b"x\n")
        for sock in socks:
            replies.append(sock.read_line())
        d.sleep(100)
        return replies

    assert d.run(main) == [b"1\n", b"2\n", b"3\n"]
    assert sorted(ended) == [(n, "its lifetime of 60 s is over") for n in "123"]
    assert request_id.get() == "-"


class Careless(d.Socket):
    __slots__ = ()

    def event_read(self):
        self.read(100)
        request_id.set("careless")
        return 1 / 0

    def close(self, reason=None):
        if not self.closed:
            log.info("close")
        super().close(reason)


def test_what_is_reported_of_a_connection_names_its_request(loop, logged, take_errors, pair):
    seen = []
    usual = loop.on_error
    loop.on_error = lambda context: (seen.append(request_id.get()), usual(context))
    sock, far = pair(Careless)
    sock.watch_read(True)
    far.send(b"x")
    d.sleep(1)
    loop.on_error = usual
    assert seen == ["careless"]
    assert lines_of(logged, "careless") == ["close"]
    assert len(take_errors()) == 1


def test_a_report_out_of_the_context_that_it_is_about(loop, take_errors, pair):
    """A task fails to send what it had queued, while the loop is still in the callback that has started the task."""

    class Broken(d.Socket):
        __slots__ = ()

        def event_read(self):
            return super().event_read()

        def close(self, reason=None):
            if not self.closed:
                closed.append(request_id.get())
            super().close(reason)

    closed = []
    sock, _far = pair(Broken)
    sock.set_writer_func(lambda data: 1 / 0)

    def task():
        request_id.set("broken")
        sock.write_all(b"x")
        d.sleep(0)

    sock._context.run(lambda: d.Task(loop, task, sock._context, task).start())
    d.sleep(0)
    assert closed == ["broken"]
    assert len(take_errors()) == 1


@pytest.mark.parametrize("how", ["call_soon", "add_timer"])
def test_what_is_reported_of_a_later_call_names_its_request(loop, take_errors, how):
    def fail():
        raise ValueError

    seen = []
    usual = loop.on_error
    loop.on_error = lambda context: (seen.append(request_id.get()), usual(context))
    token = request_id.set("later")
    if how == "call_soon":
        loop.call_soon(fail)
    else:
        loop.add_timer(0, fail)
    request_id.reset(token)
    d.sleep(1)
    loop.on_error = usual
    assert seen == ["later"]
    assert len(take_errors()) == 1


def test_the_post_loop_callback_of_a_connection_runs_in_its_context(loop, pair):
    sock, _far = pair()
    sock._context.run(request_id.set, "mine")
    seen = []
    sock.set_post_loop_callback(lambda *_: seen.append(request_id.get()) or True)
    d.sleep(0)
    sock.close()
    assert set(seen) == {"mine"}


def test_a_call_from_a_thread_brings_the_threads_context(loop, in_thread):
    def call():
        request_id.set("the thread's")
        loop.call_soon_threadsafe(lambda: seen.append(request_id.get()))

    seen = []
    in_thread(call)
    d.sleep(0)
    assert seen == ["the thread's"]
    assert request_id.get() == "-"


# -- OpenTelemetry


@pytest.fixture
def telemetry():
    """A tracer; its `ended` are the spans that have ended."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("tests")
    tracer.ended = exporter.get_finished_spans
    yield tracer
    provider.shutdown()
    assert trace.get_current_span() is trace.INVALID_SPAN


def paths(tracer):
    """Each ended span as "parent/child", by the names, sorted."""
    spans = {span.context.span_id: span for span in tracer.ended()}

    def path(span):
        return (path(spans[span.parent.span_id]) + "/" if span.parent is not None else "") + span.name

    return sorted(path(span) for span in spans.values())


def test_a_task_and_later_calls_inherit_the_current_span(loop, telemetry):
    def work(name):
        with telemetry.start_as_current_span(name):
            pass

    def task():
        with telemetry.start_as_current_span("task"):
            d.sleep(0.5)
            work("after a wait")
            d.spawn(work, "grandchild").join()

    with telemetry.start_as_current_span("root"):
        tasks = [d.spawn(task)]
        loop.call_soon(work, "soon")
        loop.add_timer(0.1, lambda: work("timer"))
    with telemetry.start_as_current_span("another"):
        tasks[0].join()
    assert paths(telemetry) == [
        "another",
        "root",
        "root/soon",
        "root/task",
        "root/task/after a wait",
        "root/task/grandchild",
        "root/timer",
    ]


def serve_and_ask(listener, names, requests=2):
    """Several clients at once, that send their name a few times each."""

    def client(name):
        for reply in ask(listener.address, *[name + b"\n"] * requests):
            assert reply == name + b"\n"

    def main():
        with d.TaskGroup() as group:
            for name in names:
                group.spawn(client, name)
        d.sleep(1)

    d.run(main)


def test_a_span_of_event_read_is_the_parent_of_the_spawned_task_s(loop, telemetry):
    class Server(d.Socket):
        __slots__ = ()

        def event_read(self):
            data = self.read(100)
            if data is None:
                self.finish()
                return
            with telemetry.start_as_current_span(f"read {data.strip().decode()}"):
                d.spawn(self.work, data)

        def work(self, data):
            with telemetry.start_as_current_span(f"work {data.strip().decode()}"):
                d.sleep(0.01)
                self.write_all(data)

    serve_and_ask(d.serve(("127.0.0.1", 0), Server), [b"ann", b"bob"])
    assert paths(telemetry) == sorted(["read ann", "read ann/work ann", "read bob", "read bob/work bob"] * 2)


def name_of(sock):
    line = sock.read_line()
    return line.strip().decode()


def test_a_span_of_event_read_is_the_parent_of_what_serves_the_request(loop, telemetry):
    """It has ended when the handler goes on after a wait, and is still its parent; the next request begins afresh."""

    class Traced(d.Socket):
        __slots__ = ()

        def event_read(self):
            with telemetry.start_as_current_span("read"):
                return super().event_read()

    def handler(sock):
        with telemetry.start_as_current_span("request"):
            name = name_of(sock)
            with telemetry.start_as_current_span(f"before {name}"):
                d.sleep(0.01)
            with telemetry.start_as_current_span(f"after {name}"):
                d.sleep(0.01)
            sock.write_all(name.encode() + b"\n" if name else b"")
        with telemetry.start_as_current_span("the rest"):
            d.sleep(0.01)

    serve_and_ask(d.serve_requests(("127.0.0.1", 0), handler, socket_class=Traced), [b"ann", b"bob"])
    found = paths(telemetry)
    for name in ("ann", "bob"):
        for span in ("before", "after"):
            assert found.count(f"read/request/{span} {name}") == 2
    assert found.count("read") == 6  # also at the two ends of input, which start no handler
    assert found.count("read/request") == found.count("read/the rest") == 4
    assert {path.split("/")[0] for path in found} == {"read"}
    parents = {span.context.span_id: span for span in telemetry.ended() if span.name == "request"}
    inner = [span for span in telemetry.ended() if span.name.endswith(("ann", "bob"))]
    traces = {}
    for span in inner:
        assert parents[span.parent.span_id].context.trace_id == span.context.trace_id
        traces.setdefault(span.context.trace_id, set()).add(span.name.split()[-1])
    assert all(len(names) == 1 for names in traces.values())


def test_a_span_may_be_attached_in_event_read_and_detached_in_the_handler(loop, telemetry, logged):
    class Traced(d.Socket):
        __slots__ = ("span", "token")

        def event_read(self):
            self.span = telemetry.start_span("request")
            self.token = otel_context.attach(trace.set_span_in_context(self.span))
            return super().event_read()

    def handler(sock):
        name = name_of(sock)
        with telemetry.start_as_current_span(f"work {name}"):
            d.sleep(0.01)
            sock.write_all(name.encode() + b"\n" if name else b"")
        otel_context.detach(sock.token)
        sock.span.end()

    serve_and_ask(d.serve_requests(("127.0.0.1", 0), handler, socket_class=Traced), [b"ann", b"bob"])
    assert paths(telemetry) == sorted(["request"] * 4 + ["request/work ann"] * 2 + ["request/work bob"] * 2)
    assert logged == []


def test_callbacks_of_a_connection_see_the_span_of_the_handler_at_work(loop, telemetry):
    class Server(d.Socket):
        __slots__ = ()
        high_water = 4
        low_water = 0

        def on_low_water(self):
            with telemetry.start_as_current_span("room"):
                pass

    def handler(sock):
        line = sock.read_line()
        if line:
            with telemetry.start_as_current_span("request"):
                sock.write_soon(b"x" * 9 + b"\n")
                d.sleep(0.01)

    listener = d.serve_requests(("127.0.0.1", 0), handler, socket_class=Server)
    assert d.run(ask, listener.address, b"1\n", b"2\n") == [b"x" * 9 + b"\n"] * 2
    assert paths(telemetry) == ["request", "request", "request/room", "request/room"]


def ask_twice_and_end(address):
    def main():
        ask(address, b"1\n", b"2\n")
        d.sleep(1)

    d.run(main)


def test_a_handler_that_changes_a_variable_of_event_read_for_good_is_heeded(loop):
    class Serving(d.Socket):
        __slots__ = ()

        def event_read(self):
            seen.append(request_id.get())
            request_id.set("event_read")
            return super().event_read()

    def handler(sock):
        if sock.read_line():
            seen.append(request_id.get())
            request_id.set("handler")
            sock.write_all(b"\n")

    seen = []
    ask_twice_and_end(d.serve_requests(("127.0.0.1", 0), handler, socket_class=Serving).address)
    assert seen == ["-", "event_read", "handler", "event_read", "handler"]


@pytest.mark.parametrize("changed", [False, True], ids=["left alone", "changed for good"])
def test_what_event_read_undoes_after_it_has_started_the_handler_is_undone_after_the_handler(loop, changed):
    class Serving(d.Socket):
        __slots__ = ()

        def event_read(self):
            seen.append(request_id.get())
            token = request_id.set("for a while")
            try:
                return super().event_read()
            finally:
                request_id.reset(token)

    def handler(sock):
        if sock.read_line():
            seen.append(request_id.get())
            d.sleep(0.01)
            seen.append(request_id.get())
            sock.write_all(b"\n")
            if changed:
                request_id.set("the handler's")

    seen = []
    ask_twice_and_end(d.serve_requests(("127.0.0.1", 0), handler, socket_class=Serving).address)
    after = "the handler's" if changed else "-"
    assert seen == ["-", "for a while", "for a while", after, "for a while", "for a while", after]


def test_a_connection_that_the_end_of_run_closes_is_closed_in_its_own_context(real_loop, logged):
    class Told(d.Socket):
        __slots__ = ()

        def event_read(self):
            request_id.set((self.read(100) or b"").decode())
            self.write(b"ok\n")

        def close(self, reason=None):
            if not self.closed:
                log.info("close: %s", reason)
            super().close(reason)

    def main():
        listener = d.serve(("127.0.0.1", 0), Told)
        sock = d.connect(listener.address)
        sock.write_all(b"ann")
        assert sock.read_line() == b"ok\n"

    d.run(main)
    assert ("shop", "ann", "close: run() ended") in logged
