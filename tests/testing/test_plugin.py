"""The pytest plugin: which tests run as tasks, what fails them, and what is told beside a failure."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.programs import run_python
from tests.testing.runs import ASYNCIO, HANDLERS, HEAD, OPTIONS, PLUGIN, text

# -- which tests


def test_a_marked_test_runs_in_a_task_of_its_name_on_a_fresh_loop(tried):
    result = tried(
        """
        loops = []

        @pytest.mark.dangagreen
        @pytest.mark.parametrize("n", [1, 2])
        def test_it(n):
            assert d.current_task().name == f"test_it[{n}]"
            assert current_loop() not in loops
            loops.append(current_loop())

        @pytest.mark.dangagreen
        class TestIt:
            def test_method(self):
                assert d.current_task().name == "test_method"

        def test_other():
            assert d.current_task() is None
            assert all(loop.closed for loop in loops)
    """.replace("\n        ", "\n")
    )
    result.assert_outcomes(passed=4)


def test_a_test_with_the_fixture_and_without_the_marker_has_a_fresh_loop_and_is_top_level_code(tried):
    result = tried("""
def test_it(loop):
    assert current_loop() is loop
    assert d.current_task() is None
    loop.call_soon(int)
    loop.run(until=lambda: True)
    sleep(0)

def test_leak(loop):
    loop.add_timer(100, print)
""")
    result.assert_outcomes(passed=1, failed=1)
    assert "left behind:\n  timer: print (print), due in " in text(result)


def test_in_mode_auto_every_plain_function_runs_in_a_task(tried):
    result = tried(
        """
import unittest

def test_it():
    assert d.current_task().name == "test_it"

@pytest.mark.anyio
def test_of_another():
    assert d.current_task() is None

class TestCase(unittest.TestCase):
    def test_case(self):
        assert d.current_task() is None

@pytest.mark.anyio
async def test_async():
    import anyio
    await anyio.sleep(0)

@pytest.fixture
def anyio_backend():
    return "asyncio"
""",
        "-o",
        "dangagreen_mode=auto",
    )
    result.assert_outcomes(passed=4)


def test_another_mode_is_refused(tried):
    result = tried("", "-o", "dangagreen_mode=always")
    assert "dangagreen_mode is 'strict' or 'auto', not 'always'" in result.stderr.str()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("@pytest.mark.dangagreen\nasync def test_it(): pass", "test_it is an async def"),
        ("@pytest.mark.dangagreen\nasync def test_it(): yield", "test_it is an async def"),
        (
            "import unittest\n@pytest.mark.dangagreen\nclass TestIt(unittest.TestCase):\n  def test_it(self): pass",
            "derive its class from dangagreen.testing.TestCase",
        ),
        ("def test_it(loop, request): request.getfixturevalue('wire')", "name virtual_clock, or wire, among the arg"),
        ("def test_it(server, virtual_clock): server(print, scope='module')", "the virtual clock would outrun"),
        ("def test_it(server): server(print, scope='modul')", "one of function, class, module, package, session"),
        ("def test_it(server): server(print, scope='class')", "test_it is in no class"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(tried, source, words):
    result = tried(source)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert words in text(result)


def test_a_generator_is_refused_by_pytest(tried):
    result = tried("@pytest.mark.dangagreen\ndef test_it():\n    yield")
    assert result.ret != pytest.ExitCode.OK


# -- leaks


def test_everything_that_is_left_behind_is_named(tried):
    result = tried("""
kept = []

@pytest.mark.dangagreen
def test_it(virtual_clock):
    def forgotten():
        sleep(100)
    def alarm():
        pass
    spawn(forgotten)
    spawn(lambda: 1 / 0)
    sleep(0)
    current_loop().add_timer(50, alarm)
    os.pipe()
    from functools import partial
    def divide(by):
        1 / by
    current_loop().call_soon(divide, 0)
    current_loop().add_timer(0, partial(divide, 0))
    kept.extend(wire())
    d.Socket(kept[0]).watch_read(True)

@pytest.mark.dangagreen
def test_next():
    pass
""")
    result.assert_outcomes(failed=1, passed=1)
    printed = text(result)
    assert re.search(r"  task: <Task test_it.<locals>.forgotten, parked in sleep .*, spawned at .*\.py:15\n", printed)
    assert re.search(r"  timer: test_it.<locals>.alarm \(.*\.py:13\), due in 50 s", printed)
    assert len(re.findall(r"  fd \d+: pipe:.* to read; its other end: fd \d+: pipe:.* to write\n", printed)) == 1
    assert re.search(r"  socket: Socket\(R\): open to 10\.0\.0\.2:\d", printed)
    assert "  unhandled error: task 'test_it.<locals>.<lambda>', spawned at " in printed
    where = r"\(.*\.py:\d+\): ZeroDivisionError\('division by zero'\)"
    assert re.search(r"  unhandled error: a call_soon callback raised: test_it.<locals>.divide " + where, printed)
    assert re.search(r"  unhandled error: a timer's callback raised: test_it.<locals>.divide " + where, printed)
    assert "Traceback (most recent call last):" in printed
    assert "ZeroDivisionError: division by zero" in printed


def test_a_task_of_asyncio_that_is_left_behind_is_named(tried):
    result = tried("""
import asyncio
from dangagreen import bridge

async def forgets(seconds):
    asyncio.get_running_loop().create_task(asyncio.sleep(seconds), name="forgotten")
    return 1

@pytest.mark.dangagreen
def test_it():
    assert bridge.await_(forgets(100)) == 1

@pytest.mark.dangagreen
def test_about_to_end():
    assert bridge.await_(forgets(0)) == 1
""")
    result.assert_outcomes(failed=1, passed=1)
    assert re.search(r"left behind:\n +task: <Task pending name='forgotten'", text(result))


def test_a_failure_stays_the_main_thing_and_leaks_and_errors_are_told_beside_it(tried):
    result = tried("""
@pytest.mark.dangagreen
def test_it():
    spawn(sleep, 100)
    spawn(lambda: [].pop())
    sleep(0)
    assert 1 == 2
""")
    result.assert_outcomes(failed=1)
    printed = text(result)
    assert "E       assert 1 == 2" in printed
    assert printed.index("assert 1 == 2") < printed.index("- dangagreen: unhandled errors -")
    assert "IndexError: pop from empty list" in printed
    assert "task: <Task sleep, parked" in printed[printed.index("- dangagreen: left behind by the failed test -") :]


def test_skip_xfail_and_fail_mean_what_they_do_elsewhere(tried):
    result = tried("""
pytestmark = pytest.mark.dangagreen

def test_skip():
    spawn(sleep, 100)
    pytest.skip("because")

def test_fail():
    pytest.fail("because")

def test_xfail():
    pytest.xfail("because")

@pytest.mark.xfail(strict=True)
def test_leak():
    spawn(sleep, 100)

def test_exit():
    raise SystemExit(3)

def test_importorskip():
    pytest.importorskip("no_such_module_as_this")
""")
    result.assert_outcomes(skipped=2, failed=2, xfailed=2)


def test_what_a_fixture_leaves_is_an_error_of_its_end_and_no_failure_of_the_test(tried):
    result = tried("""
@pytest.fixture
def timer(loop):
    return loop.add_timer(100, print)

@pytest.mark.dangagreen
def test_it(timer):
    pass
""")
    result.assert_outcomes(passed=1, errors=1)
    assert "a fixture has left behind:\n  timer: print" in text(result)


def test_a_fixture_that_fails_is_told_and_not_what_it_leaves(tried):
    result = tried("""
@pytest.fixture
def timer(loop):
    loop.add_timer(100, print)
    raise ValueError

@pytest.mark.dangagreen
def test_it(timer):
    pass
""")
    result.assert_outcomes(errors=1)
    assert "left behind" not in text(result)


def test_the_own_on_error_of_a_test_takes_the_errors_that_it_expects(tried):
    result = tried("""
@pytest.mark.dangagreen
def test_it(loop):
    errors = []
    loop.on_error = errors.append
    spawn(lambda: 1 / 0)
    wait_until_idle()
    assert len(errors) == 1
""")
    result.assert_outcomes(passed=1)


# -- hangs


def test_a_stall_on_the_virtual_clock_fails_the_test_where_it_waits(tried):
    result = tried("""
@pytest.mark.dangagreen
def test_it(wire):
    current_loop().poller.patience = 0
    near, far = wire()
    with Socket(near) as sock:
        sock.read_line()

@pytest.mark.dangagreen
def test_next():
    pass
""")
    result.assert_outcomes(failed=1, passed=1)
    printed = text(result)
    assert ">           sock.read_line()" in printed
    assert "StalledError: all tasks wait, and nothing can wake them" in printed
    assert "parking.py" not in printed


@pytest.mark.slow
def test_a_deadlock_on_the_real_clock_is_found_beside_pytest_timeout(started):
    result = started(
        """
@pytest.mark.dangagreen
def test_it():
    d.Event().wait()

@pytest.mark.dangagreen
def test_its_own_handler_may_wake_the_loop(monkeypatch):
    import signal
    event = d.Event()
    loop = current_loop()
    before = signal.signal(signal.SIGUSR1, lambda *_: loop.call_soon_threadsafe(event.set))
    loop.deadlock_seconds = 0.05
    import threading
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    event.wait()
    timer.join()
    signal.signal(signal.SIGUSR1, before)
""",
        "--timeout=20",
    )
    result.assert_outcomes(failed=1, passed=1)
    assert "Deadlock: all tasks wait, and nothing can wake the loop" in text(result)


def test_a_test_that_waits_again_and_again_in_a_stall_ends(tried):
    result = tried("""
@pytest.mark.dangagreen
def test_it(virtual_clock):
    current_loop().poller.patience = 0
    while True:
        try:
            d.Event().wait()
        except d.Deadlock:
            pass
""")
    result.assert_outcomes(failed=1)
    assert "StalledError" in text(result)


def test_a_test_whose_loop_is_stopped_fails(tried):
    result = tried("""
@pytest.mark.dangagreen
def test_it(loop):
    loop.stop()
    sleep(1)
""")
    result.assert_outcomes(failed=1)
    assert "the loop was stopped before the test had ended" in text(result)


def test_a_time_limit_fails_the_test_where_it_waits_and_shows_what_the_loop_was_doing(tried):
    result = tried(
        """
def waits():
    sleep(100)

@pytest.mark.dangagreen
def test_it():
    task = spawn(waits)
    task.join()

def test_top_level(loop):
    sleep(100)

@pytest.mark.dangagreen
def test_quick():
    pass
""",
        "--dangagreen-timeout=0.5",
    )
    result.assert_outcomes(failed=2, passed=1)
    printed = text(result)
    assert ">       task.join()" in printed
    assert "E       Failed: the test took longer than 0.5 s" in printed
    assert ">       sleep(100)" in printed
    dump = printed[printed.index("- dangagreen: what the loop was doing -") :]
    assert re.search(r"task waits#\d+: parked in sleep until [\d.]+; waiting \d+ ms, busy [\d.]+ ms, age \d+ ms", dump)
    assert re.search(r"spawned at .*\.py:\d+, by test_it#\d+", dump)


FIXTURES = """
@pytest.fixture
def opens(loop):
    HERE
    yield

@pytest.fixture
def other(loop):
    yield
    closed.append(True)

closed = []

@pytest.fixture
def closes(other):
    yield
    HERE
"""


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [False, True])
def test_a_time_limit_holds_for_the_setup_of_fixtures_too(started, blocks):
    result = started(
        FIXTURES.replace("HERE", "time.sleep(30)" if blocks else "sleep(100)")
        + """
@pytest.mark.dangagreen
def test_it(other, opens):
    pass

@pytest.mark.dangagreen
def test_next(loop):
    assert closed == [True]
""",
        "--dangagreen-timeout=0.2",
        *("-p", "no:timeout"),
    )
    result.assert_outcomes(errors=1, passed=1)
    printed = text(result)
    assert "the setup of the fixtures took longer than 0.2 s" in printed
    dump = printed[printed.index("- dangagreen: what the loop was doing -") :]
    assert ("in opens" if blocks else "task top-level code: parked in sleep") in dump


@pytest.mark.slow
@pytest.mark.parametrize("where", ["setup", "teardown"])
def test_a_fixture_of_a_wider_scope_has_a_time_limit_of_its_own(started, where):
    result = started(
        f"""
@pytest.fixture(scope="module")
def stuck():
    if {where == "setup"}:
        time.sleep(60)
    yield
    if {where == "teardown"}:
        time.sleep(60)

@pytest.mark.dangagreen
def test_it(stuck, loop):
    pass

def test_next():
    pass
""",
        "--dangagreen-timeout=0.1",
    )
    words = f"the {where} of the fixture 'stuck', of scope 'module', "
    if where == "setup":
        result.assert_outcomes(errors=1, passed=1)
        assert words + "took longer than 1 s" in text(result)
        assert re.search(r'\.py", line \d+, in stuck', text(result))
    else:
        assert result.ret == 1
        last = result.stderr.str()
        assert f"::stuck: {words}takes longer than 6 s; the process of the tests ends here" in last
        assert re.search(r'\.py", line \d+, in stuck', last)


@pytest.mark.slow
def test_a_run_that_ends_so_tells_of_the_failures_before(started):
    result = started(
        """
@pytest.fixture
def broken():
    raise OSError("no such thing")

def test_first():
    assert 1 == 2, "first words"

def test_second(broken):
    pass

def test_third():
    pass

@pytest.mark.dangagreen
def test_last(loop):
    while True:
        try:
            sleep(100)
        except BaseException:
            pass
""",
        "--dangagreen-timeout=0.2",
    )
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "*= ERRORS =*",
            "E   *no such thing",
            "*= FAILURES =*",
            "E   *first words",
            "*short test summary info*",
            "FAILED *::test_first*",
            "FAILED *::test_last*",
            "ERROR *::test_second*",
        ]
    )
    assert "::test_last: the end of a test's loop takes longer than 5.2 s" in result.stderr.str()


@pytest.mark.slow
def test_a_fixture_of_a_wider_scope_may_take_longer(started):
    result = started(
        """
@pytest.fixture(scope="module")
def inner():
    time.sleep(0.4)

@pytest.fixture(scope="module")
def slow(inner):
    time.sleep(0.4)
    yield
    time.sleep(0.4)

@pytest.mark.dangagreen
def test_it(slow, loop):
    pass
""",
        "--dangagreen-timeout=0.3",
    )
    result.assert_outcomes(passed=1)


@pytest.mark.slow
def test_a_time_limit_holds_for_the_teardown_of_fixtures_that_wait(started):
    result = started(
        FIXTURES.replace("HERE", "sleep(100)")
        + """
@pytest.mark.dangagreen
def test_it(closes):
    pass

@pytest.mark.dangagreen
def test_next(loop):
    assert closed == [True]
""",
        "--dangagreen-timeout=0.2",
    )
    result.assert_outcomes(errors=1, passed=2)
    printed = text(result)
    assert "the teardown of the fixtures took longer than 0.2 s" in printed
    assert ">       sleep(100)" in printed
    assert "- dangagreen: what the loop was doing -" in printed


@pytest.mark.slow
def test_a_teardown_that_blocks_ends_the_process_and_is_named(pytester):
    pytester.makepyfile(
        HEAD
        + FIXTURES.replace("HERE", "time.sleep(30)")
        + """
@pytest.mark.dangagreen
def test_it(closes):
    pass
"""
    )
    result = pytester.runpytest_subprocess(*OPTIONS, *ASYNCIO, "--dangagreen-timeout=0.2", timeout=40)
    assert result.ret == 1
    told = result.stderr.str()
    assert "test_it: the teardown of the fixtures took longer than 0.2 s, and nothing ends it" in told
    assert "in closes" in told


@pytest.mark.parametrize(("options", "there"), [((), False), (("--dangagreen-timeout=20",), True)])
def test_notes_are_taken_only_for_a_time_limit(pytester, options, there):
    pytester.makepyfile(f"""
import sys

def test_it():
    assert ("dangagreen.introspect" in sys.modules) is {there}
""")
    pytester.runpytest_subprocess(*OPTIONS, *ASYNCIO, *options).assert_outcomes(passed=1)


def test_nothing_of_a_test_is_kept_until_the_end_of_the_run(tried):
    result = tried(
        """
import gc, weakref
loops = []

@pytest.mark.dangagreen
@pytest.mark.parametrize("n", range(4))
def test_it(n):
    loops.append(weakref.ref(current_loop()))

def test_after():
    gc.collect()
    assert [loop() for loop in loops] == [None] * 4
""",
        "--dangagreen-timeout=20",
    )
    result.assert_outcomes(passed=5)


@pytest.mark.slow
def test_a_time_limit_ends_a_test_that_blocks_its_loop_and_shows_where(started):
    result = started(
        """
pytestmark = pytest.mark.dangagreen

def block():
    time.sleep(30)

def test_handler():
    spawn(block).join()

def test_busy():
    while True:
        pass

def test_callback(loop):
    loop.call_soon(block)
    sleep(0)

def test_next():
    pass
""",
        "--dangagreen-timeout=1",
        "-p",
        "no:timeout",
    )
    result.assert_outcomes(failed=3, passed=1)
    printed = text(result)
    assert printed.count("the test took longer than 1 s") >= 3
    assert printed.count("the loop does not answer, it is in") == 3
    assert re.search(r'File ".*", line \d+, in block', printed)


SWALLOWS = """
def swallow():
    while True:
        try:
            sleep(100)
        except BaseException:
            pass

@MARK
def test_it(loop):
    {how}
"""


@pytest.mark.slow
@pytest.mark.parametrize("mark", ["", "@pytest.mark.dangagreen"], ids=["top-level code", "task"])
@pytest.mark.parametrize("how", ["spawn(swallow); sleep(0.01)", "swallow()"], ids=["a task of it", "the test"])
def test_a_run_in_which_a_task_swallows_all_that_is_to_end_it_ends_with_words(pytester, how, mark):
    source = SWALLOWS.format(how=how).replace("@MARK", mark)
    pytester.makepyfile(HEAD + source)
    result = pytester.runpytest_subprocess(*OPTIONS, *ASYNCIO, "--dangagreen-timeout=0.2", timeout=40)
    assert result.ret == 1
    words = result.stderr.str()
    assert "::test_it: " in words
    assert "; the process of the tests ends here. It is in\n" in words
    assert re.search(r'\.py", line \d+, in swallow', words)
    if how != "swallow()":
        assert "the end of a test's loop takes longer than 5.2 s, while <Task swallow, " in words
        assert ">, spawned at /" in words


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf", "1e300", "soon"])
def test_what_is_no_time_limit_is_a_usage_error(pytester, seconds):
    result = pytester.runpytest_subprocess(*OPTIONS, *ASYNCIO, f"--dangagreen-timeout={seconds}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "--dangagreen-timeout" in result.stderr.str()


@pytest.mark.slow
def test_hypothesis_does_not_go_on_with_a_test_whose_time_is_up(started):
    result = started(
        """
from hypothesis import given, strategies as st

@pytest.mark.dangagreen
@given(st.integers())
def test_it(n):
    sleep(100)
""",
        "--dangagreen-timeout=0.2",
    )
    result.assert_outcomes(failed=1)
    assert "the test took longer than 0.2 s" in text(result)


@pytest.mark.slow
def test_ctrl_c_ends_the_run(started):
    result = started("""
import signal

@pytest.mark.dangagreen
def test_it(loop):
    loop.add_timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT))
    sleep(100)

def test_next():
    raise AssertionError
""")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert "KeyboardInterrupt" in text(result)


# -- the order of tasks

RACE = """
@pytest.mark.dangagreen
@pytest.mark.parametrize("n", range(8))
def test_it({fixture}, n):
    noted = []
    tasks = [spawn(noted.append, name) for name in "abcdef"]
    for task in tasks:
        task.join()
    print("order", "".join(noted))
    assert "".join(noted) == "abcdef"
"""


@pytest.mark.parametrize("fixture", ["loop", "virtual_clock"])
def test_a_seed_changes_the_order_and_repeats_it_and_is_printed_with_a_failure(tried, fixture):
    source = RACE.format(fixture=fixture)
    tried(source).assert_outcomes(passed=8)
    result = tried(source, "--task-order=3")
    result.assert_outcomes(failed=8)
    assert "dangagreen: --task-order=3" in text(result)
    assert "--task-order=3 repeats it" in text(result)
    orders = re.findall("order [a-f]+", text(result))
    assert len(set(orders)) == 1
    assert re.findall("order [a-f]+", text(tried(source, "--task-order=3"))) == orders
    assert re.findall("order [a-f]+", text(tried(source, "--task-order=4"))) != orders


def test_a_random_seed_is_told(tried):
    result = tried("@pytest.mark.dangagreen\ndef test_it(): raise ValueError", "--task-order=random")
    (seed,) = set(re.findall(r"--task-order=(\d+)", text(result)))
    assert f"--task-order={seed} repeats it" in text(result)


@pytest.mark.slow
def test_all_processes_of_xdist_have_one_seed(started):
    result = started(RACE.format(fixture="loop"), "--task-order=random", "-n", "2")
    assert len(set(re.findall(r"--task-order=(\d+)", text(result)))) == 1


# -- beside others


@pytest.mark.slow
def test_each_example_of_hypothesis_has_a_fresh_loop_and_is_judged(tried):
    result = tried("""
from hypothesis import HealthCheck, given, settings, strategies as st

loops = []

@pytest.mark.dangagreen
@pytest.mark.usefixtures("virtual_clock")
@settings(max_examples=20, database=None, deadline=None)
@given(st.integers(1, 5))
def test_it(n):
    assert current_loop() not in loops
    loops.append(current_loop())
    assert current_loop().time() == 1000
    sleep(n)
    near, far = wire()
    with Socket(near) as sock:
        far.send(b"x" * n)
        assert sock.read_exactly(n) == b"x" * n

@pytest.mark.dangagreen
@settings(max_examples=10, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(n=st.integers())
def test_fixtures(loop, virtual_clock, n):
    assert loop is current_loop()
    assert virtual_clock() == 1000
    sleep(1)

@pytest.mark.dangagreen
@settings(max_examples=20, database=None)
@given(st.integers(0, 100))
def test_leak(n):
    if n > 3:
        current_loop().add_timer(100, print)
""")
    result.assert_outcomes(passed=2, failed=1)
    assert "left behind:" in text(result)
    assert "n=4" in text(result)


EVERYBODY = (
    HANDLERS
    + """
import asyncio
import anyio
from hypothesis import given, strategies as st

@pytest.mark.dangagreen
def test_ours(server):
    assert ask(server(echo).address, b"x\\n") == b"x\\n"

@pytest.mark.dangagreen
def test_wire(wire):
    near, far = wire()
    with Socket(near) as sock:
        far.send(b"x\\n")
        assert sock.read_line() == b"x\\n"

@pytest.mark.dangagreen
@given(st.integers())
def test_hypothesis(n):
    sleep(0)

@pytest.mark.anyio
async def test_anyio(anyio_backend):
    await anyio.sleep(0.01)

@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.mark.dangagreen
def test_bridge():
    from dangagreen import bridge
    assert bridge.await_(asyncio.sleep(0.01, "slept")) == "slept"

@pytest.mark.dangagreen
def test_ours_again():
    sleep(0.01)
"""
)


@pytest.mark.slow
def test_it_lives_with_anyio_and_hypothesis_and_asyncio_in_one_run_with_warnings_as_errors(tried):
    tried(EVERYBODY, "-p", "_hypothesis_pytestplugin").assert_outcomes(passed=6)


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("-n", "2"), ("--dangagreen-timeout=20", "--timeout=30"), ("--task-order=5",)])
def test_it_lives_with_pytest_asyncio_and_xdist_too(started, options):
    pytest.importorskip("pytest_asyncio")
    source = """
@pytest.mark.asyncio
async def test_pytest_asyncio():
    await asyncio.sleep(0.01)
"""
    started(EVERYBODY + source, *options).assert_outcomes(passed=7)


@pytest.mark.slow
def test_x_and_pdb_work_as_elsewhere(pytester):
    pytester.makepyfile(
        HEAD
        + """
@pytest.mark.dangagreen
def test_it():
    sleep(0)
    assert False

@pytest.mark.dangagreen
def test_next():
    pass
"""
    )
    result = pytester.runpytest_subprocess(*OPTIONS, *ASYNCIO, "-x")
    result.assert_outcomes(failed=1)
    child = pytester.run(sys.executable, "-m", "pytest", *OPTIONS, *ASYNCIO, "--pdb", stdin=b"p 6 * 7\nc\n")
    assert "\n(Pdb) 42\n" in child.stdout.str()
    child.assert_outcomes(failed=1, passed=1)


@pytest.mark.slow
def test_a_debugger_lifts_the_time_limit(pytester):
    pytester.makepyfile(
        HEAD
        + """
@pytest.mark.dangagreen
def test_it():
    breakpoint()
    sleep(0)
"""
    )
    lines = b"import time\ntime.sleep(1)\np 6 * 7\nc\n"
    result = pytester.run(sys.executable, "-m", "pytest", *OPTIONS, *ASYNCIO, "--dangagreen-timeout=0.5", stdin=lines)
    assert "42" in result.stdout.str()
    result.assert_outcomes(passed=1)


@pytest.mark.slow
def test_the_library_is_imported_without_pytest():
    code = "import sys, dangagreen.testing; sys.exit('pytest' in sys.modules)"
    assert run_python("-c", code)[0] == 0


def test_the_entry_point_is_what_the_option_p_names():
    """Otherwise pytest would refuse the second of them."""
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert f'[project.entry-points.pytest11]\n"{PLUGIN}" = "{PLUGIN}"' in project
