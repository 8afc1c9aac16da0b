"""Event, Condition, Barrier: what is waited for, in the shape of `threading`'s.

Rules: waiters are woken in FIFO order, by a wait queue; one that was woken goes on, whatever happens before it runs: a
`clear()` right after `set()` loses nobody. `set`, `notify`, `abort` and `reset` never park. What does not belong here:
what is acquired (locks).
"""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Callable
from threading import BrokenBarrierError as BrokenBarrierError
from types import TracebackType

from dangagreen import checks
from dangagreen.errors import ForeignThreadError
from dangagreen.green.from_thread import in_loop
from dangagreen.green.parking import checkpoint
from dangagreen.green.waiters import Waiter, WaitKind, wake
from dangagreen.parks import parks
from dangagreen.sync.locks import Lock, Mutex, RLock, caller, owner_name
from dangagreen.sync.wait_queue import WaitQueue


class Event(WaitQueue):
    """A flag that tasks wait for, and other threads, which block meanwhile; not set at first."""

    __slots__ = {"_set": "Whether the flag is set."}

    def __init__(self) -> None:
        super().__init__()
        self._set = False

    def is_set(self) -> bool:
        """Whether the flag is set."""
        return self._set

    ready = property(is_set)

    def set(self) -> None:
        """Set the flag and wake every task that waits for it. Never parks. Another thread has the loop do it, soon."""
        if get_ident() != self.loop.thread and not self.loop.closed:
            return self.loop.call_soon_threadsafe(self.set)
        self._set = True
        while self._waiting:
            self._grant()
        return None

    def clear(self) -> None:
        """Clear the flag. Tasks that were woken by a `set()` before go on nevertheless. Never parks: as `set`."""
        if get_ident() != self.loop.thread and not self.loop.closed:
            return self.loop.call_soon_threadsafe(self.clear)
        self._set = False
        return None

    @parks
    def wait(self, timeout: float | None = None) -> bool:
        """Parks until the flag is set. Returns True; False after `timeout` seconds (None is no limit).

        In another thread it blocks that thread.
        """
        try:
            task: Waiter | None = checkpoint(self.loop, "Event.wait")
        except ForeignThreadError:
            task = None
        if task is None:  # not in the handler: what is raised there would have that error as its context
            return self._wait_in_thread(timeout)
        if timeout is not None:
            timeout = checks.seconds("the timeout of wait", timeout)
        return self._set or bool(self._wait_turn(task, _WAIT, timeout))

    def _wait_in_thread(self, timeout: float | None) -> bool:
        if timeout is not None:
            timeout = checks.seconds("the timeout of wait", timeout)
        try:
            return self._set or bool(in_loop(self.loop, self.wait, timeout=timeout))
        except TimeoutError:
            return self._set

    _watch = WaitQueue._join
    _unwatch = WaitQueue._leave

    def __repr__(self) -> str:
        return f"<{self._name()} at {id(self):#x}: {'set' if self._set else 'unset'}>"


class Condition(WaitQueue):
    """A condition variable: tasks wait for a change of what a lock guards, by default an RLock of its own."""

    __slots__ = {"_lock": "The lock, which `wait` releases and acquires again."}

    def __init__(self, lock: Lock | RLock | None = None) -> None:
        """Raises TypeError for another kind of lock, such as one of `threading`, which would block the loop."""
        if not (lock is None or isinstance(lock, Mutex)):
            raise TypeError(f"Condition needs a Lock or an RLock of dangagreen's, not {lock!r}")
        super().__init__()
        self._lock: Mutex = RLock() if lock is None else lock

    @parks
    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Parks until its lock is acquired: see `Lock.acquire`."""
        return self._lock.acquire(blocking, timeout)

    def release(self) -> None:
        """Release its lock: see `Lock.release`."""
        self._lock.release()

    def locked(self) -> bool:
        """Whether its lock is held."""
        return self._lock.locked()

    @parks
    def wait(self, timeout: float | None = None) -> bool:
        """Parks until notified, with the lock released, and then until the lock is acquired again.

        Returns True if it was notified, False after `timeout` seconds (None is no limit). The caller holds the lock
        again however the wait ends, by a cancellation too. Raises RuntimeError unless the caller holds the lock.
        """
        task = checkpoint(self.loop, "Condition.wait")
        if timeout is not None:
            timeout = checks.seconds("the timeout of wait", timeout)
        self._check_owned("wait")
        depth = self._lock._release_save()
        notified: list[int] = []
        try:
            notified = self._wait_turn(task, _WAIT, timeout)
        finally:
            try:
                self._lock._acquire_restore(task, depth)
            except BaseException:
                if notified:
                    self._grant_next()
                raise
        return bool(notified)

    @parks
    def wait_for(self, predicate: Callable[[], object], timeout: float | None = None) -> bool:
        """Parks until `predicate()` is true, calling it after each notification, at most for `timeout` seconds.

        Returns the last answer, as a bool. Raises RuntimeError unless the caller holds the lock.
        """
        checkpoint(self.loop, "Condition.wait_for")
        checks.function("wait_for", predicate)
        if timeout is not None:
            timeout = checks.seconds("the timeout of wait_for", timeout)
        self._check_owned("wait_for")
        clock = self.loop.clock
        deadline = None if timeout is None else clock() + timeout
        while not (answer := self._holds(predicate)):
            left = None if deadline is None else deadline - clock()
            if left is not None and left <= 0:
                break
            self.wait(left)
        return answer

    def notify(self, n: int = 1) -> None:
        """Wake the first n waiters; each goes on when it has acquired the lock. Never parks.

        Raises RuntimeError unless the caller holds the lock.
        """
        n = checks.count("the n of notify", n, None)
        self._check_owned("notify")
        for _ in range(min(n, self._waiting)):
            self._grant()

    def notify_all(self) -> None:
        """Wake all waiters; each goes on when it has acquired the lock. Raises like `notify`."""
        self.notify(self._waiting)

    @parks
    def __enter__(self) -> bool:
        """Parks until the lock is acquired."""
        return self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None or self._lock._is_owned():  # reset() of the loop may end a wait() that has no lock again
            self._lock.release()

    def _grant_next(self) -> None:
        if self._waiting:
            self._grant()

    def _holds(self, predicate: Callable[[], object]) -> bool:
        """What the predicate of `wait_for` answers, as a bool. Raises TypeError for a coroutine or a generator."""
        answer = predicate()
        checks.outcome("the predicate of wait_for", answer)
        return bool(answer)

    def _check_owned(self, call: str) -> None:
        """Raise RuntimeError unless the caller holds the lock."""
        self.loop.check_thread(f"Condition.{call}")
        if not self._lock._is_owned():
            who = owner_name(caller(self.loop))
            raise RuntimeError(f"{who} called {call} of {self!r} without holding the lock")

    def __repr__(self) -> str:
        return f"<{self._name()} at {id(self):#x}: {self._lock!r}, {self._waiting} waiting>"


class Barrier(WaitQueue):
    """A point at which `parties` tasks wait for each other, round after round."""

    __slots__ = {
        "_acting": "While the action runs: an Event that is set at its end, for those of the next round; else None.",
        "_action": "What the last one of a round calls, or None.",
        "_broken": "Whether every `wait` raises BrokenBarrierError, until `reset()`.",
        "_parties": "How many tasks a round has.",
        "_timeout": "The default timeout of `wait`, in seconds; None is no limit.",
    }

    def __init__(self, parties: int, action: Callable[[], object] | None = None, timeout: float | None = None) -> None:
        """The last task of a round calls `action()` before the others go on. `timeout`: default of `wait`, in seconds.

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
        self._acting: Event | None = None

    @property
    def parties(self) -> int:
        """How many tasks a round has."""
        return self._parties

    @property
    def n_waiting(self) -> int:
        """How many tasks wait in this round."""
        return self._waiting

    @property
    def broken(self) -> bool:
        """Whether it is broken: every `wait` raises BrokenBarrierError until `reset()`."""
        return self._broken

    @parks
    def wait(self, timeout: float | None = None) -> int:
        """Parks until all parties wait. Returns the number of this one in its round, 0 for the first.

        Raises BrokenBarrierError in all who wait when one of them has waited for `timeout` seconds, when the action
        has raised, and by `abort()` and `reset()`. A task that is cancelled leaves: the others wait for another one.
        """
        task = checkpoint(self.loop, "Barrier.wait")
        timeout = self._timeout if timeout is None else checks.seconds("the timeout of wait", timeout)
        while self._acting is not None:  # this one belongs to the next round
            self._acting.wait()
        if self._broken:
            raise self._broken_error()
        if self._waiting + 1 < self._parties:
            slot = self._wait_turn(task, _WAIT, timeout)
            if not slot:
                self.abort()
                raise self._broken_error()
            return slot[0]
        if self._action is not None:
            self._act(self._action)
        for number in range(self._waiting):
            self._grant(number)
        return self._parties - 1

    def abort(self) -> None:
        """Break the barrier: `wait` raises BrokenBarrierError, now and later, until `reset()`. Never parks."""
        self.loop.check_thread("Barrier.abort")
        self._broken = True
        self._break_waits()

    def reset(self) -> None:
        """Begin an empty round, with the barrier whole; tasks that wait get BrokenBarrierError. Never parks."""
        self.loop.check_thread("Barrier.reset")
        self._break_waits()
        self._broken = False

    def _act(self, action: Callable[[], object]) -> None:
        """Call the action. If it raises, or breaks the barrier, the barrier is broken, and this raises."""
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

    def _break_waits(self) -> None:
        """Have BrokenBarrierError raised in all who wait."""
        for task in self._everybody():
            wake(task, self._broken_error())

    def _broken_error(self) -> BrokenBarrierError:
        return BrokenBarrierError(f"{self!r} was aborted or reset, or a wait timed out")

    def __repr__(self) -> str:
        state = "broken" if self._broken else f"waiters={self._waiting}/{self._parties}"
        return f"<{self._name()} at {id(self):#x}: {state}>"


_WAIT = WaitKind("wait", WaitQueue._leave)
