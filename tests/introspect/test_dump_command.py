"""`python -m dangagreen dump PID`: by sys.remote_exec, for which something else stands in here, and by the signal."""

from __future__ import annotations

import json
import os
import signal
import sys

import pytest

from tests.introspect.seeing import PREAMBLE
from tests.programs import PROGRAM_SECONDS, run_python, start_python

pytestmark = [  # starts programs
    pytest.mark.slow,
    pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc"),
]

# What sys.remote_exec does, for who has no Python 3.14: the process runs a script in its main thread, between two
# instructions. Here it has a handler of SIGUSR2 for that, and reads the path of the script from a file.
REMOTE = """
import os, signal, sys
def run_script(*_):
    with open(open(sys.argv[1]).read()) as script:
        exec(compile(script.read(), "look.py", "exec"), {})
signal.signal(signal.SIGUSR2, run_script)
"""
ASKER = """
import os, signal, sys
import dangagreen.__main__ as command
from dangagreen.introspect import remote
def remote_exec(pid, script):
    with open(sys.argv[1], "w") as file:
        file.write(script)
    {0}
sys.remote_exec = remote_exec
remote.ANSWER_SECONDS = {1}
sys.exit(command.main(["dump", *sys.argv[2:]]))
"""
DOES = "os.kill(pid, signal.SIGUSR2)"


@pytest.fixture
def started(tmp_path):
    """Starts a program that can be asked, and waits until it says that it is ready."""
    programs = []

    def start(source):
        program = start_python("-c", REMOTE + source, str(tmp_path / "script"))
        programs.append(program)
        assert program.stdout.readline() == "ready\n"
        return program

    yield start
    for program in programs:
        program.kill()
        program.communicate()


def asked(tmp_path, pid, *options, does=DOES, seconds=PROGRAM_SECONDS):
    """Ask a process: the exit code of the command, what it has printed, what it complains of."""
    return run_python("-c", ASKER.format(does, seconds), str(tmp_path / "script"), *options, str(pid))


UNPREPARED = """
import dangagreen as d
def waits():
    print("ready", flush=True)
    d.sleep(1000)
def main():
    d.spawn(waits)
    d.sleep(1000)
d.run(main)
"""


def test_a_process_that_was_not_prepared_is_printed_here_and_goes_on(started, tmp_path):
    program = started(UNPREPARED)
    code, out, complaint = asked(tmp_path, program.pid)
    assert (code, complaint) == (0, "")
    assert out.startswith("loop of thread 'MainThread': running, ")
    assert "task waits#" in out
    assert " waits\n" in out
    assert "age" not in out.partition("task waits#")[2].partition("\n")[0]  # it is older than the import
    code, again, complaint = asked(tmp_path, program.pid)
    assert (code, complaint) == (0, "")
    assert "task waits#" in again
    assert program.poll() is None
    assert not os.path.exists((tmp_path / "script").read_text())


def test_one_that_is_blocked_says_by_what(started, tmp_path):
    program = started("""
import time
import dangagreen as d
def blocks():
    print("ready", flush=True)
    while True:
        time.sleep(0.01)
d.run(blocks)
""")
    code, out, complaint = asked(tmp_path, program.pid)
    assert (code, complaint) == (0, "")
    assert "    now in <string>:" in out
    assert " blocks\n" in out


def test_one_that_does_not_use_this_library(started, tmp_path):
    program = started("import time\nprint('ready', flush=True)\nwhile True: time.sleep(1)\n")
    for options in [], ["--json"]:
        refusal = f"process {program.pid} does not use dangagreen\n"
        assert asked(tmp_path, program.pid, *options) == (1, "", refusal)


def test_where_it_is_not_permitted_the_signal_is_tried(started, tmp_path):
    program = started(UNPREPARED)
    code, out, complaint = asked(tmp_path, program.pid, does="raise PermissionError(1, 'no')")
    assert (code, out) == (1, "")
    refused, no_signal = complaint.splitlines()
    assert refused == f"process {program.pid} cannot be looked into: [Errno 1] no"
    assert no_signal.startswith(f"process {program.pid} prints no dump upon SIGUSR1, which might end it: ")
    program = started("from dangagreen import introspect\nintrospect.dump_on_signal()\n" + UNPREPARED)
    code, out, complaint = asked(tmp_path, program.pid, does="raise RuntimeError('another Python')")
    assert (code, out) == (0, f"process {program.pid} was sent SIGUSR1: it prints to its own stderr\n")
    assert program.stderr.readline().startswith("loop of thread 'MainThread'")


def test_who_asks_for_a_signal_gets_that(started, tmp_path):
    program = started(UNPREPARED)
    code, _, complaint = asked(tmp_path, program.pid, "--signal", "SIGHUP")
    assert code == 1
    assert complaint.startswith(f"process {program.pid} prints no dump upon SIGHUP")
    assert not (tmp_path / "script").exists()


def test_one_that_does_not_answer_in_time_does_so_later_in_a_file(started, tmp_path):
    program = started(UNPREPARED)
    code, out, complaint = asked(tmp_path, program.pid, does="pass", seconds=0.05)
    assert (code, out) == (1, "")
    path = complaint.splitlines()[0].rpartition(" ")[2]
    assert "has not answered within 0.05 s" in complaint
    assert not os.path.exists(path)
    os.kill(program.pid, signal.SIGUSR2)
    while not os.path.exists(path):
        assert program.poll() is None
    with open(path) as answer:
        assert answer.readline().startswith("loop of thread")


def test_one_that_was_killed_meanwhile_and_one_that_is_not_there(started, tmp_path):
    program = started(UNPREPARED)
    does = "os.kill(pid, signal.SIGKILL)"
    code, out, _ = asked(tmp_path, program.pid, does=does, seconds=0.1)
    assert (code, out) == (1, "")
    for pid in 999999999, 10**30:
        assert asked(tmp_path, pid) == (1, "", f"there is no process {pid}\n")


@pytest.mark.skipif(hasattr(sys, "remote_exec"), reason="where it can be asked without")
def test_by_the_signal_it_asks_a_process_that_expects_it_and_ends_no_other():
    program = start_python(
        "-c",
        PREAMBLE
        + """
print("ready", flush=True)
sys.stdin.readline()
introspect.dump_on_signal()
print("ready", flush=True)
sys.stdin.readline()
""",
        stdin=True,
    )
    try:
        assert program.stdout.readline() == "ready\n"
        code, out, complaint = run_python("-m", "dangagreen", "dump", str(program.pid))
        assert (code, out) == (1, "")
        hint = "call introspect.dump_on_signal() in it"
        assert complaint == f"process {program.pid} prints no dump upon SIGUSR1, which might end it: {hint}\n"
        assert program.poll() is None
        program.stdin.write("\n")
        program.stdin.flush()
        assert program.stdout.readline() == "ready\n"
        code, out, complaint = run_python("-m", "dangagreen", "dump", str(program.pid))
        assert (code, complaint) == (0, "")
        assert out == f"process {program.pid} was sent SIGUSR1: it prints to its own stderr\n"
        assert program.stderr.readline() == "no loop in the main thread\n"
    finally:
        program.kill()
        program.communicate()


def test_by_the_signal_a_process_that_is_not_there():
    code, out, complaint = run_python("-m", "dangagreen", "dump", "--signal", "SIGUSR1", "999999999")
    assert (code, out) == (1, "")
    assert complaint == "there is no process 999999999\n"


HANDLES = """
import sys
def ends(number, frame):
    print("ended by", number, flush=True)
    sys.exit()
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, ends)
"""
DUMPS = """
introspect.dump_on_signal(signal.SIGUSR2, write=lambda text: print(text, end="<end>\\n", flush=True))
"""
SERVES = """
for _ in range(5):
    d.spawn(d.sleep, 1000)
def main():
    print("ready", flush=True)
    d.sleep(1000)
d.run(main)
"""


def dump(program, *options):
    return run_python("-m", "dangagreen", "dump", *options, str(program.pid))


@pytest.fixture
def ready():
    """Starts a program in which introspect is imported, and waits until it says that it is ready."""
    programs = []

    def start(source):
        program = start_python("-c", PREAMBLE + source)
        programs.append(program)
        assert program.stdout.readline() == "ready\n"
        return program

    yield start
    for program in programs:
        program.kill()
        program.communicate()


def test_a_signal_that_the_program_handles_for_another_purpose_is_refused(ready):
    program = ready(HANDLES + SERVES)
    for name in "SIGTERM", "TERM", "SIGHUP", "SIGUSR1", "USR2", "15", "SIGINT", "SIGQUIT", "SIGKILL", "SIGSTOP":
        code, out, complaint = dump(program, "--signal", name)
        assert (code, out) == (1, "")
        number = 15 if name == "15" else signal.Signals["SIG" + name.removeprefix("SIG")]
        assert f"process {program.pid} " in complaint
        assert signal.Signals(number).name in complaint
    with open(f"/proc/{program.pid}/status") as status:
        assert "State:\tT" not in status.read()  # it was not stopped
    program.send_signal(signal.SIGTERM)
    assert program.stdout.readline() == "ended by 15\n"  # by this one, and by none before it


def test_the_signal_that_ends_programs_is_not_sent_even_if_they_dump_upon_it(ready):
    program = ready("introspect.dump_on_signal(signal.SIGTERM)" + SERVES)
    assert dump(program, "--signal", "term") == (
        1,
        "",
        f"process {program.pid} is not sent SIGTERM, which ends programs\n",
    )


def test_a_program_that_has_given_its_handler_up_is_not_sent_the_signal(ready):
    program = ready(DUMPS + "signal.signal(signal.SIGUSR2, signal.SIG_DFL)" + SERVES)
    code, _, complaint = dump(program, "--signal", "USR2")
    assert code == 1
    assert complaint == f"process {program.pid} does not catch SIGUSR2 any more, which might end it\n"
    assert program.poll() is None


@pytest.mark.parametrize("name", ["SIGUSR2", "USR2", "usr2", str(int(signal.SIGUSR2))])
def test_a_signal_by_its_name_or_number(ready, name):
    program = ready(HANDLES + DUMPS + SERVES)
    assert dump(program, "--signal", name) == (
        0,
        f"process {program.pid} was sent SIGUSR2: it prints to its own stderr\n",
        "",
    )
    assert program.stdout.readline().startswith("loop of thread 'MainThread'")


@pytest.mark.skipif(hasattr(sys, "remote_exec"), reason="where it can be asked without")
def test_without_a_signal_it_is_the_one_upon_which_the_process_dumps(ready):
    program = ready(HANDLES + DUMPS + SERVES)
    code, out, complaint = dump(program)
    assert (code, out, complaint) == (0, f"process {program.pid} was sent SIGUSR2: it prints to its own stderr\n", "")
    code, _, complaint = dump(program, "--signal", "USR1")
    assert complaint == f"process {program.pid} prints no dump upon SIGUSR1, which might end it; it does upon SIGUSR2\n"


def test_how_many_it_prints(ready):
    program = ready(DUMPS + SERVES)
    for options, more in ((["--most", "2"], 4), ([], 0), (["--most", "5"], 1)):
        assert dump(program, "--signal", "USR2", *options)[0] == 0
        lines = list(iter(program.stdout.readline, "<end>\n"))
        assert [line for line in lines if "more tasks" in line] == ([f"... and {more} more tasks\n"] if more else [])


def test_how_many_it_prints_by_remote_exec(started, tmp_path):
    program = started(UNPREPARED)
    code, out, complaint = asked(tmp_path, program.pid, "--most", "1")
    assert (code, complaint) == (0, "")
    assert "... and 1 more tasks\n" in out


def test_as_json_it_is_the_same_in_both_ways(started, ready, tmp_path):
    code, out, complaint = asked(tmp_path, started(UNPREPARED).pid, "--json", "--most", "1")
    assert (code, complaint) == (0, "")
    program = ready(DUMPS + UNPREPARED)
    assert dump(program, "--signal", "USR2", "--json", "--most", "1")[0] == 0
    for lines in out.splitlines(), list(iter(program.stdout.readline, "<end>\n")):
        (loop,) = map(json.loads, lines)
        assert loop["loop"]["tasks"] == 2
        assert [task["state"] for task in loop["tasks"]] == ["parked"]
    assert dump(program, "--signal", "USR2")[0] == 0
    assert program.stdout.readline().startswith("loop of thread 'MainThread'")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--signal", "USR9"], "there is no signal 'USR9'"),
        (["--signal", "99"], "there is no signal '99'"),
        (["--most", "0"], "a number from 1 on, not '0'"),
        (["--most", "-1"], "a number from 1 on, not '-1'"),
    ],
)
def test_nonsense_is_refused(options, words):
    code, out, complaint = run_python("-m", "dangagreen", "dump", *options, "1")
    assert (code, out) == (2, "")
    assert words in complaint


@pytest.mark.parametrize("pid", ["0", "-1", "x"])
def test_what_is_no_number_of_a_process(pid):
    code, out, complaint = run_python("-m", "dangagreen", "dump", pid)
    assert (code, out) == (2, "")
    assert complaint.endswith(f"argument pid: it is a number from 1 on, not {pid!r}\n")
