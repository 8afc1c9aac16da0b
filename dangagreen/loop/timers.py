"""Timers: a heap of deadlines with lazy deletion for what is due soon, and a dict for each second that is far away.

Rules: timers of equal deadlines fire in the order in which they were added; a cancelled timer drops its callback at
once, and its entry in the heap when cancelled entries outnumber the others. Most timers are timeouts, which are far
away when they are cancelled: they have no entry in the heap, which holds one for each of their seconds. What does not
belong here: the clock (the loop owns it) and what to do when a callback raises.
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
_SECOND = -2 * _BEFORE_OTHERS  # in place of a number: the entry of a second, before those of timers
_SOON = 1.0  # seconds: timers that are due sooner go to the heap at once
_NEVER = float("inf")


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
            if self._number not in pending:
                due = self.deadline
                del timers.later[due // 1.0][self._number]
            else:
                del pending[self._number]
                if len(timers.heap) > 2 * (len(pending) + len(timers.later)) + _TOO_FEW_TO_SWEEP:
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
    no more than these behind, and none where it was far away. The loop reads the heap, and does not change it.
    """

    __slots__ = {
        "_added": "How many timers were added so far: the number of the last one.",
        "_many": "So many seconds in `later` are a reason to look for empty ones.",
        "by_number": "Number to timer, of those that have entries in the heap and are to fire.",
        "heap": "(deadline, number) of those, and of some that were cancelled; (second, _SECOND) of all in `later`.",
        "later": "Second to {number: timer} of the others, which are due within it; empty where all were cancelled.",
        "owner": "The loop.",
        "soon": "Timers that are due before this time go to the heap at once.",
    }

    def __init__(self, owner: Owner | None = None, now: float = _NEVER) -> None:
        self.owner = owner
        self.soon = now + _SOON
        self.heap: list[tuple[float, int]] = []
        self.by_number: dict[int, Timer] = {}
        self.later: dict[float, dict[int, Timer]] = {}
        self._added = 0
        self._many = _TOO_FEW_TO_SWEEP

    def add(self, deadline: float, callback: Callable[[], object], context: Context | None = None) -> Timer:
        """Add a timer that fires at `deadline`, in seconds of the loop's clock, in `context` if one is given."""
        self._added = number = self._added + 1
        timer = Timer(self, number, deadline, callback, context)
        due = deadline
        if due < self.soon or not due < _NEVER:  # NaN and infinity have no second
            self.by_number[number] = timer
            heappush(self.heap, (deadline, number))
        else:
            second = due // 1.0
            try:
                self.later[second][number] = timer
            except KeyError:
                self._begin_second(second)[number] = timer
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
        self.heap, self.by_number, self.later = other.heap, other.by_number, other.later
        self.soon, self._added = other.soon, other._added

    def next_deadline(self) -> float | None:
        """When the next timer is due, or None if there is none."""
        heap = self.heap
        while heap:
            deadline, number = heap[0]
            if number in self.by_number:
                return deadline
            heappop(heap)
            if number == _SECOND:
                self._draw_near(deadline)
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
            if number == _SECOND:
                self._draw_near(deadline)
        self.soon = now + _SOON
        return None

    def renumber(self, timer: Timer, number: int) -> None:
        """Have this timer fire in the place of the one of that number. Tests shuffle timers of equal deadlines so."""
        self.by_number[number] = timer
        timer._number = number

    def pending(self) -> list[Timer]:
        """All timers that are to fire, in the order of their adding. Other threads may ask for them."""
        pending = list(self.by_number.values())
        for held in list(self.later.values()):
            pending.extend(held.values())
        return sorted(pending, key=lambda timer: timer._number % _BEFORE_OTHERS)

    def clear(self) -> None:
        """Cancel every timer."""
        for timer in self.pending():
            timer.callback = timer.context = None
        self.by_number.clear()
        self.later.clear()
        self.heap.clear()

    def __len__(self) -> int:
        return len(self.by_number) + sum(map(len, self.later.values()))

    def _begin_second(self, second: float) -> dict[int, Timer]:
        """Where to put timers that are due within this second."""
        if len(self.later) > self._many:
            self._sweep()
            self._many = 2 * len(self.later) + _TOO_FEW_TO_SWEEP
        heappush(self.heap, (second, _SECOND))
        held: dict[int, Timer] = {}
        self.later[second] = held
        return held

    def _draw_near(self, second: float) -> None:
        """Put the timers of a second into the heap."""
        held = self.later.pop(second, {})
        self.by_number.update(held)
        for number, timer in held.items():
            heappush(self.heap, (timer.deadline, number))

    def _sweep(self) -> None:
        """Remove the entries of cancelled timers, and of seconds whose timers were all cancelled, from the heap."""
        pending, later = self.by_number, self.later
        for second in [second for second, held in later.items() if not held]:
            del later[second]
        live = [entry for entry in self.heap if entry[1] in pending]
        live += [(second, _SECOND) for second in later]
        self.heap[:] = live
        heapify(self.heap)
