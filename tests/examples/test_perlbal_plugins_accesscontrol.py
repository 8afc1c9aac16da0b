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
