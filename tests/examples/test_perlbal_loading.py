"""Loading a configuration from a file: which lines are executed, and where errors are told to be."""

from __future__ import annotations

import pytest

from perlbal.commands import Context
from perlbal.language import CommandError
from perlbal.loading import load_file
from perlbal_worlds import inert_world


@pytest.fixture
def load(tmp_path):
    """`load(data, **options)`: the world, whether all went well, and what was told, in which `F` is the file's name."""

    def load(data, **options):
        file = tmp_path / "f"
        file.write_bytes(data if isinstance(data, bytes) else data.encode())
        world, told = inert_world(), []
        good = load_file(world, str(file), told.append, **options)
        return world, good, [line.replace(str(file), "F") for line in told]

    return load


def test_a_good_file_tells_nothing(load):
    world, good, told = load("CREATE SERVICE a\n  SET role = web_server\n\n# a comment\nCREATE POOL b")
    assert (good, told) == (True, [])
    assert (world.services["a"].role_name, list(world.pools)) == ("web_server", ["b"])


@pytest.mark.parametrize("data", ["", "\n\n", "# nothing", "   "])
def test_a_file_with_nothing_in_it(load, data):
    world, good, told = load(data)
    assert (good, told, world.services) == (True, [], {})


def test_the_first_error_is_told_with_its_line_and_is_the_end(load):
    world, good, told = load("CREATE SERVICE a\n\n# a comment\nSET foo = bar\nnonsense\nCREATE SERVICE b\n")
    assert (good, told) == (False, ["F:4: ERROR: Unknown service parameter 'foo'"])
    assert list(world.services) == ["a"]


def test_all_errors_may_be_asked_for(load):
    world, good, told = load("CREATE SERVICE a\nSET foo = bar\nnonsense\n!\nCREATE SERVICE b", all_errors=True)
    assert good is False
    assert told == [
        "F:2: ERROR: Unknown service parameter 'foo'",
        "F:3: ERROR: unknown command: nonsense",
        "F:4: ERROR: invalid command",
    ]
    assert list(world.services) == ["a", "b"]


def test_an_error_of_several_lines_has_its_place_once(load):
    _, good, told = load("CREATE SERVICE a\nSET role = web_server\nSET plugins = x y")
    assert good is False
    assert told == [
        "F:3: ERROR: Plugin x not loaded; not registered for a.",
        "Plugin y not loaded; not registered for a.",
    ]


def test_what_is_no_error_is_told_as_it_is(load):
    _, good, told = load("CREATE POOL a\nVERBOSE on\nCREATE POOL b\nSHOW POOL")
    assert good
    assert told == ["OK", "OK", "a nodes 0", "a services 0", "b nodes 0", "b services 0", "."]


def test_a_fault_in_a_command_is_told_with_its_line_too(load, caplog, monkeypatch):
    def broken(world, name):
        raise RuntimeError("broken")

    monkeypatch.setattr("perlbal.services.World.create_service", broken)
    _, good, told = load("\nCREATE SERVICE a")
    assert (good, told) == (False, ["F:2: ERROR: broken"])
    assert "RuntimeError: broken" in caplog.text


def test_lines_may_end_in_cr_lf_and_have_bytes_that_are_no_utf_8(load):
    world, good, told = load(b"CREATE SERVICE a\r\nSET a.extra.name = \xe9\xff\r\n# \x80\r\nCREATE SERVICE b\r\n")
    assert (good, told) == (True, [])
    assert (world.services["a"].extra, list(world.services)) == ({"name": "\xe9\xff"}, ["a", "b"])


def test_a_file_has_a_context_of_its_own_or_the_one_that_is_handed(load):
    context = Context()
    load("CREATE SERVICE a\nCREATE POOL p", context=context)
    assert context.name == "p"
    _, _, told = load("SET role = web_server", context=Context("a"))
    assert told == ["F:1: ERROR: service/pool 'a' does not exist"]
    _, _, told = load("SET role = web_server")
    assert told == ["F:1: ERROR: omitted service/pool name not implied from context"]


def test_what_cannot_be_read(tmp_path):
    told = []
    for path, error in [(tmp_path / "none", "No such file or directory"), (tmp_path, "Is a directory")]:
        with pytest.raises(CommandError, match=f"Error opening config file .{path}.: {error}"):
            load_file(inert_world(), str(path), told.append)
    assert told == []
