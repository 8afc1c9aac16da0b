"""Uploads that are collected in a file before a backend is asked for, so that slow clients hold no backend.

All of it is sequential: a task reads from the client, has a thread write to the disk, and gives the client back to its
callbacks; another one sends the file, while callbacks already listen for the answer. What does not belong here: when a
backend is free (queues), and what is done with its answer (proxying).
"""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Any, BinaryIO

from dangagreen import Socket, Task, in_thread, spawn
from perlbal.backends import Backend
from perlbal.bodies import read_body
from perlbal.heads import Refused, RequestHead
from perlbal.services import Service

if TYPE_CHECKING:
    from perlbal.proxying import ProxyExchange  # which is above this module

SENT_AT_ONCE = 1024 * 1024  # bytes: a backend that takes so many in `backend_timeout` is not silent
DEBUG = "PERLBAL_DEBUG_BUFFERED_UPLOADS"  # a variable of the environment: backends are told the reason


class Upload:
    """A file with the body of a request, removed as soon as it is not needed. Its methods are called in threads."""

    def __init__(self, path: str, reason: str) -> None:
        self.path, self.reason = path, reason
        self.size = 0
        self.removed = False
        self._file: BinaryIO | None = None

    def write(self, data: bytes) -> None:
        """Append to the file, which the first call makes. Raises OSError."""
        if self._file is None:
            self._file = open(self.path, "x+b", opener=lambda path, flags: os.open(path, flags, 0o600))  # noqa: SIM115
        self._file.write(data)
        self.size += len(data)

    def end(self) -> None:
        """All of it is here."""
        self.write(b"")
        if self._file is not None:
            self._file.flush()

    def delete(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            os.unlink(self.path)

    def remove(self, writer: Task[Any] | None) -> None:
        """Have it deleted, once the task that writes to it has ended."""
        if not self.removed:
            self.removed = True
            if self._file is not None or writer is not None:
                spawn(self._remove, writer)

    def _remove(self, writer: Task[Any] | None) -> None:
        if writer is not None:
            writer.join()
        in_thread(self.delete)

    def edited(self, head: RequestHead) -> RequestHead:
        """The head of the request, now that its body is here."""
        edited = head.copy()
        if edited.chunked:
            edited.chunked = False
            for name in ("transfer-encoding", "expect"):
                edited.remove(name)
            edited.set("Content-Length", str(self.size))
        elif os.environ.get(DEBUG):
            edited.set("X-PERLBAL-BUFFERED-UPLOAD-REASON", self.reason)
        return edited

    def send(self, exchange: ProxyExchange, backend: Backend, head: RequestHead) -> None:
        """Send the request, the body from the file, and listen for the answer meanwhile."""
        backend.begin(exchange, head)
        if self.size and not backend.closed:
            exchange.task = spawn(self._send, exchange, backend)

    def _send(self, exchange: ProxyExchange, backend: Backend) -> None:
        assert self._file is not None
        try:
            for at in range(0, self.size, SENT_AT_ONCE):
                backend.send_file(self._file, at, min(SENT_AT_ONCE, self.size - at))
                backend.since = backend.loop.now
        except (OSError, EOFError) as error:
            exchange.task = None
            if exchange.backend is backend and not isinstance(error, ConnectionError):
                backend.close(error)  # who reads from it finds the end of a broken connection, and what came before
            return
        exchange.task = None


def reason(exchange: ProxyExchange) -> str:
    """Why the upload is to be collected, of which so much has come; an empty string if it is not."""
    service, client = exchange.role.service, exchange.client
    if not service.buffer_uploads or client.body_left <= 0:
        return ""
    rate = exchange.collected / max(client.loop.now - client.began, 0.001)
    if 0 < service.buffer_upload_threshold_time < client.body_left / max(rate, 0.001):
        return "time"
    return "rate" if rate < service.buffer_upload_threshold_rate else ""


def collect(exchange: ProxyExchange, reason: str) -> None:
    """Have a task read the body."""
    client, service = exchange.client, exchange.role.service
    exchange.state = "buffering_upload"
    exchange.upload = Upload(new_path(service, client), reason)
    client.watch_read(False)
    exchange.task = spawn(_collect, exchange, exchange.upload)


def new_path(service: Service, client: Socket) -> str:
    listen = (service.listen or "none").replace("/", "_")
    name = f"{service.name}-{listen}-{client.fd}-{secrets.token_hex(8)}"
    return os.path.join(service.buffer_uploads_path or "", name)


def _collect(exchange: ProxyExchange, upload: Upload) -> None:
    """The dialogue with the client: the task."""
    client, pieces = exchange.client, exchange.pieces
    try:
        if client.body_left < 0:
            client.send_continue()
        if pieces:
            in_thread(upload.write, b"".join(pieces))
            pieces.clear()
        for data in read_body(client, exchange.role.service.max_chunked_request_size):
            in_thread(upload.write, data)
        in_thread(upload.end)
    except (Refused, OSError) as error:
        exchange.task = None
        if client.closed or client.exchange is not exchange:
            upload.remove(None)
        elif isinstance(error, Refused):
            exchange.abandon(error.code, error.text)
        else:
            exchange.abandon(500, "The upload could not be stored")
        return
    exchange.task = None
    client.watch_read(True)  # in callback style again: it may leave
    exchange.ask()
