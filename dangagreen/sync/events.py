"""Event, Condition, Barrier: what is waited for, in the shape of `threading`'s.

Rules: those who wait go on in the order in which they came; one that was told to go on does, whatever happens
meanwhile. `set`, `notify`, `abort` and the like never park. What does not belong here: what is taken (that is locks).
"""

from __future__ import annotations

from collections.abc import Callable
from threading import BrokenBarrierError as BrokenBarrierError
from types import TracebackType

from dangagreen import checks
from dangagreen.green.parking import checkpoint, parks
from dangagreen.green.sched import WaitKind, wake
from dangagreen.sync.locks import Lock, Mutex, RLock, caller, words
from dangagreen.sync.wait_queue import WaitQueue


class Event(WaitQueue):
    """A flag to wait for, not set at first."""

    __slots__ = ("_set",)

    def __init__(self) -> None:
        super().__init__()
        self._set = False

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._set

    ready = property(is_set)

    def set(self) -> None:
        """Set the flag, and have everybody who waits for it go on."""
        self.loop.check_thread("Event.set")
        self._set = True
        while self._line:
            self._serve()

    def clear(self) -> None:
        """Take the flag back. Those who were waiting when it was set go on nevertheless."""
        self.loop.check_thread("Event.clear")
        self._set = False

    @parks
    def wait(self, timeout: float | None = None) -> bool:
        """Parks until the flag is set, at most for `timeout` seconds. False if that time has passed."""
        task = checkpoint(self.loop, "Event.wait")
        if timeout is not None:
            timeout = checks.seconds("the timeout of wait", timeout)
        return self._set or bool(self._wait_in_line(task, _WAIT, timeout))

    _watch = WaitQueue._join
    _unwatch = WaitQueue._leave

    def __repr__(self) -> str:
        return f"<{self._name()} at {id(self):#x}: {'set' if self._set else 'unset'}>"


class Condition(WaitQueue):
    """To wait for a change of what a lock guards: by default an RLock of its own."""

    __slots__ = ("_lock",)

    def __init__(self, lock: Lock | RLock | None = None) -> None:
        """Raises TypeError for a lock of another kind, such as threading's, which would stop the loop."""
        if not (lock is None or isinstance(lock, Mutex)):
            raise TypeError(f"Condition needs a Lock or an RLock of dangagreen's, not {lock!r}")
        super().__init__()
        self._lock: Mutex = RLock() if lock is None else lock

    @parks
    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Parks until the lock is the caller's: see there."""
        return self._lock.acquire(blocking, timeout)

    def release(self) -> None:
        """Release the lock."""
        self._lock.release()

    @parks
    def wait(self, timeout: float | None = None) -> bool:
        """Parks until it is notified, at most for `timeout` seconds, the lock released, and until it has that again.

        False if the time has passed. However it ends, cancelled or not, the caller has the lock then. Raises
        RuntimeError unless the caller holds the lock.
        """
        task = checkpoint(self.loop, "Condition.wait")
        if timeout is not None:
            timeout = checks.seconds("the timeout of wait", timeout)
        self._check_owned("wait")
        depth = self._lock._release_save()
        notified: list[int] = []
        try:
            notified = self._wait_in_line(task, _WAIT, timeout)
        finally:
            try:
                self._lock._acquire_restore(task, depth)
            except BaseException:
                if notified:
                    self._pass_on()
                raise
        return bool(notified)

    @parks
    def wait_for(self, predicate: Callable[[], object], timeout: float | None = None) -> bool:
        """Parks until `predicate()` is true, asking at each notification, at most for `timeout` seconds.

        Answers whether it is true. Raises RuntimeError unless the caller holds the lock.
        """
        checkpoint(self.loop, "Condition.wait_for")
        checks.function("wait_for", predicate)
        if timeout is not None:
            timeout = checks.seconds("the timeout of wait_for", timeout)
        self._check_owned("wait_for")
        clock = self.loop.clock
        deadline = None if timeout is None else clock() + timeout
        while not (answer := _is_true(predicate)):
            left = None if deadline is None else deadline - clock()
            if left is not None and left <= 0:
                break
            self.wait(left)
        return answer

    def notify(self, n: int = 1) -> None:
        """Have the first n who wait go on, once they get the lock. Raises RuntimeError unless the caller holds it."""
        n = checks.count("the n of notify", n, None)
        self._check_owned("notify")
        for _ in range(min(n, self._waiting)):
            self._serve()

    def notify_all(self) -> None:
        """Have all who wait go on, one after the other. Raises RuntimeError unless the caller holds the lock."""
        self.notify(self._waiting)

    @parks
    def __enter__(self) -> bool:
        """Parks until the lock is the caller's."""
        return self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None or self._lock._is_owned():  # reset() of the loop may have ended a wait without the lock
            self._lock.release()

    def _pass_on(self) -> None:
        if self._line:
            self._serve()

    def _check_owned(self, call: str) -> None:
        self.loop.check_thread(f"Condition.{call}")
        if not self._lock._is_owned():
            who = words(caller(self.loop))
            raise RuntimeError(f"{who} called {call} of {self!r} without holding the lock")

    def __repr__(self) -> str:
        return f"<{self._name()} at {id(self):#x}: {self._lock!r}, {self._waiting} waiting>"


class Barrier(WaitQueue):
    """Where `parties` wait for each other, time and again."""

    __slots__ = ("_acting", "_action", "_broken", "_parties", "_timeout")

    def __init__(self, parties: int, action: Callable[[], object] | None = None, timeout: float | None = None) -> None:
        """The last who comes calls `action()`, before the others go on. `timeout`, in seconds, is for each `wait`.

        Raises ValueError for less than one party.
        """
        parties = checks.count("a Barrier needs at least one party: parties", parties, 1)
        if timeout is not None:
            timeout = checks.seconds("the timeout of a Barrier", timeout)
        if action is not None:
            checks.function("Barrier", action)
        super().__init__()
        self._parties = parties
        self._action = action
        self._timeout = timeout
        self._broken = False
        self._acting: Event | None = None  # while the action runs: set at its end

    @property
    def parties(self) -> int:
        """How many have to come."""
        return self._parties

    @property
    def n_waiting(self) -> int:
        """How many have come."""
        return self._waiting

    @property
    def broken(self) -> bool:
        """Whether nobody can wait here until `reset()`."""
        return self._broken

    @parks
    def wait(self, timeout: float | None = None) -> int:
        """Parks until all parties have come; the number of this one, 0 for the first.

        Raises BrokenBarrierError, to all who wait, when one of them has waited for `timeout` seconds, or the action has
        raised, or by `abort()` and `reset()`. One that is cancelled has not come: the others go on waiting.
        """
        task = checkpoint(self.loop, "Barrier.wait")
        timeout = self._timeout if timeout is None else checks.seconds("the timeout of wait", timeout)
        while self._acting is not None:  # this one belongs to the next round
            self._acting.wait()
        if self._broken:
            raise self._broken_error()
        if self._waiting + 1 < self._parties:
            place = self._wait_in_line(task, _WAIT, timeout)
            if not place:
                self.abort()
                raise self._broken_error()
            return place[0]
        if self._action is not None:
            self._act(self._action)
        for number in range(self._waiting):
            self._serve(number)
        return self._parties - 1

    def abort(self) -> None:
        """Break the barrier: everybody who waits, or comes later, gets BrokenBarrierError."""
        self.loop.check_thread("Barrier.abort")
        self._broken = True
        self._turn_away()

    def reset(self) -> None:
        """Begin anew: the barrier is whole; everybody who waits gets BrokenBarrierError."""
        self.loop.check_thread("Barrier.reset")
        self._turn_away()
        self._broken = False

    def _act(self, action: Callable[[], object]) -> None:
        acting = self._acting = Event()
        try:
            checks.outcome("the action of a barrier", action())
        except BaseException:
            self.abort()
            raise
        finally:
            self._acting = None
            acting.set()
        if self._broken:
            raise self._broken_error()

    def _turn_away(self) -> None:
        for task in list(self._line or ()):
            wake(task, self._broken_error())

    def _broken_error(self) -> BrokenBarrierError:
        return BrokenBarrierError(f"{self!r} was aborted, was reset, or took somebody too long")

    def __repr__(self) -> str:
        state = "broken" if self._broken else f"waiters={self._waiting}/{self._parties}"
        return f"<{self._name()} at {id(self):#x}: {state}>"


def _is_true(predicate: Callable[[], object]) -> bool:
    answer = predicate()
    checks.outcome("the predicate of wait_for", answer)
    return bool(answer)


_WAIT = WaitKind("wait", WaitQueue._leave)
