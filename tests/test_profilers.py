"""What profilers and coverage.py show of tasks, as the guide's page on profiling says: they know of threads alone."""

from __future__ import annotations

import cProfile
import pstats
from importlib.util import find_spec

import pytest

import dangagreen as d
from tests.programs import run_python


def work():
    return sum(range(1000))


def test_cprofile_counts_what_does_not_park_and_none_of_it_twice(loop):
    def handler():
        for _ in range(3):
            d.sleep(1)
            work()

    def main():
        for task in [d.spawn(handler) for _ in range(5)]:
            task.join()

    profiler = cProfile.Profile()
    profiler.runcall(d.run, main)
    rows = {name: row for (_, _, name), row in pstats.Stats(profiler).stats.items()}
    calls, _, itself, in_all, _ = rows["work"]
    assert calls == 15
    assert itself <= in_all


def test_one_profiler_for_what_each_of_several_handlers_computes(loop):
    profiler = cProfile.Profile()

    def handler():
        for _ in range(3):
            d.sleep(1)
            profiler.runcall(work)

    def main():
        for task in [d.spawn(handler) for _ in range(5)]:
            task.join()

    d.run(main)
    rows = {name: row for (_, _, name), row in pstats.Stats(profiler).stats.items()}
    assert rows["work"][0] == 15
    assert "sleep" not in rows


PROGRAM = """import dangagreen as d
def handler(sock):
    name = sock.read_line()
    d.sleep(0.01)
    answer = b"hello " + name
    sock.write_all(answer)
def in_a_thread():
    total = 0
    for n in range(3):
        total += n
    return total
def deep(n):
    if n:
        return deep(n - 1)
    d.sleep(0.003)
    last = d.in_thread(in_a_thread)
    return last
def client(address):
    with d.connect(address) as sock:
        sock.write_all(b"world\\n")
        line = sock.read_line()
    return line
def main():
    listener = d.serve(("127.0.0.1", 0), handler)
    tasks = [d.spawn(client, listener.address), d.spawn(deep, 5), d.spawn(client, listener.address)]
    for task in tasks:
        task.join()
d.run(main)
"""


def missing(tmp_path, options):
    """The numbers of the lines that coverage.py did not see to run."""
    program, data = tmp_path / "program.py", tmp_path / "data"
    program.write_text(PROGRAM)
    settings = tmp_path / "settings"
    settings.write_text(f"[run]\ndata_file = {data}\ninclude = {program}\n{options}\n")
    assert run_python("-m", "coverage", "run", f"--rcfile={settings}", str(program)) == (0, "", "")
    code, out, _ = run_python("-m", "coverage", "report", "-m", f"--rcfile={settings}")
    assert code == 0
    return next(line.partition("%")[2].strip() for line in out.splitlines() if str(program) in line)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("coverage") is None, reason="needs coverage")
def test_coverage_sees_each_line_if_it_is_told_of_greenlets_and_of_threads(tmp_path):
    assert missing(tmp_path, "concurrency = greenlet, thread") == ""
    assert missing(tmp_path, "branch = true\nconcurrency = greenlet, thread") == ""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("yappi") is None, reason="needs yappi")
def test_yappi_tells_greenlets_apart():
    code, out, complaints = run_python(
        "-c",
        """
import time
import yappi
import dangagreen as d
def handler():
    d.sleep(0.05)
    time.sleep(0.01)
    d.sleep(0.05)
def main():
    for task in [d.spawn(handler) for _ in range(5)]:
        task.join()
for clock in "wall", "cpu":
    yappi.clear_stats()
    yappi.set_context_backend("greenlet")
    yappi.set_clock_type(clock)
    yappi.start()
    d.run(main)
    yappi.stop()
    (seen,) = [one for one in yappi.get_func_stats() if one.name == "handler"]
    print(seen.ncall, seen.ttot >= 5 * 0.11)
""",
    )
    assert (code, complaints) == (0, "")
    assert out == "5 True\n5 False\n"
