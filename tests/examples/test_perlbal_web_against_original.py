"""The web server of perlbal beside that of the Perl original: the same exchanges, and what is meant to be different."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import os
import re
import socket

import pytest

from perlbal_programs import original, perlbal
from tests.programs import free_port

CONFIGURATION = """
SERVER aio_mode = none
CREATE SERVICE web
  SET role                   = web_server
  SET listen                 = 127.0.0.1:{port}
  SET docroot                = {root}
  SET persist_client         = on
  SET enable_put             = on
  SET enable_delete          = on
  SET enable_concatenate_get = on
  SET dirindexing            = on
  SET max_put_size           = 1000
  SET min_put_directory      = 1
ENABLE web
"""
PROBE = b"GET /probe.txt HTTP/1.0\r\n\r\n"  # after each exchange: it is answered if the connection was kept
MTIME = 1_000_000_000
MODIFIED = "Sun, 09 Sep 2001 01:46:40 GMT"
MD5 = base64.b64encode(hashlib.md5(b"hello").digest()).decode()


def request(method, path, *lines, version="1.1", body=b""):
    return "\r\n".join([f"{method} {path} HTTP/{version}", "Host: example.com", *lines, "", ""]).encode() + body


def exchanges():
    """(what is asked, the bytes), some hundreds."""
    paths = (
        "/a.txt", "/a.txt?x=y", "/page.html", "/none", "/d", "/d/", "/list", "/list/", "/%61.txt", "/a.txt/", "/empty",
        "/photo.JPG", "/x.tar.zip", "/d/%2e%2e/a.txt", "/../a.txt", "//a.txt", "/d/./index.html", "*", "/a+b", "/%zz",
        "http://example.com/a.txt", "/large.bin", "/d/??index.html", "/??a.txt,page.html", "/list/??b.css,a.js?v=1",
        "/list??b.css", "/list/??none.css", "/list/??../a.txt", "/none/??a.txt",
    )  # fmt: skip
    connections = ((), ("Connection: close",), ("Connection: keep-alive",))
    for method, path, version in itertools.product(("GET", "HEAD"), paths, ("1.0", "1.1")):
        yield f"{method} {path} {version}", request(method, path, version=version)
    for lines, version in itertools.product(connections, ("1.0", "1.1")):
        yield f"{lines} {version}", request("GET", "/a.txt", *lines, version=version)
    for asked in (
        "bytes=0-0", "bytes=1-3", "bytes=3-", "bytes=0-999", "bytes=9-", "bytes=10-", "bytes=5-4", "bytes=-0",
        "bytes=-3", "bytes=-", "bytes=1-2,3-4", "bytes=x-y", "lines=1-2", "bytes= 1-2",
    ):  # fmt: skip
        for method, path in itertools.product(("GET", "HEAD"), ("/a.txt", "/none", "/large.bin")):
            yield f"{method} {path} Range: {asked}", request(method, path, f"Range: {asked}")
    for since in (MODIFIED, f"{MODIFIED}; length=10", f"{MODIFIED}; length=11", MODIFIED.lower(), "x"):
        for path, more in itertools.product(("/a.txt", "/none", "/??a.txt,page.html"), ((), ("Range: bytes=1-2",))):
            yield f"{path} {more} since {since}", request("GET", path, f"If-Modified-Since: {since}", *more)
    for method, path in itertools.product(("POST", "OPTIONS", "MKCOL", "TRACE", "get", "FOO"), ("/a.txt", "/none")):
        yield f"{method} {path}", request(method, path)
    yield "POST with a body", request("POST", "/a.txt", "Content-Length: 5", body=b"hello")
    yield from uploads()


def uploads():
    hello = ("Content-Length: 5",)
    for path in ("/put/x", "/put/new/y", "/x", "/none/x", "/put/../x", "/put/a~b", "/put/a?b", "/put/", "/put/a/b/c"):
        yield f"PUT {path}", request("PUT", path, *hello, body=b"hello")
        yield f"GET {path} after that", request("GET", path)
        yield f"DELETE {path}", request("DELETE", path)
        yield f"DELETE {path} again", request("DELETE", path)
    for digest in (MD5, MD5.rstrip("="), "XXXX", MD5[::-1]):
        yield f"PUT with {digest}", request("PUT", "/put/m", *hello, f"Content-MD5: {digest}", body=b"hello")
        yield f"GET after {digest}", request("GET", "/put/m")
    yield "PUT of nothing", request("PUT", "/put/empty")
    yield "PUT of too much", request("PUT", "/put/x", "Content-Length: 1001")
    yield (
        "PUT in chunks",
        request("PUT", "/put/c", "Transfer-Encoding: chunked", body=b"2\r\nhe\r\n3;x\r\nllo\r\n0\r\n\r\n"),
    )
    yield "GET after chunks", request("GET", "/put/c")
    expect = ("Transfer-Encoding: chunked", "Expect: 100-continue")
    yield "PUT in chunks, expecting", request("PUT", "/put/c", *expect, body=b"5\r\nhello\r\n0\r\n\r\n")
    yield "DELETE of a directory", request("DELETE", "/put")


EXCHANGES = dict(exchanges())

DIFFERENT = (  # what is meant to be different: a pattern of the exchange, and the reason
    (r"HEAD /list/? ", "HEAD of a listing has no body"),
    (r".*Range: bytes=-3", "the last three bytes, not those up to the third"),
    (r"PUT with XUF", "201 has its reason phrase"),
    (r".*\?\?", "the original answers 404 now and then, by an old error code"),
    (r"POST with a body", "what was not read of a body is never taken for a request: the connection is closed"),
)
REFUSED = {  # where the original closes without an answer, or takes something for what it is not
    "no request": b"nonsense\r\n\r\n",
    "no version": b"GET /a.txt\r\n\r\n",
    "a blank too many": b"GET  /a.txt HTTP/1.0\r\n\r\n",
    "no Host": b"GET /a.txt HTTP/1.1\r\n\r\n",
    "an empty Host": b"GET /a.txt HTTP/1.1\r\nHost:\r\n\r\n",
    "a blank in a name": request("GET", "/a.txt", "Bad Name: x"),
    "no colon": request("GET", "/a.txt", "nonsense"),
    "a long head": request("GET", "/a.txt", *["Name: value"] * 9000),
    "a length that is no number": request("PUT", "/put/x", "Content-Length: abc"),
    "a negative length": request("PUT", "/put/x", "Content-Length: -1"),
    "two lengths": request("PUT", "/put/x", "Content-Length: 5", "Content-Length: 6", body=b"hello"),
    "a length and chunks": request("PUT", "/put/x", "Content-Length: 5", "Transfer-Encoding: chunked", body=b"hello"),
}


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """Both servers, each with files of its own: (port of ours, port of the original)."""
    with contextlib.ExitStack() as stack:
        ports = []
        for start in (original, perlbal):
            directory = tmp_path_factory.mktemp(start.__name__)
            root = directory / "root"
            fill(root)
            ports.append(free_port())
            stack.enter_context(start(directory, CONFIGURATION.format(port=ports[-1], root=root), ports[-1]))
        yield ports


def fill(root):
    files = {
        "a.txt": b"0123456789", "page.html": b"<p>", "d/index.html": b"index", "list/b.css": b"b", "list/a.js": b"a",
        "empty": b"", "photo.JPG": b"x", "x.tar.zip": b"x", "a+b": b"plus", "large.bin": b"0123456789" * 10_000,
        "probe.txt": b"probe", "put/keep": b"",
    }  # fmt: skip
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
        os.utime(root / name, (MTIME, MTIME))
    for name in ("d", "list", "put", "."):
        os.utime(root / name, (MTIME, MTIME))


def asked(port, data):
    """Everything that is answered to these bytes, and to the probe after them, without what tells the time."""
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        got = b""
        with contextlib.suppress(ConnectionError):
            sock.sendall(data)
            got += first_answer(sock)
            sock.sendall(PROBE)
            while more := sock.recv(65536):
                got += more
    return re.sub(rb"(?m)^(?:Date|Last-Modified): .*\r\n", b"", got)


def first_answer(sock):
    """So much that the request was handled, wherever its answer ends."""
    return sock.recv(1)


@pytest.mark.parametrize("name", EXCHANGES)
def test_both_answer_the_same(name, servers):
    theirs, ours = (asked(port, EXCHANGES[name]) for port in servers)
    assert ours == theirs or any(re.match(pattern, name) for pattern, _ in DIFFERENT)


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_original_closes_upon_is_answered_first(name, servers):
    _, ours = servers
    got = asked(ours, REFUSED[name])
    assert re.match(rb"HTTP/1\.0 4\d\d \w", got)
    assert got.count(b"HTTP/1.0 ") == 1


@pytest.mark.parametrize("name", list(REFUSED)[:8])
def test_the_original_closes_upon_it(name, servers):
    """Otherwise the answer would be a difference."""
    theirs, _ = servers
    assert asked(theirs, REFUSED[name]) == b""
