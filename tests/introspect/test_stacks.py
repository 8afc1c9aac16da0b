"""Stacks as text: whose frames are shown, and where a stack ends."""

from __future__ import annotations

import pytest

from tests.introspect.seeing import answers

pytestmark = pytest.mark.slow_but_first  # each starts a program


def test_the_program_s_own_frames_innermost_first_and_none_beneath_the_loop():
    answers("""
from dangagreen.introspect import stacks
def inner():
    answers["stack"] = stacks.in_words(stacks.running())
    answers["here"] = stacks.place_of(stacks.running())
def outer():
    sorted([2], key=lambda _: inner())
    d.current_loop().stop()
    assert stacks.place_of([]) == "?"
loop = d.current_loop()
loop.call_soon(outer)
def runs():
    loop.run()
runs()
stack = answers["stack"]
assert [place.split()[1].rpartition(".")[2] for place in stack] == ["inner", "<lambda>", "outer"], stack
assert stack[0] == line_of(inner, 1) + " inner" and answers["here"] == line_of(inner, 2)
""")
