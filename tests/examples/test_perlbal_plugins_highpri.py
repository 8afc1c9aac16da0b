"""Highpri: which requests have high priority."""

from __future__ import annotations

import pytest

from perlbal_worlds import Asking, ask, configured


def test_high_priority():
    world = configured("LOAD highpri\nCREATE SERVICE s\nSET role = web_server\nSET plugins = highpri")
    service = world.services["s"]

    def is_high(uri, host=""):
        return service.run_hooks("make_high_priority", Asking(uri, host))

    assert is_high("/login.bml")
    assert not is_high("/login.bml?x")
    configured("SET s.highpri.uri_pattern = ^/fast\nSET s.HighPri.host_pattern = Vip", world)
    assert is_high("/faster")
    assert is_high("/", "a.Vip")
    assert not is_high("/", "a.vip")
    assert ask(world, "patterns") == [
        "High priority pattern buffer:",
        "SET s.highpri.uri_pattern = ^/fast",
        "SET s.highpri.host_pattern = Vip",
        ".",
    ]
    configured("SET s.highpri.uri_pattern = none", world)
    assert not is_high("/fast")
    assert ask(world, "SET s.highpri.uri_pattern = (") == ["ERROR: Invalid regular expression"]


@pytest.fixture
def service():
    return configured("LOAD highpri\nCREATE SERVICE s\nSET role = web_server\nSET plugins = highpri").services["s"]


@pytest.mark.parametrize(
    ("uri", "high"),
    [
        ("/interface/xmlrpc", True),
        ("/interface/flat", True),
        ("/login.bml", True),
        ("/loginxbml", False),
        ("/x/login.bml", False),
        ("/interface/flat/", False),
        ("/", False),
    ],
)
def test_the_default(service, uri, high):
    assert service.run_hooks("make_high_priority", Asking(uri, "any.com")) is high


@pytest.mark.parametrize("word", ["undef", "none", "null"])
@pytest.mark.parametrize("key", ["uri_pattern", "host_pattern"])
def test_there_may_be_no_pattern(service, word, key):
    configured(
        f"SET s.highpri.uri_pattern = u\nSET s.highpri.host_pattern = h\nSET s.highpri.{key} = {word}", service.world
    )
    is_high = [service.run_hooks("make_high_priority", Asking(*words)) for words in [("/u", "x"), ("/x", "h")]]
    assert is_high == [key != "uri_pattern", key != "host_pattern"]
    assert f"  SET s.highpri.{key} = undef" in ask(service.world, "dumpconfig")


def test_a_request_without_a_host_or_without_a_head_is_not_of_such_a_host(service):
    configured("SET s.highpri.host_pattern = .*", service.world)
    client = Asking("/", "")
    assert not service.run_hooks("make_high_priority", client)
    client.head = None
    assert not service.run_hooks("make_high_priority", client)


def test_what_is_no_pattern_changes_nothing_and_the_dump_makes_the_same_again(service):
    world = service.world
    configured("SET s.highpri.uri_pattern = ^/a=B", world)
    for key in "uri_pattern", "host_pattern":
        assert ask(world, f"SET s.highpri.{key} = [") == ["ERROR: Invalid regular expression"]
    lines = [line.strip() for line in ask(world, "dumpconfig") if "highpri" in line]
    assert lines == ["SET s.highpri.uri_pattern = ^/a=B", "SET s.highpri.host_pattern = undef"]
    configured("SET s.plugins = highpri", world)
    assert not service.run_hooks("make_high_priority", Asking("/a=B"))
    configured("\n".join(lines), world)
    assert service.run_hooks("make_high_priority", Asking("/a=B"))


def test_patterns_of_all_services_are_listed_and_none_is_left(service):
    world = service.world
    configured("CREATE SERVICE t\nSET role = web_server\nSET plugins = highpri", world)
    assert [line.partition(".")[0] for line in ask(world, "patterns")[1:-1]] == ["SET s", "SET s", "SET t", "SET t"]
    configured("SET s.plugins = none\nSET t.plugins = none", world)
    assert ask(world, "patterns") == ["High priority pattern buffer:", "."]
    configured("UNLOAD highpri", world)
    assert ask(world, "patterns") == ["ERROR: unknown command: patterns"]
