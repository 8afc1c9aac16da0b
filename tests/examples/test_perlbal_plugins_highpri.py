"""Highpri: which requests have high priority."""

from __future__ import annotations

from perlbal_worlds import Asking, ask, configured


def test_high_priority():
    world = configured("LOAD highpri\nCREATE SERVICE s\nSET role = web_server\nSET plugins = highpri")
    service = world.services["s"]

    def is_high(uri, host=""):
        return service.run_hooks("make_high_priority", Asking(uri, host))

    assert is_high("/login.bml")
    assert not is_high("/login.bml?x")
    configured("SET s.highpri.uri_pattern = ^/fast\nSET s.HighPri.host_pattern = Vip", world)
    assert is_high("/faster")
    assert is_high("/", "a.Vip")
    assert not is_high("/", "a.vip")
    assert ask(world, "patterns") == [
        "High priority pattern buffer:",
        "SET s.highpri.uri_pattern = ^/fast",
        "SET s.highpri.host_pattern = Vip",
        ".",
    ]
    configured("SET s.highpri.uri_pattern = none", world)
    assert not is_high("/fast")
    assert ask(world, "SET s.highpri.uri_pattern = (") == ["ERROR: Invalid regular expression"]
