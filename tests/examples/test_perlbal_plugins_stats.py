"""Stats: what is counted, and how it is listed."""

from __future__ import annotations

from perlbal_worlds import ask, configured, get, serving, web


def test_stats(tmp_path):
    with serving("LOAD stats\n" + web(tmp_path, "ws", "stats")) as world:
        get(world, "ws")
        get(world, "ws", "/none")
        lines = ask(world, "stats")
        assert lines[:5] == [
            "ws              files_reproxied                      0",
            "ws              files_sent                           1",
            "ws              proxy_requests                       0",
            "ws              proxy_requests_highpri               0",
            "ws              web_requests                         2",
        ]
        assert lines[5:] == [line.replace("ws   ", "total", 1) for line in lines[:5]] + ["."]
        assert ask(world, "recent") == ["."]


def test_statistics_of_a_proxy(proxied):
    world, _ = proxied
    configured("SET rp.plugins = stats, highpri\nSET rp.highpri.uri_pattern = ^/fast", world)
    for path in "/", "/fast", "/":
        assert get(world, "rp", path, "Host: h")[2] == b"hi"
    lines = ask(world, "stats")
    assert lines[2:4] == [
        "rp              proxy_requests                       2",
        "rp              proxy_requests_highpri               1",
    ]
    recent = ask(world, "recent")
    assert [line.split(" ")[0::2] for line in recent[:-1]] == [
        ["rp", f"http://h{path}"] for path in ("/", "/fast", "/")
    ]
    assert all(0 <= float(line.split(" ")[1]) < 60 for line in recent[:-1])
