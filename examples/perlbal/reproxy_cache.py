"""What backends have answered by X-Reproxy-URL, remembered for as long as they have allowed by X-Reproxy-Cache-For.

The value of that field is `seconds; Name Name`: the fields of the answer that are remembered with the urls. What was
used least recently is forgotten first. What does not belong here: what is done with the urls (reproxying).
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass

from perlbal.heads import RequestHead, ResponseHead

_RULE = re.compile(r"(\d{1,9})(?:;\s*(.*))?\Z", re.ASCII)


@dataclass(frozen=True)
class Entry:
    """Urls, and what is told with what they have."""

    urls: list[str]
    expected: str
    fields: dict[str, str]
    until: float


class ReproxyCache:
    """Entries by `Host|URI`."""

    def __init__(self) -> None:
        self.entries: OrderedDict[str, Entry] = OrderedDict()
        self.asked = self.hits = 0

    def find(self, head: RequestHead, now: float) -> Entry | None:
        """What is remembered for a request, if it may still be used."""
        key = _key(head)
        self.asked += 1
        entry = self.entries.get(key)
        if entry is None or entry.until <= now:
            self.entries.pop(key, None)
            return None
        self.entries.move_to_end(key)
        self.hits += 1
        return entry

    def add(self, asked: RequestHead, answer: ResponseHead, rule: str, urls: list[str], most: int, now: float) -> None:
        """Remember an answer, if its rule is one."""
        match = _RULE.match(rule)
        if match is None or answer.code not in (200, 204):
            return
        names = {name: answer.get(name.lower()) for name in (match[2] or "").split() if name.lower() in answer}
        expected = answer.get("x-reproxy-expected-size")
        self.entries[_key(asked)] = Entry(urls, expected, names, now + int(match[1]))
        self.entries.move_to_end(_key(asked))
        while len(self.entries) > most:
            self.entries.popitem(last=False)

    def forget(self, head: RequestHead) -> None:
        """The urls were of no use."""
        self.entries.pop(_key(head), None)

    def describe(self, most: int) -> list[str]:
        """The lines of SHOW SERVICE."""
        full, hit = 100 * len(self.entries) / most, 100 * self.hits / max(1, self.asked)
        return [
            f"    cache size: {len(self.entries)}/{most} ({full:.2f}%)",
            f"    cache hits: {self.hits}",
            f"cache hit rate: {hit:.2f}%",
        ]


def _key(head: RequestHead) -> str:
    return f"{head.host}|{head.uri}"
