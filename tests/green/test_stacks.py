"""The frames of parked tasks, innermost first, and of these the program's own."""

from __future__ import annotations

import dangagreen as d
from dangagreen.green.stacks import frames, program_places


def inner():
    d.sleep(1)


def outer():
    inner()


def test_a_parked_task(loop):
    task = d.spawn(outer)
    d.sleep(0)
    inside, outside = program_places(task)
    assert inside == f"{__file__}:{inner.__code__.co_firstlineno + 1}"
    assert outside == f"{__file__}:{outer.__code__.co_firstlineno + 1}"
    names = [frame.f_code.co_name for frame in frames(task)]
    assert names.index("inner") < names.index("outer") < len(names) - 1
    assert names[0] == "park"
    task.cancel()
    task.join()


def test_one_that_has_not_started_one_that_runs_and_one_that_has_ended(loop):
    seen = []
    task = d.spawn(lambda: seen.append(list(frames(task))))
    assert list(frames(task)) == []
    task.join()
    assert seen == [[]]
    assert list(frames(task)) == []
    assert list(program_places(task)) == []


def test_the_librarys_own_frames_are_no_places_of_the_program(loop):
    import functools

    task = d.spawn(functools.partial(sorted, [2, 1], key=lambda n: d.sleep(1) or n))
    d.sleep(0)
    (place,) = program_places(task)
    assert place.startswith(f"{__file__}:")
    task.cancel()
    task.join()
