"""PUT and DELETE of the web server."""

from __future__ import annotations

import base64
import hashlib
import os

import pytest

from perlbal.bodies import PIECE
from perlbal.clients import SWEEP_SECONDS
from perlbal_talk import Talker, body, fields, get, served


@pytest.fixture
def service(loop, tmp_path):
    with served(persist_client="on", docroot=tmp_path, enable_put="on", enable_delete="on") as service:
        yield service


@pytest.fixture
def connect(loop, wires, run_turns, service):
    return lambda: Talker(service, wires, run_turns, 1 << 22)


@pytest.fixture
def put(connect):
    """`put(path, content, *lines)`: the response; `kept` tells whether its connection was."""

    def put(path, content=b"content", *lines):
        talker = connect()
        answer = talker.say(get(path, f"Content-Length: {len(content)}", *lines, method="PUT") + content, turns=10)
        put.kept = not talker.ended
        return answer

    return put


def md5(content):
    return base64.b64encode(hashlib.md5(content).digest()).decode()


def test_a_file_is_written_and_the_client_asks_again(connect, tmp_path):
    talker = connect()
    request = get("/a/b/c.txt", "Content-Length: 7", method="PUT") + b"content"
    for at in (1, 50, len(request) - 7, len(request) - 3):
        answer = talker.say(request[:at], request[at:])
        assert body(answer) == b"<h1>200 - OK</h1>\n"
        assert (tmp_path / "a/b/c.txt").read_bytes() == b"content"
    assert (tmp_path / "a/b/c.txt").stat().st_mode & 0o777 == 0o644 & ~umask()
    assert body(talker.say(get("/a/b/c.txt"))) == b"content"


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_what_follows_the_body_is_the_next_request(connect):
    answers = connect().say(get("/x", "Content-Length: 1", method="PUT") + b"x" + get("/x"), turns=10)
    assert answers.endswith(b"\r\n\r\nx")


def test_a_file_is_replaced(put, tmp_path):
    put("/x", b"a longer one")
    put("/x", b"short")
    assert (tmp_path / "x").read_bytes() == b"short"


def test_a_large_file(put, tmp_path):
    content = os.urandom(3 * PIECE + 17)
    assert fields(put("/large", content))["code"] == "200"
    assert (tmp_path / "large").read_bytes() == content


def test_without_a_length_the_file_is_empty(connect, tmp_path):
    assert fields(connect().say(get("/x", method="PUT")))["code"] == "200"
    assert (tmp_path / "x").read_bytes() == b""


@pytest.mark.parametrize("padded", [True, False])
def test_a_file_with_its_md5(put, tmp_path, padded):
    digest = md5(b"content") if padded else md5(b"content").rstrip("=")
    answer = put("/d/x", b"content", f"Content-MD5: {digest}")
    assert (fields(answer)["code"], body(answer)) == ("201", b"<h1>201 - Created</h1>\n")
    assert os.listdir(tmp_path / "d") == ["x"]


def test_a_file_with_another_md5_leaves_nothing(put, tmp_path):
    (tmp_path / "x").write_bytes(b"before")
    answer = put("/x", b"content", f"Content-MD5: {md5(b'other')}")
    expected, actual = md5(b"other").rstrip("="), md5(b"content").rstrip("=")
    assert fields(answer)["code"] == "400"
    assert body(answer).decode().endswith(f"\nContent-MD5 mismatch, expected: {expected} actual: {actual}")
    assert (os.listdir(tmp_path), (tmp_path / "x").read_bytes()) == (["x"], b"before")
    assert put.kept


def test_md5_may_be_switched_off(put, service):
    service.set("enable_md5", "off")
    assert fields(put("/x", b"content", "Content-MD5: nonsense"))["code"] == "200"


@pytest.mark.parametrize("path", ["/../x", "/a/../x", "/x..y", "/x?y", "/x%20y", "/", "/a/", "/a//b", "/x~", "/\xe9"])
def test_a_bad_path_is_refused_and_the_connection_closed(put, path, tmp_path):
    answer = put(path)
    assert (fields(answer)["code"], body(answer)) == ("400", b"<h1>400 - Bad request</h1>\nInvalid filename")
    assert not put.kept
    assert os.listdir(tmp_path) == []


def test_put_may_be_off(put, service):
    service.set("enable_put", "off")
    assert fields(put("/x"))["code"] == "403"
    assert not put.kept


def test_a_file_that_is_too_large(put, service, tmp_path):
    service.set("max_put_size", "6")
    assert body(put("/x")).endswith(b"Content-length of 7 is invalid.")
    assert fields(put("/x", b"123456"))["code"] == "200"


def test_directories_that_must_be_there(put, service, tmp_path):
    service.set("min_put_directory", "2")
    assert body(put("/a/x")).endswith(b"Does not meet minimum directory requirement")
    assert body(put("/a/b/x")).endswith(b"Base directory does not exist")
    assert fields(put("/a/b/x"))["code"] == "404"
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert fields(put("/a/b/x"))["code"] == "200"
    assert fields(put("/a/b/c/d/x"))["code"] == "200"


def test_plugins_may_take_the_upload_or_its_pieces(put, service, tmp_path):
    seen = []
    service.register_hook("test", "put_writeout", lambda client, data: seen.append(data))
    put("/x", b"seen")
    service.register_hook("test", "put_writeout", lambda client, data: True)
    put("/y", b"taken")
    assert ((tmp_path / "x").read_bytes(), (tmp_path / "y").read_bytes(), seen) == (b"seen", b"", [b"seen", b"taken"])
    service.register_hook("test", "handle_put", lambda client: client.error(403, "by a plugin") or True)
    assert put("/z").endswith(b"by a plugin")
    assert not (tmp_path / "z").exists()


def test_trouble_on_disk(put, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "directory").mkdir()
    assert body(put("/directory")).endswith(b"Internal error")
    assert body(put("/file/x")).endswith(b"Internal error")
    (tmp_path / "x").write_bytes(b"")

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    answer = put("/y", b"content", f"Content-MD5: {md5(b'content')}")
    assert (fields(answer)["code"], body(answer)[-14:]) == ("500", b"Internal error")
    assert not any(name.endswith(".tmp") for name in os.listdir(tmp_path))


@pytest.mark.parametrize("digest", [True, False])
def test_a_client_that_leaves_in_the_middle(connect, tmp_path, digest, run_turns):
    descriptors = len(os.listdir("/dev/fd"))
    talker = connect()
    lines = [f"Content-MD5: {md5(b'content')}"] if digest else []
    talker.say(get("/x", "Content-Length: 7", *lines, method="PUT") + b"cont")
    assert talker.client.state == "buffering_upload"
    talker.far.close()
    run_turns(5)
    assert talker.client.closed
    assert os.listdir(tmp_path) == ([] if digest else ["x"])
    assert len(os.listdir("/dev/fd")) == descriptors


def test_a_client_that_stalls_in_the_middle_is_closed(connect, service, tmp_path, advance):
    service.set("idle_timeout", "8")
    talker = connect()
    talker.say(get("/x", "Content-Length: 7", f"Content-MD5: {md5(b'content')}", method="PUT") + b"cont")
    advance(8)
    talker.say(b"e")
    advance(8)
    assert not talker.client.closed
    advance(SWEEP_SECONDS)
    talker.say(b"")
    assert talker.client.closed
    assert os.listdir(tmp_path) == []


def test_expect(connect):
    talker = connect()
    head = get("/x", "Content-Length: 7", "Expect: 100-continue", method="PUT")
    assert talker.say(head) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert fields(talker.say(b"content"))["code"] == "200"
    assert fields(talker.say(head.replace(b"/x", b"/..")))["code"] == "400"


# -- chunked


def test_a_chunked_body(connect, tmp_path):
    talker = connect()
    head = get("/x", "Transfer-Encoding: chunked", method="PUT")
    chunks = b"5;name=value\r\nhello\r\n6\r\n world\r\n0\r\nTrailer: x\r\n\r\n"
    for at in range(len(chunks)):
        answer = talker.say(head + chunks[:at], chunks[at:] + get("/x"))
        assert answer.endswith(b"hello world"), at
    assert (tmp_path / "x").read_bytes() == b"hello world"


@pytest.mark.parametrize(
    ("chunks", "code"),
    [(b"-1\r\n", "400"), (b"fffffffffffffffff\r\n", "400"), (b"2\r\nabcd", "400"), (b"x\r\n", "400")],
)
def test_chunks_that_lie(connect, chunks, code):
    talker = connect()
    answer = talker.say(get("/x", "Transfer-Encoding: chunked", method="PUT") + chunks)
    assert fields(answer)["code"] == code
    assert talker.ended


def test_chunks_that_are_too_much(connect, service):
    service.set("max_chunked_request_size", "10")
    talker = connect()
    answer = talker.say(get("/x", "Transfer-Encoding: chunked", method="PUT") + b"b\r\n12345678901\r\n")
    assert fields(answer)["code"] == "413"
    assert talker.ended


# -- DELETE


def test_delete(connect, service, tmp_path):
    (tmp_path / "x").write_bytes(b"")
    (tmp_path / "directory").mkdir()
    talker = connect()
    answer = talker.say(get("/x", method="DELETE"))
    assert answer.startswith(b"HTTP/1.0 204 No Content\r\nServer: Perlbal\r\nConnection: keep-alive\r\n")
    assert not (tmp_path / "x").exists()
    assert fields(talker.say(get("/x", method="DELETE")))["code"] == "404"
    assert talker.say(get("/directory", method="DELETE")).endswith(b"\nIs a directory")
    assert talker.say(get("/../x", method="DELETE")).endswith(b"\nInvalid filename")
    service.set("enable_delete", "off")
    assert fields(talker.say(get("/x", method="DELETE")))["code"] == "403"
    assert not talker.ended
