"""Who uses whose private slots, read from the sources: `python -m tests.ownership [PACKAGE] [-v]`.

A slot belongs to the module whose class declares it in `__slots__`. Those of `Handler`, which the dispatch reads, are
set by `Descriptor` before it registers itself, and belong to it and to the layer of sockets that OWNERS names; GUESTS
belong to another layer than the one that declares them. Any other module that reads or writes a slot makes a use across
modules.
The class of the object that has the slot is known where it is `self`, or annotated, or has one of the NAMES that
the package gives to such objects; otherwise every class that declares the name may be meant, and the use counts unless
one of them is the module's own.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parent.parent / "dangagreen"

OWNERS = {  # of the slots of Handler, which the dispatch reads
    "_context": "sockets.descriptor",
    "_queue": "sockets.write_queue",
    "_reader": "sockets.receiving",
    "_registered_mask": "sockets.descriptor",
    "_timer": "sockets.idle",
    "_watch_read": "sockets.receiving",
    "_watch_write": "sockets.descriptor",
}
GUESTS = {  # declared by another layer, beside whose small ones they take no room in C
    "_hangup_state": "sockets.sock",
    "_write_closed": "sockets.backpressure",
}
NAMES = {  # what is known by its name alone: the class, or one that has all of its slots
    "connection": "Socket",
    "handler": "Handler",
    "listener": "Listener",
    "loop": "Loop",
    "scope": "CancelScope",
    "sock": "Socket",
    "task": "Task",
}


@dataclass
class Class:
    """One class of the package."""

    module: str
    name: str
    bases: list[str]
    slots: set[str]
    types: dict[str, str]  # of its attributes, where they are annotated with a class
    kin: set[str] = field(default_factory=set)  # itself, what it is derived from, and what is derived from it


class Use(NamedTuple):
    """One use of a slot outside the module that it belongs to."""

    module: str
    function: str
    slot: str
    owner: str
    line: int
    written: bool


class Sources:
    """All modules of a package."""

    def __init__(self, package: Path = PACKAGE) -> None:
        self.trees = {
            ".".join(path.relative_to(package).with_suffix("").parts): ast.parse(path.read_text())
            for path in sorted(package.rglob("*.py"))
        }
        self.names = {module: dict(_imported(tree)) for module, tree in self.trees.items()}
        self.classes: dict[str, Class] = {}  # by "module.Class"
        for module, tree in self.trees.items():
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef):
                    self.classes[f"{module}.{node.name}"] = _class_of(module, node)
        for key, one in self.classes.items():
            line = set(self._line(key))
            one.kin |= line
            for above in line:
                self.classes[above].kin.add(key)

    def find(self, module: str, name: str) -> str | None:
        """The class of this name, as the module knows it."""
        for key in (f"{module}.{name}", self.names[module].get(name, "")):
            if key in self.classes:
                return key
        return None

    def _line(self, key: str) -> Iterator[str]:
        yield key
        one = self.classes[key]
        for base in one.bases:
            if (above := self.find(one.module, base)) is not None:
                yield from self._line(above)

    def of_name(self, module: str, name: str) -> str | None:
        """The class that the NAMES say."""
        wanted = NAMES.get(name)
        found = [key for key in self.classes if key.rpartition(".")[2] == wanted]
        return (self.find(module, wanted) if wanted in self.names[module] else None) or max(
            found, key=lambda key: len(list(self._line(key))), default=None
        )

    def owners(self, slot: str, receiver: str | None) -> set[str]:
        """The modules to which the slot of this object may belong; none if it is no slot of such an object."""
        keys = self.classes if receiver is None else self.classes[receiver].kin
        modules = {self.classes[key].module for key in keys if slot in self.classes[key].slots}
        if slot in OWNERS and modules & {"loop.handlers", "core.handlers"}:
            modules |= {OWNERS[slot], "sockets.descriptor"}
        elif slot in GUESTS and modules:
            modules = {GUESTS[slot]}
        return modules

    @cached_property
    def uses(self) -> list[Use]:
        """All of them."""
        found: list[Use] = []
        for module, tree in self.trees.items():
            _Reader(self, module, found).visit(tree)
        return found

    def faults(self, listed: dict[str, tuple[set[str], str]]) -> list[str]:
        """Each slot that is written outside its own module, and not by a function that is `listed` with it."""
        return [
            f"{use.module}:{use.line} {use.function} writes {use.slot}, which is {use.owner}'s"
            for use in self.uses
            if use.written and use.slot not in listed.get(f"{use.module}.{use.function}", (set(), ""))[0]
        ]


def _imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(name here, "module.name") of what is imported from the package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dangagreen"):
            for alias in node.names:
                yield alias.asname or alias.name, f"{(node.module or '').removeprefix('dangagreen.')}.{alias.name}"


def _class_of(module: str, node: ast.ClassDef) -> Class:
    one = Class(module, node.name, [base.id for base in node.bases if isinstance(base, ast.Name)], set(), {})
    for part in node.body:
        if isinstance(part, ast.Assign) and any(
            isinstance(to, ast.Name) and to.id == "__slots__" for to in part.targets
        ):
            words = part.value.keys if isinstance(part.value, ast.Dict) else [part.value]
            for word in words:
                for constant in ast.walk(word or part.value):
                    if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
                        if constant.value.startswith("_") and constant.value.isidentifier():
                            one.slots.add(constant.value)
    for part in ast.walk(node):
        if isinstance(part, ast.AnnAssign):
            name = part.target.attr if isinstance(part.target, ast.Attribute) else getattr(part.target, "id", "")
            one.types[name] = ast.unparse(part.annotation)
    return one


class _Reader(ast.NodeVisitor):
    """Goes through one module."""

    def __init__(self, sources: Sources, module: str, found: list[Use]) -> None:
        self.sources = sources
        self.module = module
        self.found = found
        self.classes: list[str] = []
        self.functions: list[str] = []
        self.types: list[dict[str, str]] = [{}]

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.classes.append(f"{self.module}.{node.name}")
        self.functions.append(node.name)
        self.generic_visit(node)
        self.functions.pop()
        self.classes.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        types = {one.arg: ast.unparse(one.annotation) for one in arguments if one.annotation is not None}
        for part in ast.walk(node):
            if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                types[part.target.id] = ast.unparse(part.annotation)
            elif isinstance(part, ast.Assign) and isinstance(part.value, ast.Call):  # of a class, perhaps
                types |= {to.id: ast.unparse(part.value.func) for to in part.targets if isinstance(to, ast.Name)}
        self.types.append({**self.types[-1], **types})
        self.functions.append(node.name)
        self.generic_visit(node)
        self.functions.pop()
        self.types.pop()

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.generic_visit(node)
        if not node.attr.startswith("_") or node.attr.startswith("__"):
            return
        owners = self.sources.owners(node.attr, self._class_of(node.value))
        if owners and self.module not in owners:
            written = isinstance(node.ctx, (ast.Store, ast.Del))
            function = ".".join(self.functions)
            self.found.append(Use(self.module, function, node.attr, ", ".join(sorted(owners)), node.lineno, written))

    def _class_of(self, value: ast.expr) -> str | None:
        if isinstance(value, ast.Name):
            if value.id == "self" and self.classes:
                return self.classes[-1]
            return self._named(self.types[-1].get(value.id)) or self.sources.of_name(self.module, value.id)
        if isinstance(value, ast.Attribute):
            if (outer := self._class_of(value.value)) is not None:
                for key in self.sources.classes[outer].kin:
                    if (found := self._named(self.sources.classes[key].types.get(value.attr))) is not None:
                        return found
            return self.sources.of_name(self.module, value.attr.lstrip("_"))
        return None

    def _named(self, annotation: str | None) -> str | None:
        for word in (annotation or "").replace("[", " ").replace("]", " ").replace("|", " ").split():
            if (found := self.sources.find(self.module, word.strip("'\","))) is not None:
                return found
        return None


def main() -> None:
    arguments = [one for one in sys.argv[1:] if one != "-v"]
    sources = Sources(Path(arguments[0])) if arguments else Sources()
    uses = sources.uses
    print(f"{len(uses)} uses of private slots across modules, {sum(use.written for use in uses)} of them written")
    if "-v" in sys.argv:
        for slot, count in Counter(use.slot for use in uses).most_common():
            places: dict[str, list[str]] = defaultdict(list)
            for use in uses:
                if use.slot == slot:
                    places[use.module].append(f"{use.line}{'!' if use.written else ''}")
            print(f"{slot} {count}", *(f"\n    {module}: {' '.join(lines)}" for module, lines in places.items()))


if __name__ == "__main__":
    main()
