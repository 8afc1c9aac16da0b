"""The role web_server of perlbal: which methods it has, what plugins may take, and what the console shows."""

from __future__ import annotations

import pytest

from perlbal_talk import Talker, body, fields, get, served


@pytest.fixture
def service(loop, tmp_path):
    (tmp_path / "a.html").write_bytes(b"0123456789")
    with served(persist_client="on", docroot=tmp_path) as service:
        yield service


@pytest.fixture
def ask(loop, wires, run_turns, service):
    """`ask(path, *lines, method="GET")`: the response, on a connection of its own."""

    def ask(path, *lines, **options):
        return Talker(service, wires, run_turns, 1 << 20).ask(get(path, *lines, **options))

    return ask


@pytest.mark.parametrize("method", ["POST", "OPTIONS", "MKCOL", "get", "FOO"])
def test_other_methods_are_refused(ask, method):
    answer = ask("/a.html", method=method)
    assert answer.partition(b"\r\n\r\n")[2] == b"<h1>400 - Bad request</h1>\n"
    assert fields(answer)["connection"] == "keep-alive"


def test_a_service_without_docroot(loop, wires, run_turns):
    with served() as service:
        answer = Talker(service, wires, run_turns, 1 << 20).say(get())
        assert (fields(answer)["code"], body(answer)[-19:]) == ("500", b"Docroot unconfigured"[-19:])


def test_each_method_goes_its_way(ask, service, tmp_path):
    assert body(ask("/a.html")) == b"0123456789"
    answer = ask("/a.html", method="HEAD")
    assert (fields(answer)["content-length"], body(answer)) == ("10", b"")
    for method in "PUT", "DELETE":
        assert fields(ask("/a.html", "Content-Length: 0", method=method))["code"] == "403"
    service.set("enable_put", "on")
    service.set("enable_delete", "on")
    assert fields(ask("/new.txt", "Content-Length: 0", method="PUT"))["code"] == "200"
    assert (tmp_path / "new.txt").read_bytes() == b""
    assert fields(ask("/new.txt", method="DELETE"))["code"] == "204"
    assert not (tmp_path / "new.txt").exists()


def test_two_question_marks_ask_for_several_files(ask, service):
    answer = ask("/??a.html,a.html")
    assert fields(answer)["code"] == "403"
    assert body(answer).endswith(b"Multiple file serving isn't enabled")
    service.set("enable_concatenate_get", "on")
    assert body(ask("/??a.html,a.html")) == b"0123456789" * 2


HOOKS = ["start_web_request", "start_http_request", "start_serve_request"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "FOO"])
def test_the_order_in_which_plugins_are_asked(ask, service, method):
    """The last of them is asked for what is read from the disk alone."""
    asked = []
    for name in HOOKS:
        service.register_hook("T", name, lambda client, name=name: asked.append((name, client.head.method)))
    ask("/a.html", method=method)
    reads = method in ("GET", "HEAD")
    assert asked == [(name, method) for name in HOOKS[: 3 if reads else 2]]


@pytest.mark.parametrize("name", HOOKS)
def test_a_plugin_that_takes_over_is_the_last_that_is_asked(ask, service, name):
    asked = []
    for other in HOOKS:
        service.register_hook("T", other, lambda client, other=other: asked.append(other))
    service.register_hook("T", name, lambda client: client.error(503, "taken") or True)
    answer = ask("/a.html")
    assert (fields(answer)["code"], body(answer)) == ("503", b"<h1>503 - Service Unavailable</h1>\ntaken")
    assert answer.count(b"HTTP/1.0") == 1
    assert asked == HOOKS[: HOOKS.index(name) + 1]


def test_what_the_console_shows(service, tmp_path):
    assert service.role.describe() == ["  pend clients: 0", "  pend backend: 0", f"        docroot: {tmp_path}"]
