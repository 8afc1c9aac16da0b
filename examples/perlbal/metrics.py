"""Metrics in the Prometheus text format, for `GET /metrics` on the management port.

Everything here is read from counts that are kept anyway (meters, nodes, queues, the map of descriptors); nothing is
counted for the metrics alone. What does not belong here: the page (management).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from dangagreen import Socket
from perlbal.clients import Client
from perlbal.meters import BOUNDS, Meter
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
    services = {name: service.meter for name, service in world.services.items()}
    words = "from the first bytes of a request to the last of its response"
    yield from _metered("", "service", services, "request_duration_seconds", words)
    yield from _metered("node_", "node", world.node_meters, "node_answer_seconds", "until the head of the answer came")
    yield "connections", "gauge", "Open connections, by what they do.", _connections(world)
    yield "queue_length", "gauge", "Clients that wait for a backend.", _queues(world, 1)
    yield "queue_age_seconds", "gauge", "For how long the first of them has waited.", _queues(world, 0)
    yield from _nodes(world)


def _metered(
    prefix: str, label: str, meters: dict[str, Meter], histogram: str, words: str
) -> Iterator[tuple[str, str, str, Iterable[Sample]]]:
    """What meters have counted, of which each belongs to what its name says."""
    codes = [("", {label: name, "code": code}, count) for name, one in meters.items() for code, count in one.by_code()]
    sent: list[Sample] = [("", {label: name}, one.sent) for name, one in meters.items()]
    durations = [sample for name, one in meters.items() for sample in _durations(label, name, one)]
    yield f"{prefix}requests_total", "counter", f"Requests that were answered, by {label}.", codes
    yield f"{prefix}response_bytes_total", "counter", f"Bytes of the bodies of responses, by {label}.", sent
    yield histogram, "histogram", f"Seconds {words}.", durations


def _durations(label: str, name: str, meter: Meter) -> Iterator[Sample]:
    total = 0
    for bound, count in zip((*BOUNDS, "+Inf"), meter.durations, strict=True):
        total += count
        yield "_bucket", {label: name, "le": bound}, total
    yield "_sum", {label: name}, meter.seconds
    yield "_count", {label: name}, total


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
        ("node_given_total", "counter", "Requests that a node was given.", "requests"),
        ("node_active", "gauge", "Requests that a node works on.", "active"),
        ("node_failures", "gauge", "Failures of a node, one after the other.", "failures"),
    ):
        yield name, kind, words, [("", {"node": node.name}, getattr(node, attribute)) for node in nodes]
