"""NotModified: who is told that a copy is fresh."""

from __future__ import annotations

from perlbal_worlds import ask, configured, get, serving, web


def test_not_modified(tmp_path):
    text = "LOAD NotModified\n" + web(tmp_path, "ws", "NotModified", "SET ws.notmodified.host_pattern = ^x")
    with serving(text) as world:
        line = "If-Modified-Since: whenever"
        assert get(world, "ws", "/", "Host: xx", line) == (304, {"Server": "Perlbal", "Connection": "close"}, b"")
        assert get(world, "ws", "/", "Host: ax", line)[0] == 200
        assert get(world, "ws", "/", "Host: xx")[0] == 200
        assert "  SET ws.notmodified.host_pattern = ^x" in ask(world, "dumpconfig")
        assert ask(world, "SET ws.notmodified.host_pattern = (") == ["ERROR: Invalid regular expression"]


def test_without_a_pattern_or_a_host_nobody_is_told(tmp_path):
    line = "If-Modified-Since: whenever"
    with serving("LOAD NotModified\n" + web(tmp_path, "ws", "NotModified")) as world:
        assert get(world, "ws", "/", "Host: x", line)[0] == 200
        assert not [line for line in ask(world, "dumpconfig") if "notmodified" in line]
        configured("SET ws.NotModified.host_pattern = .*", world)
        assert get(world, "ws", "/", line)[0] == 200  # HTTP/1.0 needs no Host
        assert get(world, "ws", "/none", "Host: x", line)[0] == 304
        assert ask(world, "SET ws.NotModified.host_pattern = [") == ["ERROR: Invalid regular expression"]
        assert get(world, "ws", "/", "Host: x", line)[0] == 304  # by the former one


def test_setting_the_plugins_anew_forgets_the_pattern(tmp_path):
    text = "LOAD NotModified\n" + web(tmp_path, "ws", "NotModified", "SET ws.notmodified.host_pattern = X")
    with serving(text) as world:
        assert get(world, "ws", "/", "Host: X", "If-Modified-Since: x")[0] == 304
        assert get(world, "ws", "/", "Host: x", "If-Modified-Since: x")[0] == 200
        configured("SET ws.plugins = NotModified", world)
        assert get(world, "ws", "/", "Host: X", "If-Modified-Since: x")[0] == 200
        configured("UNLOAD NotModified", world)
        assert ask(world, "SET ws.notmodified.host_pattern = x") == [
            "ERROR: Unknown service parameter 'notmodified.host_pattern'"
        ]
