"""Lints of what only grows: queues without a limit, and what is queued to be sent to a peer that reads slowly.

Rules: they are looked at every few seconds; one that is not longer each time does not only grow. What does not belong
here: queues that are full, which say so themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from dangagreen.errors import connection
from dangagreen.introspect.linting import Findings, LintReport, Patches, place_here
from dangagreen.loop.loop import Loop
from dangagreen.net.sock import Socket
from dangagreen.sockets.sock import CallbackSocket
from dangagreen.sync.channels import Channel
from dangagreen.sync.handoff import Handoff
from dangagreen.sync.queues import Queue

GROWING_SECONDS = 30.0  # for which it was longer at each look than at the one before,
GROWN_ITEMS = 1000  # and has grown by so many items,
GROWN_BYTES = 1024 * 1024  # or, if it is to be sent, by so many bytes


class _Growth:
    """Sizes of one queue, at looks each of which has found it longer than the one before."""

    __slots__ = {
        "first": "Its size at the first of these looks.",
        "is_old": "Whether it was made before lints were switched on: then the place is that of a put.",
        "last": "Its size at the last one.",
        "place": "Where it was made, or written to; None if that is not known.",
        "since": "When the first one was.",
    }

    def __init__(self, place: str | None, is_old: bool = False) -> None:
        self.place = place
        self.is_old = is_old
        self.first = self.last = 0
        self.since = -math.inf

    def only_grows(self, size: int, now: float, by: int) -> bool:
        """Note the size. Returns whether that has only grown, for long enough, and by so much."""
        if size <= self.last or self.since < 0:
            self.first, self.since = size, now
        self.last = size
        return now - self.since >= GROWING_SECONDS and size - self.first >= by


class QueueLints:
    """What is noted of queues, and of sockets that have not sent all."""

    def __init__(self, findings: Findings, patches: Patches) -> None:
        self._findings = findings
        self._queues: WeakKeyDictionary[Handoff[Any], _Growth] = WeakKeyDictionary()
        self._sockets: WeakKeyDictionary[CallbackSocket, _Growth] = WeakKeyDictionary()
        patches.put(Handoff, "__init__", self._watch_new)
        patches.put(Handoff, "_put_or_hand_over", self._watch_old)
        patches.put(Queue, "put_nowait", self._watch_old)
        patches.put(Socket, "_enqueue", self._watch_writers)

    def __contains__(self, queue: object) -> bool:
        """Whether there is a weak reference to this queue here."""
        return queue in self._queues

    def _watch_new(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def begin(self: Handoff[Any], loop: Loop | None) -> None:
            original(self, loop)
            queues[self] = _Growth(place_here())

        queues = self._queues
        return begin

    def _watch_old(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def put(self: Handoff[Any], item: Any) -> Any:
            if self not in queues:  # it was made before lints were switched on
                queues[self] = _Growth(place_here(), is_old=True)
            return original(self, item)

        queues = self._queues
        return put

    def _watch_writers(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def enqueue(sock: CallbackSocket, data: Any) -> None:
            growth = sockets.get(sock) if sockets else None
            if growth is not None and growth.place is None:
                growth.place = place_here()
            original(sock, data)

        sockets = self._sockets
        return enqueue

    def sweep(self, loop: Loop, now: float) -> None:
        """Look at the queues and the sockets of one loop."""
        for known in self._queues.keyrefs():  # a list: other threads make queues meanwhile
            if (queue := known()) is not None and queue.loop is loop and hasattr(queue, "queue"):
                growth = self._queues[queue]
                if growth.only_grows(len(queue.queue), now, GROWN_ITEMS) and _is_unlimited(queue):
                    self._tell_of_queue(queue, growth, now)
        for sock in list(loop.handlers.values()):
            if isinstance(sock, CallbackSocket) and sock.unsent and sock.max_unsent is None:
                growth = self._sockets.setdefault(sock, _Growth(None))
                if growth.only_grows(sock.unsent, now, GROWN_BYTES):
                    self._tell_of_socket(sock, growth, now)
            elif self._sockets:
                self._sockets.pop(sock, None)  # type: ignore[call-overload]

    def _tell_of_queue(self, queue: Handoff[Any], growth: _Growth, now: float) -> None:
        made = "made before lints were switched on, into which this puts" if growth.is_old else "made here"
        what = (
            f"a {type(queue).__name__} without a limit, which was {made}, only grows: from {growth.first} to"
            f" {growth.last} items in {now - growth.since:.0f} s; with a limit, who puts would wait for who takes"
        )
        self._findings.add(queue.loop, LintReport("growing-queue", what, growth.place or "?", queue))

    def _tell_of_socket(self, sock: CallbackSocket, growth: _Growth, now: float) -> None:
        what = (
            f"what is written here to {type(sock).__name__}, {connection(sock)}, is queued, and only grows: from"
            f" {growth.first} to {growth.last} bytes in {now - growth.since:.0f} s, for its peer reads slowly;"
            f" write_all would wait, and max_unsent close it"
        )
        self._findings.add(sock.loop, LintReport("growing-queue", what, growth.place or "?", sock))


def _is_unlimited(queue: Handoff[Any]) -> bool:
    if isinstance(queue, Queue):
        return queue.maxsize == 0
    return isinstance(queue, Channel) and queue.capacity == math.inf
