"""The declarations of the compiled modules (.pxd), which span modules: each says what its source says. No compiler is
needed for that."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "dangagreen"
DECLARED = {path.relative_to(PACKAGE).with_suffix("").as_posix(): path.read_text() for path in PACKAGE.rglob("*.pxd")}

CLASS = re.compile(r"cdef class (\w+)(?:\((\w+)\))?:")
SLOT = re.compile(r"    cdef (?:public (?:unsigned long|\w+)|object) (\w+)")
METHOD = re.compile(r"(?:    )?(?:cdef|cpdef) (?:inline )?(?:\w+ )?(\w+)\((.*)\)(?: except [-?*]\w*)?(?: noexcept)?")
VARIABLES = re.compile(r"cdef (?:int|Py_ssize_t|double|[A-Z]\w*) (\w+(?:, \w+)*)")
EXTERN = re.compile(r'    cpdef (?:unsigned long|\w+) (\w+) "\w+"\(\)')  # a function of C in the place of Python's
FORWARD = re.compile(r"cdef class \w+")  # of a class that is declared further down
TYPE = re.compile(r'    ctypedef bint \w+ "\w+"')  # of an extern block
LOCALS = re.compile(r"(?:    )?@cython\.locals\((.*)\)")
IMPORT = re.compile(r"from (dangagreen[\w.]*) cimport (\w+(?:, \w+)*)|cimport cython")


class Declared:
    """One class of a .pxd file; or, without a name, its functions and variables."""

    def __init__(self, name=None, base=None):
        self.name, self.base = name, base
        self.slots = set()
        self.functions = {}  # name to (the names of its parameters, the names of its typed local variables)


def parse(text):
    """(classes, imports) of a .pxd file. Raises ValueError for a line that is no declaration of a kind known here."""
    classes, imports, variables = [Declared()], {}, set()
    for line in text.splitlines():
        line = line.partition("#")[0].rstrip()
        if not line or line == "    pass":
            continue
        if match := IMPORT.fullmatch(line):
            imports.update(dict.fromkeys((match[2] or "").split(", "), match[1]))
        elif match := CLASS.fullmatch(line):
            classes.append(Declared(match[1], match[2]))
        elif match := SLOT.fullmatch(line):
            if match[1] in classes[-1].slots:
                raise ValueError(f"{match[1]} is declared twice")
            classes[-1].slots.add(match[1])
        elif match := LOCALS.fullmatch(line):
            variables = {part.partition("=")[0].strip() for part in match[1].split(",")}
        elif match := VARIABLES.fullmatch(line):
            classes[0].slots.update(match[1].split(", "))
        elif (
            (line.startswith("cdef extern from ") and line.endswith('":'))
            or TYPE.fullmatch(line)
            or FORWARD.fullmatch(line)
        ):
            continue
        elif match := EXTERN.fullmatch(line):
            classes[0].slots.add(match[1])
        elif match := METHOD.fullmatch(line):
            owner = classes[-1] if line.startswith(" ") else classes[0]
            parameters = [part.partition("=")[0].split()[-1] for part in match[2].split(",") if part.strip()]
            owner.functions[match[1]] = parameters, variables
            variables = set()
        else:
            raise ValueError(f"this is no declaration that the test knows: {line!r}")
    return classes, imports


def written(tree):
    """Name to node, of the classes of a module; None to the module itself."""
    return {None: tree} | {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def bound_in(tree):
    """The names that a module imports, or assigns once, at its top."""
    names = []
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            names += [alias.asname or alias.name for alias in node.names]
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return {name for name in names if names.count(name) == 1}


def slots_of(node):
    """The names in the `__slots__` of a class."""
    for statement in node.body:
        if isinstance(statement, ast.Assign) and statement.targets[0].id == "__slots__":
            value = statement.value
            return {part.value for part in (value.keys if isinstance(value, ast.Dict) else value.elts)}
    return set()


def faults(name, declarations, source):
    """What differs between the declarations of a module and its source, in words."""
    classes, imports = parse(declarations)
    there = written(ast.parse(source))
    found = []
    for declared in classes:
        if (node := there.get(declared.name)) is None:
            found.append(f"there is no class {declared.name}")
            continue
        if declared.name is None:
            found += [f"{slot} is not bound once, at the top" for slot in sorted(declared.slots - bound_in(node))]
        else:
            bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
            if bases != ([declared.base] if declared.base else []):
                found.append(f"{declared.name} derives from {bases}")
            if declared.base and declared.base not in imports and declared.base not in there:
                found.append(f"{declared.base} is not imported")
            if declared.slots != slots_of(node):
                found.append(f"slots of {declared.name} differ: {sorted(declared.slots ^ slots_of(node))}")
        functions = {one.name: one for one in node.body if isinstance(one, ast.FunctionDef)}
        for function, (parameters, variables) in declared.functions.items():
            if (code := functions.get(function)) is None:
                found.append(f"there is no {declared.name}.{function}")
                continue
            arguments = [argument.arg for argument in (*code.args.posonlyargs, *code.args.args)]
            if parameters != arguments:
                found.append(f"{declared.name}.{function} has the parameters {arguments}")
            names = {one.id for one in ast.walk(code) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}
            if odd := variables - names - set(arguments):
                found.append(f"{declared.name}.{function} has no local variables {sorted(odd)}")
    for imported, module in imports.items():
        if module and module.removeprefix("dangagreen.").replace(".", "/") not in DECLARED and imported:
            found.append(f"{module} has no declarations")
    return found


@pytest.mark.parametrize("name", DECLARED)
def test_declarations_say_what_the_source_says(name):
    assert faults(name, DECLARED[name], (PACKAGE / f"{name}.py").read_text()) == []


def test_the_hot_modules_are_declared():
    assert {"loop/turn", "loop/timers", "sockets/sock", "streams/reading", "green/parking"} <= DECLARED.keys()


SOURCE = """
from _thread import get_ident
from elsewhere import THREE
FOUR = 4
class One(Base):
    __slots__ = ("a", "b")
    def go(self, n): x = 1
"""
RIGHT = """
from dangagreen.loop.handlers cimport Base
cimport cython
cdef extern from "pythread.h":
    cpdef unsigned long get_ident "PyThread_get_thread_ident"()
cdef int THREE, FOUR
cdef class One(Base):
    cdef public int a
    cdef object b  # of its own
    @cython.locals(x=int)
    cpdef int go(self, int n) except -1
"""


def test_right_declarations_are_found_right():
    assert faults("x", RIGHT, SOURCE) == []


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("    cdef public int a\n", "", "slots of One differ: ['a']"),
        ("int a", "int c", "slots of One differ: ['a', 'c']"),
        ("int n", "int n, int m", "One.go has the parameters ['self', 'n']"),
        ("int n", "int m", "One.go has the parameters ['self', 'n']"),
        ("x=int", "y=int", "One.go has no local variables ['y']"),
        (" go(", " goes(", "there is no One.goes"),
        ("One(Base)", "One", "One derives from ['Base']"),
        ("class One", "class Two", "there is no class Two"),
        ("handlers", "loop", "dangagreen.loop.loop has no declarations"),
        ("THREE", "FIVE", "FIVE is not bound once, at the top"),
        ("long get_ident", "long get_id", "get_id is not bound once, at the top"),
        ("from dangagreen.loop.handlers cimport Base\n", "", "Base is not imported"),
    ],
)
def test_a_difference_is_found(before, after, complaint):
    assert before in RIGHT
    assert complaint in faults("x", RIGHT.replace(before, after), SOURCE)


def test_a_slot_is_declared_once():
    with pytest.raises(ValueError, match="b is declared twice"):
        parse("cdef class One:\n    cdef public int b\n    cdef object b\n")


def test_code_is_no_declaration():
    with pytest.raises(ValueError, match="no declaration"):
        parse("cdef int f(): return 1")
