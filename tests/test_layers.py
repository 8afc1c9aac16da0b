"""The layers, read from the sources: no module imports one above it, and only `green.sched` knows of greenlets.

A module may import the standard library, the modules to its left in SHAPE and those of the folders before, where `|`
parts the layers for the reader. A new module fails these tests until it has a place there.
"""

import ast
import re
import sys
from pathlib import Path

import pytest

from tests.helpers import nodes

PACKAGE = Path(__file__).parent.parent / "dangagreen"
LONGEST = 400  # lines of a module

# (folder, its modules), leftmost and uppermost the lowest
SHAPE = [
    ("", "builds public errors frames places parks tracebacks checks system_calls"),
    (
        "loop",
        "error_log pollers timers signal_chain sigint collecting | handlers births gone"
        " wakeup schedule thread_pool registry deadlock slowness instruments | profiling turn forking loop",
    ),
    (
        "sockets",
        "settings subclassing addresses binding states busy | descriptor endpoint idle read_buffer receiving"
        " | delivery backpressure write_queue limits lingering danga sock kernel acceptor listener"
        " | tls_words tls_sending tls_receiving tls tls_options",
    ),
    (
        "green",
        "task_table | waiters | told_tasks stacks | sched | parking | sleep fds scopes | life lender deadlines tasks"
        " | spawning | groups signals forking from_thread | run | background",
    ),
    ("sync", "wait_queue | locks events | handoff | queues channels | multiwait threads"),
    ("streams", "readiness | reading | writing | files"),
    (
        "net",
        "handler_task | resolver | proxy_protocol opening | connector | unconnected starttls | sock draining | listener"
        " | serving | connecting serve_forever activation",
    ),
    ("", "__init__"),
    ("bridge", "call_graph sides | host | selector | event_loop home | crossing | guest __init__"),
    ("metrics", "counts | prometheus otel __init__"),
    (
        "introspect",
        "data stacks | records circles connections | collect profiles | text | mark on_signal remote watchdog"
        " | linting reach lint_tasks lint_spins lint_locks lint_turns lint_calls lint_errors lint_queues lint_waits"
        " lint __init__",
    ),
    ("", "__main__"),
    (
        "testing",
        "wire_end wire order clock idle ends leaks trial | time_limit servers cases | __init__ | fixtures plugin",
    ),
]
# a docstring, no more
PUBLIC = "", "bridge", "metrics", "introspect", "testing"
BARE = {f"dangagreen.{part}.__init__" for part, _ in SHAPE if part not in PUBLIC}
STRANGERS = {
    "dangagreen.sync": "dangagreen.streams",
    "dangagreen.streams": "dangagreen.sync",
}  # know nothing of each other
THIRD_PARTY = {
    "dangagreen.green.lender": {"greenlet"},
    "dangagreen.green.sched": {"greenlet"},
    "dangagreen.sockets.addresses": {"idna"},
    "dangagreen.metrics.prometheus": {"prometheus_client"},
    "dangagreen.metrics.otel": {"opentelemetry"},
}
for plugin in ("dangagreen.testing.fixtures", "dangagreen.testing.plugin"):
    THIRD_PARTY[plugin] = {"pytest"}
SWITCHING = {"switch", "throw"}

ORDER = [
    ".".join(filter(None, ("dangagreen", part, module)))
    for part, modules in SHAPE
    for module in modules.split()
    if module != "|"
]


def module_name(path):
    return ".".join(("dangagreen", *path.relative_to(PACKAGE).with_suffix("").parts))


SOURCES = {module_name(path): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}


def imports(source):
    """(line, module) of each import, wherever it stands. `from package import module` counts as that module."""
    for node in nodes(source):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield node.lineno, "." * node.level + (node.module or "")
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                longer = f"{node.module}.{alias.name}"
                yield node.lineno, longer if longer in ORDER else node.module


def faults(name, source):
    """What is wrong with a module of this name and this source, in words."""
    if name in BARE:
        return [] if len(nodes(source)[0].body) <= 1 else [f"{name} is to hold a docstring and nothing else"]
    if name not in ORDER:
        return [f"{name} has no place in SHAPE"]
    found = []
    place = ORDER.index(name)
    for line, target in imports(source):
        top = target.split(".")[0]
        full = target if target in ORDER else f"{target}.__init__"
        if not top:
            found.append(f"{name}:{line} imports {target}: write the whole name")
        elif top == "asyncio" and not name.startswith("dangagreen.bridge."):
            found.append(f"{name}:{line} imports asyncio, which only the bridge does")
        elif top != "dangagreen":
            if top not in sys.stdlib_module_names and top not in THIRD_PARTY.get(name, ()):
                found.append(f"{name}:{line} imports {target}, which is not in the standard library")
        elif full not in ORDER:
            found.append(f"{name}:{line} imports {target}, which has no place in SHAPE")
        elif ORDER.index(full) >= place:
            found.append(f"{name}:{line} imports {target}, which is not below it")
        elif (folder := name.rpartition(".")[0]) in STRANGERS and target.startswith(STRANGERS[folder]):
            found.append(f"{name}:{line} imports {target}: sync and streams know nothing of each other")
    if "greenlet" not in THIRD_PARTY.get(name, ()):
        for node in nodes(source):
            if isinstance(node, ast.Attribute) and node.attr in SWITCHING:
                found.append(f"{name}:{node.lineno} uses .{node.attr}, which only green.sched does")
    if name.startswith(("dangagreen.loop.", "dangagreen.sockets.")) and "asyncio" in source:
        found.append(f"{name} knows of asyncio, which the loop and its sockets are not to")
    return found


@pytest.mark.parametrize("name", SOURCES)
def test_module_keeps_to_its_layer(name):
    assert faults(name, SOURCES[name]) == []


def test_every_place_is_taken():
    assert set(ORDER) | BARE == set(SOURCES)


def test_no_module_has_outgrown_its_room():
    """One that is longer does more than one thing: it is to be redesigned."""
    lengths = {str(path.relative_to(PACKAGE)): path.read_text().count("\n") for path in PACKAGE.rglob("*.py")}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST} == {}


def test_the_design_page_has_a_row_for_each_place_in_this_order():
    page = (PACKAGE.parent / "docs" / "design.md").read_text()
    rows = re.findall(r"^\| `([\w/]+)` \|", page[page.index("| module |") : page.index("| `testing/` |")], re.MULTILINE)
    places = [name.removeprefix("dangagreen.").replace(".", "/") for name in ORDER if ".testing." not in name]
    assert rows == places


@pytest.mark.parametrize(
    ("name", "source", "complaint"),
    [
        ("loop.pollers", "from dangagreen.loop.loop import Loop", "not below it"),
        ("loop.loop", "def f():\n    import dangagreen.green.sched", "not below it"),
        ("sockets.sock", "from dangagreen.sockets import listener", "not below it"),
        ("sockets.sock", "from dangagreen.sockets.sock import Socket", "not below it"),
        ("sockets.sock", "from dangagreen import Socket", "not below it"),
        ("sockets.sock", "from . import loop", "whole name"),
        ("sockets.sock", "import dangagreen.sockets.colour", "no place"),
        ("loop.loop", "from greenlet import getcurrent", "standard library"),
        ("streams.writing", "import greenlet", "standard library"),
        ("streams.writing", "from dangagreen.sync import locks", "nothing of each other"),
        ("net.serving", "import requests", "standard library"),
        ("net.serving", "from dangagreen.testing import wire", "not below it"),
        ("net.serving", "from dangagreen.testing.wire import wire", "not below it"),
        ("streams.writing", "task.resume.__self__.switch()", "only green.sched"),
        ("loop.loop", "jump = worker.throw", "only green.sched"),
        ("green.tasks", "import asyncio.events", "only the bridge"),
        ("loop.loop", "stop()  # as asyncio has it", "knows of asyncio"),
        ("sockets.colour", "", "no place in SHAPE"),
        ("sockets.__init__", "'''words'''\nfrom dangagreen.loop.loop import Loop", "nothing else"),
    ],
)
def test_a_bad_source_is_found(name, source, complaint):
    (fault,) = faults(f"dangagreen.{name}", source)
    assert complaint in fault


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("loop.loop", "import os, collections.abc\nfrom dangagreen.loop import timers\nimport dangagreen.errors"),
        ("green.sched", "from greenlet import greenlet\nworker.switch()\nworker.throw(GreenletExit)"),
        ("bridge.sides", "from asyncio import Task"),
        ("testing.leaks", "from dangagreen.green.sched import scheduler\nfrom dangagreen import run"),
    ],
)
def test_a_good_source_passes(name, source):
    assert faults(f"dangagreen.{name}", source) == []
