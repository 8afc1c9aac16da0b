"""GET and HEAD of the web server: files, ranges, what is unchanged, directories, paths."""

from __future__ import annotations

import os
import re
import time
from types import SimpleNamespace

import pytest

from perlbal.files import SMALL, SendingFile
from perlbal.pages import http_date
from perlbal_talk import Talker, body, fields, get, served


@pytest.fixture
def root(tmp_path):
    (tmp_path / "a.html").write_bytes(b"0123456789")
    (tmp_path / "large.bin").write_bytes(bytes(range(256)) * 512)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "index.html").write_bytes(b"index")
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "<b>&'.css").write_bytes(b"x")
    (tmp_path / "list" / "sub").mkdir()
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "\u00e9 x.txt").write_bytes(b"name")
    os.symlink("a.html", tmp_path / "link.pdf")
    os.mkfifo(tmp_path / "fifo")
    return tmp_path


@pytest.fixture
def service(loop, root):
    with served(persist_client="on", docroot=root) as service:
        yield service


def test_a_file_is_sent_as_by_the_original(ask, root):
    modified = http_date(int((root / "a.html").stat().st_mtime))
    before = int(time.time())
    answer = ask("/a.html")
    date = fields(answer)["date"]
    assert date in {http_date(second) for second in range(before - 1, int(time.time()) + 1)}
    assert answer.decode() == (
        f"HTTP/1.0 200 OK\r\nDate: {date}\r\nServer: Perlbal\r\nLast-Modified: {modified}\r\nAccept-Ranges: bytes\r\n"
        "Content-Type: text/html\r\nContent-Length: 10\r\nConnection: keep-alive\r\nKeep-Alive: timeout=30, max=100\r\n"
        "\r\n0123456789"
    )


def test_head_is_get_without_the_body(ask):
    for path in ("/a.html", "/large.bin", "/none", "/list", "/d"):
        whole, head = ask(path), ask(path, method="HEAD")
        heads = (re.sub(rb"Date: .*", b"", one.partition(b"\r\n\r\n")[0]) for one in (whole, head))
        assert len(set(heads)) == 1  # but for the second in which it was made
        assert body(head) == b""


@pytest.mark.parametrize(
    ("path", "kind", "content"),
    [
        ("/a.html?x=/../y", "text/html", b"0123456789"),
        ("/%61.html", "text/html", b"0123456789"),
        ("/a%2Ehtml%3Fx", "text/html", b"0123456789"),
        ("/link.pdf", "application/pdf", b"0123456789"),
        ("/empty.txt", "text/plain", b""),
        ("/%C3%A9%20x.txt", "text/plain", b"name"),
        ("/\xc3\xa9%20x.txt", "text/plain", b"name"),
        ("/d", "text/html", b"index"),
        ("/d/", "text/html", b"index"),
        ("//a.html", "text/html", b"0123456789"),
        ("/./a.html", "text/html", b"0123456789"),
    ],
)
def test_paths(ask, path, kind, content):
    answer = ask(path)
    assert (fields(answer)["code"], fields(answer)["content-type"], body(answer)) == ("200", kind, content)


@pytest.mark.parametrize(
    ("path", "code", "text"),
    [
        ("/../secret", "403", b"Bogus URL"),
        ("/d/%2e%2e/a.html", "403", b"Bogus URL"),
        ("/d/..", "403", b"Bogus URL"),
        ("/a.html%00", "403", b"Bogus URL"),
        ("*", "403", b"Bogus URL"),
        ("/none", "404", b""),
        ("/a.html/x", "404", b""),
        ("/" + "x" * 5000, "404", b""),
        ("/fifo", "404", b""),
        ("/+a.html", "404", b""),
        ("/list", "200", b"Directory listing disabled"),
    ],
)
def test_what_is_no_file(ask, path, code, text):
    answer = ask(path)
    assert fields(answer)["code"] == code
    assert body(answer).endswith(b"</h1>\n" + text)


# -- ranges


@pytest.mark.parametrize(
    ("asked", "code", "part"),
    [
        ("bytes=0-0", "206", "0-0"),
        ("bytes=2-4", "206", "2-4"),
        ("bytes=4-", "206", "4-9"),
        ("bytes=4-100", "206", "4-9"),
        ("bytes=-3", "206", "7-9"),
        ("bytes=-100", "206", "0-9"),
        ("bytes=0-9", "206", "0-9"),
        ("bytes=4-3", "416", "*"),
        ("bytes=10-", "416", "*"),
        ("bytes=-0", "416", "*"),
        ("bytes=", "200", ""),
        ("bytes=-", "200", ""),
        ("bytes=1-2,4-5", "200", ""),
        ("bytes = 1-2", "200", ""),
        ("lines=1-2", "200", ""),
        ("bytes=1-2 ", "206", "1-2"),
        ("bytes=a-b", "200", ""),
        ("bytes=99999999999999999999999-", "416", "*"),
        ("bytes=1-" + "9" * 5000, "206", "1-9"),
        ("bytes=-" + "9" * 5000, "206", "0-9"),
        ("bytes=0000000000000000000002-5", "206", "2-5"),
    ],
)
def test_ranges(ask, asked, code, part):
    answer = ask("/a.html", f"Range: {asked}")
    assert fields(answer)["code"] == code
    assert fields(answer).get("content-range", "") == (f"bytes {part}/10" if part else "")
    first, _, last = part.partition("-")
    content = b"" if code == "416" else b"0123456789"[int(first or 0) : int(last or 9) + 1]
    assert body(answer) == content
    assert fields(answer)["content-length"] == str(len(content))


def test_a_range_of_an_empty_file(ask):
    assert fields(ask("/empty.txt", "Range: bytes=0-"))["code"] == "416"


def test_a_range_of_a_large_file(ask, root):
    content = (root / "large.bin").read_bytes()
    assert len(content) > SMALL
    assert body(ask("/large.bin", "Range: bytes=100-70000")) == content[100:70001]
    assert body(ask("/large.bin")) == content


# -- unchanged


def test_if_modified_since_is_compared_as_a_string(ask, root):
    modified = http_date(int((root / "a.html").stat().st_mtime))
    for since, code in [
        (modified, "304"),
        (f"{modified}; length=10", "304"),
        (f"{modified}; length=11", "200"),
        (f"{modified}; length={'9' * 5000}", "200"),
        (http_date(2_000_000_000), "200"),
        (modified.lower(), "200"),
    ]:
        answer = ask("/a.html", f"If-Modified-Since: {since}", "Range: bytes=1-2" if code == "304" else "X: y")
        assert fields(answer)["code"] == code
        if code == "304":
            assert not {"content-length", "content-type"} & set(fields(answer))
            assert body(answer) == b""


# -- directories


def test_a_listing_has_all_entries_sorted_and_escaped(ask, service):
    service.set("dirindexing", "on")
    for path in ("/list", "/list/"):
        answer = ask(path)
        assert fields(answer)["content-type"] == "text/html"
        assert body(answer).decode() == (
            "<html><body><b><a href='/list/./'>.</a></b><br />\n<b><a href='/list/../'>..</a></b><br />\n"
            "<a href='/list/%3Cb%3E%26%27.css'>&lt;b&gt;&amp;&#x27;.css</a><br />\n"
            "<b><a href='/list/sub/'>sub</a></b><br />\n</body></html>"
        )


def test_index_files_are_tried_in_order(ask, service, root):
    service.set("index_files", "none.html, index.txt index.html")
    assert body(ask("/d")) == b"index"
    (root / "d" / "index.txt").write_bytes(b"text")
    assert (body(ask("/d")), fields(ask("/d"))["content-type"]) == (b"text", "text/plain")


# -- files that change, and clients that leave or do not read


def test_a_large_file_leaves_as_its_client_reads(service, wires, run_turns, root):
    talker = Talker(service, wires, run_turns, 10_000)
    talker.far.send(get("/large.bin"))
    run_turns(5)
    assert talker.client.state == "xfer_disk"
    talker.far.send(get("/a.html"))
    talker.until(lambda: b"0123456789" in talker.got[-10:])
    assert talker.got.count(b"HTTP/1.0 200 OK") == 2
    assert body(talker.got)[: 256 * 512] == (root / "large.bin").read_bytes()


def test_a_client_that_leaves_in_the_middle_leaves_no_descriptor(service, wires, run_turns):
    before = len(os.listdir("/dev/fd"))
    talker = Talker(service, wires, run_turns, 10_000)
    talker.far.send(get("/large.bin"))
    run_turns(3)
    talker.far.close()
    talker.until(lambda: len(os.listdir("/dev/fd")) == before)
    assert len(os.listdir("/dev/fd")) == before
    assert talker.client.closed


def test_a_client_is_overdue_where_it_has_taken_nothing_since_the_last_look():
    client = SimpleNamespace(sent_of_file=100, ends=[])
    client.close = client.ends.append
    exchange = SendingFile()
    exchange.overdue(client)
    client.sent_of_file = 200
    exchange.overdue(client)
    assert client.ends == []
    exchange.overdue(client)
    assert len(client.ends) == 1


def test_a_file_that_may_not_be_read(ask, monkeypatch):
    def refuses(*_args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuses)
    assert fields(ask("/a.html"))["code"] == "403"


@pytest.mark.parametrize("path", ["/a.html", "/large.bin"])
def test_plugins_hear_that_a_file_was_sent_and_may_go_on(ask, service, path):
    heard = []
    service.register_hook("test", "reproxy_fh_finished", lambda client: heard.append(client.code))
    ask(path)
    ask(path, method="HEAD")
    assert heard == [200]
    service.register_hook(
        "test", "reproxy_fh_finished", lambda client: client.write(b"more") or client.response_done() or 1
    )
    assert ask(path).count(b"HTTP/1.0") == 1


@pytest.mark.parametrize(
    ("hook", "path"),
    [
        ("start_web_request", "/a.html"),
        ("start_http_request", "/a.html"),
        ("start_serve_request", "/a.html"),
        ("static_get_poststat_pre_send", "/a.html"),
        ("static_get_poststat_pre_send", "/large.bin"),
        ("static_get_poststat_file_missing", "/none"),
        ("modify_response_headers", "/large.bin"),
        ("start_send_file", "/large.bin"),
        ("concat_get_poststat_pre_send", "/d/??index.html"),
        ("concat_get_poststat_file_missing", "/d/??none"),
    ],
)
def test_a_plugin_may_answer_in_place_of_the_file(ask, service, hook, path):
    service.set("enable_concatenate_get", "on")
    ask("/a.html")
    descriptors = len(os.listdir("/dev/fd"))
    service.register_hook("test", hook, lambda client, *more: client.error(403, "Mine.") or True)
    answer = ask(path)
    assert (fields(answer)["code"], body(answer)) == ("403", b"<h1>403 - Forbidden</h1>\nMine.")
    assert len(os.listdir("/dev/fd")) == descriptors


def test_server_tokens(ask, service):
    service.set("server_tokens", "off")
    assert "server" not in fields(ask("/a.html"))
    assert "server" not in fields(ask("/none"))
    assert "server" not in fields(ask("/a.html", "Range: bytes=99-"))
