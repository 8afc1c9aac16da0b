"""The web server of perlbal as a program, with real clients: curl, requests, httpx, wrk, ab; over TLS as well."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import signal
import socket
import ssl
import urllib.request
from functools import partial

import pytest

from perlbal_programs import output_of, perlbal
from programs import EXAMPLES, expect
from tests.certificates import AUTHORITY, certificate
from tests.helpers import attempt
from tests.programs import free_port

CONFIGURATION = """
SERVER aio_mode = {aio}
CREATE SERVICE web
  SET role           = web_server
  SET listen         = 127.0.0.1:{port}
  SET docroot        = {root}
  SET persist_client = on
  SET enable_put     = on
  SET enable_delete  = on
  {more}
ENABLE web
"""
LARGE = 3_000_000


@pytest.fixture(params=["none", "ioaio"])
def aio(request):
    return request.param


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.txt").write_bytes(b"0123456789")
    (root / "large.bin").write_bytes(os.urandom(LARGE))
    return root


@pytest.fixture
def url(tmp_path, root, aio):
    port = free_port()
    with perlbal(tmp_path, CONFIGURATION.format(aio=aio, port=port, root=root, more=""), port):
        yield f"http://127.0.0.1:{port}"


# -- curl


def curl(*arguments, stdin=b""):
    return output_of("curl", "-sS", "--max-time", "30", *arguments, stdin=stdin)


def test_curl_uses_one_connection_for_several_requests(url, root):
    """It speaks HTTP/1.0 from the second request on, as it was answered; and that asks for no keep-alive by itself."""
    urls = f"{url}/a.txt", f"{url}/a.txt", f"{url}/none"
    answers = curl("-H", "Connection: keep-alive", "-w", " %{num_connects} %{http_code}\n", *urls)
    assert answers.count(b"0123456789") == 2
    assert re.findall(rb" (\d) (\d{3})\n", answers) == [(b"1", b"200"), (b"0", b"200"), (b"0", b"404")]
    answers = curl("-w", " %{num_connects} %{http_code}\n", *urls)
    assert re.findall(rb" (\d) (\d{3})\n", answers) == [(b"1", b"200"), (b"0", b"200"), (b"1", b"404")]


def test_curl_gets_ranges_and_heads(url, root):
    assert curl("-r", "2-4", f"{url}/a.txt") == b"234"
    assert curl("-r", "-3", f"{url}/a.txt") == b"789"
    assert curl("-r", "1000000-", f"{url}/large.bin") == (root / "large.bin").read_bytes()[1_000_000:]
    assert b"Content-Length: 3000000" in curl("-I", f"{url}/large.bin")
    assert b"Connection: close" in curl("--http1.0", "-i", f"{url}/a.txt")
    assert curl("--http1.0", f"{url}/large.bin") == (root / "large.bin").read_bytes()


def test_curl_uploads(url, root, tmp_path):
    content = os.urandom(2_000_000)
    (tmp_path / "upload").write_bytes(content)
    assert b"200 - OK" in curl("-T", str(tmp_path / "upload"), f"{url}/d/x")
    assert (root / "d/x").read_bytes() == content
    assert b"200 - OK" in curl("-T", "-", f"{url}/chunked", stdin=content)
    assert (root / "chunked").read_bytes() == content
    md5 = base64.b64encode(hashlib.md5(content).digest()).decode()
    assert b"201 - Created" in curl("-T", str(tmp_path / "upload"), "-H", f"Content-MD5: {md5}", f"{url}/checked")
    assert b"204 No Content" in curl("-i", "-X", "DELETE", f"{url}/checked")
    assert sorted(os.listdir(root)) == ["a.txt", "chunked", "d", "large.bin"]


@pytest.mark.parametrize("path", ["x", "..x"])
def test_curl_expects_100_continue(url, tmp_path, path):
    """It would wait a second for that."""
    (tmp_path / "upload").write_bytes(b"x" * 5000)
    words = curl("-T", str(tmp_path / "upload"), "-H", "Expect: 100-continue", "-D", "-", f"{url}/{path}")
    assert (b"100 Continue" in words) == (path == "x")
    assert (b"200 OK" in words) == (path == "x")


# -- libraries


@pytest.mark.parametrize("library", ["requests", "httpx"])
def test_libraries_get_and_put(url, root, library):
    module = pytest.importorskip(library)
    with module.Session() if library == "requests" else module.Client() as client:
        for _ in range(3):
            assert client.get(f"{url}/a.txt").content == b"0123456789"
        assert client.get(f"{url}/large.bin").content == (root / "large.bin").read_bytes()
        assert client.put(f"{url}/new", **{"data" if library == "requests" else "content": b"new"}).status_code == 200
        assert client.get(f"{url}/new").content == b"new"
        assert client.get(f"{url}/none").status_code == 404


# -- load


def test_wrk_meets_no_error(url):
    for path in ("a.txt", "large.bin"):
        words = output_of("wrk", "-t1", "-c20", "-d1s", f"{url}/{path}")
        assert b"Non-2xx" not in words
        assert b"Socket errors" not in words
        assert int(re.search(rb"(\d+) requests in", words)[1]) > 20


@pytest.mark.parametrize("kept", [True, False])
def test_ab_meets_no_error(url, kept):
    words = output_of("ab", "-q", "-n", "500", "-c", "10", *(["-k"] if kept else []), f"{url}/a.txt")
    assert b"Complete requests:      500\n" in words
    assert b"Failed requests:        0\n" in words
    assert (b"Keep-Alive requests:    500\n" in words) == kept


# -- TLS


@pytest.fixture
def secured(tmp_path, root, aio):
    key, chain = tmp_path / "key.pem", tmp_path / "cert.pem"
    issued = certificate("localhost", "127.0.0.1")
    issued.private_key_pem.write_to_path(key)
    chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    port = free_port()
    more = f"SET enable_ssl = on\n SET ssl_key_file = {key}\n SET ssl_cert_file = {chain}"
    with perlbal(tmp_path, CONFIGURATION.format(aio=aio, port=port, root=root, more=more), port):
        yield f"https://127.0.0.1:{port}"


def test_files_over_tls(secured, root):
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    for name in ("a.txt", "large.bin"):
        with urllib.request.urlopen(f"{secured}/{name}", timeout=20, context=context) as answer:
            assert answer.read() == (root / name).read_bytes()
    request = urllib.request.Request(f"{secured}/new", data=b"x" * 100_000, method="PUT")
    with urllib.request.urlopen(request, timeout=20, context=context) as answer:
        assert answer.status == 200
    assert (root / "new").read_bytes() == b"x" * 100_000


# -- the end


def test_requests_under_way_are_finished_after_sigterm(tmp_path, root, aio):
    """An upload, a download of which little was read, and a connection between two requests."""
    port = free_port()
    with perlbal(tmp_path, CONFIGURATION.format(aio=aio, port=port, root=root, more=""), port) as process:
        upload, download, idle = (socket.create_connection(("127.0.0.1", port), 20) for _ in range(3))
        download.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        idle.sendall(b"GET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle.recv(1000).startswith(b"HTTP/1.0 200 OK")
        download.sendall(b"GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n")
        assert download.recv(5, socket.MSG_PEEK) == b"HTTP/"
        upload.sendall(b"PUT /new HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n")
        assert upload.recv(100).startswith(b"HTTP/1.1 100 Continue")
        process.send_signal(signal.SIGTERM)
        assert idle.recv(1000) == b""
        expect(lambda: isinstance(attempt(socket.create_connection, ("127.0.0.1", port), 1), ConnectionRefusedError))
        upload.sendall(b"0123456789")
        assert upload.recv(1000).startswith(b"HTTP/1.0 200 OK\r\n")
        with download.makefile("rb") as file:
            assert file.read().partition(b"\r\n\r\n")[2] == (root / "large.bin").read_bytes()
        for client in (upload, download, idle):
            client.close()
        assert process.wait(20) == 0
        assert (root / "new").read_bytes() == b"0123456789"


# -- a storage daemon


def test_a_storage_daemon_is_a_configuration(tmp_path):
    """The one of the README."""
    readme = (EXAMPLES / "perlbal" / "README.md").read_text()
    (text,) = re.findall(r"```text\n(CREATE SERVICE storage\n.*?)```", readme, re.DOTALL)
    root, port = tmp_path / "storage", free_port()
    (root / "dev1").mkdir(parents=True)
    for there, here in (("0.0.0.0:7500", f"127.0.0.1:{port}"), ("/srv/storage", str(root)), ("7501", str(free_port()))):
        assert there in text
        text = text.replace(there, here)
    content = os.urandom(LARGE)
    with perlbal(tmp_path, text, port):
        url = f"http://127.0.0.1:{port}/dev1/0/000/123/0000123456.fid"
        md5 = (base64.b64encode(hashlib.md5(one).digest()).decode() for one in (content, b"other"))
        right, wrong = (f"Content-MD5: {one}" for one in md5)
        (tmp_path / "content").write_bytes(content)
        put = partial(curl, "-T", str(tmp_path / "content"), "-w", "%{http_code}")
        assert put("-H", wrong, url)[-3:] == b"400"
        assert curl("-w", "%{http_code}", url)[-3:] == b"404"
        assert put("-H", right, url)[-3:] == b"201"
        assert (root / "dev1" / "0" / "000" / "123" / "0000123456.fid").read_bytes() == content
        assert curl(url) == content
        assert curl("-r", "1000-1999", url) == content[1000:2000]
        assert f"content-length: {LARGE}".encode() in curl("-I", url).lower()
        assert put(url.replace("dev1", "dev2"))[-3:] == b"404"  # which is not mounted
        assert curl("-X", "DELETE", "-w", "%{http_code}", url) == b"204"
        assert curl("-w", "%{http_code}", url)[-3:] == b"404"
