"""httpx from tasks, over TLS: pools, limits, requests that are cut off, certificates that nobody trusts."""

from __future__ import annotations

import ssl
from contextlib import contextmanager

import pytest

import dangagreen as d
from dangagreen.bridge import await_, to_task
from tests.bridge.libraries.company import made, results
from tests.programs import needed

httpx = needed("httpx")
web = needed("aiohttp.web")
pytestmark = pytest.mark.slow


@pytest.fixture
def client_of(client_tls):
    """`with client_of(connections) as client`: who trusts the server, and has so many connections."""

    @contextmanager
    def client_of(connections, **kwargs):
        limits = httpx.Limits(max_connections=connections)
        settings = {"verify": client_tls, "limits": limits, "timeout": None, "trust_env": False} | kwargs
        client = await_(made(httpx.AsyncClient, **settings))
        try:
            yield client
        finally:
            await_(client.aclose())

    return client_of


@pytest.fixture
def served(in_company, server_tls):
    """`served(handler, function)` calls it with a Company and the URL of an HTTPS server of that handler."""

    def served(handler, function):
        def body(company):
            runner = await_(
                made(lambda: web.ServerRunner(web.Server(handler, handler_cancellation=True), shutdown_timeout=0))
            )
            await_(runner.setup())
            try:
                await_(web.TCPSite(runner, "localhost", 0, ssl_context=server_tls).start())
                return function(company, f"https://localhost:{runner.addresses[0][1]}/")
            finally:
                await_(runner.cleanup())

        return in_company(body)

    return served


def test_many_tasks_share_a_pool(served, client_of):
    peers = set()

    async def handler(request):
        peers.add(request.transport.get_extra_info("peername"))
        return web.Response(text=request.path)

    def ask(client, url):
        return await_(client.get(url)).text

    def body(_company, url):
        with client_of(3) as client:
            return results([d.spawn(ask, client, f"{url}{n}") for n in range(20)])

    assert served(handler, body) == [f"/{n}" for n in range(20)]
    assert len(peers) <= 3


def test_a_request_waits_alone(served, client_of):
    def body(company, url):
        companies.append(company)
        with client_of(1) as client:
            return await_(client.get(url)).text

    companies = []

    async def handler(_request):
        await to_task(companies[0].go_on)
        return web.Response(text="late")

    assert served(handler, body) == "late"


def test_a_request_that_is_cut_off_leaves_the_pool_whole(served, client_of):
    asked = []

    async def handler(request):
        asked.append(request.path)
        await to_task(d.sleep, 3600 if request.path == "/slow" else 0)
        return web.Response(text=request.path)

    def body(company, url):
        with client_of(1) as client:
            for n in range(3):
                company.cut_off(client.get(f"{url}slow"), lambda: asked[-1:] == ["/slow"])
                assert await_(client.get(f"{url}{n}")).text == f"/{n}"
            with d.move_on_after(None) as scope, d.TaskGroup() as group:  # one of them waits for the only connection
                for _ in range(2):
                    group.spawn(await_, client.get(f"{url}slow"))
                company.expire(scope, lambda: asked[-1:] == ["/slow"])
            assert await_(client.get(f"{url}last")).text == "/last"

    served(handler, body)


def test_a_time_limit_of_httpx_is_an_error_in_the_task(served, client_of):
    async def handler(_request):
        await to_task(d.sleep, 3600)

    def body(_company, url):
        with client_of(1, timeout=httpx.Timeout(20, read=0.05)) as client:
            with d.timeout(20) as scope, pytest.raises(httpx.ReadTimeout):
                await_(client.get(url))
            assert not scope.cancelled

    served(handler, body)


def test_a_body_streams_through_a_task(served, client_of):
    piece, pieces = b"0123456789abcdef" * 4096, 50

    async def handler(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(pieces):
            await response.write(piece)
        return response

    def body(_company, url):
        with client_of(1) as client:
            response = await_(client.send(client.build_request("GET", url), stream=True))
            received, steps = 0, response.aiter_raw()
            while data := await_(anext(steps, b"")):
                received += len(data)
                d.sleep(0)
            await_(response.aclose())
            return received

    assert served(handler, body) == pieces * len(piece)


def test_a_certificate_that_nobody_trusts_is_an_error_in_the_task(served, client_of):
    async def handler(_request):
        raise AssertionError("it was asked")

    def body(_company, url):
        refused = pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED")
        with client_of(1, verify=ssl.create_default_context()) as client, refused:
            await_(client.get(url))

    served(handler, body)
