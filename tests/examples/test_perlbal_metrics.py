"""Metrics of perlbal in the Prometheus text format."""

from __future__ import annotations

import pytest

from perlbal.metrics import exposition
from perlbal_talk import Talker, get, served


@pytest.fixture
def service(loop, tmp_path):
    (tmp_path / "a.txt").write_bytes(b"content")
    with served(persist_client="on", docroot=tmp_path) as service:
        yield service


def samples(text):
    """The value of each sample, by name with labels."""
    return dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))


def test_requests_bytes_durations_and_connections_are_told(service, wires, run_turns):
    talker, _other = Talker(service, wires, run_turns, 1 << 20), Talker(service, wires, run_turns, 1 << 20)
    talker.say(get("/a.txt"), get("/a.txt"), get("/none"))
    kind, text = exposition(service.world)
    found = samples(text)
    assert kind.startswith("text/plain; version=0.0.4")
    assert found['perlbal_requests_total{service="test",code="200"}'] == "2"
    assert found['perlbal_requests_total{service="test",code="404"}'] == "1"
    assert found['perlbal_response_bytes_total{service="test"}'] == str(7 + 7 + len(b"<h1>404 - Not Found</h1>\n"))
    assert found['perlbal_request_duration_seconds_bucket{service="test",le="0.001"}'] == "3"
    assert found['perlbal_request_duration_seconds_bucket{service="test",le="+Inf"}'] == "3"
    assert found['perlbal_request_duration_seconds_count{service="test"}'] == "3"
    assert found['perlbal_connections{side="client",service="test",state="persist_wait"}'] == "1"
    assert found['perlbal_connections{side="client",service="test",state="reading_headers"}'] == "1"


def test_queues_and_nodes_are_told(service):
    world = service.world
    service.role.queue_lengths = lambda: {"normal": (3, 2)}
    node = world.nodes.named("127.0.0.1:9000")
    node.attempts = 5
    world.node_meters[node.name].answered(500, 0.2, 10)
    found = samples(exposition(world)[1])
    assert found['perlbal_queue_length{service="test",queue="normal"}'] == "2"
    assert found['perlbal_queue_age_seconds{service="test",queue="normal"}'] == "3"
    assert found['perlbal_node_attempts_total{node="127.0.0.1:9000"}'] == "5"
    assert found['perlbal_node_requests_total{node="127.0.0.1:9000",code="500"}'] == "1"
    assert found['perlbal_node_answer_seconds_bucket{node="127.0.0.1:9000",le="0.1"}'] == "0"
    assert found['perlbal_node_answer_seconds_bucket{node="127.0.0.1:9000",le="0.25"}'] == "1"


def test_prometheus_reads_it(service, wires, run_turns):
    parser = pytest.importorskip("prometheus_client.parser")
    Talker(service, wires, run_turns, 1 << 20).say(get("/a.txt"))
    families = {family.name: family for family in parser.text_string_to_metric_families(exposition(service.world)[1])}
    assert families["perlbal_requests"].type == "counter"
    assert families["perlbal_request_duration_seconds"].type == "histogram"
    assert families["perlbal_connections"].type == "gauge"


def test_large_numbers_are_not_rounded(service):
    service.meter.sent = 123_456_789_012
    assert "123456789012" in exposition(service.world)[1]
