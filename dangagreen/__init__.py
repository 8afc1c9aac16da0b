"""Network servers in callback style and in sequential style, on one loop and on one and the same socket object."""

from typing import TYPE_CHECKING

from dangagreen.builds import is_compiled
from dangagreen.errors import (
    BusyError,
    Cancelled,
    CannotParkError,
    ChannelEnd,
    ClosedChannelError,
    ClosedError,
    Deadlock,
    ErrorContext,
    ForeignThreadError,
    IncompleteReadError,
    LimitError,
    ShortFileError,
    ShutDown,
    TaskCancelledError,
    TlsError,
    TruncatedError,
)
from dangagreen.green import forking
from dangagreen.green.deadlines import current_deadline, move_on_after, timeout, timeout_at
from dangagreen.green.groups import TaskGroup
from dangagreen.green.parking import no_parking
from dangagreen.green.run import run
from dangagreen.green.scopes import CancelScope, shield
from dangagreen.green.sleep import sleep, sleep_until
from dangagreen.green.spawning import spawn
from dangagreen.green.task_table import task_table
from dangagreen.green.tasks import Task, current_task
from dangagreen.loop import turn
from dangagreen.loop.instruments import Instrument
from dangagreen.loop.loop import Loop, current_loop
from dangagreen.loop.timers import Timer
from dangagreen.net.sock import Socket
from dangagreen.public import name_methods, publish, publish_on_use
from dangagreen.sockets.addresses import Address, SocketAddress
from dangagreen.sockets.descriptor import Descriptor, SocketLike

if TYPE_CHECKING:  # at run time they are imported when they are first used, see below
    from dangagreen.green.background import LoopThread, start_in_thread
    from dangagreen.green.fds import HasFileno, wait_readable, wait_writable
    from dangagreen.green.from_thread import from_thread, thread_cancelled
    from dangagreen.green.signals import SignalHandle, on_signal, signals
    from dangagreen.net.activation import listen_fds
    from dangagreen.net.connecting import connect
    from dangagreen.net.listener import Listener
    from dangagreen.net.serve_forever import serve_forever
    from dangagreen.net.serving import serve, serve_requests
    from dangagreen.sync.channels import Channel, Future
    from dangagreen.sync.events import Barrier, BrokenBarrierError, Condition, Event
    from dangagreen.sync.locks import BoundedSemaphore, Lock, RLock, Semaphore
    from dangagreen.sync.multiwait import Selectable, as_completed, select, wait
    from dangagreen.sync.queues import LifoQueue, PriorityQueue, Queue
    from dangagreen.sync.threads import ThreadLimiter, in_thread

__all__ = [
    "Address",
    "Barrier",
    "BoundedSemaphore",
    "BrokenBarrierError",
    "BusyError",
    "Cancelled",
    "CannotParkError",
    "Channel",
    "ChannelEnd",
    "ClosedChannelError",
    "ClosedError",
    "Condition",
    "Deadlock",
    "ErrorContext",
    "Event",
    "ForeignThreadError",
    "HasFileno",
    "IncompleteReadError",
    "Instrument",
    "LifoQueue",
    "LimitError",
    "Listener",
    "Lock",
    "Loop",
    "LoopThread",
    "CancelScope",
    "RLock",
    "Selectable",
    "Semaphore",
    "PriorityQueue",
    "Queue",
    "Future",
    "ShortFileError",
    "ShutDown",
    "SignalHandle",
    "Socket",
    "SocketAddress",
    "SocketLike",
    "Task",
    "TaskCancelledError",
    "TaskGroup",
    "ThreadLimiter",
    "Timer",
    "TlsError",
    "TruncatedError",
    "as_completed",
    "connect",
    "current_deadline",
    "current_loop",
    "current_task",
    "listen_fds",
    "from_thread",
    "in_thread",
    "move_on_after",
    "no_parking",
    "on_signal",
    "run",
    "select",
    "serve",
    "serve_forever",
    "serve_requests",
    "shield",
    "signals",
    "sleep",
    "sleep_until",
    "spawn",
    "start_in_thread",
    "task_table",
    "thread_cancelled",
    "timeout",
    "timeout_at",
    "wait",
    "wait_readable",
    "wait_writable",
]

__version__ = "0.1.0"
compiled: bool = is_compiled(turn)  # which build runs: the compiled one, or the pure one

publish_on_use(
    __name__,
    {
        "dangagreen.green.background": "LoopThread start_in_thread",
        "dangagreen.green.fds": "HasFileno wait_readable wait_writable",
        "dangagreen.green.from_thread": "from_thread thread_cancelled",
        "dangagreen.green.signals": "SignalHandle on_signal signals",
        "dangagreen.net.activation": "listen_fds",
        "dangagreen.net.connecting": "connect",
        "dangagreen.net.listener": "Listener",
        "dangagreen.net.serve_forever": "serve_forever",
        "dangagreen.net.serving": "serve serve_requests",
        "dangagreen.sync.channels": "Channel Future",
        "dangagreen.sync.events": "Barrier BrokenBarrierError Condition Event",
        "dangagreen.sync.locks": "BoundedSemaphore Lock RLock Semaphore",
        "dangagreen.sync.multiwait": "Selectable as_completed select wait",
        "dangagreen.sync.queues": "LifoQueue PriorityQueue Queue",
        "dangagreen.sync.threads": "ThreadLimiter in_thread",
    },
)
publish(__name__, [name for name in __all__ if name in globals()])
name_methods(Socket, (base for base in Socket.__mro__[1:-1] if base not in Descriptor.__mro__))
name_methods(Task, Task.__mro__[1:2])
del TYPE_CHECKING, Descriptor, forking, is_compiled, name_methods, publish, publish_on_use, turn
