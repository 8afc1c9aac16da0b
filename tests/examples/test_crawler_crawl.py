"""Following links: which pages are fetched, and how many at a time."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from sites import Quiet, crawl, liar, says


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
        with guard:  # before the crawler may have the end of the answer
            running.remove(self)
        usual(self)

    monkeypatch.setattr(Quiet, "do_GET", counted)
    assert crawl(url, "--limit", "4").splitlines()[1:] == ["  1 with status 200", "  30 with status 404"]
    assert 1 < max(most) <= 4


def test_a_circle_of_redirects() -> None:
    with liar(says(b"HTTP/1.1 302 Found\r\nLocation: /other#here\r\n\r\n"), connections=2) as url:
        assert crawl(url).splitlines() == ["pages: 2, bytes: 0", "  2 with status 302"]
