"""For tests of programs that use dangagreen, and for its own: a clock, a wire and a leak check that you control."""

from dangagreen.public import publish
from dangagreen.testing.clock import StalledError, VirtualClock, VirtualPoller, virtual_loop
from dangagreen.testing.leaks import LeakCheck, no_leaks
from dangagreen.testing.wire import BLOCK, WireEnd, wire

__all__ = [
    "BLOCK",
    "LeakCheck",
    "StalledError",
    "VirtualClock",
    "VirtualPoller",
    "WireEnd",
    "no_leaks",
    "virtual_loop",
    "wire",
]

publish(__name__, __all__)
del publish
