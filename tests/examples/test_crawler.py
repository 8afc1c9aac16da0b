"""examples/crawler.py, from the outside: a site of the standard library's server, and servers that lie."""

from __future__ import annotations

import contextlib
import http.server
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import crawler
from programs import SECONDS, command

CRAWLER = command("crawler")
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"


def crawl(*arguments: str) -> str:
    """Run it to its end; what it prints, without the progress."""
    done = subprocess.run([*CRAWLER, *arguments], capture_output=True, text=True, timeout=2 * SECONDS)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a server, and the directory that it serves."""
    folder = tmp_path / "site"
    folder.mkdir()
    handler = lambda *arguments: Quiet(*arguments, directory=str(folder))  # noqa: E731
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/", folder
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def liar(serve: Callable[[socket.socket], object], connections: int = 1) -> Iterator[str]:
    """A server that calls `serve` with so many connections, whose request it has read; its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def work() -> None:
            for _ in range(connections):
                sock, _ = listener.accept()
                with sock, contextlib.suppress(OSError):
                    sock.settimeout(SECONDS)
                    sock.recv(65536)
                    serve(sock)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield "http://127.0.0.1:{}/".format(*listener.getsockname()[1:])
        finally:
            thread.join(SECONDS)
            assert not thread.is_alive()


def says(*data: bytes) -> Callable[[socket.socket], None]:
    return lambda sock: sock.sendall(b"".join(data))


def test_a_site(site: tuple[str, Path]) -> None:
    url, folder = site
    (folder / "index.html").write_text(
        '<a href="one.html">1</a> <A HREF=two.html>2</A> <a class="x" href=\'/three.html#part\'>3</a>'
        '<a href="https://example.org/">elsewhere</a> <a href="mailto:x@example.org">mail</a> <a href="http://[">?</a>'
    )
    (folder / "one.html").write_text("<a href='index.html'>back</a> <a href='missing.html?a=1&amp;b=2'>missing</a>")
    (folder / "two.html").write_text("<a href='directory'>redirects</a> <a href='picture.png'>a picture</a>")
    (folder / "three.html").write_text("no links")
    (folder / "directory").mkdir()
    (folder / "picture.png").write_bytes(b"<a href='not-looked-at.html'>")
    printed = crawl(url)
    assert printed.splitlines()[0].startswith("pages: 9, ")
    # index.html is there by two names; the directory and its list are two as well
    assert printed.splitlines()[1:] == ["  7 with status 200", "  1 with status 301", "  1 with status 404"]


def test_bounds(site: tuple[str, Path]) -> None:
    url, folder = site
    for number in range(50):
        (folder / f"{number}.html").write_text(f"<a href='{number + 1}.html'>next</a>" + "x" * (5000 * (number == 7)))
    assert crawl(f"{url}0.html", "--depth", "3").splitlines() == ["pages: 4, bytes: 100", "  4 with status 200"]
    assert crawl(f"{url}0.html", "--pages", "5").startswith("pages: 5, ")
    printed = crawl(f"{url}0.html", "--bytes", "1000")
    assert printed.startswith("pages: 7, ")
    assert printed.endswith("failures: 1\n  1: too large\n")


def test_so_many_at_a_time(site: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    url, folder = site
    (folder / "index.html").write_text("".join(f"<a href='{number}.html'>" for number in range(30)))
    running, most, guard = [], [], threading.Lock()
    usual = Quiet.do_GET

    def counted(self: Quiet) -> None:
        with guard:
            running.append(self)
            most.append(len(running))
        threading.Event().wait(0.005)
        usual(self)
        with guard:
            running.remove(self)

    monkeypatch.setattr(Quiet, "do_GET", counted)
    assert crawl(url, "--limit", "4").splitlines()[1:] == ["  1 with status 200", "  30 with status 404"]
    assert 1 < max(most) <= 4 + 1  # a connection may end a little before its thread


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        ((OK, b"Content-Length: 5\r\n\r\nhello"), "1 with status 200"),
        ((OK, b"\r\nup to the end"), "1 with status 200"),
        ((b"HTTP/1.1 100 Continue\r\n\r\n", OK, b"\r\n"), "1 with status 200"),
        ((OK, b"Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n"), "1 with status 200"),
        ((OK, b"Content-Length: 10\r\n\r\nhello"), "1: ended too early"),
        ((OK, b"Content-Length: -1\r\n\r\n"), "1: a length of '-1'"),
        ((OK, b"Content-Length: 99999999999\r\n\r\n"), "1: too large"),
        ((OK, b"Content-Length: ", b"9" * 100, b"\r\n\r\n"), "1: a length of '99999999999999999999'"),
        ((OK, b"Content-Length: ff\r\n\r\n"), "1: a length of 'ff'"),
        ((OK, b"Transfer-Encoding: chunked\r\n\r\nffffffffff\r\n"), "1: too large"),
        ((OK, b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n"), "1: a chunk without an end"),
        ((OK, b"Transfer-Encoding: chunked\r\n\r\n3\r\nab"), "1: ended too early"),
        ((OK, b"\r\n", b"x" * 2_000_000), "1: too large"),
        ((b"SSH-2.0-server\r\n",), "1: no status line"),
        ((b"HTTP/1.1 200 OK\r\nno header\r\n\r\n",), "1: a header without a colon"),
        ((b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 50_000), "1: endless headers"),
        ((b"HTTP/1.1 200 OK\r\nX: ", b"y" * 50_000), "1: too large"),
        ((b"HTTP/1.1 200 OK\r\nX: y\r\n",), "1: an end within the headers"),
        ((), "1: an end within the headers"),
    ],
)
def test_servers_that_lie(reply: tuple[bytes, ...], outcome: str) -> None:
    with liar(says(*reply)) as url:
        assert crawl(url).splitlines()[-1] == f"  {outcome}"


def test_a_circle_of_redirects() -> None:
    with liar(says(b"HTTP/1.1 302 Found\r\nLocation: /other#here\r\n\r\n"), connections=2) as url:
        assert crawl(url).splitlines() == ["pages: 2, bytes: 0", "  2 with status 302"]


def test_servers_that_never_come_to_an_end() -> None:
    def drip(sock: socket.socket) -> None:
        sock.sendall(OK + b"\r\n")
        for _ in range(1000):
            sock.sendall(b".")
            threading.Event().wait(0.01)

    with liar(drip) as dripping, liar(lambda sock: sock.recv(1)) as silent:
        printed = crawl(dripping, silent, "--page-seconds", "0.3")
    assert printed.splitlines() == ["pages: 0, bytes: 0", "failures: 2", "  2: too slow"]


@contextlib.contextmanager
def recorded(*replies: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A server that gives these replies, one after the other; its address, and the requests that it has had."""
    requests: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def work() -> None:
            for reply in replies:
                sock, _ = listener.accept()
                with sock, contextlib.suppress(OSError):
                    sock.settimeout(SECONDS)
                    request = b""
                    while not request.endswith(b"\r\n\r\n"):
                        request += sock.recv(65536)
                    requests.append(request)
                    sock.sendall(reply)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield "127.0.0.1:{}".format(*listener.getsockname()[1:]), requests
        finally:
            thread.join(SECONDS)
            assert not thread.is_alive()


def test_who_asks_for_what() -> None:
    page = OK.replace(b"text/html", b"TEXT/Html;Charset=LATIN-1") + b"\r\n<base href='/x/'>"
    page += b"<a href='\xfc?\xfc#part'><!--<a href=no>--><script>'<a href=no>'</script>"
    moved = b"HTTP/1.1 302 Found\r\nLocation: y?\xc3\xbc#part\r\n\r\n"
    with recorded(page, moved, OK + b"\r\n<a href='y?%C3%BC#other'>") as (address, requests):
        printed = crawl(f"http://user:pass%20word@{address}#part")
    assert printed.splitlines()[1:] == ["  2 with status 200", "  1 with status 302"]
    assert [request.split()[1] for request in requests] == [b"/", b"/x/%C3%BC?%FC", b"/x/y?%C3%BC"]
    for request in requests:
        lines = request.split(b"\r\n")
        assert [line for line in lines if line.startswith(b"Host:")] == [b"Host: " + address.encode()]
        assert b"Authorization: Basic dXNlcjpwYXNzIHdvcmQ=" in lines


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://h/", "h"),
        ("http://u:p@H:80/", "h"),
        ("http://u@h:8080/", "h:8080"),
        ("http://[::1]/", "[::1]"),
        ("http://[fe80::1%25eth0]:81/", "[fe80::1]:81"),
        ("http://h:/", "h"),
    ],
)
def test_the_host_header(url: str, host: str) -> None:
    assert f"\r\nHost: {host}\r\n" in crawler.request(urlsplit(url)).decode()
    assert ("Authorization" in crawler.request(urlsplit(url)).decode()) == ("@" in url)


def test_nobody_is_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert crawl(f"http://127.0.0.1:{port}/").splitlines()[-1] == "  1: cannot connect to ('127.0.0.1', {}): {}".format(
        port, "Connection refused"
    )


def test_the_time_for_all() -> None:
    with liar(lambda sock: sock.recv(1)) as url:
        printed = crawl(url, "--seconds", "0.3")
    assert printed.splitlines() == ["pages: 0, bytes: 0", "not fetched: 1"]


def test_ctrl_c_shows_what_there_is() -> None:
    came = threading.Event()

    def wait(sock: socket.socket) -> None:
        came.set()
        sock.recv(1)

    with liar(wait) as url:
        process = subprocess.Popen([*CRAWLER, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            assert came.wait(SECONDS)
            process.send_signal(signal.SIGINT)
            printed, errors = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
            process.communicate()
    assert (printed, process.returncode) == ("pages: 0, bytes: 0\nnot fetched: 1\n", 130)
    assert "Traceback" not in errors


def test_progress_is_shown_meanwhile() -> None:
    with liar(lambda sock: sock.recv(1)) as url:
        done = subprocess.run([*CRAWLER, url, "--seconds", "0.7"], capture_output=True, text=True, timeout=SECONDS)
    assert 1 <= done.stderr.count("0 of 1 pages, 1 under way, 0 bytes\033[K") <= 3


@pytest.mark.parametrize(
    "url", ["https://127.0.0.1/", "ftp://x/", "127.0.0.1", "http://", "http://a b/", "http://[", "http://h:x/"]
)
def test_addresses_that_it_does_not_know(url: str) -> None:
    done = subprocess.run([*CRAWLER, url], capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 2
    assert "is not an http:// address" in done.stderr


@pytest.mark.parametrize(
    ("option", "number", "least"),
    [
        ("limit", "0", "1"),
        ("pages", "-1", "1"),
        ("bytes", "0", "1"),
        ("depth", "-1", "0"),
        ("seconds", "nan", "0.01"),
        ("page-seconds", "-2.5", "0.01"),
    ],
)
def test_numbers_that_make_no_sense(option: str, number: str, least: str) -> None:
    done = subprocess.run([*CRAWLER, f"--{option}", number, "http://127.0.0.1/"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith(f"argument --{option}: {number} is not {least} or more\n")
