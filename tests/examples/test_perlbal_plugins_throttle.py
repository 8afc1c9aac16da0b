"""Throttle: who is let through, who waits and for how long, and who is refused."""

from __future__ import annotations

import pytest

import dangagreen as d
from perlbal_worlds import Asking, ask, configured, context, get


class Asker(Asking):
    """A client with an address, which notes how it was answered."""

    def __init__(self, loop, address="1.2.3.4", uri="/", method="GET"):
        super().__init__(uri)
        self.loop, self.address, self.method = loop, address, method
        self.exchange, self.paused, self.answers = None, False, []

    def peer_ip_string(self):
        return self.address

    def get(self, name):
        return ""

    def error(self, code, text=""):
        self.answers.append((code, text))

    def close(self, reason):
        self.answers.append(reason)


@pytest.fixture
def throttled(loop):
    """A service with Throttle, on a virtual clock."""
    world = configured("LOAD throttle\nCREATE SERVICE s\nSET role = web_server\nSET plugins = throttle")
    service = world.services["s"]
    service.role.begin = lambda client, head: None if ask_once(service, client) else client.answers.append("passed")
    return world, service, loop


def ask_once(service, client):
    return service.run_hooks("start_proxy_request", client)


def leave(client):
    """The client leaves while it waits, if it does."""
    if client.exchange is not None:
        client.exchange.gone(client)


def end(service, client):
    service.run_all_hooks("end_proxy_request", client)


def end_all(service):
    settings = service.world.plugins["throttle"].settings[service]
    for client in list(settings.counted):
        end(service, client)


def test_a_first_request_passes_and_one_too_soon_is_delayed(throttled):
    _, service, loop = throttled
    first, second = Asker(loop), Asker(loop)
    assert not ask_once(service, first)
    end(service, first)
    assert ask_once(service, second)
    d.sleep(2.9)
    assert second.answers == []
    d.sleep(0.2)
    assert second.answers == ["passed"]
    end(service, second)
    d.sleep(61)
    assert not ask_once(service, Asker(loop))


def test_the_delay_doubles_up_to_the_limit(throttled):
    world, service, loop = throttled
    configured("SET s.max_delay = 10", world)
    assert not ask_once(service, Asker(loop))
    seen = []
    for _ in range(4):
        end_all(service)
        client = Asker(loop)
        begun = loop.clock()
        assert ask_once(service, client)
        while not client.answers:
            d.sleep(0.5)
        seen.append(round(loop.clock() - begun))
    assert seen == [3, 6, 10, 10]


def test_too_many_at_a_time(throttled):
    world, service, loop = throttled
    configured("SET s.default_action = allow", world)
    running = [Asker(loop) for _ in range(3)]
    assert [ask_once(service, client) for client in running] == [False, False, True]
    assert running[2].answers == [(403, "Forbidden.\n")]
    end(service, running[0])
    end(service, running[0])
    assert not ask_once(service, Asker(loop))
    assert ask_once(service, Asker(loop))
    assert not ask_once(service, Asker(loop, address="1.2.3.5"))


def test_a_client_that_leaves_while_it_waits_is_not_counted(throttled):
    _, service, loop = throttled
    ask_once(service, first := Asker(loop))
    end(service, first)
    for _ in range(5):
        client = Asker(loop)
        assert ask_once(service, client)
        assert client.answers == []
        client.exchange.gone(client)


def test_bans(throttled):
    world, service, loop = throttled
    configured("SET s.ban_threshold = 1\nSET s.ban_expiration = 100", world)
    for _ in range(2):
        client = Asker(loop)
        ask_once(service, client)
        end(service, client)
    assert client.answers == ["its address was banned"]
    client = Asker(loop)
    assert ask_once(service, client)
    assert client.answers == [(403, "Forbidden.\n")]
    d.sleep(101)
    assert not ask_once(service, Asker(loop))


def test_only_some_methods_and_paths(throttled):
    world, service, loop = throttled
    configured("SET s.path_regex = ^/slow\nSET s.method_regex = ^POST$\nUSE s\nTHROTTLE reload config", world)

    def waits(**options):
        ask_once(service, client := Asker(loop, **options))
        end(service, client)
        ask_once(service, client := Asker(loop, **options))
        end(service, client)
        delayed = client.exchange is not None
        leave(client)
        return delayed

    assert not waits(uri="/fast", method="POST")
    assert not waits(uri="/slow", method="GET")
    assert waits(uri="/slow", method="POST")
    assert ask(world, "SET s.path_regex = (", "USE s", "THROTTLE reload config")[-1] == (
        "ERROR: invalid regular expression: '('"
    )


def test_lists(throttled, tmp_path):
    world, service, loop = throttled
    (tmp_path / "white").write_text("# us\n10.0.0.0/8\n\n1.1.1.1 # and me\n")
    (tmp_path / "black").write_text("10.0.0.1\n6.6.6.0/24\n")
    configured(
        f"SET s.whitelist_file = {tmp_path}/white\nSET s.blacklist_file = {tmp_path}/black\nSET s.plugins = throttle",
        world,
    )

    def asked(address):
        ask_once(service, client := Asker(loop, address=address))
        end(service, client)
        return client.answers

    assert asked("10.0.0.1") == asked("10.0.0.1") == asked("1.1.1.1") == []
    assert asked("6.6.6.6") == [(403, "Forbidden.\n")]
    configured("SET s.log_only = on", world)
    assert asked("6.6.6.6") == []
    (tmp_path / "black").write_text("7.7.7.7\n")
    configured("SET s.log_only = off\nUSE s\nTHROTTLE reload blacklist\nTHROTTLE reload whitelist", world)
    assert asked("6.6.6.6") == []
    assert asked("7.7.7.7") == [(403, "Forbidden.\n")]
    (tmp_path / "black").write_text("nonsense\n")
    (answer,) = ask(world, "THROTTLE reload blacklist", context=context("s"))
    assert answer.startswith(f"ERROR: Couldn't load {tmp_path}/black: ")
    assert asked("7.7.7.7") == [(403, "Forbidden.\n")]


def test_throttle_errors(throttled):
    world, _, _ = throttled
    assert ask(world, "throttle x") == ["ERROR: usage: throttle reload <config|whitelist|blacklist>"]
    assert ask(world, "throttle reload config") == [
        "ERROR: No service name set. This command must be used after CREATE SERVICE <name> or USE <service_name>"
    ]
    assert ask(world, "throttle reload whitelist", context=context("s")) == ["ERROR: no whitelist file configured"]


def test_services_with_one_instance_name_share_what_they_know(throttled):
    world, service, loop = throttled
    configured("CREATE SERVICE t\nSET role = web_server\nSET plugins = throttle", world)
    configured("CREATE SERVICE u\nSET role = web_server\nSET instance_name = Other\nSET plugins = throttle", world)
    assert not ask_once(service, Asker(loop))
    client = Asker(loop)
    assert ask_once(world.services["t"], client)
    leave(client)
    assert not ask_once(world.services["u"], Asker(loop))


def test_throttling_of_a_proxy(proxied):
    """Requests that are over are not counted, however they ended; one that waits is served when its time has come."""
    world, requests = proxied
    configured("SET rp.plugins = throttle\nSET rp.default_action = allow\nSET rp.max_concurrent = 1", world)
    for _ in range(3):
        assert get(world, "rp")[2] == b"hi"
    configured("USE rp\nSET rp.plugins = accesscontrol throttle\nACCESS policy deny", world)
    for _ in range(3):
        assert get(world, "rp")[0] == 403
        assert "Access denied." in get(world, "rp")[2].decode()
    configured("SET rp.plugins = throttle\nSET rp.default_action = throttle\nSET rp.initial_delay = 1", world)
    begun = d.current_loop().clock()
    assert [get(world, "rp")[2] for _ in range(2)] == [b"hi", b"hi"]
    assert d.current_loop().clock() - begun >= 1
    assert world.plugins["throttle"].settings[world.services["rp"]].counted == {}
    assert len(requests) == 5
