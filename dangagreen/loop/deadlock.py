"""Deadlocks: all tasks wait, and nothing can wake the loop, neither of what it waits for itself nor from outside.

Rules: when in doubt, it is none, but a warning: any other thread is one, idle or a daemon, Python's or not, unless it
is an idle one of our own pool; so is any signal handler of the program's own. The interpreter's handler of Ctrl-C, and
that of `Interrupts`, are not: they end the program, not the wait. Where a task waits for what a thread does, there is
no deadlock. A busy loop pays next to nothing for the look. What does not belong here: the wait itself.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any
from weakref import ref

from dangagreen import checks
from dangagreen.errors import Deadlock
from dangagreen.loop.error_log import log
from dangagreen.loop.handlers import Handler, LookUpLayer, TaskLayer
from dangagreen.loop.pollers import LONGEST_WAIT, Poller
from dangagreen.loop.registry import Registry
from dangagreen.loop.sigint import Interrupts
from dangagreen.loop.thread_pool import idle_threads
from dangagreen.loop.timers import Timer

_FEW = 32  # descriptors that may be examined for a deadlock before every wait
_LOOK = 5e-6  # seconds of waiting in vain for each descriptor or timer to examine, ten times what that takes
_SHOWN = 50  # tasks in the table of a deadlock


WATCHING_THREADS: list[threading.Thread] = []  # they only look on, and wake nobody
WATCHING_HANDLERS: list[object] = []  # handlers of signals that do
# Functions of a handler of SIGINT: whether it ends the program, and not the wait. `dangagreen.bridge` knows one more.
ENDING: list[Callable[[Any], bool]] = [
    lambda handler: handler is signal.default_int_handler or isinstance(handler, Interrupts)
]


class DeadlockWatch(Registry):
    """What a loop looks at before a wait that might never end: base class of `Loop`."""

    __slots__ = {
        "_deadlock_seconds": "After how many seconds of a wait a deadlock is suspected; None: never.",
        "_waited": "Whether the loop has waited in vain since it last examined its descriptors for a deadlock.",
        "_warned": "Whether this `run` has logged its warning of a deadlock.",
        "awaited": "A weak reference to what could wake the loop when that was last looked for: it may do so still.",
        "green": "The greenlet layer of this loop, which attaches itself; None until something needs it.",
        "onlookers": "Timers that only look on: they wake nobody, and are no reason to hope in a deadlock.",
        "look_ups": "The name look-ups under way, which attach themselves; None until there is one.",
    }

    def __init__(self, clock: Callable[[], float], poller: Poller) -> None:
        super().__init__(clock, poller)
        self._deadlock_seconds: float | None = 5.0
        self._waited = self._warned = False
        self.awaited: Callable[[], Handler | None] = lambda: None
        self.green: TaskLayer | None = None
        self.look_ups: LookUpLayer | None = None
        self.onlookers: set[Timer] = set()

    @property
    def deadlock_seconds(self) -> float | None:
        """After how many seconds of a wait without limit a deadlock is suspected; None: never. Assignable."""
        return self._deadlock_seconds

    @deadlock_seconds.setter
    def deadlock_seconds(self, value: float | None) -> None:
        if value is not None:
            value = min(checks.span("deadlock_seconds", value), LONGEST_WAIT)
        self._deadlock_seconds = value

    def _begin_run(self) -> None:
        """A new `run` has not warned yet."""
        self._warned = False

    def _seems_that_no_fd_can_wake(self) -> bool:
        """Whether none of the first few descriptors has interest registered; the wake-up pair does not count."""
        looked = 0
        for handler in self.handlers.values():  # one of the first is, as a rule, a listener
            if handler is not self.wakeup_pair:
                if handler._interest():
                    self.awaited = ref(handler)
                    return False
                if self.green is None or not self.green.has_waiters():
                    return False  # no task waits, and there is no deadlock
                looked += 1
                if looked == _FEW:
                    break
        return True

    def _look_for_a_stall(self, patience: float | None) -> float | None:
        """Examine all descriptors for a deadlock before a wait of `patience`. Returns how long to wait.

        With many descriptors and timers it waits first, many times as long as the examination takes, and examines only
        after a wait in vain: a busy program pays nothing for its idle connections, however many.
        """
        if self.deadlock_seconds is None:
            return patience
        much = len(self.handlers) + len(self.timers)
        if much > _FEW and (self.batch or not self._waited):
            self._waited = True
            return much * _LOOK if patience is None else min(patience, much * _LOOK)
        self._waited = False
        if self._waits_in_vain(patience):
            self._stalled()
        return patience

    def _waits_in_vain(self, patience: float | None) -> bool:
        return self._waits_for_nothing(patience) and not any(
            handler._interest() for handler in self.handlers.values() if handler is not self.wakeup_pair
        )

    def _waits_for_nothing(self, patience: float | None) -> bool:
        """Whether there are no timers, or only deadline timers whose scopes are over, and those that only look on."""
        return patience is None or (
            self.green is not None and self.green.idle_deadline_timers() + len(self.onlookers) == len(self.timers)
        )

    def _doubts(self) -> Iterator[str]:
        """What might still end a wait that has no limit: a str for each."""
        if any(handler._can_hang_up() for handler in self.handlers.values() if handler is not self.wakeup_pair):
            yield "the end of a connection that no task reads"
        yield from external_wakers()

    def _stalled(self) -> None:
        """The next wait has no limit, and no descriptor can end it: raise Deadlock, or warn if something else might."""
        assert self._deadlock_seconds is not None
        if any(layer is not None and layer.awaits_thread() for layer in (self.green, self.look_ups)):
            return
        if any(self._doubts()) and (self._warned or self.poller.wait(self._deadlock_seconds)):
            return  # pollers are level-triggered: the turn's own wait finds these events again
        self._tell_of_the_stall()

    def seems_stalled(self) -> bool:
        """Whether tasks wait, and no timer and no descriptor can wake them: for who makes turns that never wait."""
        return (
            len(self.timers) == len(self.onlookers)
            and self.green is not None
            and self.green.has_waiters()
            and not self.green.awaits_thread()
            and self._seems_that_no_fd_can_wake()
            and self._waits_in_vain(None)
        )

    def look_for_a_stall(self) -> None:
        """Raise Deadlock if that is so, or warn, once, if something outside might wake them. It does not wait."""
        if not self._warned and self.seems_stalled():
            self._tell_of_the_stall()

    def _tell_of_the_stall(self) -> None:
        table = self.green.table(_SHOWN) if self.green is not None else ""
        if outside := ", ".join(self._doubts()):
            self._warned = bool(table)
            if table:
                log().warning("all tasks wait, and only %s might wake the loop:\n%s", outside, table)
        elif not self.poller.wait(0):  # a thread may have woken the loop and ended meanwhile
            raise Deadlock("all tasks wait, and nothing can wake the loop", table)


def external_wakers() -> Iterator[str]:
    """Yield a str for each external waker there is, those that are looked up fastest first."""
    of_ctrl_c = signal.getsignal(signal.SIGINT)
    if callable(of_ctrl_c) and not any(ends_the_program(of_ctrl_c) for ends_the_program in ENDING):
        yield "the handler of SIGINT"
    if _threads() - len(idle := [*idle_threads(), *WATCHING_THREADS]) > 1:
        here = threading.get_ident()
        others = [thread for thread in threading.enumerate() if thread.ident != here and thread not in idle]
        names = ", ".join(repr(thread.name) for thread in others)
        yield f"another thread ({names or 'not one of Python'})"
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        if number != signal.SIGINT and callable(handler) and handler not in WATCHING_HANDLERS:
            yield f"the handler of {getattr(number, 'name', number)}"  # real-time signals have no names


def _threads() -> int:
    """How many threads this process has; on systems without /proc only those that Python knows."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return len(sys._current_frames())
