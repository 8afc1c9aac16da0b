"""Kinds of parameters: what is a value of each, how it is shown, and what is said of what is none."""

from __future__ import annotations

import pytest

import perlbal.kinds as kinds
from perlbal.kinds import Networks, network, parse_listen
from perlbal.language import CommandError
from perlbal.services import World
from perlbal_worlds import CONFIGURATION, configured, inert_world


@pytest.fixture
def world() -> World:
    return configured(CONFIGURATION, inert_world())


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("10.0.0.0/8", "10.255.1.2", "11.0.0.1"),
        ("10.0.0.0:255.0.0.0", "10.1.2.3", "11.0.0.1"),
        ("10.1", "10.1.2.3", "10.2.0.0"),
        ("192.168.1.7", "192.168.1.7", "192.168.1.8"),
        ("10.1.2.3/16", "10.1.9.9", "10.2.0.0"),
        ("fe80::/10", "fe80::1", "::1"),
        ("::1", "::1", "::2"),
    ],
)
def test_networks(text, inside, outside):
    assert network(text)
    assert inside in Networks(text)
    assert outside not in Networks(text)
    assert "nonsense" not in Networks(text)


@pytest.mark.parametrize("text", ["", "10.0.0.0/33", "1.2.3.4.5", "x", "10.0.0.0/8,", "::g"])
def test_what_is_no_network(text):
    with pytest.raises(ValueError):
        Networks(text)


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


class Owner:
    """A service, as far as kinds look at it."""

    name = "s"


ROWS = {
    "boolean": kinds.boolean("*", "off", "A help."),
    "integer": kinds.integer("*", "7", "A help."),
    "size": kinds.size("*", "2k", "A help."),
    "seconds": kinds.seconds("*", ".5", "A help."),
    "text": kinds.text("*", "x", "A help."),
    "percentage": kinds.percentage("*", "0", "A help."),
    "schedule": kinds.schedule("*", "1", "A help."),
    "listen": kinds.listen("*", None, "A help."),
    "endpoints": kinds.endpoints("*", "", "A help."),
    "names": kinds.names("*", "a", "A help."),
    "networks": kinds.networks("*", None, "A help."),
    "file": kinds.file("*", "certs/server-key.pem", "A help."),
    "directory": kinds.directory("*", "Directory ({value}) not found for service {of.name} ({key})", "A help."),
    "executable": kinds.executable("*", None, "A help."),
    "choice": kinds.choice("*", "one two", "A help."),
    "worded": kinds.choice("*", "one two", "A help.", "Unknown {key}"),
}
for row in ROWS.values():
    row.name = "k"


@pytest.mark.parametrize(
    ("kind", "text", "value", "shown"),
    [
        *(("boolean", text, True, "on") for text in ("1", "true", "on", "yes", "YES", "True")),
        *(("boolean", text, False, "off") for text in ("0", "false", "off", "no", "NO", "False")),
        ("integer", "0", 0, "0"),
        ("integer", "007", 7, "7"),
        ("integer", "9" * 18, 10**18 - 1, "9" * 18),
        ("size", "0", 0, "0"),
        ("size", "5b", 5, "5"),
        ("size", "2K", 2048, "2048"),
        ("size", "3m", 3 << 20, "3145728"),
        ("seconds", "0", 0, "0"),
        ("seconds", ".5", 0.5, "0.5"),
        ("seconds", "1.", 1, "1"),
        ("seconds", "2.25", 2.25, "2.25"),
        ("text", "A {text}, as it is", "A {text}, as it is", "A {text}, as it is"),
        ("percentage", "0", 0, "0"),
        ("percentage", "100", 100, "100"),
        ("schedule", "0,.5, 2", [0, 0.5, 2], "0,0.5,2"),
        ("listen", "80", "80", "80"),
        ("listen", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"),
        ("listen", "[fe80::1]:80", "[fe80::1]:80", "[fe80::1]:80"),
        ("listen", "unix:/A b", "unix:/A b", "unix:/A b"),
        ("endpoints", "", [], ""),
        ("endpoints", "1.2.3.4:5 , 6.7.8.9:10,", [("1.2.3.4", 5), ("6.7.8.9", 10)], "1.2.3.4:5,6.7.8.9:10"),
        ("names", "a, b  c,,D", ["a", "b", "c", "D"], "a, b, c, D"),
        ("names", "", [], ""),
        ("file", "certs/server-cert.pem", "certs/server-cert.pem", "certs/server-cert.pem"),
        ("directory", "/", "/", "/"),
        ("choice", "two", "two", "two"),
    ],
)
def test_what_is_a_value_and_how_it_is_shown(kind, text, value, shown):
    row = ROWS[kind]
    found = row.parse(Owner, text)
    assert (found, type(found)) == (value, type(value) if kind != "seconds" else float)
    assert row.show(found) == shown
    assert row.parse(Owner, shown) == value


BOOLEAN = "Expecting boolean value for parameter 'k'"
INTEGER = "Expecting integer value for parameter 'k'"
SIZE = "Expecting size unit value for parameter 'k' in bytes, or suffixed with 'K' or 'M'"
SECONDS = "Expecting a number of seconds for parameter 'k'"
PERCENTAGE = "Expecting integer value between 0 and 100, inclusive."
LISTEN = "Listen argument must be ip:port or port. e.g. 192.168.0.1:80 or 81"
ENDPOINT = 'Invalid UDP endpoint: "{}".  Must be of form a.b.c.d:port'


@pytest.mark.parametrize(
    ("kind", "text", "error"),
    [
        *(("boolean", text, BOOLEAN) for text in ("", "2", "maybe", "on off", "{x}")),
        *(("integer", text, INTEGER) for text in ("", "-1", "+1", "1.5", "1k", " 1", "\u0663", "\u00b2", "9" * 19)),
        *(("size", text, SIZE) for text in ("", "k", "1g", "1kb", "1.5k", "-1", "1 k", "\u0663k", "{}")),
        *(("seconds", text, SECONDS) for text in ("", ".", "1e3", "nan", "inf", "-1", "1s", "\u0663", "1" * 10)),
        *(("percentage", text, PERCENTAGE) for text in ("", "101", "-1", "50%", "x")),
        *(("schedule", text, SECONDS) for text in ("", "1,,2", "1,x", "1;2", ",")),
        *(
            ("listen", text, LISTEN)
            for text in ("", "foo", "1.2.3:80", "123456", "[::1]", "::1:80", "unix:", "unix:x", "host:80", "1.2.3.4:")
        ),
        ("endpoints", "x", ENDPOINT.format("x")),
        ("endpoints", "1.2.3.4", ENDPOINT.format("1.2.3.4")),
        ("endpoints", "1.2.3.4:5,{h}:1", ENDPOINT.format("{h}:1")),
        ("file", "/no{pe}", "File '/no{pe}' not found for 'k'"),
        ("file", "/", "File '/' not found for 'k'"),
        ("directory", "/no{pe}", "Directory (/no{pe}) not found for service s (k)"),
        ("directory", "/etc/passwd", "Directory (/etc/passwd) not found for service s (k)"),
        ("executable", "/etc/passwd", "Server process (/etc/passwd) not executable."),
        ("executable", "/no{pe}", "Server process (/no{pe}) not executable."),
        ("choice", "three", "Value of 'k' must be one of: one, two"),
        ("choice", "One", "Value of 'k' must be one of: one, two"),
        ("worded", "", "Unknown k"),
    ],
)
def test_what_is_none_and_what_is_said(kind, text, error):
    with pytest.raises(CommandError) as caught:
        ROWS[kind].parse(Owner, text)
    assert str(caught.value) == error


@pytest.mark.parametrize("text", ["10.0.0.0/33", "{x}", "1.2.3.4,"])
def test_what_is_said_of_no_networks(text):
    with pytest.raises(CommandError, match=r"^Error defining trusted upstream proxies: "):
        ROWS["networks"].parse(Owner, text)


def test_files_that_are_there(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    assert ROWS["file"].parse(Owner, str(file)) == str(file)
    with pytest.raises(CommandError):
        ROWS["executable"].parse(Owner, str(file))
    file.chmod(0o755)
    assert ROWS["executable"].parse(Owner, str(file)) == str(file)
    assert ROWS["directory"].parse(Owner, str(tmp_path)) == str(tmp_path)
    assert ROWS["directory"].parse(Owner, f"{tmp_path}/") == str(tmp_path)
    assert ROWS["directory"].parse(Owner, f"{tmp_path}//") == f"{tmp_path}/"  # one of them


def test_defaults():
    assert [ROWS[kind].initial(Owner) for kind in ("boolean", "integer", "size", "seconds")] == [False, 7, 2048, 0.5]
    assert [ROWS[kind].initial(Owner) for kind in ("listen", "networks", "directory", "executable")] == [None] * 4
    assert ROWS["choice"].initial(Owner) == "one"
    assert ROWS["choice"].kind == "one or two"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("80", ("0.0.0.0", 80)),
        ("127.0.0.1:81", ("127.0.0.1", 81)),
        ("[::1]:82", ("::1", 82)),
        ("unix:/A:b", "/A:b"),
    ],
)
def test_where_to_listen(text, address):
    assert parse_listen(text) == address
