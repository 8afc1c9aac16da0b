"""Reproxying: files and urls that a backend names."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import dangagreen as d
from dangagreen.testing.wire import wire
from perlbal import url_connections
from perlbal.management import Management
from perlbal.web_role import WebRole
from programs import expect
from proxy_wires import ANSWERED, GET, OK, End, Proxy


@pytest.fixture
def proxy(proxy: Proxy) -> Proxy:
    return proxy.set(enable_reproxy="on")


# -- files


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    return path


def asks(path: object, more: str = "", code: int = 200) -> bytes:
    return (
        f"HTTP/1.0 {code} Fine\r\nConnection: keep-alive\r\nContent-Type: a/b\r\nContent-Length: 4\r\n"
        f"X-Reproxy-File: {path}\r\n{more}\r\nlost"
    ).encode()


def whole(got: bytes, request: bytes) -> bool:
    head, _, body = got.partition(b"\r\n\r\n")
    length = re.search(rb"Content-Length: (\d+)", head)
    return length is not None and len(body) == (0 if request.startswith(b"HEAD") else int(length[1]))


def fetched(proxy: Proxy, answer: bytes, request: bytes = GET) -> tuple[bytes, bytes, End]:
    """Head and body of what a client gets where the backend answers this."""
    client = proxy.client(request)
    proxy.answer(answer)
    got = b""
    for _ in range(2000):
        proxy.turns(2)
        got += client.received() or b""
        if client.near.exchange is None and whole(got, request):
            break
        time.sleep(0.001)  # a thread opens the file, and reads it
    head, _, body = got.partition(b"\r\n\r\n")
    return head, body, client


def test_a_file(proxy: Proxy, file: Path) -> None:
    head, body, client = fetched(proxy, asks(file, "X-Other: 1\r\nX-Reproxy-Expected-Size: 10\r\n"))
    assert head == (
        b"HTTP/1.0 200 Fine\r\nConnection: keep-alive\r\nContent-Type: a/b\r\nContent-Length: 10\r\nX-Other: 1\r\n"
        b"Accept-Ranges: bytes\r\nKeep-Alive: timeout=30, max=100"
    )
    assert body == b"0123456789"
    assert len(proxy.queues.bored) == 1  # its answer was here, all of it
    client.send(GET)
    proxy.answer()
    assert client.received() == ANSWERED
    proxy.check()


def test_a_large_file_is_sent_before_the_next_request_is_read(proxy: Proxy, tmp_path: Path) -> None:
    content = bytes(range(256)) * 1000
    (tmp_path / "large").write_bytes(content)
    client = proxy.client(capacity=1000)
    client.sock.peer.capacity = 100_000
    client.send(GET)
    proxy.answer(asks(tmp_path / "large"))
    deadline = time.monotonic() + 10
    while client.near.state != "xfer_disk":
        proxy.turns(2)
        assert time.monotonic() < deadline
    client.send(GET)  # not before: while a thread opens the file, it is refused
    proxy.turns(50)
    assert (client.near.state, client.near.served) == ("xfer_disk", 0)
    got = b""
    while not got.endswith(content):
        proxy.turns(2)
        got += client.received() or b""
        assert time.monotonic() < deadline
    proxy.turns()
    assert client.near.served == 1
    proxy.answer()
    proxy.turns()
    assert client.received() == ANSWERED
    proxy.check()


def test_204_becomes_200(proxy: Proxy, file: Path) -> None:
    assert fetched(proxy, asks(file, code=204)[:-4])[0].startswith(b"HTTP/1.0 200 OK\r\n")
    proxy.check()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_the_coding_of_the_answer_that_is_replaced_is_not_told(proxy: Proxy, file: Path, version: str) -> None:
    proxy.set(backend_http_version=version)
    coded = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Reproxy-File: {file}\r\n\r\n4\r\nlost\r\n0\r\n\r\n"
    head, content, _ = fetched(proxy, coded.encode(), GET)
    assert b"ransfer" not in head
    assert content == b"0123456789"


def test_head_has_no_body(proxy: Proxy, file: Path) -> None:
    head, body, _ = fetched(proxy, asks(file)[:-4], GET.replace(b"GET", b"HEAD"))
    assert b"Content-Length: 10\r\n" in head
    assert body == b""
    proxy.check()


@pytest.mark.parametrize(
    ("asked", "code", "said", "body"),
    [
        ("bytes=0-3", 206, "bytes 0-3/10", b"0123"),
        ("bytes=8-", 206, "bytes 8-9/10", b"89"),
        ("bytes=8-100", 206, "bytes 8-9/10", b"89"),
        ("bytes=-3", 206, "bytes 7-9/10", b"789"),
        ("bytes=-30", 206, "bytes 0-9/10", b"0123456789"),
        ("bytes=10-", 416, "bytes */10", b""),
        ("bytes=5-4", 416, "bytes */10", b""),
        ("bytes=-0", 416, "bytes */10", b""),
        ("bytes=0-1,3-4", 200, "", b"0123456789"),
        ("lines=0-1", 200, "", b"0123456789"),
        ("bytes=-", 200, "", b"0123456789"),
    ],
)
def test_ranges(proxy: Proxy, file: Path, asked: str, code: int, said: str, body: bytes) -> None:
    request = GET.replace(b"\r\n\r\n", f"\r\nRange: {asked}\r\n\r\n".encode())
    head, got, client = fetched(proxy, asks(file), request)
    assert int(head.split(b" ")[1]) == code
    assert (f"Content-Range: {said}".encode() in head) if said else (b"Content-Range" not in head)
    assert f"Content-Length: {len(body)}\r\n".encode() in head
    assert got == body
    assert not client.ended()
    proxy.check()


def test_what_is_no_file(proxy: Proxy, file: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for path, more in (
        (tmp_path / "none", ""),
        (tmp_path, ""),
        (tmp_path / "empty", ""),
        (tmp_path / "file" / "below", ""),
        ("/dev/zero", ""),
        ("", ""),
        (file, "X-Reproxy-Expected-Size: 11\r\n"),
    ):
        assert fetched(proxy, asks(path, more))[0].startswith(b"HTTP/1.0 404 "), path
    proxy.check()


def test_one_that_cannot_be_opened(proxy: Proxy, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: bytes, name: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("perlbal.reproxying.open_file", refuse)
    assert fetched(proxy, asks(file))[0].startswith(b"HTTP/1.0 500 ")
    proxy.check()


def test_a_client_that_leaves_while_the_file_is_opened(proxy: Proxy, file: Path) -> None:
    client = proxy.client(GET)
    proxy.answer(asks(file))
    client.close()
    fetched(proxy, asks(file))
    expect(lambda: proxy.turns(2) or not d.task_table())  # whose thread may still be at the first file
    proxy.check()


def test_where_it_is_off_the_fields_pass_through(proxy: Proxy, file: Path) -> None:
    proxy.set(enable_reproxy="off")
    head, body, _ = fetched(proxy, asks(file))
    assert b"X-Reproxy-File: " in head
    assert body == b"lost"
    proxy.check()


def test_a_service_is_handed_the_request(proxy: Proxy, file: Path) -> None:
    other = proxy.world.create_service("other")
    other.set("role", "reverse_proxy")
    other.set("pool", "a")
    other.set("persist_backend", "on")
    client = proxy.client(GET)
    proxy.answer(b"HTTP/1.0 200 OK\r\nConnection: close\r\nX-Reproxy-Service: other\r\nContent-Length: 0\r\n\r\n")
    proxy.answer()
    assert client.received() == ANSWERED
    client.send(GET)
    proxy.answer(b"HTTP/1.0 200 OK\r\nConnection: close\r\nX-Reproxy-Service: none\r\nContent-Length: 0\r\n\r\n")
    assert b"Vhost twiddling not configured for requested pair." in (client.received() or b"")
    other.role.closed()
    proxy.check()


@pytest.mark.parametrize(
    ("name", "request_", "code", "text"),
    [
        ("manager", GET, 500, b"Can't map to service type management"),
        ("other", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab", 500, b"The body of the request"),
    ],
)
def test_what_cannot_be_handed_to_a_service(proxy: Proxy, name: str, request_: bytes, code: int, text: bytes) -> None:
    proxy.world.roles |= {"management": Management, "web_server": WebRole}
    proxy.world.create_service("manager").set("role", "management")
    proxy.world.create_service("other").set("role", "web_server")
    client = proxy.client(request_)
    proxy.answer(
        f"HTTP/1.0 200 OK\r\nConnection: close\r\nX-Reproxy-Service: {name}\r\nContent-Length: 0\r\n\r\n".encode()
    )
    got = client.received() or b""
    assert got.startswith(f"HTTP/1.0 {code} ".encode())
    assert text in got
    proxy.check()


# -- urls


class Urls:
    """The servers of urls, in memory."""

    def __init__(self, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
        self.proxy = proxy
        self.made: list[End] = []
        self.refuse: set[str] = set()
        self.silent: set[str] = set()
        monkeypatch.setattr(url_connections, "connect", self._connect)

    def _connect(self, address: Any, socket_class: Any) -> Any:
        name = "{}:{}".format(*address)
        if name in self.silent:
            d.sleep(1000)
        if name in self.refuse:
            raise ConnectionRefusedError(111, "refused")
        near, far = wire(1_000_000)
        backend = socket_class(near)
        self.made.append(End(far, backend, name))
        return backend

    def ask(self, urls: str, more: str = "", request: bytes = GET) -> End:
        client = self.proxy.client(request)
        self.answer_backend(urls, more)
        return client

    def answer_backend(self, urls: str, more: str = "") -> None:
        self.proxy.answer(
            f"HTTP/1.0 200 Fine\r\nConnection: keep-alive\r\nX-A: 1\r\nContent-Type: a/b\r\nContent-Length: 0\r\n"
            f"X-Reproxy-URL: {urls}\r\n{more}\r\n".encode()
        )

    def answer(self, data: bytes, number: int = -1) -> bytes:
        got = self.made[number].received() or b""
        self.made[number].send(data)
        self.proxy.turns()
        return got


@pytest.fixture
def urls(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Urls]:
    urls = Urls(proxy, monkeypatch)
    yield urls
    for end in urls.made:
        end.near.close()
        end.close()


def test_a_url(proxy: Proxy, urls: Urls) -> None:
    request = GET.replace(b"\r\n\r\n", b"\r\nRange: bytes=0-1\r\nCookie: x\r\n\r\n")
    client = urls.ask("http://1.1.1.1:81/x?y", "X-Reproxy-Expected-Size: 2\r\n", request)
    assert urls.made[0].name == "1.1.1.1:81"
    assert urls.answer(OK.replace(b"Conn", b"Content-Type: c/d\r\nConn")) == (
        b"GET /x?y HTTP/1.0\r\nConnection: keep-alive\r\nRange: bytes=0-1\r\nHost: x\r\n\r\n"
    )
    assert client.received() == (
        b"HTTP/1.0 200 Fine\r\nConnection: keep-alive\r\nX-A: 1\r\nContent-Type: a/b\r\nContent-Length: 2\r\n"
        b"Keep-Alive: timeout=30, max=100\r\n\r\nok"
    )
    proxy.check()
    client.send(GET)
    urls.answer_backend("http://1.1.1.1:81/")
    urls.answer(OK)
    assert (client.received() or b"").endswith(b"\r\n\r\nok")
    assert len(urls.made) == 1
    proxy.check()


def test_a_coded_answer_of_a_url_is_passed_through(proxy: Proxy, urls: Urls) -> None:
    client = urls.ask("http://1.1.1.1/")
    urls.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n")
    assert client.received() == (
        b"HTTP/1.0 200 Fine\r\nConnection: close\r\nX-A: 1\r\nContent-Type: a/b\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nok\r\n0\r\n\r\n"
    )
    urls.made[0].close()
    proxy.turns()
    assert client.ended()
    proxy.check()


def test_a_range_of_a_url(proxy: Proxy, urls: Urls) -> None:
    client = urls.ask("http://1.1.1.1/", "X-Reproxy-Expected-Size: 10\r\n")
    urls.answer(
        b"HTTP/1.0 206 Partial\r\nContent-Range: bytes 0-1/10\r\nAccept-Ranges: bytes\r\nContent-Length: 2\r\n\r\nok"
    )
    head = client.received() or b""
    assert head.startswith(b"HTTP/1.0 206 Partial Content\r\n")
    assert b"\r\nContent-Range: bytes 0-1/10\r\nAccept-Ranges: bytes\r\n" in head
    proxy.check()


BAD = [
    b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nbad",
    b"garbage\r\n\r\n",
]


@pytest.mark.parametrize("bad", BAD)
def test_the_next_url_is_tried(proxy: Proxy, urls: Urls, bad: bytes) -> None:
    urls.refuse.add("2.2.2.2:80")
    client = urls.ask("http://1.1.1.1/ http://2.2.2.2/ ftp://x/ http://3.3.3.3/y", "X-Reproxy-Expected-Size: 2\r\n")
    urls.answer(bad)
    assert [end.name for end in urls.made] == ["1.1.1.1:80", "3.3.3.3:80"]
    assert urls.answer(OK).startswith(b"GET /y ")
    assert (client.received() or b"").endswith(b"\r\n\r\nok")
    assert urls.made[0].near.closed
    proxy.check()


def test_one_that_ends_or_is_silent(proxy: Proxy, urls: Urls, advance: Callable[[float], None]) -> None:
    urls.silent.add("2.2.2.2:80")
    client = urls.ask("http://1.1.1.1/ http://2.2.2.2/ http://3.3.3.3/")
    urls.made[0].close()
    proxy.turns()
    assert len(urls.made) == 1
    advance(5.1)
    urls.answer(OK)
    assert (client.received() or b"").endswith(b"\r\n\r\nok")
    proxy.check()


@pytest.mark.parametrize("text", ["", "ftp://x/", "http://", "http://1.1.1.1:0/", "http://2.2.2.2/"])
def test_none_left(proxy: Proxy, urls: Urls, text: str) -> None:
    urls.refuse.add("2.2.2.2:80")
    client = urls.ask(text or "x")
    assert (client.received() or b"").startswith(b"HTTP/1.0 503 ")
    proxy.check()


def test_one_that_was_closed_meanwhile_is_replaced(proxy: Proxy, urls: Urls) -> None:
    client = urls.ask("http://1.1.1.1/")
    urls.answer(OK)
    client.received()
    client.send(GET)
    urls.made[0].sock.shutdown(1)  # its end comes together with the request
    urls.answer_backend("http://1.1.1.1/")
    proxy.turns()
    urls.answer(OK)
    assert (client.received() or b"").endswith(b"\r\n\r\nok")
    proxy.check()


def test_old_ones_are_not_used(proxy: Proxy, urls: Urls, advance: Callable[[float], None]) -> None:
    client = urls.ask("http://1.1.1.1/")
    urls.answer(OK)
    client.received()
    advance(5.5)
    client.send(GET)
    urls.answer_backend("http://1.1.1.1/")
    assert len(urls.made) == 2
    assert urls.made[0].near.closed
    urls.answer(OK)
    proxy.check()


def test_a_limit_makes_clients_wait(proxy: Proxy, urls: Urls) -> None:
    proxy.world.max_reproxy_connections = 1
    one = urls.ask("http://1.1.1.1/a")
    other = urls.ask("http://1.1.1.1/b")
    assert len(urls.made) == 1
    assert proxy.service.role.connections.describe()[:3] == [
        "bored 1.1.1.1:80 0", "clients_queued 1.1.1.1:80 1", "backends 1.1.1.1:80 1",
    ]  # fmt: skip
    urls.answer(OK)
    assert (one.received() or b"").endswith(b"ok")
    assert urls.answer(OK).startswith(b"GET /b ")
    assert (other.received() or b"").endswith(b"ok")
    assert len(urls.made) == 1
    proxy.check()


def test_a_client_may_leave_at_each_point(proxy: Proxy, urls: Urls, advance: Callable[[float], None]) -> None:
    urls.silent.add("2.2.2.2:80")
    connecting = urls.ask("http://2.2.2.2/")
    connecting.close()
    waiting = urls.ask("http://1.1.1.1/")
    waiting.close()
    proxy.turns()
    assert urls.made[0].near.closed
    reading = urls.ask("http://1.1.1.1/")
    urls.answer(OK[:-1])
    reading.close()
    proxy.turns()
    assert urls.made[1].near.closed
    proxy.check()
    assert all(not server.used for server in proxy.service.role.connections.servers.values())


def test_a_body_that_ends_too_early_ends_the_client(proxy: Proxy, urls: Urls) -> None:
    client = urls.ask("http://1.1.1.1/")
    urls.answer(OK[:-1])
    urls.made[0].close()
    proxy.turns()
    assert (client.received() or b"").endswith(b"\r\n\r\no")
    assert client.ended()
    proxy.check()


def test_plugins_are_asked(proxy: Proxy, urls: Urls, file: Path) -> None:
    told: list[object] = []
    proxy.service.register_hook("test", "start_file_reproxy", lambda client, path: told.append(path))
    proxy.service.register_hook("test", "reproxy_response_received", lambda client, head: told.append(head.code))
    proxy.service.register_hook("test", "reproxy_fh_finished", lambda client: told.append("sent"))
    fetched(proxy, asks(file))
    urls.ask("http://1.1.1.1/")
    urls.answer(OK)
    assert told == [str(file), "sent", 200]
    proxy.service.register_hook("other", "reproxy_response_received", lambda client, head: client.error(418) or True)
    client = urls.ask("http://1.1.1.1/")
    urls.answer(OK)
    assert (client.received() or b"").startswith(b"HTTP/1.0 418 ")
    proxy.check()


def test_who_pipelines_meanwhile_gets_one_answer(proxy: Proxy, urls: Urls) -> None:
    client = proxy.client(capacity=10)
    client.sock.peer.capacity = 100_000
    client.send(GET)
    urls.answer_backend("http://1.1.1.1/")
    client.send(GET)  # the refusal is not sent at once
    proxy.turns()
    assert urls.made[0].near.closed
    got = b""
    for _ in range(100):
        got += client.received() or b""
        proxy.turns(2)
    assert got.count(b"HTTP/1.0 ") == 1
    assert got.startswith(b"HTTP/1.0 400 ")
    assert got.endswith(b"Can't pipeline to HTTP/1.0")
    proxy.check()


# -- remembered urls

ONCE = "Last-Modified: Thu, 01 Jan 1970 00:00:01 GMT\r\nX-Reproxy-Cache-For: 9; Last-Modified\r\n"


def test_urls_are_remembered_and_backends_not_asked(proxy: Proxy, urls: Urls, advance: Callable[[float], None]) -> None:
    proxy.set(reproxy_cache_maxsize="2")
    client = urls.ask("http://1.1.1.1/", ONCE)
    urls.answer(OK)
    client.received()
    client.send(GET)
    proxy.turns()
    urls.answer(OK)
    got = client.received() or b""
    assert got.startswith(b"HTTP/1.0 200 OK\r\nDate: ")
    assert b"\r\nLast-Modified: Thu, 01 Jan 1970 00:00:01 GMT\r\n" in got
    assert got.endswith(b"\r\n\r\nok")
    assert proxy.world.nodes["10.0.0.9:80"].requests == 1
    since = b"\r\nIf-Modified-Since: Thu, 01 Jan 1970 00:00:01 GMT\r\n\r\n"
    client.send(GET.replace(b"\r\n\r\n", since))
    proxy.turns()
    got = client.received() or b""
    assert got.startswith(b"HTTP/1.0 304 Not Modified\r\n")
    assert b"\r\nContent-Length: 0\r\n" in got
    assert "    cache hits: 2" in proxy.service.role.describe()
    advance(10)
    client.send(GET)
    proxy.turns()
    assert proxy.world.nodes["10.0.0.9:80"].requests == 2
    proxy.answer()
    proxy.check()


def test_where_remembered_urls_are_of_no_use_a_backend_is_asked(proxy: Proxy, urls: Urls) -> None:
    proxy.set(reproxy_cache_maxsize="2")
    client = urls.ask("http://1.1.1.1/", ONCE)
    urls.answer(OK.replace(b"keep-alive", b"close"))
    client.received()
    urls.refuse.add("1.1.1.1:80")
    client.send(GET)
    proxy.answer()
    assert client.received() == ANSWERED
    assert proxy.service.role.cache.entries == {}
    proxy.check()
