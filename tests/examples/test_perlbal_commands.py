"""Commands of perlbal: configurations, and what is answered to what is wrong, in the words of the original."""

from __future__ import annotations

import resource

import pytest

import dangagreen as d
from perlbal.commands import Context
from perlbal.language import CommandError
from perlbal.parameters import SERVICE_TABLE
from perlbal.program import make_world
from perlbal.services import Role, Service, World
from perlbal_worlds import ask, configured, free_port, get, serving

CONFIGURATION = """
# a comment
CREATE POOL a
  POOL a ADD 127.0.0.1:19000
CREATE SERVICE rp
  SET role = reverse_proxy
  SET pool = a
CREATE SERVICE ws
  SET role = web_server
  SET docroot = /tmp/
ENABLE ws
CREATE SERVICE sel
  SET role = selector
CREATE SERVICE mgmt
  SET role = management
"""


class Inert(Role):
    """A role that does nothing, and notes what it is told."""

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self.told: list[str] = []

    def opened(self) -> None:
        self.told.append("opened")

    def closed(self) -> None:
        self.told.append("closed")

    def changed(self, key: str) -> None:
        self.told.append(key)


def inert_world() -> World:
    """A world in which roles do nothing."""
    world = make_world()
    for name in ("reverse_proxy", "web_server", "selector", "management"):
        world.roles[name] = type(name, (Inert,), {"name": name})
    return world


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


def test_values(world):
    rp, ws, sel = (world.services[name] for name in ("rp", "ws", "sel"))
    configured(
        """
        SET rp.persist_client = YES
        SET rp.buffer_size = 3m
        SET rp.error_retry_schedule = 0,.5,2
        SET rp.trusted_upstream_proxies = 10.0.0.0/8, 192.168.1.1
        SET rp.upload_status_listeners = 127.0.0.1:7000, 127.0.0.1:7001
        SET rp.persist_client_timeout = 7
        SET rp.extra.Foo = Bar
        SET rp.high_priority_cookie = X
        SET rp.head_timeout = 1.5
        SET ws.index_files = a.html, b.html c.html
        SET sel.default_service = ws
        """,
        world,
    )
    assert (rp.persist_client, rp.buffer_size, rp.error_retry_schedule) == (True, 3 * 1024 * 1024, [0, 0.5, 2])
    assert "10.1.2.3" in rp.trusted_upstream_proxies
    assert "192.168.1.1" in rp.trusted_upstream_proxies
    assert "192.168.1.2" not in rp.trusted_upstream_proxies
    assert "::1" not in rp.trusted_upstream_proxies
    assert rp.upload_status_listeners == [("127.0.0.1", 7000), ("127.0.0.1", 7001)]
    assert (rp.idle_timeout, rp.persist_client_idle_timeout, rp.head_timeout) == (7, 7, 1.5)
    assert (rp.extra["foo"], rp.high_priority_cookie) == ("Bar", "X")
    assert ws.index_files == ["a.html", "b.html", "c.html"]
    assert ws.docroot == "/tmp"
    assert sel.default_service is ws
    assert rp.pool is world.pools["a"]


def test_defaults_are_those_of_the_role_and_of_default_commands(world):
    assert world.services["rp"].buffer_size == 256 * 1024
    configured("DEFAULT persist_client = on\nDEFAULT buffer_size = 1k\nCREATE SERVICE n\nSET role = web_server", world)
    assert world.services["n"].persist_client
    assert not world.services["rp"].persist_client
    configured("SET n.role = reverse_proxy", world)
    assert world.services["n"].buffer_size == 1024


def test_a_default_of_no_sense_is_told_when_the_role_is_set_and_then_that_is_not(world):
    configured("DEFAULT buffer_size = much\nCREATE SERVICE n", world)
    (answer,) = ask(world, "SET n.role = reverse_proxy")
    assert answer.startswith("ERROR: Expecting size unit value")
    assert world.services["n"].role_name == ""


def test_every_default_of_the_table_can_be_read_and_shown():
    service = Service(inert_world(), "x")
    for row in SERVICE_TABLE.values():
        if row.default is not None:
            assert row.parse(service, row.show(row.initial(service))) == row.initial(service)


def test_what_the_role_is_told(world):
    configured("ENABLE rp\nSET rp.connect_ahead = 2\nDISABLE rp", world)
    assert world.services["rp"].role.told[-3:] == ["opened", "connect_ahead", "closed"]


def test_another_role_closes_the_one_before(world):
    before = world.services["ws"].role
    configured("SET ws.role = reverse_proxy", world)
    assert before.told[-1] == "closed"
    assert world.services["ws"].role.told[-1] == "opened"


def test_how_often_a_pool_is_used(world):
    pool = world.pools["a"]
    configured("CREATE POOL b\nSET rp.pool = b\nSET rp.pool = a\nCREATE SERVICE x\nSET role=reverse_proxy", world)
    configured("SET x.pool = a\nSET x.pool = a", world)
    assert (pool.services, world.pools["b"].services) == (2, 0)


def test_nodes_of_a_pool(world):
    configured("POOL ADD a 1.2.3.4\nPOOL a REMOVE 127.0.0.1:19000\nPOOL a REMOVE 9.9.9.9\nPOOL A ADD Host:81", world)
    configured("POOL a ADD unix:/Tmp/Sock", world)
    assert [node.name for node in world.pools["a"].uses] == ["1.2.3.4:80", "host:81", "unix:/Tmp/Sock"]


def test_a_nodefile_on_a_service_makes_a_pool(tmp_path):
    file = tmp_path / "nodes"
    file.write_text("127.0.0.1:81\n")
    world = configured(f"CREATE SERVICE x\nSET role = reverse_proxy\nSET nodefile = {file}", inert_world())
    assert [node.name for node in world.services["x"].pool.uses] == ["127.0.0.1:81"]
    assert world.pools["x_pool"].services == 1
    assert not world.pools_by_hand
    configured("CREATE POOL y\nCREATE SERVICE z\nSET role = reverse_proxy", world)
    (answer,) = ask(world, f"SET z.nodefile = {file}")
    assert answer.startswith("ERROR: Attempt to vivify pool z_pool but one or more pools have already been created")


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


def test_hooks_are_asked_until_one_has_taken_over(world):
    service = world.services["rp"]
    asked: list[str] = []
    service.register_hook("A", "h", lambda *arguments: asked.append(f"a{arguments}"))
    service.register_hook("B", "h", lambda *arguments: asked.append("b") or True)
    service.register_hook("C", "h", lambda *arguments: asked.append("c"))
    assert service.run_hooks("h", 1) is True
    assert asked == ["a(1,)", "b"]
    service.run_all_hooks("h", 1)
    assert asked[2:] == ["a(1,)", "b", "c"]
    assert service.run_hooks("other") is False


def test_a_setter_of_a_plugin(world):
    service, got = world.services["rp"], []
    service.register_setter("Plug", "key", got.append)

    def refuse(value):
        raise CommandError("not that")

    service.register_setter("Plug", "no", refuse)
    configured("SET rp.PLUG.Key = Value", world)
    assert got == ["Value"]
    assert ask(world, "SET rp.plug.no = x") == ["ERROR: not that"]
    assert ask(world, "SET rp.plug.else = x") == ["ERROR: Unknown service parameter 'plug.else'"]


def test_where_a_service_may_listen(tmp_path):
    """An IPv6 address and the path of a Unix socket are ours."""
    (tmp_path / "index.html").write_text("hello")
    text = f"CREATE SERVICE s\nSET role = web_server\nSET docroot = {tmp_path}\nSET listen = 127.0.0.1:0\nENABLE s"
    with serving(text) as world:
        service = world.services["s"]
        for listen in ("[::1]:0", f"unix:{tmp_path}/Sock", "0", "127.0.0.1:0"):
            configured(f"SET s.listen = {listen}", world)
            assert get(world, "s")[2] == b"hello"
        assert ask(world, "SET s.listen = 192.0.2.1:80") == [
            "ERROR: Can't start service 's' on 192.0.2.1:80: Cannot assign requested address"
        ]
        assert service.listen == "127.0.0.1:0"
        assert get(world, "s")[2] == b"hello"


def test_a_service_is_disabled_and_enabled_at_once(tmp_path):
    """A connection between two requests is ended, and nobody is refused meanwhile."""
    (tmp_path / "index.html").write_text("hello")
    port = free_port()
    text = f"CREATE SERVICE s\nSET role = web_server\nSET docroot = {tmp_path}\nSET listen = 127.0.0.1:{port}\n"
    with serving(text + "SET persist_client = on\nENABLE s") as world:
        with d.connect(("127.0.0.1", port)) as sock:
            sock.write_all(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert sock.read_until(b"hello")
            configured("DISABLE s\nENABLE s\nDISABLE s\nENABLE s", world)
            with d.timeout(10):
                assert sock.read_to_end(1) == b""
        for _ in range(3):
            assert get(world, "s")[2] == b"hello"


def test_a_service_that_listens_gets_another_role(tmp_path):
    """Nobody is refused meanwhile."""
    (tmp_path / "index.html").write_text("hello")
    port = free_port()
    text = f"CREATE SERVICE s\nSET role = web_server\nSET docroot = {tmp_path}\nSET listen = 127.0.0.1:{port}\nENABLE s"
    with serving(text) as world:
        assert get(world, "s")[2] == b"hello"
        configured("SET s.role = selector", world)
        with d.connect(("127.0.0.1", port)) as sock:
            sock.write_all(b"GET / HTTP/1.0\r\n\r\n")
            assert b"No service selector configured." in sock.read_to_end(1000)
        configured(f"SET s.role = web_server\nSET s.docroot = {tmp_path}", world)
        assert get(world, "s")[2] == b"hello"
