"""Redirect: who is sent elsewhere, and where to."""

from __future__ import annotations

from perlbal_worlds import ask, configured, context, exchange, get, serving, web


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


def test_the_closest_host_decides(tmp_path):
    lines = ["REDIRECT HOST * far.net", "REDIRECT HOST *.a.com near.net", "REDIRECT HOST b.a.com own.net:8080"]
    with serving("LOAD redirect\n" + web(tmp_path, "ws", "redirect", *lines)) as world:
        targets = {"b.a.com": "own.net:8080", "c.a.com": "near.net", "a.com": "near.net", "else": "far.net"}
        for host, target in targets.items():
            code, fields, body = get(world, "ws", "/x", f"Host: {host}")
            assert (code, fields["Location"], body) == (301, f"http://{target}/x", b"")
        assert get(world, "ws")[1]["Location"] == "http://far.net/"  # HTTP/1.0 needs no Host


def test_a_kept_connection_is_redirected_again(tmp_path):
    lines = ["REDIRECT HOST a b", "SET persist_client = on", "SET server_tokens = off"]
    with serving("LOAD redirect\n" + web(tmp_path, "ws", "redirect", *lines)) as world:
        request = "GET /{} HTTP/1.0\r\nHost: a\r\nConnection: {}\r\n\r\n"
        answer = exchange(world, "ws", request.format(1, "keep-alive"), request.format(2, "close"))
        assert answer.count(b"HTTP/1.0 301 Permanent Redirect\r\n") == 2
        assert b"http://b/1\r\n" in answer
        assert answer.endswith(
            b"HTTP/1.0 301 Permanent Redirect\r\nLocation: http://b/2\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )


def test_setting_the_plugins_anew_empties_the_map(tmp_path):
    with serving("LOAD redirect\n" + web(tmp_path, "ws", "redirect", "REDIRECT HOST a b")) as world:
        assert get(world, "ws", "/", "Host: a")[0] == 301
        configured("SET ws.plugins = redirect", world)
        assert get(world, "ws", "/", "Host: a")[0] == 200
        configured("UNLOAD redirect", world)
        assert ask(world, "REDIRECT HOST a b", context=context("ws")) == ["ERROR: unknown command: redirect"]
        assert get(world, "ws", "/", "Host: a")[0] == 200


def test_a_service_that_is_not_there():
    world = configured("LOAD redirect")
    assert ask(world, "REDIRECT HOST a b", context=context("gone")) == ["ERROR: Non-existent service 'gone'"]
