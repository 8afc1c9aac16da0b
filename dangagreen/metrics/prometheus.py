"""Metrics of loops for Prometheus: a collector for a registry of the package `prometheus-client`.

Rules: names follow its conventions: the prefix `dangagreen_`, base units, `_total` for counters; nothing is kept here,
all is read when the registry is scraped. What does not belong here: what is counted (counts), and HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from dangagreen.metrics.counts import FAMILIES, LoopMetrics

_PREFIX = "dangagreen_"


class LoopCollector(Collector):  # type: ignore[misc, unused-ignore]  # the package may not be installed
    """Metrics of loops, by default of this thread's, for a registry: `REGISTRY.register(LoopCollector())`.

    Each has the label `loop`, its name. May be scraped in any thread.
    """

    def __init__(self, *metrics: LoopMetrics) -> None:
        self._metrics = metrics or (LoopMetrics(),)

    def collect(self) -> Iterator[Metric]:
        """Called by the registry when it is scraped."""
        for family in FAMILIES:
            kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
            name = _PREFIX + family.name + (f"_{family.unit}" if family.unit else "")
            metric = kind(name, family.words, labels=["loop", *family.labels])
            for metrics in self._metrics:
                for labels, value in family.read(metrics).items():
                    metric.add_metric([metrics.name, *labels], value)
            yield metric
        turns = HistogramMetricFamily(
            f"{_PREFIX}turn_duration_seconds",
            "How long the loop was at work, from one wait to the next.",
            labels=["loop"],
        )
        for metrics in self._metrics:
            upper = [*map(floatToGoString, metrics.bounds), "+Inf"]
            cumulated = accumulate(list(metrics.buckets))
            turns.add_metric([metrics.name], list(zip(upper, map(float, cumulated), strict=True)), metrics.worked)
        yield turns
