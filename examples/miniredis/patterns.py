r"""Redis's patterns: `*`, `?`, `[a-c]`, `[^a]` and `\` before what stands for itself.

A pattern is cut at its stars into runs of a fixed length, and the leftmost place of each is looked for behind the one
before: no choice is ever taken back. So a match costs no more than pattern times text, however many stars there are,
and what costs much is done in portions.
"""

from __future__ import annotations

import re
from functools import lru_cache

from miniredis.portions import Work
from miniredis.protocol import Refusal

LONGEST = 4096  # bytes of a pattern
STEPS = 1_000_000  # bytes compared with bytes in one go, some milliseconds


class Run:
    """What stands between two stars: as many bytes as it has elements. A regular expression without repetition."""

    def __init__(self, elements: list[bytes]) -> None:
        self.size = len(elements)
        self.regex = re.compile(b"".join(elements), re.DOTALL)

    def find(self, text: bytes, start: int, end: int) -> Work[int]:
        """Where it stands first within text[start:end]; -1 if it does not."""
        portion = STEPS // (self.size or 1) + 1
        while start + self.size <= end:
            found = self.regex.search(text, start, min(end, start + portion + self.size - 1))
            if found:
                return found.start()
            start += portion
            if start + self.size <= end:
                yield
        return -1


class Glob:
    """A pattern. Raises Refusal for one that is too long."""

    def __init__(self, pattern: bytes) -> None:
        if len(pattern) > LONGEST:
            raise Refusal(b"ERR pattern is longer than %d bytes" % LONGEST)
        self.empty = not pattern
        self.first, *rest = [Run(run) for run in runs(pattern)]
        self.last = rest.pop() if rest else None  # None: there is no star
        self.between = [run for run in rest if run.size]

    def matches(self, text: bytes) -> Work[bool]:
        first, last, end = self.first, self.last, len(text)
        if not text:  # as Redis has it, no star stands for it
            return self.empty
        if not first.regex.match(text):
            return False
        if last is None:
            return first.size == end
        start, end = first.size, end - last.size
        if end < start or not last.regex.match(text, end):
            return False
        for run in self.between:
            found = yield from run.find(text, start, end)
            if found < 0:
                return False
            start = found + run.size
        return True


glob = lru_cache(256)(Glob)


def runs(pattern: bytes) -> list[list[bytes]]:
    """The pattern, cut at its stars; each element is a regular expression for one byte."""
    cut: list[list[bytes]] = [[]]
    at = 0
    while at < len(pattern):
        byte = pattern[at : at + 1]
        at += 1
        if byte == b"*":
            cut.append([])
        elif byte == b"?":
            cut[-1].append(b".")
        elif byte == b"[":
            element, at = one_of(pattern, at)
            cut[-1].append(element)
        else:
            if byte == b"\\" and at < len(pattern):
                byte = pattern[at : at + 1]
                at += 1
            cut[-1].append(re.escape(byte))
    return cut


def one_of(pattern: bytes, at: int) -> tuple[bytes, int]:
    """The element for what begins behind a bracket, and where it ends: at the latest at the end of the pattern."""
    inverted = pattern[at : at + 1] == b"^"
    at += inverted
    members: list[bytes] = []
    while at < len(pattern) and pattern[at : at + 1] != b"]":
        first = last = pattern[at : at + 1]
        if first == b"\\" and at + 1 < len(pattern):
            at += 1
            first = last = pattern[at : at + 1]
        elif pattern[at + 1 : at + 2] == b"-" and at + 2 < len(pattern):
            at += 2
            first, last = sorted((first, pattern[at : at + 1]))
        members.append(b"\\x%02x-\\x%02x" % (first[0], last[0]))
        at += 1
    if not members:
        return (b"." if inverted else b"(?!.).", at + 1)
    return b"[%b%b]" % (b"^" * inverted, b"".join(members)), at + 1
