"""For tests of network programs: a virtual clock, connections in memory, a random order of tasks, a leak check.

The pytest plugin is `dangagreen.testing.plugin`, which pytest finds by itself; `TestCase` is for unittest.
"""

from dangagreen.public import publish
from dangagreen.testing.cases import TestCase
from dangagreen.testing.clock import StalledError, VirtualClock, VirtualPoller, virtual_loop
from dangagreen.testing.idle import wait_until_idle
from dangagreen.testing.leaks import LeakCheck, no_leaks
from dangagreen.testing.order import random_order
from dangagreen.testing.wire import wire
from dangagreen.testing.wire_end import BLOCK, WireEnd

__all__ = [
    "BLOCK",
    "LeakCheck",
    "StalledError",
    "TestCase",
    "VirtualClock",
    "VirtualPoller",
    "WireEnd",
    "no_leaks",
    "random_order",
    "virtual_loop",
    "wait_until_idle",
    "wire",
]

publish(__name__, __all__)
del publish
