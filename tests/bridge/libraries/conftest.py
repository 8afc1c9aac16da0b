"""Hostings on the real clock, and servers that all tests of libraries share."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from dangagreen.loop.loop import Loop
from tests.bridge.conftest import _host, _owned
from tests.bridge.libraries.company import Company
from tests.programs import needed

HOSTINGS = ["in run", "top-level code", "guest of asyncio", "guest of uvloop"]


@pytest.fixture(params=HOSTINGS)
def hosting(request):
    """Each way of living together, by name."""
    if request.param == "guest of uvloop":
        _host(request.param)(asyncio.sleep(0))  # what it opens once for all
    with _owned(Loop) as (_, errors):
        request.node.unhandled = errors
        yield request.param


@pytest.fixture
def in_company(ours):
    """`in_company(function)` calls it with a Company where it may park, and answers what it returns or raises."""

    def in_company(function):
        def body():
            with Company() as company:
                answer = function(company)
                company.go_on()
                return answer

        return ours(body)

    return in_company


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory):
    from redis_servers import real_redis

    with real_redis(tmp_path_factory.mktemp("redis")) as port:
        yield port


@pytest.fixture(scope="session")
def authority():
    """Who signs certificates."""
    return needed("trustme").CA()


@pytest.fixture(scope="session")
def server_tls(authority):
    """What a server on localhost needs for TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(scope="session")
def client_tls(authority):
    """What a client needs to trust that server."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context
