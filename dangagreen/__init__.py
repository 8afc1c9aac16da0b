"""Network servers in callback style and in sequential style, on one loop and on one and the same socket object."""

from dangagreen.core.errors import (
    BusyError,
    Cancelled,
    CannotParkError,
    ClosedError,
    ErrorContext,
    ForeignThreadError,
    IncompleteReadError,
    LimitError,
    TaskCancelledError,
)
from dangagreen.core.listener import Listener
from dangagreen.core.loop import Loop, current_loop
from dangagreen.core.timers import Timer
from dangagreen.green.connecting import connect
from dangagreen.green.net import Socket, serve, serve_requests
from dangagreen.green.program import run
from dangagreen.green.tasks import Task, current_task, sleep, spawn

__all__ = [
    "BusyError",
    "Cancelled",
    "CannotParkError",
    "ClosedError",
    "ErrorContext",
    "ForeignThreadError",
    "IncompleteReadError",
    "LimitError",
    "Listener",
    "Loop",
    "Socket",
    "Task",
    "TaskCancelledError",
    "Timer",
    "connect",
    "current_loop",
    "current_task",
    "run",
    "serve",
    "serve_requests",
    "sleep",
    "spawn",
]

__version__ = "0.1.0"
