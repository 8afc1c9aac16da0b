"""AutoRemoveLeadingDir: which URIs lose their beginning."""

from __future__ import annotations

from perlbal_worlds import get, serving, web


def test_a_leading_directory_is_removed(tmp_path):
    text = "LOAD AutoRemoveLeadingDir\n" + web(tmp_path, "ws", "AutoRemoveLeadingDir")
    with serving(text) as world:
        assert get(world, "ws", f"/{tmp_path.name}/index.html")[2] == b"hello\n"
        assert get(world, "ws", "/index.html")[2] == b"hello\n"


def test_only_a_whole_name_at_the_beginning_is_removed_and_only_once(tmp_path):
    name = tmp_path.name
    seen = []
    with serving("LOAD AutoRemoveLeadingDir\n" + web(tmp_path, "ws", "AutoRemoveLeadingDir")) as world:
        world.services["ws"].register_hook("T", "start_serve_request", lambda client: seen.append(client.head.uri))
        for uri in f"/{name}/a?b", f"/{name}", f"/{name}x/a", f"/a/{name}/b", f"/{name}/{name}/a", f"/{name}/":
            get(world, "ws", uri)
    assert seen == ["/a?b", f"/{name}", f"/{name}x/a", f"/a/{name}/b", f"/{name}/a", "/"]


def test_without_a_document_root_nothing_is_removed_of_a_name():
    with serving(
        "LOAD AutoRemoveLeadingDir\nCREATE SERVICE s\nSET role = web_server\nSET listen = 127.0.0.1:0\n"
        "SET plugins = AutoRemoveLeadingDir\nENABLE s"
    ) as world:
        assert get(world, "s", "/a/b")[::2] == (500, b"<h1>500 - Internal Server Error</h1>\nDocroot unconfigured")
