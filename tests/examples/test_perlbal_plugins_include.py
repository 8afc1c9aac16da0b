"""Include: configurations of several files."""

from __future__ import annotations

from perlbal_worlds import ask, configured


def test_include(tmp_path):
    (tmp_path / "a1.conf").write_text("CREATE SERVICE a1\nSET role = web_server\n")
    (tmp_path / "a2.conf").write_text("CREATE SERVICE a2\n")
    world = configured(f"LOAD include\nINCLUDE = {tmp_path}/a*.conf {tmp_path}/none*.conf")
    assert set(world.services) == {"a1", "a2"}
    assert ask(world, f"INCLUDE = {tmp_path}/none") == [
        f"ERROR: Error opening config file ({tmp_path}/none): No such file or directory"
    ]
    (answer,) = ask(world, f"INCLUDE = {tmp_path}/a1.conf")
    assert answer == f"ERROR: {tmp_path}/a1.conf:1: ERROR: service 'a1' already exists"
    assert ask(world, "INCLUDE") == ["ERROR: usage: INCLUDE = <config files>"]


def test_files_of_a_pattern_are_read_in_their_order_and_those_of_the_line_as_named(tmp_path):
    for name in "b2", "b1", "a":
        (tmp_path / f"{name}.conf").write_text(f"CREATE SERVICE {name}\n")
    world = configured(f"LOAD include\nINCLUDE = {tmp_path}/b[12].conf {tmp_path}/?.conf")
    assert list(world.services) == ["b1", "b2", "a"]


def test_a_file_may_include_another_and_errors_tell_where_they_are(tmp_path):
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    outer.write_text(f"CREATE SERVICE outer\nINCLUDE = {inner}\nCREATE SERVICE after\n")
    inner.write_text("CREATE SERVICE inner\nnonsense\nCREATE SERVICE never\n")
    world = configured("LOAD include")
    (answer,) = ask(world, f"INCLUDE = {outer}")
    assert answer.startswith(f"ERROR: {outer}:2: ERROR: ")
    assert answer.endswith(f"{inner}:2: ERROR: unknown command: nonsense")
    assert list(world.services) == ["outer", "inner"]


def test_a_file_has_a_context_of_its_own(tmp_path):
    file = tmp_path / "file"
    file.write_text("CREATE SERVICE inner\nSET role = web_server\n")
    world = configured(f"LOAD include\nCREATE SERVICE outer\nINCLUDE = {file}\nSET role = selector")
    assert [service.role_name for service in world.services.values()] == ["selector", "web_server"]
    file.write_text("SET role = web_server\n")
    assert ask(world, "USE outer", f"INCLUDE = {file}")[1:] == [
        f"ERROR: {file}:1: ERROR: omitted service/pool name not implied from context"
    ]


def test_where_a_configuration_is_only_checked_all_errors_are_told(tmp_path):
    file = tmp_path / "file"
    file.write_text("one\n\ntwo\n")
    world = configured("LOAD include")
    assert ask(world, f"INCLUDE = {file}") == [f"ERROR: {file}:1: ERROR: unknown command: one"]
    world.dry = True
    assert ask(world, f"INCLUDE = {file}") == [
        f"ERROR: {file}:1: ERROR: unknown command: one",
        f"{file}:3: ERROR: unknown command: two",
    ]


def test_what_files_have_listed_is_answered_and_a_directory_is_no_file(tmp_path):
    file = tmp_path / "file"
    file.write_text("CREATE POOL a\nSHOW POOL\n")
    world = configured("LOAD include")
    assert ask(world, f"INCLUDE={file}") == ["a nodes 0", "a services 0", "."]
    assert ask(world, f"INCLUDE = {tmp_path}") == [f"ERROR: Error opening config file ({tmp_path}): Is a directory"]
