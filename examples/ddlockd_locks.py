"""The locks of ddlockd: who holds them, who waits for them, for how long, and how often it was tried.

`Locks` has them in memory, where asking takes no time: nothing of it parks. `StoredLocks` has them in a database or in
a directory as well (`ddlockd_stores.py`), which outlive the server and may be shared by several: a thread asks there,
one call after the other, and the task that wants to know is parked meanwhile.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent import futures
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from ddlockd_stores import Keeper, StoreError, reserve
from output import complain

from dangagreen import Event, Future, Timer, current_loop, sleep, spawn

Answer = TypeVar("Answer")

POLL_SECONDS = 0.25  # how often a lock that another server holds is tried again
LATE_SECONDS = 0.25  # for what a client has sent before its time was up, and nobody has read yet
RETRY_SECONDS = 1.0  # how often a store that has failed is


class Counters:
    """What `status` and `load` tell, by a clock that nobody sets."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.started = clock()
        self.successes = self.failures = 0
        self.buckets: dict[int, int] = {}  # trylocks in each 3 seconds

    def count(self, taken: bool) -> None:
        if taken:
            self.successes += 1
        else:
            self.failures += 1
        now = int(self.clock()) // 3
        self.buckets[now] = self.buckets.get(now, 0) + 1
        if len(self.buckets) > 200:
            self.buckets = {then: self.buckets[then] for then in range(now - 99, now + 1) if then in self.buckets}

    def load(self) -> int:
        now = int(self.clock()) // 3
        return sum(self.buckets.get(then, 0) for then in range(now - 99, now + 1))

    def status(self) -> bytes:
        told = (self.successes, self.failures, self.clock() - self.started, self.load())
        return b"STATUS: OK\nSUCCESSES: %d\nFAILURES: %d\nRUNTIME: %d\nLOAD: %d\n\n" % told


class Holder(Protocol):
    """What a connection is here."""

    number: int
    held: dict[bytes, None]
    closed: bool

    def described(self) -> str: ...

    def has_unread(self) -> bool: ...


class Lease:
    """What `lock` grants beyond the lock itself: a fencing token, and perhaps an end, so many seconds after `noop`."""

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds = seconds
        self.token = 0
        self.timer: Timer | None = None
        self.extended = False


class Tokens:
    """Fencing tokens: each is larger than any before it, whatever happens to the clock.

    With a file they are larger than those of earlier runs, too. It holds a number that no token has come beyond, and is
    written once in a million tokens. Without one they begin at the time of the start: larger than those of earlier runs
    unless the clock was put back between two of them.
    """

    AT_ONCE = 1_000_000

    def __init__(self, path: str | None = None) -> None:
        self._path = None if path is None else Path(path).absolute()
        self._last = self._most = time.time_ns()
        self._reserve()

    def next(self) -> int:
        """Raises StoreError if the file cannot be written."""
        if self._last >= self._most:
            self._reserve()
        self._last += 1
        return self._last

    def _reserve(self) -> None:
        if self._path is None:
            self._most += self.AT_ONCE
            return
        try:
            self._most = reserve(self._path, self.AT_ONCE)
        except (OSError, ValueError) as error:
            raise StoreError(f"{self._path}: {error}") from None
        self._last = self._most - self.AT_ONCE


class Locks:
    """The locks of this server, in memory."""

    kind = "Internal"
    may_park = False  # do `take`, `release`, `holder` and `everything`?

    def __init__(self, tokens: Tokens | None = None) -> None:
        self.holders: dict[bytes, Holder] = {}
        self.leases: dict[bytes, Lease] = {}
        self.lines: dict[bytes, deque[Event]] = {}  # those who wait, first come, first served
        self._tokens = tokens or Tokens()

    def open(self) -> int:
        """At the start, before anything else runs. How many locks of an earlier run were freed?"""
        return 0

    def close(self) -> None:
        """At the end, when nobody is connected any more."""

    # -- taking and freeing

    def trylock(self, client: Holder, name: bytes) -> bool:
        """Take it, if nobody has it and nobody waits for it."""
        return name not in self.lines and self.take(client, name)

    def take(self, client: Holder, name: bytes, lease: Lease | None = None) -> bool:
        """Take it, if nobody has it."""
        if name in self.holders:
            return False
        if lease is not None:
            lease.token = lease.token or self._tokens.next()
        self.holders[name] = client
        client.held[name] = None
        if lease is not None:
            self.leases[name] = lease
            self._begin(client, name, lease)
        return True

    def release(self, client: Holder, name: bytes) -> bool:
        """Free it, if it is the client's."""
        if self.holders.get(name) is not client:
            return False
        self._forget(client, name)
        if self.lines:
            self._call_next(name)
        return True

    def release_all(self, client: Holder) -> None:
        """Its connection has ended. Never parks."""
        for name in list(client.held):
            self.release(client, name)

    def _forget(self, client: Holder, name: bytes) -> None:
        del self.holders[name], client.held[name]
        if self.leases and (lease := self.leases.pop(name, None)) is not None and lease.timer is not None:
            lease.timer.cancel()

    # -- leases

    def renew(self, client: Holder) -> None:
        """The time of all its leases begins anew."""
        for name in client.held if self.leases else ():
            if (lease := self.leases.get(name)) is not None:
                self._begin(client, name, lease)

    def _begin(self, client: Holder, name: bytes, lease: Lease) -> None:
        if lease.timer is not None:
            lease.timer.cancel()
        lease.extended = False
        if lease.seconds is not None:
            lease.timer = current_loop().add_timer(lease.seconds, partial(self._is_up, client, name, lease))

    def _is_up(self, client: Holder, name: bytes, lease: Lease) -> None:
        """Free it, unless there is something to be read first, once: the server may have been stopped, or busy, and the
        `noop` have come in time."""
        if not lease.extended and client.has_unread():
            lease.extended = True
            lease.timer = current_loop().add_timer(LATE_SECONDS, partial(self._expire, client, name))
        else:
            self._expire(client, name)

    def _expire(self, client: Holder, name: bytes) -> None:
        self.release(client, name)

    # -- waiting

    def join(self, name: bytes) -> Event:
        """A place at the end of the line, to be left in any case. The event is set when it is worth trying."""
        turn = Event()
        self.lines.setdefault(name, deque()).append(turn)
        return turn

    def take_in_turn(self, client: Holder, name: bytes, lease: Lease, turn: Event) -> bool:
        """Take it, if nobody has it and this is the first in the line."""
        turn.clear()  # before it tries: what happens from now on is news
        return self.lines[name][0] is turn and self.take(client, name, lease)

    def leave(self, name: bytes, turn: Event) -> None:
        line = self.lines[name]
        line.remove(turn)
        if not line:
            del self.lines[name]
        elif name not in self.holders:
            self._call_next(name)

    def patience(self, name: bytes, turn: Event) -> float | None:
        """After how many seconds to try again unasked. None: there is no need to."""
        return None

    def _call_next(self, *names: bytes) -> None:
        for name in names:
            if name in self.lines:
                self.lines[name][0].set()

    # -- questions

    def holder(self, name: bytes) -> dict[str, object]:
        """Who has it, with which token and for how many seconds, as far as there are."""
        client, lease = self.holders.get(name), self.leases.get(name)
        if client is None:
            return {}
        told: dict[str, object] = {"holder": client.described()}
        if lease is not None:
            told["token"] = lease.token
            if lease.timer is not None:
                told["ttl"] = f"{max(0.0, lease.timer.deadline - current_loop().time()):.3f}"
        return told

    def waiters(self, name: bytes) -> int:
        return len(self.lines.get(name, ()))

    def everything(self) -> list[tuple[bytes, str]]:
        """All locks, and who holds them."""
        return [(name, client.described()) for name, client in self.holders.items()]


class StoredLocks(Locks):
    """The same, where what counts is what the keeper says. In memory is what this server's own connections hold."""

    may_park = True

    def __init__(self, keeper: Keeper) -> None:
        super().__init__()
        self.kind = keeper.kind
        self._keeper = keeper
        self._loop = current_loop()
        self._thread = futures.ThreadPoolExecutor(1, "ddlockd")  # one: calls are done in their order
        self._owed: deque[Callable[[], object]] = deque()
        self._paying = False

    def open(self) -> int:
        try:
            return self._thread.submit(self._keeper.open).result()
        except BaseException:
            self._thread.shutdown()
            raise

    def close(self) -> None:
        """What is owed is still given back, if that can be. It blocks."""
        self._paying = True  # from now on nobody else does
        self._thread.shutdown(cancel_futures=True)
        try:
            self._do(self._keeper.close)
        except Exception as error:
            self._complain(error)

    def take(self, client: Holder, name: bytes, lease: Lease | None = None) -> bool:
        """Parks until the keeper has answered."""
        if name in self.holders:
            return False
        try:
            token = self._ask(self._keeper.take, name, client.number, client.described(), lease is not None)
        except BaseException:  # the time is up, or it has failed: it may have been taken nevertheless
            self._owe(partial(self._keeper.release, name, client.number), name)
            raise
        if token is not None and client.closed:  # its `release_all` may have come before
            self._owe(partial(self._keeper.release, name, client.number), name)
        if token is None or client.closed:
            return False
        if lease is not None:
            lease.token = token
        return super().take(client, name, lease)

    def release(self, client: Holder, name: bytes) -> bool:
        """Parks until the keeper has freed it."""
        if self.holders.get(name) is not client:
            return False
        released = self._ask(self._keeper.release, name, client.number)
        super().release(client, name)  # unless its time was up meanwhile, or its connection has ended
        return released

    def release_all(self, client: Holder) -> None:
        names = list(client.held)
        for name in names:
            self._forget(client, name)
        self._owe(partial(self._keeper.forget, client.number), *names)

    def _expire(self, client: Holder, name: bytes) -> None:
        self._forget(client, name)
        self._owe(partial(self._keeper.release, name, client.number), name)

    def patience(self, name: bytes, turn: Event) -> float | None:
        """Another server tells nobody here."""
        return POLL_SECONDS if self.lines[name][0] is turn else None

    def holder(self, name: bytes) -> dict[str, object]:
        """Parks, if it is nobody here."""
        if name in self.holders:
            return super().holder(name)
        holder, token = self._ask(self._keeper.holder, name) or (None, 0)
        return {key: value for key, value in (("holder", holder), ("token", token)) if value}

    def everything(self) -> list[tuple[bytes, str]]:
        """Parks until the keeper has answered."""
        return self._ask(self._keeper.everything)

    # -- the thread

    def _ask(self, call: Callable[..., Answer], *arguments: object) -> Answer:
        """Parks until the thread has made the call."""
        answer: Future[Answer] = Future()

        def settle(done: futures.Future[Answer]) -> None:
            if done.cancelled():  # the server has ended
                return
            error = done.exception()
            if error is None:
                answer.set_result(done.result())
            else:
                self._complain(error)
                answer.set_exception(StoreError(str(error)))

        future = self._thread.submit(self._do, call, *arguments)
        future.add_done_callback(lambda done: self._loop.call_soon_threadsafe(settle, done))
        return answer.wait()

    def _do(self, call: Callable[..., Answer], *arguments: object) -> Answer:
        """In the thread. What is owed comes first: what was given back before the call is free for it."""
        while self._owed:
            self._owed[0]()
            self._owed.popleft()
        return call(*arguments)

    def _complain(self, error: BaseException) -> None:
        complain(f"ddlockd: {self.kind}: {error!r}")

    def _owe(self, call: Callable[[], object], *names: bytes) -> None:
        """Have the keeper free these, now or as soon as it can, and then call who waits for them. Never parks."""

        def give_back() -> None:
            call()
            self._loop.call_soon_threadsafe(self._call_next, *names)

        self._owed.append(give_back)
        if not self._paying:
            self._paying = True
            spawn(self._pay)

    def _pay(self) -> None:
        """Parks until nothing is owed."""
        while self._owed:
            try:
                self._ask(lambda: None)
            except StoreError:
                sleep(RETRY_SECONDS)
        self._paying = False
