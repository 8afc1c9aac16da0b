"""Who is in a loop: the map of descriptors, how they come and go, and what happens when one of them fails.

Rules: an fd is in the map from registration until its OS socket is closed, at the end of a turn; a callback that
raises is reported once and costs its own descriptor; an fd that leaves earlier takes its pending events with it. What
does not belong here: the turn.
"""

from __future__ import annotations

import contextlib
import logging
from _thread import get_ident
from collections.abc import Callable, Mapping
from contextvars import Context
from typing import Any

from dangagreen import checks
from dangagreen.errors import ErrorContext, connection
from dangagreen.loop.error_log import ErrorLog
from dangagreen.loop.handlers import FdHandler, Handler
from dangagreen.loop.pollers import Events, Poller
from dangagreen.loop.schedule import Schedule

log = logging.getLogger("dangagreen")


class Registry(Schedule):
    """The descriptors of one loop."""

    __slots__ = {
        **dict.fromkeys((
            "batch", "_error_log", "_maps", "_on_error", "_others", "_own_settings", "_places", "handlers",
            "object_callbacks", "pending_reads", "to_close",
        )),
        "running": "Whether `run` is at work.",
    }  # fmt: skip

    def __init__(self, clock: Callable[[], float], poller: Poller) -> None:
        super().__init__(clock, poller)
        self.running = False
        self.handlers: dict[int, Handler] = {}
        self.pending_reads: dict[Handler, bool] = {}  # no event tells of it; True: just pushed back
        self.to_close: list[Handler] = []
        self.object_callbacks: dict[object, Callable[[], object]] = {}  # each with the object it goes with
        self._maps: tuple[dict[int, Any], dict[int, Callable[[int], object]]] | None = None  # of this turn
        self._others: dict[int, FdHandler] = {}  # those of `other_fds`, and perhaps some that have been closed since
        self._error_log = ErrorLog(clock)
        self._own_settings: dict[int, dict[str, Any]] = {}  # of sockets that were given some, by id, and by name
        self._on_error: Callable[[ErrorContext], object] = self._error_log
        self.batch: Events = []
        self._places: tuple[Events, dict[int, int]] = self.batch, {}  # where the fds of a batch are

    # -- who is there

    def descriptor_map(self) -> dict[int, Any]:
        """fd -> object, of all that are registered: a copy, without the fds that have no object."""
        return {fd: handler for fd, handler in self.handlers.items() if not isinstance(handler, FdHandler)}

    def other_fds(self, fds: Mapping[int, Callable[[int], object]] | None = None) -> dict[int, Callable[[int], object]]:
        """The callables that are called with the event bits when their fd is readable; with `fds`, replace them all."""
        if fds is not None:
            fds = _checked(fds)
            self.add_other_fds(fds)
            for fd, handler in list(self._others.items()):
                if fd not in fds:
                    handler.close()
        self._others = {fd: handler for fd, handler in self._others.items() if self.handlers.get(fd) is handler}
        return {fd: handler.callback for fd, handler in self._others.items()}

    def remove_other_fd(self, fd: int) -> None:
        """Watch one of them no more, be it closed by now; harmless if it is not watched."""
        self.check_thread("remove_other_fd")
        if (handler := self._others.pop(fd, None)) is not None and self.handlers.get(fd) is handler:
            handler.close()

    def _post_loop_maps(self) -> tuple[dict[int, Any], dict[int, Callable[[int], object]]]:
        """What post-loop callbacks are given: `descriptor_map()` and `other_fds()`, once a turn and if anybody asks."""
        if self._maps is None:
            self._maps = self.descriptor_map(), self.other_fds()
        return self._maps

    def add_other_fds(self, fds: Mapping[int, Callable[[int], object]]) -> None:
        """Watch more of them. The caller keeps the fds, and takes them out with `remove_other_fd` before closing them.

        One that is watched already gets the new callable, and is watched anew: another file may have its number by now.

        Raises, and watches none of the new ones, if one of them belongs to a socket or cannot be watched (OSError).
        """
        self.check_thread("add_other_fds")
        fds = _checked(fds)
        added: dict[int, FdHandler] = {}
        try:
            for fd, callback in fds.items():
                known = self.handlers.get(fd)
                if not isinstance(known, FdHandler):
                    added[fd] = FdHandler(self, fd, callback)
                else:
                    known.watch_anew()
        except BaseException:
            for handler in added.values():
                handler.close()
            raise
        for fd, callback in fds.items():
            self.handlers[fd].callback = callback  # type: ignore[attr-defined]
        self._others |= added

    # -- coming and going

    def register(self, handler: Handler) -> None:
        """Put a handler into the descriptor map. Raises ValueError if somebody else holds its fd."""
        if get_ident() != self.thread:
            self._check_open(f"registering {type(handler).__name__}")
        other = self.handlers.get(handler.fd)
        if other is not None:
            raise ValueError(f"fd {handler.fd} already belongs to {other!r}")
        self.handlers[handler.fd] = handler

    def unregister(self, fd: int) -> None:
        """Take an fd out of the map now, its pending events too, so that no later owner of the number gets them."""
        self.handlers.pop(fd, None)
        self._others.pop(fd, None)
        batch, places = self._places
        if batch is not self.batch:  # looked up once for each batch, not for each fd that leaves
            batch, places = self._places = self.batch, {event[0]: place for place, event in enumerate(self.batch)}
        place = places.get(fd, len(batch))
        if place < len(batch) and batch[place][0] == fd:
            batch[place] = (-1, 0)

    def abandon(self, sock: Any, error: BaseException) -> None:
        """Close an OS socket whose handler could not be made, or not to the end."""
        half_made = self.handlers.get(sock.fileno())
        if half_made is not None:
            half_made._abandon(error)
        else:
            sock.close()

    def close_later(self, handler: Handler) -> None:
        """Close the OS socket of a closed handler: at the end of this turn, or at once when no turn is running."""
        if self.pending_reads:
            self.pending_reads.pop(handler, None)
        if self.object_callbacks:
            self.object_callbacks.pop(handler, None)
        if self._own_settings:
            self._own_settings.pop(id(handler), None)
        self.to_close.append(handler)
        if not self.running:
            self._close_all()

    def _close_all(self) -> None:
        while self.to_close:
            handler = self.to_close.pop()
            if self.handlers.get(handler.fd) is handler:
                del self.handlers[handler.fd]
            try:
                handler._close_fd()
            except Exception as error:
                self.report(ErrorContext(f"closing the OS socket of {_named(handler)} failed", error, handler))
            if len(handler._context):  # one of its variables may name the handler itself
                handler._context = Context()
        if not self.running:
            self._forget_closed()

    def _forget_closed(self) -> None:
        """No turn is to come soon, in which those that have closed would be forgotten."""

    def _abandon_all(self) -> None:
        for handler in list(self.handlers.values()):
            if handler is not self.wakeup_pair:
                handler._abandon("the loop was reset")

    def _unknown_fd(self, fd: int) -> None:
        """An event for an fd that nobody owns: forgotten in this batch (then it is -1), or closed behind our back."""
        if fd >= 0:
            with contextlib.suppress(OSError, KeyError, ValueError):
                self.poller.remove(fd)

    # -- errors

    def call(self, handler: Handler, hook: Callable[[], object]) -> object:
        """Call what a subclass may have overridden, in the handler's context; if it raises, that costs this handler."""
        try:
            if (result := handler._context.run(hook)) is not None:
                checks.outcome(f"{hook!r}", result)
            return result
        except Exception as error:
            self.handler_failed(handler, error)
            return None

    def handler_failed(self, handler: Handler, error: Exception) -> None:
        """Report what a handler's callback raised, and close that handler with it as the reason.

        In a copy of its context, since the caller may be in that one already.
        """
        handler._context.copy().run(self._failed, handler, error)

    def _failed(self, handler: Handler, error: Exception) -> None:
        try:
            self.report(ErrorContext(f"a callback of {_named(handler)} raised", error, handler))
            try:
                handler.close(error)
            except Exception as second:
                self.report(ErrorContext(f"close() of {_named(handler)} raised", second, handler))
        finally:
            handler._abandon(error)  # in case its own close() did not, or Ctrl-C struck in `on_error`

    @property
    def on_error(self) -> Callable[[ErrorContext], object]:
        """What is called with an `ErrorContext` for each failure that is nobody's; it logs by default. Assign yours."""
        return self._on_error

    @on_error.setter
    def on_error(self, report: Callable[[ErrorContext], object]) -> None:
        checks.function("loop.on_error", report)
        self._on_error = report

    def report(self, context: ErrorContext) -> None:
        """Hand an error to `on_error`; one that `on_error` itself raises is logged beside it."""
        try:
            if (result := self._on_error(context)) is not None:
                checks.outcome("on_error", result)
        except Exception:
            log.exception("loop.on_error raised; what it was to report follows")
            self._error_log(context)


def _named(handler: Handler) -> str:
    """ "Echo, the connection with 127.0.0.1:80,"; what is no connection by its `repr`."""
    if not hasattr(handler, "peer_addr_string"):
        return repr(handler)
    return f"{type(handler).__name__}, {connection(handler)},"


def _checked(fds: Mapping[int, Callable[[int], object]]) -> dict[int, Callable[[int], object]]:
    """What `other_fds` is given, as a dict. Raises TypeError and ValueError, before any of them is watched."""
    if not isinstance(fds, Mapping):
        raise TypeError(f"other_fds needs a mapping of fds to functions, not {checks.shown(fds)}")
    for fd, callback in fds.items():
        checks.count("an fd of other_fds", fd)
        checks.function("other_fds", callback)
    return dict(fds)
