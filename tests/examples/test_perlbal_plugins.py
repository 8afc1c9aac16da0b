"""The interface of perlbal's plugins: loading, registering, hooks, and that UNLOAD leaves nothing behind."""

from __future__ import annotations

import re
import sys

import pytest

from perlbal.clients import Client
from perlbal.hooks import Plugin
from perlbal.program import make_world
from perlbal.services import Service
from perlbal_worlds import ask, configured, get, serving, web
from programs import EXAMPLES

LOADABLE = [
    "AccessControl",
    "AutoRemoveLeadingDir",
    "EchoService",
    "FlvStreaming",
    "Highpri",
    "Include",
    "LazyCDN",
    "MaxContentLength",
    "NotModified",
    "Queues",
    "Redirect",
    "Stats",
    "Throttle",
    "Vhosts",
    "Vpaths",
    "XFFExtras",
]


@pytest.mark.parametrize("name", LOADABLE)
@pytest.mark.parametrize("spelt", [str, str.lower, str.upper])
def test_a_plugin_is_loaded_in_any_letter_case_and_leaves_nothing_behind(name, spelt):
    world = make_world()
    role = (
        "selector"
        if name.startswith("V")
        else "reverse_proxy"
        if name == "FlvStreaming"
        else "reverse_proxy"
        if "proxy" in world.roles
        else "web_server"
    )
    configured(f"CREATE SERVICE s\nSET role = {role}", world)
    service = world.services["s"]
    before = (dict(world.commands), dict(world.tunables), dict(world.roles), dict(service.hooks), dict(service.setters))
    for _ in range(2):
        configured(f"LOAD {spelt(name)}\nSET s.plugins = {spelt(name)}", world)
        assert service.plugins == [name]
        assert ask(world, "plugins") == [f"s {name}", "."]
        configured(f"UNLOAD {spelt(name)}", world)
        assert service.plugins == []
        hooks = {hook: found for hook, found in service.hooks.items() if found}
        assert (world.commands, world.tunables, world.roles, hooks, service.setters) == before


def test_a_plugin_is_read_again_and_stays_with_its_services():
    world = configured("LOAD highpri\nCREATE SERVICE s\nSET role = web_server\nSET plugins = highpri")
    before = sys.modules["perlbal.plugins.highpri"].PLUGIN
    configured("RELOAD HighPri", world)
    assert sys.modules["perlbal.plugins.highpri"].PLUGIN is not before
    assert world.services["s"].plugins == ["Highpri"]
    assert len(world.services["s"].hooks["make_high_priority"]) == 1


def test_plugins_that_are_not_loaded_are_told_and_the_others_registered():
    world = configured("LOAD stats\nCREATE SERVICE s\nSET role = web_server")
    assert ask(world, "SET s.plugins = Foo, stats bar,stats") == [
        "ERROR: Plugin foo not loaded; not registered for s.",
        "Plugin bar not loaded; not registered for s.",
    ]
    assert world.services["s"].plugins == ["Stats"]
    configured("SET s.plugins = none", world)
    assert world.services["s"].plugins == []


def test_a_plugin_goes_on_with_a_response(tmp_path):
    """After the file was sent; what it answers is the end, where it has not taken over."""
    with serving(web(tmp_path)) as world:
        service = world.services["ws"]

        def add(client):
            client.write(b"and more")

        service.register_hook("T", "reproxy_fh_finished", add)
        assert get(world, "ws")[2] == b"hello\nand more"

        def take_over(client):
            client.write(b"!")
            client.response_done()
            return True

        service.forget("T")
        service.register_hook("T", "reproxy_fh_finished", take_over)
        assert get(world, "ws")[2] == b"hello\n!"


def test_a_plugin_writes_before_the_body(proxied):
    world, _ = proxied
    world.services["rp"].register_hook("T", "prepend_body", lambda backend, client: client.write(b"oh "))
    assert get(world, "rp")[2] == b"oh hi"


def test_the_plugin_of_the_page_is_one(tmp_path):
    page = (EXAMPLES / "perlbal" / "README.md").read_text()
    (source,) = re.findall(r"```python\n(class Teapot.*?)```", page, re.DOTALL)
    names = {"Plugin": Plugin, "Service": Service, "Client": Client}
    exec(source, names)
    with serving(web(tmp_path)) as world:
        world.plugins["teapot"] = names["PLUGIN"]()
        configured("SET ws.plugins = teapot", world)
        code, _, body = get(world, "ws")
    assert (code, body) == (418, b"<h1>418 - I'm a Teapot</h1>\nNo coffee here.")
