"""What makes a function a case."""

from __future__ import annotations


def case(function):
    """Decorator: a function of a conversation that asserts what holds in every style, over every transport."""
    function.is_case = True
    return function
