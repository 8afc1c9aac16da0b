"""What is said and not guessed: the package looks into no callable, counts no frames and compares no modules' names."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.helpers import nodes

PACKAGE = Path(__file__).parent.parent / "dangagreen"
SOURCES = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}

# module -> what it looks into, and why that is no guess about who is who
PARTS = {
    "bridge/event_loop.py": {"func", "__self__"},  # whether a handler of SIGINT is that of asyncio.Runner
    "checks.py": {"func", "__func__"},  # whether a call of what a program gives us would run
    "green/life.py": {"func", "__self__"},  # what a task is called; whether what is queued starts one
    "net/sock.py": {"func"},  # a partial of a class is as good as the class
    "places.py": {"func", "__func__", "__self__"},  # what a slow call is named in a log line, after it
    "public.py": {"fget", "__func__"},  # what a method is called
    "sockets/subclassing.py": {"__func__"},  # is the hook of a subclass one that would run?
}
INSIDE = {"__self__", "__func__", "__wrapped__", "func", "fget"}

# who asks for a frame: where something went wrong, once a run, for the table of tasks (spawn, to_task), at a price, and
# who looks on
FRAMES = {
    "bridge/crossing.py",
    "frames.py",
    "green/groups.py",
    "green/parking.py",
    "green/run.py",
    "green/spawning.py",
    "introspect/stacks.py",
    "loop/births.py",
    "loop/loop.py",
    "loop/schedule.py",
}


def looks_inside(source):
    """The names of parts of a callable that are read in it, as attributes or by getattr."""
    for one in nodes(source):
        if isinstance(one, ast.Attribute) and one.attr in INSIDE and isinstance(one.ctx, ast.Load):
            yield one.attr
        elif isinstance(one, ast.Call) and isinstance(one.func, ast.Name) and one.func.id == "getattr":
            if isinstance(one.args[1], ast.Constant) and one.args[1].value in INSIDE:
                yield one.args[1].value


def compares_names(source):
    """Whether the name of a module of ours is compared with something, or is looked for in something."""
    for one in nodes(source):
        if isinstance(one, ast.Compare):
            parts = [one.left, *one.comparators]
        elif isinstance(one, ast.Call) and isinstance(one.func, ast.Attribute) and one.func.attr == "startswith":
            parts = one.args
        else:
            continue
        for part in parts:
            if isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value.startswith("dangagreen"):
                yield part.value


@pytest.mark.parametrize("name", SOURCES)
def test_no_callable_is_looked_into(name):
    assert set(looks_inside(SOURCES[name])) == PARTS.get(name, set())


@pytest.mark.parametrize("name", SOURCES)
def test_no_name_of_a_module_is_compared(name):
    assert list(compares_names(SOURCES[name])) == []


def test_frames_are_asked_for_in_few_places():
    assert {name for name, source in SOURCES.items() if "_getframe" in source} == FRAMES


@pytest.mark.parametrize(
    "source",
    ["resume.__self__.task", "getattr(call, 'func', None)", "getattr(before, '__self__', None)"],
)
def test_a_look_into_a_callable_is_found(source):
    assert len(list(looks_inside(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "f['__name__'] != 'dangagreen.loop.loop'",
        "name.startswith('dangagreen.')",
        "name in ('x',) or 'dangagreen' == name",
    ],
)
def test_a_comparison_of_names_is_found(source):
    assert len(list(compares_names(source))) == 1
