"""Redirect: who is sent elsewhere, and where to."""

from __future__ import annotations

from perlbal_worlds import ask, context, exchange, get, serving, web


def test_redirect(tmp_path):
    text = "LOAD redirect\n" + web(tmp_path, "ws", "redirect", "REDIRECT HOST *.Example.com www.Example.net")
    with serving(text) as world:
        assert exchange(world, "ws", "GET /a?b=C HTTP/1.0\r\nHost: X.example.COM:81\r\n\r\n") == (
            b"HTTP/1.0 301 Permanent Redirect\r\nLocation: http://www.example.net/a?b=C\r\nContent-Length: 0\r\n"
            b"Server: Perlbal\r\nConnection: close\r\n\r\n"
        )
        assert get(world, "ws", "/", "Host: else.com")[2] == b"hello\n"
        assert "  REDIRECT HOST *.example.com www.example.net" in ask(world, "dumpconfig")
        assert ask(world, "REDIRECT HOST a b") == [
            "ERROR: No service name in context from CREATE SERVICE <name> or USE <service_name>"
        ]
        assert ask(world, "REDIRECT HOST a") == ["ERROR: usage: REDIRECT HOST <match_host> <target_host>"]
        assert ask(world, "REDIRECT HOST a b", context=context("ws")) == ["OK"]
