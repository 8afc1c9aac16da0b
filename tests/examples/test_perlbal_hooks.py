"""Hooks and setters: in which order they are asked, and that they are forgotten with their plugin."""

from __future__ import annotations

import pytest

from perlbal.hooks import Hooked
from perlbal.language import CommandError
from perlbal.services import World
from perlbal_worlds import CONFIGURATION, ask, configured, inert_world


@pytest.fixture
def world() -> World:
    return configured(CONFIGURATION, inert_world())


def test_hooks_are_asked_until_one_has_taken_over(world):
    service = world.services["rp"]
    asked: list[str] = []
    service.register_hook("A", "h", lambda *arguments: asked.append(f"a{arguments}"))
    service.register_hook("B", "h", lambda *arguments: asked.append("b") or True)
    service.register_hook("C", "h", lambda *arguments: asked.append("c"))
    assert service.run_hooks("h", 1) is True
    assert asked == ["a(1,)", "b"]
    service.run_all_hooks("h", 1)
    assert asked[2:] == ["a(1,)", "b", "c"]
    assert service.run_hooks("other") is False


def test_a_setter_of_a_plugin(world):
    service, got = world.services["rp"], []
    service.register_setter("Plug", "key", got.append)

    def refuse(value):
        raise CommandError("not that")

    service.register_setter("Plug", "no", refuse)
    configured("SET rp.PLUG.Key = Value", world)
    assert got == ["Value"]
    assert ask(world, "SET rp.plug.no = x") == ["ERROR: not that"]
    assert ask(world, "SET rp.plug.else = x") == ["ERROR: Unknown service parameter 'plug.else'"]


def test_what_a_plugin_has_added_is_forgotten_and_the_rest_stays():
    hooked = Hooked()
    for plugin in "Al", "Also":
        hooked.register_hook(plugin, "both", plugin.lower)
        hooked.register_setter(plugin, "Key", plugin.count)
    hooked.register_hook("Al", "one", "Al".lower)
    hooked.forget("Al")
    assert [(name, [plugin for plugin, _ in hooks]) for name, hooks in hooked.hooks.items()] == [("both", ["Also"])]
    assert list(hooked.setters) == ["also.key"]
    hooked.forget("Also")
    assert (hooked.hooks, hooked.setters) == ({}, {})


@pytest.mark.parametrize(("answer", "taken"), [("yes", True), (1, True), (None, False), ("", False), (0, False)])
def test_a_hook_that_answers_something_true_has_taken_over(answer, taken):
    hooked, asked = Hooked(), []
    hooked.register_hook("A", "h", lambda: answer)
    hooked.register_hook("B", "h", lambda: asked.append("b"))
    assert hooked.run_hooks("h") is taken
    assert asked == ([] if taken else ["b"])


@pytest.mark.parametrize("run", ["run_hooks", "run_all_hooks"])
def test_a_plugin_may_be_forgotten_by_a_hook_of_its_own(run):
    """Those that were there when they began to be asked, are asked."""
    hooked, asked = Hooked(), []
    hooked.register_hook("A", "h", lambda: hooked.forget("A"))
    hooked.register_hook("A", "h", lambda: asked.append(2))
    getattr(hooked, run)("h")
    getattr(hooked, run)("h")
    assert asked == [2]


def test_an_error_of_a_hook_is_for_whoever_runs_it():
    hooked = Hooked()
    hooked.register_hook("A", "h", lambda: 1 / 0)
    for run in hooked.run_hooks, hooked.run_all_hooks:
        with pytest.raises(ZeroDivisionError):
            run("h")


def test_the_last_setter_of_a_name_counts():
    hooked, got = Hooked(), []
    hooked.register_setter("A", "k", lambda text: got.append("first"))
    hooked.register_setter("a", "K", lambda text: got.append(text))
    hooked.setters["a.k"]("second")
    assert got == ["second"]


@pytest.mark.parametrize("run", ["run_hooks", "run_all_hooks"])
def test_a_hook_that_is_added_meanwhile_is_asked_the_next_time(run):
    hooked, asked = Hooked(), []
    hooked.register_hook("A", "h", lambda: hooked.register_hook("A", "h", lambda: asked.append(1)))
    getattr(hooked, run)("h")
    assert asked == []
    getattr(hooked, run)("h")
    assert asked == [1]
