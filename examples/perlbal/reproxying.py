"""Reproxying: a backend has the proxy send a file, or what another server has, in place of its own answer.

Tasks do it: a thread opens the file; the urls are tried one after the other, and the connection of the first good one
goes on in callback style, as that of any backend. What does not belong here: connections to the servers of urls
(url_connections), and what is sent to a backend that was asked by its pool (proxying).
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from dangagreen import in_thread, shield, spawn, timeout
from perlbal.backends import Backend
from perlbal.clients import HttpRole
from perlbal.files import open_file, send_files, wanted_range
from perlbal.heads import BadHead, Refused, RequestHead, ResponseHead
from perlbal.pages import REASONS, http_date, response_head
from perlbal.reproxy_cache import Entry

if TYPE_CHECKING:
    from perlbal.proxying import ProxyExchange  # which is above this module

_ASKS = ("x-reproxy-url", "x-reproxy-file", "x-reproxy-service")
_URL = re.compile(r"http://(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(:\d+)?(/\S*)?\Z", re.ASCII)
_SIZE = re.compile(r"bytes .*/(\d+)\Z", re.ASCII)
SILENCE_SECONDS = 60.0  # until a server that does not answer is given up


def is_asked_for(head: ResponseHead) -> bool:
    """Whether the backend wants its answer to be replaced."""
    return any(name in head for name in _ASKS)


def begin(exchange: ProxyExchange, head: ResponseHead) -> None:
    """Do what the backend has asked for. Its connection is free already."""
    exchange.state = "wait_res"
    name, path, urls = (head.get(asks) for asks in ("x-reproxy-service", "x-reproxy-file", "x-reproxy-url"))
    expected, most = head.get("x-reproxy-expected-size"), exchange.role.service.reproxy_cache_maxsize
    if urls and most and not exchange.only_once and (rule := head.get("x-reproxy-cache-for")):
        exchange.role.cache.add(exchange.head, head, rule, urls.split(), most, exchange.client.loop.now)
    for field in [field for field in head.fields if field.startswith("x-reproxy-")]:
        head.remove(field)
    head.remove("transfer-encoding")  # the body that was coded is discarded
    head.chunked = False
    if head.code == 204:
        head.code, head.reason = 200, "OK"
    if name:
        hand_on(exchange, name)
    elif urls:
        exchange.task = spawn(fetch, exchange, head, urls.split(), expected)
    else:
        exchange.task = spawn(send_file, exchange, head, path, expected)


def begin_remembered(exchange: ProxyExchange, entry: Entry) -> None:
    """Do what a backend has asked for before."""
    exchange.state = "wait_res"
    head = response_head(200, {"Date": http_date(int(time.time())), **entry.fields})
    modified = head.get("last-modified")
    if modified and exchange.head.get("if-modified-since") == modified:
        head.code, head.reason = 304, REASONS[304]
        head.set("Content-Length", "0")
        exchange.response = head
        exchange.client.send_head(head)
        exchange.client.response_done()
    else:
        exchange.task = spawn(fetch_remembered, exchange, head, entry)


def fetch_remembered(exchange: ProxyExchange, head: ResponseHead, entry: Entry) -> None:
    """Parks like `fetch`. If none of the urls is of use any more, a backend is asked."""
    if not fetch_one(exchange, head, entry.urls, entry.expected):
        exchange.task = None
        exchange.role.cache.forget(exchange.head)
        exchange.ask()


def hand_on(exchange: ProxyExchange, name: str) -> None:
    """Hand the request to another service, whose role has to be one for HTTP. It cannot have a body, which is gone."""
    client, asked = exchange.client, exchange.head
    service = exchange.role.service.world.services.get(name)
    if service is None or service.role is None:
        client.error(404, "Vhost twiddling not configured for requested pair.")
    elif not isinstance(service.role, HttpRole):
        client.error(500, f"Can't map to service type {service.role_name}")
    elif asked.content_length or asked.chunked:
        client.error(500, "The body of the request was sent to the backend already")
    else:
        client.exchange = None
        client.hand_to(service)


# -- a file


def send_file(exchange: ProxyExchange, head: ResponseHead, path: str, expected: str) -> None:
    """Parks until a thread has opened the file, then has it sent."""
    client, asked = exchange.client, exchange.head
    if exchange.taken_over("start_file_reproxy", client, path):
        return None
    try:
        with shield():  # a file that is opened is to be closed
            file = in_thread(open_file, path.encode("latin-1"), path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        file = None
    except OSError:
        exchange.task = None
        if client.exchange is exchange:
            client.error(500)
        return None
    exchange.task = None
    if file is None or not file.size or (expected and expected != str(file.size)) or client.exchange is not exchange:
        if file is not None:
            file.close()
        if client.exchange is exchange:
            client.error(404)
        return None
    offset, count = ranged(head, asked.get("range"), file.size)
    exchange.response = head
    exchange.state = "xfer_disk"
    client.send_head(head)
    if not count or asked.method == "HEAD":
        file.close()
        client.write(client.file_sent)
    else:
        send_files(client, [(file, offset, count)])
    return None


def ranged(head: ResponseHead, asked: str, size: int) -> tuple[int, int]:
    """Make the head that of a file of this size, or of the range that was asked for: its offset and count. The count is
    0 for one that the file does not have."""
    offset, count = 0, size
    head.set("Accept-Ranges", "bytes")
    try:
        if (part := wanted_range(asked, size)) is not None:
            offset, count = part
            head.code = 206
            head.set("Content-Range", f"bytes {offset}-{offset + count - 1}/{size}")
    except Refused as refused:
        head.code, count = refused.code, 0
        head.set("Content-Range", f"bytes */{size}")
    if head.code in (206, 416):
        head.reason = REASONS[head.code]
    head.set("Content-Length", str(count))
    return offset, count


# -- urls


def fetch(exchange: ProxyExchange, head: ResponseHead, urls: list[str], expected: str) -> None:
    """Parks until one of the urls has a good answer, which then goes to the client in callback style; or sends 503."""
    if not fetch_one(exchange, head, urls, expected):
        exchange.task = None
        exchange.client.error(503)


def fetch_one(exchange: ProxyExchange, head: ResponseHead, urls: list[str], expected: str) -> bool:
    """Parks like `fetch`. Returns whether one of them was good."""
    for url in urls:
        if (parts := _URL.match(url)) is None:
            continue
        backend, answer = ask(exchange, parts[1] + (parts[2] or ":80"), parts[3] or "/")
        if backend is None or answer is None:
            continue
        if not (200 <= answer.code < 300 or answer.code == 416) or (expected and expected != size_of(answer)):
            backend.release(keep=False)
            continue
        exchange.task = None
        exchange.backend = backend
        exchange.limit = exchange.role.service.buffer_size_reproxy_url
        merge(head, answer)
        if exchange.taken_over("reproxy_response_received", exchange.client, head):
            return True
        exchange.send_head(backend, head, b"")
        if exchange.backend is backend:
            backend.go_on()
        return True
    return False


def ask(exchange: ProxyExchange, name: str, path: str) -> tuple[Backend | None, ResponseHead | None]:
    """Parks until a server has answered: the connection, and the head. None if it has not."""
    connections = exchange.role.connections
    try:
        node = connections.world.nodes.named(name)
    except ValueError:
        return None, None
    for fresh in (False, True):
        try:
            backend = connections.get(node, fresh)
        except OSError:
            return None, None
        reused = backend.uses > 0
        try:
            with timeout(SILENCE_SECONDS):
                return backend, backend.ask(exchange, request(exchange.head, path))
        except (BadHead, EOFError, OSError) as error:
            backend.release(keep=False)
            if not reused or isinstance(error, (BadHead, TimeoutError)):
                break
        except BaseException:
            backend.release(keep=False)
            raise
    return None, None


def request(head: RequestHead, path: str) -> RequestHead:
    """What the server of a url is asked."""
    asked = RequestHead("HEAD" if head.method == "HEAD" else "GET", path, 10)
    asked.set("Connection", "keep-alive")
    for name in ("Range", "Host"):
        if name.lower() in head:
            asked.set(name, head.get(name.lower()))
    return asked


def size_of(answer: ResponseHead) -> str:
    """The size of what was asked for, also where the answer is a range of it."""
    whole = _SIZE.match(answer.get("content-range"))
    return whole[1] if whole is not None else answer.get("content-length")


def merge(head: ResponseHead, answer: ResponseHead) -> None:
    """Make the first backend's head that of what the second one sends."""
    if answer.code in (206, 416):
        head.code, head.reason = answer.code, REASONS[answer.code]
    for name in ("Content-Length", "Transfer-Encoding", "Content-Range", "Accept-Ranges"):
        head.remove(name.lower())
        if name.lower() in answer:
            head.set(name, answer.get(name.lower()))
