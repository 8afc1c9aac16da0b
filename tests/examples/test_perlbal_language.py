"""The command language of perlbal: what a line says, and what is no line."""

from __future__ import annotations

import re

import pytest

from perlbal.language import CommandError, Line, match, parse_line, without_arguments


def text(line: str) -> str | None:
    parsed = parse_line(line)
    return None if parsed is None else parsed.text


@pytest.mark.parametrize(
    ("line", "parsed"),
    [
        ("CREATE Service  Foo", "create service foo"),
        ("\t set  A.b =  C  D # a comment", "set a.b = C D"),
        ("SET a = B = C", "set a = B = C"),
        ("  # nothing", None),
        ("", None),
        (" \t ", None),
        ("a#b", "a"),
        ("SET a = x#y", "set a = x"),
    ],
)
def test_a_line(line, parsed):
    assert text(line) == parsed


def test_the_first_word_is_the_command():
    assert parse_line("LOAD Vhosts") == Line("load", "load vhosts", "LOAD Vhosts")


def test_variables_of_the_environment(monkeypatch):
    monkeypatch.setenv("PERLBAL_TEST", "Some/Where")
    monkeypatch.delenv("PERLBAL_NONE", raising=False)
    assert text("SET docroot = $PERLBAL_TEST/x") == "set docroot = Some/Where/x"
    assert text("SET $PERLBAL_TEST = 1") == "set some/where = 1"
    assert text("SET a = $PERLBAL_NONE;") == "set a = ;"
    assert text("$PERLBAL_NONE") is None


def test_the_address_of_an_interface():
    assert text("SET listen = ${ip:lo}:80") == "set listen = 127.0.0.1:80"


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("!x", "invalid command"),
        ("= 1", "invalid command"),
        ("SET a = ${ip:nosuch0}", "Can't find IP of interface 'nosuch0'"),
        ("SET a = ${ip:no such}", "Bogus-looking iface name"),
        ("SET a = ${foo}", "Unknown config variable: foo"),
        ("SET a = ${foo:bar}", "Unknown config variable type: foo"),
    ],
)
def test_what_is_no_line(line, error):
    with pytest.raises(CommandError) as refusal:
        parse_line(line)
    assert str(refusal.value) == error


def test_a_pattern_and_what_is_said_where_it_does_not_fit():
    line = parse_line("USE foo")
    assert match(line, re.compile(r"use (\w+)")) == ("foo",)
    for pattern, usage, error in [(r"use", "", "Invalid syntax to 'use' command"), (r"use", "usage: X", "usage: X")]:
        with pytest.raises(CommandError) as refusal:
            match(line, re.compile(pattern), usage)
        assert str(refusal.value) == error


def test_a_command_without_arguments():
    without_arguments(parse_line(" UPTIME  # yes"))
    with pytest.raises(CommandError) as refusal:
        without_arguments(parse_line("UPTIME 1"))
    assert str(refusal.value) == "The 'uptime' command takes no arguments"
