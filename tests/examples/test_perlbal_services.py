"""Services and their world: roles, parameters, listening, and what belongs to which pool."""

from __future__ import annotations

import socket

import pytest

import dangagreen as d
import perlbal.kinds as kinds
from perlbal.heads import parse_request
from perlbal.hooks import Plugin
from perlbal.language import CommandError
from perlbal.services import Role, Service, World
from perlbal_worlds import CONFIGURATION, ask, configured, get, inert_world, serving
from tests.programs import free_port


@pytest.fixture
def world() -> World:
    return configured(CONFIGURATION, inert_world())


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


def test_names_are_of_one_space():
    world = World()
    world.create_service("a")
    world.create_pool("b")
    for create in world.create_service, world.create_pool:
        for name, error in [("a", "service 'a' already exists"), ("b", "pool 'b' already exists")]:
            with pytest.raises(CommandError, match=error):
                create(name)
    assert (list(world.services), list(world.pools)) == (["a"], ["b"])


@pytest.mark.parametrize(
    ("key", "text", "error"),
    [
        ("role", "nope", "Role not valid for service ws"),
        ("docroot", "/nope", "Directory not found for service ws"),
        ("pool", "a", "The 'pool' option can only be set on a 'reverse_proxy' service"),
        ("foo", "x", "Unknown service parameter 'foo'"),
        ("extra.", "x", "Unknown service parameter 'extra.'"),
        ("plug.key", "x", "Unknown service parameter 'plug.key'"),
    ],
)
def test_what_cannot_be_set_changes_nothing(world, key, text, error):
    service = world.services["ws"]
    before = (dict(service.settings), service.docroot, service.role, service.pool, dict(service.extra))
    with pytest.raises(CommandError) as caught:
        service.set(key, text)
    assert str(caught.value) == error
    assert (service.settings, service.docroot, service.role, service.pool, service.extra) == before


def test_what_was_set_is_remembered_in_the_order_in_which_it_was_set_last(world):
    service = world.services["ws"]
    configured("SET ws.dirindexing = on\nSET ws.max_put_size = 1k\nSET ws.dirindexing = off", world)
    assert list(service.settings.items())[-2:] == [("max_put_size", "1k"), ("dirindexing", "off")]


def test_a_parameter_gets_its_default_again(world):
    service = world.services["ws"]
    configured(
        "SET ws.dirindexing = on\nSET ws.extra.Foo = x\nDEFAULT max_put_size = 2k\nSET ws.max_put_size = 1k", world
    )
    for key in "dirindexing", "extra.foo", "max_put_size":
        service.reset(key)
        assert key not in service.settings
    assert (service.dirindexing, service.extra, service.max_put_size) == (False, {}, 2048)


def test_parameters_of_plugins(world):
    """One that exists stays, and one of the table cannot be replaced."""
    service = world.services["ws"]
    world.add_tunable("added", kinds.integer("*", "5", "A help."))
    world.add_tunable("added", kinds.integer("*", "6", "Another."))
    world.add_tunable("docroot", kinds.integer("*", "6", "Another."))
    assert list(world.tunables) == ["added"]
    assert service.tuned("added") == 5
    configured("SET ws.added = 8", world)
    assert service.tuned("added") == 8
    assert ask(world, "SET ws.added = x") == ["ERROR: Expecting integer value for parameter 'added'"]
    service.reset("added")
    assert service.tuned("added") == 5
    assert "added" in [row.name for row in service.rows()]
    world.add_tunable("of_others", kinds.integer("selector", "5", "A help."))
    assert ask(world, "SET ws.of_others = 1") == [
        "ERROR: The 'of_others' option can only be set on a 'selector' service"
    ]


def test_heads_are_edited_by_removals_and_then_insertions(world):
    service = world.services["rp"]
    configured("HEADER rp INSERT X-A: new\nHEADER rp REMOVE X-A\nHEADER rp REMOVE x-b", world)
    head = parse_request(b"GET / HTTP/1.0\r\nX-A: old\r\nX-B: b\r\nX-C: c\r\n\r\n")
    service.edit_head(head)
    assert [head.get(name) for name in ("x-a", "x-b", "x-c")] == ["new", "", "c"]


def test_a_role_that_does_nothing_says_so():
    role = Role(Service(World(), "s"))
    with pytest.raises(NotImplementedError, match="takes no requests"):
        role.begin(None, None)
    with pytest.raises(NotImplementedError, match="does not listen"):
        role.listen(("127.0.0.1", 0))
    assert (role.describe(), role.queue_lengths(), role.pending_connects()) == ([], {}, {})


def test_without_a_role_nothing_listens(world):
    configured("CREATE SERVICE bare\nSET listen = 127.0.0.1:0", world)
    assert ask(world, "ENABLE bare") == ["ERROR: service bare has no role"]
    assert not world.services["bare"].enabled
    assert world.services["bare"].role_name == ""


def test_where_a_configuration_is_only_checked_nothing_listens_and_no_role_is_told(world):
    world.dry = True
    told = world.services["rp"].role.told = []
    configured("SET rp.listen = 192.0.2.1:80\nENABLE rp\nSET rp.listen = 192.0.2.2:80\nSET rp.connect_ahead = 3", world)
    service = world.services["rp"]
    assert (service.enabled, service.listener, service.connect_ahead) == (True, None, 3)
    configured("SET rp.role = web_server\nDISABLE rp", world)
    assert told == ["closed"]  # when another took its place


def test_an_address_that_is_in_use(tmp_path):
    text = f"CREATE SERVICE s\nSET role = web_server\nSET docroot = {tmp_path}\nSET listen = 127.0.0.1:{{}}\n"
    with socket.create_server(("127.0.0.1", 0)) as taken, serving(text.format(taken.getsockname()[1])) as world:
        place = world.services["s"].listen
        assert ask(world, "ENABLE s") == [f"ERROR: Can't start service 's' on {place}: Address already in use"]
        assert not world.services["s"].enabled
        configured("SET s.listen = 127.0.0.1:0\nENABLE s", world)
        assert ask(world, f"SET s.listen = {place}") == [
            f"ERROR: Can't start service 's' on {place}: Address already in use"
        ]
        assert get(world, "s", "/none")[0] == 404


def test_a_socket_that_was_passed_is_used_once(tmp_path):
    (tmp_path / "index.html").write_text("hello")
    with socket.create_server(("127.0.0.1", 0)) as passed:
        place = passed.getsockname()
        text = f"CREATE SERVICE s\nSET role = web_server\nSET docroot = {tmp_path}\nSET listen = 127.0.0.1:{place[1]}"
        with serving(text) as world:
            world.inherited[place] = passed
            configured("ENABLE s", world)
            assert world.inherited == {}
            assert get(world, "s")[2] == b"hello"


def test_plugins_are_told_when_they_come_and_go(world):
    class Noting(Plugin):
        name = "Noting"

        def register(self, service):
            service.register_hook(self.name, "h", lambda: None)
            told.append(f"register {service.name}")

        def unregister(self, service):
            told.append(f"unregister {service.name}")

    told = []
    world.plugins["noting"] = Noting()
    service = world.services["ws"]
    configured("SET ws.plugins = noting, NOTING", world)
    assert (told, service.plugins, len(service.hooks["h"])) == (["register ws"], ["Noting"], 1)
    configured("SET ws.plugins = noting", world)
    assert told[1:] == ["unregister ws", "register ws"]
    configured("SET ws.role = selector", world)  # keeps them
    assert (told[3:], service.plugins) == (["unregister ws", "register ws"], ["Noting"])
    configured("SET ws.plugins = none", world)
    assert (told[5:], service.plugins, service.hooks) == (["unregister ws"], [], {})
    service.unregister(world.plugins["noting"])
    assert len(told) == 6


def test_lines_for_the_log_have_their_priority(caplog):
    caplog.set_level(10, "perlbal")
    for priority in "debug", "info", "warning", "err", "crit":
        World().log(priority, "100% {of} it")
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (number, "100% {of} it") for number in (10, 20, 30, 40, 50)
    ]
