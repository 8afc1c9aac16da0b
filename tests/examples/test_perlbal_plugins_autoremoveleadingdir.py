"""AutoRemoveLeadingDir: which URIs lose their beginning."""

from __future__ import annotations

from perlbal_worlds import get, serving, web


def test_a_leading_directory_is_removed(tmp_path):
    text = "LOAD AutoRemoveLeadingDir\n" + web(tmp_path, "ws", "AutoRemoveLeadingDir")
    with serving(text) as world:
        assert get(world, "ws", f"/{tmp_path.name}/index.html")[2] == b"hello\n"
        assert get(world, "ws", "/index.html")[2] == b"hello\n"
