"""SIGINT: who may be interrupted where, and by which thread the handler is called anew."""

import signal
import sys
import threading
from functools import partial
from types import SimpleNamespace

import pytest

from dangagreen.frames import LOOPS
from dangagreen.loop import sigint
from dangagreen.loop.sigint import Interrupts, Looks
from tests.helpers import of_ours
from tests.programs import run_python

CALL = "lambda function, *args: function(*args)"

ours = of_ours(CALL)
stdlib = eval(CALL, {"__name__": "contextlib"})
a_loop = of_ours(
    "lambda function, *args: (LOOPS.add(getframe()), function(*args))", LOOPS=LOOPS, getframe=sys._getframe
)


def loops(function, *args):
    """Have a loop call it."""
    try:
        a_loop(function, *args)
    finally:
        LOOPS.clear()


def ctrl_c():
    signal.raise_signal(signal.SIGINT)


def in_the_loop():
    """Ctrl-C while the loop itself is at it."""
    loops(signal.raise_signal, signal.SIGINT)


@pytest.fixture
def noted():
    """What was noted, and in `noted.interrupts` who does so."""

    class Noted(list):
        pass

    noted = Noted()
    noted.interrupts = Interrupts(lambda: noted.append("noted"))
    yield noted
    noted.interrupts.restore()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_in_the_loop_the_first_one_is_noted_and_the_second_strikes(noted):
    in_the_loop()
    assert noted == ["noted"]
    assert noted.interrupts.pending
    for strikes in (in_the_loop, ctrl_c):
        with pytest.raises(KeyboardInterrupt):
            strikes()
    assert noted == ["noted"]


def test_once_acted_upon_the_next_one_is_a_first_one(noted):
    in_the_loop()
    noted.interrupts.acted_upon()
    assert not noted.interrupts._looks.wanted
    in_the_loop()
    assert noted == ["noted", "noted"]


@pytest.mark.parametrize("through", [[], [stdlib], [stdlib, stdlib]], ids=len)
def test_in_the_programs_code_it_strikes_at_once(noted, through):
    """What the standard library does, it does for its caller."""
    with pytest.raises(KeyboardInterrupt):
        call(*through, signal.raise_signal)
    assert noted == []
    assert not noted.interrupts.pending


def call(*functions):
    first, *others = functions
    first(*others, signal.SIGINT)


@pytest.mark.parametrize("through", [[ours], [ours, stdlib], [stdlib, ours, stdlib, ours]], ids=len)
def test_in_ours_it_strikes_when_that_returns_to_the_program(noted, through):
    steps = []

    inner = of_ours(
        "lambda number: (raise_signal(number), steps.append('the rest of ours'))",
        raise_signal=signal.raise_signal,
        steps=steps,
    )

    def program():
        call(*through, inner)
        for _ in iter(int, 1):
            pass

    with pytest.raises(KeyboardInterrupt):
        program()
    assert steps == ["the rest of ours"]
    assert noted == ["noted"]
    assert not noted.interrupts.pending


def looks(noted, monkeypatch):
    """A function that is a look, in our code, whether that has returned."""
    monkeypatch.setattr(sigint, "_thread", SimpleNamespace(start_new_thread=lambda *_args: None))

    def look():
        noted.interrupts._looks.own = True
        ours(signal.raise_signal, signal.SIGINT)

    return look


@pytest.mark.skipif(sys.gettrace() is not None, reason="somebody traces the tests")
def test_a_program_that_calls_us_again_and_again_is_struck_at_its_next_line(noted, monkeypatch):
    look, steps = looks(noted, monkeypatch), []

    def program():
        ours(signal.raise_signal, signal.SIGINT)
        steps.append("noted")
        look()
        steps.append("the next line")

    with pytest.raises(KeyboardInterrupt):
        program()
    assert steps == ["noted"]
    assert not noted.interrupts.pending
    assert sys.gettrace() is None
    assert sys._getframe().f_trace is None


@pytest.mark.skipif(sys.gettrace() is not None, reason="somebody traces the tests")
@pytest.mark.parametrize("loop", ["for _ in range(9): look()", "while not steps[8:]: steps.append(look())"])
def test_what_is_around_a_loop_of_one_line_sees_it(noted, monkeypatch, loop):
    """In CPython 3.13 it does not, where a function that traces raises it at the jump."""
    seen, steps = [], []
    names = {"look": looks(noted, monkeypatch), "ours": ours, "signal": signal, "seen": seen, "steps": steps}
    program = f"""
def program():
    try:
        ours(signal.raise_signal, signal.SIGINT)
        {loop}
        ours(len, "")
    except KeyboardInterrupt:
        seen.append("except")
    finally:
        seen.append("finally")
"""
    exec(program, names)
    names["program"]()
    assert seen == ["except", "finally"]
    assert not steps[1:]
    assert not sys._getframe().f_trace_opcodes


@pytest.mark.skipif(sys.gettrace() is not None, reason="somebody traces the tests")
@pytest.mark.parametrize("how", ["acted upon", "put back"])
def test_once_that_is_over_nobody_is_traced_any_more(noted, monkeypatch, how):
    look = looks(noted, monkeypatch)
    all_in_ours = of_ours("lambda steps: [step() for step in steps]")
    ends = [noted.interrupts.restore]
    if how == "acted upon":  # as by the loop
        ends = [noted.interrupts.acted_upon]
    all_in_ours([partial(signal.raise_signal, signal.SIGINT), look, *ends])
    assert sys.gettrace() is None
    assert sys._getframe().f_trace is None


def test_who_traces_the_program_is_left_alone(noted, monkeypatch):
    look, traced = looks(noted, monkeypatch), sys.gettrace()

    def tracer(*_args):
        return None

    sys.settrace(tracer)
    try:
        ours(signal.raise_signal, signal.SIGINT)
        look()
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(traced)


def test_the_looks_whether_ours_has_returned_stay_frequent(monkeypatch):
    """A program that is traced already, so that we cannot, is met in its own code by few of them."""
    looks, slept = Looks(), []
    looks.wanted = True

    def sleep(seconds):
        slept.append(seconds)
        looks.wanted = len(slept) < 50

    monkeypatch.setattr(sigint, "time", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(sigint, "_thread", SimpleNamespace(interrupt_main=list))
    looks._look(0.25)
    assert slept[0] == 0.25
    assert sum(slept[1:]) < 0.5


def test_without_a_thread_for_the_looks_the_second_one_strikes(noted, monkeypatch):
    def no_thread(*_args):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(sigint, "_thread", SimpleNamespace(start_new_thread=no_thread))
    ours(signal.raise_signal, signal.SIGINT)
    assert noted == ["noted"]
    with pytest.raises(KeyboardInterrupt):
        ours(signal.raise_signal, signal.SIGINT)


def test_in_a_del_it_is_noted(noted):
    """What that raises is lost."""

    class Dying:
        def __del__(self):
            ctrl_c()
            steps.append("the rest of __del__")

    steps = []
    loops(Dying)
    assert steps == ["the rest of __del__"]
    assert noted == ["noted"]


def test_a_handler_of_the_programs_own_is_left_alone():
    old = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        sigint = Interrupts(lambda: None)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        sigint.restore()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, old)


def test_other_threads_touch_nothing():
    def use():
        Interrupts(lambda: None).restore()

    thread = threading.Thread(target=use)
    thread.start()
    thread.join(30)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_callback_that_is_at_work_is_struck_at_once(real_loop):
    steps = []

    def work():
        try:
            signal.raise_signal(signal.SIGINT)
            steps.append("the rest of the callback")
        finally:
            steps.append("finally")

    real_loop.call_soon(work)
    with pytest.raises(KeyboardInterrupt):
        real_loop.run()
    assert steps == ["finally"]
    assert not real_loop.running
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_program_that_ends_with_event_loop_ends_by_ctrl_c():
    program = """
import contextlib
import signal
from dangagreen import Socket, current_loop, serve
serve(("127.0.0.1", 0), print)
current_loop().add_timer(0, lambda: signal.raise_signal(signal.SIGINT))
try:
    Socket.event_loop()
except KeyboardInterrupt:
    print("bye")
"""
    assert run_python("-c", program) == (0, "bye\n", "")
