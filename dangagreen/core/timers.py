"""Things to do at a time: a heap with lazy deletion.

Rules: timers of equal deadlines fire in the order in which they were added; a cancelled timer lets go of what it
would have called at once, and of its place in the heap when cancelled ones outnumber the others. What does not belong
here: the clock (the loop owns it) and what to do when a callback raises.
"""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Callable
from contextvars import Context
from heapq import heapify, heappop, heappush
from typing import Protocol

_ENOUGH_TO_SWEEP = 64
_BEFORE_OTHERS = 1 << 60


class Owner(Protocol):
    """What timers need of their loop: to be used in its thread only."""

    thread: int

    def check_thread(self, call: str) -> None: ...


class Timer:
    """One call in the future, made by `Loop.add_timer`.

    `deadline` is in seconds of the loop's clock; `active` is True until it has fired or was cancelled, `fired`
    from then on where it was not cancelled.
    """

    __slots__ = ("_timers", "callback", "context", "deadline", "fired")

    def __init__(
        self, timers: Timers, deadline: float, callback: Callable[[], object], context: Context | None
    ) -> None:
        self._timers = timers
        self.deadline = deadline
        self.callback: Callable[[], object] | None = callback
        self.context = context
        self.fired = False

    @property
    def active(self) -> bool:
        return self.callback is not None

    def cancel(self) -> None:
        """Never fire. Harmless when it has fired, or was cancelled, before."""
        if self.callback is not None:
            timers = self._timers
            owner = timers.owner
            if owner is not None and get_ident() != owner.thread:
                owner.check_thread("Timer.cancel")
            self.callback = self.context = None
            timers._cancelled += 1
            if timers._cancelled > timers._bearable:
                timers._sweep()

    def fire(self) -> None:
        """Call the callback, in the context that the timer was made in. Only the loop does this."""
        callback, context = self.callback, self.context
        self.callback = self.context = None
        if callback is not None:
            self.fired = True
            if context is None:
                callback()
            else:
                context.run(callback)

    def __repr__(self) -> str:
        return f"<Timer at {self.deadline:.6f}: {self.callback!r}>" if self.active else "<Timer, done>"


class Timers:
    """All timers of one loop, the `owner`."""

    __slots__ = ("_added", "_bearable", "_cancelled", "_heap", "owner")

    def __init__(self, owner: Owner | None = None) -> None:
        self.owner = owner
        self._heap: list[tuple[float, int, Timer]] = []
        self._added = 0
        self._cancelled = 0
        self._bearable = _ENOUGH_TO_SWEEP  # at more cancelled ones than this it is time to count

    def add(self, deadline: float, callback: Callable[[], object], context: Context | None = None) -> Timer:
        timer = Timer(self, deadline, callback, context)
        self._added += 1
        heappush(self._heap, (deadline, self._added, timer))
        return timer

    def add_first(self, deadline: float, callback: Callable[[], object]) -> Timer:
        """The same, to fire before those that `add` has made for that deadline. It must not be due yet."""
        timer = Timer(self, deadline, callback, None)
        self._added += 1
        heappush(self._heap, (deadline, self._added - _BEFORE_OTHERS, timer))
        return timer

    def next_deadline(self) -> float | None:
        """When the next timer is due, or None if there is none."""
        heap = self._heap
        while heap:
            deadline, _, timer = heap[0]
            if timer.callback is not None:
                return deadline
            heappop(heap)
            self._cancelled -= 1
        return None

    def mark(self) -> int:
        """A mark for `pop_due`: only timers added until now are before it."""
        return self._added

    def pop_due(self, now: float, mark: int) -> Timer | None:
        """Take out the next timer that is due at `now` and older than `mark`, or answer None."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            if heap[0][1] > mark:
                return None
            timer = heappop(heap)[2]
            if timer.callback is not None:
                return timer
            self._cancelled -= 1
        return None

    def clear(self) -> None:
        """Cancel every timer."""
        for _, _, timer in self._heap:
            timer.callback = timer.context = None
        self._heap.clear()
        self._cancelled = 0
        self._bearable = _ENOUGH_TO_SWEEP

    def __len__(self) -> int:
        return len(self._heap) - self._cancelled

    def _sweep(self) -> None:
        """Let go of the cancelled ones, if they outnumber the others; otherwise say when to look again."""
        if self._cancelled * 2 > len(self._heap):
            self._heap[:] = [entry for entry in self._heap if entry[2].callback is not None]
            heapify(self._heap)
            self._cancelled = 0
        self._bearable = max(_ENOUGH_TO_SWEEP, len(self._heap) - self._cancelled)
