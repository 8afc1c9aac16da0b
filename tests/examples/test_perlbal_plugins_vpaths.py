"""Vpaths: which service a URI chooses."""

from __future__ import annotations

from perlbal_worlds import ask, configured, get, serving, web


def test_vpaths(tmp_path):
    text = "LOAD vpaths\n" + web(tmp_path)
    text += "\nCREATE SERVICE s\nSET role = selector\nSET listen = 127.0.0.1:0\nSET plugins = vpaths\n"
    text += "VPATH /index = ws\nVPATH s ^/gone = gone\nENABLE s"
    with serving(text) as world:
        assert get(world, "s", "/index.html")[2] == b"hello\n"
        assert get(world, "s", "/gone")[::2] == (
            404,
            b"<h1>404 - Not Found</h1>\nNot Found (gone not a defined service)",
        )
        assert get(world, "s", "/")[0] == 404
        configured("SET s.default_service = ws", world)
        assert get(world, "s", "/")[2] == b"hello\n"
        assert ask(world, "VPATH s ( = ws") == ["ERROR: invalid regular expression: '('"]
        assert ask(world, "VPATH ws x = ws") == ["ERROR: Service 'ws' is not a selector service"]
        assert "  VPATH /index = ws" in ask(world, "dumpconfig")
