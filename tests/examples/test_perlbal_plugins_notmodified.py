"""NotModified: who is told that a copy is fresh."""

from __future__ import annotations

from perlbal_worlds import ask, get, serving, web


def test_not_modified(tmp_path):
    text = "LOAD NotModified\n" + web(tmp_path, "ws", "NotModified", "SET ws.notmodified.host_pattern = ^x")
    with serving(text) as world:
        line = "If-Modified-Since: whenever"
        assert get(world, "ws", "/", "Host: xx", line) == (304, {"Server": "Perlbal", "Connection": "close"}, b"")
        assert get(world, "ws", "/", "Host: ax", line)[0] == 200
        assert get(world, "ws", "/", "Host: xx")[0] == 200
        assert "  SET ws.notmodified.host_pattern = ^x" in ask(world, "dumpconfig")
        assert ask(world, "SET ws.notmodified.host_pattern = (") == ["ERROR: Invalid regular expression"]
