"""Nodes and pools: what is a node, which one is chosen, and files of nodes."""

from __future__ import annotations

import os
import ssl
from collections import Counter
from pathlib import Path

import pytest

from dangagreen import run, sleep
from perlbal.language import CommandError
from perlbal.pools import LOOK_SECONDS, Nodes, Pool, parse_node


@pytest.mark.parametrize(
    ("text", "name", "address"),
    [
        ("10.0.0.1", "10.0.0.1:80", ("10.0.0.1", 80)),
        ("10.0.0.1:8080", "10.0.0.1:8080", ("10.0.0.1", 8080)),
        ("[::1]:8080", "[::1]:8080", ("::1", 8080)),
        ("[fe80::1%eth0]", "[fe80::1%eth0]:80", ("fe80::1%eth0", 80)),
        ("app-1.internal", "app-1.internal:80", ("app-1.internal", 80)),
        ("localhost:99", "localhost:99", ("localhost", 99)),
        ("unix:/run/app.sock", "unix:/run/app.sock", "/run/app.sock"),
    ],
)
def test_what_a_node_is(text: str, name: str, address: object) -> None:
    assert parse_node(text) == (name, address)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1.2.3.256",
        "1.2.3.4:",
        "1.2.3.4:0",
        "1.2.3.4:65536",
        "::1",
        "a b",
        "-a",
        "a-",
        "a..b",
        "unix:x",
        "a:b",
        "1",
        "10.0.1",
        "7:80",
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="no ip:port"):
        parse_node(text)


def pool_of(*names: str, method: str = "random") -> Pool:
    pool = Pool("a", Nodes())
    pool.balance_method = method
    for name in names:
        pool.add(name)
    return pool


def chosen(pool: Pool, times: int, now: float = 10.0) -> list[str]:
    return [node.name.partition(":")[0] for _ in range(times) if (node := pool.choose(now)) is not None]


def test_adding_again_makes_the_count_of_uses_0() -> None:
    pool = pool_of("1.1.1.1")
    chosen(pool, 3)
    assert list(pool.uses.values()) == [3]
    pool.add("1.1.1.1:80")
    assert list(pool.uses.values()) == [0]


def test_removing_tells_those_who_have_connections() -> None:
    pool = pool_of("1.1.1.1", "2.2.2.2")
    told: list[int] = []
    pool.on_change.append(lambda: told.append(len(pool.uses)))
    pool.remove("1.1.1.1")
    pool.remove("9.9.9.9")
    assert told == [1]


def test_at_random_each_gets_its_share() -> None:
    counts = Counter(chosen(pool_of("1.1.1.1", "2.2.2.2"), 400))
    assert min(counts.values()) > 100


def test_in_turn() -> None:
    pool = pool_of("1.1.1.1", "2.2.2.2", "3.3.3.3", method="round_robin")
    assert chosen(pool, 6) in (
        [["1.1.1.1", "2.2.2.2", "3.3.3.3"][(first + step) % 3] for step in range(6)] for first in range(3)
    )


def test_in_turn_a_dead_one_is_passed_over() -> None:
    pool = pool_of("1.1.1.1", "2.2.2.2", "3.3.3.3", method="round_robin")
    pool.nodes.named("2.2.2.2").dead_until = 100.0
    assert sorted(chosen(pool, 6)) == ["1.1.1.1"] * 3 + ["3.3.3.3"] * 3


def test_the_least_used() -> None:
    pool = pool_of("1.1.1.1", "2.2.2.2", method="least_used")
    pool.nodes.named("1.1.1.1").active = 2
    pool.nodes.named("2.2.2.2").active = 1
    assert chosen(pool, 5) == ["2.2.2.2"] * 5


def test_dead_nodes_are_passed_over_until_their_time_is_over() -> None:
    pool = pool_of("1.1.1.1", "2.2.2.2")
    pool.nodes.named("1.1.1.1").dead_until = 11.0
    assert chosen(pool, 20) == ["2.2.2.2"] * 20
    assert set(chosen(pool, 100, now=11.0)) == {"1.1.1.1", "2.2.2.2"}


def test_none_is_chosen_where_none_may_be() -> None:
    pool = pool_of("1.1.1.1")
    pool.nodes.named("1.1.1.1").dead_until = 11.0
    assert pool.choose(10.0) is None
    assert pool.choose(12.0, lambda node: True) is None
    assert pool_of().choose(0.0) is None


def test_a_node_that_fails_again_and_again_is_put_aside_and_returns() -> None:
    pool = pool_of("1.1.1.1", "2.2.2.2")
    pool.eject_failures = 2
    node = pool.nodes.named("1.1.1.1")
    node.has_failed(10.0, pool)
    assert set(chosen(pool, 100)) == {"1.1.1.1", "2.2.2.2"}
    node.has_failed(10.0, pool)
    assert chosen(pool, 20) == ["2.2.2.2"] * 20
    assert set(chosen(pool, 100, now=10.0 + pool.eject_seconds)) == {"1.1.1.1", "2.2.2.2"}


def test_if_all_were_put_aside_they_are_tried_all_the_same() -> None:
    pool = pool_of("1.1.1.1")
    pool.eject_failures = 1
    pool.nodes.named("1.1.1.1").has_failed(10.0, pool)
    assert chosen(pool, 1) == ["1.1.1.1"]


def test_parameters() -> None:
    pool = pool_of("1.1.1.1")
    pool.set("balance_method", "least_used")
    pool.set("eject_failures", "3")
    assert (pool.balance_method, pool.eject_failures) == ("least_used", 3)
    for key, text, words in (
        ("balance_method", "best", "Unknown balance method"),
        ("eject_failures", "x", "Expecting integer value for parameter 'eject_failures'"),
        ("nodefile", "/no/such/file", "File not found"),
        ("colour", "red", "Unknown pool parameter 'colour'"),
        ("tls_ca_file", "/no/such/file", "/no/such/file: No such file or directory"),
    ):
        pool.set("tls", "on")
        with pytest.raises(CommandError) as caught:
            pool.set(key, text)
        assert str(caught.value) == words
    assert pool.balance_method == "least_used"


def test_tls_to_nodes() -> None:
    pool = pool_of("1.1.1.1", "unix:/x")
    one, other = pool.uses
    assert pool.tls_options(one) == {}
    pool.set("tls", "on")
    pool.set("tls_verify", "off")
    options = pool.tls_options(one)
    assert (options["tls"].verify_mode, options["server_hostname"]) == (ssl.CERT_NONE, "1.1.1.1")
    assert pool.tls_options(other)["server_hostname"] == "localhost"
    pool.set("tls_name", "inner.example")
    assert pool.tls_options(other)["server_hostname"] == "inner.example"


# -- files of nodes


def test_a_file_of_nodes_has_comments_and_lines_that_are_skipped(tmp_path: Path) -> None:
    file = tmp_path / "nodes"
    file.write_text("# ours\n10.0.0.1\n  10.0.0.2:81 # the second\nno node\n\n10.0.0.1:80\n")
    pool = Pool("a", Nodes())
    pool.set_nodefile(str(file))
    assert [node.name for node in pool.uses] == ["10.0.0.1:80", "10.0.0.2:81"]


def test_a_file_that_is_not_there_changes_nothing(tmp_path: Path) -> None:
    pool = pool_of("1.1.1.1")
    with pytest.raises(CommandError, match="File not found"):
        pool.set_nodefile(str(tmp_path / "nodes"))
    assert (pool.nodefile, len(pool.uses)) == (None, 1)


def test_a_file_that_changes_is_read_again_and_counts_stay(tmp_path: Path) -> None:
    file = tmp_path / "nodes"
    file.write_text("10.0.0.1\n")
    pool = Pool("a", Nodes())
    pool.look_seconds = 0.01
    pool.set_nodefile(str(file))
    chosen(pool, 2)

    def main() -> list[tuple[str, int]]:
        pool.watch_nodefile()
        file.write_text("10.0.0.1\n10.0.0.2\n")
        os.utime(file, (1, 1))
        while len(pool.uses) < 2:
            sleep(0.005)
        file.unlink()  # about to be replaced
        sleep(0.03)
        return [(node.name, count) for node, count in pool.uses.items()]

    assert run(main) == [("10.0.0.1:80", 2), ("10.0.0.2:80", 0)]
    assert LOOK_SECONDS == Pool.look_seconds == 3.0


def test_without_a_file_nothing_is_watched_any_more(tmp_path: Path) -> None:
    file = tmp_path / "nodes"
    file.write_text("10.0.0.1\n")
    pool = Pool("a", Nodes())
    pool.set_nodefile(str(file))

    def main() -> None:
        pool.watch_nodefile()
        pool.set_nodefile(None)
        assert pool.nodefile is None

    run(main)
    assert [node.name for node in pool.uses] == ["10.0.0.1:80"]
