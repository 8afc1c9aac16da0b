"""Commands of perlbal: configurations, and what is answered to what is wrong, in the words of the original."""

from __future__ import annotations

import resource

import pytest

from perlbal.commands import Context
from perlbal.services import World
from perlbal_worlds import CONFIGURATION, ask, configured, inert_world


@pytest.fixture
def world() -> World:
    return configured(CONFIGURATION, inert_world())


REFUSED = [
    ("create service", "usage: CREATE {service|pool} <name>"),
    ("create service rp", "service 'rp' already exists"),
    ("create pool rp", "service 'rp' already exists"),
    ("create service a", "pool 'a' already exists"),
    ("create pool A", "pool 'a' already exists"),
    ("use nope", "Non-existent pool or service 'nope'"),
    ("use", "usage: USE <service_or_pool_name>"),
    ("set foo = bar", "omitted service/pool name not implied from context"),
    ("set rp.foo = bar", "Unknown service parameter 'foo'"),
    ("set rp.a.b = c", "Unknown service parameter 'a.b'"),
    ("set rp.docroot = /tmp", "The 'docroot' option can only be set on a 'web_server' service"),
    ("set rp persist_client = maybe", "Expecting boolean value for parameter 'persist_client'"),
    ("set rp.idle_timeout = -1", "Expecting integer value for parameter 'idle_timeout'"),
    ("set rp.idle_timeout = 1.5", "Expecting integer value for parameter 'idle_timeout'"),
    (
        "set rp.buffer_size = 1g",
        "Expecting size unit value for parameter 'buffer_size' in bytes, or suffixed with 'K' or 'M'",
    ),
    (
        "set rp.buffer_size = k",
        "Expecting size unit value for parameter 'buffer_size' in bytes, or suffixed with 'K' or 'M'",
    ),
    ("set rp.listen = foo", "Listen argument must be ip:port or port. e.g. 192.168.0.1:80 or 81"),
    ("set rp.pool = nope", "Pool 'nope' not found"),
    ("set rp.queue_relief_chance = 101", "Expecting integer value between 0 and 100, inclusive."),
    ("set rp.buffer_uploads_path = /nope", "Directory (/nope) not found for service rp (buffer_uploads_path)"),
    ("set ws.docroot = /nope{x}", "Directory not found for service ws"),
    ("set rp.role = nope", "Role not valid for service rp"),
    ("set sel.default_service = nope", "Service 'nope' not found"),
    ("set rp.ssl_key_file = /no{pe}", "File '/no{pe}' not found for 'ssl_key_file'"),
    ("set rp.ssl_ca_path = /nope", "Directory '/nope' not found for 'ssl_ca_path'"),
    ("set rp.backend_http_version = 2", "Value of 'backend_http_version' must be one of: 1.0, 1.1"),
    ("set rp.queue_timeout = soon", "Expecting a number of seconds for parameter 'queue_timeout'"),
    ("set rp.error_retry_schedule = 1,nan", "Expecting a number of seconds for parameter 'error_retry_schedule'"),
    ("set rp.error_retry_schedule = 1,,2", "Expecting a number of seconds for parameter 'error_retry_schedule'"),
    ("set rp.upload_status_listeners = x", 'Invalid UDP endpoint: "x".  Must be of form a.b.c.d:port'),
    ("set nope.x = 1", "service/pool 'nope' does not exist"),
    ("set a.nodefile = /nope", "File not found"),
    ("set a.balance_method = foo", "Unknown balance method"),
    ("set", "usage: SET [<service>] <param> = <value>"),
    ("enable ws", "service ws is already enabled"),
    ("disable rp", "service rp is already disabled"),
    ("enable nope", "service 'nope' does not exist"),
    ("enable", "Usage: {ENABLE|DISABLE} <service>"),
    ("enable rp sel", "Usage: {ENABLE|DISABLE} <service>"),
    ("pool a add", "Invalid syntax to 'pool' command"),
    ("pool a add 1.2.3.400", "Invalid syntax to 'pool' command"),
    ("pool nope add 1.2.3.4", "Pool 'nope' not found"),
    ("pool a foo 1.2.3.4", "Invalid command:  must be 'add' or 'remove'"),
    ("header rp insert X-Foo", "no value provided"),
    ("header nope insert a: b", "service 'nope' does not exist"),
    ("header rp foo a: b", "Usage: HEADER <service> {INSERT|REMOVE} <header>[: <value>]"),
    ("load nope", "Can't find plugin 'nope'"),
    ("load", "Invalid syntax to 'load' command"),
    ("unload nope", "Unknown/unloaded plugin 'nope'"),
    ("reload nope", "Unknown/unloaded plugin 'nope'"),
    ("set rp.plugins = Nope", "Plugin nope not loaded; not registered for rp."),
    ("server foo = bar", "unknown server option 'foo'"),
    ("server nice_level = x", "Expected numeric parameter"),
    ("server max_connections = x", "Expected numeric parameter"),
    ("server aio_mode = foo", "Unknown AIO mode"),
    ("server track_obj = 2", "Expected 1 or 0"),
    ("server crash_backtrace = 2", "Expected 1 or 0"),
    ("server max_reproxy_connections = x", "Expected numeric parameter"),
    ("server", "Invalid syntax to 'server' command"),
    ("default", "usage: DEFAULT <param> = <value>"),
    ("verbose", "usage: VERBOSE {on|off}"),
    ("foo", "unknown command: foo"),
    ("crash", "unknown command: crash"),
    ("!foo", "invalid command"),
]


@pytest.mark.parametrize(("line", "error"), REFUSED, ids=[line for line, _ in REFUSED])
def test_what_is_refused_changes_nothing(world, line, error):
    before = ask(world, "dumpconfig")
    assert ask(world, line) == [f"ERROR: {error}"]
    assert ask(world, "dumpconfig") == before


def test_a_command_says_ok_only_if_it_was_asked_to(world):
    assert ask(world, "use rp", "verbose off", "use rp", "# nothing", "verbose on") == ["OK", "OK"]
    assert ask(world, "use rp", context=Context()) == []


def test_the_context_is_what_was_created_or_used_last(world):
    assert ask(world, "create service x", "set role = web_server", "use ws", "set enable_put = on") == ["OK"] * 4
    assert (world.services["x"].role_name, world.services["ws"].enable_put) == ("web_server", True)
    assert ask(world, "set a.balance_method = random", "use a", "set balance_method = least_used") == ["OK"] * 3
    assert world.pools["a"].balance_method == "least_used"


@pytest.mark.parametrize("line", ["SET Rp.buffer_size = 2K", "set rp buffer_size=2048", "USE RP\nSet buffer_size = 2k"])
def test_ways_to_set(world, line):
    assert set(ask(world, *line.split("\n"))) == {"OK"}
    assert world.services["rp"].buffer_size == 2048


def test_nodes_of_a_pool(world):
    configured("POOL ADD a 1.2.3.4\nPOOL a REMOVE 127.0.0.1:19000\nPOOL a REMOVE 9.9.9.9\nPOOL A ADD Host:81", world)
    configured("POOL a ADD unix:/Tmp/Sock", world)
    assert [node.name for node in world.pools["a"].uses] == ["1.2.3.4:80", "host:81", "unix:/Tmp/Sock"]


def test_header_edits(world):
    configured("HEADER rp INSERT X-New: a = B: c\nHEADER rp REMOVE X-Old\nHEADER rp INSERT x-new2:d", world)
    service = world.services["rp"]
    assert service.inserted_headers == [("x-new", "a = B: c"), ("x-new2", "d")]
    assert service.removed_headers == ["x-old"]
    assert service.lines == ["HEADER rp INSERT X-New: a = B: c", "HEADER rp REMOVE X-Old", "HEADER rp INSERT x-new2:d"]


def test_settings_of_the_process(world):
    configured(
        """
        SERVER aio_mode = none
        SERVER aio_threads = 5
        SERVER pidfile = /Tmp/pid
        SERVER track_obj = 1
        SERVER max_reproxy_connections = 7
        SERVER max_reproxy_connections(1.2.3.4:80) = 5
        XS enable headers
        """,
        world,
    )
    assert (world.aio_mode, world.aio_threads, world.pidfile) == ("none", 5, "/Tmp/pid")
    assert (world.max_reproxy_connections, world.max_reproxy_connections_of) == (7, {"1.2.3.4:80": 5})
    world.running = True
    assert ask(world, "SERVER pidfile = /x") == [
        "ERROR: pidfile must be configured at startup, before Perlbal::run is called"
    ]


def test_the_limit_of_open_files_can_fail(world, monkeypatch):
    def refuse(*_arguments):
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    for user, error in [(0, "Unable to set limit."), (1, "Need to be root to increase max connections.")]:
        monkeypatch.setattr("os.geteuid", lambda user=user: user)
        assert ask(world, "SERVER max_connections = 10") == [f"ERROR: {error}"]
    world.dry = True
    assert ask(world, "SERVER max_connections = 10") == ["OK"]


def test_what_a_command_raises_is_answered_and_logged(world, caplog):
    def fails(call):
        raise RuntimeError("broken")

    world.commands["fails"] = fails
    assert ask(world, "fails") == ["ERROR: broken"]
    assert "RuntimeError: broken" in caplog.text
