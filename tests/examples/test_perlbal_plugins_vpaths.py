"""Vpaths: which service a URI chooses."""

from __future__ import annotations

import pytest

from perlbal_worlds import ask, configured, get, serving, web


def test_vpaths(tmp_path):
    text = "LOAD vpaths\n" + web(tmp_path)
    text += "\nCREATE SERVICE s\nSET role = selector\nSET listen = 127.0.0.1:0\nSET plugins = vpaths\n"
    text += "VPATH /index = ws\nVPATH s ^/gone = gone\nENABLE s"
    with serving(text) as world:
        assert get(world, "s", "/index.html")[2] == b"hello\n"
        assert get(world, "s", "/gone")[::2] == (
            404,
            b"<h1>404 - Not Found</h1>\nNot Found (gone not a defined service)",
        )
        assert get(world, "s", "/")[0] == 404
        configured("SET s.default_service = ws", world)
        assert get(world, "s", "/")[2] == b"hello\n"
        assert ask(world, "VPATH s ( = ws") == ["ERROR: invalid regular expression: '('"]
        assert ask(world, "VPATH ws x = ws") == ["ERROR: Service 'ws' is not a selector service"]
        assert "  VPATH /index = ws" in ask(world, "dumpconfig")


@pytest.fixture
def two(tmp_path):
    """A selector with Vpaths before two web servers, which serve their names."""
    (tmp_path / "two").mkdir()
    text = f"LOAD vpaths\n{web(tmp_path)}\n{web(tmp_path / 'two', 'two')}\nCREATE SERVICE s\nSET role = selector\n"
    (tmp_path / "two" / "index.html").write_text("two")
    with serving(text + "SET listen = 127.0.0.1:0\nSET plugins = vpaths\nENABLE s") as world:
        yield world


def test_the_first_pattern_that_matches_decides(two):
    configured("VPATH s ^/index = TWO\nVPATH s index = ws", two)
    assert get(two, "s", "/index.html")[2] == b"two"
    configured("SET s.plugins = vpaths\nVPATH s index = ws\nVPATH s ^/index = two", two)
    assert get(two, "s", "/index.html")[2] == b"hello\n"


def test_the_query_is_a_part_of_what_is_matched_and_the_letter_case_counts(two):
    configured("VPATH s b=C$ = two", two)
    assert get(two, "s", "/?b=c")[0] == 404  # the pattern was lower-cased, with all that is left of `=`
    configured("VPATH s [?]b = ws", two)
    assert get(two, "s", "/?b")[2] == b"hello\n"
    assert get(two, "s", "/?B")[0] == 404


def test_what_none_matches(two):
    assert get(two, "s")[::2] == (404, b"<h1>404 - Not Found</h1>\nNot Found (no configured vpath)")


def test_setting_the_plugins_anew_empties_the_list_and_a_dump_makes_it_again(two):
    configured("VPATH s /b = two\nVPATH s /a = ws", two)
    lines = [line.strip() for line in ask(two, "dumpconfig") if "  VPATH" in line]
    assert lines == ["VPATH /b = two", "VPATH /a = ws"]
    configured("SET s.plugins = vpaths", two)
    assert not [line for line in ask(two, "dumpconfig") if "  VPATH" in line]
    configured("USE s\n" + "\n".join(lines), two)
    assert [line.strip() for line in ask(two, "dumpconfig") if "  VPATH" in line] == lines


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("vpath", "usage: VPATH [<service>] <path regex> = <dest_service>"),
        ("vpath s x", "usage: VPATH [<service>] <path regex> = <dest_service>"),
        ("vpath s [ = ws", "invalid regular expression: '['"),
        ("vpath none x = ws", "Service 'none' is not a selector service"),
        ("vpath x = ws", "omitted service name not implied from context"),
    ],
)
def test_errors(two, line, error):
    assert ask(two, line) == [f"ERROR: {error}"]
    assert not [line for line in ask(two, "dumpconfig") if "  VPATH" in line]
