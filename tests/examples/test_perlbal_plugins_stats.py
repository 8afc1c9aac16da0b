"""Stats: what is counted, and how it is listed."""

from __future__ import annotations

import re

import dangagreen as d
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


def counts(world, name):
    """What `stats` tells of a service, in the order of its lines."""
    return [int(line.split()[-1]) for line in ask(world, "stats") if line.split()[0] == name]


def test_services_are_counted_by_themselves_and_in_all(tmp_path):
    text = f"LOAD stats\n{web(tmp_path, 'one', 'stats')}\n{web(tmp_path, 'two', 'stats')}\n{web(tmp_path, 'three')}"
    with serving(text) as world:
        assert counts(world, "total") == [0, 0, 0, 0, 0]
        for name in "one", "two", "two", "three":
            get(world, name)
        assert [counts(world, name) for name in ("one", "two", "three", "total")] == [
            [0, 1, 0, 0, 1],
            [0, 2, 0, 0, 2],
            [],
            [0, 3, 0, 0, 3],
        ]
        configured("SET two.plugins = stats", world)  # counts anew
        assert counts(world, "two") == [0] * 5
        configured("UNLOAD stats", world)
        for word in "stats", "recent":
            assert ask(world, word) == [f"ERROR: unknown command: {word}"]


def test_a_file_in_place_of_an_answer_is_counted(proxied):
    world, _ = proxied
    configured("SET rp.plugins = stats", world)
    world.services["rp"].run_hooks("start_file_reproxy", None)
    assert counts(world, "rp") == [1, 0, 0, 0, 0]


def test_of_so_many_the_last_hundred_are_told(proxied):
    world, _ = proxied
    configured("SET rp.plugins = stats", world)
    for number in range(103):
        assert get(world, "rp", f"/{number}")[2] == b"hi"
    recent = ask(world, "recent")
    assert recent.pop() == "."
    assert [line.split()[-1] for line in recent] == [f"http://unknown/{number}" for number in range(3, 103)]
    assert counts(world, "rp")[2] == 103
    assert all(re.fullmatch(r"rp \d\.\d{4} http://unknown/\d+", line) for line in recent)


def test_of_a_request_that_gets_no_answer_nothing_is_kept(proxied):
    world, _ = proxied
    configured("SET rp.plugins = stats", world)
    record = world.plugins["stats"].states[world.services["rp"]]
    gone = d.Queue()
    refuse = d.serve(("127.0.0.1", 0), lambda sock: gone.put(sock.read_until(b"\r\n\r\n")))
    configured(f"CREATE POOL b\nPOOL b ADD 127.0.0.1:{refuse.address[1]}\nSET rp.pool = b", world)
    assert get(world, "rp")[0] == 502
    refuse.close()
    assert counts(world, "rp")[2] == 1
    assert (record.begun, ask(world, "recent")) == ({}, ["."])
