"""The examples use the library as anybody could, by its public names alone: that is read from their sources.

What an example needs and cannot reach by a public name is missing from the library. Besides the standard library and
each other, examples import only names in `__all__` of the modules in PUBLIC; and what an extra of the library installs,
those in THIRD_PARTY, which are about nothing else. They touch nothing private, which is what
begins with an underscore: only what their own classes define, by `self`, and where such a class derives from one of the
library, it does not hide a private name of that.
"""

import ast
import importlib
import re
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
INSIDE = EXAMPLES.parent / "dangagreen" / "introspect" / "__init__.py"  # not imported: that would change this process
PUBLIC = {
    name: set(importlib.import_module(name).__all__)
    for name in ("dangagreen", "dangagreen.bridge", "dangagreen.testing")
} | {"dangagreen.introspect": set(re.findall(r'^    "(\w+)",$', INSIDE.read_text(), re.MULTILINE))}
THIRD_PARTY = {"gateway": {"asyncpg", "httpx"}, "prices": {"fastapi", "uvicorn"}}  # pip install '.[gateway]'
OPEN = {"__init__", "__name__", "__file__", "__version__", "_replace"}  # Python's own; a named tuple has `_replace`
BY_STRING = {"getattr", "setattr", "hasattr", "delattr", "attrgetter", "methodcaller", "import_module", "__import__"}
LONGEST = 400  # lines of a module


def module_name(path):
    return ".".join(path.relative_to(EXAMPLES).with_suffix("").parts)


def private(name):
    return name[:1] == "_" and name not in OPEN


def private_names_of_the_library():
    modules = [module for module in PUBLIC if module != "dangagreen.introspect"]
    public = [getattr(importlib.import_module(module), name) for module in modules for name in PUBLIC[module]]
    names = {name for one in public if isinstance(one, type) for name in dir(one)}
    return {name for name in names if private(name) and name[:2] != "__"}


def is_self(node):
    """Is this `self`, `cls` or `super()`?"""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "super"
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def classes(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]


def bases(cls):
    """The names of what a class derives from; `d.Socket` is called `Socket`."""
    values = [base.value if isinstance(base, ast.Subscript) else base for base in cls.bases]
    return {ast.unparse(value).split(".")[-1] for value in values}


def derived(trees, known=frozenset()):
    """The names of the classes that derive from one of the library, or from a known one that does."""
    found = set(known)
    every = [cls for tree in trees for cls in classes(tree)]
    while more := {cls.name for cls in every if bases(cls) & (found | PUBLIC["dangagreen"])} - found:
        found |= more
    return found


def definitions(cls):
    """(line, name) of what a class defines: methods, attributes, slots, and what is assigned to `self`."""
    yield from ((node.lineno, node.name) for node in cls.body if isinstance(node, ast.FunctionDef))
    for node in ast.walk(cls):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value):
            yield node.lineno, node.attr
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__slots__":
            yield from ((one.lineno, one.value) for one in ast.walk(node.value) if isinstance(one, ast.Constant))


def defined_by(tree):
    return {name for cls in classes(tree) for _, name in definitions(cls)}


SOURCES = {module_name(path): path.read_text() for path in sorted(EXAMPLES.rglob("*.py"))}
TREES = [ast.parse(source) for source in SOURCES.values()]
TOPS = {name.split(".")[0] for name in SOURCES}
OURS = private_names_of_the_library()
DERIVED = derived(TREES)
DEFINED = {name for tree in TREES for name in defined_by(tree)}


def imported(tree):
    """(line, module, name) of each import, wherever it stands; the name is None for the module itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, "." * node.level + (node.module or ""), alias.name) for alias in node.names)


def faults_of_imports(tree, third_party=frozenset()):
    for line, module, name in imported(tree):
        top = module.split(".")[0]
        if not top:
            yield line, f"imports {module}: write the whole name"
        elif top != "dangagreen":
            if top not in sys.stdlib_module_names and top not in TOPS and top not in third_party:
                yield line, f"imports {module}, which is not in the standard library"
            elif name is not None and private(name):
                yield line, f"imports {name}, which is private to {module}"
        elif module not in PUBLIC:
            yield line, f"imports {module}, which is not public"
        elif name is not None and name not in PUBLIC[module] and f"{module}.{name}" not in PUBLIC:
            yield line, f"imports {name} of {module}, which is not public"


def names_of_modules(tree):
    """Local name -> the module that it stands for."""
    found = {}
    for node in ast.walk(tree):
        for alias in node.names if isinstance(node, ast.Import) else ():
            found[alias.asname or alias.name.split(".")[0]] = alias.name if alias.asname else alias.name.split(".")[0]
        for alias in node.names if isinstance(node, ast.ImportFrom) else ():
            if f"{node.module}.{alias.name}" in PUBLIC:
                found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return found


def faults_of_attributes(tree):
    modules = names_of_modules(tree)
    defined = DEFINED | defined_by(tree)

    def module_of(node):
        """The module that an expression stands for, if it does."""
        if isinstance(node, ast.Name):
            return modules.get(node.id)
        if isinstance(node, ast.Attribute) and f"{module_of(node.value)}.{node.attr}" in PUBLIC:
            return f"{module_of(node.value)}.{node.attr}"
        return None

    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            module = module_of(node.value)
            if module in PUBLIC:
                if node.attr not in PUBLIC[module] and f"{module}.{node.attr}" not in PUBLIC:
                    yield node.lineno, f"uses {module}.{node.attr}, which is not public"
            elif private(node.attr) and module is None and not (is_self(node.value) and node.attr in defined):
                yield node.lineno, f"touches {node.attr}, which is private"


def faults_of_subclasses(tree):
    """What is private to the library is so to its subclasses, which would find it by `self`, or hide it."""
    below, defined = derived([tree], DERIVED), DEFINED | defined_by(tree)
    for cls in classes(tree):
        own = set(definitions(cls))
        touched = {
            (one.lineno, one.attr) for one in ast.walk(cls) if isinstance(one, ast.Attribute) and is_self(one.value)
        }
        for line, name in sorted(own | touched) if cls.name in below else ():
            if name in OURS and name in defined:  # what is not is found by its touch
                yield line, f"has {name}, which is private to the library"


def faults_of_strings(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            words = [one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
            for word in words if called in BY_STRING else ():
                if private(word) or word.startswith("dangagreen."):
                    yield node.lineno, f"asks for {word} by a string"


def faults(source, name="example"):
    """What is wrong with a module of the examples with this source, in words."""
    tree = ast.parse(source)
    found = list(faults_of_imports(tree, THIRD_PARTY.get(name, ())))
    for rule in faults_of_attributes, faults_of_subclasses, faults_of_strings:
        found += rule(tree)
    return [f"{name}:{line} {words}" for line, words in found]


@pytest.mark.parametrize("name", SOURCES)
def test_an_example_uses_what_is_public(name):
    assert faults(SOURCES[name], name) == []


@pytest.mark.parametrize("name", SOURCES)
def test_a_module_is_not_long(name):
    assert SOURCES[name].count("\n") <= LONGEST


def test_no_example_is_named_like_a_module_of_the_standard_library():
    """Nor is what stands in its folder, which Python puts first when the example starts."""
    names = {part for name in SOURCES for part in name.split(".")[:2]}
    assert names & sys.stdlib_module_names == set()


def listed(package):
    """The modules of a package, from the lowest to the highest, as its docstring lists them."""
    _, _, text = ast.get_docstring(ast.parse(SOURCES[f"{package}.__init__"])).partition("\nThe modules, each of which ")
    return re.findall(r"^    (\w+) +\S", text, re.MULTILINE)


def for_type_checkers(tree):
    """The lines of imports that are made for type checkers alone, which make no circle."""
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    return {line for block in blocks for one in block.body for line, _, _ in imported(one)}


def faults_of_order(package, order, sources):
    """Which modules have no place in the order, and which import what is not below them."""
    for name, source in sources.items():
        part = name.split(".")[1]
        if part not in order:
            if part not in ("__init__", "__main__"):
                yield f"{name} has no place in the list"
            continue
        tree = ast.parse(source)
        skipped = for_type_checkers(tree)
        for line, module, _ in imported(tree):
            if line in skipped:
                continue
            top, _, target = f"{module}.".partition(".")
            target = target.split(".")[0]
            if top == package and target not in order[: order.index(part)]:
                yield f"{name}:{line} imports {module}, which is not above it in the list"


def of_package(package):
    return {name: source for name, source in SOURCES.items() if name.startswith(f"{package}.")}


PACKAGES = sorted({name.split(".")[0] for name in SOURCES if name.endswith(".__init__")})


@pytest.mark.parametrize("package", PACKAGES)
def test_the_modules_of_a_package_are_in_layers(package):
    order = listed(package)
    assert list(faults_of_order(package, order, of_package(package))) == []
    assert set(order) == {name.split(".")[1] for name in of_package(package)} - {"__init__", "__main__"}


@pytest.mark.parametrize(
    ("name", "source", "complaint"),
    [
        ("p.low", "from p.high import x", "imports p.high, which is not above it"),
        ("p.low", "from p.low import x", "not above it"),
        ("p.low", "import p.high", "not above it"),
        ("p.low", "def f():\n    from p import high", "imports p, which"),
        ("p.high", "from p.other import x", "not above it"),
        ("p.other", "", "has no place"),
    ],
)
def test_a_module_out_of_order_is_found(name, source, complaint):
    (fault,) = faults_of_order("p", ["low", "high"], {name: source})
    assert complaint in fault


def test_a_module_in_order_is_not():
    low = "import os\nif TYPE_CHECKING:\n    from p.high import x"
    sources = {"p.__init__": "", "p.__main__": "import p.high", "p.low": low, "p.high": "from p.low import x"}
    assert list(faults_of_order("p", ["low", "high"], sources)) == []


def test_there_is_something_to_be_found():
    assert {"_reader", "_close_fd"} <= OURS
    assert {"Client", "Connection", "Member", "Echo", "StatusPage"} <= DERIVED
    assert {"_forget", "_tokens"} <= DEFINED


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("from dangagreen.loop.loop import Loop", "imports dangagreen.loop.loop, which is not public"),
        ("import dangagreen.loop.loop", "not public"),
        ("def f():\n    from dangagreen.sockets import sock", "not public"),
        ("from dangagreen import loop", "imports loop of dangagreen, which is not public"),
        ("from dangagreen import *", "not public"),
        ("from dangagreen import _Socket", "not public"),
        ("from dangagreen.testing import Wire", "not public"),
        ("import dangagreen as d\nd.loop.loop.Loop", "uses dangagreen.loop"),
        ("import dangagreen\ndangagreen.errors", "uses dangagreen.errors"),
        ("import dangagreen.testing\ndangagreen.testing.order", "uses dangagreen.testing.order"),
        ("from dangagreen import testing\ntesting.order", "uses dangagreen.testing.order"),
        ("import greenlet", "standard library"),
        ("import httpx", "standard library"),
        ("from dangagreen.bridge import crossing", "imports crossing of dangagreen.bridge, which is not public"),
        ("from dangagreen.bridge.crossing import await_", "imports dangagreen.bridge.crossing, which is not public"),
        ("from dangagreen import bridge\nbridge.sides", "uses dangagreen.bridge.sides"),
        ("from . import output", "whole name"),
        ("from .protocol import parse", "whole name"),
        ("from output import _put", "private to output"),
        ("import dangagreen\ndangagreen.Socket._reader", "touches _reader"),
        ("def f(sock):\n    return sock._reader", "touches _reader"),
        ("def f(sock):\n    sock._anything = 1", "touches _anything"),
        ("def f(sock):\n    return sock.__slots__", "touches __slots__"),
        ("class C:\n    _mine = 1\n    def f(self, other):\n        return other._mine", "touches _mine"),
        ("class C:\n    def f(self):\n        return self.sock._mine", "touches _mine"),
        ("class C:\n    def f(self):\n        return self._yours", "touches _yours"),
        ("class C:\n    def f(self):\n        return super()._yours()", "touches _yours"),
        ("from dangagreen import Socket\nclass C(Socket):\n    __slots__ = ('_reader',)", "has _reader"),
        ("from dangagreen import Socket\nclass C(Socket):\n    def _close_fd(self): ...", "has _close_fd"),
        ("import dangagreen as d\nclass C(d.Socket):\n    _close_fd = None", "has _close_fd"),
        ("class A(Client): ...\nclass B(A):\n    def f(self):\n        self._close_fd = 1", "has _close_fd"),
        (
            "class X:\n    _reader = 1\nclass C(Client):\n    x = 1\n    def f(self):\n        return self._reader",
            "has _reader",
        ),
        ("getattr(sock, '_reader')", "asks for _reader by a string"),
        ("operator.attrgetter('_reader')(sock)", "by a string"),
        ("import importlib\nimportlib.import_module('dangagreen.loop')", "by a string"),
    ],
)
def test_a_bad_source_is_found(source, complaint):
    (fault,) = faults(source)
    assert complaint in fault


@pytest.mark.parametrize(
    "source",
    [
        "from __future__ import annotations\nimport os, collections.abc\nos._exit(0)\ntype(os).__name__",
        "import dangagreen as d\nd.Socket\nd.testing.wire()\nd.Socket.reset()",
        "from dangagreen import Socket, testing\nfrom dangagreen.testing import wire\ntesting.wire()",
        "from dangagreen import bridge\nfrom dangagreen.bridge import await_\nbridge.guest()",
        "from output import tell\nfrom ddlockd.locks import Locks",
        "class C:\n    _a = 1\n    def f(self):\n        self._mine = self._a, self._f()\n    def _f(self): ...",
        "class C(Socket):\n    __slots__ = ('_mine',)\n    def f(self):\n        return self._mine",
        "class C:\n    def _close_fd(self):\n        self._close_fd()",
    ],
)
def test_a_good_source_passes(source):
    assert faults(source) == []


def test_an_example_has_the_libraries_that_it_is_about():
    assert faults("import asyncpg, httpx", "gateway") == []
    (fault,) = faults("import asyncpg, fastapi", "gateway")
    assert "fastapi" in fault
