"""The listener of `serve` and `serve_requests`: what its users see of a server, and ask of it.

Rules: it accepts nothing while all the handshakes are under way that may be; `stop` may be called from any thread, and
is not lost where nobody serves yet. What does not belong here: how a graceful shutdown goes (draining), signals
(serve_forever).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from dangagreen import checks
from dangagreen.green.parking import checkpoint
from dangagreen.loop.loop import Loop
from dangagreen.net.draining import Drain
from dangagreen.net.handler_task import HandlerTask
from dangagreen.net.opening import Openings
from dangagreen.parks import parks
from dangagreen.sockets.listener import Server
from dangagreen.sockets.sock import CallbackSocket


class Listener(Server):
    """A server: accepts connections, and shuts down gracefully. Made by `serve` and `serve_requests`.

    Class attributes, in seconds: `new_connection_grace` (how long a drain waits for a request on a connection that was
    just accepted, or active), `linger_seconds` (how long for the FIN of peers that were sent one), `clean_up_seconds`
    (how long for handlers that it has cancelled).
    """

    __slots__ = {
        "_drain": "Its graceful shutdown, in progress or over; None before one has begun.",
        "_on_failure": "Called when it can accept no more: set by the `serve_forever` that has it.",
        "_on_stop": "Called by `stop()`: set by the `serve_forever` that has it; None otherwise.",
        "_stops": "How often `stop()` was called while no `serve_forever` had it.",
        "handler": "The function that `serve_requests` was given; None for `serve`.",
        "openings": "What its connections go through before they are open, such as a TLS handshake; or None.",
    }

    new_connection_grace: ClassVar[float] = 0.25
    linger_seconds: ClassVar[float] = 1.0
    clean_up_seconds: ClassVar[float] = 5.0

    def __init__(
        self,
        sock: Any,
        connected: Callable[[Any, Any], object],
        *,
        max_connections: int | None = None,
        nodelay: bool = True,
        handler: Callable[[Any], object] | None = None,
        openings: Openings | None = None,
        loop: Loop | None = None,
    ) -> None:
        for name in ("new_connection_grace", "linger_seconds", "clean_up_seconds"):
            checks.seconds(f"Listener.{name}", getattr(self, name))
        self.handler = handler  # what its connections start when they have input, if anything
        self.openings = openings
        self._drain: Drain | None = None
        self._on_stop: Callable[[], object] | None = None
        self._on_failure: Callable[[], object] | None = None
        self._stops = 0
        Server.__init__(self, sock, connected, max_connections=max_connections, nodelay=nodelay, loop=loop)

    @property
    def failed_handshakes(self) -> int:
        """How many connections were refused, or have failed, before they were open; the debug log says why."""
        return 0 if self.openings is None else self.openings.failed

    def may_accept(self) -> bool:
        """Whether another connection may be opened now."""
        return self.openings is None or not self.openings.full

    @property
    def draining(self) -> bool:
        """Whether a drain has begun. A handler may tell its peer, as HTTP does by `Connection: close`."""
        return self._drain is not None

    @parks
    def drain(self, grace: float | None = 30.0) -> list[CallbackSocket]:
        """Parks until the server has shut down gracefully. Returns the connections that were cut off.

        Accepts the connections in the kernel's accept queue, and closes; ends idle connections, and those at work once
        they are idle. After `grace` seconds (None is no limit) cancels the handlers that are left, closes the other
        connections, and waits for clean-up. Once begun it goes on, also if the caller is cancelled; several calls have
        the earliest of their deadlines and the same result. Raises RuntimeError in a handler of its own connections.
        """
        me = checkpoint(self.loop, "drain")
        if isinstance(me, HandlerTask) and me.sock._is_of(self):
            raise RuntimeError(f"{me!r} cannot drain {self!r}, which waits for its handlers: spawn(listener.drain)")
        drain = self._begin_drain(grace)
        drain.wait(me)
        return list(drain.cut_off)

    def stop(self) -> None:
        """End the `serve_forever` that has this listener, or the next one that gets it, as a signal does.

        May be called from any thread.
        """
        self.loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        if self._on_stop is not None:
            self._on_stop()
        else:
            self._stops += 1

    def _tell(self, on_stop: Callable[[], object] | None, on_failure: Callable[[], object] | None) -> None:
        """A `serve_forever` has it now, or with None no more: what to call on `stop()`, also for each that came before,
        and when it can accept no more."""
        self._on_stop, self._on_failure = on_stop, on_failure
        if on_stop is not None:
            self.loop.ready.extend([on_stop] * self._stops)
            self._stops = 0

    def _on_close(self) -> None:
        if isinstance(self.close_reason, BaseException) and self._on_failure is not None:
            self.loop.ready.append(self._on_failure)

    def _begin_drain(self, grace: float | None) -> Drain:
        """The drain in progress, or a new one, with `grace` seconds from now on at most."""
        if grace is not None:
            grace = checks.seconds("the grace of a drain", grace)
        drain = self._drain
        if drain is None or not (drain.over or drain in self.loop.object_callbacks):  # a reset of the loop drops it
            drain = self._drain = Drain(self)
            self.tell_of_connections(drain.add)
        drain.tighten(grace)
        return drain
