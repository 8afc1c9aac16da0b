"""Many pages: which are to be fetched, what has become of them, and how far it has come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urldefrag, urlsplit

from crawler.fetching import BadReply, fetch
from crawler.links import links, resolve, same_site
from dangagreen import (
    IncompleteReadError,
    LimitError,
    TaskGroup,
    current_loop,
    move_on_after,
    sleep,
    sleep_until,
    spawn,
    timeout,
)
from output import complain

REDIRECTS = {301, 302, 303, 307, 308}


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


def follow_links(crawl: Crawl, starts: list[str], limit: int, seconds: float) -> None:
    """Crawl, for so many seconds at most."""
    ticker = spawn(show, crawl, 0.2, lambda words: complain(f"\r{words}\033[K", end=""))
    try:
        with move_on_after(seconds), TaskGroup(limit) as group:
            for url in starts:
                crawl.add(group, same_site(url, urlsplit(url)) or url, 0)
    finally:
        ticker.cancel()
