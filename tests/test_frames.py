"""Whose code a frame runs: the package's, the standard library's, or the program's."""

import contextlib
import os
import sys

import pytest

import dangagreen as d
from dangagreen.frames import LOOPS, is_installed, is_library, is_ours
from tests.helpers import of_ours


def frames_of(call):
    """Those that lie between here and what it calls, the innermost first."""
    found, here = [], sys._getframe()

    def look():
        frame = sys._getframe(1)
        while frame is not here:
            found.append(frame)
            frame = frame.f_back

    call(look)
    return found


def test_ours_is_what_lies_in_our_folder_whatever_it_calls_itself():
    assert [is_ours(frame) for frame in frames_of(of_ours("lambda call: call()"))] == [True]
    liar = eval("lambda call: call()", {"__name__": "dangagreen.loop.turn"})
    assert [is_ours(frame) for frame in frames_of(liar)] == [False]


def test_a_folder_that_begins_like_ours_is_not():
    beside = compile("lambda call: call()", os.path.dirname(d.__file__) + "_tools/x.py", "eval")
    assert [is_ours(frame) for frame in frames_of(eval(beside))] == [False]


def test_what_the_standard_library_calls_is_told_from_the_program():
    @contextlib.contextmanager
    def block(look):
        look()
        yield

    def program(look):
        with block(look):
            pass

    assert [is_library(frame) for frame in frames_of(program)] == [False, True, False]


@pytest.mark.parametrize(
    ("parts", "installed"),
    [
        (("srv", "venv", "lib", "python3.11", "site-packages", "redis", "client.py"), True),
        (("usr", "lib", "python3", "dist-packages", "six.py"), True),
        (("srv", "app", "site.py"), False),
        (("srv", "my-site-packages", "app.py"), False),
    ],
)
def test_code_of_an_installed_package_is_told_by_its_folder(parts, installed):
    assert is_installed(compile("", os.path.join(os.sep, *parts), "exec")) is installed


def test_the_frame_in_which_a_loop_runs_is_known_for_as_long_as_it_does(loop):
    before, during = set(LOOPS), []

    def look():
        frame = sys._getframe()
        while frame not in LOOPS:
            frame = frame.f_back
        during.append(frame.f_code)

    loop.call_soon(look)
    loop.run(lambda: True)
    assert during == [d.Loop.run.__code__]
    assert before == LOOPS
