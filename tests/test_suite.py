"""The tests themselves: a file for each module, any order, several processes, and each says what it needs."""

from __future__ import annotations

import ast
import functools
import os
import random
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests import programs

TESTS = Path(__file__).parent
ROOT = TESTS.parent
PACKAGE = ROOT / "dangagreen"

PRIVATE = {  # how often a test file may use private names of the package: less whenever it can
    "bench/growth.py": 1,
    "bridge/conftest.py": 1,
    "bridge/test_guest.py": 4,
    "conftest.py": 1,
    "examples/test_ddlockd_client.py": 1,
    "examples/test_ddlockd_commands.py": 1,
    "green/test_between.py": 3,
    "green/test_deadlock.py": 3,
    "green/test_sched.py": 2,
    "inside.py": 12,
    "loop/test_deadlock.py": 1,
    "loop/test_error_log.py": 1,
    "loop/test_sigint.py": 3,
    "loop/test_wakeup.py": 1,
    "net/conftest.py": 1,
    "net/test_connecting.py": 1,
    "net/test_draining.py": 7,
    "ownership.py": 9,
    "soak/ends.py": 1,
    "soak/observing.py": 2,
    "sockets/test_addresses.py": 1,
    "sockets/test_danga.py": 1,
    "sockets/test_limits.py": 2,
    "sockets/test_lingering.py": 5,
    "sockets/test_read_buffer.py": 2,
    "sockets/test_settings.py": 1,
    "sockets/test_sock.py": 1,
    "sockets/test_subclassing.py": 7,
    "sockets/test_write_queue.py": 2,
    "streams/test_files.py": 6,
    "streams/test_readiness.py": 3,
    "streams/test_refusals.py": 1,
    "streams/test_refused_by_the_poller.py": 7,
    "streams/test_writing.py": 1,
    "sync/test_events.py": 2,
    "sync/test_events_stdlib.py": 6,
    "sync/test_handoff.py": 21,
    "sync/test_multiwait.py": 1,
    "sync/test_queues.py": 2,
    "sync/test_wait_queue.py": 6,
    "sync/test_threads.py": 1,
    "test_context.py": 3,
    "test_example_sources.py": 2,
    "test_ownership.py": 13,
    "test_memory.py": 2,
}

WITHOUT = {  # modules that need no test file, and why
    "introspect/data": "plain values, which the tests of collect look at",
    "introspect/linting": "what all lints have in common, which the tests of each use",
}


def run(*options: str, before: str = "", **environment: str) -> str:
    """What a run of pytest of its own prints, to which `before` has been done; it has to succeed."""
    code = f"import sys; {before}\nimport pytest; sys.exit(pytest.main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "-p", "no:cacheprovider", "-q", *options]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=140, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_each_module_has_a_test_file_of_its_name():
    modules = [path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if not path.name.startswith("__")]
    without = {
        str(path.with_suffix("")) for path in modules if not (TESTS / path.parent / f"test_{path.name}").exists()
    }
    assert without <= set(WITHOUT)


def quick_tests(source):
    """How many test functions of a file are in the quick part, each with some of its parameters at least."""
    if re.search(r"^pytestmark = (?:\[[^\]]*|.*)mark\.slow\b", source, re.MULTILINE):
        return 0
    before = re.split(r"^def (?=test_)", source, flags=re.MULTILINE)[:-1]
    return sum("@pytest.mark.slow\n" not in part.rpartition("\n\n\n")[2] for part in before)


def test_the_quick_part_has_a_test_of_each_module():
    """Of a file whose tests all start programs, mark them as `slow_but_first`."""
    files = [TESTS / path.relative_to(PACKAGE).with_name(f"test_{path.name}") for path in PACKAGE.rglob("*.py")]
    assert [path.name for path in files if path.exists() and not quick_tests(path.read_text())] == []


def test_a_file_without_quick_tests_is_found():
    head, test = '"""About it."""\n\n', "def test_it():\n    pass\n"
    assert (
        quick_tests(head + "\n" + test)
        == quick_tests(head + "pytestmark = pytest.mark.slow_but_first\n\n\n" + test)
        == 1
    )
    assert quick_tests(head + "pytestmark = pytest.mark.slow\n\n\n" + test) == 0
    assert quick_tests(head + "pytestmark = [\n    other,\n    pytest.mark.slow,\n]\n\n\n" + test) == 0
    assert quick_tests(head + "\n@pytest.mark.slow\n" + test) == 0
    assert quick_tests(head) == 0


def test_each_test_file_says_in_its_first_line_what_it_is_about():
    """Those of no module above all, which are about something that spans several."""
    silent = [path.name for path in TESTS.rglob("test_*.py") if not path.read_text().startswith('"""')]
    assert silent == []


@functools.cache
def parsed(path):
    return ast.parse(path.read_text())


def private_names(tree):
    """The private names that a module of the package defines: functions, methods, classes, constants, slots."""
    for node in ast.walk(tree):
        name = None
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            name = node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            name = node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        if name is not None and name.startswith("_") and name.strip("_") and not name.startswith("__"):
            yield name


def on_itself(node):
    """Whether this is `self` or `super()`."""
    return getattr(getattr(node, "func", node), "id", None) in ("self", "super")


def uses(tree, private):
    """The uses of such names in a test file: as attributes, imported, and as strings for `getattr` and `setattr`.

    What a class of the file defines and calls on itself is its own affair: hooks, and what `select` asks for.
    """
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    own |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in private:
            if node.attr not in own or not on_itself(node.value):
                yield node.attr
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dangagreen"):
            yield from (alias.name for alias in node.names if alias.name in private)
        elif isinstance(node, ast.Constant) and node.value in private:
            yield node.value


@pytest.mark.slow
def test_private_names_are_used_only_where_a_test_is_about_them_and_no_more_often_than_now():
    """Behaviour first; what many tests have to look at goes into tests/inside.py."""
    private = {name for path in PACKAGE.rglob("*.py") for name in private_names(parsed(path))}
    counts = {}
    for path in TESTS.rglob("*.py"):
        number = sum(1 for _ in uses(parsed(path), private))
        if number > PRIVATE.get(path.relative_to(TESTS).as_posix(), 0):
            counts[path.relative_to(TESTS).as_posix()] = number
    assert counts == {}


def test_nothing_imports_introspect_into_this_process():
    """It takes notes from then on, which most programs go without: so do the tests."""
    assert "dangagreen.introspect" not in sys.modules


def test_no_id_holds_an_address(request):
    ids = [item.nodeid for item in request.session.items]
    assert [name for name in ids if re.search(r"\bat 0x[0-9a-f]+|<.*object", name)] == []
    assert len(set(ids)) == len(ids)


@pytest.mark.slow
def test_each_process_finds_the_same_tests_in_the_same_order():
    one, two = (run("--collect-only", "--assert=plain", "--matrix-seed=1", PYTHONHASHSEED=seed) for seed in ("1", "2"))
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


def test_two_processes_that_run_tests_never_choose_the_same_port(monkeypatch):
    """Even where both have found it free, since the program that is to listen there has not come so far."""
    few = set(range(31_000, 31_150))
    code = f"from tests import programs as p; p.PORTS = set({sorted(few)}); print(p.free_port()); input()"
    monkeypatch.setattr(programs, "PORTS", few)
    monkeypatch.setattr(programs, "given", set())
    process = programs.start_python("-c", code, stdin=True)
    theirs = int(process.stdout.readline())
    ours = [programs.free_port() for _ in range(20)]
    assert theirs not in ours
    assert len(set(ours)) == 20
    monkeypatch.setattr(programs, "given", few - {theirs})
    monkeypatch.setattr(random.SystemRandom, "sample", lambda self, ports, n: ports)
    with pytest.raises(AssertionError, match="all in use"):
        programs.free_port()
    process.communicate("\n", timeout=programs.PROGRAM_SECONDS)
    assert process.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("run_it", ["asyncio.run(main())", "uvloop.run(main())", "d.run(spin)"])
def test_a_test_that_hangs_is_ended_whatever_runs_it(tmp_path, run_it):
    """Where all time is spent in callbacks, whose errors asyncio's loops and ours log, but for a few."""
    source = f"""
        import asyncio, sys
        import dangagreen as d
        {"import uvloop" if "uvloop" in run_it else ""}

        class Forever:
            def again(self):
                for _ in range(1000):
                    pass
                self.soon(self.again)

        async def main():
            forever = Forever()
            forever.soon = asyncio.get_running_loop().call_soon
            forever.again()
            await asyncio.Future()

        def spin():
            forever = Forever()
            forever.soon = d.current_loop().call_soon
            forever.again()
            d.Event().wait()

        def test_hangs():
            {run_it}

        def test_after():
            pass
    """
    name = tmp_path / "test_hang.py"
    name.write_text(textwrap.dedent(source))
    options = ["-p", "tests.conftest", "--rootdir", str(tmp_path), "-o", "timeout=2", "-p", "no:xdist", str(name)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options],
        cwd=ROOT,
        env=os.environ | programs.PYTHONPATH,
        capture_output=True,
        text=True,
        timeout=140,
        check=False,
    )
    assert "1 failed, 1 passed" in done.stdout, done.stdout[-3000:] + done.stderr[-2000:]
    assert "Timeout" in done.stdout
