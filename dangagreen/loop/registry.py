"""The descriptor map of a loop: registering and unregistering fds, closing them, and reporting errors.

Rules: an fd is in the map from registration until its OS socket is closed, at the end of a turn; an fd that leaves
earlier takes its pending events with it; a callback that raises is reported once and costs its own descriptor only.
What does not belong here: the turn.
"""

from __future__ import annotations

import contextlib
from _thread import get_ident
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dangagreen import checks
from dangagreen.errors import ErrorContext, connection
from dangagreen.loop.error_log import ErrorLog, log
from dangagreen.loop.handlers import FdHandler, Handler
from dangagreen.loop.pollers import Events, Poller
from dangagreen.loop.schedule import Schedule


class Registry(Schedule):
    """The descriptors of one loop: base class of `Loop`."""

    __slots__ = {
        "accepting": "What registers next is an accepted connection, which no code of the program has made.",
        "error_count": "How many exceptions that reached no caller were reported.",
        "error_log": "The default of `on_error`.",
        "_maps": "What post-loop callbacks of this turn are given; None until the first of them needs it.",
        "_on_error": "The callable that `on_error` is.",
        "_others": "fd to FdHandler: those of `other_fds`, and perhaps some that were closed since.",
        "own_settings": "id of a socket to {name: value}, of sockets that were assigned settings of their own.",
        "_places": "A batch, and its index: fd to position. Made when the first fd leaves during that batch.",
        "batch": "The (fd, events) of this turn; (-1, 0) in the place of an fd that has left.",
        "handlers": "The descriptor map: fd to handler.",
        "instruments": "The `Instruments` that hear of its work; None while there are none.",
        "object_callbacks": "Post-loop callbacks of objects, by object.",
        "pending_reads": "Handlers with input that no event announces; True: it was pushed back in this turn.",
        "post_loop_callback": "What is called at the end of each turn; something false from it ends `run`.",
        "running": "Whether `run` is running.",
        "to_close": "Closed handlers whose OS sockets are to be closed at the end of the turn.",
    }

    def __init__(self, clock: Callable[[], float], poller: Poller) -> None:
        super().__init__(clock, poller)
        self.running = self.accepting = False
        self.handlers: dict[int, Handler] = {}
        self.instruments: Any = None
        self.pending_reads: dict[Handler, bool] = {}
        self.to_close: list[Handler] = []
        self.object_callbacks: dict[object, Callable[[], object]] = {}
        self._maps: tuple[dict[int, Any], dict[int, Callable[[int], object]]] | None = None
        self.post_loop_callback: Callable[..., object] | None = None
        self._others: dict[int, FdHandler] = {}
        self.error_log = ErrorLog(clock)
        self.error_count = 0
        self.own_settings: dict[int, dict[str, Any]] = {}
        self._on_error: Callable[[ErrorContext], object] = self.error_log
        self.batch: Events = []
        self._places: tuple[Events, dict[int, int]] = self.batch, {}

    # -- the map

    def descriptor_map(self) -> dict[int, Any]:
        """A copy of the map, fd to object, of all registered objects, without the fds of `other_fds`."""
        return {fd: handler for fd, handler in self.handlers.items() if not isinstance(handler, FdHandler)}

    def other_fds(self, fds: Mapping[int, Callable[[int], object]] | None = None) -> dict[int, Callable[[int], object]]:
        """fd to callable, of fds without an object; called with the event bits when the fd is readable.

        With `fds`, a mapping, replaces them all. Raises like `add_other_fds`.
        """
        if fds is not None:
            fds = _checked(fds)
            self.add_other_fds(fds)
            for fd, handler in list(self._others.items()):
                if fd not in fds:
                    handler.close()
        self._others = {fd: handler for fd, handler in self._others.items() if self.handlers.get(fd) is handler}
        return {fd: handler.callback for fd, handler in self._others.items()}

    def remove_other_fd(self, fd: int) -> None:
        """Stop watching an fd of `other_fds`, before or after it is closed. Does nothing if it is not watched."""
        self.check_thread("remove_other_fd")
        if (handler := self._others.pop(fd, None)) is not None and self.handlers.get(fd) is handler:
            handler.close()

    def post_loop_maps(self) -> tuple[dict[int, Any], dict[int, Callable[[int], object]]]:
        """`descriptor_map()` and `other_fds()` for post-loop callbacks, made once a turn and only if there is one."""
        if self._maps is None:
            self._maps = self.descriptor_map(), self.other_fds()
        return self._maps

    def post_loop_calls(self) -> Iterator[tuple[Callable[..., object], tuple[Any, ...]]]:
        """Each post-loop callback with its arguments, one after the other: an earlier one may end a later one."""
        self._maps = None
        for owner in [*self.object_callbacks, None]:
            callback: Any = self.post_loop_callback if owner is None else self.object_callbacks.get(owner)
            if callback is not None:  # None: none set, or an earlier callback has closed the object
                yield callback, () if owner is not None else self.post_loop_maps()
        self._maps = None

    def add_other_fds(self, fds: Mapping[int, Callable[[int], object]]) -> None:
        """Watch more fds without an object. The caller keeps them, and calls `remove_other_fd` before closing one.

        An fd that is watched already gets the new callable, and is registered anew: another file may have its number
        by now. Raises ValueError if a fd belongs to a socket, OSError if it cannot be watched; then none is added.
        """
        self.check_thread("add_other_fds")
        fds = _checked(fds)
        added: dict[int, FdHandler] = {}
        try:
            for fd, callback in fds.items():
                known = self._others.get(fd)
                if known is None or self.handlers.get(fd) is not known:
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
        """Put a handler into the descriptor map. Raises ValueError if another one has its fd."""
        if get_ident() != self.thread:
            self._check_open(f"registering {type(handler).__name__}")
        fd = handler.fd
        other = self.handlers.get(fd)
        if other is not None:
            raise ValueError(f"fd {fd} already belongs to {other!r}")
        self.handlers[fd] = handler

    def unregister(self, fd: int) -> None:
        """Take an fd, and its pending events, out of the map now: a new owner of the number must not get them."""
        self.handlers.pop(fd, None)
        self._others.pop(fd, None)
        batch, places = self._places
        if batch is not self.batch:  # indexed once for each batch, not for each fd that leaves
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
            self.discard(sock)

    def discard(self, sock: Any) -> None:
        """Close an OS socket that has no handler. An error of close(2) is reported: the caller has more to do."""
        try:
            sock.close()
        except OSError as error:
            self.report(ErrorContext("closing an OS socket that was given up failed", error))

    def close_later(self, handler: Handler) -> None:
        """Close the OS socket of a closed handler: at the end of this turn, or at once when no turn is running."""
        if self.pending_reads:
            self.pending_reads.pop(handler, None)
        if self.object_callbacks:
            self.object_callbacks.pop(handler, None)
        if self.own_settings:
            self.own_settings.pop(id(handler), None)
        self.to_close.append(handler)
        if not self.running:
            self._close_all()

    def _close_all(self) -> None:
        """Close the OS sockets of `to_close`, and take them out of the map."""
        while self.to_close:
            handler = self.to_close.pop()
            fd = handler.fd
            if self.handlers.get(fd) is handler:
                del self.handlers[fd]
            try:
                handler._close_fd()
            except Exception as error:
                self.report(ErrorContext(f"closing the OS socket of {_named(handler)} failed", error, handler))
        if not self.running:
            self._forget_closed()

    def _forget_closed(self) -> None:
        """Drop references to closed handlers, when no turn is running that would."""

    def _abandon_all(self) -> None:
        for handler in list(self.handlers.values()):
            if handler is not self.wakeup_pair:
                handler._abandon("the loop was reset")

    def _unknown_fd(self, fd: int) -> None:
        """An event for an fd without handler: unregistered during this batch (-1), or closed without being removed."""
        if fd >= 0:
            with contextlib.suppress(OSError, KeyError, ValueError):
                self.poller.remove(fd)

    # -- errors

    def call(self, handler: Handler, hook: Callable[[], object]) -> object:
        """Call a method that a subclass may override, in the handler's context; if it raises, the handler is closed."""
        try:
            if (result := handler._run(hook)) is not None:
                checks.outcome(f"{hook!r}", result)
            return result
        except Exception as error:
            self.handler_failed(handler, error)
            return None

    def handler_failed(self, handler: Handler, error: Exception) -> None:
        """Report what a handler's callback raised, and close that handler with it as the reason.

        Both in a copy of its context, since this may be called within the context itself.
        """
        handler._run_in_copy(self._failed, handler, error)

    def _failed(self, handler: Handler, error: Exception) -> None:
        try:
            self.report(ErrorContext(f"a callback of {_named(handler)} raised", error, handler))
            try:
                handler.close(error)
            except Exception as second:
                self.report(ErrorContext(f"close() of {_named(handler)} raised", second, handler))
        finally:
            handler._abandon(error)  # in case its own close() did not, or Ctrl-C was raised in `on_error`

    @property
    def on_error(self) -> Callable[[ErrorContext], object]:
        """Called with an `ErrorContext` for each exception that reaches no caller; by default it logs. Assignable."""
        return self._on_error

    @on_error.setter
    def on_error(self, report: Callable[[ErrorContext], object]) -> None:
        checks.function("loop.on_error", report)
        self._on_error = report

    def report(self, context: ErrorContext) -> None:
        """Call `on_error`. If that raises, both errors are logged."""
        self.error_count += 1
        try:
            if (result := self._on_error(context)) is not None:
                checks.outcome("on_error", result)
        except Exception:
            log().exception("loop.on_error raised; what it was to report follows")
            self.error_log(context)


def _named(handler: Handler) -> str:
    """A handler in an error message: "Echo, the connection with 127.0.0.1:80,"; its `repr` if it is no connection."""
    if not hasattr(handler, "peer_addr_string"):
        return repr(handler)
    return f"{type(handler).__name__}, {connection(handler)},"


def _checked(fds: Mapping[int, Callable[[int], object]]) -> dict[int, Callable[[int], object]]:
    """The argument of `other_fds`, as a dict. Raises TypeError or ValueError unless it maps ints to functions."""
    if not isinstance(fds, Mapping):
        raise TypeError(f"other_fds needs a mapping of fds to functions, not {checks.shown(fds)}")
    for fd, callback in fds.items():
        checks.count("an fd of other_fds", fd)
        checks.function("other_fds", callback)
    return dict(fds)
