"""What Prometheus scrapes, by its own library: names, labels, the histogram; several loops; a server that shows it."""

import pytest

import dangagreen as d
from dangagreen.metrics import LoopMetrics
from tests.connections import Echo

pytest.importorskip("prometheus_client")

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from dangagreen.metrics.prometheus import LoopCollector


def scraped(registry):
    """{(name of the sample, labels): value}, by way of the text that is scraped."""
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


@pytest.fixture
def registry(active_loop):
    registry = CollectorRegistry(auto_describe=True)
    registry.register(LoopCollector())
    return registry


def test_counters_and_gauges_have_the_names_of_prometheus(loop, registry, advance):
    task = d.spawn(d.sleep, 1)
    advance(2)
    assert task.done
    values = scraped(registry)
    main = ("loop", "MainThread")
    assert values["dangagreen_turns_total", (main,)] == loop.turns
    assert values["dangagreen_wait_seconds_total", (main,)] == 2
    assert values["dangagreen_tasks_spawned_total", (main,)] == 1
    assert values["dangagreen_tasks_ended_total", (main, ("outcome", "returned"))] == 1
    assert values["dangagreen_timers", (main,)] == 0
    assert values["dangagreen_unsent_bytes", (main,)] == 0


def test_types_and_explanations(loop, registry):
    text = generate_latest(registry).decode()
    assert "# HELP dangagreen_turns_total Turns of the loop.\n# TYPE dangagreen_turns_total counter\n" in text
    assert "# TYPE dangagreen_connections gauge\n" in text
    assert "# TYPE dangagreen_turn_duration_seconds histogram\n" in text


def test_the_histogram_is_cumulated(loop, registry, advance):
    for seconds in (0.002, 0.02, 0.2, 20):
        loop.add_timer(seconds * 100, lambda seconds=seconds: loop.clock.jump(seconds))
    advance(3000)
    values = scraped(registry)
    name, main = "dangagreen_turn_duration_seconds_bucket", ("loop", "MainThread")
    cumulated = [values[name, (("le", le), main)] for le in ("0.001", "0.0025", "0.025", "0.25", "+Inf")]
    assert cumulated == [1, 2, 3, 4, 5]
    assert values["dangagreen_turn_duration_seconds_count", (main,)] == 5
    assert values["dangagreen_turn_duration_seconds_sum", (main,)] == pytest.approx(20.222)


def test_bounds_are_written_as_prometheus_writes_them_and_may_be_others(loop):
    registry = CollectorRegistry(auto_describe=True)
    registry.register(LoopCollector(LoopMetrics(), LoopMetrics(name="other", buckets=[1, 2.5])))
    found = {}
    for name, labels in scraped(registry):
        if name.endswith("_bucket"):
            found.setdefault(dict(labels)["loop"], []).append(dict(labels)["le"])
    assert found["other"] == ["1.0", "2.5", "+Inf"]
    assert found["MainThread"][:5] == ["5e-05", "0.0001", "0.00025", "0.0005", "0.001"]


def test_what_has_not_happened_yet_is_scraped_as_0(loop, registry):
    values = scraped(registry)
    main = ("loop", "MainThread")
    for outcome in ("returned", "raised", "cancelled"):
        assert values["dangagreen_tasks_ended_total", (main, ("outcome", outcome))] == 0
    for state in ("new", "ready", "parked"):
        assert values["dangagreen_tasks", (main, ("state", state))] == 0


def test_several_loops_are_told_apart_by_their_names(loop):
    registry = CollectorRegistry(auto_describe=True)
    with d.start_in_thread() as other:
        registry.register(LoopCollector(LoopMetrics(), other.call(LoopMetrics, None, "the other loop")))
        values = scraped(registry)
        names = {dict(labels)["loop"] for name, labels in values if name == "dangagreen_turns_total"}
    assert names == {"MainThread", "the other loop"}


def test_a_server_shows_it(real_loop, registry):
    """The example of the guide: the same server, another port."""

    def show(sock):
        while sock.read_line().strip():
            pass
        body = generate_latest(registry)
        sock.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    def main():
        server = d.serve(("127.0.0.1", 0), Echo)
        metrics = d.serve(("127.0.0.1", 0), show)
        with d.connect(server.address), d.connect(metrics.address) as scraper:
            d.sleep(0.01)
            scraper.write_all(b"GET /metrics HTTP/1.1\r\n\r\n")
            return scraper.read_to_end(1 << 20)

    assert b'dangagreen_connections{class="Echo",loop="MainThread",state="open"} 1.0' in d.run(main)
