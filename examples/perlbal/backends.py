"""A connection to a node: connecting, verification, one response after the other.

Bytes are passed on in callbacks; verification, and what a reproxy asks for, are dialogues of tasks on the same object,
which then goes on in callback style. The connection belongs to a keeper (the queues of a service, or the connections of
reproxied urls), and while it is used to a consumer as well, which hears each of these once, in this order:

    answer(backend, head, data)    the head of the response has come, and with it so much of the body
    more(backend, data)            more of it, any number of times
    answered(backend)              all of it was told; then `release` tells whether it is kept
or  lost(backend, reason)          the connection has ended before that

What does not belong here: which connection is used for what, and what is done with a response.
"""

from __future__ import annotations

import re
import socket
from typing import Any, Protocol

from dangagreen import Socket, SocketLike, Task, move_on_after, spawn, timeout
from perlbal.chunks import BadChunk, ChunkDecoder
from perlbal.heads import HEAD_LIMIT, BadHead, RequestHead, ResponseHead, head_end, parse_response
from perlbal.pools import NOT_VERIFIED_SECONDS, Node
from perlbal.services import Service

PIECE = 65536  # bytes that are read at once
LATE_SECONDS = 1.0  # that a backend may take to receive the rest of a request which it has answered
SWALLOWED = 1024 * 1024  # bytes of the body of an answer to a verification, at most
UNTIL_CLOSE = -1  # bytes of a body that ends with the connection
_TIMEOUT = re.compile(r"\btimeout=(\d+)", re.ASCII)


class Consumer(Protocol):
    """Whose request it is."""

    def answer(self, backend: Backend, head: ResponseHead, data: bytes) -> None: ...
    def more(self, backend: Backend, data: bytes) -> None: ...
    def answered(self, backend: Backend) -> None: ...
    def lost(self, backend: Backend, reason: object) -> None: ...
    def room(self, backend: Backend) -> None: ...


class Keeper(Protocol):
    """To whom the connection belongs. `service` is None for those that all services share."""

    @property
    def service(self) -> Service | None: ...
    def connected(self, backend: Backend) -> None: ...
    def released(self, backend: Backend) -> None: ...
    def gone(self, backend: Backend, reason: object) -> None: ...


class Backend(Socket):
    """A connection to a node. Times are on the loop's clock."""

    danga_class = "Perlbal::BackendHTTP"  # what the original calls it

    def __init__(self, sock: SocketLike, node: Node, keeper: Keeper) -> None:
        super().__init__(sock)
        self.node, self.keeper = node, keeper
        self.consumer: Consumer | None = None  # whose request it serves; None while it is idle
        self.state = "connecting"  # or verifying_backend, bored, sending_req, wait_res, xfer_res
        self.created = self.loop.now
        self.since = self.created  # when it was made, was given a request, or has last made progress
        self.connect_seconds = 0.0  # how long it took to connect
        self.attention = False  # a verification has shown that somebody listens
        self.uses = 0  # requests that it was given
        self.usable_until = 0.0  # up to when the server has promised to keep it; 0: no promise
        # of the request that it was given last
        self.active = False  # it is under way, which the node counts
        self.modern = False  # it was one of HTTP/1.1
        self.no_body = False  # it was HEAD
        self.heard = False  # something has come since
        # of its response
        self.held = b""  # the beginning of a head
        self.head: ResponseHead | None = None  # once it has come
        self.decoder: ChunkDecoder | None = None  # where the body is chunked, and asked for as HTTP/1.1
        self.left = 0  # bytes of the body that are still to come; UNTIL_CLOSE
        self.keeps = False  # the connection may be used again after it
        node.attempted()

    @property
    def service(self) -> Service | None:
        return self.keeper.service

    def as_string(self) -> str:
        """What `socks` says of it."""
        more = "; has_attention=yes" if self.attention else ""
        port = (self.local_addr_string() or "").rpartition(":")[2]
        return (
            f"{self.danga_class}(R): open to {self.node.name}: localport={port}; uses={self.uses}; {self.state}{more}"
        )

    # -- connecting, verification

    def event_connect(self) -> None:
        """It is connected: its keeper says what comes next."""
        self.node.connected()
        self.since = self.loop.now
        self.connect_seconds = self.since - self.created
        self.keeper.connected(self)

    def verify(self, path: str) -> None:
        """Ask whether somebody listens, before a request depends on it; then the keeper gets it, or it closes."""
        self.state = "verifying_backend"
        service = self.service
        if service is not None and service.run_hooks("backend_write_verify", self):
            return
        self.node.verifies += 1
        spawn(self._verify, path)

    def _verify(self, path: str) -> None:
        try:
            with timeout(15):
                self.write(b"OPTIONS %b HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" % path.encode("latin-1"))
                head = self.read_head()
                if self.service is not None and self.service.run_hooks("backend_readable_verify", self):
                    return
                self.attention = self._begin_body(head) and self.left <= SWALLOWED
                if self.attention and self.left:
                    self.read_exactly(self.left)
        except (BadHead, EOFError, OSError) as error:
            self.close(error)
            return
        if self.attention:
            self.left = 0
            self.watch_read(True)
            self.keeper.released(self)
        else:
            self.node.unverified_until = self.loop.now + NOT_VERIFIED_SECONDS
            self.close("the verification was refused")

    def read_head(self) -> ResponseHead:
        """Parks until the head of the final response has come. Raises BadHead, EOFError, LimitError, OSError."""
        while True:
            lines = [self.read_line(HEAD_LIMIT)]
            while lines[-1] not in (b"\r\n", b"\n", b""):
                lines.append(self.read_line(HEAD_LIMIT))
                if sum(map(len, lines)) > HEAD_LIMIT:
                    raise BadHead("long head")
            if not lines[-1]:
                raise EOFError("the connection ended before the end of the head")
            head = parse_response(b"".join(lines))
            if not 100 <= head.code < 200:
                return head

    # -- a request

    def begin(self, consumer: Consumer, head: RequestHead, data: bytes = b"") -> None:
        """Send a request, with so much of its body. The rest the consumer writes."""
        self._count(head)
        self.consumer = consumer
        if not self.write(head.to_bytes() + data if data else head.to_bytes()):
            self.state = "sending_req"
        self.watch_read(True)

    def _count(self, head: RequestHead) -> None:
        self.head = None
        self.no_body = head.method == "HEAD"
        self.modern = head.version >= 11
        self.uses += 1
        self.keeps = self.heard = False
        self.state = "wait_res"
        self.since = self.loop.now
        node = self.node
        node.requests += 1
        node.active += 1
        self.active = True

    def _uncount(self) -> None:
        if self.active:
            self.active = False
            self.node.active -= 1

    def ask(self, consumer: Consumer, head: RequestHead) -> ResponseHead:
        """Parks until the head of the response has come: a request in sequential style. With `go_on` its body is passed
        on in callback style. Raises BadHead, EOFError, OSError; `release` is due in any case.
        """
        self._count(head)
        self.write(head.to_bytes())
        answer = self.read_head()
        self.consumer = consumer  # from now on it hears of the end
        self._begin_response(answer)
        return answer

    def go_on(self) -> None:
        """Pass the body of the response on, in callback style."""
        if not self.left and self.consumer is not None:
            self.consumer.answered(self)
        else:
            self.watch_read(True)

    def on_low_water(self) -> None:
        """There is room for more of the request's body."""
        self.since = self.loop.now
        if self.consumer is not None:
            self.consumer.room(self)

    # -- its response

    def event_read(self) -> None:
        """A piece of a response; or, while it is idle, its end."""
        data = self.read(PIECE)
        if not data:
            if data is None:
                self.close("the server has ended the connection")
        elif self.consumer is None:
            self.close("the server has sent what nobody has asked for")
        elif self.head is None:
            self._take_head(data)
        else:
            self._take_body(self.consumer, data)

    def _take_head(self, data: bytes) -> None:
        """A piece that has a part of the head at least. 1xx are dropped: the client was not told to wait for them."""
        self.heard = True
        if self.held:
            data = self.held + data
        try:
            end = head_end(data)
            while end > 0:
                head = parse_response(data[:end])
                data = data[end:]
                if head.code >= 200:
                    return self._take_response(head, data)
                if head.code == 101:
                    raise BadHead("status line")
                end = head_end(data)
        except BadHead as error:
            return self.close(error)
        self.held = data
        return None

    def _take_response(self, head: ResponseHead, data: bytes) -> None:
        self.held = b""
        self._begin_response(head)
        try:
            data = self._framed(data) if data else data
        except BadChunk as error:
            return self.close(error)
        consumer = self.consumer
        assert consumer is not None
        done = not self.left
        consumer.answer(self, head, data)
        if done and self.consumer is consumer:
            consumer.answered(self)
        return None

    def _take_body(self, consumer: Consumer, data: bytes) -> None:
        self.since = self.loop.now
        try:
            data = self._framed(data)
        except BadChunk as error:
            return self.close(error)
        done = not self.left
        if data:
            consumer.more(self, data)
        if done and self.consumer is consumer:
            consumer.answered(self)
        return None

    def _begin_response(self, head: ResponseHead) -> None:
        self.head = head
        self.state = "xfer_res"
        self.node.answered(head.code)
        self.keeps = self._begin_body(head)

    def _begin_body(self, head: ResponseHead) -> bool:
        """Note how the body is framed. Returns whether the connection may be used again after it."""
        length = head.content_length
        self.decoder = None
        if self.no_body or head.code in (204, 304):
            self.left = 0
        elif head.chunked and self.modern:
            self.decoder = ChunkDecoder()
            self.left = UNTIL_CLOSE
        else:
            self.left = UNTIL_CLOSE if length is None else length
        if (promise := head.get("keep-alive")) and (seconds := _TIMEOUT.search(promise)):
            self.usable_until = self.loop.now + int(seconds[1])
        return head.wants_keep_alive and (self.left >= 0 or self.decoder is not None)

    def _framed(self, data: bytes) -> bytes:
        """What of these bytes is body; `left` is 0 at its end. What comes behind it belongs to nobody."""
        if self.decoder is not None:
            data = self.decoder.feed(data)
            if self.decoder.done:
                self.left = 0
                self.keeps = self.keeps and not self.decoder.rest
        elif self.left >= 0:
            if len(data) > self.left:
                data = data[: self.left]
                self.keeps = False
            self.left -= len(data)
        return data

    # -- its end

    def has_input(self) -> bool:
        """Whether there is input, or EOF, which the loop has not told of yet: for an idle connection, its end."""
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    def release_after(self, sending: Task[Any]) -> None:
        """The answer is here, and a task still sends the request: it is kept if that ends soon."""
        self.consumer = None
        spawn(self._release_after, sending)

    def _release_after(self, sending: Task[Any]) -> None:
        with move_on_after(LATE_SECONDS):
            sending.join()
        self.release(keep=sending.done)

    def release(self, keep: bool = True) -> None:
        """The consumer has done with it: it is kept if both sides have agreed on that, and all was received."""
        self.consumer = None
        self._uncount()
        if self.closed:
            return
        if keep and self.keeps and not self.left and not self.unsent:
            self.head = self.decoder = None
            self.watch_read(True)
            self.keeper.released(self)
        else:
            self.close("it is used no more")

    def close(self, reason: object = None) -> None:
        """Close it, and tell whoever has it. A body that ends with the connection is complete then."""
        if self.closed:
            return
        super().close(reason)
        consumer = self.consumer
        if consumer is not None and self.head is not None and self.left == UNTIL_CLOSE and self.decoder is None:
            self.left = 0
            consumer.answered(self)
        elif consumer is not None:
            self.consumer = None
            self._uncount()
            consumer.lost(self, reason)
        self.keeper.gone(self, reason)

    def event_connect_failed(self, error: Exception) -> None:
        """The keeper hears of it by the close that follows."""
