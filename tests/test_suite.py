"""The tests themselves: a file for each module, any order, several processes, and each says what it needs."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent
PACKAGE = ROOT / "dangagreen"

WITHOUT = {"sockets/states": "constants, which do nothing by themselves"}  # modules that need no test file, and why


def run(*options: str, before: str = "", **environment: str) -> str:
    """What a run of pytest of its own prints, to which `before` has been done; it has to succeed."""
    code = f"import sys; {before}\nimport pytest; sys.exit(pytest.main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "-p", "no:cacheprovider", "-q", *options]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_each_module_has_a_test_file_of_its_name():
    modules = [path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if not path.name.startswith("__")]
    without = {
        str(path.with_suffix("")) for path in modules if not (TESTS / path.parent / f"test_{path.name}").exists()
    }
    assert without <= set(WITHOUT)


def test_each_test_file_says_in_its_first_line_what_it_is_about():
    """Those of no module above all, which are about something that spans several."""
    silent = [path.name for path in TESTS.rglob("test_*.py") if not ast.get_docstring(ast.parse(path.read_text()))]
    assert silent == []


def test_no_id_holds_an_address(request):
    ids = [item.nodeid for item in request.session.items]
    assert [name for name in ids if re.search(r"\bat 0x[0-9a-f]+|<.*object", name)] == []
    assert len(set(ids)) == len(ids)


@pytest.mark.slow
def test_each_process_finds_the_same_tests_in_the_same_order():
    one, two = (run("--collect-only", PYTHONHASHSEED=seed) for seed in ("1", "2"))
    assert one.splitlines()[:-1] == two.splitlines()[:-1]  # the last one tells the time that it took
    assert one.count("\n") > 4000


@pytest.mark.slow
def test_cpythons_own_tests_are_skipped_where_python_comes_without():
    names = [str(TESTS / "sync" / name) for name in ("test_events_stdlib.py", "test_queues_cpython.py")]
    printed = run("-rs", *names, before="sys.modules['test'] = None")
    assert printed.count("libpython3") == 2
    assert re.search(r"^\d+ passed|^\d+ skipped", printed.splitlines()[-1])


@pytest.mark.slow
def test_the_limit_of_open_files_is_raised_or_the_test_says_what_it_needs():
    name = f"{TESTS / 'net' / 'test_draining.py'}::test_the_listening_socket_closes_as_soon_as_the_queue_is_empty"
    limit = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (256, {}))"
    hard = "resource.getrlimit(resource.RLIMIT_NOFILE)[1]"
    assert "5 passed" in run(name, before=limit.format(hard))
    printed = run("-rs", name, before=limit.format(256))
    assert "needs 400 open files at once, and the limit (ulimit -n) is 256" in printed
