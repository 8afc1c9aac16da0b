"""What `import dangagreen` loads, over all modules: a time cannot be tested, but what takes it can."""

from __future__ import annotations

import ast
import sys
import textwrap
from pathlib import Path

import pytest

import dangagreen
from dangagreen import public
from tests.programs import run_python

INIT = Path(dangagreen.__file__)
# What `import dangagreen` needs of the standard library, on one version of Python or another.
STANDARD = (
    "__future__ annotationlib array ast atexit collections contextlib contextvars copyreg enum errno functools gc heapq"
    " itertools keyword math operator queue re reprlib resource select selectors signal socket struct threading types"
    " typing warnings weakref"
)
NOT_LOADED = (
    "asyncio concurrent dataclasses inspect ipaddress json linecache logging opcode ssl string subprocess traceback"
)


def told(code: str) -> list[str]:
    """The words that a fresh interpreter prints when it runs this code."""
    exit_code, words, complaints = run_python("-c", f"import sys; before = set(sys.modules)\n{textwrap.dedent(code)}")
    assert (exit_code, complaints) == (0, "")
    return words.split()


def test_import_loads_few_modules_of_the_standard_library():
    loaded = told("import dangagreen; print(*(set(sys.modules) - before))")
    tops = {name.partition(".")[0] for name in loaded}
    named = {name for name in tops & sys.stdlib_module_names if not name.startswith("_")}
    assert named - set(STANDARD.split()) == set()
    assert tops & set(NOT_LOADED.split()) == set()


def test_modules_of_names_that_a_program_may_not_use_are_not_loaded():
    loaded = set(told("import dangagreen; print(*sys.modules)"))
    assert loaded.isdisjoint(later_names())
    assert loaded.isdisjoint({"dangagreen.net.connector", "dangagreen.net.opening", "dangagreen.sockets.binding"})


def test_a_loop_has_loaded_what_it_may_need_when_nothing_can_be_loaded():
    """No file can be opened where descriptors have run out, and a signal handler is not to import anything."""
    code = """
        import dangagreen
        loop = dangagreen.current_loop()
        print("logging" in sys.modules)
        loop.call_soon(loop.stop)
        loop.run()
        print("opcode" in sys.modules)
        before = set(sys.modules)
        loop.on_error(dangagreen.ErrorContext("words", ValueError("an error that is logged")))
        print(set(sys.modules) - before)
    """
    exit_code, words, complaints = run_python("-c", f"import sys\n{textwrap.dedent(code)}")
    assert (exit_code, words.split()) == (0, ["True", "True", "set()"])
    assert "an error that is logged" in complaints


def later_names() -> dict[str, set[str]]:
    """What `__init__` says to type checkers of the modules that are imported later: the names of each."""
    (block,) = [node for node in ast.parse(INIT.read_text()).body if isinstance(node, ast.If)]
    return {
        node.module: {alias.name for alias in node.names} for node in block.body if isinstance(node, ast.ImportFrom)
    }


def test_type_checkers_are_told_the_same_names():
    (call,) = [
        node.value
        for node in ast.parse(INIT.read_text()).body
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and "publish_on_use" in ast.unparse(node)
    ]
    table = {module: set(names.split()) for module, names in ast.literal_eval(call.args[1]).items()}
    assert table == later_names()
    assert set().union(*table.values()) < set(dangagreen.__all__)


def test_each_public_name_is_there_in_a_fresh_interpreter():
    code = """
        import dangagreen
        from dangagreen import *
        print(*(name for name in dangagreen.__all__ if name in globals()))
    """
    assert told(code) == dangagreen.__all__


@pytest.mark.parametrize("package", ["bridge", "introspect", "metrics", "testing", "__main__"])
def test_what_other_packages_import_is_public_as_well(package):
    code = f"""
        import dangagreen.{package}
        homes = {sorted(later_names())}
        for home in homes:
            for name, thing in vars(sys.modules.get(home, sys)).items():
                if name in dangagreen.__all__ and getattr(thing, "__module__", None) == home:
                    print(home, name)
    """
    assert told(code) == []


def test_dir_has_all_names_before_they_are_used():
    code = (
        "import dangagreen; print(*sorted(set(dangagreen.__all__) - set(dir(dangagreen))), 'Queue' in vars(dangagreen))"
    )
    assert told(code) == ["False"]


def test_a_name_that_does_not_exist():
    with pytest.raises(AttributeError, match=r"^module 'dangagreen' has no attribute 'Quue'$") as caught:
        dangagreen.Quue  # type: ignore[attr-defined]
    assert (caught.value.name, caught.value.obj) == ("Quue", dangagreen)
    with pytest.raises(ImportError, match="cannot import name 'Quue' from 'dangagreen'"):
        exec("from dangagreen import Quue")
    assert not hasattr(dangagreen, "Quue")


# -- publish_on_use, of a package of the test's own


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "lazy_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "low.py").write_text("class Low:\n    pass\nclass Lower:\n    pass\n")
    (folder / "high.py").write_text("from lazy_package.low import Low\nclass High(Low):\n    pass\n")
    (folder / "broken.py").write_text("import lazy_package.nothing\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(public, "on_publish", [])
    import lazy_package  # type: ignore[import-not-found]

    homes = {"low": "Low Lower", "high": "High", "broken": "Broken"}
    public.publish_on_use("lazy_package", {f"lazy_package.{module}": names for module, names in homes.items()})
    yield lazy_package
    for name in [name for name in sys.modules if name.partition(".")[0] == "lazy_package"]:
        del sys.modules[name]


def test_a_name_is_imported_when_it_is_first_used(package):
    assert "lazy_package.high" not in sys.modules
    assert package.High.__module__ == "lazy_package"
    assert vars(package)["High"] is package.High


def test_what_it_has_imported_is_public_with_it(package):
    (low, _) = package.High.__mro__[1:]
    assert low.__module__ == "lazy_package"
    assert low is package.Low


def test_a_module_that_is_imported_by_its_own_name_is_public_by_the_next_publish(package):
    from lazy_package.low import Lower

    public.publish("lazy_package", [])
    assert Lower.__module__ == "lazy_package"


def test_a_name_that_was_replaced_stays_so(package, monkeypatch):
    monkeypatch.setattr(package, "Lower", None)
    assert package.Low.__name__ == "Low"
    assert package.Lower is None


def test_a_first_use_that_fails_is_tried_again_by_the_next(package, tmp_path):
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match=r"lazy_package\.nothing"):
            package.Broken
    (tmp_path / "lazy_package" / "broken.py").write_text("class Broken:\n    pass\n# fixed\n")
    assert package.Broken.__module__ == "lazy_package"
