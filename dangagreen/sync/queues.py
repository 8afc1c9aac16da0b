"""Queues of the shape that the standard library's `queue` has: Queue, PriorityQueue, LifoQueue.

Rules: `put`, `get` and `join` park, as they block there; `put_nowait`, `get_nowait`, `task_done` and `shutdown` never
park and work in callbacks; other threads block, and what they ask for the loop does. What does not belong here: wait
queues and fairness (handoff).
"""

from __future__ import annotations

import sys
from _thread import get_ident
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from heapq import heappop, heappush
from queue import Empty, Full
from typing import Any

from dangagreen import checks
from dangagreen.errors import ForeignThreadError, ShutDown
from dangagreen.green.from_thread import in_loop
from dangagreen.green.parking import checkpoint, park_for
from dangagreen.green.waiters import Waiter, WaitKind, wake
from dangagreen.loop.loop import Loop
from dangagreen.parks import parks
from dangagreen.sync.handoff import Handoff, Item, leave_getters, leave_putters


class Queue(Handoff[Item]):
    """A FIFO queue between the tasks and callbacks of one loop, and other threads.

    `maxsize` is how many items it holds at most, 0 or less is no limit; it may be assigned. Tasks that wait are served
    first come, first served. A `get` that is cancelled or times out has taken nothing; a `put` that raises has put
    nothing. Subclasses give another order as with the standard library, by `_init`, `_put` and `_get`; `queue` holds
    the items, and has a length. In another thread each call is made by the loop, in line with those of tasks, and the
    thread blocks until it has been; only assigning `maxsize` raises ForeignThreadError there.
    """

    __slots__ = {
        "_joiners": "The tasks that are parked in `join`, in order.",
        "unfinished_tasks": "How many items were put in for which `task_done` was not called.",
    }

    def __init__(self, maxsize: int = 0, *, loop: Loop | None = None) -> None:
        room = _limit(maxsize)
        super().__init__(loop)
        self._joiners: dict[Waiter, None] = {}
        self.unfinished_tasks = 0
        self._max_items = room
        self._init(maxsize)

    def _init(self, maxsize: int) -> None:
        self.queue = deque()

    @property
    def maxsize(self) -> int:
        """How many items it holds at most; 0 is no limit. Assignable: a larger one wakes putters."""
        return 0 if self._max_items == sys.maxsize else int(self._max_items)

    @maxsize.setter
    def maxsize(self, maxsize: int) -> None:
        self._check("assigning maxsize")
        self._max_items = _limit(maxsize)
        self._admit_putters()

    @property
    def is_shutdown(self) -> bool:
        """Whether `shutdown` was called."""
        return self._ended

    def qsize(self) -> int:
        """How many items it holds. Those handed to a waiting task have left it, though the task may not have run."""
        return len(self.queue)

    def empty(self) -> bool:
        """Whether it holds no item."""
        return not self.queue

    def full(self) -> bool:
        """Whether it holds `maxsize` items."""
        return len(self.queue) >= self._max_items

    # -- in and out

    @parks
    def put(self, item: Item, block: bool = True, timeout: float | None = None) -> None:
        """Parks until there is room, then puts the item in.

        Raises `queue.Full` after `timeout` seconds (None is no limit), or at once, without parking, if `block` is
        false; ShutDown if the queue was, or is meanwhile, shut down. If it raises, nothing was put in.
        """
        if not block:
            return self.put_nowait(item)
        try:
            task: Waiter | None = checkpoint(self.loop, "put")
        except ForeignThreadError:
            task = None
        if task is None:  # not in the handler: what is raised there would have that error as its context
            return self._put_from_thread(item, timeout)
        if timeout is not None:
            timeout = _checked("put", timeout)
        if not self._put_or_hand_over(item):
            try:
                self._wait_to_put(task, _PUT, item, timeout)
            except TimeoutError:
                raise Full from None
        return None

    def put_nowait(self, item: Item) -> None:
        """Put the item in. Never parks. Raises `queue.Full` if there is no room, ShutDown after a shutdown."""
        if get_ident() != self.loop.thread and not self.loop.closed:
            return in_loop(self.loop, self.put_nowait, item)
        if self._slow_put or len(self.queue) >= self._max_items:
            if not self._put_or_hand_over(item):
                raise Full
        else:
            self._put(item)
            self.unfinished_tasks += 1
        return None

    @parks
    def get(self, block: bool = True, timeout: float | None = None) -> Item:
        """Parks until there is an item, and returns it.

        Raises `queue.Empty` after `timeout` seconds (None is no limit), or at once, without parking, if `block` is
        false; ShutDown if the queue was, or is meanwhile, shut down and nothing is left.
        """
        if not block:
            return self.get_nowait()
        try:
            task: Waiter | None = checkpoint(self.loop, "get")
        except ForeignThreadError:
            task = None
        if task is None:
            return self._get_in_thread(timeout)
        if timeout is not None:
            timeout = _checked("get", timeout)
        if self.ready:
            return self._get_and_refill()
        try:
            return self._wait_to_get(task, _GET, timeout)
        except TimeoutError:
            raise Empty from None

    def get_nowait(self) -> Item:
        """Take the next item. Never parks. Raises `queue.Empty` if there is none; ShutDown instead after a shutdown."""
        if get_ident() != self.loop.thread and not self.loop.closed:
            return in_loop(self.loop, self.get_nowait, undo=self._put_back)
        if self.queue and not self._putters:
            return self._get()
        if not self.ready:
            raise Empty
        return self._get_and_refill()

    @parks
    def __iter__(self) -> Iterator[Item]:
        """Parks until there is an item, in each step, as `get()` does; ends where that raises ShutDown."""
        with suppress(ShutDown):
            while True:
                yield self.get()

    def _put_counted(self, item: Item) -> None:
        self._put(item)
        self.unfinished_tasks += 1

    def _put_from_thread(self, item: Item, timeout: float | None) -> None:
        """`put` in another thread, which blocks meanwhile."""
        try:
            in_loop(self.loop, self.put, item, timeout=_checked("put", timeout))
        except TimeoutError:
            raise Full from None

    def _get_in_thread(self, timeout: float | None) -> Item:
        """`get` in another thread, which blocks meanwhile. If that gives up, an item that it got is put back."""
        try:
            return in_loop(self.loop, self.get, timeout=_checked("get", timeout), undo=self._put_back)
        except TimeoutError:
            raise Empty from None

    # -- when all is done

    def task_done(self) -> None:
        """Count an item that was taken as done, for `join`. Raises ValueError if called more often than `put`."""
        if get_ident() != self.loop.thread and not self.loop.closed:
            return in_loop(self.loop, self.task_done)
        if not self.unfinished_tasks:
            raise ValueError("task_done() was called more often than items were put in")
        self.unfinished_tasks -= 1
        self._wake_joiners()
        return None

    @parks
    def join(self) -> None:
        """Parks until `task_done()` was called for every item that was put in."""
        try:
            task: Waiter | None = checkpoint(self.loop, "join")
        except ForeignThreadError:
            task = None
        if task is None:
            return in_loop(self.loop, self.join)
        if self.unfinished_tasks:
            self._joiners[task] = None
            park_for(task, _JOIN, self, None)
        return None

    def _wake_joiners(self) -> None:
        """Wake the tasks in `join`, if all items are done."""
        if not self.unfinished_tasks:
            for task in list(self._joiners):
                wake(task)

    # -- the end

    def shutdown(self, immediate: bool = False) -> None:
        """Shut the queue down: a `put`, parked or later, raises ShutDown, and so does a `get` when nothing is left.

        What is in the queue can still be taken; if `immediate`, it is dropped, and counts as done. Never parks.
        """
        if get_ident() != self.loop.thread and not self.loop.closed:
            return in_loop(self.loop, self.shutdown, immediate)
        self._end()
        if immediate:
            while self.queue:
                self._get()
                self.unfinished_tasks -= self.unfinished_tasks > 0
            self._wake_joiners()
        return None

    def _closed_error(self) -> Exception:
        return ShutDown(f"{self!r} was shut down")

    _exhausted_error = _closed_error

    def _check(self, call: str) -> None:
        self.loop.check_thread(call)

    def __repr__(self) -> str:
        size = f"{self.qsize()} of {self.maxsize}" if self.maxsize else f"{self.qsize()}"
        return f"<{type(self).__name__}, {size} items{', shut down' if self._ended else ''}>"


class LifoQueue(Queue[Item]):
    """A LIFO queue, a stack: `get` returns the item that was put in last."""

    __slots__ = ()

    def _init(self, maxsize: int) -> None:
        self.queue = []

    def _get(self) -> Item:
        return self.queue.pop()  # type: ignore[no-any-return]


class PriorityQueue(Queue[Item]):
    """A priority queue: `get` returns the smallest item. Items are often pairs, (priority, item).

    What a comparison of two items raises, the `put` or `get` raises; no item is lost by that, and none half put in.
    """

    __slots__ = ()

    def _init(self, maxsize: int) -> None:
        self.queue = []

    def _put(self, item: Item) -> None:
        try:
            heappush(self.queue, item)
        except BaseException:
            _undo_push(self.queue, item)
            raise

    def _get(self) -> Item:
        heap: list[Any] = self.queue
        first, last = heap[0], heap[-1]
        try:
            return heappop(heap)  # type: ignore[no-any-return]
        except BaseException:
            _undo_pop(heap, first, last)
            raise


def _undo_push(heap: list[Any], item: object) -> None:
    """Undo a heappush whose comparison raised: the item is somewhere on the path from the last leaf to the root."""
    way = [len(heap) - 1]
    while heap[way[-1]] is not item:
        way.append((way[-1] - 1) // 2)
    for to, origin in zip(way[:0:-1], way[-2::-1], strict=True):
        heap[to] = heap[origin]
    heap.pop()


def _undo_pop(heap: list[Any], first: object, last: object) -> None:
    """Undo a heappop whose comparison raised: `first` is gone, `last` is somewhere on a path down from the root."""
    place = next(place for place, item in enumerate(heap) if item is last)
    while place:
        heap[place] = heap[(place - 1) // 2]
        place = (place - 1) // 2
    heap[0] = first
    heap.append(last)


def _limit(maxsize: int) -> int:
    """The limit for a `maxsize`, of which 0 or less is none. Raises TypeError for what is no int."""
    maxsize = checks.count("the maxsize of a queue", maxsize, None)
    return maxsize if maxsize > 0 else sys.maxsize


def _checked(call: str, timeout: float | None) -> float | None:
    """The timeout of a call. Raises TypeError for what is no number, ValueError for a negative one or NaN."""
    if timeout is not None:
        timeout = checks.seconds(f"the timeout of {call}", timeout)
        if timeout < 0:
            raise ValueError(f"the timeout of {call} is a non-negative number, not {timeout}")
    return timeout


_PUT = WaitKind("put", leave_putters)
_GET = WaitKind("get", leave_getters)
_JOIN = WaitKind("join", lambda queue, task: queue._joiners.pop(task, None))
