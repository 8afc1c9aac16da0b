"""Live reconfiguration of perlbal: what is the same goes on, what differs is told; an error changes nothing."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

import dangagreen as d
from perlbal.clients import HttpRole
from perlbal.program import make_world
from perlbal.reloading import reload
from perlbal.services import World
from perlbal_worlds import address, ask, exchange, get, serving
from tests.certificates import AUTHORITY, certificate
from tests.programs import free_port


class Configured:
    """A world, and the file that it was made from."""

    def __init__(self, world: World, path: Path) -> None:
        self.world, self.path = world, path
        world.reload = lambda: reload(world, make_world(), str(path))

    def change(self, text: str) -> list[str]:
        """What RELOAD CONFIG answers once this is in the file."""
        self.path.write_text(text)
        return ask(self.world, "RELOAD CONFIG")

    def dump(self) -> list[str]:
        return ask(self.world, "dumpconfig")


BASE = """
LOAD vhosts
LOAD highpri
CREATE POOL a
POOL a ADD 127.0.0.1:1
POOL a ADD 127.0.0.1:2
CREATE SERVICE ws
SET role = web_server
SET listen = 127.0.0.1:{one}
SET docroot = {folder}
SET persist_client = on
SET plugins = highpri
SET ws.highpri.uri_pattern = ^/x
ENABLE ws
CREATE SERVICE sel
SET role = selector
SET listen = 127.0.0.1:{two}
SET plugins = vhosts
VHOST a.com = ws
ENABLE sel
"""


@pytest.fixture
def text(tmp_path):
    (tmp_path / "index.html").write_text("hello")
    return BASE.format(one=free_port(), two=free_port(), folder=tmp_path)


@pytest.fixture
def configured_world(text, tmp_path):
    with serving(text) as world:
        yield Configured(world, tmp_path / "perlbal.conf")


def test_the_same_file_changes_nothing(configured_world, text):
    before = {name: service.listener for name, service in configured_world.world.services.items()}
    pools = dict(configured_world.world.pools)
    assert configured_world.change(text) == ["nothing has changed", "."]
    assert {name: service.listener for name, service in configured_world.world.services.items()} == before
    assert configured_world.world.pools == pools


def test_what_differs_is_told_and_applied(configured_world, text):
    changed = text.replace("persist_client = on", "idle_timeout = 7").replace("VHOST a.com", "VHOST b.com")
    changed = changed.replace("POOL a ADD 127.0.0.1:2", "POOL a ADD 127.0.0.1:3\nSET a.balance_method = round_robin")
    changed = "DEFAULT server_tokens = off\n" + changed
    assert configured_world.change(changed) == [
        "defaults: changed",
        "pool a: balance_method = round_robin",
        "pool a: add 127.0.0.1:3",
        "pool a: remove 127.0.0.1:2",
        "service ws: persist_client = the default",
        "service ws: idle_timeout = 7",
        "service ws: server_tokens = the default",
        "service sel: server_tokens = the default",
        "service sel: plugins and their settings",
        ".",
    ]
    world = configured_world.world
    assert get(world, "sel", "/", "Host: b.com")[2] == b"hello"
    assert "Server" not in get(world, "sel", "/", "Host: a.com")[1]
    assert configured_world.change(changed) == ["nothing has changed", "."]
    assert configured_world.change(text)[-1] == "."
    with serving(text) as fresh:
        assert configured_world.dump() == ask(fresh, "dumpconfig")


def test_what_was_set_by_commands_gives_way_to_the_file(configured_world, text):
    ask(configured_world.world, "CREATE SERVICE more", "SET ws.idle_timeout = 5", "HEADER ws INSERT X: y")
    assert configured_world.change(text) == [
        "service more: removed",
        "service ws: idle_timeout = the default",
        "service ws: plugins and their settings",
        ".",
    ]
    assert configured_world.world.services["ws"].inserted_headers == []


@pytest.mark.parametrize(
    ("more", "errors"),
    [
        ("NONSENSE\nSET nope.x = 1", ["{path}:{first}: ERROR: unknown command: nonsense", "{path}:{second}: ERROR: "]),
        ("CREATE SERVICE n\nSET role = web_server\nSET listen = 192.0.2.1:80\nENABLE n", ["Can't start service 'n'"]),
        ("CREATE SERVICE n\nSET role = web_server\nSET listen = unix:/no/such\nENABLE n", ["Can't start service 'n'"]),
        (
            "CREATE SERVICE n\nSET role = web_server\nSET listen = 127.0.0.1:80\nSET enable_ssl = on\n"
            f"SET ssl_cert_file = {__file__}\nSET ssl_key_file = {__file__}\nENABLE n",
            ["Can't start service 'n'"],
        ),
        ("CREATE SERVICE n\nSET listen = 127.0.0.1:80\nENABLE n", ["service n has no role"]),
    ],
)
def test_an_error_changes_nothing(configured_world, text, more, errors):
    before = configured_world.dump()
    changed = text.replace("persist_client = on", "persist_client = off") + more
    answer = "\n".join(configured_world.change(changed))
    assert answer.startswith("ERROR: ")
    first = text.count("\n") + 1
    for error in errors:
        assert error.format(path=configured_world.path, first=first, second=first + 1) in answer
    assert configured_world.dump() == before


def test_a_file_that_is_gone_changes_nothing(configured_world):
    before = configured_world.dump()
    (answer,) = ask(configured_world.world, "RELOAD CONFIG")
    assert answer == f"ERROR: Error opening config file ({configured_world.path}): No such file or directory"
    assert configured_world.dump() == before


def test_services_come_and_go(configured_world, text, tmp_path):
    port = free_port()
    more = (
        f"CREATE SERVICE n\nSET role = web_server\nSET docroot = {tmp_path}\nSET listen = 127.0.0.1:{port}\nENABLE n\n"
    )
    world = configured_world.world
    assert configured_world.change(text + more)[0] == "service n: added"
    assert get(world, "n")[2] == b"hello"
    assert configured_world.change(text) == ["service n: removed", "."]
    d.sleep(0)
    with pytest.raises(ConnectionRefusedError):
        d.connect(("127.0.0.1", port))


def test_a_kept_connection_lives_on_where_nothing_of_its_service_has_changed(configured_world, text):
    request = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    with d.connect(address(configured_world.world, "ws")) as sock:
        sock.write_all(request)
        assert sock.read_until(b"hello")
        configured_world.change(text.replace("VHOST a.com", "VHOST b.com"))
        sock.write_all(request)
        assert sock.read_until(b"hello")


def test_a_service_listens_elsewhere(configured_world, text):
    world, port = configured_world.world, free_port()
    before = address(world, "ws")
    assert configured_world.change(text.replace(f":{before[1]}", f":{port}")) == [
        f"service ws: listen = 127.0.0.1:{port}",
        ".",
    ]
    assert get(world, "ws")[2] == b"hello"
    d.sleep(0)
    with pytest.raises(ConnectionRefusedError):
        d.connect(before)


def test_an_address_goes_to_another_service_and_refuses_nobody(configured_world, text):
    world = configured_world.world
    before = address(world, "ws")
    configured_world.change(text.replace("SERVICE ws", "SERVICE web").replace(" ws", " web").replace("ws.", "web."))
    for _ in range(3):
        with d.connect(before) as sock:
            sock.write_all(b"GET / HTTP/1.0\r\n\r\n")
            assert sock.read_to_end(10000).endswith(b"hello")
        d.sleep(0)
    assert "ws" not in world.services
    assert exchange(world, "sel", "GET / HTTP/1.0\r\nHost: a.com\r\n\r\n").endswith(b"hello")


UNIX = """
CREATE SERVICE {name}
SET role = web_server
SET listen = unix:{folder}/s
SET docroot = {folder}
ENABLE {name}
"""


def test_a_service_on_a_unix_socket_gets_another_name(configured_world, text, tmp_path):
    configured_world.change(text + UNIX.format(name="one", folder=tmp_path))
    assert configured_world.change(text + UNIX.format(name="two", folder=tmp_path))[-1] == "."
    assert get(configured_world.world, "two")[2] == b"hello"
    assert ask(configured_world.world, "SET two.role = selector") == ["OK"]  # another role, too
    assert get(configured_world.world, "two")[0] == 500
    configured_world.change(text + UNIX.format(name="two", folder=tmp_path))
    before = configured_world.dump()
    taken = UNIX.format(name="three", folder=tmp_path) + UNIX.format(name="two", folder=tmp_path).replace("/s", "/t")
    assert configured_world.change(text + taken)[0].endswith("Address already in use")
    assert configured_world.dump() == before


def test_addresses_are_exchanged(configured_world, text):
    world = configured_world.world
    one, two = (str(address(world, name)[1]) for name in ("ws", "sel"))
    configured_world.change(text.replace(one, "@").replace(two, one).replace("@", two))
    d.sleep(0)
    assert [str(address(world, name)[1]) for name in ("ws", "sel")] == [two, one]
    assert get(world, "ws", "/", "Host: b.com")[2] == b"hello"
    assert get(world, "sel", "/", "Host: b.com")[0] == 404


def test_a_service_is_enabled_and_disabled(configured_world, text):
    assert configured_world.change(text.replace("ENABLE sel", "")) == ["service sel: disabled", "."]
    assert configured_world.change(text) == ["service sel: enabled", "."]
    assert get(configured_world.world, "sel", "/", "Host: a.com")[2] == b"hello"


def test_plugins_are_loaded_and_unloaded(configured_world, text):
    assert configured_world.change(
        text.replace("LOAD highpri", "LOAD stats")
        .replace("= highpri", "= stats")
        .replace("SET ws.highpri.uri_pattern = ^/x\n", "")
    ) == ["plugin stats: loaded", "service ws: plugins and their settings", "plugin highpri: unloaded", "."]
    assert ask(configured_world.world, "plugins") == ["sel Vhosts", "ws Stats", "."]


def test_another_role_and_another_pool(configured_world, text):
    proxy = text.split("CREATE SERVICE sel")[0].split("SET docroot")[0].replace("web_server", "reverse_proxy")
    answers = configured_world.change(f"{proxy}SET pool = a\nENABLE ws\n")
    assert "service ws: role = reverse_proxy" in answers
    assert "service ws: pool = a" in answers
    world = configured_world.world
    assert (world.services["ws"].role_name, world.pools["a"].services) == ("reverse_proxy", 1)
    configured_world.change(text)
    assert world.pools["a"].services == 0
    assert get(world, "ws")[2] == b"hello"


def test_a_nodefile_begins_and_ends(configured_world, text, tmp_path):
    (tmp_path / "nodes").write_text("127.0.0.1:7\n")
    world = configured_world.world
    changed = text.replace("POOL a ADD 127.0.0.1:1\nPOOL a ADD 127.0.0.1:2", f"SET nodefile = {tmp_path}/nodes")
    assert configured_world.change(changed) == [f"pool a: nodefile = {tmp_path}/nodes", "."]
    assert [node.name for node in world.pools["a"].uses] == ["127.0.0.1:7"]
    configured_world.change(text)
    assert [node.name for node in world.pools["a"].uses] == ["127.0.0.1:1", "127.0.0.1:2"]


def test_tls_begins_and_ends(configured_world, text, tmp_path):
    issued = certificate("localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    files = f"SET ssl_key_file = {tmp_path}/both.pem\nSET ssl_cert_file = {tmp_path}/both.pem\n"
    world = configured_world.world
    with d.connect(address(world, "ws")) as kept:
        kept.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert kept.read_until(b"hello").startswith(b"HTTP/1.0 200 OK\r\n")
        configured_world.change(text.replace("ENABLE ws", f"{files}SET enable_ssl = on\nENABLE ws"))
        assert kept.read_to_end(1) == b""
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    AUTHORITY.configure_trust(trusting)
    with d.connect(address(world, "ws"), tls=trusting, server_hostname="localhost") as sock, d.timeout(10):
        sock.write_all(b"GET / HTTP/1.0\r\n\r\n")
        assert sock.read_to_end(1000).endswith(b"hello")
    configured_world.change(text)
    assert get(world, "ws")[2] == b"hello"


def test_certificates_are_read_again(configured_world, text, monkeypatch):
    """Those that cannot be read are told, and the others stay."""
    read = []
    monkeypatch.setattr(HttpRole, "reread_certificates", lambda role: read.append(role.service.name))
    assert configured_world.change(text) == ["nothing has changed", "."]
    assert read == ["ws", "sel"]

    def refuse(role):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(HttpRole, "reread_certificates", refuse)
    assert configured_world.change(text)[0] == (
        "service ws: the certificate was not read again: [Errno 13] Permission denied"
    )
    assert get(configured_world.world, "ws")[2] == b"hello"
