"""Timers: a heap of deadlines with lazy deletion.

Rules: timers of equal deadlines fire in the order in which they were added; a cancelled timer drops its callback at
once, and its entry in the heap when cancelled entries outnumber the others. What does not belong here: the clock (the
loop owns it) and what to do when a callback raises.
"""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Callable
from contextvars import Context
from heapq import heapify, heappop, heappush
from typing import Protocol

from dangagreen import checks

_TOO_FEW_TO_SWEEP = 64
_BEFORE_OTHERS = 1 << 60
_FIRED = 0  # the number of a timer that has fired


class Owner(Protocol):
    """The loop, as timers need it: they may be used in its thread only."""

    thread: int

    def check_thread(self, call: str) -> None: ...


class Timer:
    """One call in the future, made by `Loop.add_timer`.

    `deadline` is in seconds of the loop's clock; `active` is True until it has fired or was cancelled, `fired`
    from then on where it was not cancelled.
    """

    __slots__ = {
        "__weakref__": "Weak references to it work.",
        "_number": "Its number among the timers of its loop, in the order of their adding; 0 once it has fired.",
        "_timers": "The timers of its loop.",
        "callback": "What is called; None once it has fired, or was cancelled.",
        "context": "The context (contextvars) that it is called in.",
        "deadline": "When it fires, in seconds of the loop's clock.",
    }

    def __init__(
        self, timers: Timers, number: int, deadline: float, callback: Callable[[], object], context: Context | None
    ) -> None:
        self._timers = timers
        self._number = number
        self.deadline = deadline
        self.callback: Callable[[], object] | None = callback
        self.context = context

    @property
    def fired(self) -> bool:
        """Whether its callback was called."""
        return self._number == _FIRED

    @property
    def active(self) -> bool:
        """Whether it may still fire."""
        return self.callback is not None

    def cancel(self) -> None:
        """Keep it from firing. Does nothing when it has fired, or was cancelled, already."""
        if self.callback is not None:
            timers = self._timers
            owner = timers.owner
            if owner is not None and get_ident() != owner.thread:
                owner.check_thread("Timer.cancel")
            self.callback = self.context = None
            pending = timers.by_number
            del pending[self._number]
            if len(timers.heap) > 2 * len(pending) + _TOO_FEW_TO_SWEEP:
                timers._sweep()

    def fire(self) -> None:
        """Call the callback, in the context that the timer was made in. Only the loop does this."""
        callback, context = self.callback, self.context
        result: object
        self.callback = self.context = None
        if callback is not None:
            self._number = _FIRED
            result = callback() if context is None else context.run(callback)
            if result is not None and result is not checks.RESUMED:
                checks.outcome(f"the timer's {callback!r}", result)

    def __repr__(self) -> str:
        return f"<Timer at {self.deadline:.6f}: {self.callback!r}>" if self.active else "<Timer, done>"


class Timers:
    """All timers of one loop.

    The heap holds deadlines and numbers only, which the garbage collector need not traverse; a cancelled timer leaves
    no more than these behind. The loop reads the heap, and does not change it.
    """

    __slots__ = {
        "_added": "How many timers were added so far: the number of the last one.",
        "by_number": "Number to timer, of all that are to fire.",
        "heap": "(deadline, number) of pending timers, and of some that were cancelled.",
        "owner": "The loop.",
    }

    def __init__(self, owner: Owner | None = None) -> None:
        self.owner = owner
        self.heap: list[tuple[float, int]] = []
        self.by_number: dict[int, Timer] = {}
        self._added = 0

    def add(self, deadline: float, callback: Callable[[], object], context: Context | None = None) -> Timer:
        """Add a timer that fires at `deadline`, in seconds of the loop's clock, in `context` if one is given."""
        self._added = number = self._added + 1
        timer = self.by_number[number] = Timer(self, number, deadline, callback, context)
        heappush(self.heap, (deadline, number))
        return timer

    def add_first(self, deadline: float, callback: Callable[[], object]) -> Timer:
        """Add a timer that fires before all that `add` has made for that deadline, which must not be due yet."""
        self._added += 1
        number = self._added - _BEFORE_OTHERS
        timer = self.by_number[number] = Timer(self, number, deadline, callback, None)
        heappush(self.heap, (deadline, number))
        return timer

    def share(self, other: Timers) -> None:
        """Hold the very timers of another one, in whose place these are used from now on."""
        self.heap, self.by_number, self._added = other.heap, other.by_number, other._added

    def next_deadline(self) -> float | None:
        """When the next timer is due, or None if there is none."""
        heap = self.heap
        while heap:
            deadline, number = heap[0]
            if number in self.by_number:
                return deadline
            heappop(heap)
        return None

    def mark(self) -> int:
        """A mark for `pop_due`: only timers added until now are before it."""
        return self._added

    def pop_due(self, now: float, mark: int) -> Timer | None:
        """Take out the next timer that is due at `now` and older than `mark`, or answer None."""
        heap = self.heap
        while heap:
            deadline, number = heap[0]
            if deadline > now or number > mark:
                break
            heappop(heap)
            if (timer := self.by_number.pop(number, None)) is not None:
                return timer
        return None

    def renumber(self, timer: Timer, number: int) -> None:
        """Have this timer fire in the place of the one of that number. Tests shuffle timers of equal deadlines so."""
        self.by_number[number] = timer
        timer._number = number

    def clear(self) -> None:
        """Cancel every timer."""
        for timer in self.by_number.values():
            timer.callback = timer.context = None
        self.by_number.clear()
        self.heap.clear()

    def __len__(self) -> int:
        return len(self.by_number)

    def _sweep(self) -> None:
        """Remove the entries of cancelled timers from the heap."""
        pending = self.by_number
        self.heap[:] = [entry for entry in self.heap if entry[1] in pending]
        heapify(self.heap)
