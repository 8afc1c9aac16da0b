"""Lock, RLock, Semaphore, BoundedSemaphore: what is taken and given back, in the shape of `threading`'s.

Rules: fair, by a wait queue: while a task waits nothing can be acquired, and what is released is granted to the first
waiter, so that nobody overtakes. `release` and `acquire(False)` never park. What does not belong here: what is waited
for and not taken (events).
"""

from __future__ import annotations

from _thread import TIMEOUT_MAX, get_ident
from types import TracebackType

from dangagreen import checks
from dangagreen.green.parking import check_present, checkpoint, current_waiter
from dangagreen.green.sched import top_level
from dangagreen.green.scopes import shield
from dangagreen.green.task_table import called
from dangagreen.green.waiters import Waiter, WaitKind
from dangagreen.loop.loop import Loop
from dangagreen.parks import parks
from dangagreen.sync.wait_queue import WaitQueue

_ONE = 1  # the default of release(), told by identity: an equal int that is another object is merely checked as well


class _Acquirable(WaitQueue):
    """Base class of what is acquired and released: a lock, or one of a semaphore's permits."""

    __slots__ = ()

    def _acquire(self, blocking: bool, timeout: float | None) -> bool:
        """Parks until it is acquired, if `blocking`. Returns whether it was; False after `timeout` seconds."""
        if blocking:
            task = checkpoint(self.loop, "acquire")
            return self._try_acquire(task) or bool(self._wait_turn(task, _ACQUIRE, timeout))
        if timeout is not None:
            raise ValueError("acquire(blocking=False) does not wait: a timeout makes no sense there")
        self.loop.check_thread("acquire")
        return self._try_acquire(caller(self.loop))

    def _try_acquire(self, taker: Waiter | Loop) -> bool:
        """Acquire it for the taker if it is free. Returns whether it was."""
        raise NotImplementedError


class Mutex(_Acquirable):
    """Base class of locks: mutual exclusion, and who holds it."""

    __slots__ = {
        "_depth": "How many times its owner has acquired it beside the first; 0 for a plain Lock.",
        "_owner": "The task, or top-level code, that holds it; the loop stands for all callbacks; None: it is free.",
    }

    def __init__(self) -> None:
        super().__init__()
        self._owner: Waiter | Loop | None = None
        self._depth = 0

    @parks
    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Parks until the lock is acquired. Returns True; False after `timeout` seconds (-1 is no limit).

        `acquire(False)` never parks, works in callbacks too, and returns False if the lock is held. Raises ValueError
        for another negative timeout, or a timeout with `blocking=False`; OverflowError above `threading.TIMEOUT_MAX`.
        """
        loop = self.loop
        task: Waiter | None = loop.current
        if (
            self._owner is None
            and task is not None
            and task.interrupt is None
            and timeout == -1
            and blocking
            and get_ident() == loop.thread
        ):
            for _ in loop.budget:
                self._owner = task
                return True
        return self._acquire(
            blocking, None if timeout == -1 else _in_range(checks.seconds("the timeout of acquire", timeout))
        )

    def release(self) -> None:
        """Release the lock, and grant it to the first waiter, if there is one. Never parks.

        Raises RuntimeError if the lock is not held; an RLock also if the caller is not its owner.
        """
        owner = self._owner
        if (
            owner is not None
            and owner is self.loop.current
            and not self._waiters
            and not self._depth
            and get_ident() == self.loop.thread
        ):
            self._owner = None
        else:
            self._release()

    def locked(self) -> bool:
        """Whether the lock is held."""
        return self._owner is not None

    @property
    def holder(self) -> Waiter | None:
        """The task, or top-level code, that holds the lock; None if it is free, or a callback holds it."""
        return self._owner if isinstance(self._owner, Waiter) else None

    @parks
    def __enter__(self) -> bool:
        """Parks until the lock is acquired."""
        loop = self.loop
        task: Waiter | None = loop.current
        if self._owner is None and task is not None and task.interrupt is None and get_ident() == loop.thread:
            for _ in loop.budget:
                self._owner = task
                return True
        return self._acquire(True, None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        owner = self._owner
        if (
            owner is not None
            and owner is self.loop.current
            and not self._waiters
            and not self._depth
            and get_ident() == self.loop.thread
        ):
            self._owner = None  # `release`, inlined: a call would cost as much again
        else:
            self._release()

    def _release(self) -> None:
        self.loop.check_thread("release")
        if self._owner is None:
            raise RuntimeError(f"release of {self!r}, which is not held")
        self._grant_next()

    def _try_acquire(self, taker: Waiter | Loop) -> bool:
        if self._owner is not None:
            return False
        self._owner = taker
        return True

    def _grant_next(self) -> None:
        self._owner = self._grant() if self._waiting else None

    # -- for Condition

    def _is_owned(self) -> bool:
        return self._owner is not None and self._owner is caller(self.loop)

    def _release_save(self) -> int:
        """Release it entirely, whatever its depth. Returns that, for `_acquire_restore`.

        Raises RuntimeError unless the caller holds it.
        """
        if not self._is_owned():
            raise RuntimeError(f"{owner_name(caller(self.loop))} does not hold {self!r}")
        depth, self._depth = self._depth, 0
        self._grant_next()
        return depth

    def _acquire_restore(self, task: Waiter, depth: int) -> None:
        """Parks until the task has the lock again, at this depth; a cancellation does not interrupt that.

        Only a reset of the loop, or Ctrl-C in top-level code, does.
        """
        if not self._try_acquire(task):
            with shield():
                ctrl_c, task.interrupt = task.interrupt, None  # it came with the wake: raised at the task's next wait
                try:
                    self._wait_turn(task, _REGAIN, None)
                finally:
                    task.interrupt = task.interrupt or ctrl_c
        self._depth = depth

    def __repr__(self) -> str:
        state = "unlocked" if self._owner is None else "locked"
        return f"<{state} {self._name()} object{self._owner_in_words()} at {id(self):#x}>"

    def _owner_in_words(self) -> str:
        return "" if self._owner is None else f" owner={owner_name(self._owner)}"


class Lock(Mutex):
    """A mutual-exclusion lock for tasks, top-level code and callbacks of one loop. Any of them may release it."""

    __slots__ = ()


class RLock(Mutex):
    """A re-entrant lock: its owner may acquire it again, and has to release it as many times.

    All callbacks together count as one owner, top-level code as another.
    """

    __slots__ = ()

    def _release(self) -> None:
        self.loop.check_thread("release")
        if not self._is_owned():
            raise RuntimeError(f"{owner_name(caller(self.loop))} cannot release {self!r}: it does not hold it")
        if self._depth:
            self._depth -= 1
        else:
            self._grant_next()

    def _try_acquire(self, taker: Waiter | Loop) -> bool:
        if self._owner is taker:
            self._depth += 1
            return True
        return super()._try_acquire(taker)

    def _owner_in_words(self) -> str:
        return f"{super()._owner_in_words()} count={0 if self._owner is None else self._depth + 1}"


class Semaphore(_Acquirable):
    """A counter of permits, `value` at first: `acquire` takes one, `release` gives back."""

    __slots__ = {"_value": "How many permits are free."}

    def __init__(self, value: int = 1) -> None:
        """Raises ValueError for a negative value."""
        value = checks.count(f"the value of a {type(self).__name__}", value)
        super().__init__()
        self._value = value

    @parks
    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Parks until a permit is free, and takes it. Returns True; False after `timeout` seconds (None is no limit).

        `acquire(False)` never parks, works in callbacks too, and returns False if none is free. Raises ValueError for a
        timeout with `blocking=False`.
        """
        loop = self.loop
        task: Waiter | None = loop.current
        if (
            self._value
            and task is not None
            and task.interrupt is None
            and timeout is None
            and blocking
            and get_ident() == loop.thread
        ):
            for _ in loop.budget:
                self._value -= 1
                return True
        return self._acquire(blocking, None if timeout is None else checks.seconds("the timeout of acquire", timeout))

    def release(self, n: int = _ONE) -> None:
        """Give n permits back, to waiting tasks first. Never parks. Raises ValueError for n below 1."""
        loop = self.loop
        if get_ident() != loop.thread:
            loop.check_thread("Semaphore.release")
        if n is not _ONE:
            n = checks.count("the n of release", n, 1)
        while n and self._waiting:
            self._grant()
            n -= 1
        self._value += n

    __enter__ = acquire

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def _try_acquire(self, taker: Waiter | Loop) -> bool:
        if not self._value:
            return False
        self._value -= 1
        return True

    def _grant_next(self) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<{self._name()} at {id(self):#x}: value={self._value}>"


class BoundedSemaphore(Semaphore):
    """A semaphore that never has more permits than at first."""

    __slots__ = {"_initial": "How many permits there were at first, and are at most."}

    def __init__(self, value: int = 1) -> None:
        """Raises ValueError for a negative value."""
        super().__init__(value)
        self._initial = self._value

    def release(self, n: int = _ONE) -> None:
        """Give n permits back. Raises ValueError, and gives back none, if fewer than n are taken or n is below 1."""
        if n is not _ONE:
            n = checks.count("the n of release", n, 1)
        if self._value + n > self._initial:
            raise ValueError(f"release of {self!r}: more permits than were taken")
        super().release(n)

    def __repr__(self) -> str:
        return f"<{self._name()} at {id(self):#x}: value={self._value}/{self._initial}>"


def caller(loop: Loop) -> Waiter | Loop:
    """Who makes this call: a task, top-level code, or the loop, which stands for its callbacks."""
    task: Waiter | None = loop.current
    if task is not None:
        return task
    if not loop.running:
        check_present(loop, "the use")
    return current_waiter(loop) or (loop if loop.running else top_level(loop))


def owner_name(owner: Waiter | Loop | None) -> str:
    """An owner in an error message or a `repr`."""
    if isinstance(owner, Waiter):
        return f"{owner.name!r}, which has ended," if owner.done else repr(called(owner))
    return "a callback"


def _in_range(timeout: float) -> float:
    """The timeout. Raises ValueError if it is negative, OverflowError above `threading.TIMEOUT_MAX`."""
    if timeout < 0:
        raise ValueError(f"acquire(timeout={timeout}): cannot be negative; -1 is no limit")
    if timeout > TIMEOUT_MAX:
        raise OverflowError(f"acquire(timeout={timeout}): more than {TIMEOUT_MAX} seconds")
    return timeout


_ACQUIRE = WaitKind("acquire", WaitQueue._leave)
_REGAIN = WaitKind("wait", WaitQueue._leave, "{0}, to have {1!r} again")
