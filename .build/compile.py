"""The build hook of the compiled build: the hot modules, by Cython, from the very files that run without it.

Rules: nothing happens unless the environment variable DANGAGREEN_COMPILE is 1; then a failure is the failure of the
build. A module is compiled if a .pxd file stands beside it, or a .pyx file. A wheel gets what is compiled beside the
sources; an editable installation has it in the checkout, where it has to be made anew after each edit, and where the
next one without the variable removes it. What does not belong here: what is declared of the modules (their .pxd files).
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

DIRECTIVES = {
    "language_level": 3,
    "binding": True,  # methods are functions: with signatures, names, and attributes of their own
    "annotation_typing": False,  # what is typed is typed in the .pxd file
    "infer_types": None,
    "auto_pickle": False,  # what cannot be pickled in Python cannot be pickled here
}
MACROS = [("CYTHON_USE_TYPE_SPECS", "1")]  # classes that can be changed, as those of Python can
OPTIONS = ["-O2", "-g0", "-w"]


def is_wanted() -> bool:
    """Whether the build is to be compiled. Never by an interpreter for which the pure modules are the better ones."""
    if os.environ.get("DANGAGREEN_COMPILE", "0") in ("", "0"):
        return False
    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        print(
            "dangagreen is not compiled for PyPy and free-threaded Python: the pure modules are used", file=sys.stderr
        )
        return False
    return True


class CompileHook(BuildHookInterface[Any]):
    """Compiles what goes into a wheel."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        return ["Cython>=3.1", "setuptools"] if self.target_name == "wheel" and is_wanted() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        if version == "editable":
            for former in (root / "dangagreen").rglob("*.so"):
                former.unlink()
        if self.target_name != "wheel" or not is_wanted():
            return
        self._folder = tempfile.TemporaryDirectory(prefix="dangagreen-")  # until the wheel is there
        built = compile_modules(root, Path(self._folder.name))
        if version == "editable":
            for module, path in built.items():
                shutil.copy2(path, root / module)
        else:
            build_data["force_include"].update({str(path): module for module, path in built.items()})
        build_data["pure_python"] = False
        build_data["infer_tag"] = True


def compile_modules(root: Path, folder: Path) -> dict[str, Path]:
    """Compile each module that has declarations. Returns {path of the extension module in the tree: where it is}."""
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension

    package = root / "dangagreen"
    sources = [path.with_suffix(".py") for path in package.rglob("*.pxd")]
    if sys.platform == "linux":  # whose system calls they make; elsewhere their twins in Python do
        sources += package.rglob("*.pyx")
    extensions = []
    for source in sorted(path.relative_to(root) for path in sources):
        name = ".".join(source.with_suffix("").parts)
        extensions.append(Extension(name, [str(source)], define_macros=MACROS, extra_compile_args=OPTIONS))
    before = os.getcwd()
    os.chdir(root)  # tracebacks name the files by their paths from here on
    try:
        modules = cythonize(extensions, build_dir=str(folder / "c"), compiler_directives=DIRECTIVES, quiet=True)
        distribution = Distribution({"name": "dangagreen", "ext_modules": modules})  # reads no pyproject.toml
        command: Any = distribution.get_command_obj("build_ext")
        command.build_lib, command.build_temp = str(folder / "lib"), str(folder / "temp")
        command.parallel = os.cpu_count()
        command.ensure_finalized()
        command.run()
    finally:
        os.chdir(before)
    return {
        str(path.relative_to(folder / "lib")): path for path in sorted((folder / "lib").rglob("*.*")) if path.is_file()
    }
