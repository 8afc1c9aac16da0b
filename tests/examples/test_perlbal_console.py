"""Commands of perlbal that list: their lines as scripts read them, and what they say while requests are served."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

import dangagreen as d
from perlbal.clients import clients_of
from perlbal.services import World
from perlbal_worlds import EACH_ROLE, ask, configured, get


class Backend:
    """A server that answers each request when it is told to."""

    def __init__(self) -> None:
        self.asked, self.go_on = d.Queue(), d.Queue()
        self.listener = d.serve(("127.0.0.1", 0), self.answer)
        self.port = self.listener.address[1]

    def answer(self, sock: d.Socket) -> None:
        while True:
            self.asked.put(sock.read_until(b"\r\n\r\n"))
            self.go_on.get()
            sock.write_all(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi")


@pytest.fixture
def both() -> Iterator[tuple[World, Backend]]:
    d.Socket.reset()
    backend = Backend()
    world = configured(EACH_ROLE.format(backend=backend.port))
    yield world, backend
    for service in world.services.values():
        if service.enabled:
            if service.listener is not None:
                service.listener.close()
            service.role.closed()
    backend.listener.close()
    d.Socket.reset()


@pytest.fixture
def world(both: tuple[World, Backend]) -> World:
    return both[0]


def test_services(both):
    world, backend = both
    assert ask(world, "show service") == [
        "rp 127.0.0.1:0 ENABLED",
        "sel not_listening ENABLED",
        "ws not_listening DISABLED",
        ".",
    ]
    assert ask(world, "show service RP") == [
        "SERVICE rp",
        "     listening: 127.0.0.1:0",
        "          role: reverse_proxy",
        "  pend clients: 0",
        "  pend backend: 0",
        " connect-ahead: 0/0",
        "          pool: a",
        "         nodes:",
        f"                {f'127.0.0.1:{backend.port}':<21}       0",
        ".",
    ]
    assert ask(world, "show service ws")[-2:] == ["        docroot: /", "."]
    assert ask(world, "show service sel") == ["SERVICE sel", "     listening: --", "          role: selector", "."]
    assert ask(world, "show service no") == ["ERROR: Unknown service"]
    assert ask(world, "show") == ["ERROR: Invalid syntax to 'show' command"]


def test_pools(both):
    world, backend = both
    assert ask(world, "show pool") == ["a nodes 1", "a services 1", "b nodes 0", "b services 0", "."]
    assert ask(world, "show pool a") == [f"127.0.0.1:{backend.port} 0", "."]
    assert ask(world, "show pool c") == ["ERROR: pool 'c' does not exist"]


def test_what_is_going_on(both):
    world, backend = both
    assert ask(world, "states") == ["."]
    node = f"127.0.0.1:{backend.port}"
    with d.connect(world.services["rp"].listener.address) as sock:
        sock.write_all(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        backend.asked.get()
        assert ask(world, "states") == ["Perlbal::BackendHTTP wait_res 1", "Perlbal::ClientProxy wait_res 1", "."]
        assert ask(world, "states rp") == ask(world, "states")
        assert ask(world, "states ws") == ["."]
        assert ask(world, "backends") == [f"{node} 1", "."]
        lines = ask(world, "socks")
        assert lines[0] == "   fd    age"
        assert re.fullmatch(
            r" +\d+ +0s Perlbal::TCPListener\(R\): open: listening on 127.0.0.1:0 for service 'rp'", lines[1]
        )
        assert sum("Perlbal::ClientProxy(R): open to 127.0.0.1:" in line for line in lines) == 1
        assert sum(f"Perlbal::BackendHTTP(R): open to {node}" in line for line in lines) == 1
        (client,) = clients_of(world)
        client.created -= 61
        assert sum(bool(re.match(r" +\d+ +6\ds Perlbal::ClientProxy", line)) for line in ask(world, "socks")) == 1
        assert ask(world, "socks summary") == [
            "    1 Perlbal::BackendHTTP",
            "    1 Perlbal::ClientProxy",
            "    1 Perlbal::TCPListener",
            "Aggregate write buffer: 0.0k",
            "            Open files: 0",
            ".",
        ]
        backend.go_on.put(None)
        assert sock.read_until(b"hi")
        d.sleep(0)
        assert ask(world, "states") == ["Perlbal::BackendHTTP bored 1", "Perlbal::ClientProxy persist_wait 1", "."]
    lines = ask(world, "nodes")
    assert [line.rpartition(" ")[0] for line in lines[:-1]] == [
        f"{node} {key}"
        for key in (
            "attempts",
            "connects",
            "lastattempt",
            "lastconnect",
            "lastresponse",
            "requests",
            "responsecodes 200",
        )
    ]
    assert lines[-2] == f"{node} responsecodes 200 1"
    assert ask(world, f"node {node}") == lines
    assert ask(world, "nodes 127.0.0.2") == ["."]
    assert ask(world, "states no") == ["ERROR: Service not found."]


def test_who_waits(both):
    world, _ = both
    configured("POOL b ADD 192.0.2.1\nSET rp.pool = b", world)  # where nobody answers
    with d.connect(world.services["rp"].listener.address) as sock:
        sock.write_all(b"GET / HTTP/1.0\r\n\r\n")
        while "rp-normal.count 1" not in ask(world, "queues"):
            d.sleep(0)
        assert ask(world, "queues") == [
            line
            for name, count in (("normal", 1), ("highpri", 0), ("lowpri", 0))
            for line in (f"rp-{name}.age 0", f"rp-{name}.count {count}")
        ] + ["."]
        assert ask(world, "pending") in (["rp 192.0.2.1:80 0", "."], ["."])  # without a network it fails at once


def test_nodes_that_are_not_verified(world):
    (node,) = world.nodes.values()
    assert ask(world, "noverify") == ["."]
    node.unverified_until = d.current_loop().clock() + 30.5
    assert ask(world, "noverify") == [f"{node.name} 30", "."]


def test_the_process(world):
    lines = ask(world, "proc")
    assert [re.sub(r"[\d.]+", "N", line) for line in lines] == [
        "time: N",
        "pid: N",
        "utime: N (+N)",
        "stime: N (+N)",
        "reqs: N (+N)",
        "N",
    ]
    configured("SET ws.listen = 127.0.0.1:0\nENABLE ws", world)
    get(world, "ws", "/none/here")
    assert ask(world, "proc")[4] == "reqs: 1 (+1)"
    assert ask(world, "proc")[4] == "reqs: 1 (+0)"
    lines = ask(world, "uptime")
    assert [line.partition(" ")[0] for line in lines] == ["starttime", "uptime", "version", "."]
    assert lines[2] == "version 1.80"
    assert ask(world, "version") == lines
    assert [line.partition(" ")[0] for line in ask(world, "fd")] == ["max", "cur", "."]


def test_mime_types(world):
    listed = ask(world, "mime")
    assert "css text/css" in listed
    assert listed == [*sorted(listed[:-1]), "."]
    assert ask(world, "mime list") == listed
    assert ask(world, "mime set foo Text/x-foo", "mime set foo text/x-foo") == [
        "foo set to text/x-foo.",
        "foo set to text/x-foo.",
    ]
    assert "foo text/x-foo" in ask(world, "mime list")
    assert ask(world, "mime remove foo", "mime remove foo", "mime remove") == [
        "foo removed.",
        "ERROR: foo not a defined extension.",
        "ERROR:  not a defined extension.",
    ]
    assert ask(world, "mime set foo") == ["ERROR: Usage: set <ext> <mime>"]
    assert ask(world, "mime blah") == ["ERROR: Usage: list, remove <ext>, set <ext> <mime>"]
    assert ask(world, "mime list", "mime a b c d")[-1] == "ERROR: Invalid syntax to 'mime' command"


def test_help_lists_the_words_of_plugins_as_well(world):
    before = ask(world, "help")
    assert before == [*sorted(before[:-1]), "."]
    assert {"show", "set", "dumpconfig", "xs"} <= set(before)
    configured("LOAD vhosts", world)
    assert set(ask(world, "help")) - set(before) == {"vhost"}


def test_connections_to_reproxied_urls(world):
    configured("SERVER max_reproxy_connections = 5\nSERVER max_reproxy_connections(1.2.3.4:80) = 2", world)
    assert ask(world, "reproxy_state") == [
        "SERVER max_reproxy_connections = 5",
        "SERVER max_reproxy_connections(1.2.3.4:80) = 2",
        ".",
    ]


def test_the_faster_parser_of_the_original_is_accepted(world):
    assert ask(world, "xs enable headers", "xs disable headers", "xs enable foo", "xs foo headers") == [
        "OK",
        "Module disabled.",
        "ERROR: Known XS modules: headers.",
        "ERROR: Usage: xs [ <enable|disable> <module> ]",
    ]
    assert ask(world, "xs")[-1] == "."


def test_a_profile(both):
    world, backend = both
    assert ask(world, "prof on") == ["OK"]
    with d.connect(world.services["rp"].listener.address) as sock:
        sock.write_all(b"GET / HTTP/1.0\r\n\r\n")
        backend.asked.get()
    assert ask(world, "prof off") == ["OK"]
    lines = ask(world, "prof data")
    assert any(re.fullmatch(r"Client-read 0\.\d{5} 0\.\d{5} \d+ 0\.\d{7} 0\.\d{7}", line) for line in lines)
    assert ask(world, "prof") == ["ERROR: Invalid syntax to 'prof' command"]


def test_shutdown_says_how_much_time_there_is(world):
    graces: list[float | None] = []
    world.stop = graces.append
    assert ask(world, "shutdown", "shutdown graceful", "shutdown graceful 7", "shutdown now") == [
        "OK",
        "OK",
        "ERROR: Invalid syntax to 'shutdown' command",
    ]
    assert graces == [0.0, None, 7.0]
