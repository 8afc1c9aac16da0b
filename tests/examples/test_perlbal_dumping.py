"""dumpconfig: that it makes the same world again, and what its lines are."""

from __future__ import annotations

import pytest

from perlbal_worlds import CONFIGURATION, EACH_ROLE, ask, configured, inert_world, serving


@pytest.fixture
def world():
    with serving(EACH_ROLE.format(backend=19000)) as world:
        yield world


@pytest.fixture
def inert():
    return configured(CONFIGURATION, inert_world())


def test_a_dump_makes_the_same_world_again(world):
    configured(
        "SET ws.index_files = a.html b.html\nSET rp.error_retry_schedule = 1,2.5\nSET rp.head_timeout = 3", world
    )
    lines = ask(world, "dumpconfig")
    assert lines[:4] == ["CREATE POOL b", "", "CREATE POOL a", f"  POOL ADD a {next(iter(world.nodes))}"]
    assert "  SET error_retry_schedule = 1,2.5" in lines
    assert "  SET index_files = a.html, b.html" in lines
    configured("DISABLE rp", world)
    lines = ask(world, "dumpconfig")
    text = "\n".join(line for line in lines if line != "OK" and not line.startswith("DISABLE"))
    with serving(text) as again:
        assert ask(again, "dumpconfig") == lines


def test_the_lines(inert):
    """What is at its default is not told; role, address and pool come first, the others are sorted."""
    configured(
        "SET rp.listen = 127.0.0.1:0\nSET rp.persist_client = yes\nSET rp.buffer_size = 1k\nSET rp.connect_ahead = 0",
        inert,
    )
    assert ask(inert, "dumpconfig") == [
        "CREATE POOL a",
        "  POOL ADD a 127.0.0.1:19000",
        "",
        "CREATE SERVICE rp",
        "  SET role = reverse_proxy",
        "  SET listen = 127.0.0.1:0",
        "  SET pool = a",
        "  SET buffer_size = 1024",
        "  SET persist_client = on",
        "DISABLE rp",
        "",
        "CREATE SERVICE ws",
        "  SET role = web_server",
        "  SET docroot = /tmp",
        "ENABLE ws",
        "",
        "CREATE SERVICE sel",
        "  SET role = selector",
        "DISABLE sel",
        "",
        "CREATE SERVICE mgmt",
        "  SET role = management",
        "DISABLE mgmt",
        "",
        "OK",
    ]


def test_a_pool_with_a_file_has_no_nodes_in_it(inert, tmp_path):
    file = tmp_path / "nodes"
    file.write_text("127.0.0.1:81\n")
    configured(f"SET a.nodefile = {file}\nSET a.balance_method = least_used\nSET a.eject_failures = 3", inert)
    lines = ask(inert, "dumpconfig")
    assert lines[: lines.index("")] == [
        "CREATE POOL a",
        f"  SET nodefile = {file}",
        "  SET balance_method = least_used",
        "  SET eject_failures = 3",
    ]


def test_two_timeouts_that_were_set_as_one_are_told_as_two(inert):
    configured("SET rp.persist_client_timeout = 7", inert)
    lines = ask(inert, "dumpconfig")
    assert [line for line in lines if "timeout" in line] == [
        "  SET idle_timeout = 7",
        "  SET persist_client_idle_timeout = 7",
    ]


def test_another_service_is_told_by_its_name(inert):
    configured("SET sel.default_service = ws", inert)
    assert "  SET default_service = ws" in ask(inert, "dumpconfig")


def test_what_plugins_have_added_is_told_where_it_is_not_the_default(inert):
    configured("LOAD maxcontentlength\nLOAD redirect\nSET ws.plugins = redirect\nSET ws.max_content_length = 5", inert)
    configured("SET rp.max_content_length = 0\nUSE ws\nREDIRECT HOST a b", inert)
    lines = ask(inert, "dumpconfig")
    begin = lines.index("CREATE SERVICE ws")
    assert lines[begin + 2 : lines.index("ENABLE ws")] == [
        "  SET docroot = /tmp",
        "  SET max_content_length = 5",
        "  REDIRECT HOST a b",
    ]
    assert sum("max_content_length" in line for line in lines) == 1


def test_an_empty_world_and_a_word_too_many():
    world = inert_world()
    assert ask(world, "dumpconfig") == ["OK"]
    assert ask(world, "dumpconfig all") == ["ERROR: The 'dumpconfig' command takes no arguments"]
