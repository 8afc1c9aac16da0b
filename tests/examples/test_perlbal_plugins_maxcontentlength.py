"""MaxContentLength: which requests are too large."""

from __future__ import annotations

from perlbal_worlds import ask, configured, exchange, get, serving, web


def test_max_content_length(tmp_path):
    text = "LOAD MaxContentLength\n" + web(tmp_path, "ws", "MaxContentLength", "SET max_content_length = 3")
    with serving(text) as world:
        assert get(world, "ws", "/", "Content-Length: 4")[::2] == (
            413,
            b"<h1>413 - Content Too Large</h1>\nContent too long.\n",
        )
        assert get(world, "ws", "/", "Content-Length: 0")[0] == 200
        assert "  SET max_content_length = 3" in ask(world, "dumpconfig")
        configured("SET ws.max_content_length = 0", world)
        assert exchange(world, "ws", "GET / HTTP/1.0\r\nContent-Length: 4\r\n\r\nabcd").startswith(b"HTTP/1.0 200")


def test_the_limit_itself_is_not_too_large_and_without_the_plugin_there_is_none(tmp_path):
    text = "LOAD MaxContentLength\n" + web(tmp_path, "ws", "MaxContentLength", "SET max_content_length = 3")
    request = "GET / HTTP/1.0\r\nContent-Length: {}\r\n\r\n{}"
    with serving(text) as world:
        assert exchange(world, "ws", request.format(3, "abc")).startswith(b"HTTP/1.0 200 ")
        assert exchange(world, "ws", request.format(4, "abcd")).startswith(b"HTTP/1.0 413 ")
        assert get(world, "ws")[0] == 200  # it says nothing of a length
        configured("SET ws.plugins = none", world)
        assert exchange(world, "ws", request.format(4, "abcd")).startswith(b"HTTP/1.0 200 ")


def test_it_is_a_parameter_only_while_the_plugin_is_loaded(tmp_path):
    with serving("LOAD MaxContentLength\n" + web(tmp_path)) as world:
        assert ask(world, "SET ws.max_content_length = -1") == [
            "ERROR: Expecting integer value for parameter 'max_content_length'"
        ]
        configured("UNLOAD MaxContentLength", world)
        assert ask(world, "SET ws.max_content_length = 1") == ["ERROR: Unknown service parameter 'max_content_length'"]
