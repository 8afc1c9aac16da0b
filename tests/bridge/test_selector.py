"""How an asyncio loop waits: by our clock and our pollers, side by side with tasks."""

from __future__ import annotations

import asyncio
import socket

import pytest

import dangagreen as d
from dangagreen import bridge
from dangagreen.bridge import await_
from dangagreen.loop.loop import Loop
from dangagreen.loop.pollers import available_pollers
from tests.bridge.programs import nap


@pytest.mark.parametrize("runner", ["bridge.run", "Runner", "new loop"])
def test_it_follows_our_clock(vloop, runner):
    if runner == "bridge.run":
        assert bridge.run(nap(1000, "it")) == "it"
    elif runner == "Runner":
        with asyncio.Runner(loop_factory=bridge.EventLoop) as runner:
            assert runner.run(nap(500, "it")) == "it"
            assert runner.run(nap(500, "it")) == "it"
    else:
        loop = bridge.EventLoop()
        assert loop.run_until_complete(nap(1000, "it")) == "it"
        loop.close()
    assert vloop.clock() == 2000


def test_a_task_and_a_coroutine_that_never_rest_get_their_turns(vloop):
    log = []

    async def spins():
        while len(log) < 40:
            log.append("asyncio")
            await asyncio.sleep(0)

    def work():
        task = d.spawn(await_, spins())
        while not task.done:
            log.append("ours")
            d.sleep(0)

    d.run(work)
    assert log.count("asyncio") >= 5
    assert log.count("ours") >= 5


def test_sockets_of_both_sides_are_served_side_by_side(rloop):
    async def echo(reader, writer):
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def start():
        return await asyncio.start_server(echo, "127.0.0.1", 0)

    async def stop(server):
        server.close()
        await server.wait_closed()

    async def ask(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"from asyncio\n")
        answer = await reader.readline()
        writer.close()
        await writer.wait_closed()
        return answer

    def ours(sock):
        sock.write_all(sock.read_line())

    def work():
        server = await_(start())
        port = server.sockets[0].getsockname()[1]
        listener = d.serve(("127.0.0.1", 0), ours)
        with d.connect(("127.0.0.1", port)) as sock:
            sock.write_all(b"from us\n")
            answer = sock.read_line()
        other = await_(ask(listener.sock.getsockname()[1]))
        await_(stop(server))
        return answer, other

    assert d.run(work) == (b"from us\n", b"from asyncio\n")


@pytest.mark.parametrize("poller_class", available_pollers(), ids=lambda poller: poller.__name__)
def test_it_waits_by_any_poller(poller_class):
    near, far = socket.socketpair()
    with near, far, Loop(poller=poller_class()):
        near.setblocking(False)

        async def main():
            loop = asyncio.get_running_loop()
            loop.call_later(0.01, far.send, b"it")
            return await asyncio.wait_for(loop.sock_recv(near, 10), 5)

        assert bridge.run(main()) == b"it"


def test_a_run_that_is_over_at_once_serves_what_there_is(rloop):
    """Its first pass asks the kernel, however short it is: some programs run a loop briefly, again and again."""
    near, far = socket.socketpair()
    near.setblocking(False)
    heard = []
    loop = bridge.EventLoop()
    loop.add_reader(near, lambda: heard.append(near.recv(1)))
    for n in range(1, 6):
        far.send(b"x")
        loop.run_until_complete(asyncio.sleep(0))
        assert len(heard) == n
    loop.remove_reader(near)
    loop.close()
    near.close()
    far.close()
