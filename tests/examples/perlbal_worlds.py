"""Worlds of perlbal for its tests, and what commands answer in them."""

from __future__ import annotations

from perlbal.commands import Context, execute
from perlbal.program import make_world
from perlbal.services import World


def ask(world: World, *lines: str, context: Context | None = None) -> list[str]:
    """What the commands of a management connection answer."""
    answers: list[str] = []
    context = context or Context(verbose=True)
    for line in lines:
        execute(world, context, line, answers.append)
    return answers


def configured(text: str, world: World | None = None) -> World:
    """A world with this configuration, which has to be right."""
    world = world or make_world()
    assert [line for line in ask(world, *text.splitlines()) if line != "OK"] == []
    return world
