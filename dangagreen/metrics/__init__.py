"""Metrics and traces of loops: `dangagreen.metrics.prometheus`, and `dangagreen.metrics.otel` for OpenTelemetry.

Each needs the extra of its name: `pip install dangagreen[prometheus]`, `dangagreen[otel]`.
"""

from dangagreen.metrics.counts import LoopMetrics
from dangagreen.public import publish

__all__ = ["LoopMetrics"]

publish(__name__, __all__)
del publish
