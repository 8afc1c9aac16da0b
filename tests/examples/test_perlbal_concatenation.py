"""Several files by one request."""

from __future__ import annotations

import errno
import os

import pytest

from perlbal import concatenation
from perlbal.files import SMALL
from perlbal.pages import http_date
from perlbal_talk import body, fields, served


@pytest.fixture
def root(tmp_path):
    (tmp_path / "d").mkdir()
    for number, (name, content) in enumerate(
        {"a.css": b"a", "b.js": b"bb", "plain": b"p", "large.bin": b"0123456789abcdef" * SMALL}.items()
    ):
        (tmp_path / "d" / name).write_bytes(content)
        os.utime(tmp_path / "d" / name, (number, 1000 + number))
    return tmp_path


@pytest.fixture
def service(loop, root):
    with served(persist_client="on", docroot=root, enable_concatenate_get="on") as service:
        yield service


@pytest.mark.parametrize(
    ("path", "kind", "newest"),
    [
        ("/d/??a.css,b.js", "text/css", 1001),
        ("/d/??plain,b.js,a.css?v=1", "application/x-javascript", 1002),
        ("/d/??plain", "text/plain", 1002),
        ("/d/??a.css,a.css,large.bin,b.js", "text/css", 1003),
        ("/??d/a.css,d/b.js", "text/css", 1001),
    ],
)
def test_files_are_sent_one_after_the_other(ask, root, path, kind, newest):
    names = path.partition("??")[2].partition("?")[0].split(",")
    expected = b"".join((root / "d" / name.removeprefix("d/")).read_bytes() for name in names)
    answer = ask(path)
    assert body(answer) == expected
    wanted = {"content-length": str(len(expected)), "content-type": kind, "last-modified": http_date(newest)}
    assert {name: fields(answer)[name] for name in wanted} == wanted
    head = ask(path, method="HEAD")
    assert (fields(head)["content-length"], body(head)) == (str(len(expected)), b"")


@pytest.mark.parametrize(
    ("path", "code", "text"),
    [
        ("/d??a.css", "500", b"Base directory (before ??) must end in slash."),
        ("/d/??" + ",".join(["a.css"] * 101), "403", b"Too many files requested"),
        ("/d/??../x", "403", b"Bogus filenames"),
        ("/d/??a.css,x/..", "403", b"Bogus filenames"),
        ("/d/../??a.css", "403", b"Bogus URL"),
        ("/none/??a.css", "404", b"Base directory not a directory"),
        ("/d/??a.css,none", "404", b"One or more file does not exist"),
        ("/d/??a.css,../d", "403", b"Bogus filenames"),
        ("/d/??a.css,.", "404", b"One or more file does not exist"),
        ("/d/??", "404", b"One or more file does not exist"),
    ],
)
def test_what_is_refused(ask, path, code, text):
    descriptors = len(os.listdir("/dev/fd"))
    answer = ask(path)
    assert (fields(answer)["code"], body(answer).partition(b"\n")[2]) == (code, text)
    assert len(os.listdir("/dev/fd")) == descriptors


def test_what_cannot_be_opened_is_not_missing(ask, monkeypatch):
    def too_many(path, name):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(concatenation, "open_file", too_many)
    answer = ask("/d/??a.css")
    assert (fields(answer)["code"], body(answer).partition(b"\n")[2]) == ("500", b"Too many open files")


def test_it_may_be_off(ask, service):
    service.set("enable_concatenate_get", "off")
    assert body(ask("/d/??a.css")).endswith(b"\nMultiple file serving isn't enabled")


def test_unchanged(ask):
    assert fields(ask("/d/??a.css,b.js", f"If-Modified-Since: {http_date(1001)}"))["code"] == "304"
    assert fields(ask("/d/??a.css,b.js", f"If-Modified-Since: {http_date(1000)}"))["code"] == "200"
