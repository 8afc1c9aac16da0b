"""One proxied request: its body goes to a backend, whose response goes to the client, all of it in callbacks.

Rules: each request gets one response, also where no backend gives one (502, 503, 504); what is read from one side is no
more than the other is behind by a bounded amount; a backend is free as soon as it is not needed. Each end is told once:
`gone` for the client, `answered` or `lost` for the backend. What does not belong here: uploads that are collected first
(uploads), what a backend has somebody else answer (reproxying), who gets which backend (queues).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import perlbal.reproxying as reproxying
import perlbal.uploads as uploads
from dangagreen import Task, sleep, spawn
from perlbal.backends import PIECE, Backend
from perlbal.chunks import LAST, BadChunk, ChunkDecoder, chunk
from perlbal.clients import Client, Exchange
from perlbal.forwarding import backend_head
from perlbal.heads import BadHead, RequestHead, ResponseHead
from perlbal.pages import REASONS
from perlbal.priorities import NORMAL, priority

if TYPE_CHECKING:
    from perlbal.proxy_role import ProxyRole  # which is above this module

REPEATABLE = ("GET", "HEAD")
FIRST_HOOKS = ("start_proxy_request", "start_http_request", "proxy_read_request")
WHILE_WAITING = 32768  # bytes of a body that are read while a backend is waited for
RETRY_AFTER = (("Retry-After", "10"),)


class ProxyExchange(Exchange):
    """A client's exchange, which waits in the queues of backends, and is the consumer of an answer."""

    def __init__(self, role: ProxyRole, client: Client, head: RequestHead) -> None:
        self.role, self.client, self.head = role, client, head
        self.state = "wait_backend"
        self.backend: Backend | None = None  # that serves it; None before, and after
        self.task: Task[Any] | None = None  # that does a part of it in sequential style
        # its body
        self.pieces: list[bytes] = []  # that were read and not sent yet
        self.collected = 0  # bytes that were read before there was a backend
        self.decoder: ChunkDecoder | None = None
        self.upload: uploads.Upload | None = None  # the file that has it
        # its wait for a backend
        self.asked = False
        self.needs_fresh = False  # only a connection that was not used yet will do
        self.only_once = bool(client.body_left) or head.method not in REPEATABLE  # it may not be asked again
        self.priority = NORMAL
        self.queued_at = self.used_at = client.began  # and when it got its backend, on the loop's clock
        self.retries = 0  # how often a 500 was not passed on
        # its response
        self.response: ResponseHead | None = None  # the head that the client gets
        self.chunked = False  # it is framed in chunks
        self.limit = role.service.buffer_size  # bytes that the client may be behind
        self.held = False  # nothing is read from the backend, as the client is far behind

    def begin(self) -> None:
        """The head of the request is here; the client is in callback style."""
        client, service = self.client, self.role.service
        if service.hooks or service.high_priority_cookie:
            if any(service.run_hooks(hook, client) for hook in FIRST_HOOKS):
                return None
            self.priority = priority(service, client)
        if not client.body_left:
            if service.reproxy_cache_maxsize and service.enable_reproxy and not self.only_once:
                if (entry := self.role.cache.find(self.head, client.loop.now)) is not None:
                    return reproxying.begin_remembered(self, entry)
            return self.ask()
        self.state = "buffering_request"
        if client.body_left < 0:
            if service.buffer_uploads:
                return uploads.collect(self, "size")
            if service.backend_http_version != "1.1":
                client.last = True
                return client.error(411, "A chunked request is not taken here: give its Content-Length")
            self.decoder = ChunkDecoder(service.max_chunked_request_size)
        client.send_continue()
        if service.buffer_uploads and 0 < service.buffer_upload_threshold_size <= client.body_left:
            return uploads.collect(self, "size")
        if not service.buffer_backend_connect:
            self.ask()
        if client.buffered and client.exchange is self:
            self.input(client)
        return None

    def ask(self) -> None:
        self.asked = True
        self.state = "wait_backend"
        self.role.queues.ask(self)

    # -- from the client

    def input(self, client: Client) -> None:
        if client.code and self.backend is None:
            return client.pause()  # all is done but the sending
        if not client.body_left:
            return self._more_than_asked(client)
        data = client.read(PIECE if client.body_left < 0 else min(client.body_left, PIECE))
        if not data:
            return client.close("the client has left in the middle of its request") if data is None else None
        client.active = client.loop.now
        if self.decoder is None:
            client.body_left -= len(data)
        elif not client.code:
            data = self._decoded(client, self.decoder, data)
        backend = self.backend
        if client.code:
            return None  # the backend has answered early, or the request was refused: the rest is dropped
        if backend is None:
            self._collect(client, data)
        elif data:
            backend.since = client.active
            backend.write(data)
            if backend.unsent > backend.high_water and client.exchange is self:
                client.pause()
        return None

    def _decoded(self, client: Client, decoder: ChunkDecoder, data: bytes) -> bytes:
        """A piece of a chunked body, framed anew. One that cannot be read ends the exchange."""
        try:
            data = chunk(decoder.feed(data))
        except BadChunk as error:
            self.abandon(error.code, error.text)
            return b""
        if decoder.done:
            client.body_left = 0
            data += LAST
            client.push_back_read(decoder.rest)
        return data

    def _collect(self, client: Client, data: bytes) -> None:
        """Keep a piece for the backend that is asked for once there is enough."""
        self.pieces.append(data)
        self.collected += len(data)
        enough = self.role.service.buffer_backend_connect
        if not self.asked and (not client.body_left or self.collected >= enough):
            if client.body_left > 0 and (reason := uploads.reason(self)):
                return uploads.collect(self, reason)
            self.ask()
        if self.backend is None and self.collected >= enough + WHILE_WAITING and client.body_left:
            client.pause()
        return None

    def _more_than_asked(self, client: Client) -> None:
        """Input, or EOF, after the whole request: an empty line after a body, or the next request."""
        data = client.read(PIECE)
        if data is None:
            return client.close("the client has left")
        data = data.lstrip(b"\r\n")
        if not data:
            return None
        if self.head.content_length or self.decoder is not None or self.upload is not None:  # it has to wait
            client.push_back_read(data)
            return client.pause()
        client.last = True
        if client.code:  # the answer is under way
            client.pause()
        else:
            client.error(400, "Can't pipeline to HTTP/1.0")
        if self._is_answered():
            self._let_go()
        return None

    def room(self, backend: Backend) -> None:
        """The backend has taken what was sent: go on reading the body."""
        if backend.state == "sending_req" and not self.client.body_left:
            backend.state = "wait_res"
        if self.client.paused and self.client.body_left:
            self.client.resume()

    def gone(self, client: Client) -> None:
        self._let_go()

    def abandon(self, code: int, text: str) -> None:
        """Answer by an error, and close: neither the rest of the request nor a backend is of use any more."""
        self._let_go()
        client = self.client
        if client.exchange is self:
            client.last = True
            client.error(code, text)

    def _let_go(self) -> None:
        """Leave the queues, the backend, a task that works for this request, and its file."""
        self.role.queues.forget(self)
        task, self.task = self.task, None
        if task is not None:
            task.cancel("the exchange is over")
        backend, self.backend = self.backend, None
        if backend is not None:
            backend.release(keep=False)
        self.pieces.clear()
        if self.upload is not None:
            self.upload.remove(task)

    def overdue(self, client: Client) -> None:
        """Neither side of the client did anything for `idle_timeout`; the backend may have."""
        backend = self.backend
        if backend is not None and client.loop.now - backend.since < client.service.idle_timeout:
            return
        if self.response is not None or self.state in ("buffering_request", "buffering_upload"):
            client.close("nothing was sent or read for idle_timeout")
        elif backend is not None:
            self.timed_out()
        elif self.task is None:
            self.waited_in_vain()

    # -- a backend

    def use(self, backend: Backend) -> None:
        """The queues have a backend for it."""
        self.backend = backend
        client, service = self.client, self.role.service
        asked = self.head if self.upload is None else self.upload.edited(self.head)
        head = backend_head(service, client, asked, backend.node.name)
        now = client.loop.now
        self.node, self.used_at, self.queue_seconds = backend.node.name, now, now - self.queued_at
        if not backend.uses:
            self.connect_seconds = backend.connect_seconds
        if service.hooks and self.taken_over("backend_client_assigned", backend, client, head):
            return
        self.needs_fresh = False
        self.state = "wait_res"
        if self.upload is not None:
            self.upload.send(self, backend, head)
            return
        if self.pieces:
            backend.begin(self, head, b"".join(self.pieces))
            self.pieces.clear()
        else:
            backend.begin(self, head)
        if client.paused and client.body_left:
            client.resume()

    def taken_over(self, hook: str, *told: object) -> bool:
        """Whether a plugin has taken over. If it has answered, nothing is left to be done here."""
        taken: bool = self.role.service.run_hooks(hook, *told)
        if taken and self._is_answered():
            self._let_go()
        return taken

    def _is_answered(self) -> bool:
        """Whether somebody else has answered the request, or has taken it."""
        client = self.client
        return client.exchange is not self or (client.code != 0 and self.response is None)

    def waited_in_vain(self) -> None:
        """No backend has come within `queue_timeout`."""
        self.role.queues.forget(self)
        self._fail(503, "No backend is available", RETRY_AFTER)

    def timed_out(self) -> None:
        """The backend is silent for too long."""
        backend, self.backend = self.backend, None
        if backend is not None:
            backend.node.has_failed(self.client.loop.now, self.role.service.pool)
            backend.release(keep=False)
        self._fail(504, "The backend did not answer in time")

    def _fail(self, code: int, text: str, fields: tuple[tuple[str, str], ...] = ()) -> None:
        client = self.client
        self._let_go()
        if client.exchange is not self:
            return
        if client.code:
            client.last = True  # what came is sent; only the close tells that it is not all
            client.response_done()
        else:
            client.error(code, text, fields=fields)

    def lost(self, backend: Backend, reason: object) -> None:
        """The backend has ended without a whole response."""
        self.backend = None
        if self.response is None:
            if backend.uses > 1 and not (backend.heard or self.needs_fresh or self.only_once):
                self.needs_fresh = True  # it was closed while the request was on its way: once more
                return self.ask()
            backend.node.has_failed(self.client.loop.now, self.role.service.pool)
        if isinstance(reason, BadHead):
            return self._fail(502, f"The backend's answer is no HTTP: {reason.text}")
        return self._fail(502, "The backend ended the connection without an answer")

    # -- its response

    def answer(self, backend: Backend, head: ResponseHead, data: bytes) -> None:
        """The head of the response."""
        service = self.role.service
        if head.code == 500 and service.enable_error_retries and not self.only_once:
            if self.retries < len(service.error_retry_schedule):
                return self._retry(backend, service.error_retry_schedule[self.retries])
        self.response_seconds = self.client.loop.now - self.used_at
        if service.hooks and self.taken_over("backend_response_received", backend, head):
            return None
        if service.enable_reproxy and reproxying.is_asked_for(head):
            self.backend = None
            backend.release()
            return reproxying.begin(self, head)
        self.send_head(backend, head, data)
        return None

    def send_head(self, backend: Backend, head: ResponseHead, data: bytes) -> None:
        """Send the head to the client, and the beginning of the body."""
        client, service = self.client, self.role.service
        if service.hooks and self.taken_over("modify_response_headers", client, head):
            return
        if not head.reason:
            head.reason = REASONS.get(head.code, "")
        if head.chunked:
            if backend.decoder is not None and self.head.version >= 11:
                self.chunked = True
                head.sent_version = 11
                data = chunk(data)
            elif backend.modern:
                head.remove("transfer-encoding")
        self.response = head
        self.state = "xfer_res"
        client.active = client.loop.now
        if service.hooks:
            client.send_head(head)
            service.run_all_hooks("prepend_body", backend, client)
            client.sent += len(data)
            client.write(data)
        else:
            client.send_head(head, data)
        if client.unsent > self.limit:
            self._hold(backend)

    def more(self, backend: Backend, data: bytes) -> None:
        client = self.client
        if self.chunked:
            data = chunk(data)
        client.sent += len(data)
        if client.write(data):
            client.active = client.loop.now
        elif client.unsent > self.limit:
            self._hold(backend)

    def _retry(self, backend: Backend, delay: float) -> None:
        """A 500 is not passed on: ask another time, a little later."""
        self.retries += 1
        self.backend = None
        backend.release(keep=False)
        self.state = "wait_backend"
        self.task = spawn(self._ask_after, delay)

    def _ask_after(self, seconds: float) -> None:
        sleep(seconds)
        self.task = None
        self.ask()

    def _hold(self, backend: Backend) -> None:
        """Read no more of the response until the client has caught up."""
        self.held = True
        self.client.active = self.client.loop.now  # from now on it is to be seen reading
        backend.watch_read(False)
        self.client.write(self._go_on)

    def _go_on(self) -> None:
        """The client has caught up: all that was written for it was sent."""
        if self.held and self.backend is not None:
            self.held = False
            self.backend.since = self.client.loop.now
            self.backend.watch_read(True)

    def answered(self, backend: Backend) -> None:
        """The response is here, all of it."""
        client = self.client
        self.backend = None
        sending, self.task = self.task, None
        if sending is None:
            backend.release(keep=not client.body_left)
        else:
            backend.release_after(sending)
        if self.upload is not None:
            self.upload.remove(sending)
        if self.chunked:
            client.write(LAST)
        if client.exchange is self:
            client.response_done()
