"""Calls of introspect with wrong arguments are refused in words; tests/test_arguments.py has the others."""

from __future__ import annotations

import pytest

from tests.introspect.seeing import answers

pytestmark = pytest.mark.slow_but_first  # it starts a program

LOOP = "is no Loop"
CALLS = {
    "snapshot(5)": ("TypeError", LOOP),
    "snapshot(most='5')": ("TypeError", "most is no int: '5'"),
    "snapshot(most=-1)": ("ValueError", "most cannot be negative"),
    "dump(5)": ("TypeError", "a file that is open for text, not to 5"),
    "dump(loop=5)": ("TypeError", LOOP),
    "dump(most=-1)": ("ValueError", "most cannot be negative"),
    "to_json(5)": ("TypeError", LOOP),
    "profile(5)": ("TypeError", LOOP),
    "dump_on_signal('USR1')": ("TypeError", "the signal of introspect.dump_on_signal is no int: 'USR1'"),
    "dump_on_signal(10.5)": ("TypeError", "no int"),
    "dump_on_signal(None)": ("TypeError", "no int"),
    "dump_on_signal(-1)": ("ValueError", "negative"),
    "dump_on_signal(4711)": ("ValueError", "signal number out of range"),
    "dump_on_signal(signal.SIGKILL)": ("OSError", "Invalid argument"),
    "dump_on_signal(write=5)": ("TypeError", "introspect.dump_on_signal needs a function, not 5"),
    "watchdog('1')": ("TypeError", "introspect.watchdog is a number of seconds"),
    "watchdog(0)": ("ValueError", "above zero"),
    "watchdog(-1)": ("ValueError", "above zero"),
    "watchdog(float('nan'))": ("ValueError", "NaN"),
    "watchdog(1, 5)": ("TypeError", "introspect.watchdog needs a function, not 5"),
    "lint(1)": ("TypeError", "True or False"),
    "lint(print)": ("TypeError", "True or False"),
    "lint(True, 5)": ("TypeError", "introspect.lint needs a function, not 5"),
}


def test_calls_that_are_refused_say_why_and_have_changed_nothing():
    program = f"""
before = threading.active_count(), [signal.getsignal(number) for number in signal.valid_signals()]
for call in {list(CALLS)!r}:
    try:
        eval("introspect." + call)
    except Exception as error:
        answers[call] = type(error).__name__, str(error)
assert before == (threading.active_count(), [signal.getsignal(number) for number in signal.valid_signals()])
functions = [name for name in introspect.__all__ if type(getattr(introspect, name)) is type(answers_of)]
answers["missing"] = [name for name in functions if not any(call.startswith(name + "(") for call in {list(CALLS)!r})]
"""
    told = answers("def answers_of(): pass\n" + program)
    assert told.pop("missing") == []
    assert {call: kind for call, (kind, _) in told.items()} == {call: kind for call, (kind, _) in CALLS.items()}
    for call, (_, words) in CALLS.items():
        assert words in told[call][1], call


def test_a_watchdog_for_ever_is_one_that_never_barks():
    """Its thread ended with an OverflowError."""
    answers("""
dog = introspect.watchdog(float("inf"))
(watcher,) = [thread for thread in threading.enumerate() if "watchdog" in thread.name]
watcher.join(0.2)
assert watcher.is_alive()
dog.cancel()
""")
