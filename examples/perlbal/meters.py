"""What is counted of the requests of a service, or a node, for the metrics. What does not belong here: the metrics."""

from __future__ import annotations

from bisect import bisect_left

BOUNDS = 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0  # seconds, of the histogram


class Meter:
    """How many requests were answered: by code, by duration (the last count is of those beyond BOUNDS); bytes."""

    __slots__ = ("codes", "durations", "seconds", "sent")

    def __init__(self) -> None:
        self.codes: dict[int, int] = {}
        self.durations = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0
        self.sent = 0

    def by_code(self) -> list[tuple[int, int]]:
        return sorted(self.codes.items())

    def answered(self, code: int, seconds: float, sent: int) -> None:
        """A response of so many bytes was sent, so long after the request had come."""
        self.codes[code] = self.codes.get(code, 0) + 1
        self.durations[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds
        self.sent += sent
