"""The attempts at the addresses of a host: their order and times (RFC 8305), what errors say, what stays open."""

from __future__ import annotations

import contextlib
import errno
import gc
import random
import socket

import pytest
from greenlet import GreenletExit

import dangagreen as d
from dangagreen.sockets.addresses import interleaved
from tests.certificates import client_context
from tests.net.networks import SILENT, Names, Network, NetworkSocket

REFUSED = errno.ECONNREFUSED
UNREACHABLE = errno.ENETUNREACH


@pytest.fixture
def network(loop, monkeypatch):
    """A function of `hosts` (in the order of the look-up) that has the name "host" have them."""

    def make(hosts, seconds=0.0):
        network = Network(loop, hosts)
        network.names = loop.resolver = Names({"host": list(hosts)}, seconds)
        monkeypatch.setattr(socket, "socket", network.socket)
        return network

    return make


def peers(network):
    """The hosts to which connections are open."""
    return [host for (_, host), sock in zip(network.tried, network.sockets, strict=True) if not sock.closed]


def test_the_first_address_that_answers_at_once_is_the_only_one_tried(network):
    net = network({"10.0.0.1": (0.2, 0), "::2": (0.1, 0)})
    with d.connect(("host", 80)):
        assert net.tried == [(0, "10.0.0.1")]
        assert peers(net) == ["10.0.0.1"]
        assert net.loop.clock() == 1000.2


def test_the_next_address_is_tried_after_a_quarter_of_a_second(network):
    net = network({"::1": SILENT, "::2": SILENT, "10.0.0.3": (0.1, 0), "10.0.0.4": (0, 0)})
    with d.connect(("host", 80)):
        assert net.tried == [(0, "::1"), (0.25, "10.0.0.3")]
        assert peers(net) == ["10.0.0.3"]
        assert net.loop.clock() == pytest.approx(1000.35)


@pytest.mark.parametrize("seconds", [None, 0.1])  # None: at once
def test_once_the_tls_handshake_has_begun_no_other_address_is_tried(network, seconds):
    net = network({"10.0.0.1": (seconds, 0), "10.0.0.2": (0, 0)})
    task = d.spawn(d.connect, ("host", 80), 2, tls=client_context())
    d.sleep(1.9)
    assert peers(net) == ["10.0.0.1"]
    assert "connect to ('host', 80), in the TLS handshake" in repr(task)
    task.join()
    with pytest.raises(TimeoutError, match="took longer than 2 s, with the TLS handshake"):
        task.result()
    assert net.loop.clock() == 1002
    d.sleep(0)
    assert net.tried == [(0, "10.0.0.1")]
    assert peers(net) == []


def test_families_take_turns_beginning_with_the_first_ones(network):
    net = network({"::1": SILENT, "::2": SILENT, "::3": SILENT, "10.0.0.4": SILENT, "10.0.0.5": SILENT, "::6": (0, 0)})
    with d.connect(("host", 80)):
        hosts = ["::1", "10.0.0.4", "::2", "10.0.0.5", "::3", "::6"]
        assert net.tried == [(0.25 * number, host) for number, host in enumerate(hosts)]


def test_a_failure_brings_the_next_attempt_at_once(network):
    net = network({"::1": (0.1, UNREACHABLE), "::2": (0.3, 0), "10.0.0.3": (None, REFUSED), "10.0.0.4": SILENT})
    with d.connect(("host", 80)):
        assert net.tried == [(0, "::1"), (0.1, "10.0.0.3"), (0.1, "::2"), (0.35, "10.0.0.4")]
        assert peers(net) == ["::2"]


def test_after_a_failure_the_next_but_one_waits_its_quarter_of_a_second_anew(network):
    net = network({"::1": (0.2, REFUSED), "10.0.0.2": SILENT, "::3": SILENT, "::4": (0, 0)})
    with d.connect(("host", 80)):
        assert net.tried == [(0, "::1"), (0.2, "10.0.0.2"), (0.45, "::3"), (0.7, "::4")]


def test_a_slow_answer_wins_if_it_is_the_first(network):
    net = network({"::1": (0.6, 0), "10.0.0.2": SILENT, "10.0.0.3": (0.2, 0)})
    with d.connect(("host", 80)):
        assert [host for _, host in net.tried] == ["::1", "10.0.0.2", "10.0.0.3"]
        assert peers(net) == ["::1"]


def test_of_two_that_answer_in_the_same_turn_one_is_taken_and_the_other_closed(network):
    net = network({"::1": (0.5, 0), "10.0.0.2": (0.25, 0)})
    with d.connect(("host", 80)):
        assert len(net.tried) == 2
        assert len(peers(net)) == 1


@pytest.mark.parametrize("first", [SILENT, (0.1, REFUSED)], ids=["given up", "failed"])
def test_an_attempt_whose_socket_says_an_error_when_it_closes_keeps_nobody_waiting(network, loop, monkeypatch, first):
    close, reported = NetworkSocket.close, []

    def close_with_an_error(self):
        close(self)
        raise OSError(errno.EIO, "close")

    monkeypatch.setattr(NetworkSocket, "close", close_with_an_error)
    loop.on_error = reported.append
    net = network({"::1": first, "10.0.0.2": (0.1, 0), "::3": SILENT})
    with d.connect(("host", 80), 5):
        assert peers(net) == ["10.0.0.2"]
    net = network({"::1": first, "::2": SILENT})
    with pytest.raises(TimeoutError):
        d.connect(("host", 80), 5)
    assert peers(net) == []
    assert {context.exception.errno for context in reported} == {errno.EIO}


def test_the_last_failure_ends_the_wait_only_when_none_is_under_way(network):
    net = network({"::1": (1, 0), "10.0.0.2": (0.1, REFUSED)})
    with d.connect(("host", 80)):
        assert peers(net) == ["::1"]
        assert net.loop.clock() == 1001


def test_an_address_that_is_named_twice_is_tried_once(network, loop):
    net = network({"10.0.0.1": (0.1, REFUSED)})
    loop.resolver.table["host"] *= 3
    with pytest.raises(ConnectionRefusedError):
        d.connect(("host", 80))
    assert net.tried == [(0, "10.0.0.1")]


def test_each_attempt_has_its_own_socket(network):
    net = network({"::1": (0.1, REFUSED), "::2": (0.1, REFUSED), "::3": (0.1, 0)})
    with d.connect(("host", 80)):
        assert [sock.closed for sock in net.sockets] == [True, True, False]


def test_random_addresses_are_interleaved():
    for seed in range(200):
        chance = random.Random(seed)
        found = [(chance.choice([4, 6]), number) for number in range(chance.randrange(1, 12))]
        order = interleaved(found)
        assert sorted(order) == sorted(found)
        assert order[0] == found[0]
        for family in (4, 6):  # within a family the resolver's order holds
            assert [one for one in order if one[0] == family] == [one for one in found if one[0] == family]
        shorter = min(sum(one[0] == family for one in found) for family in (4, 6))
        assert all(order[place][0] != order[place + 1][0] for place in range(2 * shorter - 1))


# -- what is told


def test_if_all_are_refused_the_error_says_so_and_names_each(network):
    network({"::1": (0.1, REFUSED), "10.0.0.2": (0.1, REFUSED)})
    with pytest.raises(ConnectionRefusedError) as caught:
        d.connect(("host", 80))
    assert caught.value.errno == REFUSED
    words = "cannot connect to ('host', 80): ::1: Connection refused; 10.0.0.2: Connection refused"
    assert caught.value.strerror == words


@pytest.mark.parametrize(
    ("numbers", "kind", "number"),
    [
        ((REFUSED, errno.ECONNRESET), ConnectionError, None),
        ((UNREACHABLE, REFUSED), OSError, None),
        ((UNREACHABLE, UNREACHABLE), OSError, UNREACHABLE),
        ((errno.ETIMEDOUT, errno.ETIMEDOUT), TimeoutError, errno.ETIMEDOUT),
        ((errno.ETIMEDOUT, errno.EHOSTUNREACH), OSError, None),
    ],
)
def test_the_error_is_of_the_class_that_all_failures_have(network, numbers, kind, number):
    network({"::1": (0.1, numbers[0]), "10.0.0.2": (0.2, numbers[1])})
    with pytest.raises(OSError, match=r"::1: .*; 10\.0\.0\.2: ") as caught:
        d.connect(("host", 80))
    assert type(caught.value) is kind
    assert caught.value.errno == number


def test_a_name_with_one_address_is_told_with_it(network):
    network({"10.0.0.1": (0.1, REFUSED)})
    with pytest.raises(ConnectionRefusedError, match=r"cannot connect to \('host', 80\): 10.0.0.1: Connection refused"):
        d.connect(("host", 80))


def test_a_name_without_addresses(network):
    network({})
    with pytest.raises(OSError, match=r"\('host', 80\) has no address to connect to"):
        d.connect(("host", 80))


def test_the_timeout_covers_look_up_and_attempts_and_tells_how_far_it_came(network):
    net = network({"::1": (0.1, REFUSED), "10.0.0.2": SILENT, "::3": SILENT}, seconds=1.5)
    with pytest.raises(TimeoutError) as caught:
        d.connect(("host", 80), 2)
    assert net.loop.clock() == 1002
    tried = "::1: Connection refused; 10.0.0.2: no answer; ::3: no answer"
    assert str(caught.value) == f"connecting to ('host', 80) took longer than 2 s: {tried}"


def test_a_timeout_of_the_look_up_says_so(network):
    net = network({"::1": (0.1, 0)}, seconds=60)
    with pytest.raises(TimeoutError, match="to look the name up alone"):
        d.connect(("host", 80), 2)
    assert net.loop.clock() == 1002
    assert net.tried == []


@pytest.mark.parametrize("number", [0, REFUSED])
def test_attempts_leave_no_work_to_the_collector(network, uncollected, number):
    network({"::1": (None, REFUSED), "::2": SILENT, "10.0.0.3": (0.1, REFUSED), "10.0.0.4": (0.1, number)})
    with contextlib.suppress(TimeoutError):
        d.connect(("host", 80), 3).close()
    d.sleep(0)
    assert gc.collect() == 0


# -- local_address


def test_only_addresses_of_the_local_family_are_tried(network):
    net = network({"::1": (0.1, 0), "10.0.0.2": (0.1, REFUSED), "10.0.0.3": (0.1, 0)})
    with d.connect(("host", 80), local_address=("10.0.0.9", 0)):
        assert net.tried == [(0, "10.0.0.2"), (0.1, "10.0.0.3")]
        assert {sock.bound for sock in net.sockets} == {("10.0.0.9", 0)}


def test_no_address_is_of_the_local_family(network):
    network({"::1": (0.1, 0)})
    with pytest.raises(OSError, match="has no address of the family of the local address"):
        d.connect(("host", 80), local_address=("10.0.0.9", 0))


def test_an_empty_local_host_is_any(network):
    net = network({"::1": (0.1, REFUSED), "10.0.0.2": (0.1, 0)})
    with d.connect(("host", 80), local_address=("", 7)):
        assert [sock.bound for sock in net.sockets] == [("::", 7), ("0.0.0.0", 7)]


@pytest.mark.parametrize("local", ["/a/path", ("some.host", 0), ("ü", 0)])
def test_a_local_address_is_numeric(loop, local):
    with pytest.raises(ValueError, match="local_address"):
        d.connect(("127.0.0.1", 1), local_address=local)


def test_a_local_address_is_for_tcp(loop):
    with pytest.raises(ValueError, match="local_address is for TCP"):
        d.connect("/a/path", local_address=("127.0.0.1", 0))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_connection_from_a_local_address(real_loop, host):
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as server:
        with socket.socket(server.family) as probe:
            probe.bind((host, 0))
            port = probe.getsockname()[1]
        with d.connect(server.getsockname()[:2], local_address=(host, port)):
            accepted, address = server.accept()
            accepted.close()
            assert address[:2] == (host, port)


def test_a_local_address_that_is_taken(real_loop, free_address):
    with pytest.raises(OSError, match=r"cannot connect to .*: Address already in use"):
        d.connect(("127.0.0.1", 1), local_address=free_address)


# -- nothing is left open


def random_hosts(chance):
    hosts = [f"{chance.choice(['::', '10.0.0.'])}{number}" for number in range(1, chance.randrange(2, 7))]
    answers = [SILENT, SILENT, (None, REFUSED), (None, UNREACHABLE), *((chance.random(), 0) for _ in range(2))]
    answers += [(chance.random(), REFUSED), (chance.random(), UNREACHABLE), (None, 0)]
    return {host: chance.choice(answers) for host in hosts}


@pytest.mark.parametrize("seed", range(200))
def test_whatever_is_cancelled_whenever_nothing_is_left_open(network, loop, seed):
    chance = random.Random(seed)
    net = network(random_hosts(chance), chance.choice([0, 0.2]))

    def work():
        with contextlib.suppress(OSError), d.connect(("host", 80), chance.choice([None, 0, chance.random(), 3])):
            assert len(net.open) == 1
            d.sleep(chance.random() / 3)

    task = d.spawn(work)
    ways = [task.cancel, loop.stop, lambda: None, lambda: task.cancel("again")]
    timers = [loop.add_timer(chance.choice([0, 0.25, chance.random()]), chance.choice(ways)) for _ in range(2)]
    if chance.random() < 0.2:  # at the very moment of an answer
        moments = [host[0] or 0 for host in net.hosts.values() if host]
        timers.append(loop.add_timer(chance.choice(moments or [0]), task.cancel))
    timers.append(loop.add_timer(4, task.cancel))
    if chance.random() < 0.3:
        loop.run(lambda: loop.clock() >= 1000 + chance.random())
        loop.reset()
    with contextlib.suppress(d.TaskCancelledError, GreenletExit):
        task.join()
        task.result()
    for timer in timers:
        timer.cancel()
    d.sleep(0)
    assert net.open == []
