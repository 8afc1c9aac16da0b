"""Socket, the one class of both styles: how a connection of `serve_requests` comes to its handler.

Rules: an idle connection is in callback style, and input starts its handler in a borrowed greenlet; the end of an idle
connection starts nobody. What does not belong here: what the handler's task does (that is handler_task), and bytes.
"""

from __future__ import annotations

from contextvars import copy_context
from functools import partial
from typing import Any

from dangagreen import checks
from dangagreen.net.handler_task import RequestTask
from dangagreen.sockets.settings import adopt_settings
from dangagreen.sockets.subclassing import check_identity, check_subclass
from dangagreen.streams.writing import StreamSocket

_FIRST = 16384  # bytes that are received before the handler is started


class Socket(StreamSocket):
    """The one socket class: callback style, sequential style, and the passage between them. Subclass it."""

    __slots__ = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_subclass(cls, Socket)

    def event_read(self) -> object:
        """Called when there is input, while reading is watched. On a server made by `serve_requests` it starts the
        handler; elsewhere a subclass that watches reading must override it."""
        handler = getattr(self._listener, "handler", None)
        if handler is None:
            return super().event_read()
        if self._at_work and self._at_work & 1:  # its end watches again
            self._watch_read = False
            return None
        if not self._buffer:
            if not self._eof and not (self._write_closed and (self.closed or self._finishing)):
                try:
                    self._receive(_FIRST)
                except OSError as error:
                    self.debugmsg("%r between two requests", error)
            if not self._buffer:
                self._has_no_request()
                return None
        self._watch_read, self._sequential = False, 1
        self._at_work += 1
        if type(self).event_read is Socket.event_read:
            RequestTask(self, handler).start()
        else:  # not within it: what it undoes at its end, a current span perhaps, would be undone amid the request
            self.loop.runnable.append(RequestTask(self, handler, copy_context()).start)
        return None

    def _has_no_request(self) -> None:
        """At the end of the stream the connection ends, and nobody is started for that.

        A reset, or a hang-up, is told to its hook first, as in callback style.
        """
        if self._eof and not self.closed and not self._finishing:  # or the event_read of a subclass has ended it
            self._on_eof()
            self._end_idle()

    def _end_idle(self) -> None:
        """Finish in this turn still, when the hooks have been called."""
        self.loop.ready.append(partial(self.loop.call, self, self._finish_idle))

    def _finish_idle(self) -> None:
        if self._eof and not self._at_work and not self._buffer and self._reader is None:
            self.finish()

    def _was_released(self) -> None:
        if self._eof and getattr(self._listener, "handler", None) is not None:
            self._end_idle()


def check_socket_class(call: str, maker: Any, base: type) -> None:
    """Raise TypeError for what makes no connections: neither a subclass of `base` nor a `functools.partial` of one."""
    made = innermost(maker)
    if isinstance(made, type) and issubclass(made, base):
        if abstract := getattr(made, "__abstractmethods__", None):
            raise TypeError(
                f"{call} cannot make objects of the abstract {made!r}: it lacks {', '.join(sorted(abstract))}"
            )
        check_identity(made)  # a decorator may have given it an __eq__ since it was made
        adopt_settings(made, fixed=True)  # and anybody settings
    else:
        raise TypeError(
            f"{call} needs a subclass of {base.__name__}, or a functools.partial of one, not {checks.shown(maker)}"
        )


def innermost(function: Any) -> Any:
    """What is called in the end by a `functools.partial`; anything else itself."""
    while isinstance(function, partial):
        function = function.func
    return function
