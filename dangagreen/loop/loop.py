"""The event loop: run, stop, reset, close; and the loop of each thread.

Rules: a loop belongs to one thread at a time; KeyboardInterrupt and SystemExit leave `run()`; what was installed for a
run is put back after it. What does not belong here: the turn, and a forked child.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
import weakref
from _thread import get_ident
from collections.abc import Callable
from itertools import count
from typing import Any

from dangagreen import checks
from dangagreen.errors import CannotParkError
from dangagreen.frames import LOOPS
from dangagreen.loop.collecting import is_collecting, watch_collections
from dangagreen.loop.forking import Forking
from dangagreen.loop.pollers import LONGEST_WAIT, Poller, available_pollers, check_poller
from dangagreen.loop.profiling import Profile
from dangagreen.loop.sigint import Interrupts
from dangagreen.loop.turn import latest
from dangagreen.loop.wakeup import WakeupPair

_KEPT = 4 * 1024 * 1024  # bytes: blocks up to this size are taken from, and stay in, the process's own memory
# Until a larger block has been freed, glibc asks the kernel for each one above 128 KiB and gives it back, with page
# faults for all that is written to it. After this, to receive with n = 256 KiB takes 7 us, not 20. Once is enough
# for all threads, and in each it would leave 4 MiB.
bytes(_KEPT)


class Loop(Forking):
    """An event loop. Each thread has one, made at first use (`current_loop()`); tests make their own.

    `clock` returns seconds and never goes back; `poller` is one of `available_pollers()`, or has the same methods.
    `on_error` may be assigned, a function of an `ErrorContext`. A loop belongs to the thread that made it or last ran
    it: calls that change registrations, queues or the schedule raise ForeignThreadError in another thread.
    """

    __slots__ = {
        "__weakref__": "Weak references to it work.",
        "_outer": "The thread's current loop before `with` this one.",
        "_resolver": "The `resolver`.",
    }

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, poller: Poller | None = None) -> None:
        checks.function("Loop(clock=...)", clock)
        if poller is None:
            poller = available_pollers()[0]()
        else:
            check_poller("Loop", poller)
        super().__init__(clock, poller)
        self._outer: Loop | None = None
        self._resolver: Any = socket
        _loops.add(self)
        for watch in _watchers:
            watch(self)

    # -- running

    def run(self, until: Callable[[], bool] | None = None) -> None:
        """Run turns until `stop()` is called, a post-loop callback returns something false, or `until()` is true.

        Meanwhile this is the thread's current loop. In the main thread Ctrl-C raises KeyboardInterrupt, at the latest
        at the end of the turn, unless the program handles SIGINT itself. Raises Deadlock when all tasks wait and
        nothing can wake the loop; if a thread or a signal might, logs one warning after `deadlock_seconds` instead
        (None: neither). Raises RuntimeError if it is running, or was closed, or inside no_parking().
        """
        if until is not None:
            checks.function("Loop.run", until)
        if self.running:
            raise RuntimeError("this loop is running already: callbacks and tasks need not, and cannot, start it")
        if self.closed:
            self._check_open("run")
        if is_collecting():
            raise CannotParkError("a loop cannot run inside a garbage collection: the collector would be off meanwhile")
        if self.green is not None and self.green.no_parking is not None:
            raise RuntimeError("this loop cannot run inside no_parking(), in which nothing else is to run")
        frame = sys._getframe()
        with contextlib.ExitStack() as undo:
            undo.callback(LOOPS.discard, frame)
            LOOPS.add(frame)
            del frame  # or it would hold itself, and all that is here, by this name
            wakeup_pair = self.begin(undo)
            interrupts = Interrupts(self.stop)
            undo.callback(interrupts.restore)
            if (woke_before := wakeup_pair.wake_at_signals()) is not None:
                undo.callback(signal.set_wakeup_fd, woke_before)
            numbers = count(self.turns + 1)
            for self.turns in numbers:  # `self.turns += 1` in each turn takes twice as long
                if not self._turn() or (until is not None and until()):
                    break
        if interrupts.pending:
            raise KeyboardInterrupt

    def begin(self, undo: contextlib.ExitStack) -> WakeupPair:
        """Have the loop run in this thread and greenlet until `undo` is closed. The caller makes the turns."""
        undo.push(self._end_child)
        undo.callback(self._close_all)
        undo.callback(self.end_turn)
        undo.callback(setattr, here, "loop", here.loop)
        undo.callback(setattr, self, "running", False)
        self._begin_run()
        self.thread = get_ident()
        self.running = True
        here.loop = self
        if (pair := self.wakeup_pair) is None:
            pair = self.wakeup_pair = WakeupPair(self)
        if self.green is not None:
            self.green.adopt()
        return pair

    def turn(self) -> bool:
        """Make one turn, between `begin` and the end of its `undo`. Returns whether the loop is to go on: see `run`."""
        LOOPS.add(sys._getframe())
        self.turns += 1
        try:
            return self._turn()
        finally:
            self._forget_stop()
            LOOPS.discard(sys._getframe())

    def set_loop_timeout(self, milliseconds: float) -> None:
        """Set the longest time that a turn may wait for events: -1 is no limit, 0 does not wait."""
        seconds = checks.seconds("the loop timeout", milliseconds, "milliseconds") / 1000
        self.loop_timeout = None if seconds < 0 else min(seconds, LONGEST_WAIT)

    @property
    def resolver(self) -> Any:
        """Looks up host names for `connect`: an object with `getaddrinfo(host, port, family, type)`. Assignable.

        By default the module `socket`. The function is called in a thread, by as many at a time as the attribute
        `threads` says (8 without one). With a true attribute `parks` it is called in a task instead, and may park.
        """
        return self._resolver

    @resolver.setter
    def resolver(self, value: Any) -> None:
        if not callable(getattr(value, "getaddrinfo", None)):
            raise TypeError(f"loop.resolver needs an object with a method getaddrinfo, not {checks.shown(value)}")
        checks.function("loop.resolver", value.getaddrinfo)
        checks.count("the attribute threads of a resolver", getattr(value, "threads", 1), 1)
        self._resolver = value

    # -- the end

    def reset(self) -> None:
        """Close all sockets, end all tasks, cancel all timers, drop all callbacks. RuntimeError while it is running."""
        if self.running:
            raise RuntimeError("reset() of a running loop: stop() it first")
        self._abandon_all()
        if self.green is not None:
            self.green.reset()
            self._abandon_all()  # what tasks made while they ended
        self.timers.clear()
        self.onlookers.clear()
        self._drop_pending()
        self._fail_thread_calls("the loop was reset")
        self.loop_timeout = self.post_loop_callback = None
        self.drop_instrument(self.measurements)
        self.measurements = Profile()

    def close(self) -> None:
        """`reset()`, and close the poller. Calls that need the loop raise RuntimeError from then on."""
        if not self.closed:
            self._close()
            if here.loop is self:
                here.loop = None

    def _close(self) -> None:
        self.reset()
        ends, self.wakeup_pair = self.wakeup_pair, None
        if ends is not None:
            ends.close()
        self.poller.close()
        self.error_log.tell_left_out()
        self._set_instruments(())
        self._close_schedule()
        self._fail_thread_calls("the loop was closed")  # after that: none is queued any more
        _loops.discard(self)

    def close_with_thread(self) -> None:
        """Have the loop closed at the end of this thread, if it belongs to it then. Not for the main thread."""
        if get_ident() != threading.main_thread().ident:
            if here.end is None:
                here.end = _End()
            here.end.loops.add(self)

    def __enter__(self) -> Loop:
        """Make this the thread's current loop for a block, at whose end it is closed."""
        if self.closed:
            self._check_open("with")
        self._outer = here.loop
        here.loop = self
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
        here.loop = self._outer


class _End:
    """Closes a thread's loops at its end, by its `__del__`: it is referred to by thread-local storage alone.

    That is the last moment at which greenlets of the thread can be switched to: later they can neither be resumed nor
    freed.
    """

    __slots__ = {"loops": "The loops to close, as long as they belong to the thread."}

    def __init__(self) -> None:
        self.loops: weakref.WeakSet[Loop] = weakref.WeakSet()

    def __del__(self) -> None:
        thread = get_ident()
        for loop in [] if sys.is_finalizing() else list(self.loops):
            if loop.thread == thread:
                _ending[thread] = loop
                try:
                    loop._close()
                finally:
                    del _ending[thread]


class _Here(threading.local):
    loop: Loop | None = None
    end: _End | None = None  # None in the main thread, whose end is that of the program

    def __setattr__(self, name: str, value: Any) -> None:
        threading.local.__setattr__(self, name, value)
        loop = self.loop
        latest.loop = loop if loop is not None and loop.running and loop.thread == get_ident() else None


here = _Here()  # `here.loop` is this thread's loop, if it has one
_loops: weakref.WeakSet[Loop] = weakref.WeakSet()
_watchers: list[Callable[[Loop], object]] = []
_ending: dict[int, Loop] = {}  # by threads that are ending: what is put into `here` by then would never be freed


def current_loop() -> Loop:
    """Return this thread's loop, made at first use, and closed when the thread ends."""
    loop = here.loop
    if loop is None:
        if _ending and (loop := _ending.get(get_ident())) is not None:
            return loop
        loop = here.loop = Loop()
        loop.close_with_thread()
    return loop


def all_loops() -> list[Loop]:
    """The loops of all threads that were not closed."""
    return list(_loops)


def watch_loops(watch: Callable[[Loop], object]) -> None:
    """Call `watch` with each loop that there is, and with each that is made from now on."""
    _watchers.append(watch)
    for_each_loop(watch)


def for_each_loop(call: Callable[[Loop], object]) -> None:
    """Call a function with each loop: now, or soon in the thread of one that runs in another thread just now."""
    for loop in all_loops():
        if loop.running and loop.thread != get_ident():
            with contextlib.suppress(RuntimeError):  # it was closed meanwhile
                loop.call_soon_threadsafe(call, loop)
        else:
            call(loop)


def loop_or_current(loop: Loop | None) -> Loop:
    """A `loop` argument, or this thread's loop for None. Raises TypeError for what is no loop."""
    return current_loop() if loop is None else certain_loop(loop)


def certain_loop(loop: Loop) -> Loop:
    """A `loop` argument that cannot be None. Raises TypeError for what is no loop."""
    if not isinstance(loop, Loop):
        raise TypeError(f"{checks.shown(loop)} is no Loop")
    return loop


def _collection(begins: bool) -> None:
    """A garbage collection begins, or is over, in this thread."""
    loop = here.loop
    if loop is not None and loop.green is not None:
        loop.green.collection(begins)


def _after_fork_in_child() -> None:
    latest.loop = None  # of a thread that is not here, perhaps
    for loop in list(_loops):
        loop._after_fork()


watch_collections(_collection)
os.register_at_fork(after_in_child=_after_fork_in_child)
