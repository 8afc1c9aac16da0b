"""CPython's own tests of asyncio, by import, on `bridge.EventLoop` in a task; each module in a process of its own.

A few modules are run here. All of them: `ASYNCIO_MODULES=all pytest tests/bridge/test_asyncio_cpython.py`, or some, by
their names with commas between. Python is often installed without its `test` package: then there is nothing to run.

Each case of the modules in ALL passes, or is skipped on asyncio's own loop too (Python 3.11.7, 3.13.0, 3.14.8), but for
those in CANNOT_PASS, each with the reason. In a task four others cannot pass, and run in top-level code:

- `test_interrupt_wait`, `test_interrupt_cancelled_task`, `test_asyncio_run_without_uncancel` of test_runners: they look
  how asyncio.Runner handles Ctrl-C. Within `run` Ctrl-C is for `run` to handle, so that asyncio.Runner, which takes it
  from Python's own handler alone, leaves it be.
- `test_add_signal_handler` of test_events: it asserts that Python's own handler of SIGINT is there after asyncio's was
  removed. Here it is the one that was there before, which in a task is that of `run`.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent.parent.parent
FEW = ["test_buffered_proto", "test_server", "test_sock_lowlevel", "test_streams", "test_taskgroups", "test_timeouts",
       "test_waitfor", "test_runners"]  # fmt: skip
ALL = [*FEW, "test_base_events", "test_context", "test_eager_task_factory", "test_events", "test_free_threading",
       "test_futures", "test_futures2", "test_graph", "test_locks", "test_pep492", "test_protocols", "test_queues",
       "test_selector_events", "test_sendfile", "test_ssl", "test_sslproto", "test_staggered", "test_subprocess",
       "test_tasks", "test_threads", "test_tools", "test_transports", "test_unix_events"]  # fmt: skip
OTHERS = {
    "test_proactor_events": "of another kind of event loop, which is Windows's",
    "test_windows_events": "of Windows",
    "test_windows_utils": "of Windows",
}
IN_TOP_LEVEL_CODE = ["test_interrupt_wait", "test_interrupt_cancelled_task", "test_asyncio_run_without_uncancel",
                     "test_add_signal_handler"]  # fmt: skip
CANNOT_PASS = {
    "test_all_tasks_from_other_thread_includes_eager_tasks": "of Python 3.14: it makes a loop in one thread and runs it"
    " in another. An EventLoop is part of the dangagreen loop of the thread in which it was made, and refuses that.",
}
WANTED = os.environ.get("ASYNCIO_MODULES", "")
MODULES = ALL if WANTED == "all" else WANTED.split(",") if WANTED else FEW

PROGRAM = """
import asyncio, importlib, sys, unittest
import asyncio.unix_events
import dangagreen as d
from dangagreen.bridge import EventLoop

class Judged(EventLoop):
    def __init__(self, selector=None):
        if selector is not None:
            selector.close()
        super().__init__()

asyncio.SelectorEventLoop = asyncio.EventLoop = Judged  # the second is new in 3.13
for policy in ("_UnixDefaultEventLoopPolicy", "DefaultEventLoopPolicy"):
    if hasattr(asyncio.unix_events, policy):
        getattr(asyncio.unix_events, policy)._loop_factory = Judged
def cases(suite):
    for test in suite:
        yield from cases(test) if isinstance(test, unittest.TestSuite) else [test]

in_task, top = unittest.TestSuite(), unittest.TestSuite()
module = importlib.import_module("test.test_asyncio." + sys.argv[1])
for case in cases(unittest.defaultTestLoader.loadTestsFromModule(module)):
    name = case.id().rpartition(".")[2]
    if name not in sys.argv[2].split(","):
        (top if name in sys.argv[3:] else in_task).addTest(case)
runner = unittest.TextTestRunner(verbosity=1)
results = [d.run(runner.run, in_task), runner.run(top)]
assert results[0].testsRun, "nothing was run"
sys.exit(not all(result.wasSuccessful() for result in results))
"""


def test_no_module_is_forgotten():
    found = importlib.util.find_spec("test.test_asyncio")
    if found is None:
        pytest.skip("this Python was installed without its package `test`")
    names = {path.stem for place in found.submodule_search_locations for path in Path(place).glob("test_*.py")}
    assert names <= {*ALL, *OTHERS}


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_asyncio_passes_its_own_tests(module):
    if importlib.util.find_spec("test.test_asyncio") is None:
        pytest.skip("this Python was installed without its package `test`")
    if importlib.util.find_spec(f"test.test_asyncio.{module}") is None:
        pytest.skip(f"this version of Python has no test.test_asyncio.{module}")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, module, ",".join(CANNOT_PASS), *IN_TOP_LEVEL_CODE],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
        env=os.environ | {"PYTHONPATH": str(HERE)},
    )
    assert done.returncode == 0, done.stdout[-5000:]
