"""The client side: a connection that asks, and what is being done for its request.

It is in callback style: between requests it is one small object, without a greenlet and without a timer (one sweep
looks after all of them). A head may come in any pieces; when it is whole, the role of the service has the request
(`begin`), and from then on what the client sends is the affair of the exchange that the role has made for it. The
rules of keep-alive are here, and nowhere else. What does not belong here: what a role answers, and bodies.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from resource import RLIMIT_NOFILE, getrlimit
from socket import SO_SNDBUF, SOL_SOCKET
from typing import Any

from dangagreen import Listener, Socket, current_loop, serve
from perlbal.access_log import open_log
from perlbal.heads import BadHead, RequestHead, ResponseHead, head_end, parse_request
from perlbal.language import CommandError
from perlbal.pages import page
from perlbal.services import Role, Service, World
from perlbal.tls import server_context

HANDSHAKE_SECONDS = 60.0
SWEEP_SECONDS = 5.0  # between two looks at all clients, as in the original
READ_SIZE = 8192
SPARE_PART = 8  # of the descriptors that a process may have, one part is for backends, files and the management port
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_WITHOUT_LENGTH = 204, 304


class Exchange:
    """What is being done for one request, from `Role.begin` to `Client.response_done`. Roles derive theirs from it.

    For the log: the `node` that has answered, and the seconds in a queue, until a backend was connected, and until that
    answered.
    """

    state = "wait_res"  # the word for it in `states`
    node = ""
    queue_seconds = connect_seconds = response_seconds = 0.0

    def input(self, client: Client) -> None:
        """There is input, or EOF. By default it waits: the next request, and the end, are looked at after this one."""
        client.pause()

    def gone(self, client: Client) -> None:
        """The client closes before the response is over, whoever has closed it. Called once."""

    def low_water(self, client: Client) -> None:
        """After more than `high_water`, no more than `low_water` bytes wait for the client to read."""

    def overdue(self, client: Client) -> None:
        """Neither side did anything for `idle_timeout`."""
        client.close("nothing was sent or read for idle_timeout")


class Client(Socket):
    """One connection of a client.

    `service` is the one that it came in by, and `target` the one that answers the present request: another one behind
    a selector. `active` is when it last sent or read something, `began` when the first bytes of the request came, both
    on the loop's clock. `body_left` is how much of the request's body was not read: bytes, or -1 for a chunked one
    whose end has not come. `code` is that of the response, 0 before its head was sent; `sent` counts the bytes of its
    body. `last`: the connection is closed after it, which whoever sets it before the head is sent has decided.
    """

    __slots__ = (
        "active",
        "began",
        "body_left",
        "code",
        "created",
        "exchange",
        "head",
        "last",
        "partial",
        "paused",
        "sent",
        "served",
        "service",
        "target",
    )

    def __init__(self, sock: Any, service: Service) -> None:
        super().__init__(sock)
        if service.client_sndbuf_size:
            sock.setsockopt(SOL_SOCKET, SO_SNDBUF, service.client_sndbuf_size)
        self.service = self.target = service
        self.created = self.active = self.began = self.loop.now
        self.head: RequestHead | None = None
        self.exchange: Exchange | None = None
        self.partial = b""
        self.last = self.paused = False
        self.body_left = self.code = self.sent = self.served = 0

    # -- the request

    def event_read(self) -> None:
        if self.exchange is not None:
            return self.exchange.input(self)
        data = self.read(READ_SIZE)
        if not data:
            return self.client_ended() if data is None else None
        self.active = now = self.loop.now
        if self.partial:
            data = self.partial + data
        elif data[0] <= 13 and self.served and not (data := data.lstrip(b"\r\n")):
            return None  # an empty line after a request's body
        else:
            self.began = now
        try:
            end = head_end(data)
            if end < 0:
                self.partial = data
                return None
            if end < len(data):
                self.push_back_read(data[end:])
                data = data[:end]
            self.partial = b""
            self.head = head = parse_request(data)
        except BadHead as bad:
            return self.refuse(bad.code, bad.text)
        self.body_left = -1 if head.chunked else head.content_length or 0
        self.service.world.requests += 1
        return self.hand_to(self.service)

    def client_ended(self) -> None:
        """EOF between two requests. What was answered already may still be on its way."""
        if self.unsent:
            self.finish()
        else:
            self.close("the client has left")

    def hand_to(self, service: Service) -> None:
        assert self.head is not None
        self.target = service
        service.role.begin(self, self.head)

    def pause(self) -> None:
        """Read no more: TCP stops the client. After the response it is read again."""
        self.paused = True
        self.watch_read(False)

    def resume(self) -> None:
        """Read again, what was read ahead first."""
        self.paused = False
        self.watch_read(True)

    def send_continue(self) -> None:
        """Tell a client that waits for it to send the body."""
        head = self.head
        if head is not None and head.version >= 11 and "100-continue" in head.get("expect").lower():
            self.write(CONTINUE)

    # -- the response

    def stays(self, code: int, has_length: bool) -> bool:
        """Whether the connection is kept after a response with this code, whose head is sent now."""
        request, service = self.head, self.service
        self.code = code
        if (
            request is None
            or self.last
            or self.body_left
            or not (service.persist_client and service.enabled)
            or service.world.stopping
            or not request.wants_keep_alive
            or not (has_length or code in _WITHOUT_LENGTH or request.method == "HEAD")
        ):
            self.last = True
        return not self.last

    def send_head(self, head: ResponseHead, body: bytes = b"") -> bool:
        """Send a head, which says what becomes of the connection, and the first bytes of the body. As `write`."""
        fields = head.fields
        if self.stays(head.code, "content-length" in fields or head.sent_version >= 11):
            fields["connection"] = "Connection: keep-alive"
            seconds = self.service.persist_client_idle_timeout
        else:
            fields["connection"] = "Connection: close"
            seconds = 0
        if seconds:
            fields["keep-alive"] = f"Keep-Alive: timeout={seconds}, max=100"
        else:
            fields.pop("keep-alive", None)
        data = head.to_bytes() + body
        self.sent += len(body)
        return self.write(data)

    def error(self, code: int, text: str = "", *, fields: Iterable[tuple[str, str]] = ()) -> None:
        """Answer by a page of our own, which ends the exchange. If the answer has begun, only closing tells of it."""
        if self.code:
            return self.close(f"{code} {text}")
        head, body = page(code, text, self.service.server_tokens)
        for name, value in fields:
            head.set(name, value)
        self.send_head(head, b"" if self.head is not None and self.head.method == "HEAD" else body)
        return self.response_done()

    def refuse(self, code: int, text: str) -> None:
        """Answer what is no request, and close."""
        self.head, self.last = None, True
        self.error(code, text)

    def response_done(self) -> None:
        """The response was written whole. The next request is read once it was sent whole, and the client is back at
        the service that it came in by."""
        if self.closed:
            return None
        if self.unsent:
            if self.exchange is None:
                self.exchange = Sending()
            self.write(self.response_done)
            return None
        target, exchange = self.target, self.exchange
        target.meter.answered(self.code, self.loop.clock() - self.began, self.sent)
        if exchange is not None and exchange.node:
            target.world.node_meters[exchange.node].answered(self.code, exchange.response_seconds, self.sent)
        if target.log is not None:
            target.log.note(self)
        self.exchange = None
        if target.hooks:
            target.run_all_hooks("end_proxy_request", self)
        if self.last:
            return self.finish()
        self.head = None
        if target is not self.service and self.service.hooks:
            self.service.run_all_hooks("return_to_base", self)
        self.target = self.service
        self.code = self.sent = 0
        self.served += 1
        if self.paused:
            self.resume()
        return None

    def file_sent(self) -> None:
        """The last byte of a file was sent, which is the end of the response, unless a plugin takes over."""
        if not (self.target.hooks and self.target.run_hooks("reproxy_fh_finished", self)):
            self.response_done()

    # -- the end

    def close(self, reason: object = None) -> None:
        exchange, self.exchange = self.exchange, None
        super().close(reason)
        if exchange is not None:
            exchange.gone(self)
            if self.target.hooks:
                self.target.run_all_hooks("end_proxy_request", self)

    def event_write(self) -> None:
        self.active = self.loop.now
        super().event_write()

    def on_low_water(self) -> None:
        if self.exchange is not None:
            self.exchange.low_water(self)

    @property
    def state(self) -> str:
        """The word for it in `states`."""
        if self.exchange is not None:
            return self.exchange.state
        return "persist_wait" if self.served and not self.partial else "reading_headers"

    @property
    def idle(self) -> bool:
        """Whether a graceful shutdown may end it: it is between two requests."""
        return self.head is None and not self.partial and super().idle

    def look_at_clock(self, now: float) -> None:
        """End what has taken too long: a head, the pause between two requests, an exchange without progress."""
        service = self.service
        if self.unsent and 0 < service.client_stall_timeout < now - self.active:
            self.close("the client does not read")
        elif self.exchange is not None:
            if service.idle_timeout and now - self.active > service.idle_timeout:
                self.exchange.overdue(self)
        elif self.partial:
            if service.head_timeout and now - self.began > service.head_timeout:
                self.refuse(408, "The header took too long")
        else:
            seconds = service.persist_client_idle_timeout if self.served else service.idle_timeout
            if seconds and now - self.active > seconds:
                self.close("idle for too long")


class Working(Exchange):
    """Something is done for the request, as on a disk, in which the client has no part."""

    state = "wait_stat"

    def overdue(self, client: Client) -> None:
        """It may take as long as it takes."""


class Sending(Exchange):
    """A response that was written and is not sent yet."""

    state = "draining_res"


class HttpRole(Role):
    """The base of the roles whose clients speak HTTP."""

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self.tls: Any = None  # the SSLContext of the listener

    def listen(self, address: Any) -> Listener:
        service = self.service
        self.tls = server_context(service) if service.enable_ssl else None
        made = partial(Client, service=service)
        listener = serve(address, made, tls=self.tls, handshake_timeout=HANDSHAKE_SECONDS)
        listener.spare_descriptors = max(getrlimit(RLIMIT_NOFILE)[0], 0) // SPARE_PART
        return listener

    def check_listening(self) -> None:
        if self.service.enable_ssl:
            server_context(self.service)

    def reread_certificates(self) -> None:
        """Have connections that come from now on see the certificate, and the key, that are in the files now."""
        if self.tls is not None:
            self.tls.load_cert_chain(self.service.ssl_cert_file, self.service.ssl_key_file)

    def opened(self) -> None:
        begin_sweeping(self.service.world)

    def closed(self) -> None:
        if self.service.log is not None:
            self.service.log.flush()

    def changed(self, key: str) -> None:
        if key in ("access_log", "access_log_times") and not self.service.world.dry:
            self._open_log()

    def _open_log(self) -> None:
        """Have the access log that the parameters ask for. Raises CommandError, and then the log is the former one."""
        service, before = self.service, self.service.log
        try:
            service.log = open_log(service.access_log, service.access_log_times)
        except OSError as error:
            path, service.access_log = service.access_log, "none" if before is None else before.path
            raise CommandError(f"{path}: {error.strerror}") from None
        if before is not None:
            before.close()


def clients_of(world: World) -> list[Client]:
    return [one for one in Socket.descriptor_map().values() if isinstance(one, Client) and one.service.world is world]


def begin_sweeping(world: World) -> None:
    """Look at the clocks of all clients from time to time, for as long as there may be some."""
    if world.sweeping is None:
        world.sweeping = current_loop().add_timer(SWEEP_SECONDS, partial(_sweep, world))


def _sweep(world: World) -> None:
    now = current_loop().clock()
    world.sweeping = None
    clients = clients_of(world)
    if clients or any(service.enabled for service in world.services.values()):
        begin_sweeping(world)
    for client in clients:
        if not client.closed:
            client.look_at_clock(now)
