"""Things on their way from task to task: what queues and channels have in common, and what `select` can wait for.

Rules: first come, first served, and nobody overtakes. An item that comes while a task is parked for one belongs to
that task from then on, before it has run again; a place that becomes free is taken at once by whoever is parked with
an item. So tasks are parked to take only while nothing is there, and to put only while there is no room. What does not
belong here: the names and the errors by which users know all this.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Any, Generic, TypeVar

from dangagreen.green.parking import park_for
from dangagreen.green.sched import Waiter, WaitKind, wake
from dangagreen.loop.loop import Loop, loop_or_current

Item = TypeVar("Item")


class Source:
    """Something that may be ready, and that can be watched by tasks that wait for the first of several things."""

    __slots__ = {"__weakref__": None, "_watchers": None, "loop": "The loop whose tasks wait for it."}

    def __init__(self, loop: Loop | None) -> None:
        self.loop = loop_or_current(loop)
        self._watchers: dict[Waiter, None] = {}

    @property
    def ready(self) -> bool:
        """Whether whoever waits for this need not wait any longer."""
        raise NotImplementedError

    def _watch(self, task: Waiter) -> None:
        """Wake the task when this becomes ready."""
        self._watchers[task] = None

    def _unwatch(self, task: Waiter) -> None:
        self._watchers.pop(task, None)

    def _tell(self) -> None:
        for task in list(self._watchers):
            wake(task)


class Handoff(Source, Generic[Item]):
    """Items in `queue`, at most `_room` of them, with tasks that are parked to take some, or to put some in.

    `_put` and `_get` are how `queue` is filled and emptied. `_attentive` is False only while nobody waits for an item
    and the passage is open: then there is nothing to do for an item but to put it in.
    """

    __slots__ = ("_attentive", "_ended", "_getters", "_putters", "_room", "queue")

    queue: Any
    _room: float

    def __init__(self, loop: Loop | None) -> None:
        super().__init__(loop)
        self._watchers = OrderedDict()  # in a dict to find the first costs more and more
        self._getters: OrderedDict[Waiter, list[Item]] = OrderedDict()  # with a place to lay the item in
        self._putters: OrderedDict[Waiter, Item] = OrderedDict()
        self._attentive = self._ended = False

    def _put(self, item: Item) -> None:
        self.queue.append(item)

    def _get(self) -> Item:
        return self.queue.popleft()  # type: ignore[no-any-return]

    def _let_in(self, item: Item) -> None:
        """One more item, for which there is room."""
        self._put(item)

    def _refusal(self) -> Exception:
        """What to raise when an item is put in after the end."""
        raise NotImplementedError

    def _nothing_more(self) -> Exception:
        """What to raise when nothing is left after the end."""
        raise NotImplementedError

    @property
    def ready(self) -> bool:
        """Whether a call that takes an item would not have to wait: there is one, or there will never be one."""
        return bool(self.queue or self._putters or self._ended)

    def _watch(self, task: Waiter) -> None:
        super()._watch(task)
        self._attentive = True

    def _tell_one(self) -> None:
        """Wake the first of those who watch, for one item. If it is still there in the next turn, since that task was
        cancelled, or has taken something else, the next one is woken."""
        wake(next(iter(self._watchers)))
        if self._watchers:
            self.loop.ready.append(self._tell_another)

    def _tell_another(self) -> None:
        if self._watchers and self.ready:
            self._tell_one()

    # -- in

    def _pass_on(self, item: Item) -> bool:
        """Put it in, or give it to the first who is parked for one. False if there is no room."""
        if self._ended:
            raise self._refusal()
        if len(self.queue) >= self._room and not self._getters:
            return False
        self._let_in(item)
        if self._attentive:
            self._arrived()
        return True

    def _arrived(self) -> None:
        """Give what is there to those who are parked for it."""
        while self.queue and self._getters:
            task, place = self._getters.popitem(last=False)
            try:
                place.append(self._get())
            except Exception as error:  # the item cannot be had: that is the taker's affair, not the putter's
                wake(task, error)
            else:
                wake(task)
        if self._watchers and self.ready:
            self._tell_one()
        self._attentive = bool(self._getters or self._watchers or self._ended)

    def _wait_to_put(self, task: Waiter, wait: WaitKind, item: Item, timeout: float | None = None) -> None:
        """Parks until the item was put in. TimeoutError if it was not."""
        self._putters[task] = item
        if self._watchers and self._room < 1:
            self._tell_one()
        park_for(task, wait, self, timeout)

    # -- out

    def _take(self) -> Item:
        """The next item, whose place is filled at once; or raise that there will never be one. Only when `ready`."""
        while not self.queue and self._putters:  # without any room items go straight from hand to hand
            self._admit()
        if not self.queue:
            raise self._nothing_more()
        item = self._get()
        self._fill()
        return item

    def _fill(self) -> None:
        """Let in as many of those who are parked with an item as there is room for."""
        while self._putters and len(self.queue) < self._room:
            self._admit()

    def _admit(self) -> None:
        task, item = self._putters.popitem(last=False)
        try:
            self._let_in(item)
        except Exception as error:  # nor is an item that cannot be put in the taker's affair
            wake(task, error)
        else:
            wake(task)

    def _wait_to_get(self, task: Waiter, wait: WaitKind, timeout: float | None = None) -> Item:
        """Parks until there is an item. TimeoutError if there was none."""
        place: list[Item] = []
        self._getters[task] = place
        self._attentive = True
        try:
            park_for(task, wait, self, timeout)
        except BaseException:
            if place:  # top-level code was interrupted, or the loop reset, before it could take what it was given
                self._give_back(place[0])
            raise
        return place[0]

    def _give_back(self, item: Item) -> None:
        if isinstance(self.queue, deque):
            self.queue.appendleft(item)
        else:
            self._put(item)
        self._arrived()

    # -- the end

    def _end(self) -> None:
        """From now on nothing is let in, and nobody waits."""
        self._ended = self._attentive = True
        for task in list(self._getters):
            wake(task, self._nothing_more())
        for task in list(self._putters):
            wake(task, self._refusal())
        self._tell()


def leave_getters(passage: Handoff[Any], task: Waiter) -> None:
    """Undo what a parked taker has arranged."""
    passage._getters.pop(task, None)


def leave_putters(passage: Handoff[Any], task: Waiter) -> None:
    """Undo what a parked putter has arranged."""
    passage._putters.pop(task, None)
