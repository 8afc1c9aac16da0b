"""Whose code a frame runs: this package's, the standard library's, or the program's.

It is asked where something went wrong, so that an error names the program's own line, and when Ctrl-C strikes, which
must not tear what is ours. Rules: nothing here is on the way of the data; code is ours if it lies in the folder of this
module. What does not belong here: what is done about it.

Compiled to C, our functions have no frames but in tracebacks, and those of the program stand next to each other: what
walks over ours then walks over fewer, and finds the same. So what is counted from CALLER, and what is put into LOOPS,
is never compiled, but for `spawn`, which has no frame then and asks for one less. A signal is handled where compiled
code returns to what is not, or calls it, and so never strikes in its middle.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from types import CodeType, FrameType

CALLER = 1  # what a function gives `sys._getframe` for the frame of its caller

_INSTALLED = {"site-packages", "dist-packages"}

LOOPS: set[FrameType] = set()  # in which loops run: who waits for one of these to return waits for a loop


def is_ours(frame: FrameType) -> bool:
    """Whether it runs code of this package."""
    return frame.f_code.co_filename.startswith(_FOLDERS)


def is_our_code(code: CodeType) -> bool:
    """`is_ours`, of code that need not run."""
    return code.co_filename.startswith(_FOLDERS)


def is_library(frame: FrameType) -> bool:
    """Whether it runs code of the standard library, judged by the name of its module alone."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] in sys.stdlib_module_names


def is_installed(code: CodeType) -> bool:
    """Whether it is that of a package which pip, or the system, has installed."""
    return not _INSTALLED.isdisjoint(code.co_filename.split(os.sep))


def program_frames(stack: Iterable[FrameType]) -> Iterator[FrameType]:
    """The frames of a stack that are the program's: neither ours nor the standard library's."""
    return (frame for frame in stack if not is_ours(frame) and not is_library(frame))


def program_frame(frame: FrameType | None) -> FrameType | None:
    """The innermost frame that is the program's, from this one on outward, up to that of the loop; None without one."""
    while frame is not None and frame not in LOOPS:
        if not frame.f_code.co_filename.startswith(_FOLDERS) and not is_library(frame):  # `is_ours`, without a call
            return frame
        frame = frame.f_back
    return None


def line_of(frame: FrameType) -> str:
    """ "file:line" of what it runs now."""
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


# As its own code has it, not as `__file__` does: in what was packed into one file the two differ. What is compiled only
# knows the name of the package: it may be installed anywhere.
_FOLDERS = os.path.join(os.path.dirname(is_ours.__code__.co_filename), ""), os.path.join("dangagreen", "")
