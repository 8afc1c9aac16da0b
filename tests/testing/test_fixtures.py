"""The fixtures of the pytest plugin, servers above all; the marker is the plugin's."""

from __future__ import annotations

import re

from tests.testing.runs import HANDLERS, text


def test_a_server_ends_with_its_test_on_either_clock(tried):
    result = tried(
        HANDLERS
        + """
pytestmark = pytest.mark.dangagreen
addresses = []

def test_it(server):
    addresses.append(server(echo).address)
    assert ask(addresses[0], b"hello\\n") == b"hello\\n"

def test_it_has_ended():
    with pytest.raises(ConnectionRefusedError):
        d.connect(addresses[0])

def test_virtual_clock(server, virtual_clock):
    address = server(echo).address
    with d.connect(address) as sock:
        sleep(1000)
        sock.write_all(b"hello\\n")
        assert sock.read_line() == b"hello\\n"

def test_requests(server):
    def handler(sock):
        sock.write_all(sock.read_line())
    assert ask(server(handler, start=d.serve_requests, backlog=5).address, b"x\\n") == b"x\\n"
"""
    )
    result.assert_outcomes(passed=4)


def test_a_connection_to_a_server_that_a_test_leaves_open_is_a_leak(tried):
    result = tried(
        HANDLERS
        + """
@pytest.mark.dangagreen
def test_it(server):
    sock = d.connect(server(echo).address)
    sock.write_all(b"hello\\n")
    sock.read_line()
"""
    )
    result.assert_outcomes(failed=1)
    assert "task: <Task echo, parked in read_line" in text(result)
    (line,) = [line for line in text(result).splitlines() if line.startswith("  socket: ")]  # of both ends
    assert re.fullmatch(
        r"  socket: Socket\(\): open to 127.0.0.1:(\d+), fd \d+, opened at .*\.py:\d+ by task 'test_it';"
        r" its other end: Socket\(R?\): open to 127.0.0.1:\d+, fd \d+, accepted at 127.0.0.1:\1",
        line,
    )


def test_a_server_may_outlive_a_test_and_what_it_does_not_handle_fails_the_test_of_the_moment(tried):
    result = tried(
        HANDLERS
        + """
addresses = set()

@pytest.fixture
def address(server):
    return server(echo, scope="module").address

@pytest.mark.dangagreen
@pytest.mark.parametrize("line", [b"good\\n", b"bad\\n", b"fine\\n"])
def test_it(address, line):
    addresses.add(address)
    assert ask(address, line) in (line, b"")

def test_plain_sockets_will_do(address):
    import socket
    addresses.add(address)
    with socket.create_connection(address, 5) as sock:
        sock.sendall(b"hello\\n")
        assert sock.recv(100) == b"hello\\n"

@pytest.mark.dangagreen
def test_it_is_one_server(server):
    addresses.add(server(echo, scope="module").address)
    assert len(addresses) == 1
    assert server(echo, scope="session").address not in addresses
"""
    )
    result.assert_outcomes(passed=4, failed=1)
    assert "test_it[bad\\n]" in text(result)
    assert "ValueError: a bad line" in text(result)


def test_what_a_server_leaves_that_outlives_a_test_is_told_at_its_end(tried):
    result = tried(
        """
def careless(sock):
    sock.loop.add_timer(100, print)

@pytest.mark.dangagreen
def test_it(server):
    with d.connect(server(careless, scope="module").address) as sock:
        sock.read_to_end(10)
"""
    )
    result.assert_outcomes(passed=1, errors=1)
    assert "a server has left behind:\n  timer: print" in text(result)


def test_fixtures_run_on_the_loop_of_the_test_and_may_park_before_it_and_after_it(tried):
    result = tried("""
import contextvars
name = contextvars.ContextVar("name")

@pytest.fixture
def echo(server):
    name.set("of the fixture")
    with d.connect(server(handler).address) as sock:
        yield sock
        sock.write_all(b"bye\\n")
        assert sock.read_line() == b"bye\\n"

def handler(sock):
    for line in sock:
        sock.write_all(line)

@pytest.mark.dangagreen
@pytest.mark.parametrize("n", range(2))
def test_it(echo, n):
    assert name.get() == "of the fixture"
    echo.write_all(b"hello\\n")
    assert echo.read_line() == b"hello\\n"
""")
    result.assert_outcomes(passed=2)


def test_what_fixtures_of_a_wider_scope_open_is_not_the_tests_whoever_asks_for_them_first(tried):
    result = tried("""
@pytest.fixture(scope="session")
def early():
    before = current_loop()
    fds = os.pipe()
    yield before, fds
    for fd in fds:
        os.close(fd)

@pytest.fixture(scope="module")
def late():
    fds = os.pipe()
    yield fds
    for fd in fds:
        os.close(fd)

@pytest.mark.dangagreen
@pytest.mark.parametrize("n", range(2))
def test_it(request, early, n):
    assert early[0] is not current_loop()
    request.getfixturevalue("late")
""")
    result.assert_outcomes(passed=2)


def test_the_loop_is_on_the_virtual_clock_if_a_fixture_asks_for_it(tried):
    result = tried("""
from dangagreen.testing import VirtualPoller

@pytest.fixture
def pair(wire):
    return wire()

def test_pair(loop, pair):
    assert isinstance(loop.poller, VirtualPoller)
    pair[0].send(b"x")
    assert pair[1].recv(1) == b"x"

@pytest.mark.usefixtures("virtual_clock")
def test_mark(loop):
    assert isinstance(loop.poller, VirtualPoller)

def test_real(loop):
    assert not isinstance(loop.poller, VirtualPoller)

def test_clock(virtual_clock):
    before = virtual_clock()
    virtual_clock.jump(5)
    assert current_loop().time() == before + 5
""")
    result.assert_outcomes(passed=4)
