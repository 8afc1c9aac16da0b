"""Metrics in the Prometheus text format, for `GET /metrics` on the management port.

Everything here is read from counts that are kept anyway (meters, nodes, queues, the map of descriptors); nothing is
counted for the metrics alone. What does not belong here: the page (management).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from dangagreen import Socket
from perlbal.clients import Client
from perlbal.meters import BOUNDS
from perlbal.services import World

KIND = "text/plain; version=0.0.4; charset=utf-8"
Sample = tuple[str, dict[str, object], float]  # what is appended to the family's name, the labels, the value


def exposition(world: World) -> tuple[str, str]:
    """The media type, and the text."""
    lines: list[str] = []
    for name, kind, words, samples in _families(world):
        lines += [f"# HELP perlbal_{name} {words}", f"# TYPE perlbal_{name} {kind}"]
        lines += [f"perlbal_{name}{suffix}{_labels(labels)} {value}" for suffix, labels, value in samples]
    return KIND, "\n".join(lines) + "\n"


def _labels(labels: dict[str, object]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(str(value))}"' for name, value in labels.items()) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _families(world: World) -> Iterator[tuple[str, str, str, Iterable[Sample]]]:
    yield "start_time_seconds", "gauge", "When the process was started, since 1970.", [("", {}, world.started)]
    yield "requests_total", "counter", "Requests that were answered.", _requests(world)
    yield "response_bytes_total", "counter", "Bytes of the bodies of responses.", _bytes(world)
    words = "Seconds from the first bytes of a request to the last of its response."
    yield "request_duration_seconds", "histogram", words, _durations(world)
    yield "connections", "gauge", "Open connections, by what they do.", _connections(world)
    yield "queue_length", "gauge", "Clients that wait for a backend.", _queues(world, 1)
    yield "queue_age_seconds", "gauge", "For how long the first of them has waited.", _queues(world, 0)
    yield from _nodes(world)


def _requests(world: World) -> Iterator[Sample]:
    for service in world.services.values():
        for code, count in sorted(service.meter.codes.items()):
            yield "", {"service": service.name, "code": code}, count


def _bytes(world: World) -> Iterator[Sample]:
    for service in world.services.values():
        yield "", {"service": service.name}, service.meter.sent


def _durations(world: World) -> Iterator[Sample]:
    for service in world.services.values():
        meter, total = service.meter, 0
        for bound, count in zip((*BOUNDS, "+Inf"), meter.durations, strict=True):
            total += count
            yield "_bucket", {"service": service.name, "le": bound}, total
        yield "_sum", {"service": service.name}, meter.seconds
        yield "_count", {"service": service.name}, total


def _connections(world: World) -> Iterator[Sample]:
    found: Counter[tuple[str, str, str]] = Counter()
    for one in Socket.descriptor_map().values():
        service = one.target if isinstance(one, Client) else getattr(one, "service", None)
        if service is not None and service.world is world and hasattr(one, "state"):
            found["client" if isinstance(one, Client) else "backend", service.name, one.state] += 1
    for (side, name, state), count in sorted(found.items()):
        yield "", {"side": side, "service": name, "state": state}, count


def _queues(world: World, which: int) -> Iterator[Sample]:
    for service in world.services.values():
        if service.role is not None:
            for queue, figures in service.role.queue_lengths().items():
                yield "", {"service": service.name, "queue": queue}, figures[which]


def _nodes(world: World) -> Iterator[tuple[str, str, str, Iterable[Sample]]]:
    nodes = [world.nodes[name] for name in sorted(world.nodes)]
    for name, kind, words, attribute in (
        ("node_attempts_total", "counter", "Connections to a node that were begun.", "attempts"),
        ("node_connects_total", "counter", "Connections to a node that were made.", "connects"),
        ("node_requests_total", "counter", "Requests that a node was given.", "requests"),
        ("node_active", "gauge", "Requests that a node works on.", "active"),
        ("node_failures", "gauge", "Failures of a node, one after the other.", "failures"),
    ):
        yield name, kind, words, [("", {"node": node.name}, getattr(node, attribute)) for node in nodes]
    codes = (
        ("", {"node": node.name, "code": code}, count)
        for node in nodes
        for code, count in sorted(Counter(node.codes).items())
    )
    yield "node_recent_responses", "gauge", "The last 500 responses of a node, by code.", codes
