"""The locks of ddlockd that are kept in a store as well: they outlive the server, and may be shared by several.

A store blocks, so a thread asks there, one call after the other, and the task that wants to know is parked meanwhile.
What an ended connection or lease gives back is owed to the store until that can be told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent import futures
from functools import partial
from typing import TypeVar

from dangagreen import Event, Future, current_loop, sleep, spawn
from ddlockd.locks import Holder, Lease, Locks
from ddlockd.stores import Store, StoreError
from output import complain

Answer = TypeVar("Answer")

POLL_SECONDS = 0.25  # how often a lock that another server holds is tried again
RETRY_SECONDS = 1.0  # how often a store that has failed is


class StoredLocks(Locks):
    """Locks of which the store decides who has them. In memory is what this server's own connections hold."""

    may_park = True

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.kind = store.kind
        self._store = store
        self._loop = current_loop()
        self._thread = futures.ThreadPoolExecutor(1, "ddlockd")  # one: calls are done in their order
        self._owed: deque[Callable[[], object]] = deque()
        self._paying = False

    def open(self) -> int:
        try:
            return self._thread.submit(self._store.open).result()
        except BaseException:
            self._thread.shutdown()
            raise

    def close(self) -> None:
        """What is owed is still given back, if that can be. It blocks."""
        self._paying = True  # from now on nobody else does
        self._thread.shutdown(cancel_futures=True)
        try:
            self._do(self._store.close)
        except Exception as error:
            self._complain(error)

    def take(self, client: Holder, name: bytes, lease: Lease | None = None) -> bool:
        """Parks until the store has answered."""
        if name in self.holders:
            return False
        try:
            token = self._ask(self._store.take, name, client.number, client.described(), lease is not None)
        except BaseException:  # the time is up, or it has failed: it may have been taken nevertheless
            self._owe(partial(self._store.release, name, client.number), name)
            raise
        if token is not None and client.closed:  # its `release_all` may have come before
            self._owe(partial(self._store.release, name, client.number), name)
        if token is None or client.closed:
            return False
        if lease is not None:
            lease.token = token
        return super().take(client, name, lease)

    def release(self, client: Holder, name: bytes) -> bool:
        """Parks until the store has freed it."""
        if self.holders.get(name) is not client:
            return False
        released = self._ask(self._store.release, name, client.number)
        super().release(client, name)  # unless its time was up meanwhile, or its connection has ended
        return released

    def release_all(self, client: Holder) -> None:
        names = list(client.held)
        for name in names:
            self._forget(client, name)
        self._owe(partial(self._store.forget, client.number), *names)

    def _expire(self, client: Holder, name: bytes) -> None:
        self._forget(client, name)
        self._owe(partial(self._store.release, name, client.number), name)

    def patience(self, name: bytes, turn: Event) -> float | None:
        """Another server tells nobody here."""
        return POLL_SECONDS if self.queues[name][0] is turn else None

    def holder(self, name: bytes) -> dict[str, object]:
        """Parks, if it is nobody here."""
        if name in self.holders:
            return super().holder(name)
        holder, token = self._ask(self._store.holder, name) or (None, 0)
        return {key: value for key, value in (("holder", holder), ("token", token)) if value}

    def everything(self) -> list[tuple[bytes, str]]:
        """Parks until the store has answered."""
        return self._ask(self._store.everything)

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
        """Have the store free these, now or as soon as it can, and then call who waits for them. Never parks."""

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
