"""See inside a running program: its sockets, tasks, groups, timers and servers, and what has held it up.

`snapshot()` is a loop as plain data; `dump()` prints it; `dump_on_signal()` has the process print it upon a signal, for
which `python -m dangagreen dump PID` asks; `watchdog()` logs the stack of what blocks a loop, while it does. From the
import of this module on it is noted how old things are, how long tasks run, and which have ended; not before.
"""

from dangagreen.introspect.collect import snapshot
from dangagreen.introspect.data import (
    AsyncioTaskInfo,
    EndedInfo,
    GroupInfo,
    ListenerInfo,
    LoopInfo,
    ProfileInfo,
    Snapshot,
    SocketInfo,
    TaskInfo,
    ThreadInfo,
    TimerInfo,
)
from dangagreen.introspect.lint import lint
from dangagreen.introspect.linting import LintReport
from dangagreen.introspect.on_signal import dump_on_signal
from dangagreen.introspect.profiles import profile
from dangagreen.introspect.text import dump, to_json
from dangagreen.introspect.watchdog import watchdog
from dangagreen.loop.slowness import SlowReport
from dangagreen.public import publish

__all__ = [
    "AsyncioTaskInfo",
    "EndedInfo",
    "GroupInfo",
    "LintReport",
    "ListenerInfo",
    "LoopInfo",
    "ProfileInfo",
    "SlowReport",
    "Snapshot",
    "SocketInfo",
    "TaskInfo",
    "ThreadInfo",
    "TimerInfo",
    "dump",
    "dump_on_signal",
    "lint",
    "profile",
    "snapshot",
    "to_json",
    "watchdog",
]

publish(__name__, __all__)
del publish
