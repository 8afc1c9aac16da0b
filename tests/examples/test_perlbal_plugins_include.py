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
