"""Where public things are found: errors, reprs and pickles say `dangagreen.Socket`, whichever module it is written in.

Rules: only what a package names in its `__all__`. What does not belong here: what is public.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import FunctionType
from typing import Any


def publish(package: str, names: Iterable[str]) -> None:
    """Let what a package exports say that it is from there.

    `inspect.getsource` then finds no class, as with other libraries that do this: it looks into the package's own file.
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
    """Let the functions of `bases`, of which a public class is put together, be named by that class."""
    for base in bases:
        for thing in vars(base).values():
            function = getattr(thing, "fget", None) or getattr(thing, "__func__", thing)
            if isinstance(function, FunctionType):
                function.__module__ = public.__module__
                function.__qualname__ = f"{public.__qualname__}.{function.__name__}"


def _settle_annotations(public: type, names: dict[str, Any]) -> None:
    """Evaluate those of the class itself, which nobody could where its `__module__` says that it is."""
    if sys.version_info < (3, 14) and "__annotations__" in vars(public):
        public.__annotations__ = {
            name: eval(words, names) if isinstance(words, str) else words
            for name, words in public.__annotations__.items()
        }
    if "__firstlineno__" in vars(public):  # since Python 3.13, and of another file than it would be looked up in
        del public.__firstlineno__  # type: ignore[attr-defined]
