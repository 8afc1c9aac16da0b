"""A crawler: it follows the links of a site, so many pages at a time, and shows how far it has come.

    python examples/crawler.py --limit 20 --seconds 30 http://127.0.0.1:8000/

It is a client, in sequential style throughout: each page is fetched by a task that reads as if it blocked.

- `TaskGroup(limit=...)` bounds how many pages are fetched at once. The tasks add to the group they are in: every link
  that was not seen yet is one more `group.spawn`, and the block ends when no page is left.
- A `timeout` around each page is for all of it: connecting, the headers, a body that drips. `move_on_after` around the
  whole crawl ends it quietly, with what there is.
- The progress is a task of its own, which wakes at absolute times (`sleep_until`), so that it does not drift. It is not
  in the group, which would wait for it.
- Servers lie. Sizes are bounded before they are believed: of a line, of the headers, of a body, of a chunk.
- A large page is parsed in pieces (`crawler_links.py`), and others have their turn between them (`sleep(0)`).
- Ctrl-C ends the group, which ends its tasks, and the summary is printed all the same.

The protocol is HTTP/1.1 without TLS, as much of it as a page needs; use a real library for more.
"""

from __future__ import annotations

import base64
import re
import sys
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, ArgumentTypeError
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import SplitResult, unquote_to_bytes, urldefrag, urlsplit

from crawler_links import HTML, links, media_type, resolve, same_site
from dangagreen import (
    IncompleteReadError,
    LimitError,
    Socket,
    TaskGroup,
    connect,
    current_loop,
    move_on_after,
    run,
    sleep,
    sleep_until,
    spawn,
    timeout,
)
from output import complain, tell

LONGEST_HEAD = 64 * 1024  # bytes of status line and headers
Number = TypeVar("Number", int, float)
REDIRECTS = {301, 302, 303, 307, 308}


class BadReply(Exception):
    """The server does not speak HTTP as we know it. The argument says what is wrong."""


# -- one page


@dataclass
class Reply:
    status: int
    headers: dict[str, str]  # names in lower case; of several the last
    body: bytes


class Connection(Socket):
    """A line of a server is a header, or the size of a chunk."""

    __slots__ = ()
    line_limit = 8192


def fetch(url: SplitResult, most: int) -> Reply:
    """Parks until the page is there. Bodies beyond `most` bytes raise LimitError."""
    address = (url.hostname or "", url.port or 80)
    with connect(address, socket_class=Connection) as sock:
        sock.write_all(request(url))
        while True:
            status, headers = read_head(sock)
            if status >= 200:  # before it, a server may say 100 Continue and the like
                break
        html = media_type(headers.get("content-type", "")) in HTML
        return Reply(status, headers, read_body(sock, status, headers, most) if html else b"")


def request(url: SplitResult) -> bytes:
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    host = (url.hostname or "").partition("%")[0]  # without the zone of an IPv6 address, which is our own affair
    host = (f"[{host}]" if ":" in host else host) + (f":{url.port}" if url.port not in (None, 80) else "")
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "User-Agent: crawler", "Connection: close"]
    if url.username is not None:
        user = unquote_to_bytes(url.username) + b":" + unquote_to_bytes(url.password or "")
        lines.append(f"Authorization: Basic {base64.b64encode(user).decode()}")
    return "\r\n".join([*lines, "\r\n"]).encode()


def read_head(sock: Socket) -> tuple[int, dict[str, str]]:
    first = text(sock.read_line())
    match = re.match(r"HTTP/1\.[01] (\d{3})\b", first)
    if not match:
        raise BadReply("no status line")
    headers, size = {}, len(first)
    while line := text(sock.read_line()).strip():
        size += len(line)
        if size > LONGEST_HEAD:
            raise BadReply("endless headers")
        name, colon, value = line.partition(":")
        if not colon:
            raise BadReply("a header without a colon")
        headers[name.strip().lower()] = value.strip()
    return int(match[1]), headers


def text(line: bytes) -> str:
    if not line:
        raise BadReply("an end within the headers")
    return line.decode("latin-1")


def read_body(sock: Socket, status: int, headers: dict[str, str], most: int) -> bytes:
    if status in (204, 304):
        return b""
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return read_chunks(sock, most)
    if "content-length" not in headers:
        return sock.read_to_end(most)
    return sock.read_exactly(bounded(headers["content-length"], 10, most))


def read_chunks(sock: Socket, most: int) -> bytes:
    body = bytearray()
    while size := bounded(text(sock.read_line()).partition(";")[0].strip(), 16, most - len(body)):
        body += sock.read_exactly(size)
        if sock.read_exactly(2) != b"\r\n":
            raise BadReply("a chunk without an end")
    return bytes(body)


def bounded(digits: str, base: int, most: int) -> int:
    """The number, if it is one and no more than `most`."""
    if not re.fullmatch(r"[0-9A-Fa-f]{1,18}", digits):
        raise BadReply(f"a length of {digits[:20]!r}")
    try:
        size = int(digits, base)
    except ValueError:
        raise BadReply(f"a length of {digits!r}") from None
    if size > most:
        raise LimitError(f"a body of more than {most} bytes", most)
    return size


# -- many pages


@dataclass
class Crawl:
    """What was asked for, and what has come of it."""

    most_pages: int
    most_bytes: int
    depth: int
    page_seconds: float
    seen: set[str] = field(default_factory=set)
    found: Counter[int] = field(default_factory=Counter)  # pages by status
    failures: Counter[str] = field(default_factory=Counter)  # by reason
    bytes: int = 0
    running: int = 0

    def add(self, group: TaskGroup, url: str, depth: int) -> None:
        """Have a page fetched, unless it was seen, is elsewhere, or is one too many."""
        url = urldefrag(url).url
        if url in self.seen or len(self.seen) >= self.most_pages or depth > self.depth:
            return
        self.seen.add(url)
        group.spawn(self.page, group, url, depth)

    def page(self, group: TaskGroup, url: str, depth: int) -> None:
        """Fetch one, and add what it links to. Its failure is counted, and harms no other."""
        self.running += 1
        try:
            with timeout(self.page_seconds):
                reply = fetch(urlsplit(url), self.most_bytes)
        except Exception as error:
            self.failures[reason(error)] += 1
            return
        finally:
            self.running -= 1
        self.found[reply.status] += 1
        self.bytes += len(reply.body)
        if reply.status in REDIRECTS:
            location = reply.headers.get("location", "").encode("latin-1").decode("utf-8", "replace")
            self.follow(group, resolve(url, location), url, depth)
        else:
            for link in links(url, reply.headers.get("content-type", ""), reply.body):
                if link is None:
                    sleep(0)
                self.follow(group, link, url, depth)

    def follow(self, group: TaskGroup, link: str | None, url: str, depth: int) -> None:
        found = same_site(link, urlsplit(url)) if link is not None else None
        if found is not None:
            self.add(group, found, depth + 1)

    def progress(self) -> str:
        done = self.found.total() + self.failures.total()
        return f"{done} of {len(self.seen)} pages, {self.running} under way, {self.bytes:,} bytes"

    def summary(self) -> str:
        lines = [f"pages: {self.found.total()}, bytes: {self.bytes}"]
        lines += [f"  {count} with status {status}" for status, count in sorted(self.found.items())]
        lines += [f"failures: {self.failures.total()}"] if self.failures else []
        lines += [f"  {count}: {why}" for why, count in self.failures.most_common()]
        left = len(self.seen) - self.found.total() - self.failures.total()
        return "\n".join([*lines, *([f"not fetched: {left}"] if left else [])])


def reason(error: Exception) -> str:
    """Failures of a kind are counted together."""
    match error:
        case TimeoutError():
            return "too slow"
        case LimitError():
            return "too large"
        case IncompleteReadError():
            return "ended too early"
        case BadReply():
            return str(error)
        case OSError():
            return error.strerror or type(error).__name__
        case _:
            return f"{type(error).__name__}: {error}"


def show(crawl: Crawl, every: float, line: Callable[[str], object]) -> None:
    """Tell how far it has come, at equal steps, until it is cancelled."""
    deadline = current_loop().time()
    while True:
        deadline += every
        sleep_until(deadline)
        line(crawl.progress())


def main(crawl: Crawl, starts: list[str], limit: int, seconds: float) -> None:
    """Crawl, for so many seconds at most."""
    ticker = spawn(show, crawl, 0.2, lambda words: complain(f"\r{words}\033[K", end=""))
    try:
        with move_on_after(seconds), TaskGroup(limit) as group:
            for url in starts:
                crawl.add(group, same_site(url, urlsplit(url)) or url, 0)
    finally:
        ticker.cancel()


def address(url: str) -> str:
    """A URL of the command line."""
    try:
        parts = urlsplit(url)
        known = re.fullmatch(r"http://[!-~]+", url) and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number, a bracket that is not closed
        known = False
    if not known:
        raise ArgumentTypeError(f"{url} is not an http:// address")
    return url


def at_least(least: Number) -> Callable[[str], Number]:
    """A number of the command line, of the kind that `least` is."""

    def number(text: str) -> Number:
        value = type(least)(text)
        if not value >= least:
            raise ArgumentTypeError(f"{text} is not {least} or more")
        return value

    return number


def command() -> int:
    parser = ArgumentParser(description="Follow the links of a site.", formatter_class=ArgumentDefaultsHelpFormatter)
    parser.add_argument("urls", nargs="+", type=address, metavar="URL")
    parser.add_argument("--limit", type=at_least(1), default=10, help="pages at a time")
    parser.add_argument("--pages", type=at_least(1), default=1000, help="pages in all")
    parser.add_argument("--bytes", type=at_least(1), default=1024 * 1024, help="the largest page")
    parser.add_argument("--depth", type=at_least(0), default=10, help="links from the start")
    parser.add_argument("--page-seconds", type=at_least(0.01), default=10.0, help="time for a page")
    parser.add_argument("--seconds", type=at_least(0.01), default=60.0, help="time for all")
    options = parser.parse_args()
    crawl = Crawl(options.pages, options.bytes, options.depth, options.page_seconds)
    interrupted = False
    try:
        run(main, crawl, options.urls, options.limit, options.seconds)
    except KeyboardInterrupt:
        interrupted = True
    complain("\r\033[K", end="")
    tell(crawl.summary())
    return 130 if interrupted else 0


if __name__ == "__main__":
    sys.exit(command())
