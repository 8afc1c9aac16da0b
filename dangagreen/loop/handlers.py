"""Handler, the base class of everything that has an fd in a loop; and FdHandler, for an fd without an object.

Rules: the loop uses of a handler what `Handler` has, and nothing else; each of its slots is written by one layer of the
socket classes, which is named there. What does not belong here: sockets.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from typing import Any, Protocol

from dangagreen import checks
from dangagreen.loop.pollers import READ, WRITE, Poller

UNREGISTERED = 32  # the poller does not know the fd: a bit of its own, so that a test for READ or WRITE is false
PAUSED = UNREGISTERED | READ | WRITE  # nor is it to be registered for a while: all interest counts as registered


class TaskLayer(Protocol):
    """The greenlet layer, as the loop calls it; it attaches itself as `Loop.green`."""

    no_parking: object  # the no_parking() block that is open, or None

    def adopt(self) -> None: ...  # the calling greenlet runs the loop from now on
    def reset(self) -> None: ...  # ends every task
    def stopping(self) -> None: ...  # `stop` was called
    def collection(self, begins: bool) -> None: ...  # a garbage collection begins or is over: nothing may park in it
    def has_waiters(self) -> bool: ...  # whether there is a task, or top-level code that waits
    def awaits_thread(self) -> bool: ...  # whether one of them waits for what a thread does
    def idle_deadline_timers(self) -> int: ...  # how many of its timers will have nothing to do
    def table(self, most: int | None = None) -> str: ...  # the table of at most so many tasks
    def listen(self, instruments: Any) -> None: ...  # these are told from now on; None: nobody
    def describe_run(self, call: Any) -> tuple[str, str, Any] | None: ...  # what a call of the loop has run
    def describe_task(self, task: Any) -> tuple[str, str, Any]: ...  # in words, its place, itself


class LookUpLayer(Protocol):
    """The name look-ups of a loop, as the loop calls them; they attach themselves as `Loop.look_ups`."""

    def awaits_thread(self) -> bool: ...  # whether a thread makes one that is waited for
    def after_fork(self) -> None: ...  # in the child, which has no thread but the one that forked


class Registrar(Protocol):
    """The loop, as a handler needs it to register and unregister."""

    poller: Poller
    instruments: Any

    def register(self, handler: Handler) -> None: ...
    def unregister(self, fd: int) -> None: ...


class Resumable:
    """What the loop resumes: a waiter, or what stands for one as the parked reader of a handler."""

    __slots__ = {
        "interrupt": "What each call that may park raises: by `cancelled` and its scopes; or by Ctrl-C; or None.",
        "resume": "Called by the loop: switches to it. A reader is resumed when there is input or EOF.",
        "unflushed_socket": "The socket that it wrote to last, whose queue is sent when it parks or ends; or None.",
    }

    resume: Callable[[], object]

    @property
    def task(self) -> Any:
        """The waiter, to be woken for other reasons, or named."""
        return self

    def _wake(self, error: BaseException, /, undone: bool) -> object:
        """There will be no input: the handler was closed."""
        raise NotImplementedError


class Handler:
    """An object that owns a file descriptor: base class of sockets and listeners.

    A turn reads its slots and calls its methods. A subclass sets all slots before it registers itself with the loop,
    and overrides the methods that the loop may call.
    """

    __slots__ = {
        "__weakref__": "Weak references to it work.",
        "_context": "The context (contextvars) that its callbacks run in.",
        "_queue": "The write queue, a list or a deque; None if it is empty. Written by the write queue's layer.",
        "_reader": "The waiter that is parked in a read of it, or None. Written by reading in sequential style.",
        "_registered_mask": "The bits that the poller watches it for; or UNREGISTERED, or PAUSED.",
        "_timer": "The timer of its idle timeout, lifetime or lingering; or None. Written by the timeouts' layer.",
        "_watch_read": "Whether `event_read` is called when there is input.",
        "_watch_write": "Whether `event_write` is called when it is writable.",
        "closed": "Whether `close` was called, here or by the library.",
        "fd": "The number of the OS socket's file descriptor.",
    }

    _context: Context
    _queue: Any
    _reader: Resumable | None
    _registered_mask: int
    _timer: Any
    _watch_read: bool
    _watch_write: bool
    closed: bool
    fd: int

    def _is_watched(self) -> bool:
        """Whether `event_read` is to be called when there is input."""
        return self._watch_read

    def _can_hang_up(self) -> bool:
        """Whether there may be a peer whose end the kernel tells although nobody reads."""
        return True

    def _hears_by_event_read(self) -> bool:
        """Whether input is for `event_read`, and no task is parked in a read."""
        return self._watch_read and self._reader is None

    def _run(self, call: Callable[..., Any], *args: object) -> Any:
        """Call a function with the context variables of this handler."""
        return self._context.run(call, *args)

    def _run_in_copy(self, call: Callable[..., Any], *args: object) -> Any:
        """Call a function with a copy of the context variables: the caller may be in the context already."""
        return self._context.copy().run(call, *args)

    def _leave_to_parent(self) -> None:
        """In a forked child: what is queued to be sent is the parent's, which sends it."""

    def _forget_registration(self) -> None:
        """In a forked child: the new poller does not know it, until something is wanted of it again."""
        self._registered_mask = UNREGISTERED

    def _register_again(self, poller: Poller) -> None:
        """In a forked child: tell the new poller what the old one knew. Where it refuses (OSError) it knows nothing."""
        known = self._registered_mask
        if not known & UNREGISTERED:
            self._registered_mask = UNREGISTERED
            poller.add(self.fd, known)
            self._registered_mask = known

    def event_read(self) -> object:
        """Called when there is input or EOF, while reading is watched. Raises NotImplementedError: override it."""
        raise NotImplementedError(f"{type(self).__name__} must override event_read")

    def _hearer(self) -> Handler | None:
        """Who hears of input that no event announces: itself, or the socket that stands above it."""
        return self

    def _code_behind(self, hook: str) -> object:
        """The function that runs the program's code when this hook is called."""
        return getattr(self, hook, self)

    def close(self, reason: object = None) -> None:
        """Leave the loop; the OS socket is closed at the end of the turn."""
        raise NotImplementedError

    def _events(self, mask: int) -> None:
        """Handle events other than a plain READ for a parked reader, or for `event_read`."""
        raise NotImplementedError

    def _interest(self) -> int:
        """The bits that the poller is to watch it for."""
        raise NotImplementedError

    def _update_registration(self) -> None:
        """Register `_interest()` with the poller, if something else is registered."""
        raise NotImplementedError

    def _pushed_back(self, just_now: bool) -> bool:
        """Deliver input that no event announces. Returns whether there is more for the next turn."""
        raise NotImplementedError

    def _flush(self) -> None:
        """Send the write queue."""
        raise NotImplementedError

    def _was_at_work(self) -> None:
        """Called after `event_read` if there is an idle timeout: its own work does not count."""
        raise NotImplementedError

    def _abandon(self, reason: object) -> None:
        """`close`, without an override of a subclass."""
        raise NotImplementedError

    def _close_fd(self) -> None:
        """Close the OS socket, at the end of the turn in which the handler was closed."""
        raise NotImplementedError


class FdHandler(Handler):
    """An fd without an object, as one of `other_fds` is."""

    __slots__ = {
        "callback": "A function of the event bits, called when the fd is ready.",
        "loop": "The loop that it belongs to.",
    }

    loop: Registrar

    def __init__(self, loop: Registrar, fd: int, callback: Callable[[int], object], mask: int = READ) -> None:
        self.loop = loop
        self.fd = fd
        self.callback = callback
        self.closed = self._watch_read = self._watch_write = False
        self._reader = self._queue = self._timer = None
        self._context = copy_context()
        self._registered_mask = mask
        loop.register(self)
        try:
            loop.poller.add(fd, mask)
        except BaseException:
            loop.unregister(fd)
            raise

    def watch(self, mask: int) -> None:
        """Watch the fd for these bits. Raises OSError or KeyError where the poller refuses, or knows it no more."""
        if mask != self._registered_mask:
            self.loop.poller.modify(self.fd, mask)
            self._registered_mask = mask

    def watch_anew(self) -> None:
        """Register the fd anew: its number may belong to another file by now, and the kernel watches files."""
        with suppress(OSError, KeyError):
            self.loop.poller.remove(self.fd)
        self.loop.poller.add(self.fd, self._registered_mask)

    def _events(self, mask: int) -> None:
        if self.closed:
            return
        if (instruments := self.loop.instruments) is None:
            result = self.callback(mask)
        else:
            result = instruments.callback(self.callback, "fd", self.callback, mask)
        if result is not None:
            checks.outcome(f"{self!r}", result)

    def _interest(self) -> int:
        return self._registered_mask

    def _code_behind(self, _hook: str) -> object:
        return self.callback

    def close(self, reason: object = None) -> None:
        if not self.closed:
            self.closed = True
            self.loop.unregister(self.fd)
            try:
                self.loop.poller.remove(self.fd)
            except (OSError, KeyError):  # it was closed before it was removed
                pass
            self._close_fd()

    _abandon = close

    def _close_fd(self) -> None:
        """Nothing to close: the fd belongs to the caller of `add_other_fds`."""

    def __repr__(self) -> str:
        return f"<fd {self.fd}: {self.callback!r}>"
