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


def test_a_chain_names_the_callers_but_not_those_in_installed_packages():
    answers("""
from dangagreen.introspect import stacks
def code(path, source):
    names = {}
    exec(compile(source, path, "exec"), names)
    return names["call"]
PASS = "def call(*others):\\n    return others[0](*others[1:])\\n"
app, tool, redis, six = [
    code(path, PASS)
    for path in ("/srv/app.py", "/srv/tool.py", "/venv/site-packages/redis.py", "/usr/dist-packages/six.py")
]
seen = code("/srv/look.py", "def call(stacks):\\n    return stacks.chain(stacks.steps(stacks.running()))\\n")
loop = d.current_loop()
def told(*calls):
    told = []
    loop.call_soon(lambda: told.append(calls[0](*calls[1:], seen, stacks)))
    loop.run(lambda: told)
    return told[0].replace(" in call, called from", "").replace(":2", "").split()[:-1]
look = "/srv/look.py"
assert told(app) == [look, "/srv/app.py"]
assert told(app, tool, app) == [look, "/srv/app.py", "/srv/tool.py"], told(app, tool, app)
assert told(app, redis, six, tool) == [look, "/srv/tool.py", "/srv/app.py"]
assert stacks.chain(()) == "?"
""")
