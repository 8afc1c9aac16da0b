"""anyio's pytest plugin, whose tests and fixtures are coroutines, on a loop of ours."""

from __future__ import annotations

import asyncio

import pytest

import dangagreen as d
from dangagreen import bridge
from dangagreen.bridge import to_task
from dangagreen.loop.loop import here
from tests.programs import needed

anyio = needed("anyio")
pytestmark = [pytest.mark.slow, pytest.mark.anyio]
loops = []


@pytest.fixture(scope="module", autouse=True)
def own_loop():
    """A dangagreen loop for the tests of this file, which the plugin's loop runs on."""
    yield
    here.loop.close()
    here.loop = None
    assert loops
    assert all(loop.is_closed() for loop in loops)


@pytest.fixture(scope="module")
def anyio_backend(own_loop):
    return "asyncio", {"loop_factory": bridge.EventLoop}


@pytest.fixture(scope="module")
async def listener(anyio_backend):
    """A server of ours, which a fixture that is a coroutine starts for all tests."""

    def shout(sock):
        for line in sock:
            sock.write_all(line.upper())

    with d.serve(("127.0.0.1", 0), shout) as listener:
        yield listener
        await anyio.sleep(0.001)


@pytest.fixture
async def group():
    async with anyio.create_task_group() as group:
        yield group
        group.cancel_scope.cancel()


async def test_the_loop_is_ours():
    loops.append(asyncio.get_running_loop())
    assert type(loops[-1]) is bridge.EventLoop


@pytest.mark.parametrize("line", [b"one\n", b"two\n"])
async def test_a_test_talks_to_the_server_of_a_fixture(listener, line):
    async with await anyio.connect_tcp(*listener.address) as stream:
        await stream.send(line)
        assert await stream.receive() == line.upper()


async def test_a_test_awaits_tasks():
    def ask(address):
        with d.connect(address) as sock:
            sock.write_all(b"hello\n")
            return sock.read_line()

    with d.serve(("127.0.0.1", 0), lambda sock: sock.write_all(sock.read_line())) as listener:
        assert await asyncio.gather(*(to_task(ask, listener.address) for _ in range(3))) == [b"hello\n"] * 3


async def test_a_group_of_a_fixture_goes_on_during_the_test(group):
    queue = d.Queue()

    async def produce():
        while True:
            await to_task(queue.put, "item")
            await anyio.sleep(0.001)

    group.start_soon(produce)
    assert [await to_task(queue.get) for _ in range(3)] == ["item"] * 3


async def test_a_failure_of_a_task_is_a_failure_of_the_test():
    def fails():
        d.sleep(0.001)
        raise ValueError("told")

    with pytest.raises(ValueError, match="told"):
        await to_task(fails)


async def test_a_test_with_a_time_limit():
    with pytest.raises(TimeoutError), anyio.fail_after(0.01):
        await to_task(d.sleep, 3600)
