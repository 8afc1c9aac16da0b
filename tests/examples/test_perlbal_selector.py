"""The role selector of perlbal: how requests get to other services, whoever chooses."""

from __future__ import annotations

import pytest

import dangagreen as d
from perlbal.language import CommandError
from perlbal.selector import NotFound, host_patterns, selector_of
from perlbal_worlds import ask, configured, exchange, get


def test_what_may_stand_for_a_host():
    assert list(host_patterns("A.b.Com.:80")) == ["a.b.com", "*.a.b.com", "*.b.com", "*.com", "*"]
    assert list(host_patterns("")) == ["*"]
    assert list(host_patterns("x")) == ["x", "*.x", "*"]


def test_a_selecting_plugin_is_for_selectors():
    world = configured("LOAD vhosts\nLOAD vpaths\nCREATE SERVICE s\nSET role = web_server")
    for name in "vhost", "vpath":
        assert ask(world, f"SET s.plugins = {name}s") == [
            f"ERROR: You can't load the {name} plugin on a service not of role selector."
        ]
    assert world.services["s"].plugins == []


def test_a_default_service_gets_what_is_not_mapped_and_answers_once(selector):
    configured("SET sel.default_service = two", selector)
    assert exchange(selector, "sel", "GET / HTTP/1.0\r\nHost: else\r\n\r\n").count(b"HTTP/1.0") == 1
    assert get(selector, "sel", "/", "Host: else")[2] == b"two"
    assert get(selector, "sel", "/", "Host: a.com")[2] == b"one"


def test_a_kept_connection_is_back_at_the_selector_after_each_response(selector):
    configured("SET sel.persist_client = on\nSET one.persist_client = on", selector)
    requests = [f"GET / HTTP/1.0\r\nHost: {host}\r\nConnection: keep-alive\r\n\r\n" for host in ("a.com", "b.com")]
    back = []
    selector.services["sel"].register_hook("T", "return_to_base", lambda client: back.append(client.target.name))
    answer = exchange(selector, "sel", *requests, "GET / HTTP/1.0\r\nHost: a.com\r\n\r\n")
    assert back == ["one", "two"]
    assert [body[-3:] for body in answer.split(b"HTTP/1.0 200 OK")[1:]] == [b"one", b"two", b"one"]


def test_latency(selector):
    configured("SET sel.latency = 30", selector)
    begun = d.current_loop().clock()
    assert get(selector, "sel", "/", "Host: a.com")[2] == b"one"
    assert d.current_loop().clock() - begun >= 0.03
    with d.connect(selector.services["sel"].listener.address) as sock:  # leaves before
        sock.write_all(b"GET / HTTP/1.0\r\nHost: a.com\r\n\r\n")
    assert get(selector, "sel", "/", "Host: a.com")[2] == b"one"


def test_no_selecting_plugin(selector):
    configured("UNLOAD vhosts", selector)
    assert get(selector, "sel")[::2] == (
        500,
        b"<h1>500 - Internal Server Error</h1>\nNo service selector configured.",
    )


def test_header_edits_of_a_selector(selector):
    seen = []
    selector.services["one"].register_hook("T", "start_web_request", lambda client: seen.append(client.head.get("x-a")))
    configured("HEADER sel INSERT X-A: b", selector)
    get(selector, "sel", "/", "Host: a.com")
    assert seen == ["b"]


def test_a_selector_may_have_another_one_answer(selector):
    text = "CREATE SERVICE outer\nSET role = selector\nSET listen = 127.0.0.1:0\nSET default_service = sel"
    configured(f"{text}\nLOAD vpaths\nSET plugins = vpaths\nENABLE outer", selector)
    assert get(selector, "outer", "/", "Host: a.com")[2] == b"one"
    assert get(selector, "outer", "/", "Host: b.com")[2] == b"two"
    assert get(selector, "outer", "/", "Host: else")[0] == 404


def test_a_service_that_takes_no_requests(selector):
    configured("SET sel.default_service = mgmt\nCREATE SERVICE bare", selector)
    assert get(selector, "sel")[::2] == (
        500,
        b"<h1>500 - Internal Server Error</h1>\nCan't map to service type management",
    )
    configured("SET sel.default_service = bare", selector)
    assert get(selector, "sel")[2].endswith(b"Can't map to service type ")


def test_a_plugin_that_finds_nothing_at_all_hides_the_default_service(selector):
    """By NotFound it says so itself; by None the default is asked."""

    def choose(head):
        if head.uri == "/none":
            raise NotFound("nothing here")

    configured("SET sel.default_service = one", selector)
    selector.services["sel"].role.choose = choose
    assert get(selector, "sel", "/none")[::2] == (404, b"<h1>404 - Not Found</h1>\nnothing here")
    assert get(selector, "sel", "/")[2] == b"one"


def test_a_plugin_may_answer_before_any_service_is_chosen(selector):
    service, chosen = selector.services["sel"], []
    choose = service.role.choose
    service.role.choose = lambda head: chosen.append(head.uri) or choose(head)
    service.register_hook(
        "T", "start_http_request", lambda client: client.head.uri == "/x" and (client.error(503) or 1)
    )
    assert get(selector, "sel", "/x", "Host: a.com")[0] == 503
    assert get(selector, "sel", "/", "Host: a.com")[0] == 200
    assert chosen == ["/"]


@pytest.mark.parametrize("host", ["a.com", "A.COM", "a.com.", "a.com:80", "a.com.:80"])
def test_a_host_is_looked_up_in_one_form(host):
    assert next(host_patterns(host)) == "a.com"


def test_the_role_of_a_selecting_plugin(selector):
    assert selector_of(selector.services["sel"], "x").name == "selector"
    for name in "one", "mgmt":
        with pytest.raises(CommandError) as caught:
            selector_of(selector.services[name], "x")
        assert str(caught.value) == "You can't load the x plugin on a service not of role selector."


def test_it_does_not_answer_by_itself(selector):
    configured("SET sel.default_service = sel", selector)
    assert get(selector, "sel")[::2] == (
        500,
        b"<h1>500 - Internal Server Error</h1>\nCan't map to service type selector",
    )
