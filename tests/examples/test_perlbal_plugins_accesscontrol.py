"""AccessControl: who is refused, by which rule."""

from __future__ import annotations

import pytest

from perlbal_worlds import ask, configured, context, get, serving, web


def test_access_control(tmp_path):
    text = "LOAD AccessControl\n" + web(
        tmp_path, "ws", "AccessControl", "ACCESS policy deny", "ACCESS allow ip 127.0.0.9"
    )
    refused = (403, b"<h1>403 - Forbidden</h1>\nAccess denied.")
    with serving(text) as world:
        assert get(world, "ws")[::2] == refused
        configured("USE ws\nACCESS allow netmask 127.0.0.0/8\nACCESS deny ip 127.0.0.1", world)
        assert get(world, "ws")[0] == 200  # the first rule that matches
        assert [line for line in ask(world, "dumpconfig") if "ACCESS" in line] == [
            "  ACCESS ALLOW IP 127.0.0.9",
            "  ACCESS ALLOW NETMASK 127.0.0.0/8",
            "  ACCESS DENY IP 127.0.0.1",
            "  ACCESS POLICY DENY",
        ]
        configured("USE ws\nACCESS reset\nACCESS deny netmask 10.0.0.0/8\nSET ws.always_trusted = on", world)
        assert get(world, "ws", "/", "X-Forwarded-For: 10.1.1.1, 10.2.2.2")[0] == 200
        configured("SET ws.AccessControl.use_observed_ip = 1", world)
        assert get(world, "ws", "/", "X-Forwarded-For: 10.1.1.1")[::2] == refused
        assert get(world, "ws", "/", "X-Forwarded-For: no address")[0] == 200
        configured("USE ws\nACCESS reset\nACCESS queue_low ip 127.0.0.1", world)
        assert get(world, "ws")[0] == 200


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("access", "usage: ACCESS <cmd> <arg1> [<arg2>]"),
        ("access policy foo", "policy must be 'allow' or 'deny'"),
        ("access deny foo bar", "Unknown item to deny: 'foo'"),
        ("access queue_low", "Unknown item to queue_low: ''"),
        ("access deny netmask foo", "Error parsing netmask"),
        ("access deny netmask 10.0.0.0/99", "Error parsing netmask"),
    ],
)
def test_access_errors(line, error):
    world = configured("LOAD accesscontrol\nCREATE SERVICE s\nSET role = web_server")
    assert ask(world, line, context=context("s")) == [f"ERROR: {error}"]


@pytest.mark.parametrize(
    ("rules", "verbs"),
    [
        ("", ["allow", "allow", "allow", "allow"]),
        ("ACCESS policy deny", ["deny", "deny", "deny", "deny"]),
        ("ACCESS deny ip 10.0.0.1", ["deny", "allow", "allow", "allow"]),
        ("ACCESS deny netmask 10.0.0.0/8", ["deny", "deny", "allow", "allow"]),
        ("ACCESS deny netmask fe80::/10", ["allow", "allow", "deny", "allow"]),
        ("ACCESS allow ip 10.0.0.1\nACCESS deny netmask 10.0.0.0/8", ["allow", "deny", "allow", "allow"]),
        ("ACCESS deny netmask 10.0.0.0/8\nACCESS allow ip 10.0.0.1", ["deny", "deny", "allow", "allow"]),
        ("ACCESS queue_low netmask 10\nACCESS policy deny", ["queue_low", "queue_low", "deny", "deny"]),
        ("ACCESS policy deny\nACCESS policy allow", ["allow", "allow", "allow", "allow"]),
        ("ACCESS policy deny\nACCESS deny ip 10.0.0.1\nACCESS reset", ["allow", "allow", "allow", "allow"]),
    ],
)
def test_the_first_rule_that_matches_decides_and_then_the_policy(rules, verbs):
    """The last address is that of a client of a Unix socket, which has none."""
    world = configured(
        f"LOAD accesscontrol\nCREATE SERVICE s\nSET role = web_server\nSET plugins = accesscontrol\n{rules}"
    )
    access = world.plugins["accesscontrol"].states[world.services["s"]]
    assert [access.verb_for(address) for address in ("10.0.0.1", "10.9.9.9", "fe80::1", "")] == verbs


def test_who_waits_the_longest(proxied):
    world, _ = proxied
    service, seen = world.services["rp"], []

    def note(client):
        seen.append(service.run_hooks("make_low_priority", client))

    configured("USE rp\nSET rp.plugins = accesscontrol\nACCESS queue_low ip 127.0.0.1", world)
    service.register_hook("T", "start_proxy_request", note)
    assert get(world, "rp")[2] == b"hi"
    configured("USE rp\nACCESS reset\nACCESS queue_low ip 127.0.0.2", world)
    assert get(world, "rp")[2] == b"hi"
    assert seen == [True, False]


@pytest.mark.parametrize("word", ["0", "off", "no", "False"])
def test_what_clients_say_of_their_address_may_be_of_no_interest_again(tmp_path, word):
    lines = ["ACCESS deny ip 10.1.1.1", "SET always_trusted = on", "SET ws.AccessControl.use_observed_ip = on"]
    with serving("LOAD AccessControl\n" + web(tmp_path, "ws", "AccessControl", *lines)) as world:
        assert get(world, "ws", "/", "X-Forwarded-For: 10.1.1.1")[0] == 403
        configured(f"SET ws.AccessControl.use_observed_ip = {word}", world)
        assert get(world, "ws", "/", "X-Forwarded-For: 10.1.1.1")[0] == 200


def test_rules_need_a_service_and_end_with_the_plugin(tmp_path):
    with serving("LOAD AccessControl\n" + web(tmp_path, "ws", "AccessControl", "ACCESS policy deny")) as world:
        assert ask(world, "ACCESS reset") == [
            "ERROR: No service name in context from CREATE SERVICE <name> or USE <service_name>"
        ]
        assert ask(world, "ACCESS reset", context=context("gone")) == ["ERROR: Non-existent service 'gone'"]
        assert get(world, "ws")[0] == 403
        configured("SET ws.plugins = AccessControl", world)
        assert get(world, "ws")[0] == 200
