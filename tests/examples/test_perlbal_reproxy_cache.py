"""Answers by urls that are remembered."""

from __future__ import annotations

import pytest

from perlbal.heads import RequestHead, ResponseHead, parse_request
from perlbal.reproxy_cache import ReproxyCache


def asked(uri: str = "/x", host: str = "a") -> RequestHead:
    return parse_request(f"GET {uri} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())


def answer(code: int = 200) -> ResponseHead:
    head = ResponseHead(code, "Fine")
    for name, value in (("X-Foo", "bar"), ("Content-Type", "a/b"), ("X-Reproxy-Expected-Size", "5")):
        head.set(name, value)
    return head


def test_it_is_remembered_for_so_long_with_the_fields_that_were_named() -> None:
    cache = ReproxyCache()
    cache.add(asked(), answer(), "3; content-type X-None X-Foo", ["http://b/"], 10, 100.0)
    entry = cache.find(asked(), 102.9)
    assert entry is not None
    assert (entry.urls, entry.expected) == (["http://b/"], "5")
    assert entry.fields == {"content-type": "a/b", "X-Foo": "bar"}
    assert cache.find(asked("/y"), 102.9) is None
    assert cache.find(asked(host="b"), 102.9) is None
    assert cache.find(asked(), 103.0) is None
    assert cache.describe(10) == ["    cache size: 0/10 (0.00%)", "    cache hits: 1", "cache hit rate: 25.00%"]


@pytest.mark.parametrize(("rule", "code"), [("", 200), ("x", 200), ("-3; A", 200), ("3 A", 200), ("3; A", 500)])
def test_what_is_no_rule_is_not_remembered(rule: str, code: int) -> None:
    cache = ReproxyCache()
    cache.add(asked(), answer(code), rule, ["http://b/"], 10, 100.0)
    assert cache.entries == {}


def test_what_was_used_least_recently_is_forgotten_first() -> None:
    cache = ReproxyCache()
    for uri in "/1", "/2":
        cache.add(asked(uri), answer(), "9", [], 2, 100.0)
    assert cache.find(asked("/1"), 101.0) is not None
    cache.add(asked("/3"), answer(), "9", [], 2, 101.0)
    assert [key.partition("|")[2] for key in cache.entries] == ["/1", "/3"]
    cache.forget(asked("/3"))
    assert len(cache.entries) == 1
