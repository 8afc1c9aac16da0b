"""LazyCDN: what is handed to another service, and who is told."""

from __future__ import annotations

import os
import socket

import pytest

import dangagreen as d
from perlbal_worlds import ask, configured, exchange, get, serving, web

NEW, OLD = 2_000_000_000, 1_000_000_000  # seconds since 1970


@pytest.fixture
def told():
    """A socket that hears of what was asked for in vain, and the configuration for that."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        yield sock


def heard(sock):
    """The datagrams that have come."""
    found = []
    while True:
        try:
            found.append(sock.recv(9999))
        except BlockingIOError:
            return found


@pytest.fixture
def world(tmp_path, told):
    """A web server with an old file, and one with newer ones, to which it falls back."""
    for name in "edge", "home":
        (tmp_path / name / "css").mkdir(parents=True)
    for name, text in ("index.html", "old"), ("css/a.css", "old a"):
        path = tmp_path / "edge" / name
        path.write_text(text)
    lines = (
        "SET fallback_service = home",
        f"SET fallback_udp_ping_addr = 127.0.0.1:{told.getsockname()[1]}",
        "SET enable_concatenate_get = on",
    )
    text = "\n".join(
        [
            "LOAD lazycdn",
            "SERVER aio_mode = none",
            web(tmp_path / "home", "home", "none", "SET enable_concatenate_get = on"),
            web(tmp_path / "edge", "edge", "lazycdn", *lines),
        ]
    )
    (tmp_path / "home" / "only.html").write_text("only at home")
    for name in "css/a.css", "css/b.css":
        (tmp_path / "home" / name).write_text(f"new {name}")
    for name in "index.html", "css/a.css":
        os.utime(tmp_path / "edge" / name, (OLD, OLD))
    (tmp_path / "home" / "index.html").write_text("new")
    with serving(text) as world:
        yield world


@pytest.mark.parametrize(
    ("uri", "body"),
    [
        ("/index.html", b"hello\n"),
        (f"/index.html?v={OLD}", b"hello\n"),
        (f"/index.html?v={OLD - 1}&x=1", b"hello\n"),
        (f"/index.html?av={NEW}", b"hello\n"),
        (f"/index.html?v={NEW}x", b"hello\n"),
        ("/index.html?v=", b"hello\n"),
        ("/css/??a.css", b"old a"),
        (f"/css/??a.css?v={OLD}", b"old a"),
    ],
)
def test_what_is_new_enough_is_answered_here(world, told, uri, body):
    assert get(world, "edge", uri)[::2] == (200, body)
    assert heard(told) == []


@pytest.mark.parametrize(
    ("uri", "body"),
    [
        (f"/index.html?v={OLD + 1}", b"new"),
        (f"/index.html?x=1&v={NEW}", b"new"),
        (f"/index.html?v=00{NEW}", b"new"),
        ("/only.html", b"only at home"),
        ("/only.html?v=1", b"only at home"),
        (f"/css/??a.css?v={NEW}", b"new css/a.css"),
        ("/css/??a.css,b.css", b"new css/a.cssnew css/b.css"),
    ],
)
def test_what_is_missing_or_too_old_the_other_service_answers(world, told, uri, body):
    assert get(world, "edge", uri)[::2] == (200, body)
    assert heard(told) == [uri.encode()]


def test_what_is_nowhere_is_not_found(world, told):
    assert get(world, "edge", "/none")[0] == 404
    assert heard(told) == [b"/none"]


def test_a_range_and_a_copy_that_is_right_are_answered_here(world, told):
    """As the original does it, which looks at neither."""
    uri = f"/index.html?v={NEW}"
    assert get(world, "edge", uri, "Range: bytes=0-1")[::2] == (206, b"he")
    modified = get(world, "edge", "/index.html")[1]["Last-Modified"]
    assert get(world, "edge", uri, f"If-Modified-Since: {modified}")[0] == 304
    assert heard(told) == []


def test_a_connection_is_kept_and_belongs_to_its_own_service(world):
    configured("SET edge.persist_client = on\nSET home.persist_client = on", world)
    ask_for = "GET {} HTTP/1.1\r\nHost: example\r\n{}\r\n"
    both = ask_for.format("/only.html", "") + ask_for.format("/index.html", "Connection: close\r\n")
    heads = exchange(world, "edge", both)
    assert heads.count(b"HTTP/1.0 200 OK") + heads.count(b"HTTP/1.1 200 OK") == 2
    assert heads.index(b"only at home") < heads.index(b"hello\n")


@pytest.mark.parametrize("target", ["nobody", "mgmt", "edge"])
def test_without_a_service_that_may_answer_it_is_as_without_the_plugin(world, told, target):
    configured(f"CREATE SERVICE mgmt\nSET role = management\nSET edge.fallback_service = {target}", world)
    assert get(world, "edge", "/only.html")[0] == 404
    assert get(world, "edge", f"/index.html?v={NEW}")[::2] == (200, b"hello\n")
    assert heard(told) == []


def test_two_that_fall_back_on_each_other_do_not_go_round_in_circles(world, told):
    configured("SET home.plugins = lazycdn\nSET home.fallback_service = edge", world)
    for _ in range(2):
        assert get(world, "edge", "/none")[0] == 404
        assert get(world, "home", "/none")[0] == 404
        assert get(world, "edge", "/only.html")[::2] == (200, b"only at home")
    assert heard(told) == [b"/none", b"/only.html"] * 2


def test_nobody_need_be_told_nor_listen(world, told):
    configured("SET edge.fallback_udp_ping_addr = 127.0.0.1:9", world)  # an ICMP error comes back
    for _ in range(3):
        assert get(world, "edge", "/only.html")[::2] == (200, b"only at home")
    assert heard(told) == []


def test_parameters_of_a_web_server_while_the_plugin_is_loaded(world):
    assert ask(world, "SET edge.fallback_udp_ping_addr = x") == ["ERROR: Expecting IP:port of form a.b.c.d:port."]
    configured("CREATE SERVICE rp\nSET role = reverse_proxy", world)
    for key in "fallback_service", "fallback_udp_ping_addr":
        refusal = f"ERROR: The '{key}' option can only be set on a 'web_server' service"
        assert ask(world, f"SET rp.{key} = 127.0.0.1:5") == [refusal]
    configured("SET edge.fallback_udp_ping_addr = 127.0.0.1:5", world)
    lines = ask(world, "dumpconfig")
    assert "  SET fallback_service = home" in lines
    assert "  SET fallback_udp_ping_addr = 127.0.0.1:5" in lines
    configured("UNLOAD lazycdn", world)
    assert ask(world, "SET edge.fallback_service = home") == ["ERROR: Unknown service parameter 'fallback_service'"]
    assert get(world, "edge", "/only.html")[0] == 404


def test_threads_may_look_for_the_files(world, told):
    configured("SERVER aio_mode = ioaio", world)
    assert get(world, "edge", "/only.html")[::2] == (200, b"only at home")
    assert get(world, "edge", f"/css/??a.css?v={NEW}")[::2] == (200, b"new css/a.css")
    assert heard(told) == [b"/only.html", f"/css/??a.css?v={NEW}".encode()]
    assert d.Socket.watched_sockets() > 0
