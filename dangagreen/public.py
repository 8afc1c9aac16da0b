"""The public module of public names: errors, reprs and pickles say `dangagreen.Socket`, not the module of its source.

Rules: only names in a package's `__all__`. A module that is imported when a name of it is first used is as public then
as if it had been imported before. What does not belong here: which names are public.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

on_publish: list[Callable[[], None]] = []  # of each package with modules that are imported on use


def publish(package: str, names: Iterable[str]) -> None:
    """Set `__module__` of the classes and functions that a package exports to that package.

    `inspect.getsource` then finds no class, as with other libraries that do so: it looks into the package's own file.
    """
    for name in names:
        _publish_one(package, getattr(sys.modules[package], name))
    for publish_loaded in on_publish:  # by modules of this package, rather than by the use of a name
        publish_loaded()


def _publish_one(package: str, thing: Any) -> None:
    home = getattr(thing, "__module__", None)
    if not isinstance(home, str) or not home.startswith(f"{package}."):
        return
    if isinstance(thing, type):
        _settle_annotations(thing, vars(sys.modules[home]))
    thing.__module__ = package


def publish_on_use(package: str, modules: dict[str, str]) -> None:
    """Have a package import modules, name to the public names in it, when one of their names is first used (PEP 562).

    What they import of each other becomes public with it. Such a use is an import, and fails like one.
    """
    public = sys.modules[package]
    homes = {name: module for module, names in modules.items() for name in names.split()}

    def publish_loaded() -> None:
        for home, names in modules.items():
            things = {name: getattr(sys.modules.get(home), name, None) for name in names.split()}
            if None not in things.values():  # it is loaded
                for name, thing in things.items():
                    vars(public).setdefault(name, thing)  # a test may have replaced it
                    _publish_one(package, thing)

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name, obj=public)
        __import__(homes[name])
        publish_loaded()
        return vars(public)[name]

    on_publish.append(publish_loaded)
    vars(public).update(__getattr__=find, __dir__=lambda: sorted({*vars(public), *homes}))


def name_methods(public: type, bases: Iterable[type]) -> None:
    """Set `__module__` and `__qualname__` of the functions of `bases`, which make up a public class, to that class."""
    for base in bases:
        for thing in vars(base).values():
            function = getattr(thing, "fget", None) or getattr(thing, "__func__", thing)
            if hasattr(function, "__code__"):  # in Python, or compiled from it
                function.__module__ = public.__module__
                function.__qualname__ = f"{public.__qualname__}.{function.__name__}"


def _settle_annotations(public: type, names: dict[str, Any]) -> None:
    """Evaluate the annotations of the class, which cannot be evaluated in the module that `__module__` will name."""
    if "__annotations__" in vars(public):
        public.__annotations__ = {
            name: eval(words, names) if isinstance(words, str) else words
            for name, words in public.__annotations__.items()
        }
    if "__firstlineno__" in vars(public):  # since Python 3.13; it is of another file than `__module__` names
        del public.__firstlineno__  # type: ignore[attr-defined]
