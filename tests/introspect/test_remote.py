"""Looking into another process by the real `sys.remote_exec`: in whatever state that is, and whoever asks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.programs import TRACEABLE, run_python, start_python

pytestmark = [  # starts programs
    pytest.mark.slow_but_first,
    pytest.mark.skipif(not hasattr(sys, "remote_exec"), reason="needs sys.remote_exec, of Python 3.14"),
    pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc"),
]
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs ptrace as Linux has it")
root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs the rights of root")
NOBODY = 65534

PARKED = """
import dangagreen as d
def waits():
    print("ready", flush=True)
    d.wait_readable(0)
    print("went on", flush=True)
def main():
    d.spawn(waits).join()
"""
RUNS = "d.run(main)"
ON_A_THREAD = """
import threading
def elsewhere():
    begun.set()
    d.wait_readable(0)
begun = threading.Event()
threading.Thread(target=d.run, args=(elsewhere,), name="other").start()
begun.wait()
"""


@pytest.fixture
def started():
    """Starts a program in which nothing of introspect is imported, and waits until it says that it is ready."""
    programs = []

    def start(source):
        program = start_python("-c", TRACEABLE + source, stdin=True)
        programs.append(program)
        assert program.stdout.readline() == "ready\n", program.stderr.read()
        return program

    yield start
    for program in programs:
        program.kill()
        program.communicate()


def dump(program, *options):
    return run_python("-m", "dangagreen", "dump", *options, str(program.pid))


def goes_on(program):
    """Whether a program ends as if nobody had looked, when there is something for it to read."""
    assert program.poll() is None
    out, complaint = program.communicate("\n", timeout=30)
    complaints = [line for line in complaint.splitlines() if "held up the loop" not in line]
    assert (program.returncode, out, complaints) == (0, "went on\n", [])
    return True


@linux
def test_one_whose_tasks_are_all_parked(started):
    program = started(PARKED + RUNS)
    for _ in range(2):
        code, out, complaint = dump(program)
        assert (code, complaint) == (0, "")
        assert out.startswith("loop of thread 'MainThread': running, ")
        assert ": 100% waiting, " in out
        assert "now in" not in out
        assert "task waits#2: parked in " in out
    assert goes_on(program)


@linux
def test_as_json_and_how_many(started):
    program = started(PARKED + RUNS)
    code, out, complaint = dump(program, "--json", "--most", "1")
    assert (code, complaint) == (0, "")
    seen = json.loads(out)
    assert (seen["loop"]["tasks"], len(seen["tasks"])) == (2, 1)
    assert seen["loop"]["stack"] == []
    assert goes_on(program)


@linux
@pytest.mark.parametrize(
    "program",
    ["asyncio.run(main(), loop_factory=EventLoop)", "asyncio.run(as_guest())"],
    ids=["hosts asyncio", "guest of asyncio"],
)
def test_one_that_lives_with_asyncio(started, program):
    program = started(f"""
import asyncio, sys
import dangagreen as d
from dangagreen.bridge import EventLoop, guest, to_task
async def main():
    print("ready", flush=True)
    await to_task(d.wait_readable, 0)
    print("went on", flush=True)
async def as_guest():
    async with guest():
        await main()
{program}
""")
    code, out, complaint = dump(program)
    assert (code, complaint) == (0, "")
    assert "asyncio task Task-1: waiting" in out
    assert goes_on(program)


def test_one_that_spins_says_where(started):
    program = started("""
import dangagreen as d
def spins():
    print("ready", flush=True)
    while True:
        pass
d.run(spins)
""")
    code, out, complaint = dump(program)
    assert (code, complaint) == (0, "")
    assert "100% at work, 100% in tasks" in out
    places = [line.split() for line in out.splitlines() if line.startswith("    ")]
    assert [place[-1] for place in places] == ["spins", "spins"]  # it runs there, and the task is there
    assert places[0][:2] == ["now", "in"]


ASKS_BRIEFLY = """
import sys
import dangagreen.__main__ as command
from dangagreen.introspect import remote
remote.ANSWER_SECONDS = 0.5
sys.exit(command.main(["dump", sys.argv[1]]))
"""


def test_one_in_a_call_in_c_answers_later_in_a_file(started):
    program = started("""
import sys
import dangagreen as d
def calls():
    print("ready", flush=True)
    sys.stdin.readline()
    print("went on", flush=True)
d.run(calls)
""")
    code, out, complaint = run_python("-c", ASKS_BRIEFLY, str(program.pid))
    assert (code, out) == (1, "")
    late, signal_too = complaint.splitlines()
    assert "has not answered within 0.5 s, as its main thread waits in the kernel, or is in the middle of a" in late
    assert signal_too.startswith(f"process {program.pid} prints no dump upon SIGUSR1")
    path = late.rpartition(" ")[2]
    assert not os.path.exists(path)
    assert goes_on(program)
    with open(path) as answer:
        text = answer.read()
    assert " calls\n" in text


@linux
def test_loops_of_other_threads_are_named(started):
    program = started(PARKED + ON_A_THREAD + RUNS)
    code, out, complaint = dump(program)
    assert (code, complaint) == (0, "")
    assert out.count("loop of thread") == 1
    assert out.endswith("not shown: loops of other threads, 'other'\n")
    code, out, complaint = dump(program, "--json")
    assert (code, complaint) == (0, "")
    assert json.loads(out)["loop"]["thread"] == "MainThread"


def test_one_without_a_loop_in_the_main_thread(started):
    program = started(PARKED + ON_A_THREAD + "import time\nprint('ready', flush=True)\nwhile True: time.sleep(0.01)")
    code, out, complaint = dump(program)
    assert (code, complaint) == (0, "")
    assert out == "no loop in the main thread\nnot shown: loops of other threads, 'other'\n"
    assert dump(program, "--json") == (0, "\n", "")


def test_one_that_does_not_use_dangagreen(started):
    program = started("import time\nprint('ready', flush=True)\nwhile True: time.sleep(0.01)\n")
    for options in [], ["--json"]:
        assert dump(program, *options) == (1, "", f"process {program.pid} does not use dangagreen\n")


def test_what_is_no_python():
    with subprocess.Popen(["sleep", "1000"]) as program:
        code, out, complaint = dump(program)
        program.kill()
    assert (code, out) == (1, "")
    assert complaint.startswith(f"process {program.pid} cannot be looked into: ")


def test_one_that_allows_no_looks_is_asked_by_its_signal(started, monkeypatch):
    monkeypatch.setenv("PYTHON_DISABLE_REMOTE_DEBUG", "1")
    program = started("from dangagreen import introspect\nintrospect.dump_on_signal()\n" + PARKED + RUNS)
    monkeypatch.delenv("PYTHON_DISABLE_REMOTE_DEBUG")
    code, out, _ = dump(program)
    assert (code, out) == (0, f"process {program.pid} was sent SIGUSR1: it prints to its own stderr\n")
    assert program.stderr.readline().startswith("loop of thread 'MainThread'")


def test_one_that_has_ended():
    program = start_python("-c", "")
    program.communicate()
    assert dump(program) == (1, "", f"there is no process {program.pid}\n")


# -- users

DROPS = f"""
import os
from dangagreen import introspect  # which nobody may not be allowed to read
os.setgid({NOBODY})
os.setuid({NOBODY})
"""


@root
@linux
def test_root_looks_into_one_that_has_given_up_its_rights(started):
    program = started(PARKED + DROPS + RUNS)
    code, out, complaint = dump(program)
    assert (code, complaint) == (0, "")
    assert "task waits#2: parked in " in out
    assert goes_on(program)


@root
def test_another_user_may_not(started):
    program = started(PARKED + RUNS)
    asks = f"{DROPS}\nimport sys\nimport dangagreen.__main__ as command\nsys.exit(command.main(sys.argv[1:]))"
    # imported first, as what follows may not be readable
    code, out, complaint = run_python(
        "-c", "import dangagreen.__main__, ctypes, tempfile\n" + asks, "dump", str(program.pid)
    )
    assert (code, out) == (1, "")
    assert complaint.startswith(f"process {program.pid} cannot be looked into: ")
    assert "Traceback" not in complaint
    assert goes_on(program)


# -- what the process notices


@linux
def test_a_signal_that_comes_with_the_look_is_not_lost(started):
    program = started("""
import signal
got = 0
def count(*_):
    global got
    got += 1
signal.signal(signal.SIGUSR2, count)
signal.signal(signal.SIGTERM, lambda *_: (print(got, flush=True), sys.exit()))
import sys
import dangagreen as d
def main():
    print("ready", flush=True)
    d.sleep(1000)
d.run(main)
""")
    for number in range(20):
        asker = start_python("-m", "dangagreen", "dump", str(program.pid))
        while asker.poll() is None:
            os.kill(program.pid, signal.SIGUSR2)
        assert asker.communicate()[1] == "", number
    program.send_signal(signal.SIGTERM)
    assert int(program.communicate()[0]) > 0


@linux
def test_its_parent_is_not_told(started):
    """As it would be of one that is stopped by a signal, and goes on."""
    program = started(PARKED + RUNS)
    code, _, _ = dump(program)
    assert code == 0
    assert os.waitid(os.P_PID, program.pid, os.WSTOPPED | os.WCONTINUED | os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    assert goes_on(program)
