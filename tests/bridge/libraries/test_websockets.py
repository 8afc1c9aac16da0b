"""websockets from tasks: a server whose handlers call tasks, clients that are tasks."""

from __future__ import annotations

import pytest

import dangagreen as d
from dangagreen.bridge import await_, to_task
from tests.bridge.libraries.company import result, results
from tests.programs import needed

websockets = needed("websockets")
pytestmark = pytest.mark.slow


def slow_upper(message):
    d.sleep(0.001)
    return message.upper()


async def upper(connection):
    """It answers each message, by a task that may wait."""
    async for message in connection:
        await connection.send(await to_task(slow_upper, message))


@pytest.fixture
def served(in_company):
    """`served(handler, function)` calls it with a Company and a function that connects to a server of that handler."""

    def served(handler, function):
        async def begin():
            return await websockets.serve(handler, "127.0.0.1", 0)

        def body(company):
            server = await_(begin())
            port = server.sockets[0].getsockname()[1]

            async def connect():
                return await websockets.connect(f"ws://127.0.0.1:{port}")

            try:
                return function(company, connect)
            finally:
                server.close()
                await_(server.wait_closed())

        return in_company(body)

    return served


def test_tasks_talk_to_a_server(served):
    def talk(connect, name):
        connection = await_(connect())
        answers = []
        for n in range(5):
            await_(connection.send(f"{name}{n}"))
            answers.append(await_(connection.recv()))
        await_(connection.close())
        return answers

    def body(_company, connect):
        return results([d.spawn(talk, connect, name) for name in "abcdef"])

    assert served(upper, body) == [[f"{name}{n}" for n in range(5)] for name in "ABCDEF"]


def test_a_message_is_waited_for_alone(served):
    def body(company, connect):
        connection = await_(connect())
        waiting = company.waits(connection.recv())
        await_(connection.send("late"))
        assert result(waiting) == "LATE"
        await_(connection.close())

    served(upper, body)


def test_a_wait_that_is_cut_off_loses_no_message(served):
    def body(company, connect):
        connection = await_(connect())
        for n in range(5):
            company.cut_off(connection.recv())
            await_(connection.send(f"a{n}"))
            assert await_(connection.recv()) == f"A{n}"
        await_(connection.close())

    served(upper, body)


def test_one_who_is_cancelled_closes_its_connection(served):
    gone = []

    async def handler(connection):
        await connection.wait_closed()
        gone.append(connection.close_code)

    async def use(connect):
        async with await connect() as connection:
            await connection.recv()

    def body(company, connect):
        task = company.waits(use(connect))
        task.cancel()
        with pytest.raises(d.TaskCancelledError):
            result(task)
        company.until(lambda: gone)

    served(handler, body)
    assert gone == [1011]  # "internal error": its block has ended by an exception


def test_the_end_of_a_connection_reaches_the_task_that_reads(served):
    async def handler(connection):
        await connection.close(4321, "enough")

    def body(_company, connect):
        connection = await_(connect())
        with pytest.raises(websockets.ConnectionClosedError) as caught:
            await_(connection.recv())
        return caught.value.rcvd.code

    assert served(handler, body) == 4321


def test_much_is_sent_against_back_pressure(served):
    """A reader that is slow, since a task does the work, slows its writer down, and loses nothing."""
    heard = []

    async def handler(connection):
        async for message in connection:
            heard.append(len(await to_task(slow_upper, message)))

    def body(_company, connect):
        connection = await_(connect())
        for _ in range(40):
            await_(connection.send(b"x" * 100_000))
        await_(connection.close())

    served(handler, body)
    assert heard == [100_000] * 40
