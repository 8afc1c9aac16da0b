"""The locks of ddlockd: who holds them, who waits for them, and for how long.

All of it is in memory, where asking takes no time: nothing of it parks. `stored_locks` has those that do.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Protocol

from dangagreen import Event, Timer, current_loop
from ddlockd.tokens import Tokens

LATE_SECONDS = 0.25  # for what a client has sent before its time was up, and nobody has read yet


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


class Locks:
    """The locks of this server, in memory."""

    kind = "Internal"
    may_park = False  # do `take`, `release`, `holder` and `everything`?

    def __init__(self, tokens: Tokens | None = None) -> None:
        self.holders: dict[bytes, Holder] = {}
        self.leases: dict[bytes, Lease] = {}
        self.queues: dict[bytes, deque[Event]] = {}  # those who wait, first come, first served
        self._tokens = tokens or Tokens()

    def open(self) -> int:
        """At the start, before anything else runs. How many locks of an earlier run were freed?"""
        return 0

    def close(self) -> None:
        """At the end, when nobody is connected any more."""

    # -- taking and freeing

    def trylock(self, client: Holder, name: bytes) -> bool:
        """Take it, if nobody has it and nobody waits for it."""
        return name not in self.queues and self.take(client, name)

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
        if self.queues:
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
        """A place at the end of the wait queue, to be left in any case. The event is set when it is worth trying."""
        turn = Event()
        self.queues.setdefault(name, deque()).append(turn)
        return turn

    def take_in_turn(self, client: Holder, name: bytes, lease: Lease, turn: Event) -> bool:
        """Take it, if nobody has it and this is the first in its queue."""
        turn.clear()  # before it tries: what happens from now on is news
        return self.queues[name][0] is turn and self.take(client, name, lease)

    def leave(self, name: bytes, turn: Event) -> None:
        queue = self.queues[name]
        queue.remove(turn)
        if not queue:
            del self.queues[name]
        elif name not in self.holders:
            self._call_next(name)

    def patience(self, name: bytes, turn: Event) -> float | None:
        """After how many seconds to try again unasked. None: there is no need to."""
        return None

    def _call_next(self, *names: bytes) -> None:
        for name in names:
            if name in self.queues:
                self.queues[name][0].set()

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
        return len(self.queues.get(name, ()))

    def everything(self) -> list[tuple[bytes, str]]:
        """All locks, and who holds them."""
        return [(name, client.described()) for name, client in self.holders.items()]
