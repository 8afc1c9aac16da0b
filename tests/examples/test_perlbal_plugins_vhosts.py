"""Vhosts: which service a Host header chooses."""

from __future__ import annotations

import pytest

from perlbal_worlds import ask, configured, get


@pytest.mark.parametrize(
    ("host", "code", "body"),
    [
        ("a.com", 200, b"one"),
        ("A.Com.", 200, b"one"),
        ("a.com:8080", 200, b"one"),
        ("b.com", 200, b"two"),
        ("x.y.b.com", 200, b"two"),
        ("ab.com", 404, b"<h1>404 - Not Found</h1>\nNot Found (no configured vhost)"),
        ("gone.com", 404, b"<h1>404 - Not Found</h1>\nNot Found (no configured vhost)"),
        ("m.com", 500, b"<h1>500 - Internal Server Error</h1>\nCan't map to service type management"),
        ("s.com", 500, b"<h1>500 - Internal Server Error</h1>\nCan't map to service type selector"),
        ("", 404, b"<h1>404 - Not Found</h1>\nNot Found (no configured vhost)"),
    ],
)
def test_vhosts(selector, host, code, body):
    assert get(selector, "sel", "/", f"Host: {host}")[::2] == (code, body)


def test_another_host_than_the_one_that_was_asked(selector):
    path = "/__using/y.com/index"
    assert get(selector, "sel", path, "Host: x.com")[0] == 404  # of the service
    code, _, body = get(selector, "sel", path, "Host: z.com")
    assert (code, body) == (404, b"<h1>404 - Not Found</h1>\nVhost twiddling not configured for requested pair.")


def test_setting_the_plugins_anew_empties_the_map(selector):
    assert "  VHOST a.com = one" in ask(selector, "dumpconfig")
    configured("SET sel.plugins = vhosts", selector)
    assert get(selector, "sel", "/", "Host: a.com")[0] == 404


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("vhost sel foo", "usage: VHOST [<service>] <host_or_pattern> = <dest_service>"),
        ("vhost one foo.com = two", "Service 'one' is not a selector service"),
        ("vhost none foo.com = two", "Service 'none' is not a selector service"),
        ("vhost sel f@oo = two", "invalid host pattern: 'f@oo'"),
        ("vhost foo.com = two", "omitted service name not implied from context"),
    ],
)
def test_vhost_errors(selector, line, error):
    assert ask(selector, line) == [f"ERROR: {error}"]


def test_the_closest_pattern_decides(selector):
    configured("VHOST sel * = two\nVHOST sel *.x.com = one\nVHOST sel y.x.com = two", selector)
    hosts = {"y.x.com": b"two", "z.x.com": b"one", "a.y.x.com": b"one", "else": b"two", "": b"two"}
    assert {host: get(selector, "sel", "/", f"Host: {host}")[2] for host in hosts} == hosts


def test_the_service_of_another_host_sees_that_one(selector):
    seen = []
    selector.services["one"].register_hook("T", "start_web_request", lambda client: seen.append(client.head.host))
    get(selector, "sel", "/__using/Y.com/index?a=b", "Host: X.com")
    get(selector, "sel", "/__using/y.com/", "Host: a.com")  # not of the form: a path like others
    assert seen == ["Y.com", "a.com"]


def test_the_last_word_on_a_host_counts_and_its_dump_makes_it_again(selector):
    configured("USE sel\nVHOST a.com = two", selector)
    assert get(selector, "sel", "/", "Host: a.com")[2] == b"two"
    lines = [line.strip() for line in ask(selector, "dumpconfig") if "VHOST" in line]
    assert "VHOST x.com;using:y.com = one" in lines
    configured("SET sel.plugins = vhosts\n" + "\n".join(["USE sel", *lines]), selector)
    assert [line.strip() for line in ask(selector, "dumpconfig") if "VHOST" in line] == lines
    assert get(selector, "sel", "/", "Host: a.com")[2] == b"two"


def test_a_service_that_comes_later_is_found(selector):
    configured("CREATE SERVICE gone\nSET role = selector", selector)
    assert get(selector, "sel", "/", "Host: gone.com")[2].endswith(b"No service selector configured.")


def test_vhost_is_a_word_only_while_the_plugin_is_loaded(selector):
    configured("UNLOAD vhosts", selector)
    assert ask(selector, "VHOST sel a.com = one") == ["ERROR: unknown command: vhost"]
