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
