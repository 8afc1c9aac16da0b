"""The program: what the command line may say, and the summary at the end."""

from __future__ import annotations

import re
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit

from crawler.crawl import Crawl, follow_links
from dangagreen import run
from output import complain, tell

Number = TypeVar("Number", int, float)


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


def main() -> int:
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
        run(follow_links, crawl, options.urls, options.limit, options.seconds)
    except KeyboardInterrupt:
        interrupted = True
    complain("\r\033[K", end="")
    tell(crawl.summary())
    return 130 if interrupted else 0
