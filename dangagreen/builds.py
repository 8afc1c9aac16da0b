"""Which build runs: the modules as they are written, or those of them that were compiled, which lie beside them.

Rules: the first import decides, before any module is imported that there may be twice; to ask costs nothing. What does
not belong here: how modules are compiled (`.build/compile.py`), and anything that would differ between the two.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType

_FOLDERS = ("", "green", "loop", "sockets", "streams")  # those with compiled modules


def choose() -> None:
    """Where the environment variable DANGAGREEN_PURE is set, and not 0, have all modules imported as they are written.

    To that end the interpreter's finders of our folders, which would prefer what is compiled, are replaced.
    """
    if os.environ.get("DANGAGREEN_PURE", "0") not in ("", "0"):
        from importlib.machinery import BYTECODE_SUFFIXES, SOURCE_SUFFIXES, FileFinder
        from importlib.machinery import SourceFileLoader as Source
        from importlib.machinery import SourcelessFileLoader as Sourceless

        for folder in _FOLDERS:
            path = os.path.join(os.path.dirname(__file__), folder).rstrip(os.sep)
            sys.path_importer_cache[path] = FileFinder(path, (Source, SOURCE_SUFFIXES), (Sourceless, BYTECODE_SUFFIXES))


def is_compiled(module: ModuleType) -> bool:
    """Whether a module was compiled."""
    return (getattr(module, "__file__", None) or "").endswith((".so", ".pyd"))


choose()
