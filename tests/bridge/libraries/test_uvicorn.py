"""Starlette under uvicorn, with handlers that call tasks; asked by httpx from tasks."""

from __future__ import annotations

import contextlib
import threading

import pytest

import dangagreen as d
from dangagreen.bridge import await_, to_task
from tests.bridge.libraries.company import made, result, results
from tests.programs import needed

httpx = needed("httpx")
applications = needed("starlette.applications")
background = needed("starlette.background")
responses = needed("starlette.responses")
routing = needed("starlette.routing")
uvicorn = needed("uvicorn")
pytestmark = pytest.mark.slow


@pytest.fixture
def served(in_company):
    """`served(handlers, function)` calls it with a Company and a client of a server that has them by their paths."""

    def served(handlers, function, lifespan=None):
        def body(company):
            routes = [routing.Route(path, handler) for path, handler in handlers.items()]
            app = applications.Starlette(routes=routes, lifespan=lifespan)
            server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="on"))
            serving = d.spawn(await_, server.serve())
            try:
                company.until(lambda: server.started or serving.done)
                port = server.servers[0].sockets[0].getsockname()[1]
                url = f"http://127.0.0.1:{port}"
                client = await_(made(httpx.AsyncClient, base_url=url, timeout=None, trust_env=False))
                try:
                    return function(company, client)
                finally:
                    await_(client.aclose())
            finally:
                server.should_exit = True
                result(serving)

        return in_company(body)

    return served


def test_handlers_call_tasks(served):
    def work(n):
        d.sleep(0.001)
        return n * n

    async def square(request):
        return responses.PlainTextResponse(str(await to_task(work, int(request.path_params["n"]))))

    def body(_company, client):
        return [answer.text for answer in results([d.spawn(await_, client.get(f"/square/{n}")) for n in range(20)])]

    assert served({"/square/{n}": square}, body) == [str(n * n) for n in range(20)]


def test_a_request_waits_alone(served):
    companies = []

    async def late(_request):
        await to_task(companies[0].go_on)
        return responses.PlainTextResponse("late")

    def body(company, client):
        companies.append(company)
        return await_(client.get("/")).text

    assert served({"/": late}, body) == "late"


def test_a_handler_of_the_thread_pool(served):
    """Starlette runs what is no coroutine in a thread, which is not that of the loop."""
    threads = set()

    def plain(_request):
        threads.add(threading.get_ident())
        return responses.PlainTextResponse("from a thread")

    def body(_company, client):
        return await_(client.get("/")).text

    assert served({"/": plain}, body) == "from a thread"
    assert threads
    assert threading.get_ident() not in threads


def test_a_response_streams_what_tasks_make(served):
    """The generator goes on while the client reads: the queue between them has room for one."""
    queue = d.Queue(1)

    async def pieces():
        while (piece := await to_task(queue.get)) is not None:
            yield piece

    async def stream(_request):
        return responses.StreamingResponse(pieces())

    def produce():
        for n in range(50):
            queue.put(b"%d," % n)
        queue.put(None)

    def body(_company, client):
        producer = d.spawn(produce)
        text = await_(client.get("/")).text
        result(producer)
        return text

    assert served({"/": stream}, body) == "".join(f"{n}," for n in range(50))


def test_a_client_that_goes_ends_the_task_of_a_stream(served):
    ended = d.Event()

    def work():
        try:
            d.sleep(3600)
        finally:
            ended.set()

    async def pieces():
        yield b"begun"
        await to_task(work)

    async def stream(_request):
        return responses.StreamingResponse(pieces())

    async def read_a_piece(client):
        async with client.stream("GET", "/") as response:
            return await anext(response.aiter_raw())

    def body(_company, client):
        assert await_(read_a_piece(client)) == b"begun"
        with d.timeout(20):
            ended.wait()

    served({"/": stream}, body)


def test_tasks_of_the_lifespan_and_of_what_comes_after_the_response(served):
    """The lifespan serves a protocol of ours; its end is before that of the server."""
    log = []

    @contextlib.asynccontextmanager
    async def lifespan(_app):
        listener = d.serve(("127.0.0.1", 0), lambda sock: sock.write_all(sock.read_line()))
        yield {"address": listener.address}
        await to_task(listener.close)
        log.append("closed")

    def ask(address):
        with d.connect(address) as sock:
            sock.write_all(b"hello\n")
            return sock.read_line()

    async def handler(request):
        async def after():
            log.append(await to_task(ask, request.state.address))

        answer = await to_task(ask, request.state.address)
        return responses.Response(answer, background=background.BackgroundTask(after))

    def body(company, client):
        assert await_(client.get("/")).content == b"hello\n"
        company.until(lambda: log)

    served({"/": handler}, body, lifespan)
    assert log == [b"hello\n", "closed"]
