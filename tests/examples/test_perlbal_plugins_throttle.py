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
    settings = service.world.plugins["throttle"].states[service]
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
    assert world.plugins["throttle"].states[world.services["rp"]].counted == {}
    assert len(requests) == 5


def twice(service, loop, **options):
    """The second of two requests of an address, of which the first is over."""
    for _ in range(2):
        ask_once(service, client := Asker(loop, **options))
        end(service, client)
    return client


@pytest.mark.parametrize(
    ("lines", "answers", "waits"),
    [
        ("", [], True),
        ("SET s.default_action = allow", [], False),
        ("SET s.log_only = on", [], False),
        ("SET s.initial_delay = 0", [], False),
        ("SET s.throttle_threshold_seconds = 0", [], False),
        ("SET s.max_concurrent = 0", [(403, "Forbidden.\n")], False),
        ("SET s.ban_threshold = 1", ["its address was banned"], False),
        ("SET s.ban_threshold = 2", [], True),
        ("SET s.ban_threshold = 1\nSET s.log_only = on", [], False),
        ("SET s.blacklist_file = {list}", [(403, "Forbidden.\n")], False),
        ("SET s.blacklist_file = {list}\nSET s.blacklist_action = throttle", [], True),
        ("SET s.blacklist_file = {list}\nSET s.blacklist_action = throttle\nSET s.default_action = allow", [], True),
        ("SET s.blacklist_file = {list}\nSET s.whitelist_file = {list}", [], False),
        ("SET s.whitelist_file = {list}\nSET s.max_concurrent = 0", [], False),
        ("SET s.blacklist_file = {list}\nSET s.path_regex = ^/else", [(403, "Forbidden.\n")], False),
    ],
)
def test_what_becomes_of_a_second_request(throttled, tmp_path, lines, answers, waits):
    """Lists go before bans, these before the number of requests, and that before patterns."""
    world, service, loop = throttled
    (tmp_path / "list").write_text("1.2.3.0/24\n")
    configured(f"{lines.format(list=tmp_path / 'list')}\nSET s.plugins = throttle", world)
    client = twice(service, loop)
    assert (client.answers, client.exchange is not None) == (answers, waits)
    leave(client)


def test_a_ban_goes_before_the_blacklist_and_a_whitelist_before_the_ban(throttled, tmp_path):
    world, service, loop = throttled
    (tmp_path / "list").write_text("1.2.3.4\n")
    configured("SET s.ban_threshold = 1\nSET s.ban_expiration = 100", world)
    assert twice(service, loop).answers == ["its address was banned"]
    configured(f"SET s.blacklist_file = {tmp_path}/list\nSET s.blacklist_action = throttle", world)
    configured("USE s\nTHROTTLE reload blacklist", world)
    ask_once(service, client := Asker(loop))
    assert client.answers == [(403, "Forbidden.\n")]
    configured(f"SET s.whitelist_file = {tmp_path}/list\nUSE s\nTHROTTLE reload whitelist", world)
    assert not ask_once(service, Asker(loop))


@pytest.mark.parametrize(("seconds", "waits"), [(59, True), (61, False)])
def test_what_is_too_soon(throttled, seconds, waits):
    _, service, loop = throttled
    ask_once(service, first := Asker(loop))
    end(service, first)
    d.sleep(seconds)
    client = Asker(loop)
    assert ask_once(service, client) is waits
    leave(client)


def test_addresses_have_nothing_to_do_with_each_other(throttled):
    _, service, loop = throttled
    assert not ask_once(service, Asker(loop))
    assert not ask_once(service, Asker(loop, address="1.2.3.5"))
    client = Asker(loop)
    assert ask_once(service, client)
    leave(client)


@pytest.mark.parametrize(
    ("events", "logged"),
    [
        ("all", ["Throttling 1.2.3.4 for 3: /", "Banning 1.2.3.4 for 60s: /", "Denying banned IP 1.2.3.4"]),
        ("none", []),
        ("ban", ["Banning 1.2.3.4 for 60s: /"]),
        ("Banned, throttled", ["Throttling 1.2.3.4 for 3: /", "Denying banned IP 1.2.3.4"]),
        ("ban none", []),
    ],
)
def test_what_is_logged(throttled, caplog, events, logged):
    world, service, loop = throttled
    caplog.set_level("INFO", "perlbal")
    configured(f"SET s.ban_threshold = 2\nSET s.log_events = {events}\nUSE s\nTHROTTLE reload config", world)
    for _ in range(4):
        ask_once(service, client := Asker(loop))
        leave(client)
        end(service, client)
    assert [record.getMessage() for record in caplog.records] == logged


def test_the_end_of_a_ban_is_logged(throttled, caplog):
    world, service, loop = throttled
    configured("SET s.ban_threshold = 1\nSET s.ban_expiration = 10", world)
    twice(service, loop)
    d.sleep(11)
    caplog.set_level("INFO", "perlbal")
    ask_once(service, client := Asker(loop))
    leave(client)
    assert "Unbanning 1.2.3.4" in caplog.text


def test_who_is_of_no_effect_any_more_is_forgotten(throttled, monkeypatch):
    """As soon as there are too many addresses."""
    world, service, loop = throttled
    monkeypatch.setattr("perlbal.plugins.throttle.KEPT", 3)
    known = world.plugins["throttle"].states[service].known
    for number in range(3):
        assert not ask_once(service, Asker(loop, address=f"1.0.0.{number}"))
    known.banned["9.9.9.9"] = loop.clock() + 1
    assert len(known.seen) == 3
    d.sleep(30)
    assert not ask_once(service, Asker(loop, address="1.0.0.3"))
    assert len(known.seen) == 4  # all of them count still
    assert known.banned == {}
    d.sleep(31)
    assert not ask_once(service, Asker(loop, address="1.0.0.4"))
    assert sorted(known.seen) == ["1.0.0.3", "1.0.0.4"]


def test_the_observed_address_counts_where_a_client_is_trusted(throttled):
    world, service, loop = throttled
    configured("SET s.always_trusted = on", world)

    class Forwarded(Asker):
        def get(self, name):
            return self.forwarded if name == "x-forwarded-for" else ""

    for forwarded, waits in [("7.7.7.7", False), ("7.7.7.8", False), ("7.7.7.7, 1.1.1.1", True)]:
        client = Forwarded(loop)
        client.forwarded = forwarded
        assert ask_once(service, client) is waits
        end(service, client)
        leave(client)


def test_a_request_without_a_head_is_none_to_throttle(throttled):
    _, service, loop = throttled
    for _ in range(3):
        client = Asker(loop)
        client.head = None
        assert not ask_once(service, client)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("SET s.default_action = deny", "Value of 'default_action' must be one of: throttle, allow"),
        ("SET s.blacklist_action = allow", "Value of 'blacklist_action' must be one of: deny, throttle"),
        ("SET s.initial_delay = .5", "Expecting integer value for parameter 'initial_delay'"),
        ("SET s.log_only = maybe", "Expecting boolean value for parameter 'log_only'"),
        ("SET s.whitelist_file = /nope", "File '/nope' not found for 'whitelist_file'"),
    ],
)
def test_parameters_that_are_none(throttled, line, error):
    assert ask(throttled[0], line) == [f"ERROR: {error}"]


@pytest.mark.parametrize(
    ("line", "name", "error"),
    [
        ("throttle", "s", "usage: throttle reload <config|whitelist|blacklist>"),
        ("throttle reload", "s", "usage: throttle reload <config|whitelist|blacklist>"),
        ("throttle reload blacklist", "s", "no blacklist file configured"),
        ("throttle reload config", "gone", "Non-existent service 'gone'"),
        ("throttle reload config", "bare", "Non-existent service 'bare'"),
    ],
)
def test_what_cannot_be_read_again(throttled, line, name, error):
    """A service without the plugin is none of its."""
    world, _, _ = throttled
    configured("CREATE SERVICE bare\nSET role = web_server", world)
    assert ask(world, line, context=context(name)) == [f"ERROR: {error}"]


def test_a_file_that_is_wrong_is_told_when_the_plugin_is_set(throttled, tmp_path):
    world, service, loop = throttled
    (tmp_path / "list").write_text("1.2.3.400\n")
    configured(f"SET s.blacklist_file = {tmp_path}/list", world)
    (answer,) = ask(world, "SET s.plugins = throttle")
    assert answer.startswith(f"ERROR: Couldn't load {tmp_path}/list: ")
    assert service.plugins == []
    assert not ask_once(service, Asker(loop))


def test_without_the_plugin_its_words_and_parameters_are_gone(throttled):
    world, service, loop = throttled
    configured("UNLOAD throttle", world)
    assert ask(world, "throttle reload config") == ["ERROR: unknown command: throttle"]
    assert ask(world, "SET s.max_concurrent = 1") == ["ERROR: Unknown service parameter 'max_concurrent'"]
    assert not any(ask_once(service, Asker(loop)) for _ in range(5))


def test_what_an_address_has_done_counts_as_long_as_its_delay(throttled):
    """Though the threshold is shorter: one that comes later passes, and the next one too soon waits twice as long."""
    world, service, loop = throttled
    configured("SET s.initial_delay = 100", world)
    leave(twice(service, loop))
    d.sleep(70)
    assert not ask_once(service, Asker(loop))
    end_all(service)
    client = Asker(loop)
    assert ask_once(service, client)
    d.sleep(199)
    assert client.answers == []
    d.sleep(2)
    assert client.answers == ["passed"]
