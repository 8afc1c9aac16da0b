"""Lock, RLock, Semaphore, BoundedSemaphore: what is taken and given back, in the shape of `threading`'s.

Rules: while anybody waits there is nothing to be had; what is given back goes to the first who waits, so that nobody
overtakes. `release` and `acquire(False)` never park. What does not belong here: what is waited for and not taken.
"""

from __future__ import annotations

from _thread import TIMEOUT_MAX, get_ident
from types import TracebackType

from dangagreen import checks
from dangagreen.green.parking import check_present, checkpoint, current_waiter, parks
from dangagreen.green.sched import Waiter, WaitKind, top_level
from dangagreen.green.scopes import shield
from dangagreen.loop.loop import Loop
from dangagreen.sync.wait_queue import WaitQueue

_ONE = 1  # what `is not` compares: another object of that value is checked, and does no harm


class _Acquirable(WaitQueue):
    """What is acquired and released."""

    __slots__ = ()

    def _acquire(self, blocking: bool, timeout: float | None) -> bool:
        """Parks, if it may, until it has been taken. False if it was not."""
        if blocking:
            task = checkpoint(self.loop, "acquire")
            return self._take(task) or bool(self._wait_in_line(task, _ACQUIRE, timeout))
        if timeout is not None:
            raise ValueError("acquire(blocking=False) does not wait: a timeout makes no sense there")
        self.loop.check_thread("acquire")
        return self._take(caller(self.loop))

    def _take(self, taker: Waiter | Loop) -> bool:
        """Take it, if it may be taken now."""
        raise NotImplementedError


class Mutex(_Acquirable):
    """A lock and who holds it: with a line, the one who was served last."""

    __slots__ = ("_depth", "_owner")

    def __init__(self) -> None:
        super().__init__()
        self._owner: Waiter | Loop | None = None  # the loop stands for its callbacks
        self._depth = 0  # how many times the owner has acquired it besides the first

    @parks
    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Parks until the lock is the caller's; True then. False after `timeout` seconds; -1 is no limit.

        `acquire(False)` does not wait, and is for callbacks as well. Raises ValueError for another negative timeout, or
        one beside `blocking=False`; OverflowError beyond `threading.TIMEOUT_MAX`.
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
        """Release the lock: it goes to the first who waits for it.

        Raises RuntimeError if nobody holds it; that of an RLock, unless the caller does.
        """
        owner = self._owner
        if (
            owner is not None
            and owner is self.loop.current
            and not self._line
            and not self._depth
            and get_ident() == self.loop.thread
        ):
            self._owner = None
        else:
            self._release()

    def locked(self) -> bool:
        """Whether anybody holds it."""
        return self._owner is not None

    @parks
    def __enter__(self) -> bool:
        """Parks until the lock is the caller's."""
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
            and not self._line
            and not self._depth
            and get_ident() == self.loop.thread
        ):
            self._owner = None  # `release` once more: to call it would cost as much again
        else:
            self._release()

    def _release(self) -> None:
        self.loop.check_thread("release")
        if self._owner is None:
            raise RuntimeError(f"release of {self!r}, which nobody holds")
        self._pass_on()

    def _take(self, taker: Waiter | Loop) -> bool:
        if self._owner is not None:
            return False
        self._owner = taker
        return True

    def _pass_on(self) -> None:
        self._owner = self._serve() if self._line else None

    # -- for Condition

    def _is_owned(self) -> bool:
        return self._owner is not None and self._owner is caller(self.loop)

    def _release_save(self) -> int:
        """Release it altogether; what it answers is for `_acquire_restore`."""
        if not self._is_owned():
            raise RuntimeError(f"{words(caller(self.loop))} does not hold {self!r}")
        depth, self._depth = self._depth, 0
        self._pass_on()
        return depth

    def _acquire_restore(self, task: Waiter, depth: int) -> None:
        """Parks until the lock is the task's again, cancelled or not; only what ends the task itself comes through."""
        if not self._take(task):
            with shield():
                ctrl_c, task.interrupt = task.interrupt, None  # it came when the task was woken: for its next wait
                try:
                    self._wait_in_line(task, _REGAIN, None)
                finally:
                    task.interrupt = task.interrupt or ctrl_c
        self._depth = depth

    def __repr__(self) -> str:
        owner = f" owner={words(self._owner)}" if self._owner is not None else ""
        return f"<{'locked' if owner else 'unlocked'} {self._name()} object{owner} at {id(self):#x}>"


class Lock(Mutex):
    """Held by one at a time. Anybody may release it."""

    __slots__ = ()


class RLock(Mutex):
    """Held by one at a time, who may acquire it again, and releases it as often. All callbacks count as one."""

    __slots__ = ()

    def _release(self) -> None:
        self.loop.check_thread("release")
        if not self._is_owned():
            raise RuntimeError(f"{words(caller(self.loop))} cannot release {self!r}: it does not hold it")
        if self._depth:
            self._depth -= 1
        else:
            self._pass_on()

    def _take(self, taker: Waiter | Loop) -> bool:
        if self._owner is taker:
            self._depth += 1
            return True
        return super()._take(taker)


class Semaphore(_Acquirable):
    """So many permits, `value` at first."""

    __slots__ = ("_value",)

    def __init__(self, value: int = 1) -> None:
        """Raises ValueError for a negative value."""
        value = checks.count(f"the value of a {type(self).__name__}", value)
        super().__init__()
        self._value = value

    @parks
    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Parks until there is a permit, and takes it; True then. False if `timeout` seconds have passed before.

        `acquire(False)` does not wait, and is for callbacks as well. Raises ValueError for a timeout beside it.
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
        """Give n permits back, to those who wait for one first. Raises ValueError for n below 1."""
        loop = self.loop
        if get_ident() != loop.thread:
            loop.check_thread("Semaphore.release")
        if n is not _ONE:
            n = checks.count("the n of release", n, 1)
        while n and self._line:
            self._serve()
            n -= 1
        self._value += n

    __enter__ = acquire

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def _take(self, taker: Waiter | Loop) -> bool:
        if not self._value:
            return False
        self._value -= 1
        return True

    def _pass_on(self) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<{self._name()} at {id(self):#x}: value={self._value}>"


class BoundedSemaphore(Semaphore):
    """A semaphore that never has more permits than at first."""

    __slots__ = ("_initial",)

    def __init__(self, value: int = 1) -> None:
        """Raises ValueError for a negative value."""
        super().__init__(value)
        self._initial = self._value

    def release(self, n: int = _ONE) -> None:
        """Give n permits back. Raises ValueError, and gives none, if that is more than were taken."""
        if n is not _ONE:
            n = checks.count("the n of release", n, 1)
        if self._value + n > self._initial:
            raise ValueError(f"release of {self!r}: more permits than were taken")
        super().release(n)

    def __repr__(self) -> str:
        return f"<{self._name()} at {id(self):#x}: value={self._value}/{self._initial}>"


def caller(loop: Loop) -> Waiter | Loop:
    """Who calls: a task, top-level code, or the loop for one of its callbacks."""
    task: Waiter | None = loop.current
    if task is not None:
        return task
    if not loop.running:
        check_present(loop, "the use")
    return current_waiter(loop) or (loop if loop.running else top_level(loop))


def words(owner: Waiter | Loop | None) -> str:
    if isinstance(owner, Waiter):
        return f"{owner.name!r}, which has ended," if owner.done else repr(owner.name)
    return "a callback"


def _in_range(timeout: float) -> float:
    if timeout < 0:
        raise ValueError(f"acquire(timeout={timeout}): cannot be negative; -1 is no limit")
    if timeout > TIMEOUT_MAX:
        raise OverflowError(f"acquire(timeout={timeout}): more than {TIMEOUT_MAX} seconds")
    return timeout


_ACQUIRE = WaitKind("acquire", WaitQueue._leave)
_REGAIN = WaitKind("wait", WaitQueue._leave, "{0}, to have {1!r} again")
