"""aiohttp's client from tasks, and its server with handlers that call tasks."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

import dangagreen as d
from dangagreen.bridge import await_, to_task
from tests.bridge.libraries.company import made, result, results
from tests.programs import needed

aiohttp = needed("aiohttp")
web = needed("aiohttp.web")
pytestmark = pytest.mark.slow


@contextlib.contextmanager
def serving(handler):
    """A server of this handler; yields its URL."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = await_(made(web.AppRunner, app, handler_cancellation=True, shutdown_timeout=0))
    await_(runner.setup())
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await_(site.start())
    host, port = runner.addresses[0]
    try:
        yield f"http://{host}:{port}/"
    finally:
        await_(runner.cleanup())


@contextlib.contextmanager
def session_of(connections):
    """A client with a pool of so many connections."""

    async def begin():
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections))

    session = await_(begin())
    try:
        yield session
    finally:
        await_(session.close())


async def get(session, url):
    async with session.get(url) as response:
        return await response.text()


def test_tasks_ask_and_tasks_answer(in_company):
    """No more than three requests at a time, for that is how many connections the pool has."""
    at_once, most = 0, 0

    def work(path):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        d.sleep(0.002)
        at_once -= 1
        return f"{path} from a task"

    async def handler(request):
        return web.Response(text=await to_task(work, request.path))

    def body(_company):
        with serving(handler) as url, session_of(3) as session:
            return results([d.spawn(await_, get(session, f"{url}{n}")) for n in range(20)])

    assert in_company(body) == [f"/{n} from a task" for n in range(20)]
    assert most == 3


def test_a_request_waits_alone(in_company):
    """The handler answers when everybody has gone on."""

    def body(company):
        async def handler(_request):
            await to_task(company.go_on)
            return web.Response(text="late")

        with serving(handler) as url, session_of(1) as session:
            return await_(get(session, url))

    assert in_company(body) == "late"


def test_a_request_that_is_cut_off_ends_its_handler_and_the_task_of_that(in_company):
    """And the pool has its only connection again."""
    begun, ended = [], []

    def work(path):
        begun.append(path)
        try:
            d.sleep(3600 if path == "/slow" else 0)
        finally:
            ended.append(path)
        return path

    async def handler(request):
        return web.Response(text=await to_task(work, request.path))

    def body(company):
        with serving(handler) as url, session_of(1) as session:
            for n in range(3):
                company.cut_off(get(session, f"{url}slow"), lambda: begun[-1:] == ["/slow"])
                assert await_(get(session, f"{url}{n}")) == f"/{n}"
            company.until(lambda: ended.count("/slow") == 3)

    in_company(body)


def test_a_time_limit_of_aiohttp_is_an_error_in_the_task(in_company):
    async def handler(_request):
        await asyncio.sleep(3600)

    def body(_company):
        with serving(handler) as url, session_of(1) as session:
            limit = aiohttp.ClientTimeout(total=0.05)
            with d.timeout(20) as scope, pytest.raises(asyncio.TimeoutError):
                await_(session.get(url, timeout=limit))
            assert not scope.cancelled

    in_company(body)


def test_a_body_streams_through_a_task_in_both_directions(in_company):
    """Against back-pressure: several times of what the kernel and the buffers hold."""
    piece, pieces = b"0123456789abcdef" * 4096, 100

    async def handler(request):
        response = web.StreamResponse()
        await response.prepare(request)
        async for data in request.content.iter_any():
            await response.write(data)
        return response

    async def upload():
        for _ in range(pieces):
            yield piece

    def body(_company):
        with serving(handler) as url, session_of(1) as session:
            response = await_(session.post(url, data=upload()))
            received = 0
            while data := await_(response.content.readany()):
                received += len(data)
                d.sleep(0)
            return received

    assert in_company(body) == pieces * len(piece)


def test_a_refused_connection_is_an_error_in_the_task(in_company, free_address):
    def body(_company):
        with session_of(1) as session, pytest.raises(aiohttp.ClientConnectorError) as caught:
            await_(get(session, "http://{}:{}/".format(*free_address)))
        return caught.value.os_error

    assert isinstance(in_company(body), ConnectionRefusedError)


def test_a_handler_whose_task_fails_is_told_to_the_client(in_company):
    def work():
        raise web.HTTPConflict

    async def handler(_request):
        await to_task(work)

    def body(_company):
        with serving(handler) as url, session_of(1) as session:
            return await_(session.get(url)).status

    assert in_company(body) == 409


def test_messages_of_a_web_socket(in_company):
    async def handler(request):
        connection = web.WebSocketResponse()
        await connection.prepare(request)
        async for message in connection:
            await connection.send_str(await to_task(message.data.upper))
        return connection

    def body(company):
        with serving(handler) as url, session_of(1) as session:
            connection = await_(session.ws_connect(url))
            waiting = company.waits(connection.receive_str())
            await_(connection.send_str("hello"))
            assert result(waiting) == "HELLO"
            await_(connection.close())

    in_company(body)
