"""ddlockd's store of files, by the server as a program."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lock_clients import NAMES, OK, TAKEN, ask
from programs import connected, expect


def test_files_stay_in_their_directory(ddlockd: Any, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "locks"
    folder.mkdir(parents=True)
    (folder / "=foreign").write_text("not ours")
    program = ddlockd("--type=dlmfs", f"--directory={folder}")
    with connected(program.ports[0]) as one:
        for name in NAMES:
            assert ask(one, b"trylock lock=" + name) == OK
        assert ask(one, b"trylock lock=foreign") == TAKEN
        files = {path.relative_to(tmp_path).parent.as_posix() for path in tmp_path.rglob("*") if path.name[0] in "=#"}
        assert files == {"deep/locks"}
        lock = json.loads((folder / "=plain").read_text())
        assert lock["server"].endswith(f"127.0.0.1:{program.ports[0]}")
    expect(lambda: [path.name for path in folder.iterdir()] == ["=foreign"])


def test_a_directory_that_goes_and_comes_back(ddlockd: Any, tmp_path: Path) -> None:
    folder = tmp_path / "locks"
    folder.mkdir()
    program = ddlockd("--type=dlmfs", f"--directory={folder}")
    with connected(program.ports[0]) as one:
        assert ask(one, b"trylock lock=x") == OK
        folder.rename(tmp_path / "away")
        assert ask(one, b"trylock lock=y").startswith(b"ERR store_failed ")
        (tmp_path / "away").rename(folder)
        assert ask(one, b"trylock lock=y") == OK
        assert ask(one, b"trylock lock=x") == TAKEN
    assert "FileNotFoundError" in program.errors.read_text()
    program.errors.write_text("")
