"""Where the code of a call stands in the sources, through partials, methods and contexts."""

from __future__ import annotations

import time
from contextvars import copy_context
from functools import partial

import pytest

from dangagreen import Socket
from dangagreen.places import named, owner_of, place_of, place_of_instruction


def function(*_arguments):
    return None


class Callable:
    def __call__(self):
        return None

    def method(self):
        return None


class Made:
    def __init__(self):
        pass


class Inherits(Made):
    pass


MADE = f"{__file__}:{Made.__init__.__code__.co_firstlineno}"
HERE = f"{__file__}:{function.__code__.co_firstlineno}"
METHOD = f"{__file__}:{Callable.method.__code__.co_firstlineno}"
CALL = f"{__file__}:{Callable.__call__.__code__.co_firstlineno}"


@pytest.mark.parametrize(
    ("call", "place", "name"),
    [
        (function, HERE, "function"),
        (partial(function, 1), HERE, "function"),
        (partial(partial(function, 1), 2), HERE, "function"),
        (partial(copy_context().run, function, 3), HERE, "function"),
        (partial(copy_context().run, partial(function, 4), 3), HERE, "function"),
        (Callable().method, METHOD, "Callable.method"),
        (partial(Callable().method), METHOD, "Callable.method"),
        (time.sleep, "time.sleep", "time.sleep"),
        (partial(time.sleep, 1), "time.sleep", "time.sleep"),
        ([].append, "list.append", "list.append"),
        (print, "print", "print"),
        (int, "int", "int"),
        (Made, MADE, "Made"),
        (partial(Inherits, 1), MADE, "Inherits"),
        (Socket, "Socket", "Socket"),
    ],
)
def test_the_function_that_is_called_in_the_end(call, place, name):
    assert (place_of(call), named(call)) == (place, name)


def test_an_object_that_can_be_called():
    assert place_of(Callable()) == CALL
    assert named(Callable()).startswith("<")


def test_what_cannot_be_called_has_no_place_and_raises_nothing():
    assert place_of(3) == "3"


def test_the_owner_of_a_method():
    owner = Callable()
    assert owner_of(owner.method) is owner
    assert owner_of(function) is None


def test_an_instruction_by_its_line():
    code = function.__code__
    assert place_of_instruction(code, 0).startswith(f"{__file__}:")
    assert place_of_instruction(code, 10_000) == f"{__file__}:{code.co_firstlineno}"
