"""The profile of a loop as plain data; from the import on it counts bytes, too.

Rules: those of `collect`. What does not belong here: measuring (loop/profiling).
"""

from __future__ import annotations

from dangagreen.introspect.data import ProfileInfo
from dangagreen.loop.loop import Loop, loop_or_current
from dangagreen.loop.profiling import count_bytes_by
from dangagreen.sockets.kernel import passed_through


def profile(loop: Loop | None = None) -> tuple[ProfileInfo, ...]:
    """What `Socket.enable_profiling()` has measured on a loop, by default this thread's, what took longest first."""
    rows = loop_or_current(loop).measurements.rows.copy().items()
    found = [
        ProfileInfo(
            name=name,
            calls=row.calls,
            user=row.user,
            system=row.system,
            seconds=row.seconds,
            bytes_in=row.bytes_in,
            bytes_out=row.bytes_out,
        )
        for name, row in rows
    ]
    return tuple(sorted(found, key=lambda info: -info.seconds))


count_bytes_by(passed_through)
