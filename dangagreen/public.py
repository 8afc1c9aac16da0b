"""The public module of public names: errors, reprs and pickles say `dangagreen.Socket`, not the module of its source.

Rules: only names in a package's `__all__`. What does not belong here: which names are public.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any


def publish(package: str, names: Iterable[str]) -> None:
    """Set `__module__` of the classes and functions that a package exports to that package.

    `inspect.getsource` then finds no class, as with other libraries that do so: it looks into the package's own file.
    """
    for name in names:
        thing = getattr(sys.modules[package], name)
        home = getattr(thing, "__module__", None)
        if not isinstance(home, str) or not home.startswith(f"{package}."):
            continue
        if isinstance(thing, type):
            _settle_annotations(thing, vars(sys.modules[home]))
        thing.__module__ = package


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
