"""Patterns: how they are cut, and what a match costs. That they are Redis's: test_miniredis_against_redis.py."""

from __future__ import annotations

import re

import pytest

from miniredis.patterns import LONGEST, STEPS, Glob, runs
from miniredis.protocol import Refusal


def matched(pattern: bytes, text: bytes) -> tuple[bool, int]:
    """Does it match, and in how many portions was that found?"""
    work, portions = Glob(pattern).matches(text), 1
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value, portions
        portions += 1


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        (b"", b"", b"a"),
        (b"*", b"a \xff\n", b""),
        (b"a*", b"a ab", b"ba"),
        (b"*a", b"a ba", b"ab"),
        (b"a*a", b"aa aba", b"a ab"),
        (b"a?c", b"abc a\nc", b"ac abbc"),
        (b"*ab*ab*", b"abab xabyabz", b"ab aab"),
        (b"[a-c]", b"a b c", b"d ab"),
        (b"[c-a]", b"a b c", b"d"),
        (b"[^a-c]", b"d -", b"a dd"),
        (b"[a\\]]", b"a ]", b"\\"),
        (b"[]", b"", b"a ]"),
        (b"[^]", b"a ]", b"ab"),
        (b"[abc", b"a b c", b"["),
        (b"\\*", b"*", b"a \\*"),
        (b"a\\", b"a\\", b"a"),
    ],
)
def test_patterns(pattern: bytes, matching: bytes, others: bytes) -> None:
    assert [text for text in matching.split(b" ") if text and not matched(pattern, text)[0]] == []
    assert [text for text in others.split(b" ") if text and matched(pattern, text)[0]] == []
    assert matched(pattern, b"")[0] is (pattern == b"")


def test_no_choice_is_taken_back() -> None:
    """Stars cost what they are, not what they multiply to: each is looked for once, behind the one before."""
    for stars in 2, 20, 200, 1000:
        assert matched(b"*a" * stars + b"b", b"a" * 5000) == (False, 1)
        assert matched(b"*a" * stars + b"*", b"a" * 5000) == (True, 1)
        assert all(re.compile(b"[*+{]").search(element) is None for run in runs(b"*a?" * stars) for element in run)


def test_much_is_done_in_portions() -> None:
    text = b"ab" * 2_000_000
    found, portions = matched(b"*" + b"?b" * 100 + b"c*", text)
    assert found is False
    assert len(text) * 201 // STEPS <= portions <= len(text) * 201 // STEPS + 10
    assert matched(b"*" + b"?b" * 100 + b"c*", text + b"c")[0]


def test_a_pattern_has_a_limit() -> None:
    Glob(b"?" * LONGEST)
    with pytest.raises(Refusal, match="pattern is longer"):
        Glob(b"?" * (LONGEST + 1))
